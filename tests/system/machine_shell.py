"""What the machine runs as commands: `taskstore … --json`, which answers like any client, and git."""

import json
import os
import subprocess
from typing import Any

import pygit2
from tests.conftest import Site
from tests.system.model_log import LOGS, Refused

from taskstore.remote import plain
from taskstore_core.methods import METHODS

_WORDS = {"record.create": ["create"], "record.update": ["update"], "record.delete": ["delete"],
          "record.get": ["show"], "record.list": ["list"], "record.history": ["history"],
          "task_spec.ready": ["ready"], "task_spec.claim": ["claim"], "task_spec.complete": ["complete"],
          "task_spec.fail": ["fail"], "task_spec.release": ["release"]}
COMMANDS = frozenset(_WORDS)
_IDENTITY = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "rebase.autoSquash=false")


class CommandLine:
    """Method calls as commands: each is a process, whose standard output is the answer."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def call(self, method: str, parameters: "dict[str, Any]") -> Any:
        """The answer, or a Refused whose kind is the exit status."""
        words = list(_WORDS[method])
        for name in ("kind", "id"):
            words += [parameters[name]] if name in parameters else []
        fields = parameters.get("record") or parameters.get("set")
        if fields is not None:
            file = self._site.root.parent / "record"
            file.write_text(f"{json.dumps(fields)}\n")
            words += ["--file", os.fspath(file)]
        for name in ("op", "if_updated_at", "by", "token", "order", "limit"):
            words += [f"--{name.replace('_', '-')}={parameters[name]}"] if name in parameters else []
        done = self._site.cli(*words, "--json")
        if done.status and not (method == "task_spec.claim" and done.out.strip() == "null"):
            assert not done.out, done
            return Refused(f"status {done.status}")
        return plain(METHODS[method].answer, done.out.strip())

    def close(self) -> None:
        """There is nothing to close."""


class Git:
    """Git on the store's repository, with the hooks and the driver that are installed there."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.lock = site.root / ".git" / "index.lock"

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command, however it ends."""
        return subprocess.run(["git", *_IDENTITY, *words], cwd=self._site.root, check=False, capture_output=True,
                              text=True, env={**self._site.environment, "GIT_CONFIG_GLOBAL": os.devnull,
                                              "GIT_EDITOR": "true", "GIT_CONFIG_NOSYSTEM": "1"}, timeout=60)

    def __call__(self, *words: str) -> str:
        """Run a command that must succeed; what it says."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def commit_of(self, name: str = "HEAD") -> str:
        """The commit that a name leads to."""
        return str(self._opened().revparse_single(name).peel(pygit2.Commit).id)

    def base(self, one: str, other: str) -> str:
        """The commit from which two have parted."""
        found = self._opened().merge_base(self.commit_of(one), self.commit_of(other))
        assert found is not None
        return str(found)

    def logs(self, name: str = "HEAD") -> dict[str, bytes]:
        """The bytes of every log in a commit."""
        tree = self._opened().revparse_single(name).peel(pygit2.Tree)[".taskstore"]
        assert isinstance(tree, pygit2.Tree)
        found = {}
        for kind, log in LOGS.items():
            blob = tree[log]
            assert isinstance(blob, pygit2.Blob)
            found[kind] = blob.data
        return found

    def _opened(self) -> pygit2.Repository:
        return pygit2.Repository(os.fspath(self._site.root))
