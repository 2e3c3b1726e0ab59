"""The one write path: a group of requests under one lock, one sync of the outbox, one append a log.

    level the cache → decide every line → outbox (durable from here) → logs → cache → answer

A request is a list of operations that happen together or not at all; the requests of a group fail one by one.
"""

import secrets
from collections.abc import Mapping, Sequence

from . import change
from .cache import Cache
from .clock import MAX_STAMP
from .drain import DrainError, drain, open_log
from .errors import InvalidError, ReadOnlyError, TaskStoreError
from .kinds import Kind
from .outbox import Outbox
from .paths import Paths
from .validation import check_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .change import Known
    from .drain import Sealed
    from .jsonl import Row

_ID_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: none to be taken for another
_ID_LENGTH = 8


class Operation:
    """One change: `verb` is "create", "update", "delete" or "import"; `fields` its values, the id among them."""

    __slots__ = ("fields", "if_updated_at", "kind", "verb")

    def __init__(self, verb: str, kind: Kind, fields: Mapping[str, object], if_updated_at: int | None = None) -> None:
        self.verb = verb
        self.kind = kind
        self.fields = dict(fields)
        self.if_updated_at = if_updated_at


class Written:
    """What became of one operation: the id, its version now, and the line; `changed` is False for a repeated import."""

    __slots__ = ("changed", "deleted", "key", "kind", "raw", "version")

    def __init__(self, kind: Kind, row: "Row", *, changed: bool = True) -> None:
        self.kind = kind
        self.key, self.version, self.deleted, self.raw = row[:4]
        self.changed = changed


def decide(cache: Cache, requests: Sequence[Sequence[Operation]]) -> "list[list[Written] | TaskStoreError]":
    """The lines each request would write, seen in order, or why it may not; nothing is written."""
    newest: dict[tuple[str, str], Known] = {}
    outcomes: list[list[Written] | TaskStoreError] = []
    for operations in requests:
        trial = dict(newest)
        written: list[Written] = []
        try:
            for operation in operations:
                written.append(_decide(cache, trial, operation))  # noqa: PERF401 - its length tells which one failed
        except TaskStoreError as error:
            error.operation = len(written)
            outcomes.append(error)
        else:
            outcomes.append(written)
            newest = trial
    return outcomes


def commit(paths: Paths, outbox: Outbox, outcomes: "Sequence[list[Written] | TaskStoreError]") -> "Sealed | None":
    """Make what was decided durable and put it into the logs; None where there was nothing. Needs the lock.

    Raises ReadOnlyError, BusyError: nothing was written, unless `applied` says "unknown".
    """
    groups = [[(written.kind.log, written.raw) for written in outcome if written.changed]
              for outcome in outcomes if isinstance(outcome, list)]
    groups = [group for group in groups if group]
    if not groups:
        return None
    for name in dict.fromkeys(name for group in groups for name, _ in group):
        open_log(paths, name).close()  # no permission, a symbolic link: said before anything is written
    frames = outbox.append(groups)
    try:
        return drain(paths, outbox, fresh=True)
    except DrainError as error:
        if error.undone:
            try:
                outbox.abort(frames)
            except (OSError, TaskStoreError):
                error.undone = False
        raise _refusal(error) from error


def _refusal(error: DrainError) -> TaskStoreError:
    cause = error.cause
    reason = cause.strerror if isinstance(cause, OSError) else str(cause)
    if error.undone:
        return ReadOnlyError(f"the write failed: {reason}", hint="nothing was written; free some space and try again")
    return ReadOnlyError(f"the write failed half-way: {reason}", applied="unknown",
                         hint="it will be completed once the logs can be written again")


def _decide(cache: Cache, newest: "dict[tuple[str, str], Known]", operation: Operation) -> Written:
    kind, fields = operation.kind, operation.fields
    if operation.verb == "create" and fields.get(kind.key) is None:
        if kind.key != "id":
            raise InvalidError(f"{kind.key}: a {kind.title} needs one", field=kind.key)
        fields["id"] = _new_id(cache, newest, kind)
    check_id(kind, fields.get(kind.key))
    key = str(fields[kind.key])
    known = newest[kind.name, key] if (kind.name, key) in newest else cache.get(kind, key)
    row = _row(operation, kind, key, known)
    if row is None:
        assert known is not None  # noqa: S101 - `bring_in` skips only what is known
        return Written(kind, (key, *known), changed=False)
    newest[kind.name, key] = row[1:4]
    return Written(kind, row)


def _row(operation: Operation, kind: Kind, key: str, known: "Known") -> "Row | None":
    fields = operation.fields
    match operation.verb:
        case "create":
            return change.create(kind, fields, known)
        case "update":
            return change.update(kind, key, fields, known, _stamp(operation))
        case "delete":
            return change.delete(kind, key, known, _stamp(operation))
        case "import":
            return change.bring_in(kind, fields, known)
        case verb:
            raise InvalidError(f"there is no operation {verb!r}", hint="operations: create, update, delete", field="op")


def _stamp(operation: Operation) -> int | None:
    stamp = operation.if_updated_at
    if stamp is not None and (isinstance(stamp, bool) or not isinstance(stamp, int) or abs(stamp) > MAX_STAMP):
        raise InvalidError(f"if_updated_at: not a stamp: {stamp!r}", field="if_updated_at")
    return stamp


def _new_id(cache: Cache, newest: "dict[tuple[str, str], Known]", kind: Kind) -> str:
    while True:
        key = f"{kind.prefix}-{''.join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))}"
        if (kind.name, key) not in newest and cache.get(kind, key) is None:
            return key


