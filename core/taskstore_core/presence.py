"""Whether a daemon serves a store, which process it is, and where it listens: told by its lock, never by a pid file.

A pid in a file may long belong to a stranger. The lock is an flock that the daemon holds for as long as it lives, on a
file that is never deleted, so the kernel knows whether there is one and who it is.
"""

import os

from .errors import ReadOnlyError
from .sockets import socket_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .paths import Paths

LOCK = "daemon.lock"
PLACE = "daemon.socket"
"""Holds the socket's path, for whoever runs under another XDG_RUNTIME_DIR or TMPDIR than the daemon.

A symbolic link would do, but programs that copy a repository follow it, and fail at the socket.
"""
LOG = "daemon.log"
FAILED = "daemon.failed"
"""Why the last start failed; its time says when."""


def sockets(paths: "Paths", environ: "Mapping[str, str]") -> list[str]:
    """The sockets there are at which the store's daemon may listen, the likeliest first; all may be dead ones'."""
    try:
        computed = socket_path(paths.directory, environ)
    except ReadOnlyError:
        return []  # no place for one
    noted = _noted(paths)
    if os.path.basename(noted) != os.path.basename(computed):
        noted = computed  # a copied repository brings the note along, and its original's socket is not ours
    return [path for path in dict.fromkeys((computed, noted)) if os.path.exists(path)]


def _noted(paths: "Paths") -> str:
    try:
        fd = os.open(paths.local(PLACE), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        return os.fsdecode(os.read(fd, 1024)).replace("\0", "")
    except OSError:
        return ""
    finally:
        os.close(fd)


def is_held(paths: "Paths") -> bool:
    """Whether some process, in whichever namespace, holds the daemon's lock."""
    import fcntl

    try:
        fd = os.open(paths.local(LOCK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class Holder:
    """The process that holds a daemon's lock, by a descriptor, so that no other process can take its place."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd

    def signal(self, *numbers: int) -> None:
        """Send signals to it; one that is gone is no error."""
        import signal

        for number in numbers:
            try:
                signal.pidfd_send_signal(self._fd, number)
            except ProcessLookupError:
                return

    def has_ended(self, within_s: float) -> bool:
        """Wait for its end."""
        import select

        return bool(select.select([self._fd], [], [], within_s)[0])

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._fd)


def holder(paths: "Paths") -> Holder | None:
    """Who holds the daemon's lock; None for nobody, and for a process that this one cannot see."""
    try:
        status = os.stat(paths.local(LOCK))
        with open("/proc/locks", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return None
    for row in rows:  # "1: FLOCK ADVISORY WRITE 1234 08:01:131 0 EOF"; some file systems have another device here
        if row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(status.st_ino):
            found = _confirmed(int(row[4]), (status.st_dev, status.st_ino))
            if found is not None:
                return found
    return None


def _confirmed(pid: int, lock: tuple[int, int]) -> Holder | None:
    """The process, if it has the lock's file open."""
    try:
        fd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return None
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                status = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == lock:
                return Holder(pid, fd)
    except OSError:
        pass
    os.close(fd)
    return None
