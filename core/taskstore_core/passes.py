"""Passes over a store, with its lock held: what waits goes into the logs, and the cache is brought level with them.

The truth is the logs and what the outbox still holds for them.
"""

import time

from . import layout
from .cache import DAMAGED, UNWRITABLE, Cache
from .errors import BusyError, ReadOnlyError
from .kinds import KINDS, Kind
from .lag import joined
from .leveling import bring_level, overlay, refuse_unfinished, settle, sync_logs
from .lock import WAIT_S, Lock
from .opened import Opened
from .paths import Paths
from .quiet import FINISH_S, UnfinishedError
from .reconcile import SwallowedError, Verdict, restore
from .signature import look
from .synced import KIND as REPO_STATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeVar

    from .drain import Sealed
    from .leveling import Reports
    from .outbox import Outbox
    from .quiet import Quiet
    from .signature import Signature

    T = TypeVar("T")

_ASKING = "asking"  # locked by whoever asks git about missing lines
_TRIES = 3
_ATTEMPTS = 2


class BehindError(Exception):
    """The cache must be brought level first, which may take long."""


class Passes(Opened):
    """What is done to a store under its lock."""

    def __init__(self, paths: Paths, *, resident: bool = False) -> None:
        super().__init__(paths, resident=resident)
        self._verdict: Verdict | None = None
        self._asked = 0  # times that git was asked since the last pass that had its answer, or did without

    def sync(self, *, full: bool = False) -> "Reports":
        """Bring the cache level with the logs, or build it anew; in memory where nothing can be written."""
        try:
            return self.in_turn(lambda: self.level(full=full))
        except ReadOnlyError:
            return self._sync_in_memory()

    def in_turn(self, work: "Callable[[], T]", wait_s: float = WAIT_S) -> "T":
        """What `work` gives, done with the lock held; where git must be asked for it, that is done without.

        Who is resident serves others meanwhile, and asks by itself: for it SwallowedError is raised.
        """
        while True:
            try:
                with self.lock(wait_s):
                    return work()
            except SwallowedError as error:
                if self._resident:
                    raise
                self.ask_git(error)

    def ask_git(self, error: SwallowedError) -> None:
        """Ask git about missing lines, for the next pass; with no lock held, as that may take long.

        Where git goes on and on, so that no answer holds until then, that pass does without: they are looked for
        another time. Raises ReadOnlyError.
        """
        self._asked += 1
        if self._asked < _TRIES:
            self._verdict = self._answer(error)
        else:
            self.do_without_git()

    def do_without_git(self) -> None:
        """Have the next pass look for nothing that git may have swallowed; a later one will."""
        self._asked = _TRIES
        self.quiet.note()

    def _answer(self, error: SwallowedError) -> Verdict | None:
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

    def _level(self, cache: Cache, *, full: bool) -> "Reports":
        outbox = self._read_outbox(cache)
        looked_at = {kind.log: look(self.paths.file(kind.log)) for kind in KINDS.values()}
        if not self.quiet.is_busy():
            if self._asked < _TRIES:
                ours = self.lag.sealed if self.lag is not None else {}
                restore(self.paths, outbox, self.quiet, self._changed(cache, ours), self._verdict)
            self._asked, self._verdict = 0, None
            sealed = self._drain(outbox)
        else:
            sealed = {}
        if self.lag is not None:
            sealed = joined(self.lag.sealed, sealed)
            self._pulse.close()  # what it knows is no longer true of the cache alone
            self.lag = None
        reports = self._finished(cache, sealed, lambda quiet: self._bring_level(
            cache, outbox, sealed, KINDS.values(), quiet, looked_at=looked_at, full=full))
        self.is_waiting = bool(outbox.pending) or self.quiet.noted_ms() is not None
        if not sealed or any(report.mode != "unchanged" and KINDS[name].log not in sealed
                             for name, report in reports.items()):
            self._note_head(cache)
        return reports

    def _finished(self, cache: Cache, sealed: "Sealed", attempt: "Callable[[Quiet | None], Reports]") -> "Reports":
        """What comes of an attempt to read the logs as git leaves them, and not as they are while it writes them.

        An attempt raises UnfinishedError where what it is given says so; the last, after a second, is given nothing.
        Before that there are two at least: it may be the machine that stood still for a second.
        """
        end = time.monotonic() + FINISH_S
        tries = 0
        while time.monotonic() < end or tries < _ATTEMPTS:
            tries += 1
            changed = self._changed(cache, sealed, or_unknown=True)
            self.quiet.let_finish([self.paths.file(log) for log in changed], end)
            try:
                return attempt(self.quiet)
            except UnfinishedError:
                continue
        return attempt(None)

    def _bring_level(
        self, cache: Cache, outbox: "Outbox", sealed: "Sealed", kinds: "Iterable[Kind]", quiet: "Quiet | None", *,
        looked_at: "Mapping[str, Signature] | None" = None, full: bool = False,
    ) -> "Reports":
        """Bring the cache level; what was read that we have not written is noted in `reports`.

        `looked_at` are the signatures of the logs before it was looked for what git swallowed in those that differ.
        """
        self._recent.forget()
        kinds = list(kinds)
        before = self._signatures(cache, kinds)
        reports = bring_level(self.paths, cache, outbox, sealed, kinds, quiet, full=full)
        self._note_unseen(before, self._signatures(cache, kinds), sealed, looked_at or {})
        news = {name: report for name, report in reports.items() if (report.parsed or report.changed) and not (
            report.mode == "tail" and KINDS[name].log in sealed)}
        self.reports = news or self.reports
        return reports

    @staticmethod
    def _signatures(cache: Cache, kinds: "Iterable[Kind]") -> "dict[str, Signature]":
        points = {kind.log: cache.checkpoint(kind) for kind in kinds}
        return {log: point.signature for log, point in points.items() if point is not None}

    def _note_unseen(self, before: "Mapping[str, Signature]", after: "Mapping[str, Signature]", sealed: "Sealed",
                     looked_at: "Mapping[str, Signature]") -> None:
        """Have the next pass look for what git swallowed, if it replaced a log behind the back of this one.

        For the cache is level with what it put there, so that nothing would tell of it any more.
        """
        for log, signature in after.items():
            known = {before.get(log, signature), looked_at.get(log)}
            if self.paths.git_dir is not None and signature not in known and (
                    log not in sealed or sealed[log][1] != signature or sealed[log][0] not in known):
                self.quiet.note()
                self.is_waiting = True

    def _note_head(self, cache: Cache) -> None:
        """Note at which commit the logs were read, if it is another than before. Needs the lock."""
        written = self.synced.write(cache, self.logs) if cache.path else {}
        if written:
            with cache.transaction():
                sync_logs(self.paths, cache, written, [REPO_STATE])

    def _drain(self, outbox: "Outbox") -> "Sealed":
        from .drain import DrainError, drain

        try:
            return drain(self.logs, outbox) if outbox.pending else {}
        except DrainError as error:
            raise ReadOnlyError(f"lines in the outbox cannot be put into their logs: {error}",
                                hint="they are safe where they are") from error

    def _changed(self, cache: Cache, ours: "Sealed", *, or_unknown: bool = False) -> list[str]:
        """The logs that somebody else has touched since the cache was level with them `or` which it never was.

        `ours` is how our appends left logs that the cache is behind.
        """
        changed = []
        for kind in KINDS.values():
            point = cache.checkpoint(kind)
            if point is None:
                changed += [kind.log] if or_unknown else []
            elif look(self.paths.file(kind.log)) not in {
                    point.signature, ours[kind.log][1] if kind.log in ours else point.signature}:
                changed.append(kind.log)
        return changed

    def _sync_in_memory(self) -> "Reports":
        """What `level` does, where nothing can be written."""
        from .outbox import Outbox

        if self._overlaid:  # what was pending may have been taken back since
            self._drop_cache()
        cache = self._use_memory()
        outbox = Outbox(self.paths.local("outbox"), writable=False)
        self._overlaid = bool(outbox.pending)

        def attempt(quiet: "Quiet | None") -> "Reports":
            since = self.quiet.stamp()
            with cache.transaction():
                reports = sync_logs(self.paths, cache, {}, KINDS.values())
                if quiet is not None:
                    refuse_unfinished(self.paths, cache, quiet, since, list(KINDS.values()))
                overlay(self.paths, cache, outbox, -1, KINDS.values())
                cache.set_hint(outbox.hint)
            return reports

        try:
            return self._finished(cache, {}, attempt)
        finally:
            outbox.close()
