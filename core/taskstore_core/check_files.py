"""What `check` looks for in the files of a store: missing ones, permissions, links, the lock."""

import fcntl
import os
import stat
import time

from . import git, layout
from .errors import BusyError, ReadOnlyError
from .kinds import LOGS
from .lock import Lock
from .paths import Paths
from .problems import Problem, error, warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOKS = 20
_LOOK_S = 0.01


def look(paths: Paths) -> "Iterator[Problem]":
    """The problems of files and folders."""
    for folder in (paths.directory, paths.private):
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            yield error("no_permission", f"{folder} cannot be written by this user: the store is read-only",
                        f"chmod u+rwx {folder}, or run as {_owner(folder)}", file=folder)
    for name in (*LOGS, ".gitignore"):
        yield from _file(paths, name)
    for name in ("lock", "outbox", "leases.db"):
        path = paths.local(name)
        if os.path.lexists(path):
            yield from _access(path, path)
    yield from _ignored(paths)
    yield from _tracked(paths)
    yield from _lock(paths)


def mend(paths: Paths, found: list[Problem]) -> None:
    """Make the files that are missing, and complete .gitignore; what cannot be mended stays as it is."""
    names = {problem.name for problem in found}
    try:
        with Lock(paths.local("lock")):
            if "missing_file" in names and not paths.git_is_writing():
                layout.create(paths)
            if "not_ignored" in names:
                layout.complete_ignored(paths)
    except (OSError, ReadOnlyError, BusyError):
        return


def _file(paths: Paths, name: str) -> "Iterator[Problem]":
    path = paths.file(name)
    if not os.path.lexists(path):
        if name != "repo_state.jsonl":  # of this machine; made when it is needed
            yield warning("missing_file", f"{name} is missing; it is read as empty",
                          "restore it from git, or taskstore check --fix makes an empty one", file=name, fixable=True)
        return
    yield from _access(path, name)


def _access(path: str, name: str) -> "Iterator[Problem]":
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
        yield error("not_a_file", f"{path} is {what}; it is not written to", "put a regular file in its place",
                    file=name)
    elif not os.access(path, os.R_OK):
        yield error("no_permission", f"{path} cannot be read by this user",
                    f"chmod u+rw {path}, or run as {_owner(path)}", file=name)
    elif not os.access(path, os.W_OK):
        yield error("no_permission", f"{path} cannot be written by this user",
                    f"chmod u+rw {path}, or run as {_owner(path)}", file=name)


def _ignored(paths: Paths) -> "Iterator[Problem]":
    path = paths.file(".gitignore")
    missing = layout.missing_ignored(paths) if os.path.isfile(path) and not os.path.islink(path) else []
    if missing:
        yield warning("not_ignored", f".gitignore does not name {', '.join(missing)}: git add would take in what is of"
                      " this machine alone", "taskstore check --fix adds it", file=".gitignore", fixable=True)


def _tracked(paths: Paths) -> "Iterator[Problem]":
    path = paths.file("repo_state.jsonl")
    if paths.git_dir is not None and os.path.exists(path) and git.is_tracked(path, paths.git_dir):
        yield warning("tracked_state", "repo_state.jsonl is of this machine alone and git tracks it: it is read and"
                      " merged, but nothing is noted in it", f"git rm --cached {path}, and commit that",
                      file="repo_state.jsonl")


def _is_let_go(fd: int) -> bool:
    """Whether nobody has a lock, in one of several looks: who writes has it for some milliseconds."""
    for _ in range(_LOOKS):
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_S)
        else:
            return True
    return False


def _lock(paths: Paths) -> "Iterator[Problem]":
    path = paths.local("lock")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if not _is_let_go(fd):
            pid = _holder(path)
            by = f" by process {pid}" if pid else ""
            yield Problem("lock_held", "note", f"the store's lock is held{by} at this moment",
                          "nothing, unless it stays so: then end that process", file=path)
    except OSError as problem:
        yield error("no_lock", f"{path} cannot be locked: {problem.strerror}", "the file system must support flock",
                    file=path)
    finally:
        os.close(fd)


def _holder(path: str) -> str:
    """The process that holds a lock, as far as the kernel says."""
    status = os.stat(path)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with open("/proc/locks", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if "->" not in words and place in words and "WRITE" in words:
                return words[words.index("WRITE") + 1]
    return ""


def _owner(path: str) -> str:
    import pwd

    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
