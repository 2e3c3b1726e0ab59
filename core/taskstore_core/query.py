"""Lists: filters, order and pages of live records, as SQL on the cache's views; pure.

A page ends in a cursor that names the last record's place in the order, so that records which come or go between
two pages neither repeat nor hide others.
"""

import math

from .errors import InvalidError, check_text
from .jsonl import columns
from .kinds import Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Value = str | int | float | bool | None

MAX_LIMIT = 2**31
MAX_CONDITIONS = 500  # SQLite ends at an expression of depth 1000
OPERATORS = {"eq": "IS", "ne": "IS NOT", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}


class Query:
    """SQL with its parameters; `order_by` is the expression whose value a cursor keeps."""

    __slots__ = ("limit", "parameters", "sql")

    def __init__(self, sql: str, parameters: "list[Value]", limit: int | None) -> None:
        self.sql = sql
        self.parameters = parameters
        self.limit = limit


def build(kind: Kind, where: "Mapping[str, object] | None" = None, order: str | None = None,
          limit: int | None = None, cursor: str | None = None, *, concurrent: bool = False) -> Query:
    """The query for a list; its rows are (id, order value, raw).

    `where` is {field: value}, {field: {operator: value}} or {field: [{operator: value}, …]}, all of which must hold;
    `order` a field, descending with a leading "-" (default: when a record began); `concurrent` for records of which
    a version lost unseen. Raises InvalidError for anything that makes no sense.
    """
    order = order or kind.started
    descending = order.startswith("-")
    field = order.removeprefix("-")
    by_parameters: list[Value] = []
    by = _expression(kind, field, by_parameters)
    parameters = by_parameters[:]
    clauses = ["NOT deleted", *(["concurrent > ''"] if concurrent else [])]
    for name, condition in (where or {}).items():
        for one in _several(condition):
            clauses += _condition(kind, name, one, parameters)
    if len(clauses) > MAX_CONDITIONS:
        raise InvalidError(f"where: {len(clauses) - 1} conditions, {MAX_CONDITIONS - 1} are allowed", field="where")
    way = "DESC" if descending else "ASC"
    tail = f" ORDER BY o {way} NULLS LAST, id {way}{_limit(limit)}"  # this, and no expression, is read off an index
    parts, values = [], []
    for after, more in [("", [])] if cursor is None else _after(by, by_parameters, cursor, order):
        parts.append(f"SELECT id, {by} AS o, raw FROM {kind.plural}_rows WHERE {' AND '.join(clauses)}{after}{tail}")  # noqa: S608 - names from our own table, values bound
        values += [*parameters, *more]
    if len(parts) == 1:
        return Query(parts[0], values, limit)
    return Query(f"SELECT * FROM ({') UNION ALL SELECT * FROM ('.join(parts)}){tail}", values, limit)  # noqa: S608 - ditto


def _limit(limit: int | None) -> str:
    """One more than was asked for tells whether there is more."""
    if limit is None:
        return ""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit < MAX_LIMIT:
        raise InvalidError(f"limit: must be a whole number from 1 to {MAX_LIMIT - 1}", field="limit")
    return f" LIMIT {limit + 1}"


def encode_cursor(order: str, value: "Value", key: str) -> str:
    """The cursor behind a record."""
    import json

    return json.dumps([order, value, key], separators=(",", ":")).encode().hex()


def _decode_cursor(cursor: str, order: str) -> "tuple[Value, str]":
    import json

    try:
        of, value, key = json.loads(bytes.fromhex(cursor))
    except (ValueError, TypeError, RecursionError):
        raise InvalidError("cursor: not one that a list gave", field="cursor") from None
    if of != order or not isinstance(key, str) or isinstance(value, list | dict):
        raise InvalidError("cursor: belongs to a list in another order", field="cursor")
    return _scalar("cursor", value), str(_scalar("cursor", key))


def _after(by: str, by_parameters: "list[Value]", cursor: str, order: str) -> "list[tuple[str, list[Value]]]":
    """Conditions, with their parameters, for what comes behind a cursor: each is one stretch of an index."""
    value, key = _decode_cursor(cursor, order)
    sign = "<" if order.startswith("-") else ">"
    if value is None:
        return [(f" AND {by} IS NULL AND id {sign} ?", [*by_parameters, key])]
    return [(f" AND ({by}, id) {sign} (?, ?)", [*by_parameters, value, key]), (f" AND {by} IS NULL", by_parameters)]


def _expression(kind: Kind, field: str, parameters: "list[Value]") -> str:
    """SQL for a field: its column, or what the raw line holds under an unknown name."""
    if field == kind.key:
        return "id"
    if field in columns(kind) or field in kind.fields or field in kind.optional_keys:
        return field
    parameters.append(_path(field))
    return "json_extract(raw, ?)"


def _several(condition: object) -> list[object]:
    if isinstance(condition, list) and all(isinstance(one, dict) for one in condition):
        return condition
    return [condition]


def _path(field: str) -> str:
    """The path of an unknown field in the raw line."""
    check_text("field", field)
    if not field or '"' in field or "\\" in field or "\0" in field:
        raise InvalidError(f"there is no field {field!r}", field=field)
    return f'$."{field}"'


def _condition(kind: Kind, field: str, condition: object, parameters: "list[Value]") -> list[str]:
    tests = condition if isinstance(condition, dict) else {"eq": condition}
    clauses = []
    for operator, value in tests.items():
        if operator == "contains":
            clauses.append(_contains(field, value, parameters))
            continue
        expression = _expression(kind, field, parameters)
        if operator == "in" and isinstance(value, list):
            _check_words(kind, field, value)
            import json

            clauses.append(f"{expression} IN (SELECT value FROM json_each(?))")  # noqa: S608 - one parameter for all
            parameters.append(json.dumps([_scalar(field, item) for item in value]))
        elif operator in OPERATORS:
            _check_words(kind, field, [value])
            clauses.append(f"{expression} {OPERATORS[operator]} ?")
            parameters.append(_scalar(field, value))
        else:
            raise InvalidError(f"{field}: there is no operator {operator!r}",
                               hint=f"operators: {', '.join((*OPERATORS, 'in', 'contains'))}", field=field)
    return clauses


def _contains(field: str, value: object, parameters: "list[Value]") -> str:
    """A member of a list, or a part of a text: json_each gives the one row of a scalar no key."""
    parameters += [_path(field), _scalar(field, value), _scalar(field, value)]
    return ("EXISTS (SELECT 1 FROM json_each(raw, ?) AS e"
            " WHERE CASE WHEN e.key IS NULL THEN e.type NOT IN ('true', 'false') AND instr(e.value, ?)"
            " ELSE e.value IS ? END)")


def _check_words(kind: Kind, field: str, values: list[object]) -> None:
    """A status that does not exist would only ever find nothing: say so."""
    words = kind.enums.get(field)
    for value in values:
        if words and value is not None and value not in words:
            raise InvalidError(f"{field}: {value!r} is not one of {', '.join(words)}", field=field)


def _scalar(field: str, value: object) -> "Value":
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InvalidError(f"{field}: an integer of {value.bit_length()} bits, 64 are allowed", field=field)
    if isinstance(value, float) and math.isnan(value):
        raise InvalidError(f"{field}: nothing can be compared with {value}", field=field)
    if isinstance(value, str):
        check_text(field, value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise InvalidError(f"{field}: can only be compared with a text, a number, true, false or null", field=field)
