"""Keeping the cache level with the logs: opening, healing and replacing it, with the lock where it is needed.

The truth is the logs and what the outbox still holds for them. A cache that is damaged, gone or foreign is made
anew; where nothing can be written, one in memory takes its place.
"""

import os

from . import layout
from .cache import DAMAGED, UNWRITABLE, Cache, delete, open_cache
from .clock import now_ms
from .errors import BusyError, InvalidError, ReadOnlyError
from .kept import KeptLock, Logs
from .kinds import KINDS, LOGS, Kind
from .lag import Lag, joined
from .lock import WAIT_S, Lock
from .outbox import is_ahead
from .paths import Paths
from .pulse import Pulse
from .recent import Recent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from .drain import Sealed
    from .ledger import Hint
    from .outbox import Outbox
    from .sync import LogReport
    from .view import View

    T = TypeVar("T")

    Reports = dict[str, LogReport]

_CACHE = "store.db"
_TRIES = 3
_TRIM_EVERY = 64  # writes between two looks at what the feed need not keep
_SETTLE_MS = 1000  # how far the logs' own fsync may lag behind the outbox's


class BehindError(Exception):
    """The cache must be brought level first, which may take long."""


class Keeper:
    """The cache and the outbox of one store, opened when first needed."""

    def __init__(self, paths: Paths, *, resident: bool = False) -> None:
        self.paths = paths
        self.logs = Logs(paths, keep=resident)
        self._resident = resident
        self._kept_lock = KeptLock(paths.local("lock")) if resident else None
        self._pid = os.getpid()
        self._outbox: Outbox | None = None
        self._cache: Cache | None = None
        self._pulse = Pulse(paths)
        self._recent = Recent()
        self.reports: Reports = {}
        """What others changed in the logs, as it was last found."""
        self.lag: Lag | None = None
        self.trusted = False  # somebody has just asked `is_fresh` for all reads that follow
        self._overlaid = False  # the cache, in memory, holds lines that are only in the outbox

    def close(self) -> None:
        """Settle what this process appended, and let go of everything."""
        if self.lag is not None and self._pid == os.getpid():
            self.catch_up(WAIT_S)
        self.settle()
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None
        self._drop_cache()
        self.logs.close()
        if self._kept_lock is not None:
            self._kept_lock.close()

    @property
    def synced_s(self) -> float:
        """Seconds that were spent on syncing the outbox, all together."""
        return self._outbox.synced_s if self._outbox is not None else 0.0

    @property
    def failure(self) -> str:
        """Why nothing more is written; "" while it is."""
        return self._outbox.failed if self._outbox is not None else ""

    @property
    def is_unsettled(self) -> bool:
        """Whether logs were appended to and not synced since."""
        return self._outbox is not None and bool(self._outbox.unsynced)

    def settle(self) -> None:
        """Fsync the logs that were appended to."""
        if self._outbox is None or not self._outbox.unsynced or self._pid != os.getpid():
            return
        try:
            with self.lock():
                self._outbox.refresh()
                self._settle(self._outbox, after_ms=0)
        except (BusyError, ReadOnlyError):
            pass  # the outbox has the lines; whoever gets the lock will come to it

    def read(self, kinds: "Iterable[Kind]", ask: "Callable[[Cache], T]") -> "T":
        """What `ask` says of a cache that is level with the logs of `kinds`."""
        self._refuse_fork()
        for _ in range(_TRIES):
            try:
                if self.is_fresh(kinds) and self._cache is not None:
                    return ask(self._cache)
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

    def look_up(self, name: str, key: str, *, trusted: bool) -> str | None:
        """The line of a live record as the cache has it, or will, if it is level with the kind's log."""
        kind, cache = KINDS.get(name), self._cache
        if kind is None or cache is None or not (trusted or self._pulse.holds_log(kind)):
            return None
        if self.lag is not None and (known := self.lag.view.rows.get((name, key))):
            return None if known[1] else known[2]
        return self._recent.line(cache, kind, key)

    def is_fresh(self, kinds: "Iterable[Kind]") -> bool:
        """Whether a read of `kinds` can be answered at once. Takes no lock, and some microseconds."""
        if self.trusted and self._cache is not None:
            return True
        return (self.lag is None or not self.lag.touches(kinds)) and self.holds(kinds)

    def holds(self, kinds: "Iterable[Kind]") -> bool:
        """Whether the logs of `kinds` say what the cache does, with what it has yet to take in."""
        cache = self._cache
        return cache is not None and bool(cache.path) and not cache.is_gone() and self._pulse.holds(kinds)

    def _note(self, cache: Cache, kinds: "Iterable[Kind]") -> None:
        """Note that the cache was found level; who knows since when, and by whom."""
        self._recent.forget()
        self._pulse.note(cache, kinds)

    def _is_level(self, cache: Cache, kinds: "Iterable[Kind]") -> bool:
        return (all(cache.is_level(kind, self.paths.file(kind.log)) for kind in kinds)
                and not is_ahead(self.paths.local("outbox"), cache.hint()))

    def _opened(self) -> Cache | None:
        """The open cache; None where it must be made or mended, which needs the lock."""
        if self._cache is not None and self._cache.is_gone():
            self._drop_cache()
        path = self.paths.file(_CACHE)
        if self._cache is None and os.path.exists(path):
            try:
                self._cache = Cache(path)
            except (*DAMAGED, *UNWRITABLE):
                return None
        return self._cache

    def _drop_cache(self) -> None:
        self._pulse.close()
        self._recent.forget()
        self.lag = None
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def _discard(self) -> None:
        """Throw a damaged cache away; where that may not be done, pass it by."""
        try:
            with self.lock():
                self._discard_file()
        except ReadOnlyError:
            self._use_memory()

    def _discard_file(self) -> None:
        """Delete the cache, with the lock held; one that cannot be deleted is emptied or passed by later."""
        self._drop_cache()
        try:  # noqa: SIM105 - importing contextlib takes 3 ms
            delete(self.paths.file(_CACHE))
        except OSError:
            pass

    def _use_memory(self) -> Cache:
        if self._cache is None or self._cache.path:
            self._drop_cache()
            self._cache = Cache()
        return self._cache

    def sync(self, *, full: bool = False) -> "Reports":
        """Bring the cache level with the logs, or build it anew; in memory where nothing can be written."""
        try:
            with self.lock():
                return self.level(full=full)
        except ReadOnlyError:
            return self._sync_in_memory()

    def lock(self, wait_s: float = WAIT_S) -> Lock:
        """The store's lock, to be held for one pass."""
        return Lock(self.paths.local("lock"), wait_s, self._kept_lock)

    def level(self, *, full: bool = False) -> "Reports":
        """Put what the outbox still holds into the logs, and bring the cache level with them. Needs the lock."""
        layout.read_version(self.paths)
        self._refuse_fork()
        if self._cache is not None and not self._cache.path:
            self._drop_cache()  # whatever kept us from the file may have gone
        if full:
            self._discard_file()
        for _ in range(_TRIES):
            try:
                return self._level(self._opened() or self._made(), full=full)
            except DAMAGED:
                self._discard_file()
            except UNWRITABLE:
                break
        return self._level(self._use_memory(), full=full)

    def leveled(self, kinds: "Iterable[Kind]", *, may_lag: bool = False,
                at_once: bool = False) -> "tuple[Cache, Outbox]":
        """The cache, level with the logs of `kinds` at least, and the outbox. Needs the lock.

        It `may_lag` behind writes of ours. Raises BehindError if it is behind and this is to be done `at_once`.
        """
        self._refuse_fork()
        if self._outbox is None or not self._is_current(self._outbox, kinds) or (self.lag is not None and not may_lag):
            if at_once:
                raise BehindError
            self.level()
            if self._cache is not None and self._cache.path:
                self._note(self._cache, KINDS.values())
        assert self._cache is not None  # noqa: S101 - `level` opened both
        assert self._outbox is not None  # noqa: S101
        return self._cache, self._outbox

    def _is_current(self, outbox: "Outbox", kinds: "Iterable[Kind]") -> bool:
        """Whether nobody has written anything that matters for `kinds` and that we have not read."""
        holds = self.holds(kinds)
        if not holds or not self._pulse.is_at(outbox):
            outbox.refresh()
        return holds and not outbox.pending

    def catch_up(self, wait_s: float) -> bool:
        """Put into the cache what it lags behind; False where the lock is not to be had within `wait_s`."""
        try:
            with self.lock(wait_s):
                self.leveled(KINDS.values())
        except (BusyError, ReadOnlyError):
            return False
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
            self._follow(cache, outbox, sealed, kinds)
            if cache.path:
                self._note(cache, kinds)
        except (*DAMAGED, *UNWRITABLE):
            self._drop_cache()  # what is in the log is true: the next look at the cache finds it behind
        self._settle(outbox, after_ms=_SETTLE_MS)

    def _made(self) -> Cache:
        self._cache = open_cache(self.paths.file(_CACHE))
        return self._cache

    def _level(self, cache: Cache, *, full: bool) -> "Reports":
        from .drain import DrainError, drain
        from .outbox import Outbox

        if self._outbox is None:
            hint = cache.hint() if cache.path else None  # one in memory was noted by a reader, who restores nothing
            self._outbox = Outbox(self.paths.local("outbox"), hint)
        else:
            self._outbox.refresh()
        try:
            sealed = drain(self.logs, self._outbox) if self._outbox.pending else {}
        except DrainError as error:
            raise ReadOnlyError(f"lines in the outbox cannot be put into their logs: {error}",
                                hint="they are safe where they are") from error
        if self.lag is not None:
            sealed = joined(self.lag.sealed, sealed)
            self._pulse.close()  # what it knows is no longer true of the cache alone
            self.lag = None
        return self._follow(cache, self._outbox, sealed, KINDS.values(), full=full)

    def _follow(self, cache: Cache, outbox: "Outbox", sealed: "Sealed", kinds: "Iterable[Kind]", *,
                full: bool = False) -> "Reports":
        """Bring `cache` level with the logs of `kinds`, after we appended to those named in `sealed`."""
        self._recent.forget()
        full = full or _lost_lines(cache.hint(), outbox)
        with cache.db:
            reports = self._sync_logs(cache, sealed, kinds, full=full)
            self._overlay(cache, outbox)
            hint = cache.hint()
            if hint is None or hint[4] // _TRIM_EVERY != outbox.seq // _TRIM_EVERY:
                cache.trim_feed()
            if hint != outbox.hint:
                cache.set_hint(outbox.hint)
        return reports

    def pending(self, log: str) -> list[str]:
        """The lines for a log that wait in the outbox, in order. Takes no lock."""
        from .outbox import Outbox

        outbox = Outbox(self.paths.local("outbox"), writable=False)
        try:
            return [line for frame in outbox.pending for name, line in frame.entries if name == log]
        finally:
            outbox.close()

    def _sync_logs(self, cache: Cache, sealed: "Sealed", kinds: "Iterable[Kind]", *, full: bool = False) -> "Reports":
        from .sync import LogReport, sync_log

        reports = {}
        for kind in kinds:
            path = self.paths.file(kind.log)
            reports[kind.name] = (
                LogReport("unchanged") if not full and cache.is_level(kind, path) else
                sync_log(cache, kind, path, full=full, sealed=sealed.get(kind.log)))
        news = {name: report for name, report in reports.items() if (report.parsed or report.changed) and not (
            report.mode == "tail" and KINDS[name].log in sealed)}
        self.reports = news or self.reports
        return reports

    def _overlay(self, cache: Cache, outbox: "Outbox") -> None:
        """Put the lines that wait in the outbox over what the logs say: they were acknowledged."""
        from .jsonl import index_or_error

        for name, line in (entry for frame in outbox.pending for entry in frame.entries):
            row = index_or_error(LOGS[name], line.encode())
            if isinstance(row, tuple):
                cache.put_rows(LOGS[name], [row])

    def _settle(self, outbox: "Outbox", *, after_ms: int) -> None:
        """Fsync the logs if the oldest append that was not is `after_ms` old."""
        from .drain import sync_logs

        if not outbox.unsynced or outbox.failed or outbox.is_doubted:
            return
        if outbox.unsynced[0].at > now_ms() - after_ms:
            return
        try:
            sync_logs(self.paths, outbox)
        except OSError as error:
            outbox.mark_doubted()
            outbox.failed = f"syncing the logs failed ({error.strerror}): this process writes nothing more"
            return
        try:  # noqa: SIM105 - importing contextlib takes 3 ms
            outbox.retire()
        except ReadOnlyError:
            pass  # housekeeping, for which there is no room now: the old file stands as it was

    def _sync_in_memory(self) -> "Reports":
        """What `level` does, where nothing can be written."""
        from .outbox import Outbox

        if self._overlaid:  # what was pending may have been taken back since
            self._drop_cache()
        cache = self._use_memory()
        outbox = Outbox(self.paths.local("outbox"), writable=False)
        self._overlaid = bool(outbox.pending)
        try:
            with cache.db:
                reports = self._sync_logs(cache, {}, KINDS.values())
                self._overlay(cache, outbox)
                cache.set_hint(outbox.hint)
            return reports
        finally:
            outbox.close()

    def _refuse_fork(self) -> None:
        if self._pid != os.getpid():
            raise InvalidError("this store was opened before a fork", hint="open another in the child")


def _lost_lines(hint: "Hint | None", outbox: "Outbox") -> bool:
    """Whether the cache may hold lines that waited in an outbox which somebody has replaced since."""
    return hint is not None and hint[0] != outbox.id and hint[4] != hint[5]
