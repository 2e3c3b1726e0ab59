"""Reading a cache that is level with the logs, and having it follow what is written, now or later."""

import os

from . import layout
from .cache import DAMAGED, UNWRITABLE, Cache
from .errors import BusyError, ReadOnlyError, TaskStoreError
from .kinds import KINDS, LOGS, Kind
from .lag import Lag, joined
from .leveling import settle
from .outbox import is_ahead
from .passes import Passes
from .quiet import UnfinishedError
from .reconcile import SwallowedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from .drain import Sealed
    from .outbox import Outbox
    from .view import View

    T = TypeVar("T")

_TRIES = 3
_SETTLE_MS = 1000  # how far the logs' own fsync may lag behind the outbox's


class Keeper(Passes):
    """The cache of one store, kept level."""

    def close(self) -> None:
        """Settle what this process appended, and let go of everything."""
        self.catch_up()
        if self.synced.is_due and self._pid == os.getpid():
            self.note_head()
        self.settle()
        super().close()

    def settle(self) -> None:
        """Fsync the logs that were appended to."""
        if self._outbox is None or not self._outbox.unsynced or self._pid != os.getpid():
            return
        try:
            with self.lock():
                self._outbox.refresh()
                settle(self.paths, self._outbox, after_ms=0)
        except (BusyError, ReadOnlyError):
            pass  # the outbox has the lines; whoever gets the lock will come to it

    def note_head(self) -> None:
        """Look once more where HEAD is, if git was at work when we last looked; what cannot be noted is left."""
        if not self.synced.is_due:
            return
        try:
            self.in_turn(self.level, 0)
        except (BusyError, SwallowedError):
            pass
        except TaskStoreError:
            self.synced.is_due = False  # no store on this branch, say: whoever reads next hears of it

    def read(self, kinds: "Iterable[Kind]", ask: "Callable[[Cache], T]") -> "T":
        """What `ask` says of a cache that is level with the logs of `kinds`."""
        self._refuse_fork()
        for _ in range(_TRIES):
            try:
                if self.is_fresh(kinds) and self._cache is not None:
                    return ask(self._cache)
                if self.lag is not None and self.catch_up():
                    continue
                layout.read_version(self.paths)
                cache = self._opened()
                if cache is None or not self._is_level(cache, kinds):
                    self.sync()
                    cache = self._cache
                if cache is not None:
                    if cache.path:
                        self._note(cache, kinds)
                    return ask(cache)
            except DAMAGED:
                self._discard()
            except UNWRITABLE:
                self._sync_in_memory()
        self._sync_in_memory()  # somebody keeps deleting or damaging the file
        return ask(self._use_memory())

    def has_level_cache(self) -> bool:
        """Whether there is a cache and it needs no sync, as far as one look tells."""
        try:
            cache = self._opened()
            return cache is not None and bool(cache.path) and self._is_level(cache, KINDS.values())
        except (*DAMAGED, *UNWRITABLE):
            return False

    def _is_level(self, cache: Cache, kinds: "Iterable[Kind]") -> bool:
        return (all(cache.is_level(kind, self.paths.file(kind.log)) for kind in kinds)
                and not is_ahead(self.paths.local("outbox"), cache.hint())
                and not (self._waits(cache) and not self.quiet.is_busy()))

    def catch_up(self, *, at_once: bool = False) -> bool:
        """Put into the cache what it lags behind; False if that cannot be done so, or not `at_once`.

        What is taken in stands in the logs, and SQLite has whoever writes to a cache wait for the others: this needs no
        lock. But to be `at_once`, nobody else may be at it.
        """
        if self.lag is None or self._pid != os.getpid() or not self.holds(self.lag.kinds()):
            return False
        if not at_once:
            return self._take_in(self.lag)
        try:
            with self.lock(0):
                return self._take_in(self.lag)
        except (BusyError, ReadOnlyError):
            return False

    def _take_in(self, lag: Lag) -> bool:
        """Put what was written into the cache."""
        cache, outbox = self._cache, self._outbox
        assert cache is not None  # noqa: S101 - it lags
        assert outbox is not None  # noqa: S101
        try:
            with cache.transaction("IMMEDIATE"):
                self._bring_level(cache, outbox, lag.sealed, lag.kinds(), self.quiet)
        except (*DAMAGED, *UNWRITABLE, UnfinishedError):
            return False
        self.lag = None
        self._note(cache, KINDS.values())
        return True

    def follow(self, sealed: "Sealed", view: "View", *, may_lag: bool = False) -> None:
        """Bring the cache level after a commit of ours, now or, where it `may_lag`, later. Needs the lock."""
        if self._cache is None or self._outbox is None:
            return
        if may_lag and self._resident and self._can_lag(self._cache, self._outbox, sealed, view):
            assert view.below is not None  # noqa: S101 - requests are decided above it
            self.lag = self.lag or Lag(view.below)
            self.lag.take(view, sealed)
            self._pulse.note_append(sealed, self._outbox.end)
            return
        if self.lag is not None:
            sealed = joined(self.lag.sealed, sealed)
            self.lag = None
        self._follow_now(self._cache, self._outbox, sealed)

    def _can_lag(self, cache: Cache, outbox: "Outbox", sealed: "Sealed", view: "View") -> bool:
        """Whether a commit's lines, and no others, stand behind what was known of their logs."""
        logs = {written.kind.log for written in view.written if written.changed}
        return (bool(cache.path) and logs == sealed.keys() and not outbox.pending
                and all(self._pulse.knows(LOGS[log], before) for log, (before, _) in sealed.items()))

    def _follow_now(self, cache: Cache, outbox: "Outbox", sealed: "Sealed") -> None:
        kinds = [LOGS[name] for name in sealed]
        try:
            self._bring_level(cache, outbox, sealed, kinds, self.quiet)
            if cache.path:
                self._note(cache, kinds)
        except (*DAMAGED, *UNWRITABLE, ReadOnlyError, UnfinishedError):  # from a log, the last two
            self._drop_cache()  # what is in the log is true: the next look at the cache finds it behind
        settle(self.paths, outbox, after_ms=_SETTLE_MS)
