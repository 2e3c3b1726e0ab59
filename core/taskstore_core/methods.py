"""The method table: every operation of a store by its name on the wire, its parameters, its answer and its function.

Typed library, command line, daemon, OpenRPC and the reference page are made from these rows, so that an operation is
written once. A row that writes makes a `Request`, of which many may be carried out together; one that reads is
carried out at once. What an answer looks like is in `answers`.
"""

from .errors import InvalidError
from .kinds import find_kind
from .plain import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .batch import Operation
    from .request import Request, Result
    from .store import Store


class Parameter:
    """A parameter: `type` is what a value must be, in words; `required` whether it must be given."""

    __slots__ = ("name", "required", "type")

    def __init__(self, name: str, type_: str, *, required: bool) -> None:
        self.name = name
        self.type = type_
        self.required = required


class Method:
    """A row of the table: `function` reads a store, or `request` makes what writes to one."""

    __slots__ = ("answer", "function", "name", "parameters", "request", "summary", "waits")

    def __init__(  # noqa: PLR0917 - in the order of the table
        self, name: str, parameters: str, answer: str, summary: str,
        function: "Callable[..., Result] | None" = None, request: "Callable[..., Request] | None" = None, *,
        waits: bool = False,
    ) -> None:
        """`parameters` is written as "kind:string id:string limit:integer?"; what writes takes an `op` by itself."""
        self.name = name
        self.answer = answer
        self.summary = summary
        self.function = function
        self.request = request
        self.waits = waits  # answers only when something happens
        self.parameters: dict[str, Parameter] = {}
        for word in parameters.split():
            parameter, _, type_ = word.partition(":")
            self.parameters[parameter] = Parameter(parameter, type_.rstrip("?"), required=not type_.endswith("?"))


_TYPES: "dict[str, type | tuple[type, ...]]" = {
    "string": str, "integer": int, "boolean": bool, "object": dict, "array": list,
}


def dispatch(store: "Store", name: str, parameters: "Mapping[str, object]") -> "Result":
    """Carry out one method.

    Raises InvalidError for an unknown method or parameters that do not fit, else what the operation raises.
    """
    method, given = look_up(name, parameters)
    if method.request is not None:
        return store.run(method.request(**given)).result
    assert method.function is not None  # noqa: S101 - a row has one or the other
    return method.function(store, **given)


def look_up(name: str, parameters: "Mapping[str, object]") -> "tuple[Method, dict[str, object]]":
    """The row of a method and the parameters given for it, without those that are null; raises InvalidError."""
    method = METHODS.get(name)
    if method is None:
        import difflib

        near = difflib.get_close_matches(name, METHODS, 1)
        raise InvalidError(f"there is no method {name!r}", hint=f"did you mean {near[0]}?" if near else "",
                           field="method")
    check_parameters(method, parameters)
    return method, {key: value for key, value in parameters.items() if value is not None}


def check_parameters(method: Method, parameters: "Mapping[str, object]") -> None:
    """Raise InvalidError, naming it, for a parameter that is unknown, missing or of another type."""
    for name, value in parameters.items():
        parameter = method.parameters.get(name)
        if parameter is None:
            raise InvalidError(f"{method.name} has no parameter {name!r}",
                               hint=f"parameters: {', '.join(method.parameters) or 'none'}", field=name)
        type_ = _TYPES[parameter.type]
        if value is None and not parameter.required:
            continue
        if not isinstance(value, type_) or (isinstance(value, bool) and type_ is not bool):
            raise InvalidError(f"{name}: must be {parameter.type}", field=name)
    for parameter in method.parameters.values():
        if parameter.required and parameter.name not in parameters:
            raise InvalidError(f"{method.name} needs {parameter.name!r}", field=parameter.name)


def create(kind: str, record: "Mapping[str, object]", op: str | None = None) -> "Request":
    """What `record.create` asks for; raises InvalidError, as those below."""
    return _single("create", kind, record, None, op)


def _get(store: "Store", kind: str, id: str) -> "Result":  # noqa: A002 - the parameter's name on the wire
    return Json(store.get(kind, id))


def update(kind: str, id: str, set: "Mapping[str, object]",  # noqa: A002 - names on the wire
            if_updated_at: int | None = None, op: str | None = None) -> "Request":
    """What `record.update` asks for."""
    return _single("update", kind, _keyed(kind, id, set), if_updated_at, op)


def _keyed(kind: str, id: object, set: "Mapping[str, object]") -> "dict[str, object]":  # noqa: A002
    key = find_kind(kind).key
    if set.get(key, id) != id:
        raise InvalidError(f"{key}: cannot be changed", hint="create another and delete this one", field=key)
    return {**set, key: id}


def delete(kind: str, id: str, if_updated_at: int | None = None, op: str | None = None) -> "Request":  # noqa: A002
    """What `record.delete` asks for."""
    return _single("delete", kind, _keyed(kind, id, {}), if_updated_at, op)


def _restore(kind: str, id: str, version: int | None = None, op: str | None = None) -> "Request":  # noqa: A002
    wanted = {} if version is None else {"version": version}
    return _single("restore", kind, {**_keyed(kind, id, {}), **wanted}, None, op)


def _single(verb: str, kind: str, fields: "Mapping[str, object]", if_updated_at: int | None,
            op: str | None) -> "Request":
    import taskstore_core.batch as batches  # absolute: for what is imported already, a sixth of the time

    return batches.Batch([batches.Operation(verb, find_kind(kind), fields, if_updated_at)], op, single=True)


def _apply(ops: "Sequence[object]", op: str | None = None) -> "Request":
    from .batch import Batch

    operations = []
    for number, one in enumerate(ops):
        try:
            operations.append(_operation(one))
        except InvalidError as error:
            error.operation = number
            raise
    return Batch(operations, op)


_OPERATIONS = {
    "create": "kind record", "import": "kind record", "update": "kind id set if_updated_at",
    "delete": "kind id if_updated_at", "restore": "kind id version",
}


def _operation(one: object) -> "Operation":
    """One of the `ops` of store.apply; raises InvalidError."""
    from .batch import Operation

    verb = one.get("op") if isinstance(one, dict) else None
    if not isinstance(one, dict) or not isinstance(verb, str) or verb not in _OPERATIONS:
        raise InvalidError("ops: each is an object whose op is create, update, delete, import or restore", field="ops")
    names = _OPERATIONS[verb].split()
    for name in one:
        if name not in {"op", *names}:
            raise InvalidError(f"{verb} has no parameter {name!r}", hint=f"parameters: {', '.join(names)}", field=name)
    kind, fields = one.get("kind"), one.get("set" if verb == "update" else "record", {})
    if not isinstance(kind, str):
        raise InvalidError(f"{verb} needs a kind", field="kind")
    if not isinstance(fields, dict) or (verb not in {"delete", "restore"} and not fields):
        name = "set" if verb == "update" else "record"
        raise InvalidError(f"{verb} needs {name!r}, an object", field=name)
    if "id" in names:
        fields = _keyed(kind, one.get("id"), fields)
    if one.get("version") is not None:
        fields = {**fields, "version": one["version"]}
    return Operation(verb, find_kind(kind), fields, one.get("if_updated_at"))


def _list(store: "Store", kind: str, where: "Mapping[str, object] | None" = None, *, order: str | None = None,
          limit: int | None = None, cursor: str | None = None, concurrent: bool = False) -> "Result":
    items, following = store.find(kind, where, order=order, limit=limit, cursor=cursor, concurrent=concurrent)
    return {"items": [Json(item) for item in items], "cursor": following}


def _history(store: "Store", kind: str, id: str) -> "Result":  # noqa: A002
    from .concurrent import lost
    from .jsonl import index_line

    lines = store.history(kind, id)
    rows = [row for line in lines if (row := index_line(find_kind(kind), line.encode())) is not None]
    return {"items": [Json(line) for line in lines], "lost": lost(find_kind(kind), rows)}


def _sync(store: "Store", *, full: bool = False, wait_ms: int | None = None) -> "Result":
    import time

    began = time.perf_counter()
    if wait_ms is not None:
        from .request import check_number

        check_number("wait_ms", wait_ms, 0)
    reports = store.sync(full=full)
    flushed = store.flush((wait_ms or 0) / 1000)
    kinds = {name: {"mode": report.mode, "parsed": report.parsed, "changed": report.changed,
                    "bad_lines": report.bad_lines,
                    "bad": [{"line": line, "reason": reason} for line, reason in report.bad]}
             for name, report in reports.items()}
    return {"kinds": kinds, "parsed": sum(report.parsed for report in reports.values()),
            "changed": sum(report.changed for report in reports.values()),
            "flushed": flushed, "took_ms": round((time.perf_counter() - began) * 1000, 3)}


def _stats(store: "Store") -> "Result":
    return {"store": store.paths.directory, "repository": store.repository(), "kinds": store.stats()}


def _check_store(store: "Store", *, fix: bool = False) -> "Result":
    from .check import check

    return check(store, fix=fix)


def _resolve_conflicts(store: "Store", take: str | None = None, kind: str | None = None,
                       id: str | None = None) -> "Result":  # noqa: A002
    from .conflicts import resolve

    return resolve(store, take, None if kind is None else find_kind(kind), id)


def _compact(store: "Store", **parameters: object) -> "Result":
    return store.compact(**parameters)  # type: ignore[arg-type]  # `check_parameters` has looked at them


def _recover(store: "Store", ids: "Sequence[object] | None" = None, *,
             all: bool = False) -> "Result":  # noqa: A002 - the parameter's name on the wire
    from .recover import recover

    return recover(store, ids, everything=all)


def _ready(store: "Store", prd_id: str | None = None, limit: int | None = None) -> "Result":
    from .ready import list_ready
    from .request import check_number

    if limit is not None:
        check_number("limit", limit, 1)
    return {"items": [Json(line) for line in list_ready(store, prd_id, limit)]}


def _claim(**parameters: object) -> "Request":
    from .claims import Claim

    return Claim(**parameters)  # type: ignore[arg-type]  # `check_parameters` has looked at them


def _heartbeat(**parameters: object) -> "Request":
    from .claims import Heartbeat

    return Heartbeat(**parameters)  # type: ignore[arg-type]  # `check_parameters` has looked at them


def _settle(outcome: str) -> "Callable[..., Request]":
    def request(**parameters: object) -> "Request":
        from .claims import Settle

        return Settle(outcome, **parameters)  # type: ignore[arg-type]  # `check_parameters` has looked at them

    return request


def _resolve(**parameters: object) -> "Request":
    from .claims import Resolve

    return Resolve(**parameters)  # type: ignore[arg-type]  # `check_parameters` has looked at them


def _wait(store: "Store", id: str, timeout_ms: int | None = None) -> "Result":  # noqa: A002
    from .wait import wait

    return wait(store, id, timeout_ms)


_HOLDER = "id:string by:string token:string op:string?"

METHODS: dict[str, Method] = {method.name: method for method in (
    Method("record.create", "kind:string record:object op:string?", "record",
           "Create a record and answer with it; a missing id is made.", request=create),
    Method("record.get", "kind:string id:string", "record",
           "A live record, by its id or the beginning of just one id.", _get),
    Method("record.update", "kind:string id:string set:object if_updated_at:integer? op:string?", "record",
           "Lay `set` over a record and answer with its next version.", request=update),
    Method("record.delete", "kind:string id:string if_updated_at:integer? op:string?", "deleted",
           "Delete a record; answers with its id and the version of its tombstone.", request=delete),
    Method("record.list",
           "kind:string where:object? order:string? limit:integer? cursor:string? concurrent:boolean?", "page",
           "The live records that fit, in order, in pages of `limit`.", _list),
    Method("record.history", "kind:string id:string", "versions",
           "Every version of a record in the log, oldest first, deletions too. `lost` are the places, from 0, of those"
           " that lost to another whose writer had not seen them.", _history),
    Method("record.restore", "kind:string id:string version:integer? op:string?", "record",
           "Write an earlier version once more: `version`, or the last before the record was deleted.",
           request=_restore),
    Method("store.apply", "ops:array op:string?", "results",
           "Creates, updates, deletes, imports and restores together or not at all.", request=_apply),
    Method("store.sync", "full:boolean? wait_ms:integer?", "sync",
           "Bring the cache level with the logs; what was read and changed, by kind. `flushed` tells whether every line"
           " stands in its log, after waiting `wait_ms` for git to be quiet.", _sync),
    Method("store.stats", "", "stats",
           "Counts by kind and status, and the commit at which the logs were last read.", _stats),
    Method("store.check", "fix:boolean?", "check",
           "Everything that is wrong, where, and what mends it; with `fix`, what is safe is mended.", _check_store),
    Method("store.resolve_conflicts", "take:string? kind:string? id:string?", "resolved",
           "Settle what a merge left in the logs, conflicts as `take` says: all, those of a kind, or of one record.",
           _resolve_conflicts),
    Method("store.compact", "older_than_ms:integer? keep:integer? prune_tombstones:boolean? dry_run:boolean?",
           "compact", "Drop superseded lines from the logs; what was dropped, by kind.", _compact),
    Method("store.recover", "ids:array? all:boolean?", "lost",
           "Acknowledged lines that are in no log any more, nor on a branch or in a stash; with `ids` or `all`, they"
           " are written once more.", _recover),
    Method("task_spec.ready", "prd_id:string? limit:integer?", "items",
           "The task specs that may be claimed now, oldest first.", _ready),
    Method("task_spec.claim", "by:string id:string? prd_id:string? lease_ms:integer? op:string?", "claim",
           "Take a task spec: the one named, or the oldest that is ready; null when none is.", request=_claim),
    Method("task_spec.heartbeat", "id:string by:string token:string lease_ms:integer?", "heartbeat",
           "Hold a claimed task spec for `lease_ms` from now.", request=_heartbeat),
    Method("task_spec.complete", _HOLDER, "completed",
           "End a claim: the task spec is complete. Answers also with what may be claimed now because of it.",
           request=_settle("complete")),
    Method("task_spec.fail", _HOLDER, "record", "End a claim: the task spec has failed.", request=_settle("fail")),
    Method("task_spec.release", _HOLDER, "record", "End a claim: the task spec is pending again.",
           request=_settle("release")),
    Method("dependency.resolve", "id:string payload:string? op:string?", "record",
           "Resolve a dependency, with a payload for whoever waits for it.", request=_resolve),
    Method("dependency.wait", "id:string timeout_ms:integer?", "record",
           "Answer with a dependency when it is resolved, or as it is after `timeout_ms`.", _wait, waits=True),
)}
