"""Where a store and its private files live; reads the file system, runs no command unless it must, creates nothing.

One repository has one store: `.taskstore` in the main worktree, whichever linked worktree or subfolder the search
begins in. What git must never touch (lock, outbox) lies in the common git dir, or in `.taskstore/.local` where
there is no git.
"""

import os

from .errors import NoStoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STORE = ".taskstore"
HOME = "taskstore.home"
"""In the configuration of a bare repository: its worktree that holds the store, seen from its git dir."""


class Paths:
    """The places of one store. `worktree` is the one which holds it, `git_dir` is its; None outside git."""

    __slots__ = ("directory", "git_dir", "private", "worktree")

    def __init__(self, directory: str, worktree: str | None = None, git_dir: str | None = None) -> None:
        self.directory = directory
        self.worktree = worktree
        self.git_dir = git_dir
        if git_dir is None or os.path.exists(f"{directory}/.local/outbox"):  # git came later: two outboxes lose lines
            self.private = f"{directory}/.local"
        elif directory == f"{worktree}/{STORE}":
            self.private = f"{_keeping(worktree, git_dir)}/taskstore"
        else:  # a second store in one worktree, told apart by its place there, so that both may move
            place = os.path.relpath(directory, worktree).replace("%", "%25").replace("/", "%2F")
            self.private = f"{git_dir}/taskstore/at/{place}"

    def file(self, name: str) -> str:
        """A file that belongs to the work tree."""
        return f"{self.directory}/{name}"

    def local(self, name: str) -> str:
        """A file that belongs to this machine alone."""
        return f"{self.private}/{name}"

    def git_is_writing(self) -> bool:
        """Whether a git command holds the index lock of the store's worktree, so that it may be creating files."""
        return self.git_dir is not None and os.path.exists(f"{self.git_dir}/index.lock")


def discover(start: str) -> Paths:
    """The store that a process standing in `start` means, whether or not it exists yet.

    Raises NoStoreError where git has no main worktree to hold one, or `start` is no folder.
    """
    start = os.path.realpath(start)
    if not os.path.isdir(start):
        raise NoStoreError(f"{start} is not a folder")
    nearest = None
    for folder in _upwards(start):
        if os.path.lexists(f"{folder}/.git"):
            top = _main_worktree(folder)
            if os.path.islink(f"{top}/{STORE}"):
                return named(f"{top}/{STORE}")
            return Paths(f"{top}/{STORE}", top, _git_dir(top))
        if _is_git_dir(folder) and (os.path.basename(folder) != ".git" or _is_bare(folder)):
            home = bare_home(folder) if _is_bare(folder) else ""
            if not home:
                raise NoStoreError(f"{folder} is a git folder, with no work tree that could hold the store",
                                   hint="go to a worktree, or name a store with --store DIR")
            return Paths(f"{home}/{STORE}", home, _git_dir(home))
        if nearest is None and os.path.exists(f"{folder}/{STORE}/.version"):
            nearest = folder
    return Paths(os.path.realpath(f"{nearest or start}/{STORE}"))


def named(directory: str) -> Paths:
    """The store in `directory`, or in its `.taskstore` where only that holds one."""
    directory = os.path.realpath(directory)
    if not os.path.exists(f"{directory}/.version") and os.path.exists(f"{directory}/{STORE}/.version"):
        directory = f"{directory}/{STORE}"
    for folder in _upwards(os.path.dirname(directory)):
        if os.path.lexists(f"{folder}/.git"):
            return Paths(directory, folder, _git_dir(folder))
    return Paths(directory)


def _upwards(folder: str) -> "Iterator[str]":
    """`folder` and every folder above it."""
    while True:
        yield folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return
        folder = parent


def bare_worktree(start: str) -> tuple[str, str] | None:
    """The worktree that `start` lies in and its common git dir, if that is a bare repository's; else None."""
    for folder in _upwards(os.path.realpath(start)):
        if os.path.lexists(f"{folder}/.git"):
            git_dir = _git_dir(folder)
            common = _common_dir(git_dir) if os.path.isfile(f"{git_dir}/commondir") else None
            return (folder, common) if common is not None and _is_bare(common) else None
    return None


def bare_home(common: str) -> str:
    """The worktree that `taskstore.home` in the configuration of a bare repository names; "" where it names none.

    Raises NoStoreError where that worktree is gone.
    """
    named_there = _git("config", "--file", f"{common}/config", HOME)
    home = os.path.realpath(os.path.join(common, named_there)) if named_there else ""
    if home and not os.path.lexists(f"{home}/.git"):
        raise NoStoreError(f"{HOME} of {common} names {home}, which is no worktree",
                           hint="taskstore init in another worktree makes that one the store's")
    return home


def _keeping(worktree: str | None, git_dir: str) -> str:
    """The git dir that keeps private files: a worktree's own, but the common one where a bare repository's store is.

    `git worktree remove` deletes the former, and discovery and `--store` must come to the same lock.
    """
    if not os.path.isfile(f"{git_dir}/commondir"):
        return git_dir
    common = _common_dir(git_dir)
    try:
        return common if _is_bare(common) and bare_home(common) == worktree else git_dir
    except NoStoreError:
        return git_dir


def _main_worktree(folder: str) -> str:
    """The worktree that holds the store of the repository which has a worktree at `folder`."""
    git_dir = _git_dir(folder)
    if os.path.isfile(f"{git_dir}/commondir"):
        common = _common_dir(git_dir)
        if os.path.basename(common) == ".git" and not _is_bare(common):
            return os.path.dirname(common)
    elif _is_bare(git_dir):  # a bare repository that is called ".git", or named by a file of that name
        common = git_dir
    else:
        return folder
    return _configured_worktree(common)


def _is_git_dir(folder: str) -> bool:
    return (os.path.isfile(f"{folder}/HEAD") and os.path.isdir(f"{folder}/objects")
            and os.path.isdir(f"{folder}/refs"))


def _is_bare(git_dir: str) -> bool:
    """Whether a git dir has no main worktree. An index or the configuration says it; else git does, in 3 ms."""
    if os.path.exists(f"{git_dir}/index") or _says_it_is_not(git_dir):
        return False
    return _git(f"--git-dir={git_dir}", "rev-parse", "--is-bare-repository") == "true"  # hooks have a GIT_DIR


def _says_it_is_not(git_dir: str) -> bool:
    """Whether the configuration says it has a main worktree, as git writes it into every new one that does."""
    try:
        with open(f"{git_dir}/config", "rb") as file:
            content = file.read()
    except OSError:
        return False
    return b"\n\tbare = false\n" in content and b"worktreeconfig" not in content.lower()


def _git(*arguments: str) -> str:
    """What a git command prints; "" where it fails or there is no git."""
    import subprocess

    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except OSError:
        return ""
    return os.fsdecode(done.stdout).rstrip("\n") if not done.returncode else ""


def _common_dir(git_dir: str) -> str:
    with open(f"{git_dir}/commondir", encoding="utf-8", errors="surrogateescape") as file:
        return os.path.realpath(os.path.join(git_dir, file.readline().rstrip("\n")))


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
    """The worktree of a git dir that lies outside it (a submodule's, `--separate-git-dir`, a bare one): git knows."""
    worktree = _git("config", "--file", f"{common}/config", "core.worktree")
    if worktree:
        return os.path.realpath(os.path.join(common, worktree))
    is_bare = _is_bare(common)
    home = bare_home(common) if is_bare else ""
    if not home:
        raise NoStoreError(f"{common} has no main worktree that could hold the store",
                           hint=f"{'taskstore init in one of its worktrees makes it one, or ' if is_bare else ''}"
                                "name a store with --store DIR")
    return home
