"""The cache: an SQLite database made from the logs, of which nothing is ever lost by deleting it.

It knows rows, chunks and checkpoints, not files of the log nor when to look at them (`sync` does). A database that
is damaged, of another schema or gone is replaced by an empty one; one that cannot be written is replaced by one
in memory, so that reading works wherever the logs can be read.
"""

import os

import apsw

from . import signature
from .clock import now_ms
from .jsonl import columns, parse_object
from .kinds import KINDS, Kind
from .schema import (
    APPLICATION_ID,
    VERSION,
    create_statements,
    drop_index_statements,
    index_statements,
    renew_statements,
    upsert_statement,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from .change import Known
    from .jsonl import Row
    from .ledger import Hint


class ForeignError(Exception):
    """The database is not a cache of ours, or of another schema."""


DAMAGED = (ForeignError, UnicodeDecodeError, apsw.NotADBError, apsw.CorruptError, apsw.SchemaChangeError,
           apsw.MismatchError, apsw.SQLError)  # the last: a table that is gone, also with a file deleted under us
UNWRITABLE = (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, apsw.IOError, apsw.FullError,
              apsw.BusyError, apsw.ProtocolError)  # the last: its locks fail, which SQLite tries again and gives up
MEMORY_MS = 24 * 3600 * 1000
"""How long a repeated `op` is known for one."""
OP_KEY = '"op":'
"""What stands in every line that carries an `op`; cheaper to look for than to decode."""
_KNOWN = {kind.name: f"SELECT version, deleted, raw, concurrent FROM {kind.plural}_rows WHERE id=?"  # noqa: S608 - names from our own table
          for kind in KINDS.values()}
_LIVE = {kind.name: f"SELECT raw FROM {kind.plural}_rows WHERE id=? AND NOT deleted" for kind in KINDS.values()}  # noqa: S608 - names from our own table
_FEED = 20_000  # changes that a subscriber may be behind
_PAGE = 4096
_DIGITS = 10  # of the number of an operation; Python refuses to convert some thousands of them
_HASH_BYTES = 8  # of each line in a chunk
_WAL_PAGES = 8000  # of SQLite's write-ahead log before it is folded in, which syncs the disk; its own default is 1000
_BUSY_MS = 5000  # only a person's SQL tool can hold it: our own writers take turns by the store's lock


class Checkpoint:
    """How far one log has been read: its signature then, the bytes and lines taken in."""

    __slots__ = ("lines", "offset", "racy", "signature", "unterminated")

    def __init__(self, signature: "signature.Signature", offset: int, lines: int, *,
                 racy: bool, unterminated: bool) -> None:
        self.signature = signature
        self.offset = offset
        self.lines = lines
        self.racy = racy
        self.unterminated = unterminated  # the last line taken in has no line end yet


class Chunk:
    """A run of whole lines of a log: their bytes' digest, each line's hash and each line's id ("" where none)."""

    __slots__ = ("bad", "bytes", "digest", "hashes", "ids", "lines", "position")

    def __init__(  # noqa: PLR0917 - in the order of the table's columns, from which it is made
        self, position: float, size: int, lines: int, bad: int, digest: bytes, hashes: bytes, ids: str,
    ) -> None:
        self.position = position
        self.bytes = size
        self.lines = lines
        self.bad = bad
        self.digest = digest
        self.hashes = hashes
        self.ids = ids


class OpLine:
    """A line that carries an `op`: `sum` is the digest of its request, `number` its place among that one's lines."""

    __slots__ = ("deleted", "id", "log", "number", "op", "raw", "sum", "version")

    def __init__(  # noqa: PLR0917 - in the order of the table's columns, from which it is made
        self, op: str, log: str, key: str, version: int, deleted: int, op_sum: str, raw: str,
    ) -> None:
        self.op = op
        self.log = log
        self.id = key
        self.version = version
        self.deleted = bool(deleted)
        self.raw = raw
        self.sum, _, number = op_sum.partition(".")
        self.number = int(number) if number.isascii() and number.isdigit() and len(number) < _DIGITS else 0

    def row(self) -> "Row":
        """Its index row, without the columns."""
        return (self.id, self.version, self.deleted, self.raw)


class _Transaction:
    """Ends with COMMIT, or with ROLLBACK after an error. One within another leaves both to that one.

    A savepoint, which apsw takes for a connection's `with`, has SQLite copy every page that a statement changes for as
    long as it lies within a transaction: thousands of rows cost three times as much.
    """

    __slots__ = ("_db", "_is_whole", "_mode")

    def __init__(self, db: apsw.Connection, mode: str) -> None:
        self._db = db
        self._mode = mode
        self._is_whole = False

    def __enter__(self) -> None:
        self._is_whole = not self._db.in_transaction
        if self._is_whole:
            self._db.execute(f"BEGIN {self._mode}")

    def __exit__(self, kind: "type[BaseException] | None", *_: object) -> None:
        if not self._is_whole:
            return
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


class Cache:
    """An open cache. `path` is "" for one in memory."""

    def __init__(self, path: str = "", *, make: bool = False) -> None:
        """Open the database at `path`; `make` its tables where it is empty. Raises DAMAGED and UNWRITABLE errors."""
        self.path = path
        self.db = _connect(path)
        self.db.set_busy_timeout(_BUSY_MS)
        self._identity = self._look()
        if path and signature.look(path)[2] % _PAGE:  # cut off within a page, of which SQLite would make zeros
            self.db.close()
            raise ForeignError
        if (make or not path) and not self.db.pragma("schema_version"):
            self.db.execute("PRAGMA journal_mode=WAL")
            with self.transaction():
                self.db.execute(create_statements())
        elif self.db.pragma("user_version") != VERSION or self.db.pragma("application_id") != APPLICATION_ID:
            self.db.close()
            raise ForeignError
        self.db.execute(f"PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint={_WAL_PAGES}")

    def transaction(self, mode: str = "DEFERRED") -> "_Transaction":
        """A transaction for as long as a `with` lasts, or a part of the one that is open; an "IMMEDIATE" one waits."""
        return _Transaction(self.db, mode)

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def fold(self) -> bool:
        """Whether SQLite's write-ahead log, which may grow to 32 MB, could be folded into the database just now."""
        self.db.set_busy_timeout(0)
        try:
            return self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").get[0] == 0  # type: ignore[no-any-return]
        except (*DAMAGED, *UNWRITABLE):
            return False
        finally:
            self.db.set_busy_timeout(_BUSY_MS)

    def is_gone(self) -> bool:
        """Whether the path no longer leads to the open database (`git clean` deletes it)."""
        return bool(self.path) and self._look() != self._identity

    def is_level(self, kind: Kind, path: str) -> bool:
        """Whether the rows are what the log of `kind`, at `path`, says now; by one `stat`."""
        point = self.checkpoint(kind)
        return point is not None and not point.racy and signature.look(path) == point.signature

    def checkpoint(self, kind: Kind) -> "Checkpoint | None":
        """How far the log of `kind` has been read; None for never."""
        for device, inode, size, mtime, ctime, racy, offset, lines, unterminated in self.db.execute(
                "SELECT device, inode, size, mtime_ns, ctime_ns, racy, offset, lines, unterminated"
                " FROM logs WHERE name=?", (kind.log,)):
            return Checkpoint((device, inode, size, mtime, ctime), offset, lines,
                              racy=bool(racy), unterminated=bool(unterminated))
        return None

    def set_checkpoint(self, kind: Kind, point: Checkpoint) -> None:
        """Note how far the log of `kind` has been read."""
        self.db.execute("INSERT OR REPLACE INTO logs VALUES(?,?,?,?,?,?,?,?,?,?)",
                        (kind.log, *point.signature, point.racy, point.offset, point.lines, point.unterminated))

    def hint(self) -> "Hint | None":
        """What was noted of the outbox."""
        for row in self.db.execute("SELECT * FROM outbox"):
            return row  # type: ignore[no-any-return]
        return None

    def set_hint(self, hint: "Hint") -> None:
        """Note how far the outbox has been read."""
        self.db.execute("DELETE FROM outbox")
        self.db.execute("INSERT INTO outbox VALUES(?,?,?,?,?,?,?)", hint)

    def chunk_digests(self, kind: Kind) -> "Iterator[tuple[int, bytes]]":
        """(bytes, digest) of each chunk of a log, in order."""
        return iter(self.db.execute("SELECT bytes, digest FROM chunks WHERE log=? ORDER BY position", (kind.log,)))

    def chunks(self, kind: Kind) -> "Iterator[Chunk]":
        """The chunks of a log, in order."""
        for row in self.db.execute("SELECT position, bytes, lines, bad, digest, hashes, ids FROM chunks"
                                   " WHERE log=? ORDER BY position", (kind.log,)):
            chunk = Chunk(*row)
            if len(chunk.hashes) != _HASH_BYTES * chunk.lines or chunk.ids.count("\0") != chunk.lines - 1:
                raise ForeignError
            yield chunk

    def last_chunk(self, kind: Kind) -> Chunk | None:
        """The chunk at the end of a log."""
        for row in self.db.execute("SELECT position, bytes, lines, bad, digest, hashes, ids FROM chunks"
                                   " WHERE log=? ORDER BY position DESC LIMIT 1", (kind.log,)):
            return Chunk(*row)
        return None

    def put_chunks(self, kind: Kind, chunks: "Iterable[Chunk]") -> None:
        """Store chunks at their positions."""
        self.db.executemany("INSERT OR REPLACE INTO chunks VALUES(?,?,?,?,?,?,?,?)", (
            (kind.log, c.position, c.bytes, c.lines, c.bad, c.digest, c.hashes, c.ids) for c in chunks))

    def drop_chunks(self, kind: Kind, ranges: "Iterable[tuple[float, float]]") -> None:
        """Forget the chunks whose position lies in one of the ranges, ends included."""
        self.db.executemany("DELETE FROM chunks WHERE log=? AND position BETWEEN ? AND ?", (
            (kind.log, first, last) for first, last in ranges))

    def bad_lines(self, kind: Kind) -> int:
        """How many lines of a log are not records."""
        return int(self.db.execute("SELECT coalesce(sum(bad), 0) FROM chunks WHERE log=?", (kind.log,)).get)

    def put_rows(self, kind: Kind, rows: "Sequence[Row]") -> None:
        """Store the newest versions among `rows`, which stand in the order of the log, and what is there."""
        self.db.executemany(upsert_statement(kind, newest=True), rows)
        self.put_ops(kind, rows)

    def set_rows(self, kind: Kind, rows: "Iterable[Row]") -> None:
        """Store `rows`, whatever is there."""
        self.db.executemany(upsert_statement(kind, newest=False), rows)

    def drop_rows(self, kind: Kind, ids: "Iterable[str]") -> None:
        """Forget ids, tombstones included."""
        self.db.executemany(f"DELETE FROM {kind.plural}_rows WHERE id=?", ((key,) for key in ids))  # noqa: S608 - names from our own table

    def put_ops(self, kind: Kind, rows: "Iterable[Row]") -> None:
        """Remember those of `rows` that carry an `op` and are young enough to be repeated."""
        since = now_ms() - MEMORY_MS
        marked = [row for row in rows if OP_KEY in row[3] and row[1] > since]
        if marked:
            self.db.execute("DELETE FROM ops WHERE version <= ?", (since,))
            self.db.executemany("INSERT OR REPLACE INTO ops VALUES(?,?,?,?,?,?,?)", (
                (fields["op"], kind.log, *row[:3], str(fields.get("op_sum", "")), row[3])
                for row in marked if isinstance((fields := parse_object(row[3])).get("op"), str)))

    def drop_ops(self, kind: Kind, ids: "Iterable[str]") -> None:
        """Forget the lines with an `op` of these ids."""
        self.db.executemany("DELETE FROM ops WHERE log=? AND id=?", ((kind.log, key) for key in ids))

    def op_lines(self, op: str) -> "list[OpLine]":
        """The lines that carry this `op`."""
        return [OpLine(*row) for row in self.db.execute(
            "SELECT op, log, id, version, deleted, op_sum, raw FROM ops WHERE op=?", (op,))]

    def needs(self, spec: str) -> list[str]:
        """The task specs that a live one depends on."""
        return [need for (need,) in self.db.execute("SELECT need FROM needs WHERE spec=?", (spec,))]

    def needed_by(self, spec: str) -> list[str]:
        """The live task specs that depend on this one."""
        return [key for (key,) in self.db.execute("SELECT spec FROM needs WHERE need=?", (spec,))]

    def is_needed(self, spec: str) -> bool:
        """Whether any live task spec depends on this one."""
        return bool(self.db.execute("SELECT EXISTS (SELECT 1 FROM needs WHERE need=?)", (spec,)).get)

    def differing(self, other: "Cache", kind: Kind, waiting: "Collection[str]") -> list[str]:
        """The ids whose rows, or what they need, are not those of `other`; not those of lines that still wait."""
        def rows(cache: Cache) -> "dict[object, tuple[object, ...]]":
            needs: dict[object, list[object]] = {}
            if kind.name == "task_spec":
                for spec, need in cache.db.execute("SELECT spec, need FROM needs ORDER BY need"):
                    needs.setdefault(spec, []).append(need)
            names = ", ".join(("id", "version", "deleted", "raw", "base", "concurrent", *columns(kind)))
            found = {row[0]: (*row[1:], needs.pop(row[0], None))
                     for row in cache.db.execute(f"SELECT {names} FROM {kind.plural}_rows")}  # noqa: S608 - names from our own table
            return found | {spec: (of,) for spec, of in needs.items()}

        ours, theirs = rows(self), rows(other)
        return sorted(str(key) for key in ours.keys() | theirs.keys()
                      if ours.get(key) != theirs.get(key) and key not in waiting)

    def epoch(self) -> str:
        """What changes whenever the feed begins anew."""
        return str(self.db.execute("SELECT id FROM epoch").get)

    def feed(self, since: int, until: int, limit: int) -> "list[tuple[int, str, str, str]]":
        """(seq, log, id, "create" | "update" | "delete") of what changed after `since`, oldest first."""
        return list(self.db.execute("SELECT seq, log, id, op FROM feed WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                                    (since, until, limit)))

    def feed_range(self) -> tuple[int, int]:
        """The first and the last number in the feed; (n + 1, n) where it is empty."""
        last = self.db.execute("SELECT seq FROM sqlite_sequence WHERE name='feed'").get or 0
        first = self.db.execute("SELECT min(seq) FROM feed").get
        return (last + 1 if first is None else first), last

    def trim_feed(self) -> None:
        """Let go of what was long ago."""
        self.db.execute("DELETE FROM feed WHERE seq <= (SELECT max(seq) FROM feed) - ?", (_FEED,))

    def begin_rebuild(self, kind: Kind) -> None:
        """Forget everything of one log, inside the caller's transaction."""
        self.db.execute(f"DELETE FROM {kind.plural}_rows; {drop_index_statements(kind)}")  # noqa: S608 - names from our own table
        self.db.execute("DELETE FROM chunks WHERE log=?", (kind.log,))
        self.db.execute("DELETE FROM ops WHERE log=?", (kind.log,))

    def end_rebuild(self, kind: Kind) -> None:
        """Make the indexes and triggers that `begin_rebuild` dropped, and what the triggers would have made."""
        self.db.execute(index_statements(kind))
        self.db.execute(renew_statements(kind))

    def get(self, kind: Kind, key: str) -> "Known":
        """What is known of an id, tombstones included."""
        found = self.db.execute(_KNOWN[kind.name], (key,)).get
        return None if found is None else (found[0], bool(found[1]), found[2], found[3])

    def taken(self, kind: Kind, keys: "Sequence[str]") -> set[str]:
        """Which of these ids there ever were."""
        return {key for (key,) in self.db.execute(
            f"SELECT id FROM {kind.plural}_rows WHERE id IN (?{',?' * (len(keys) - 1)})", keys)}  # noqa: S608 - names from our own table

    def in_doubt(self, kind: Kind) -> list[str]:
        """The ids of which a version has come that is not based on the one that was there."""
        return [key for (key,) in self.db.execute(f"SELECT id FROM {kind.plural}_rows WHERE concurrent = ''")]  # noqa: S608 - names from our own table

    def doubt(self, kind: Kind, ids: "Iterable[str]") -> None:
        """Have these ids looked at."""
        self.set_concurrent(kind, dict.fromkeys(ids, ""))

    def set_concurrent(self, kind: Kind, found: "Mapping[str, str | None]") -> None:
        """Note for ids the JSON of the versions that lost (see `concurrent`), or None."""
        self.db.executemany(f"UPDATE {kind.plural}_rows SET concurrent=? WHERE id=?",  # noqa: S608 - names from our own table
                            ((versions, key) for key, versions in found.items()))

    def live(self, kind: Kind, key: str) -> str | None:
        """The raw line of a live id, in the fewest steps."""
        return self.db.execute(_LIVE[kind.name], (key,)).get  # type: ignore[no-any-return]

    def ids_beginning(self, kind: Kind, prefix: str, limit: int) -> list[str]:
        """Live ids that begin with `prefix`, in order."""
        rows = self.db.execute(
            f"SELECT id FROM {kind.plural}_rows WHERE id >= ? AND substr(id, 1, ?) = ? AND NOT deleted"  # noqa: S608 - names from our own table
            " ORDER BY id LIMIT ?", (prefix, len(prefix), prefix, limit))
        return [key for (key,) in rows]

    def _look(self) -> tuple[int, int]:
        return signature.look(self.path)[:2] if self.path else (0, 0)


def _connect(path: str) -> apsw.Connection:
    try:
        return apsw.Connection(path or ":memory:")
    except UnicodeEncodeError:
        raise apsw.CantOpenError("SQLite opens only paths that are UTF-8") from None


def open_cache(path: str) -> Cache:
    """The cache at `path`; a damaged one is deleted and begun anew. Needs the lock. Raises UNWRITABLE errors."""
    try:
        return Cache(path, make=True)
    except DAMAGED:
        delete(path)
        return Cache(path, make=True)


def delete(path: str) -> None:
    """Delete a database and what SQLite keeps beside it."""
    for suffix in ("-wal", "-shm", ""):
        try:
            os.unlink(path + suffix)
        except FileNotFoundError:
            continue
