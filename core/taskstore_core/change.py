"""What a create, update, delete or import makes of a record: one line, or a refusal. Pure but for the clock.

The rules of the format stand here: defaults, stamps, `completed_at`, what may follow what. Each function gets the
newest known version of the id, tombstones included, and gives the index row of the line to append.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import msgspec

from . import records, validation
from .clock import next_stamp
from .errors import ConflictError, ExistsError, InvalidError, NotFoundError
from .jsonl import BASE, BadLineError, as_column, columns, text_indexer
from .kinds import KINDS, Kind
from .records import RESERVED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .jsonl import Row

    Known = tuple[int, bool, str, str | None] | None
    """(version, deleted, raw line, JSON of the concurrent versions that lost to it or None) of an id.

    None where there never was one.
    """

_ENDED = ("complete", "failed", "stopped")
_REQUIRED = {name: [field for field, info in fields.items() if info.required]
             for name, fields in records.FIELDS.items()}
_TEMPLATES = {name: {key: None if (field := records.FIELDS[name][key]).required else msgspec.to_builtins(field.default)
                     for key in kind.keys} for name, kind in KINDS.items()}
"""A new record, its keys in the order of the format; what is required is there to be overwritten."""
_COLUMNS = {name: columns(kind) for name, kind in KINDS.items()}
_PLAIN = {str, int, type(None)}
"""Types, and none derived from them, whose values stand in a line as they are here."""
_UNMARKED: Mapping[str, object] = {}


def create(kind: Kind, fields: Mapping[str, object], known: "Known", mark: Mapping[str, object] = _UNMARKED) -> "Row":
    """The first version of a record, or the first after its deletion; `mark` are the keys of its `op`.

    Raises ExistsError where the id is taken, InvalidError for a value or a missing field.
    """
    key = fields[kind.key]
    _refuse_reserved(fields)
    if known and not known[1]:
        raise ExistsError(f"{kind.title} {key} exists already", hint="update it, or choose another id")
    stamp = next_stamp(known[0] if known else None)
    for name in _REQUIRED[kind.name]:
        if name not in fields:
            raise InvalidError(f"{name}: a {kind.title} needs one", field=name)
    record = _TEMPLATES[kind.name].copy()
    record[kind.started] = stamp
    record.update(fields)
    record["updated_at"] = stamp if "updated_at" in kind.fields or known else None
    record.pop(BASE, None)
    for name in kind.optional_keys:
        if record[name] in (None, []):
            del record[name]
    if kind.name == "execution" and record["status"] in _ENDED and record["completed_at"] is None:
        record["completed_at"] = stamp
    if known or mark:
        record |= {**_based_on(known), **mark}
    try:
        validation.check_values(kind, fields)  # the rest is ours
    except InvalidError:
        validation.check_values(kind, record)  # where what is wrong is not in it, all is well
    line = validation.encode_ordered(kind, record)
    stored = [as_column(record.get(name)) for name in _COLUMNS[kind.name]]
    if known or record.get("updated_at") is None or not _PLAIN.issuperset(map(type, (key, *stored))):
        return _row(kind, line)
    # what reading the line would give, as its values were checked: a seventh of what a create costs
    return (key, stamp, False, line, *stored, None)  # type: ignore[return-value]  # of those types, as was seen


def update(  # noqa: PLR0917 - the parties to one change
    kind: Kind, key: str, changes: Mapping[str, object], known: "Known", if_updated_at: int | None = None,
    mark: Mapping[str, object] = _UNMARKED,
) -> "Row":
    """The next version of a record: `changes` laid over what is there, byte for byte where nothing changes.

    Raises NotFoundError, ConflictError when its version is not `if_updated_at`, InvalidError for a value.
    """
    version, raw = _live(kind, key, known, if_updated_at)
    if changes.get(kind.key, key) != key:
        raise InvalidError(f"{kind.key}: cannot be changed", hint="create another and delete this one", field=kind.key)
    _refuse_reserved(changes)
    changes = dict(changes)
    status = changes.get("status")
    stamp = next_stamp(version)
    if kind.name == "execution" and status is not None and "completed_at" not in changes:
        changes["completed_at"] = stamp if status in _ENDED else None
    changes["updated_at"] = stamp  # the store's to give, so that a later edit beats the one it saw
    changes.pop(BASE, None)
    validation.check_values(kind, changes)
    fields = _unreserved(raw)
    fields.update((name, validation.raw_value(value)) for name, value in changes.items())
    for name in kind.optional_keys:
        if name in changes and not changes[name]:
            del fields[name]
    return _row(kind, validation.encode(kind, fields | _raw({**_based_on(known), **mark})))


def delete(kind: Kind, key: str, known: "Known", if_updated_at: int | None = None,
           mark: Mapping[str, object] = _UNMARKED) -> "Row":
    """A tombstone; raises NotFoundError or ConflictError."""
    version, _ = _live(kind, key, known, if_updated_at)
    return _line(kind, {kind.key: key, "deleted": True, "updated_at": next_stamp(version), **_based_on(known), **mark})


def restore(  # noqa: PLR0917 - the parties to one change
    kind: Kind, key: str, lines: Sequence[str], known: "Known", version: object = None,
    mark: Mapping[str, object] = _UNMARKED,
) -> "Row":
    """An earlier version once more, as the newest, byte for byte but for its stamp.

    `lines` are all versions, oldest first; without `version` it is the last before the deletion. Raises
    NotFoundError where there is none such, InvalidError for a record that is not deleted and no `version`.
    """
    if known is None:
        raise NotFoundError(f"there is no {kind.title} {key}")
    if version is None and not known[1]:
        raise InvalidError(f"the {kind.title} {key} is not deleted", field="version",
                           hint=f"name the version to go back to: taskstore history {kind.name} {key} lists them")
    rows = [row for row in (_row(kind, line) for line in lines) if not row[2] and version in {None, row[1]}]
    if not rows:
        wanted = "that is no deletion" if version is None else str(version)
        raise NotFoundError(f"the {kind.title} {key} has no version {wanted} in this log",
                            hint="it may have been compacted away, or stand on another branch")
    fields = _unreserved(rows[-1][3])
    fields["updated_at"] = validation.raw_value(next_stamp(known[0]))
    return _row(kind, validation.encode(kind, fields | _raw({**_based_on(known), **mark})))


def bring_in(kind: Kind, fields: Mapping[str, object], known: "Known") -> "Row | None":
    """A line from elsewhere under its own stamps; None where the id has this version or a newer one already."""
    row = _line(kind, {name: value for name, value in fields.items() if name not in {"op", "op_sum"}})
    return None if known and known[0] >= row[1] else row


def choose(kind: Kind, line: str, known: "Known", mark: Mapping[str, object] = _UNMARKED) -> "Row":
    """One line of a record once more, deletion or not, as the newest: what settles a conflict."""
    stamp = next_stamp(known[0] if known else None)
    return _row(kind, restamp(kind, line, stamp, {**_based_on(known), **mark}))


def restamp(kind: Kind, line: str, stamp: int, mark: Mapping[str, object] = _UNMARKED) -> str:
    """A stored line under another stamp, byte for byte but for that and what belonged to the line alone."""
    fields = validation.raw_fields(line)
    for name in RESERVED:
        if name != "deleted":
            fields.pop(name, None)
    fields["updated_at"] = validation.raw_value(stamp)
    return validation.encode(kind, fields | _raw(mark), limited=False)  # another tool's may be longer than ours


def _live(kind: Kind, key: str, known: "Known", if_updated_at: int | None) -> tuple[int, str]:
    if known is None:
        raise NotFoundError(f"there is no {kind.title} {key}")
    version, deleted, raw, _ = known
    if deleted:
        raise NotFoundError(f"the {kind.title} {key} was deleted")
    if if_updated_at is not None and if_updated_at != version:
        raise ConflictError(f"the {kind.title} {key} has changed: its version is {version}, not {if_updated_at}",
                            hint="read it again")
    return version, raw


def _based_on(known: "Known") -> dict[str, object]:
    """What the next version says of those that its writer saw: the one it replaces, then those that lost to that."""
    if known is None:
        return {}
    if not known[3]:
        return {BASE: known[0]}
    import json

    bases = list(dict.fromkeys((known[0], *json.loads(known[3]))))
    return {BASE: bases if len(bases) > 1 else bases[0]}


def _refuse_reserved(fields: Mapping[str, object]) -> None:
    for name in RESERVED:
        if name in fields and name != BASE:  # who gives back a record as it was answered need not take that out
            raise InvalidError(f"{name}: is no field of a record",
                               hint="use delete" if name == "deleted" else "", field=name)


def _line(kind: Kind, record: Mapping[str, object]) -> "Row":
    validation.check_values(kind, record)
    return _row(kind, validation.encode(kind, record))


def _raw(fields: Mapping[str, object]) -> "dict[str, validation.RawValue]":
    return {name: validation.raw_value(value) for name, value in fields.items()}


def _unreserved(line: str) -> "dict[str, validation.RawValue]":
    """The fields of a line without those that belong to that line alone."""
    fields = validation.raw_fields(line)
    for name in RESERVED:
        fields.pop(name, None)
    return fields


def _row(kind: Kind, line: str) -> "Row":
    """The index row of a line we made, read the way every reader will."""
    row = _indexer(kind.name)(line)
    if isinstance(row, BadLineError):
        raise InvalidError(f"{kind.title}: {row}")
    if row is None:
        raise InvalidError(f"{kind.title}: an empty record")
    return row


@cache
def _indexer(name: str) -> "Callable[[str], Row | BadLineError | None]":
    return text_indexer(KINDS[name])
