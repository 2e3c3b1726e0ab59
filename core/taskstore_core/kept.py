"""Descriptors that a process which lives long keeps open: that of the lock, and those of the logs.

Each is used only while its path still leads to it, so that keeping it is no less safe than opening it anew. It is for
processes that never fork without exec: a child would share the lock, and hold it when its parent is gone.
"""

import fcntl
import os

from .paths import Paths
from .quiet import Quiet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .log import Log


class KeptLock:
    """The store's lock on a descriptor that stays open, for one pass at a time."""

    def __init__(self, path: str) -> None:
        import threading  # takes 3 ms, of which who only reads need not know

        self._path = path
        self._fd = -1
        self._identity = (0, 0)
        self._in_use = threading.Lock()

    def take(self) -> bool:
        """Whether the lock is ours now; else it must be got in the ordinary way, which says why not."""
        if not self._in_use.acquire(blocking=False):
            return False
        try:
            there = os.stat(self._path)
            if (there.st_dev, there.st_ino) != self._identity:
                self._open()
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._in_use.release()
            return False
        return True

    def give_back(self) -> None:
        """End the pass."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._in_use.release()

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._identity = -1, (0, 0)

    def _open(self) -> None:
        self.close()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        there = os.fstat(self._fd)
        self._identity = (there.st_dev, there.st_ino)


class Logs:
    """The logs of one store, opened to be appended to; with `keep` they stay open."""

    def __init__(self, paths: Paths, quiet: Quiet, *, keep: bool) -> None:
        self.quiet = quiet
        self._paths = paths
        self._keep = keep
        self._kept: dict[str, Log] = {}

    def open(self, name: str) -> "Log":
        """The log of this name, created where missing; see `Log` for what is raised."""
        kept = self._kept.pop(name, None)
        if kept is not None:
            if kept.is_in_place():
                return kept
            kept.close()
        from .log import Log

        return Log(self._paths.file(name), lambda: not self.quiet.is_busy())

    def done(self, log: "Log") -> None:
        """Take back a log that is not needed for the moment."""
        name = os.path.basename(log.path)
        if self._keep and name not in self._kept:
            self._kept[name] = log
        else:
            log.close()

    def close(self) -> None:
        """Let go of all."""
        for log in self._kept.values():
            log.close()
        self._kept.clear()
