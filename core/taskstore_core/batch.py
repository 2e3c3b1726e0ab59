"""A batch: creates, updates, deletes, imports, restores and choices that happen together or not at all."""

import os
from collections.abc import Mapping, Sequence

from . import change
from .clock import MAX_STAMP
from .errors import ConflictError, InvalidError, TaskStoreError
from .jsonl import parse_object
from .kinds import LOGS, Kind
from .plain import Json
from .request import Request
from .validation import check_id
from .view import SPEC, Written, needs_of, refuse_cycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import OpLine
    from .change import Known
    from .jsonl import Row
    from .request import Result
    from .view import View

_ID_LETTERS = b"0123456789abcdefghjkmnpqrstvwxyz" * 8  # Crockford's base 32, none to be taken for another; by byte
_ID_LENGTH = 8
_DRAWN = 16


class Operation:
    """One change: `verb` is "create", "update", "delete", "import" or "restore"; `fields` its values, with the id.

    Within the store also "choose", whose `line` is to be the newest version, deletion or not.
    """

    __slots__ = ("fields", "if_updated_at", "kind", "verb")

    def __init__(self, verb: str, kind: Kind, fields: Mapping[str, object], if_updated_at: int | None = None) -> None:
        self.verb = verb
        self.kind = kind
        self.fields = dict(fields)
        self.if_updated_at = if_updated_at


class Batch(Request):
    """Operations as one request; `single` if the answer is that of the one operation, not a list."""

    name = "apply"

    def __init__(self, operations: Sequence[Operation], op: str | None = None, *, single: bool = False) -> None:
        super().__init__(op)
        self.operations = operations
        self.single = single
        self.is_narrow = "restore" not in [operation.verb for operation in operations]
        if op is None:  # else whatever carries it matters
            self.kinds = tuple({operation.kind: None for operation in operations})
            self.is_plain = len(operations) == 1 and operations[0].kind is not SPEC

    def content(self) -> object:
        """The operations."""
        return [[one.verb, one.kind.name, one.fields, one.if_updated_at] for one in self.operations]

    def decide(self, view: "View") -> "Result":
        """Decide every operation in order; an error carries the number of the one it is about."""
        results = []
        for number, operation in enumerate(self.operations):
            view.number = number
            try:
                results.append(_answer(_decide(view, operation), operation.verb))
            except TaskStoreError as error:
                error.operation = number
                raise
        return results[0] if self.single else results

    def replay(self, view: "View", lines: "list[OpLine]") -> "Result":
        """The answers of the first time; what was imported is imported again, which changes nothing."""
        there = {line.number: line for line in lines}
        if there.keys() != {n for n, operation in enumerate(self.operations) if operation.verb != "import"}:
            raise ConflictError(f"only a part of what op {self.op!r} wrote is here",
                                hint="look at what is there, and write what is missing with another op")
        results = [_answer(Written(LOGS[there[number].log], there[number].row()), operation.verb)
                   if number in there else _answer(_decide(view, operation), operation.verb)
                   for number, operation in enumerate(self.operations)]
        return results[0] if self.single else results


def _answer(written: Written, verb: str) -> "Result":
    if verb == "import":
        return {"id": written.key, "updated_at": written.version, "deleted": written.deleted,
                "changed": written.changed}
    if written.deleted:
        return {"id": written.key, "updated_at": written.version}
    return Json(written.raw)


def _decide(view: "View", operation: Operation) -> Written:
    kind, fields, known = operation.kind, operation.fields, None
    if operation.verb == "create" and fields.get(kind.key) is None:
        if kind.key != "id":
            raise InvalidError(f"{kind.key}: a {kind.title} needs one", field=kind.key)
        fields = {**fields, "id": _new_id(view, kind)}
    else:
        check_id(kind, fields.get(kind.key))
        known = view.get(kind, str(fields[kind.key]))
    row = _row(view, operation, fields, known)
    if row is None:
        assert known is not None  # noqa: S101 - `bring_in` skips only what is known
        written = Written(kind, (str(fields[kind.key]), *known[:3]), changed=False)
        view.written.append(written)
        return written
    if kind is SPEC:
        _follow_up(view, operation, row)
    return view.put(kind, row)


def _row(view: "View", operation: Operation, fields: dict[str, object], known: "Known") -> "Row | None":
    kind, key = operation.kind, str(fields[operation.kind.key])
    match operation.verb:
        case "create":
            return change.create(kind, fields, known, view.mark())
        case "update":
            return change.update(kind, key, fields, known, _expected(operation), view.mark())
        case "delete":
            return change.delete(kind, key, known, _expected(operation), view.mark())
        case "import":
            return change.bring_in(kind, fields, known)
        case "restore":
            version = _stamp("version", fields.get("version"))
            return change.restore(kind, key, view.versions(kind, key), known, version, view.mark())
        case "choose":
            return change.choose(kind, str(fields["line"]), known, view.mark())
        case verb:
            raise InvalidError(f"there is no operation {verb!r}",
                               hint="operations: create, update, delete, import, restore", field="op")


def _follow_up(view: "View", operation: Operation, row: "Row") -> None:
    """What a change of a task spec means for others: no circle of needs, and no lease on what somebody set aside."""
    verb, fields = operation.verb, operation.fields
    if verb in {"create", "restore", "choose"} or (verb == "update" and "depends_on" in fields):
        refuse_cycle(view, row[0], needs_of((*row[1:4], None)))
    again = verb in {"restore", "choose"}
    status = parse_object(row[3]).get("status") if again else fields.get("status", "running")
    if verb == "delete" or ((again or verb == "update") and status != "running"):
        view.end_lease(row[0])


def _expected(operation: Operation) -> int | None:
    return _stamp("if_updated_at", operation.if_updated_at)


def _stamp(name: str, stamp: object) -> int | None:
    if stamp is None:
        return None
    if isinstance(stamp, bool) or not isinstance(stamp, int) or abs(stamp) > MAX_STAMP:
        raise InvalidError(f"{name}: not a stamp: {str(stamp)[:40]!r}", field=name)
    return stamp


def _new_id(view: "View", kind: Kind) -> str:
    """An id that nobody has; after the first one several are drawn at a time, for the price of two."""
    while True:
        drawn = view.drawn.get(kind.name)
        if not drawn:
            keys = _random_ids(kind, 1 if drawn is None else _DRAWN)
            taken = view.cache.taken(kind, keys)
            drawn = view.drawn[kind.name] = [key for key in keys if key not in taken]
        while drawn:
            key = drawn.pop()
            if not view.touched(kind, key):
                return key


def _random_ids(kind: Kind, count: int) -> list[str]:
    letters = os.urandom(_ID_LENGTH * count).translate(_ID_LETTERS).decode()
    return [f"{kind.prefix}-{letters[start:start + _ID_LENGTH]}" for start in range(0, len(letters), _ID_LENGTH)]
