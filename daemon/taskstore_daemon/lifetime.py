"""One daemon for a store: a lock for as long as it lives, and leaving when what it serves is no longer its own.

The lock is an flock on a file that is never deleted. A pid file could name a stranger, and a lock file that is
unlinked lets two live side by side.
"""

import contextlib
import fcntl
import logging
import os
import signal
import time
from typing import Self

import trio

from taskstore_core.errors import ReadOnlyError
from taskstore_core.files import create_folder, share_like_folder
from taskstore_core.paths import Paths
from taskstore_core.presence import LOCK, PLACE

from .listener import identity
from .notify import Notifier
from .server import Server

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_LEAST_S = 0.1
_PAUSE_S = 0.01


class RunningError(Exception):
    """Another daemon serves the store."""


class Lifetime:
    """The daemon's lock, and its socket for as long as that is its own."""

    def __init__(self, paths: Paths, *, patience_s: float) -> None:
        """Take the lock; raises RunningError if it is not free within `patience_s`, ReadOnlyError."""
        self._paths = paths
        self._path = paths.local(LOCK)
        self._socket = ""
        self._identity: tuple[int, int] | None = None
        try:
            create_folder(paths.private)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            share_like_folder(self._fd, self._path)
        except OSError as error:
            raise ReadOnlyError(f"cannot write {self._path}: {error.strerror}") from None
        if not self._lock(patience_s):
            os.close(self._fd)
            raise RunningError

    def _lock(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def note(self, socket: str) -> None:
        """Write down where clients find us that look elsewhere for the socket."""
        self._socket, self._identity = socket, identity(socket)
        path = self._paths.local(PLACE)
        try:
            with open(f"{path}.new", "wb") as file:
                share_like_folder(file.fileno(), path)
                file.write(os.fsencode(socket))
            os.replace(f"{path}.new", path)
        except OSError as error:
            log.warning("cannot write %s: %s", path, error.strerror)

    def forget(self, *, unlink: bool) -> None:
        """Take the note away, and with `unlink` the socket, unless another daemon's stand there by now."""
        if self._holds_lock():
            paths = [self._paths.local(PLACE)]
            if unlink and self._identity is not None and identity(self._socket) == self._identity:
                paths.append(self._socket)
            for path in paths:
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def trouble(self) -> str:
        """Why the daemon has no business here any more; "" while it has."""
        if not self._holds_lock():
            return "the lock is no longer ours, or the repository is gone"
        if not os.path.isdir(os.path.dirname(self._paths.directory)):
            return "the repository is gone"
        if identity(self._socket) != self._identity:
            return "the socket is no longer ours"
        return ""

    def _holds_lock(self) -> bool:
        """Whether the lock we hold is still the one at its path."""
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


async def watch_over(server: Server, lifetime: Lifetime, idle_s: float | None) -> None:
    """Stop the server when it has no business here any more, or nobody was connected for `idle_s`."""
    while True:
        await trio.sleep(_LOOK_S if idle_s is None else max(_LEAST_S, min(_LOOK_S, idle_s)))
        if trouble := lifetime.trouble():
            server.stop(trouble)
        elif idle_s is not None and server.is_idle and time.monotonic() - server.last_busy >= idle_s:
            server.stop(f"idle for {idle_s:g} s")


async def heed_signals(server: Server, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Stop on SIGTERM, on SIGINT, and when the terminal is closed."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            server.stop(signal.Signals(number).name)


async def keep_alive(notifier: Notifier) -> None:
    """Tell the service manager that the loop turns."""
    while notifier.every_s is not None:
        notifier.say("WATCHDOG=1")
        await trio.sleep(notifier.every_s)
