"""Where in a clone things of ours go: git says so, for every shape of repository and of configuration."""

import os

from taskstore_core.errors import NoStoreError
from taskstore_core.layout import IGNORED
from taskstore_core.paths import HOME, Paths, bare_home, bare_worktree, discover

from .git import Git, GitError
from .scripts import DRIVER, find_program, interpreter_of


class Place:
    """The clone that holds a store. `hook_folders` is empty where the store is not the one that hooks would find."""

    def __init__(self, paths: Paths, start: str, programs: "Programs") -> None:
        """Look where things go, for the store's worktree and the one that `start` lies in; raises GitError."""
        if paths.worktree is None:
            raise GitError(f"{paths.directory} is in no git repository", hint="git init makes one")
        self.paths = paths
        self.programs = programs
        self.git = Git(paths.worktree)
        self.exclude = self._git_path(self.git, "info/exclude")
        self.attributes = paths.file(".gitattributes")
        self.relative = os.path.relpath(paths.directory, paths.worktree)
        self.hook_folders = self._hook_folders(start) if self._is_found(paths) else []

    @staticmethod
    def _is_found(paths: Paths) -> bool:
        try:
            return discover(paths.worktree or "").directory == paths.directory
        except NoStoreError:
            return False

    def _hook_folders(self, start: str) -> list[str]:
        """The folder of the store's worktree, and of ours: a relative core.hooksPath is another one in each."""
        folders = [self._git_path(self.git, "hooks")]
        status, top, _ = Git(start).run("rev-parse", "--show-toplevel")
        if not status and top:
            here = Git(top.removesuffix("\n"))
            if _common_dir(here) == _common_dir(self.git):
                folders.append(self._git_path(here, "hooks"))
        return list(dict.fromkeys(folders))

    @staticmethod
    def _git_path(git: Git, name: str) -> str:
        return os.path.normpath(os.path.join(git.folder, git.ask("rev-parse", "--git-path", name)))

    @property
    def patterns(self) -> bytes:
        """What git is to ignore of the store, also on a branch that has no .taskstore/.gitignore; b"" outside."""
        if self.relative.startswith(".."):
            return b""
        folder = "".join(f"\\{char}" if char in "\\*?[ " else char for char in self.relative)
        return os.fsencode("".join(f"/{folder}/{pattern}\n" for pattern in IGNORED))


class Programs:
    """The absolute paths of our programs, as git runs them; `interpreter` is "" where it cannot be called itself."""

    def __init__(self, argv0: str, interpreter: str) -> None:
        self.taskstore = find_program("taskstore", argv0, interpreter)
        self.interpreter = interpreter_of(self.taskstore, interpreter)
        self.driver = find_program(DRIVER, argv0, interpreter)


def settle_home(start: str) -> None:
    """In a worktree of a bare repository that has no store yet, make this worktree the one that holds it.

    Raises GitError. Everywhere else there is nothing to settle.
    """
    found = bare_worktree(start)
    if found is None:
        return
    worktree, common = found
    try:
        if bare_home(common):
            return
    except NoStoreError:
        pass  # it is gone: this one takes its place
    Git(worktree).set(HOME, os.path.relpath(worktree, common))


def _common_dir(git: Git) -> str:
    return os.path.realpath(os.path.join(git.folder, git.ask("rev-parse", "--git-common-dir")))
