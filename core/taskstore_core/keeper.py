"""Keeping the cache level with the logs: opening, healing and replacing it, with the lock where it is needed.

The truth is the logs and what the outbox still holds for them. A cache that is damaged, gone or foreign is made
anew; where nothing can be written, one in memory takes its place.
"""

import os

from . import layout
from .cache import DAMAGED, UNWRITABLE, Cache, delete, open_cache
from .errors import BusyError, InvalidError, ReadOnlyError, TaskStoreError
from .kept import KeptLock, Logs
from .kinds import KINDS, LOGS, Kind
from .lag import Lag, joined
from .leveling import bring_level, overlay, pending_lines, settle, sync_logs
from .lock import WAIT_S, Lock
from .outbox import is_ahead
from .paths import Paths
from .pulse import Pulse
from .quiet import Quiet
from .recent import Recent
from .reconcile import SwallowedError, Verdict, restore
from .signature import look
from .synced import KIND as REPO_STATE
from .synced import Synced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from .drain import Sealed
    from .leveling import Reports
    from .outbox import Outbox
    from .view import View

    T = TypeVar("T")

_CACHE = "store.db"
_ASKING = "asking"  # locked by whoever asks git about missing lines
_TRIES = 3
_SETTLE_MS = 1000  # how far the logs' own fsync may lag behind the outbox's


class BehindError(Exception):
    """The cache must be brought level first, which may take long."""


class Keeper:
    """The cache and the outbox of one store, opened when first needed."""

    def __init__(self, paths: Paths, *, resident: bool = False) -> None:
        self.paths = paths
        self.quiet = Quiet(paths)
        self.is_waiting = False  # as of the last look: lines wait for git to be quiet, or are to be looked for then
        self.logs = Logs(paths, self.quiet, keep=resident)
        self._verdict: Verdict | None = None
        self._gives_up = False
        self._resident = resident
        self._kept_lock = KeptLock(paths.local("lock")) if resident else None
        self._pid = os.getpid()
        self._outbox: Outbox | None = None
        self._cache: Cache | None = None
        self._pulse = Pulse(paths)
        self._recent = Recent()
        self.reports: Reports = {}
        """What others changed in the logs, as it was last found."""
        self.synced = Synced(paths)
        self.lag: Lag | None = None
        self.trusted = False  # somebody has just asked `is_fresh` for all reads that follow
        self._overlaid = False  # the cache, in memory, holds lines that are only in the outbox

    def close(self) -> None:
        """Settle what this process appended, and let go of everything."""
        self.catch_up()
        if self.synced.is_due and self._pid == os.getpid():
            self.note_head()
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
    def has_looked(self) -> bool:
        """Whether it is known what the outbox holds."""
        return self._outbox is not None

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
                settle(self.paths, self._outbox, after_ms=0)
        except (BusyError, ReadOnlyError):
            pass  # the outbox has the lines; whoever gets the lock will come to it

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
        """Note that the cache was found level, who knows since when and by whom; unless that cannot be for long."""
        self._recent.forget()
        if self._waits(cache):
            self._pulse.close()
        else:
            self._pulse.note(cache, kinds)

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

    def _waits(self, cache: Cache) -> bool:
        """Whether something is to be done once git is quiet."""
        hint = cache.hint()
        self.is_waiting = (hint is not None and hint[4] != hint[5]) or self.quiet.noted_ms() is not None
        return self.is_waiting

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
            return self.in_turn(lambda: self.level(full=full))
        except ReadOnlyError:
            return self._sync_in_memory()

    def in_turn(self, work: "Callable[[], T]", wait_s: float = WAIT_S) -> "T":
        """What `work` gives, done with the lock held; where git must be asked for it, that is done without.

        Where git goes on and on, it is put off: what git may have swallowed is looked for another time.
        """
        try:
            for _ in range(_TRIES):
                try:
                    with self.lock(wait_s):
                        return work()
                except SwallowedError as error:
                    self._verdict = self._ask_git(error)
            self._gives_up = True
            self.quiet.note()
            with self.lock(wait_s):
                return work()
        finally:
            self._verdict, self._gives_up = None, False

    def _ask_git(self, error: SwallowedError) -> Verdict | None:
        """What git says of missing lines; None where another process has asked meanwhile, and knows it by now."""
        path = self.paths.local(_ASKING)
        try:
            with Lock(path, 0):
                return error.ask(self.paths)
        except BusyError:
            pass
        try:
            with Lock(path):
                return None
        except BusyError:
            return error.ask(self.paths)

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

    def settled(self) -> "tuple[Cache, Outbox]":
        """What `leveled` gives for all kinds, with the logs synced, if they can be. Needs the lock."""
        cache, outbox = self.leveled(KINDS.values())
        settle(self.paths, outbox, after_ms=0)
        return cache, outbox

    def _is_current(self, outbox: "Outbox", kinds: "Iterable[Kind]") -> bool:
        """Whether nobody has written anything that matters for `kinds` and that we have not read."""
        holds = self.holds(kinds)
        if not holds or not self._pulse.is_at(outbox):
            outbox.refresh()
        return holds and not outbox.pending

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
            cache.db.execute("BEGIN IMMEDIATE")
            try:
                self._bring_level(cache, outbox, lag.sealed, lag.kinds())
            except BaseException:
                cache.db.execute("ROLLBACK")
                raise
            cache.db.execute("COMMIT")
        except (*DAMAGED, *UNWRITABLE):
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
            self._bring_level(cache, outbox, sealed, kinds)
            if cache.path:
                self._note(cache, kinds)
        except (*DAMAGED, *UNWRITABLE):
            self._drop_cache()  # what is in the log is true: the next look at the cache finds it behind
        settle(self.paths, outbox, after_ms=_SETTLE_MS)

    def _made(self) -> Cache:
        self._cache = open_cache(self.paths.file(_CACHE))
        return self._cache

    def _level(self, cache: Cache, *, full: bool) -> "Reports":
        outbox = self._read_outbox(cache)
        if not self.quiet.is_busy():
            if not self._gives_up:
                restore(self.paths, outbox, self.quiet, self._changed(cache), self._verdict)
            sealed = self._drain(outbox)
        else:
            sealed = {}
        if self.lag is not None:
            sealed = joined(self.lag.sealed, sealed)
            self._pulse.close()  # what it knows is no longer true of the cache alone
            self.lag = None
        self.is_waiting = bool(outbox.pending) or self.quiet.noted_ms() is not None
        reports = self._bring_level(cache, outbox, sealed, KINDS.values(), full=full)
        if not sealed or any(report.mode != "unchanged" and KINDS[name].log not in sealed
                             for name, report in reports.items()):
            self._note_head(cache)
        return reports

    def _bring_level(self, cache: Cache, outbox: "Outbox", sealed: "Sealed", kinds: "Iterable[Kind]", *,
                     full: bool = False) -> "Reports":
        """Bring the cache level; what was read that we have not written is noted in `reports`."""
        self._recent.forget()
        reports = bring_level(self.paths, cache, outbox, sealed, kinds, full=full)
        news = {name: report for name, report in reports.items() if (report.parsed or report.changed) and not (
            report.mode == "tail" and KINDS[name].log in sealed)}
        self.reports = news or self.reports
        return reports

    def _read_outbox(self, cache: Cache) -> "Outbox":
        from .outbox import Outbox

        if self._outbox is None:
            hint = cache.hint() if cache.path else None  # one in memory was noted by a reader, who restores nothing
            self._outbox = Outbox(self.paths.local("outbox"), hint)
        else:
            self._outbox.refresh()
        return self._outbox

    def _drain(self, outbox: "Outbox") -> "Sealed":
        from .drain import DrainError, drain

        try:
            return drain(self.logs, outbox) if outbox.pending else {}
        except DrainError as error:
            raise ReadOnlyError(f"lines in the outbox cannot be put into their logs: {error}",
                                hint="they are safe where they are") from error

    def _note_head(self, cache: Cache) -> None:
        """Note at which commit the logs were read, if it is another than before. Needs the lock."""
        written = self.synced.write(cache, self.logs) if cache.path else {}
        if written:
            with cache.db:
                sync_logs(self.paths, cache, written, [REPO_STATE])

    def note_head(self) -> None:
        """Look once more where HEAD is, if git was at work when we last looked; what cannot be noted is left."""
        if not self.synced.is_due:
            return
        try:
            self.in_turn(self.level, 0)
        except BusyError:
            pass
        except TaskStoreError:
            self.synced.is_due = False  # no store on this branch, say: whoever reads next hears of it

    def _changed(self, cache: Cache) -> list[str]:
        """The logs that somebody else has touched since the cache was level with them."""
        ours = self.lag.sealed if self.lag is not None else {}
        changed = []
        for kind in KINDS.values():
            point = cache.checkpoint(kind)
            if point is not None and look(self.paths.file(kind.log)) not in {
                    point.signature, ours[kind.log][1] if kind.log in ours else point.signature}:
                changed.append(kind.log)
        return changed

    def pending(self, log: str) -> list[str]:
        """The lines for a log that wait in the outbox, in order. Takes no lock."""
        return pending_lines(self.paths, log)

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
                reports = sync_logs(self.paths, cache, {}, KINDS.values())
                overlay(cache, outbox)
                cache.set_hint(outbox.hint)
            return reports
        finally:
            outbox.close()

    def _refuse_fork(self) -> None:
        if self._pid != os.getpid():
            raise InvalidError("this store was opened before a fork", hint="open another in the child")
