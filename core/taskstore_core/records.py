"""The six kinds as typed records.

Whoever only reads does not import this: msgspec alone takes longer to start than a whole `show`. Fields nobody
here knows live in `extra` and survive everything.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from .clock import MAX_STAMP
from .errors import InvalidError
from .jsonl import parse_object
from .kinds import KINDS, Kind

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
    branch: str | None = None


TYPES: dict[str, type[Record]] = {
    record.kind: record for record in (Prd, TaskSpec, Execution, Dependency, Workflow, RepoState)
}

RESERVED = ("deleted", "base_at", "op", "op_sum")
"""Keys of a line that are no fields of its record."""

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

PARTIAL: dict[str, type[msgspec.Struct]] = {
    name: msgspec.defstruct("Partial", [(field, info.type, None) for field, info in fields.items()])
    for name, fields in FIELDS.items()
}
"""For each kind what checks the values of any of its fields, all at once."""


def from_line(type_: type[RecordT], line: str) -> RecordT:
    """A stored line as a typed record, leniently for old workflow lines.

    Raises InvalidError, naming the field, for a line of another tool whose values are outside their types.
    """
    values: dict[str, Any] = parse_object(line)
    if type_ is Workflow and "awl_code" not in values and "content" in values:
        values["awl_code"] = values["content"]
    fields = FIELDS[type_.kind]
    known = {name: value for name, value in values.items() if name in fields and not (
        value is None and fields[name].default not in (None, msgspec.NODEFAULT))}
    try:
        record = msgspec.convert(known, type_)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{values.get(KINDS[type_.kind].key)}: {reworded(error)}",
                           hint="the record can still be read as JSON") from None
    record.extra = {name: value for name, value in values.items() if name not in fields and name not in RESERVED}
    return record


def to_fields(record: Record) -> dict[str, object]:
    """The fields of a typed record for `create`: stamps of 0, an empty id and an empty depends_on are left out."""
    kind = KINDS[record.kind]
    for name in record.extra:
        if name in FIELDS[record.kind]:
            raise InvalidError(f"{name}: is a field of its own, not one of `extra`", field=name)
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


def reworded(error: msgspec.ValidationError) -> str:
    """What msgspec says of a value, as part of one of our sentences."""
    text = str(error).replace("`", "'")
    return text[:1].lower() + text[1:]
