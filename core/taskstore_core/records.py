"""The six kinds as typed records, and the check of every value before it is written.

Whoever only reads does not import this: msgspec alone takes longer to start than a whole `show`. Fields nobody
here knows live in `extra` and survive everything.
"""

import json
import math
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from .clock import MAX_STAMP
from .errors import InvalidError
from .kinds import KINDS, Kind

MAX_RECORD = 4 << 20
MAX_DEPTH = 64
MAX_ID = 256

U8 = Annotated[int, msgspec.Meta(ge=0, le=2**8 - 1)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Stamp = Annotated[int, msgspec.Meta(ge=0, le=MAX_STAMP)]


class PrdStatus(StrEnum):
    """Where a PRD stands."""

    DRAFT = "draft"
    READY = "ready"
    ACTIVE = "active"
    COMPLETE = "complete"
    CANCELLED = "cancelled"


class TaskSpecStatus(StrEnum):
    """Where a task spec stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


class ExecutionStatus(StrEnum):
    """Where an execution stands."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"


class DependencyType(StrEnum):
    """What one execution wants of another: to be told, to ask, or to share."""

    NOTIFY = "notify"
    QUERY = "query"
    SHARE = "share"


class Record(msgspec.Struct, kw_only=True):
    """What all kinds have in common. A stamp of 0 on a record to be created means: now."""

    kind: ClassVar[str]
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class Prd(Record, kw_only=True):
    """A product requirements document."""

    kind: ClassVar[str] = "prd"
    title: str
    id: str = ""
    description: str = ""
    created_at: Stamp = 0
    updated_at: Stamp = 0
    status: PrdStatus = PrdStatus.DRAFT
    review_passes: U8 = 0
    content: str = ""


class TaskSpec(Record, kw_only=True):
    """One piece of work under a PRD. `depends_on` names the task specs that must be complete first."""

    kind: ClassVar[str] = "task_spec"
    prd_id: str
    phase_name: str
    id: str = ""
    description: str = ""
    created_at: Stamp = 0
    updated_at: Stamp = 0
    status: TaskSpecStatus = TaskSpecStatus.PENDING
    workflow_name: str | None = None
    assigned_to: str | None = None
    content: str = ""
    depends_on: list[str] = msgspec.field(default_factory=list)


class Execution(Record, kw_only=True):
    """One run of a loop on a task spec, in a worktree of its own."""

    kind: ClassVar[str] = "execution"
    ts_id: str
    id: str = ""
    worktree_path: str = ""
    branch_name: str = ""
    status: ExecutionStatus = ExecutionStatus.RUNNING
    started_at: Stamp = 0
    updated_at: Stamp = 0
    completed_at: Stamp | None = None
    current_phase: str | None = None
    iteration_count: U32 = 0
    error_message: str | None = None


class Dependency(Record, kw_only=True):
    """What one execution waits for from another; resolved once `resolved_at` is set."""

    kind: ClassVar[str] = "dependency"
    from_exec_id: str
    to_exec_id: str
    dependency_type: DependencyType
    id: str = ""
    created_at: Stamp = 0
    resolved_at: Stamp | None = None
    payload: str | None = None
    updated_at: Stamp | None = None


class Workflow(Record, kw_only=True):
    """A workflow definition in AWL."""

    kind: ClassVar[str] = "workflow"
    name: str
    id: str = ""
    description: str = ""
    awl_code: str = ""
    created_at: Stamp = 0
    updated_at: Stamp = 0


class RepoState(Record, kw_only=True):
    """How far this clone has been synced; of this machine alone."""

    kind: ClassVar[str] = "repo_state"
    repo_path: str
    last_synced_commit: str
    updated_at: Stamp = 0


TYPES: dict[str, type[Record]] = {
    record.kind: record for record in (Prd, TaskSpec, Execution, Dependency, Workflow, RepoState)
}

RecordT = TypeVar("RecordT", bound=Record)


class _Field:
    """The type of one field, and what stands for it where a new record does not say."""

    __slots__ = ("default", "required", "type")

    def __init__(self, info: "msgspec.structs.FieldInfo") -> None:
        self.type = info.type
        self.required = info.required
        factory = info.default_factory
        self.default = info.default if factory is msgspec.NODEFAULT else factory()


FIELDS: dict[str, dict[str, _Field]] = {
    name: {info.name: _Field(info) for info in msgspec.structs.fields(record) if info.name != "extra"}
    for name, record in TYPES.items()
}


def check_values(kind: Kind, values: Mapping[str, object]) -> None:
    """Raise InvalidError, naming the field, for a value that may not be written. Unknown fields need only be JSON."""
    for name, value in values.items():
        _check_text(name.encode("ascii", "backslashreplace").decode(), name)
        known = FIELDS[kind.name].get(name)
        if known is not None:
            try:
                msgspec.convert(value, known.type)
            except msgspec.ValidationError as error:
                raise InvalidError(f"{name}: {_lower(error)}", field=name) from None
        _check_json(name, value, 1)
    if kind.key in values:
        check_id(kind, values[kind.key])


def check_id(kind: Kind, key: object) -> None:
    """Raise InvalidError for what cannot be an id."""
    if not isinstance(key, str) or not key:
        raise InvalidError(f"{kind.key}: must be a string that is not empty", field=kind.key)
    if len(key) > MAX_ID and kind.key == "id":
        raise InvalidError(f"id: {len(key)} characters, at most {MAX_ID} are allowed", field="id")
    if any(unicodedata.category(char) == "Cc" for char in key):
        raise InvalidError(f"{kind.key}: {key[:80]!r} holds control characters", field=kind.key)


def encode(kind: Kind, raw: Mapping[str, msgspec.Raw]) -> str:
    """The line for a record, its keys in the order of the format; raises InvalidError over MAX_RECORD bytes."""
    names = [*kind.fields, *kind.optional_keys]
    ordered = {**{name: raw[name] for name in names if name in raw}, **raw}
    line = msgspec.json.encode(ordered)
    if len(line) > MAX_RECORD:
        raise InvalidError(f"{kind.title}: {len(line)} bytes, a record may have {MAX_RECORD}",
                           hint="keep long content in a file of its own and name it here")
    return line.decode()


def raw_value(value: object) -> msgspec.Raw:
    """A checked value as JSON bytes."""
    return msgspec.Raw(msgspec.json.encode(value))


def raw_fields(line: str) -> dict[str, msgspec.Raw]:
    """The fields of a stored line, each as the bytes it had: what nobody edits is never written anew."""
    return msgspec.json.decode(line, type=dict[str, msgspec.Raw])


def from_line(type_: type[RecordT], line: str) -> RecordT:
    """A stored line as a typed record, leniently for old workflow lines.

    Raises InvalidError, naming the field, for a line of another tool whose values are outside their types.
    """
    values: dict[str, Any] = json.loads(line)
    if type_ is Workflow and "awl_code" not in values and "content" in values:
        values["awl_code"] = values["content"]
    fields = FIELDS[type_.kind]
    known = {name: value for name, value in values.items() if name in fields and not (
        value is None and fields[name].default not in (None, msgspec.NODEFAULT))}
    try:
        record = msgspec.convert(known, type_)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{values.get(KINDS[type_.kind].key)}: {_lower(error)}",
                           hint="the record can still be read as JSON") from None
    record.extra = {name: value for name, value in values.items() if name not in fields}
    return record


def to_fields(record: Record) -> dict[str, object]:
    """The fields of a typed record for `create`: stamps of 0, an empty id and an empty depends_on are left out."""
    kind = KINDS[record.kind]
    fields: dict[str, object] = msgspec.to_builtins(record)
    del fields["extra"]
    unset = {name for name in fields if name.endswith("_at") and not fields[name]}
    unset |= {name for name in (kind.key, "depends_on", "updated_at") if not fields.get(name)}
    return {name: value for name, value in fields.items() if name not in unset} | record.extra


def json_schema(kind: Kind) -> dict[str, object]:
    """JSON Schema (draft 2020-12) of one line of the kind's log."""
    made = msgspec.json.schema(TYPES[kind.name])
    definitions: dict[str, Any] = made["$defs"]
    schema: dict[str, Any] = definitions.pop(TYPES[kind.name].__name__)
    schema["properties"].pop("extra")
    schema["properties"] = {name: schema["properties"][name] for name in (*kind.fields, *kind.optional_keys)}
    schema["additionalProperties"] = True
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema,
            **({"$defs": definitions} if definitions else {})}


def _check_json(name: str, value: object, depth: int) -> None:
    match value:
        case str():
            if not value.isascii():
                _check_text(name, value)
        case bool() | None:
            return
        case int():
            if not -(2**63) <= value < 2**64:
                raise InvalidError(f"{name}: {str(value)[:40]} needs more than 64 bits", field=name)
        case float():
            if not math.isfinite(value):
                raise InvalidError(f"{name}: {value} is not JSON", field=name)
        case dict() | list() | tuple():
            _check_container(name, value, depth)
        case _:
            raise InvalidError(f"{name}: a {type(value).__name__} is not JSON", field=name)


def _check_container(name: str, value: "dict[object, object] | list[object] | tuple[object, ...]", depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise InvalidError(f"{name}: nested more than {MAX_DEPTH} levels deep", field=name)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidError(f"{name}: the key {key!r} is not a string", field=name)
            _check_text(name, key)
    for item in value.values() if isinstance(value, dict) else value:
        _check_json(name, item, depth + 1)


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidError(f"{name}: half of a surrogate pair, which UTF-8 cannot hold", field=name) from None


def _lower(error: Exception) -> str:
    text = str(error).replace("`", "'")
    return text[:1].lower() + text[1:]
