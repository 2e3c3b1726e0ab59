"""Clones with a store in them, worked on with the real git and the program as it is installed."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

NAME = "-a b 'ä\"日本$x%A"
"""Whatever breaks careless programs, in one name."""
PROGRAM = os.path.join(sysconfig.get_path("scripts"), "taskstore")
HOOKS = ("pre-commit", "post-merge", "post-rewrite", "pre-push", "post-checkout")
PATIENCE_S = 60.0


class Clone:
    """A clone. `run` and `git` stand in `top` if nothing else is said; no configuration of the machine counts."""

    def __init__(self, top: Path, home: Path) -> None:
        self.top = top
        home.mkdir(exist_ok=True)
        self.environment = {name: value for name, value in os.environ.items()
                            if not name.startswith(("GIT_", "TASKSTORE_", "PYTHON"))}
        self.environment |= {
            "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_AUTHOR_NAME": "N", "GIT_AUTHOR_EMAIL": "e@x", "GIT_COMMITTER_NAME": "N", "GIT_COMMITTER_EMAIL": "e@x",
            "TMPDIR": str(home), "XDG_RUNTIME_DIR": str(home)}
        (home / ".gitconfig").write_text('[init]\n\tdefaultBranch = main\n[protocol "file"]\n\tallow = always\n')

    @property
    def store(self) -> Path:
        return self.top / ".taskstore"

    @property
    def hooks(self) -> Path:
        return self.top / ".git" / "hooks"

    def git(self, *words: str, at: Path | None = None, check: bool = True,
            **variables: str) -> "subprocess.CompletedProcess[str]":
        return self._run(["git", *words], at, check=check, variables=variables)

    def run(self, *words: str, at: Path | None = None, check: bool = True,
            **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the command line, which has to succeed if nothing else is said."""
        return self._run([PROGRAM, *words], at, check=check, variables=variables)

    def _run(self, command: list[str], at: Path | None, *, check: bool,
             variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(command, cwd=at or self.top, env={**self.environment, **variables}, capture_output=True,
                              text=True, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def make(self, *words: str) -> "Clone":
        """The repository, with one commit."""
        self.top.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", *words)
        (self.top / "file").write_text("x\n")
        self.git("add", "file")
        self.git("commit", "-qm", "first")
        return self

    def commit(self, *words: str, at: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """An empty commit, with all hooks."""
        return self.git("commit", "-q", "--allow-empty", "-m", "x", *words, at=at)

    def write(self, log: str, *lines: str) -> None:
        """Append lines to a log, as git or an editor would: past every cache."""
        with (self.store / log).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def hook(self, name: str, text: str | bytes, mode: int = 0o755, folder: Path | None = None) -> Path:
        """A hook of the user's own."""
        path = (folder or self.hooks) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path


def record(key: str, stamp: int = 5, title: str = "t") -> str:
    """A line of a PRD."""
    return f'{{"id":"{key}","title":"{title}","updated_at":{stamp}}}'


def files_of(*folders: Path) -> dict[str, tuple[bytes, int]]:
    """Content and mode of every file below folders, and the folders themselves."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[str(path)] = (content, path.lstat().st_mode)
    return found


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A repository with a commit, under a name that programs have to be careful with, and no store yet."""
    return Clone(tmp_path / NAME / "repo", tmp_path / "home").make()


@pytest.fixture
def tied(clone: Clone) -> Clone:
    """One with a store that is committed, and everything installed."""
    clone.run("init")
    clone.git("add", ".taskstore")
    clone.commit()
    return clone


@pytest.fixture(scope="session")
def shells() -> list[str]:
    """The shells that hooks are run by, as far as they are here."""
    found = [path for name in ("dash", "bash", "sh") if (path := shutil.which(name))]
    assert found
    return found
