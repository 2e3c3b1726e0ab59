"""The store: state that is always as new as the files say, and writes that last.

Synchronous, for one thread of one process; any number of processes may each have one open. It neither prints nor
reads the environment. Records go in as mappings and come out as the line in the log; `taskstore` puts types on it.
"""

import os

from . import layout
from .cache import DAMAGED, UNWRITABLE, Cache, delete, open_cache
from .clock import now_ms
from .errors import BusyError, InvalidError, NotFoundError, ReadOnlyError, TaskStoreError
from .kinds import KINDS, Kind, find_kind
from .lock import Lock
from .outbox import is_ahead
from .paths import Paths, discover, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Self, TypeVar

    from .drain import Sealed
    from .outbox import Outbox
    from .sync import LogReport
    from .writer import Operation, Written

    T = TypeVar("T")

    Reports = dict[str, LogReport]

_CACHE = "store.db"
_TRIES = 3
_NAMED = 3  # ids that an ambiguous prefix names
_SETTLE_MS = 1000  # how far the logs' own fsync may lag behind the outbox's


class Store:
    """One store, opened. Use it as a context manager, or `close` it."""

    def __init__(self, paths: Paths) -> None:
        """Open the store at `paths`; raises NoStoreError, UnsupportedVersionError."""
        self.paths = paths
        self._pid = os.getpid()
        self._outbox: Outbox | None = None
        self._cache: Cache | None = None
        version = layout.read_version(paths)
        if version < layout.FORMAT:
            with self._lock():
                layout.migrate(paths, layout.read_version(paths))

    @classmethod
    def open(cls, path: str = ".", *, directory: str | None = None) -> "Store":
        """Open the store that `path` lies in, or the one in `directory`.

        Raises NoStoreError where there is none, UnsupportedVersionError for one of a newer release.
        """
        return cls(named(directory) if directory is not None else discover(path))

    @classmethod
    def create(cls, path: str = ".", *, directory: str | None = None) -> "tuple[Store, list[str]]":
        """Open a store, making what is missing of it; also the names of the files made.

        Raises NoStoreError, UnsupportedVersionError, ReadOnlyError.
        """
        paths = named(directory) if directory is not None else discover(path)
        if os.path.exists(paths.file(".version")):
            layout.read_version(paths)
        try:
            made = layout.create(paths)
        except OSError as error:
            raise ReadOnlyError(f"cannot write {error.filename or paths.directory}: {error.strerror}") from None
        return cls(paths), made

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Make the logs themselves durable if this store wrote to them, and let go of everything."""
        if self._outbox is not None:
            if self._outbox.unsynced and self._pid == os.getpid():
                try:
                    with self._lock():
                        self._outbox.refresh()
                        self._settle(self._outbox)
                except BusyError:
                    pass  # the outbox has the lines; whoever holds the lock will come to it
            self._outbox.close()
            self._outbox = None
        self._drop_cache()

    # Reading

    def get(self, kind: Kind | str, key: str) -> str:
        """The line of a live record, by its id or by the beginning of just one id; raises NotFoundError."""
        kind = _kind(kind)

        def look_up(cache: Cache) -> str:
            known = cache.get(kind, key)
            if known and not known[1]:
                return known[2]
            ids = cache.ids_beginning(kind, key, _NAMED + 1) if key else []
            if len(ids) == 1 and (known := cache.get(kind, ids[0])):
                return known[2]
            if ids:
                raise NotFoundError(f"several {kind.title}s begin with {key}: {', '.join(ids[:_NAMED])}"
                                    f"{' …' if len(ids) > _NAMED else ''}", hint="give more of the id")
            raise NotFoundError(f"there is no {kind.title} {key}")

        return self._read((kind,), look_up)

    def find(self, kind: Kind | str, where: "Mapping[str, object] | None" = None, *, order: str | None = None,
             limit: int | None = None, cursor: str | None = None) -> "tuple[list[str], str | None]":
        """The lines of the live records that fit, and a cursor if `limit` cut the list; see `query.build`."""
        from . import query

        kind = _kind(kind)
        wanted = query.build(kind, where, order, limit, cursor)
        rows = self._read((kind,), lambda cache: list(cache.db.execute(wanted.sql, wanted.parameters)))
        if wanted.limit is None or len(rows) <= wanted.limit:
            return [raw for _, _, raw in rows], None
        rows = rows[:wanted.limit]
        key, value, _ = rows[-1]
        return [raw for _, _, raw in rows], query.encode_cursor(order or kind.started, value, key)

    def stats(self) -> dict[str, dict[str, object]]:
        """For each kind: live records, how many by status, deleted ids, lines of its log and how many are bad."""
        return self._read(tuple(KINDS.values()), lambda cache: {
            kind.name: _stats(cache, kind) for kind in KINDS.values()})

    # Writing

    def commit(self, requests: "Sequence[Sequence[Operation]]") -> "list[list[Written] | TaskStoreError]":
        """Carry out requests, each whole or not at all, all with one sync of the disk.

        The outcome of each stands at its place. Raises ReadOnlyError or BusyError where none could be written.
        """
        from . import writer

        with self._lock():
            self._sync()
            cache, outbox = self._parts()
            outcomes = writer.decide(cache, requests)
            sealed = writer.commit(self.paths, outbox, outcomes)
            if sealed:
                try:
                    self._follow(cache, outbox, sealed)
                except (*DAMAGED, *UNWRITABLE):
                    self._drop_cache()  # what is in the log is true: the next look at the cache finds it behind
                self._settle(outbox, after_ms=_SETTLE_MS)
            return outcomes

    def apply(self, operations: "Sequence[Operation]") -> "list[Written]":
        """Carry out operations together or not at all; raises the error of the one that cannot be."""
        (outcome,) = self.commit([operations])
        if isinstance(outcome, TaskStoreError):
            raise outcome
        return outcome

    def sync(self, *, full: bool = False) -> "Reports":
        """Bring the cache level with the logs, or build it anew; what was read and changed, by kind.

        Where the store cannot be written, a cache in memory takes the place of the file.
        """
        try:
            with self._lock():
                return self._sync(full=full)
        except ReadOnlyError:
            return self._sync_in_memory()

    # Inside: the cache

    def _read(self, kinds: "Iterable[Kind]", ask: "Callable[[Cache], T]") -> "T":
        """What `ask` says of a cache that is level with the logs of `kinds`."""
        layout.read_version(self.paths)
        self._refuse_fork()
        for _ in range(_TRIES):
            try:
                cache = self._opened()
                if cache is None or not self._is_level(cache, kinds):
                    self.sync()
                    cache = self._cache
                if cache is not None:
                    return ask(cache)
            except (*DAMAGED, *UNWRITABLE):
                self._drop_cache()
        raise ReadOnlyError(f"{self.paths.file(_CACHE)} cannot be read", hint="delete it: it is made anew")

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
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def _use_memory(self) -> Cache:
        if self._cache is None or self._cache.path:
            self._drop_cache()
            self._cache = Cache()
        return self._cache

    # Inside: bringing level, all with the lock held

    def _lock(self) -> Lock:
        return Lock(self.paths.local("lock"))

    def _sync(self, *, full: bool = False) -> "Reports":
        """Put what the outbox still holds into the logs, and bring the cache level with them."""
        layout.read_version(self.paths)
        self._refuse_fork()
        for _ in range(_TRIES):
            try:
                return self._level(self._opened() or self._made(), full=full)
            except DAMAGED:
                self._drop_cache()
                delete(self.paths.file(_CACHE))
            except UNWRITABLE:
                break
        return self._level(self._use_memory(), full=full)

    def _made(self) -> Cache:
        self._cache = open_cache(self.paths.file(_CACHE))
        return self._cache

    def _level(self, cache: Cache, *, full: bool) -> "Reports":
        from .drain import DrainError, drain
        from .outbox import Outbox

        if self._outbox is None:
            self._outbox = Outbox(self.paths.local("outbox"), cache.hint())
        else:
            self._outbox.refresh()
        try:
            sealed = drain(self.paths, self._outbox) if self._outbox.pending else {}
        except DrainError as error:
            raise ReadOnlyError(f"lines in the outbox cannot be put into their logs: {error}",
                                hint="they are safe where they are") from error
        return self._follow(cache, self._outbox, sealed, full=full)

    def _follow(self, cache: Cache, outbox: "Outbox", sealed: "Sealed", *, full: bool = False) -> "Reports":
        """Bring `cache` level after we appended to the logs named in `sealed`."""
        with cache.db:
            reports = self._sync_logs(cache, sealed, full=full)
            if cache.hint() != outbox.hint:
                cache.set_hint(outbox.hint)
        return reports

    def _sync_logs(self, cache: Cache, sealed: "Sealed", *, full: bool = False) -> "Reports":
        from .sync import sync_log

        return {kind.name: sync_log(cache, kind, self.paths.file(kind.log), full=full, sealed=sealed.get(kind.log))
                for kind in KINDS.values()}

    def _settle(self, outbox: "Outbox", *, after_ms: int = 0) -> None:
        """Fsync the logs if the oldest append that was not is `after_ms` old."""
        from .drain import sync_logs

        if outbox.unsynced and not outbox.failed and outbox.unsynced[0].at <= now_ms() - after_ms:
            try:
                sync_logs(self.paths, outbox)
                outbox.retire()
            except OSError as error:
                outbox.failed = f"syncing the logs failed ({error.strerror}): this process writes nothing more"

    def _parts(self) -> "tuple[Cache, Outbox]":
        assert self._cache is not None  # noqa: S101 - `_sync` opened both
        assert self._outbox is not None  # noqa: S101
        return self._cache, self._outbox

    # Inside: without the lock

    def _sync_in_memory(self) -> "Reports":
        """What `_sync` does, where nothing can be written."""
        from .jsonl import index_or_error
        from .kinds import LOGS
        from .outbox import Outbox

        cache = self._use_memory()
        outbox = Outbox(self.paths.local("outbox"), writable=False)
        try:
            with cache.db:
                reports = self._sync_logs(cache, {})
                for name, line in (entry for frame in outbox.pending for entry in frame.entries):
                    row = index_or_error(LOGS[name], line.encode())
                    if isinstance(row, tuple):
                        cache.put_rows(LOGS[name], [row])
                cache.set_hint(outbox.hint)
            return reports
        finally:
            outbox.close()

    def _refuse_fork(self) -> None:
        if self._pid != os.getpid():
            raise InvalidError("this store was opened before a fork", hint="open another in the child")


def _kind(kind: Kind | str) -> Kind:
    return kind if isinstance(kind, Kind) else find_kind(kind)


def _stats(cache: Cache, kind: Kind) -> dict[str, object]:
    table = f"{kind.plural}_rows"
    records, deleted = cache.db.execute(
        f"SELECT count(*) FILTER (WHERE NOT deleted), count(*) FILTER (WHERE deleted) FROM {table}").get  # noqa: S608 - names from our own table
    stats: dict[str, object] = {"records": records, "deleted": deleted}
    if "status" in kind.enums:
        found = dict(cache.db.execute(
            f"SELECT status, count(*) FROM {table} WHERE NOT deleted GROUP BY status ORDER BY status"))  # noqa: S608
        words = [*kind.enums["status"], *(word for word in found if word not in kind.enums["status"])]
        stats["status"] = {word or "": found[word] for word in words if word in found}
    point = cache.checkpoint(kind)
    return {**stats, "lines": point.lines if point else 0, "bad_lines": cache.bad_lines(kind)}
