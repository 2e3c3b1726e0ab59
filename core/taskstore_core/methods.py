"""The method table: every operation of a store by its name on the wire, its parameters and its function.

Typed library, command line and daemon are made from these rows, so that an operation is written once. A result
is plain data in which `Json` stands for text that is JSON already: a record is handed on as it stands in the log.
"""

from .errors import InvalidError
from .kinds import find_kind
from .store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Result = object


class Json(str):
    """Text that is JSON already."""

    __slots__ = ()


class Parameter:
    """A parameter: `type` is what a value must be, in words; `required` whether it must be given."""

    __slots__ = ("name", "required", "type")

    def __init__(self, name: str, type_: str, *, required: bool) -> None:
        self.name = name
        self.type = type_
        self.required = required


class Method:
    """A row of the table."""

    __slots__ = ("function", "name", "parameters", "summary")

    def __init__(self, name: str, parameters: str, function: "Callable[..., Result]", summary: str) -> None:
        """`parameters` is written as "kind:string id:string limit:integer?"."""
        self.name = name
        self.function = function
        self.summary = summary
        self.parameters: dict[str, Parameter] = {}
        for word in parameters.split():
            parameter, _, type_ = word.partition(":")
            self.parameters[parameter] = Parameter(parameter, type_.rstrip("?"), required=not type_.endswith("?"))


_TYPES: "dict[str, type | tuple[type, ...]]" = {
    "string": str, "integer": int, "boolean": bool, "object": dict, "array": list,
}


def dispatch(store: Store, name: str, parameters: "Mapping[str, object]") -> "Result":
    """Carry out one method.

    Raises InvalidError for an unknown method or parameters that do not fit, else what the operation raises.
    """
    method = METHODS.get(name)
    if method is None:
        raise InvalidError(f"there is no method {name!r}", field="method")
    _check(method, parameters)
    return method.function(store, **{key: value for key, value in parameters.items() if value is not None})


def to_json(result: "Result") -> str:
    """The JSON text of a result."""
    if isinstance(result, Json):
        return result
    if isinstance(result, dict):
        return "{" + ",".join(f"{to_json(key)}:{to_json(value)}" for key, value in result.items()) + "}"
    if isinstance(result, list | tuple):
        return "[" + ",".join(map(to_json, result)) + "]"
    import json

    return json.dumps(result, ensure_ascii=False, allow_nan=False)


def _check(method: Method, parameters: "Mapping[str, object]") -> None:
    for name, value in parameters.items():
        parameter = method.parameters.get(name)
        if parameter is None:
            raise InvalidError(f"{method.name} has no parameter {name!r}",
                               hint=f"parameters: {', '.join(method.parameters)}", field=name)
        if value is None and not parameter.required:
            continue
        type_ = _TYPES[parameter.type]
        if not isinstance(value, type_) or (isinstance(value, bool) and type_ is not bool):
            raise InvalidError(f"{name}: must be {parameter.type}", field=name)
    for parameter in method.parameters.values():
        if parameter.required and parameter.name not in parameters:
            raise InvalidError(f"{method.name} needs {parameter.name!r}", field=parameter.name)


def _create(store: Store, kind: str, record: "Mapping[str, object]") -> "Result":
    return _write(store, "create", kind, record)


def _get(store: Store, kind: str, id: str) -> "Result":  # noqa: A002 - the parameter's name on the wire
    return Json(store.get(kind, id))


def _update(store: Store, kind: str, id: str, set: "Mapping[str, object]",  # noqa: A002 - names on the wire
            if_updated_at: int | None = None) -> "Result":
    key = find_kind(kind).key
    if set.get(key, id) != id:
        raise InvalidError(f"{key}: cannot be changed", hint="create another and delete this one", field=key)
    return _write(store, "update", kind, {**set, key: id}, if_updated_at)


def _delete(store: Store, kind: str, id: str, if_updated_at: int | None = None) -> "Result":  # noqa: A002
    from .writer import Operation

    row = find_kind(kind)
    (written,) = store.apply([Operation("delete", row, {row.key: id}, if_updated_at)])
    return {"id": id, "updated_at": written.version}


def _write(store: Store, verb: str, kind: str, fields: "Mapping[str, object]",
           if_updated_at: int | None = None) -> "Result":
    from .writer import Operation

    (written,) = store.apply([Operation(verb, find_kind(kind), fields, if_updated_at)])
    return Json(written.raw)


def _list(store: Store, kind: str, where: "Mapping[str, object] | None" = None, *, order: str | None = None,
          limit: int | None = None, cursor: str | None = None) -> "Result":
    items, following = store.find(kind, where, order=order, limit=limit, cursor=cursor)
    return {"items": [Json(item) for item in items], "cursor": following}


def _sync(store: Store, *, full: bool = False) -> "Result":
    import time

    began = time.perf_counter()
    reports = store.sync(full=full)
    kinds = {name: {"mode": report.mode, "parsed": report.parsed, "changed": report.changed,
                    "bad_lines": report.bad_lines,
                    "bad": [{"line": line, "reason": reason} for line, reason in report.bad]}
             for name, report in reports.items()}
    return {"kinds": kinds, "parsed": sum(report.parsed for report in reports.values()),
            "changed": sum(report.changed for report in reports.values()),
            "took_ms": round((time.perf_counter() - began) * 1000, 3)}


def _stats(store: Store) -> "Result":
    return {"store": store.paths.directory, "kinds": store.stats()}


METHODS: dict[str, Method] = {method.name: method for method in (
    Method("record.create", "kind:string record:object", _create,
           "Create a record and answer with it; a missing id is made."),
    Method("record.get", "kind:string id:string", _get,
           "A live record, by its id or the beginning of just one id."),
    Method("record.update", "kind:string id:string set:object if_updated_at:integer?", _update,
           "Lay `set` over a record and answer with its next version."),
    Method("record.delete", "kind:string id:string if_updated_at:integer?", _delete,
           "Delete a record; answers with its id and the version of its tombstone."),
    Method("record.list", "kind:string where:object? order:string? limit:integer? cursor:string?", _list,
           "The live records that fit, in order, in pages of `limit`."),
    Method("store.sync", "full:boolean?", _sync,
           "Bring the cache level with the logs; what was read and changed, by kind."),
    Method("store.stats", "", _stats, "Counts by kind and status."),
)}
