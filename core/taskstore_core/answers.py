"""What goes into a method and what comes out of it, as JSON Schema (draft 2020-12), and the table of errors.

Data, made from the tables of methods, kinds and errors when somebody asks; nothing here looks at a value. The schemas
describe what TaskStore writes: a line of another tool may hold values outside them, and is answered as it stands.
"""

from .clock import MAX_STAMP
from .kinds import KINDS
from .methods import METHODS, Method

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .errors import TaskStoreError

    Schema = dict[str, object]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MAX_WORD = 256

_TEXT: "Schema" = {"type": "string"}
_WORD: "Schema" = {"type": "string", "minLength": 1, "maxLength": _MAX_WORD}
_COUNT: "Schema" = {"type": "integer", "minimum": 0}
_STAMP: "Schema" = {"type": "integer", "minimum": 0, "maximum": MAX_STAMP}
_VERSION: "Schema" = {"type": "integer", "minimum": -MAX_STAMP, "maximum": MAX_STAMP}  # of any line: others' may be < 0
_FLAG: "Schema" = {"type": "boolean"}
_DURATION: "Schema" = {"type": "integer", "minimum": 1, "maximum": MAX_STAMP}
_KIND: "Schema" = {"enum": [alias for kind in KINDS.values() for alias in (kind.name, *kind.aliases)]}
_FIELDS: "Schema" = {"type": "object", "minProperties": 1}


def _or_null(schema: "Schema") -> "Schema":
    return {"anyOf": [schema, {"type": "null"}]}


def _array(items: "Schema") -> "Schema":
    return {"type": "array", "items": items}


def _object(optional: "dict[str, Schema] | None" = None, **required: "Schema") -> "Schema":
    """An object that has all of `required`, may have `optional`, and nothing else."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required),
            "additionalProperties": False}


def _with(record: "Schema", **keys: "Schema") -> "Schema":
    """A record with more keys."""
    return {"allOf": [record, {"type": "object", "properties": keys, "required": list(keys)}]}


_TOMBSTONE: "Schema" = {
    "title": "tombstone", "description": "The line that ends a record.", "type": "object",
    "properties": {"deleted": {"const": True}, "updated_at": _STAMP}, "required": ["deleted"],
}
_DELETED = _object(id=_TEXT, updated_at=_STAMP)
_IMPORTED = _object(id=_TEXT, updated_at=_STAMP, deleted=_FLAG, changed=_FLAG)
_SYNC = _object(
    kinds={"type": "object", "propertyNames": {"enum": list(KINDS)}, "additionalProperties": _object(
        mode={"enum": ["unchanged", "tail", "changed", "rebuilt"]}, parsed=_COUNT, changed=_COUNT, bad_lines=_COUNT,
        bad=_array(_object(line={"type": "integer", "minimum": 1}, reason=_TEXT)))},
    parsed=_COUNT, changed=_COUNT, flushed={"type": "boolean"}, took_ms={"type": "number", "minimum": 0})
_REPOSITORY = _object(
    commit=_TEXT, branch=_or_null(_TEXT), ahead=_or_null(_COUNT), behind=_or_null(_COUNT),
    last_synced=_or_null(_object(commit=_TEXT, branch=_or_null(_TEXT), at=_STAMP)))
_STATS = _object(store=_TEXT, repository=_or_null(_REPOSITORY), kinds={
    "type": "object", "propertyNames": {"enum": list(KINDS)}, "additionalProperties": _object(
        {"status": {"type": "object", "additionalProperties": _COUNT}},
        records=_COUNT, deleted=_COUNT, lines=_COUNT, bad_lines=_COUNT)})
_PROBLEM = _object(
    problem=_TEXT, severity={"enum": ["error", "warning", "note"]}, message=_TEXT, mend=_TEXT, file=_or_null(_TEXT),
    line=_or_null({"type": "integer", "minimum": 1}), id=_or_null(_TEXT), fixable=_FLAG, fixed=_FLAG)
_CHECK = _object(problems=_array(_PROBLEM), left=_COUNT)
_TAKE: "Schema" = {"enum": ["ours", "theirs", "newest"]}
_COMPACT = _object(
    kinds={"type": "object", "propertyNames": {"enum": list(KINDS)}, "additionalProperties": _object(
        lines=_COUNT, bytes=_COUNT, tombstones=_COUNT, tombstones_kept=_COUNT, left=_COUNT)},
    lines=_COUNT, bytes=_COUNT, dry_run=_FLAG, took_ms={"type": "number", "minimum": 0})
_HEARTBEAT = _object(id=_TEXT, by=_TEXT, expires_at={"type": "integer"})


def _answer(method: Method, record: "Schema") -> "Schema":
    """The answer by its name in the method table, where `record` stands for a record of the method's kind."""
    either: Schema = {"anyOf": [record, _TOMBSTONE]}
    return {
        "record": record,
        "deleted": _DELETED,
        "page": _object(items=_array(record), cursor=_or_null(_TEXT)),
        "items": _object(items=_array(record)),
        "versions": _object(items=_array(either), lost=_array(_COUNT)),
        "results": _array({"anyOf": [record, _DELETED, _IMPORTED]}),
        "sync": _SYNC,
        "stats": _STATS,
        "check": _CHECK,
        "resolved": _object(
            conflicts=_array(_object(kind={"enum": list(KINDS)}, id=_TEXT, ours=either, theirs=either,
                                     taken=_or_null({"enum": ["ours", "theirs"]}))),
            logs=_array(_TEXT), left=_COUNT),
        "compact": _COMPACT,
        "lost": _object(lines=_array(_object(
            kind={"enum": list(KINDS)}, id=_TEXT, updated_at=_VERSION, deleted=_FLAG, written_at=_STAMP,
            superseded=_FLAG, held=_FLAG, recovered=_FLAG, record=either)), left=_COUNT),
        "claim": _or_null(_with(record, token=_TEXT)),
        "heartbeat": _HEARTBEAT,
        "completed": _with(record, unblocked=_array(_TEXT)),
    }[method.answer]


_OPERATION: "Schema" = {"oneOf": [
    _object(op={"const": "create"}, kind=_KIND, record=_FIELDS),
    _object(op={"const": "import"}, kind=_KIND, record=_FIELDS),
    _object({"if_updated_at": _or_null(_VERSION)}, op={"const": "update"}, kind=_KIND, id=_TEXT, set=_FIELDS),
    _object({"if_updated_at": _or_null(_VERSION)}, op={"const": "delete"}, kind=_KIND, id=_TEXT),
    _object({"version": _or_null(_VERSION)}, op={"const": "restore"}, kind=_KIND, id=_TEXT),
]}

_WHERE = ("{field: value}, {field: {operator: value}} or {field: [{operator: value}, …]} with eq, ne, gt, ge, lt, le,"
          " in, contains; all must hold.")
_PRUNE = "Drop all that is left of deleted records, if every branch and stash here that knows them has the deletion."
_TIMEOUT = "How long to wait, in ms; by default for as long as it takes."
_PARAMETERS: "dict[str, tuple[Schema, str]]" = {
    "kind": (_KIND, "The kind of record."),
    "id": (_TEXT, "The record's id."),
    "record": ({"type": "object"}, "The fields; those left out get their defaults."),
    "set": ({"type": "object"}, "The fields to change, with their new values."),
    "if_updated_at": (_VERSION, "Only if this is the version of the record now."),
    "op": (_WORD, "The caller's id for this write: sent again within 24 h, it is answered and not repeated."),
    "where": ({"type": "object"}, _WHERE),
    "order": (_TEXT, "A field, with a leading - for descending; by default when a record began."),
    "limit": ({"type": "integer", "minimum": 1, "maximum": 2**31 - 1}, "At most so many."),
    "cursor": (_TEXT, "Where the page before ended."),
    "concurrent": (_FLAG, "Only records of which a version lost to another whose writer had not seen it."),
    "version": (_VERSION, "The `updated_at` of the version to write again."),
    "ops": (_array(_OPERATION), "The operations, each {op, kind, …} with the parameters of its method."),
    "full": (_FLAG, "Forget the cache and build it anew."),
    "fix": (_FLAG, "Mend what is safe to mend."),
    "older_than_ms": ({"type": "integer", "minimum": 0, "maximum": MAX_STAMP},
                      "Only versions that are at least this old, in ms."),
    "keep": ({"type": "integer", "minimum": 1, "maximum": MAX_STAMP},
             "Leave this many of the newest versions of each record; 1 by default."),
    "prune_tombstones": (_FLAG, _PRUNE),
    "dry_run": (_FLAG, "Only say what would be dropped."),
    "ids": (_array(_TEXT), "The records whose lines to write once more: ids, or enough of the beginning of each."),
    "all": (_FLAG, "Write all of them once more."),
    "prd_id": (_TEXT, "Only task specs of this PRD."),
    "by": (_WORD, "Who claims, or holds: a name of the caller's choice."),
    "token": (_TEXT, "What the claim answered with."),
    "lease_ms": (_DURATION, "How long to hold it, in ms; 900000 (15 min) by default."),
    "take": (_TAKE, "Which version of what is in conflict is to count; newest is the same on every machine."),
    "payload": (_TEXT, "What to hand to whoever waits."),
    "wait_ms": ({"type": "integer", "minimum": 0, "maximum": MAX_STAMP},
                "How long to wait, in milliseconds, for git to be quiet if lines wait for that."),
    "timeout_ms": ({"type": "integer", "minimum": 0, "maximum": MAX_STAMP}, _TIMEOUT),
}
_OF_METHOD: "dict[tuple[str, str], str]" = {
    ("store.resolve_conflicts", "kind"): "Only conflicts of this kind.",
    ("store.resolve_conflicts", "id"): "Only the conflict about this record: its id, or enough of its beginning.",
    ("record.get", "id"): "The record's id, or enough of its beginning.",
    ("task_spec.claim", "id"): "The task spec's id; without it, the oldest that is ready.",
}


def answer_schema(method: str) -> "Schema":
    """JSON Schema of what a method answers with; raises KeyError for a name that is no method."""
    row = METHODS[method]
    kinds = _kinds_of(row)
    definitions: Schema = {}
    for name in kinds:
        definitions |= _record(name)
    references: list[Schema] = [{"$ref": f"#/$defs/{name}"} for name in kinds]
    schema = _answer(row, references[0] if len(references) == 1 else {"anyOf": references})
    described: Schema = {"$schema": DIALECT, "title": f"{method}: {row.answer}", **schema}
    return described | {"$defs": definitions} if definitions else described


def parameters_schema(method: str) -> "Schema":
    """JSON Schema of the parameters of a method by name; raises KeyError for a name that is no method."""
    row = METHODS[method]
    properties: Schema = {}
    for name, parameter in row.parameters.items():
        schema, _ = _PARAMETERS[name]
        text = describe(method, name)
        properties[name] = {"description": text, **(schema if parameter.required else _or_null(schema))}
    return {"$schema": DIALECT, "title": f"{method}: parameters", "type": "object", "properties": properties,
            "required": [name for name, parameter in row.parameters.items() if parameter.required],
            "additionalProperties": False}


def describe(method: str, parameter: str) -> str:
    """A parameter of a method in a sentence; raises KeyError for one that is not there."""
    return _OF_METHOD.get((method, parameter)) or _PARAMETERS[parameter][1]


def errors() -> "list[type[TaskStoreError]]":
    """Every class of error that a store raises, in the order they are written down; each carries what to tell of it."""
    from .errors import TaskStoreError

    return [error for error in TaskStoreError.__subclasses__() if error.__module__ == TaskStoreError.__module__]


def _kinds_of(method: Method) -> list[str]:
    """The kinds whose records a method answers with."""
    if method.answer in {"deleted", "sync", "stats", "check", "compact", "heartbeat"}:
        return []
    named = method.name.partition(".")[0]
    return [named] if named in KINDS else list(KINDS)


def _record(name: str) -> "Schema":
    """The definitions of a kind: its record as answered, with at least its key, and what that refers to."""
    from .records import json_schema

    schema = json_schema(KINDS[name])
    del schema["$schema"]
    referred = schema.pop("$defs", {})
    assert isinstance(referred, dict)  # noqa: S101 - what a schema holds
    required = schema["required"]
    assert isinstance(required, list)  # noqa: S101
    return {name: {**schema, "required": [KINDS[name].key, *(key for key in required if key != KINDS[name].key)]},
            **referred}
