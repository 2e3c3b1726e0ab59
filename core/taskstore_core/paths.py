"""Where a store and its private files live; reads the file system, runs no command unless it must, creates nothing.

One repository has one store: `.taskstore` in the main worktree, whichever linked worktree or subfolder the search
begins in. What git must never touch (lock, outbox) lies in the common git dir, or in `.taskstore/.local` where
there is no git.
"""

import os

from .errors import NoStoreError

STORE = ".taskstore"


class Paths:
    """The places of one store. `git_dir` is the common git dir, None outside git."""

    __slots__ = ("directory", "git_dir", "private")

    def __init__(self, directory: str, git_dir: str | None = None) -> None:
        self.directory = directory
        self.git_dir = git_dir
        self.private = _private(directory, git_dir)

    def file(self, name: str) -> str:
        """A file that belongs to the work tree."""
        return f"{self.directory}/{name}"

    def local(self, name: str) -> str:
        """A file that belongs to this machine alone."""
        return f"{self.private}/{name}"

    def git_is_writing(self) -> bool:
        """Whether a git command holds the main worktree's index lock, so that it may be creating files."""
        return self.git_dir is not None and os.path.exists(f"{self.git_dir}/index.lock")


def discover(start: str) -> Paths:
    """The store that a process standing in `start` means, whether or not it exists yet.

    Raises NoStoreError where git has no main worktree to hold one, or `start` is no folder.
    """
    start = os.path.realpath(start)
    if not os.path.isdir(start):
        raise NoStoreError(f"{start} is not a folder")
    folder = start
    while True:
        if os.path.lexists(f"{folder}/.git"):
            git_dir, top = _repository(folder)
            return Paths(f"{top}/{STORE}", git_dir)
        if os.path.exists(f"{folder}/{STORE}/.version"):
            return Paths(f"{folder}/{STORE}")
        parent = os.path.dirname(folder)
        if parent == folder:
            return Paths(f"{start}/{STORE}")
        folder = parent


def named(directory: str) -> Paths:
    """The store in `directory`, or in its `.taskstore` where only that holds one."""
    directory = os.path.realpath(directory)
    if not os.path.exists(f"{directory}/.version") and os.path.exists(f"{directory}/{STORE}/.version"):
        directory = f"{directory}/{STORE}"
    folder = directory
    while folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        if os.path.lexists(f"{folder}/.git"):
            return Paths(directory, _common_dir(folder))
    return Paths(directory)


def _private(directory: str, git_dir: str | None) -> str:
    if git_dir is None:
        return f"{directory}/.local"
    top = os.path.dirname(git_dir)
    if directory == f"{top}/{STORE}" or os.path.basename(git_dir) != ".git":
        return f"{git_dir}/taskstore"
    # A second store in one repository: told apart by its place relative to the first, so that both may move.
    return f"{git_dir}/taskstore/{os.path.relpath(directory, top).replace('%', '%25').replace('/', '%2F')}"


def _repository(folder: str) -> tuple[str, str]:
    """The common git dir and the main worktree of the repository whose worktree begins at `folder`."""
    common = _common_dir(folder)
    linked = os.path.isfile(f"{folder}/.git") and os.path.isfile(f"{_git_dir(folder)}/commondir")
    if not linked:
        return common, folder
    if os.path.basename(common) == ".git":
        return common, os.path.dirname(common)
    return common, _configured_worktree(common)


def _common_dir(folder: str) -> str:
    git_dir = _git_dir(folder)
    try:
        with open(f"{git_dir}/commondir", encoding="utf-8", errors="surrogateescape") as file:
            return os.path.realpath(os.path.join(git_dir, file.readline().rstrip("\n")))
    except FileNotFoundError:
        return git_dir


def _git_dir(folder: str) -> str:
    """Where `.git` leads: itself, or what a `gitdir:` file names (linked worktrees, submodules)."""
    path = f"{folder}/.git"
    if os.path.isdir(path):
        return os.path.realpath(path)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            first = file.readline().rstrip("\n")
    except OSError as error:
        raise NoStoreError(f"cannot read {path}: {error.strerror}") from None
    if not first.startswith("gitdir: "):
        raise NoStoreError(f"{path} is neither a git folder nor a link to one")
    git_dir = os.path.realpath(os.path.join(folder, first.removeprefix("gitdir: ")))
    if not os.path.isdir(git_dir):
        raise NoStoreError(f"{path} leads to {git_dir}, which does not exist",
                           hint="git worktree repair, or name a store with --store")
    return git_dir


def _configured_worktree(common: str) -> str:
    """The main worktree of a git dir that lies outside it (a submodule's, `--separate-git-dir`): git knows."""
    import subprocess

    config = subprocess.run(["git", "config", "--file", f"{common}/config", "core.worktree"],
                            capture_output=True, text=True, check=False)
    if config.returncode:
        raise NoStoreError(f"{common} has no main worktree that could hold the store",
                           hint="name a store with --store DIR")
    return os.path.realpath(os.path.join(common, config.stdout.rstrip("\n")))
