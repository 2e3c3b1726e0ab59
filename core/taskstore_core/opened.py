"""What one process has open of a store, and what it remembers of it: outbox, cache, logs and lock.

A cache that is damaged, gone or foreign is made anew; where nothing can be written, one in memory takes its place.
"""

import os

from .cache import DAMAGED, UNWRITABLE, Cache, delete, open_cache
from .errors import InvalidError, ReadOnlyError
from .kept import KeptLock, Logs
from .kinds import KINDS, Kind
from .leveling import pending_lines
from .lock import WAIT_S, Lock
from .paths import Paths
from .pulse import Pulse
from .quiet import Quiet
from .recent import Recent
from .synced import Synced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .lag import Lag
    from .leveling import Reports
    from .outbox import Outbox

_CACHE = "store.db"


class Opened:
    """The files of one store, each opened when first needed."""

    def __init__(self, paths: Paths, *, resident: bool = False) -> None:
        self.paths = paths
        self.quiet = Quiet(paths)
        self.is_waiting = False  # as of the last look: lines wait for git to be quiet, or are to be looked for then
        self.logs = Logs(paths, self.quiet, keep=resident)
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
        """Let go of everything."""
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

    def lock(self, wait_s: float = WAIT_S) -> Lock:
        """The store's lock, to be held for one pass."""
        return Lock(self.paths.local("lock"), wait_s, self._kept_lock)

    def pending(self, log: str) -> list[str]:
        """The lines for a log that wait in the outbox, in order. Takes no lock."""
        hint = self._cache.hint() if self._cache is not None and self._cache.path else None
        return pending_lines(self.paths, log, hint)

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

    def _made(self) -> Cache:
        self._cache = open_cache(self.paths.file(_CACHE))
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

    def _read_outbox(self, cache: Cache) -> "Outbox":
        from .outbox import Outbox

        if self._outbox is None:
            hint = cache.hint() if cache.path else None  # one in memory was noted by a reader, who restores nothing
            self._outbox = Outbox(self.paths.local("outbox"), hint)
        else:
            self._outbox.refresh()
        return self._outbox

    def _refuse_fork(self) -> None:
        if self._pid != os.getpid():
            raise InvalidError("this store was opened before a fork", hint="open another in the child")
