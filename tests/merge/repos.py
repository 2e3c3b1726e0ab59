"""Real git repositories with a store, with the merge driver registered or without, for tests of merging."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.merge.logs import State, live, log

from taskstore_core.kinds import KINDS
from taskstore_core.store import Store

DRIVER = f"{shlex.quote(sys.executable)} -m taskstore_merge %O %A %B %L %P"
_IDENTITY = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
             for what, value in (("NAME", "T"), ("EMAIL", "t@example.org"))}
ENVIRONMENT = {**{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "TASKSTORE_"))},
               **_IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}


class Done:
    """How a git command ended and what it said."""

    def __init__(self, done: "subprocess.CompletedProcess[bytes]") -> None:
        self.status = done.returncode
        self.out = done.stdout.decode(errors="replace")
        self.err = done.stderr.decode(errors="replace")

    def __repr__(self) -> str:
        return f"status {self.status}\n{self.out}\n{self.err}"


class Repo:
    """A repository with a store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def make(cls, root: Path, *, driver: str | None = DRIVER) -> "Repo":
        """A new one with an empty store in its first commit."""
        root.mkdir(parents=True)
        repo = cls(root)
        repo.git("init", "-q", "--template=", "-b", "main")
        Store.create(os.fspath(root))[0].close()
        repo.register(driver)
        repo.commit("the store")
        return repo

    def register(self, driver: str | None) -> None:
        """Tell git of the merge driver, as installing the hooks will; with None, of none."""
        if driver is not None:
            (self.root / ".taskstore" / ".gitattributes").write_text("*.jsonl merge=taskstore-merge -text\n")
            self.git("config", "merge.taskstore-merge.name", "TaskStore")
            self.git("config", "merge.taskstore-merge.driver", driver)

    def clone(self, root: Path, *, driver: str | None = DRIVER) -> "Repo":
        """A clone of it, with its own driver."""
        self.git("clone", "-q", "--template=", os.fspath(self.root), os.fspath(root))
        repo = Repo(root)
        repo.register(driver)
        return repo

    def run(self, *words: str) -> Done:
        """Run a git command, however it ends."""
        return Done(subprocess.run(["git", *words], cwd=self.root, capture_output=True, env=ENVIRONMENT, check=False))

    def git(self, *words: str) -> str:
        """Run a git command that must succeed; what it says."""
        done = self.run(*words)
        assert done.status == 0, (words, done)
        return done.out

    def commit(self, message: str) -> str:
        """Commit everything, once every line stands in its log; the commit."""
        with self.open() as store:
            assert store.flush(60)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def path(self, kind: str = "prd") -> Path:
        return self.root / ".taskstore" / KINDS[kind].log

    def read(self, kind: str = "prd") -> bytes:
        return self.path(kind).read_bytes()

    def append(self, *lines: bytes, message: str = "more") -> str:
        """Append lines to the log of PRDs and commit; the commit."""
        self.path().write_bytes(self.read() + log(*lines))
        return self.commit(message)

    def logs(self) -> dict[str, bytes]:
        """The bytes of every log."""
        return {kind: self.read(kind) for kind in KINDS}

    def seen(self) -> dict[str, State]:
        """What readers see of every kind."""
        return {name: live(self.read(name), kind) for name, kind in KINDS.items()}

    def open(self) -> Store:
        return Store.open(os.fspath(self.root))

    def markers(self) -> bool:
        """Whether any log holds conflict markers."""
        return any(data.startswith(b"<<<<<<<") or b"\n<<<<<<<" in data for data in self.logs().values())
