"""Noticing what others change: inotify through watchfiles, with a slow look of our own behind it.

Both are only hints. What decides is the signature of the files, which every read looks at: a watcher that misses
something makes subscribers wait for the next look, and nobody read anything stale.
"""

import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING

import trio
import watchfiles
from watchfiles._rust_notify import WatchfilesRustInternalError

from taskstore_core.errors import TaskStoreError
from taskstore_core.kinds import LOGS
from taskstore_core.paths import Paths
from taskstore_core.signature import MISSING, look

from .engine import Engine
from .logs import fields
from .publisher import Publisher

if TYPE_CHECKING:
    from taskstore_core.signature import Signature

log = logging.getLogger(__name__)

_SLOW_S = 1.0
_QUICK_S = 0.02  # where there is no inotify: a look costs some 30 µs
_AGAIN_S = 60.0
_DEBOUNCE_MS = 50  # for which our own writes, one after the other, may put it off: whoever writes looks anyway
_STEP_MS = 3


class Watcher:
    """Wakes the publisher when files of the store change. `use_inotify` is off for tests of the looks alone."""

    def __init__(self, paths: Paths, engine: Engine, publisher: Publisher, *, use_inotify: bool = True) -> None:
        self._paths = paths
        self._engine = engine
        self._publisher = publisher
        self._use_inotify = use_inotify
        self._seen: list[Signature] = []
        self._trouble = ""
        self._names = frozenset({*LOGS, ".version", "store.db", "HEAD", "index", os.path.basename(paths.directory)})
        self.is_watching = False
        self.lag_ms = 0.0  # from the last change of a file that was noticed to the cache

    async def run(self) -> None:
        """Watch for as long as the daemon lives."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_regularly)
            while self._use_inotify:
                try:
                    await self._watch(self._folders())
                except* (OSError, WatchfilesRustInternalError) as errors:
                    log.warning("no inotify, looking every %d ms instead: %s", _QUICK_S * 1000, errors.exceptions[0])
                    await trio.sleep(_AGAIN_S)
                await trio.sleep(_QUICK_S)

    def _folders(self) -> list[str]:
        """The store's folder; its parent, which tells when that is made anew; and git's, for the branch."""
        folders = [self._paths.directory, os.path.dirname(self._paths.directory), self._paths.git_dir]
        return [folder for folder in folders if folder is not None and os.path.isdir(folder)]

    async def _watch(self, folders: list[str]) -> None:
        """Watch until the store's folder is another one."""
        store = _identity(self._paths.directory)
        stop = trio.Event()
        changes = watchfiles.awatch(*folders, watch_filter=self._matters, debounce=_DEBOUNCE_MS, step=_STEP_MS,
                                    stop_event=stop, recursive=False, ignore_permission_denied=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_when_cancelled, stop)
            self.is_watching = True
            try:
                async with contextlib.aclosing(changes):
                    async for _ in changes:
                        await self.look()
                        if _identity(self._paths.directory) != store:
                            break
            finally:
                self.is_watching = False
                stop.set()
            nursery.cancel_scope.cancel()

    def _matters(self, _: watchfiles.Change, path: str) -> bool:
        return os.path.basename(path) in self._names

    async def _look_regularly(self) -> None:
        while True:
            await trio.sleep(_SLOW_S if self.is_watching else _QUICK_S)
            await self.look()

    async def look(self) -> None:
        """Take in what changed, and have it told."""
        seen = [look(self._paths.file(log)) for log in LOGS]
        try:
            await self._engine.refresh()
            if self._trouble:
                log.info("the store can be read again", extra=fields("readable"))
            self._trouble = ""
        except TaskStoreError as error:
            if error.message != self._trouble:
                log.warning("the store cannot be read now: %s", error.message, extra=fields(
                    "unreadable", reason=error.message))
            self._trouble = error.message
        if seen != self._seen:
            self._note_lag(seen)
            self._seen = seen
        self._publisher.look()

    def _note_lag(self, seen: "list[Signature]") -> None:
        if self._seen:
            changed = [new[4] for new, old in zip(seen, self._seen, strict=True) if new not in {old, MISSING}]
            if not changed:  # a log is gone, which leaves nothing to tell since when
                return
            lag = max(0.0, (time.time_ns() - max(changed)) / 1e9)
            self.lag_ms = round(lag * 1000, 3)
            self._engine.metrics.change_lag.observe(lag)


async def _set_when_cancelled(stop: trio.Event) -> None:
    """Set `stop` as soon as the watch is cancelled: its thread would keep us for five seconds otherwise."""
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino
