"""One daemon for a store: a lock for as long as it lives, and leaving when what it serves is no longer its own.

The lock is an flock on a file that is never deleted. A pid file could name a stranger, and a lock file that is
unlinked lets two live side by side.
"""

import fcntl
import json
import logging
import os
import signal
import time

import trio

from taskstore_core.errors import ReadOnlyError
from taskstore_core.files import create_folder, share_like_folder
from taskstore_core.paths import Paths

from .listener import identity
from .notify import Notifier
from .server import Server

log = logging.getLogger(__name__)

_LOOK_S = 1.0


class RunningError(Exception):
    """Another daemon serves the store."""


class Lifetime:
    """The daemon's lock, and its record of itself beside it."""

    def __init__(self, paths: Paths) -> None:
        """Take the lock; raises RunningError, ReadOnlyError."""
        self._path = paths.local("daemon.lock")
        self._record = paths.local("daemon.json")
        try:
            create_folder(paths.private)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            share_like_folder(self._fd, self._path)
        except OSError as error:
            raise ReadOnlyError(f"cannot write {self._path}: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise RunningError from None

    def note(self, server: Server) -> None:
        """Write down who serves, for people and for `daemon status` when we do not answer."""
        temporary = f"{self._record}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({"pid": server.pid, "socket": server.socket_path, "started_at": int(time.time() * 1000)}, file)
        os.replace(temporary, self._record)

    def is_ours(self) -> bool:
        """Whether the lock we hold is still the one at its path."""
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._fd)


async def watch_over(server: Server, lifetime: Lifetime, *, idle_s: float | None, own_socket: bool) -> None:
    """Stop the server when it has no business here any more."""
    socket = identity(server.socket_path) if own_socket else None
    while True:
        await trio.sleep(_LOOK_S)
        if not lifetime.is_ours():
            server.stop("the lock is no longer ours, or the repository is gone")
        elif own_socket and identity(server.socket_path) != socket:
            server.stop("the socket is no longer ours")
        elif idle_s is not None and server.is_idle and time.monotonic() - server.last_busy > idle_s:
            server.stop(f"idle for {idle_s:g} s")


async def heed_signals(server: Server, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Stop on SIGTERM and SIGINT."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            server.stop(signal.Signals(number).name)


async def keep_alive(notifier: Notifier) -> None:
    """Tell the service manager that the loop turns."""
    while notifier.every_s is not None:
        notifier.say("WATCHDOG=1")
        await trio.sleep(notifier.every_s)
