"""The store's lock: one flock on a file that is never deleted, held for one pass over the store.

Never a data file (git replaces those) and never a pid file (pids are reused). The descriptor is opened for each
pass: a forked child that inherited a kept one would share its lock.
"""

import fcntl
import os

from .errors import BusyError, ReadOnlyError
from .files import create_folder, share_like_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from .kept import KeptLock

WAIT_S = 5.0


class Lock:
    """`with Lock(path):` holds the lock; raises BusyError after `wait_s`, ReadOnlyError where it cannot exist."""

    __slots__ = ("_fd", "_kept", "_path", "_taken", "_wait_s")

    def __init__(self, path: str, wait_s: float = WAIT_S, kept: "KeptLock | None" = None) -> None:
        """With `kept`, its descriptor is used where that can be done at once."""
        self._path = path
        self._wait_s = wait_s
        self._kept = kept
        self._taken = False
        self._fd = -1

    def __enter__(self) -> None:
        self._taken = self._kept is not None and self._kept.take()
        if self._taken:
            return
        fd = _open(self._path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            if not self._wait_s:
                raise BusyError(f"another process holds {self._path}", hint="try again") from None
            fd = _wait(self._path, self._wait_s)
        except OSError as error:
            os.close(fd)
            raise ReadOnlyError(f"cannot lock {self._path}: {error.strerror}",
                                hint="the file system must support flock") from None
        self._fd = fd

    def __exit__(self, kind: "type[BaseException] | None", error: "BaseException | None",
                 trace: "TracebackType | None") -> None:
        if self._taken and self._kept is not None:
            self._kept.give_back()
            return
        os.close(self._fd)
        self._fd = -1


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        create_folder(os.path.dirname(path))
        fd = os.open(path, flags, 0o600)
        share_like_folder(fd, path)
    except OSError as error:
        raise ReadOnlyError(f"cannot write {path}: {error.strerror}",
                            hint="the store can be read; writing needs that folder") from None
    return fd


def _wait(path: str, wait_s: float) -> int:
    """A locked descriptor, got by a thread that sleeps in the kernel: polling would starve under many writers."""
    import threading

    guard = threading.Lock()
    done = threading.Event()
    abandoned = False
    fd = _open(path)

    def acquire() -> None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with guard:
            if abandoned:
                os.close(fd)
            done.set()

    threading.Thread(target=acquire, daemon=True, name="taskstore-lock").start()
    try:
        if done.wait(wait_s):
            return fd
    except BaseException:  # a signal's: the lock must not stay with a thread that nobody waits for
        with guard:
            abandoned = True
            if done.is_set():
                os.close(fd)
        raise
    with guard:
        if done.is_set():
            return fd
        abandoned = True
    raise BusyError(f"another process has held {path} for {wait_s:g} s", hint="try again")
