"""Leases: who holds which task spec, on this machine, until when.

They lie beside the outbox, where git cannot reach them: a claim holds whatever branch is checked out, and fifty
agents that beat their hearts do not fill the log. Time is counted by the clock that no one sets (CLOCK_BOOTTIME),
so a lease of an earlier boot has ended: whoever held it ended with the machine. Changes need the store's lock.
"""

import os

import apsw

from . import clock, signature
from .errors import ReadOnlyError
from .files import create_folder, share_like_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Token = tuple[str | None, str | None]
    """The token of a lease, "" if it is nobody's and None if it has ended, and which version nobody's is for."""

DEFAULT_MS = 15 * 60 * 1000
_BUSY_MS = 5000
_DAMAGED = (apsw.NotADBError, apsw.CorruptError, apsw.SQLError)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases(
    spec TEXT PRIMARY KEY, holder TEXT, token TEXT, until INTEGER, boot TEXT, op TEXT, op_sum TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS leases_op ON leases(op)
"""
_COLUMNS = "spec, holder, token, until, boot, op, op_sum"


class Lease:
    """One lease. `until` is in ms of uptime; a lease without a token is nobody's to use (see `unknown`)."""

    __slots__ = ("boot", "by", "op", "op_sum", "spec", "token", "until")

    def __init__(  # noqa: PLR0917 - in the order of the table's columns, from which it is made
        self, spec: str, by: str, token: str, until: int, boot: str, op: str | None = None, op_sum: str = "",
    ) -> None:
        self.spec = spec
        self.by = by
        self.token = token
        self.until = until
        self.boot = boot
        self.op = op
        self.op_sum = op_sum

    def is_live(self) -> bool:
        """Whether it holds now."""
        return self.boot == clock.boot_id() and clock.uptime_ms() < self.until

    def as_token(self) -> "Token":
        """This lease as one of `tokens`, for one that holds."""
        return self.token, None if self.token else self.op_sum

    def expires_at(self) -> int:
        """When it ends, in Unix milliseconds by the clock as it is set now."""
        return clock.now_ms() + self.until - clock.uptime_ms()

    def extended(self, lease_ms: int) -> "Lease":
        """The same lease, for `lease_ms` from now."""
        return Lease(self.spec, self.by, self.token, clock.uptime_ms() + lease_ms, clock.boot_id(), self.op,
                     self.op_sum)


def granted(spec: str, by: str, lease_ms: int, op: str | None, op_sum: str) -> Lease:
    """A new lease with a token of its own."""
    return Lease(spec, by, os.urandom(8).hex(), clock.uptime_ms() + lease_ms, clock.boot_id(), op, op_sum)


def unknown(spec: str, version: int) -> Lease:
    """A lease for a spec that runs although no lease is known: a person or another clone set it running.

    It is for this version alone: it is over when the spec no longer runs, and another run has a lease of its own.
    """
    return Lease(spec, "", "", clock.uptime_ms() + DEFAULT_MS, clock.boot_id(), None, str(version))


def is_known(token: "Token | None", version: int) -> bool:
    """Whether this lease is one on a version that runs: nobody's is on that alone which it was noted for."""
    return token is not None and token[1] in {None, str(version)}


class Leases:
    """The leases of one store. The file is opened when first needed, and made by the first claim."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._db: apsw.Connection | None = None
        self._identity = signature.MISSING[:2]

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def get(self, spec: str) -> Lease | None:
        """The lease on a task spec, live or not."""
        return self._one("spec", spec)

    def of_op(self, op: str) -> Lease | None:
        """The lease that a claim with this `op` was given."""
        return self._one("op", op)

    def tokens(self) -> "dict[str, Token]":
        """The token of every lease by its task spec."""
        try:
            db = self._opened()
            return {} if db is None else {spec: (token, version) for spec, token, version in db.execute(
                "SELECT spec, CASE WHEN boot = ? AND until > ? THEN token END, CASE token WHEN '' THEN op_sum END"
                " FROM leases", (clock.boot_id(), clock.uptime_ms()))}
        except apsw.Error:
            self.close()
            return {}

    def apply(self, changes: "Mapping[str, Lease | None]") -> None:
        """Set leases, or end those that are None. Needs the store's lock; raises ReadOnlyError."""
        if not changes:
            return
        try:
            try:
                self._apply(changes)
            except _DAMAGED:  # in a place that opening it did not look at
                self._discard()
                self._apply(changes)
        except apsw.Error as error:
            self.close()
            raise ReadOnlyError(f"cannot write {self._path}: {error}", applied="unknown",
                                hint="free some space, then repeat it with the same op") from None

    def prepare(self) -> None:
        """Make sure that leases can be written, before anything else is. Raises ReadOnlyError."""
        try:
            self._opened_to_write()
        except (apsw.Error, OSError) as error:
            self.close()
            raise ReadOnlyError(f"cannot write {self._path}: {error}", hint="nothing was written") from None

    def _apply(self, changes: "Mapping[str, Lease | None]") -> None:
        db = self._opened_to_write()
        with db:
            db.executemany("DELETE FROM leases WHERE spec=?", ((spec,) for spec in changes))
            db.executemany("INSERT INTO leases VALUES(?,?,?,?,?,?,?)", (
                (lease.spec, lease.by, lease.token, lease.until, lease.boot, lease.op, lease.op_sum)
                for lease in changes.values() if lease is not None))

    def _one(self, column: str, value: str) -> Lease | None:
        try:
            db = self._opened()
            if db is None:
                return None
            for row in db.execute(f"SELECT {_COLUMNS} FROM leases WHERE {column}=?", (value,)):  # noqa: S608 - a name of ours
                return Lease(*row)
        except apsw.Error:
            self.close()  # damaged: whoever writes next begins anew, and what runs counts as held from then on
        return None

    def _opened(self) -> apsw.Connection | None:
        """The open file, None where there is none."""
        there = signature.look(self._path)[:2]
        if self._db is not None and there != self._identity:
            self.close()
        if self._db is None and there != signature.MISSING[:2]:
            self._db, self._identity = apsw.Connection(self._path), there
            self._db.set_busy_timeout(_BUSY_MS)
            self._db.execute("PRAGMA cache_size=-256")  # KiB: they are few, and stand in the kernel's cache anyway
            self._db.execute("PRAGMA synchronous=OFF")  # a power cut ends all leases, so it may take them
        return self._db

    def _opened_to_write(self) -> apsw.Connection:
        try:
            return self._checked()
        except _DAMAGED:
            self._discard()
            return self._checked()

    def _discard(self) -> None:
        """Delete a damaged file: what runs counts as held from when it is next seen."""
        self.close()
        for suffix in ("-wal", "-shm", ""):
            if os.path.exists(self._path + suffix):
                os.unlink(self._path + suffix)

    def _checked(self) -> apsw.Connection:
        db = self._opened()
        if db is None:
            self._make()
            db = self._opened()
        assert db is not None  # noqa: S101 - `_make` made it
        db.pragma("journal_mode", "wal")
        db.execute(_SCHEMA)
        return db

    def _make(self) -> None:
        create_folder(os.path.dirname(self._path))
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            share_like_folder(fd, self._path)
        finally:
            os.close(fd)
