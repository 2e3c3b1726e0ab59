"""Noticing what others change: inotify through watchfiles, with a slow look of our own behind it.

Both are only hints. What decides is the signature of the files, which every read looks at: a watcher that misses
something makes subscribers wait for the next look, and nobody read anything stale.
"""

import logging
import os
import time

import trio
import watchfiles
from watchfiles._rust_notify import WatchfilesRustInternalError

from taskstore_core.errors import TaskStoreError
from taskstore_core.kinds import LOGS
from taskstore_core.paths import Paths
from taskstore_core.signature import look

from .engine import Engine
from .publisher import Publisher

log = logging.getLogger(__name__)

_SLOW_S = 1.0
_QUICK_S = 0.02  # where there is no inotify: a look costs some 30 µs
_DEBOUNCE_MS = 20
_STEP_MS = 5


class Watcher:
    """Wakes the publisher when files of the store change. `use_inotify` is off for tests of the looks alone."""

    def __init__(self, paths: Paths, engine: Engine, publisher: Publisher, *, use_inotify: bool = True) -> None:
        self._paths = paths
        self._engine = engine
        self._publisher = publisher
        self._use_inotify = use_inotify
        self.is_watching = False
        self.lag_ms = 0.0  # from the last change of a file that was noticed to the cache

    async def run(self) -> None:
        """Watch for as long as the daemon lives."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_regularly)
            while self._use_inotify:
                folders = self._folders()
                try:
                    await self._watch(folders)
                except (OSError, WatchfilesRustInternalError) as error:
                    log.warning("no inotify, looking every %d ms instead: %s", _QUICK_S * 1000, error)
                    self.is_watching = False
                    await trio.sleep(60)
                await trio.sleep(_QUICK_S)

    def _folders(self) -> list[str]:
        """The store's folder; its parent, which tells when that is made anew; and git's, for the branch."""
        folders = [self._paths.directory, os.path.dirname(self._paths.directory), self._paths.git_dir]
        return [folder for folder in folders if folder is not None and os.path.isdir(folder)]

    async def _watch(self, folders: list[str]) -> None:
        """Watch until the store's folder is another one."""
        store = _identity(self._paths.directory)
        stop = trio.Event()
        try:
            self.is_watching = True
            async for _ in watchfiles.awatch(*folders, watch_filter=None, debounce=_DEBOUNCE_MS, step=_STEP_MS,
                                             stop_event=stop, recursive=False, ignore_permission_denied=True):
                await self.look()
                if _identity(self._paths.directory) != store:
                    return
        finally:
            self.is_watching = False
            stop.set()  # before the cancellation gets there: the thread would keep us for five seconds

    async def _look_regularly(self) -> None:
        while True:
            await trio.sleep(_SLOW_S if self.is_watching else _QUICK_S)
            await self.look()

    async def look(self) -> None:
        """Take in what changed, and tell."""
        try:
            if await self._engine.refresh():
                lag = self._age()
                self.lag_ms = round(lag * 1000, 3)
                self._engine.metrics.change_lag.observe(lag)
                self._publisher.wake()
        except TaskStoreError as error:
            log.info("the store cannot be read now: %s", error.message)


    def _age(self) -> float:
        """How long ago, in seconds, the log that was changed last was changed."""
        stamps = [look(self._paths.file(log))[4] for log in LOGS]
        return max(0.0, (time.time_ns() - max(stamps)) / 1e9)


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino
