"""Which branch the store's worktree is on: by pygit2 where it can read the repository, by git where it cannot."""

import subprocess

import pygit2

from taskstore_core.paths import Paths


class Head:
    """HEAD of the worktree that holds the store."""

    def __init__(self, paths: Paths) -> None:
        self._git_dir = paths.git_dir
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
                head = self._repository.lookup_reference("HEAD")
                return str(head.target).removeprefix("refs/heads/")
            except (pygit2.GitError, KeyError, ValueError):
                self._repository = None
        return self._ask_git()

    def _ask_git(self) -> str:
        for words in (("symbolic-ref", "--short", "-q", "HEAD"), ("rev-parse", "-q", "HEAD")):
            done = subprocess.run(["git", f"--git-dir={self._git_dir}", *words], capture_output=True, check=False)
            if not done.returncode:
                return done.stdout.decode(errors="replace").strip()
        return ""
