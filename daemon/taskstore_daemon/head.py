"""Which branch the store's worktree is on, and whether git is at work there.

By pygit2 where it can read the repository, by git where it cannot.
"""

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pygit2

from taskstore_core import git
from taskstore_core.paths import Paths
from taskstore_core.signature import is_racy, look, stamping_ns

if TYPE_CHECKING:
    from taskstore_core.signature import Signature

_QUIET_S = 0.1
_STALE_S = 5.0


class Head:
    """HEAD of the worktree that holds the store."""

    def __init__(self, paths: Paths) -> None:
        self._git_dir = paths.git_dir
        self._known = ""
        self._signatures: list[Signature] = []
        self._repository: pygit2.Repository | None = None
        if paths.git_dir is not None:
            try:
                self._repository = pygit2.Repository(paths.git_dir)
            except (pygit2.GitError, KeyError, ValueError):  # sha256, reftable, a partial clone, another user's
                self._repository = None

    def branch(self) -> str:
        """The name of the branch, the commit of a detached HEAD, or "" outside git."""
        if self._git_dir is None:
            return ""
        if self._repository is not None:
            try:
                return str(self._repository.lookup_reference("HEAD").target).removeprefix("refs/heads/")
            except (pygit2.GitError, KeyError, ValueError):
                self._repository = None
        looked_at = stamping_ns()
        signatures = [look(f"{self._git_dir}/{name}") for name in ("HEAD", "reftable/tables.list")]
        if signatures != self._signatures:  # git takes some milliseconds
            self._known = self._ask_git()
            self._signatures = [] if any(is_racy(one, looked_at) for one in signatures) else signatures
        return self._known

    def distance(self, base: str, commit: str) -> tuple[int, int] | None:
        """(commits that `commit` has and `base` has not, the other way round); None where that cannot be told."""
        if self._git_dir is None:
            return None
        if self._repository is not None:
            try:
                return self._repository.ahead_behind(commit, base)
            except (pygit2.GitError, KeyError, ValueError):  # a commit that is gone, or more than it can read
                pass
        return git.distance(self._git_dir, base, commit)

    def _ask_git(self) -> str:
        for words in (("symbolic-ref", "--short", "-q", "HEAD"), ("rev-parse", "-q", "HEAD")):
            done = subprocess.run(["git", f"--git-dir={self._git_dir}", *words], capture_output=True, check=False)
            if not done.returncode:
                return done.stdout.decode(errors="replace").strip()
        return ""

    def is_busy(self) -> bool:
        """Whether a git command changes the worktree now, or may have done so and not yet said so in HEAD.

        It writes the files, then the index, then HEAD. An index.lock that lies there for long is a dead command's.
        """
        if self._git_dir is None:
            return False
        ages = (("index.lock", _STALE_S), ("index", _QUIET_S))
        return any(_age_s(f"{self._git_dir}/{name}") < limit for name, limit in ages)


def _age_s(path: str) -> float:
    try:
        return abs(time.time() - os.stat(path).st_mtime)
    except OSError:
        return float("inf")
