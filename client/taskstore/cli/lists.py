"""`list` and its three shorthands: many records, a line each."""

import sys

from taskstore_core.errors import InvalidError
from taskstore_core.kinds import KINDS, Kind, find_kind
from taskstore_core.plain import to_json

from .arguments import Arguments
from .decode import decoder, fields
from .ids import prd_of
from .opening import connect
from .pages import fetch
from .table import print_table
from .text import ago, plural, visible, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS = {
    "prd": ("id", "status", "updated_at", "title"),
    "task_spec": ("id", "status", "assigned_to", "updated_at", "phase_name"),
    "execution": ("id", "status", "ts_id", "branch_name", "current_phase", "iteration_count", "updated_at"),
    "dependency": ("id", "dependency_type", "from_exec_id", "to_exec_id", "created_at", "resolved_at"),
    "workflow": ("id", "updated_at", "name"),
    "repo_state": ("repo_path", "updated_at", "last_synced_commit"),
}
_HEADINGS = {"updated_at": "UPDATED", "created_at": "CREATED", "resolved_at": "RESOLVED", "phase_name": "PHASE",
             "assigned_to": "ASSIGNED TO", "dependency_type": "TYPE", "iteration_count": "ITERATIONS",
             "branch_name": "BRANCH", "current_phase": "PHASE", "ts_id": "TASK SPEC", "prd_id": "PRD",
             "from_exec_id": "FROM", "to_exec_id": "TO", "repo_path": "REPOSITORY", "last_synced_commit": "COMMIT"}
# The two-character operators first: "<=" begins with "<".
_OPERATORS = (("!=", "ne"), ("<=", "le"), (">=", "ge"), ("=", "eq"), ("<", "lt"), (">", "gt"), ("~", "contains"))


def list_records(arguments: Arguments) -> int:
    """`list KIND`."""
    kind = find_kind(arguments.text("KIND"))
    return _list(arguments, kind, where_of(kind, arguments), order=arguments.option("order"),
                 limit=arguments.number("limit"), cursor=arguments.option("cursor"),
                 concurrent=arguments.flag("concurrent") or None)


def where_of(kind: Kind, arguments: Arguments) -> "dict[str, object]":
    """The filter that the --where of a command line make; raises InvalidError."""
    where: dict[str, list[dict[str, object]]] = {}
    for test in arguments.many("where"):
        field, operator, value = _test(kind, test)
        where.setdefault(field, []).append({operator: value})
    return {**where}


def list_prds(arguments: Arguments) -> int:
    """`list-prds`."""
    return _list(arguments, KINDS["prd"], _status(arguments))


def list_task_specs(arguments: Arguments) -> int:
    """`list-task-specs PRD_ID`: an id, or enough of the beginning of one."""
    with connect(arguments) as store:
        key = prd_of(store, arguments.text("PRD_ID"))
    return _list(arguments, KINDS["task_spec"], {"prd_id": key, **_status(arguments)})


def list_executions(arguments: Arguments) -> int:
    """`list-executions`."""
    return _list(arguments, KINDS["execution"], _status(arguments))


def _status(arguments: Arguments) -> dict[str, object]:
    status = arguments.option("status")
    return {} if status is None else {"status": status}


def _list(arguments: Arguments, kind: Kind, where: "Mapping[str, object]",
          **paging: "str | int | bool | None") -> int:
    with connect(arguments) as store:
        answer = fetch(store, {"kind": kind.name, "where": {**where}, **paging})
    items, following = answer["items"], answer["cursor"]
    assert isinstance(items, list)  # noqa: S101 - what record.list answers with
    if not write_items(arguments, answer):
        _print(kind, items, following)
    for field in (*where, str(paging.get("order") or "").removeprefix("-")):
        _doubt(kind, field)
    return 0


def _doubt(kind: Kind, field: str) -> None:
    """Say so where the name of a field looks like a slip: as an unknown field it fits no record."""
    known = (*kind.fields, *kind.optional_keys)
    if field and field not in known:
        import difflib

        for near in difflib.get_close_matches(field, known, 1):
            sys.stderr.write(f"a {kind.title} has no field {visible(field)}; did you mean {near}?\n")


def write_items(arguments: Arguments, answer: "Mapping[str, object]") -> bool:
    """Write a list as JSON if that is wanted; whether it was."""
    if arguments.flag("json"):
        write_json(to_json({**answer}))
    elif arguments.flag("jsonl"):
        items = answer["items"]
        assert isinstance(items, list)  # noqa: S101 - what every list is answered with
        for item in items:
            write_json(item)
    return arguments.json


def _print(kind: Kind, items: "Sequence[str]", cursor: object) -> None:
    if not items:
        sys.stderr.write(f"no {plural(kind.title)}\n")
        return
    print_records(items, COLUMNS[kind.name])
    if cursor:
        sys.stderr.write(f"more: --cursor {cursor}\n")


def print_records(lines: "Sequence[str]", names: "Sequence[str]") -> None:
    """Print a table of records: these fields of each."""
    connection = decoder()
    headings = [_HEADINGS.get(name, name.upper()) for name in names]
    rows = [[_cell(name, record.get(name)) for name in names]
            for record in (fields(connection, line) for line in lines)]
    print_table(headings, rows, right=("ITERATIONS",))


def _cell(name: str, value: object) -> str:
    if name.endswith("_at"):
        return ago(value) or "-"
    return "-" if value is None else str(value)


def _test(kind: Kind, test: str) -> tuple[str, str, object]:
    """(field, operator, value) of one --where."""
    found = [(test.index(sign), -len(sign), sign, operator) for sign, operator in _OPERATORS if sign in test]
    if not found:
        raise InvalidError(f"--where {test}: not of the form field=value", hint="operators: = != < <= > >= ~",
                           field="where")
    place, _, sign, operator = min(found)
    field, value = test[:place].strip(), test[place + len(sign):]
    return field, operator, typed(kind, field, value)


def typed(kind: Kind, field: str, word: str) -> object:
    """A word of the command line as the value of a field: a number where the field holds one, null for "null"."""
    if word == "null" and field not in kind.enums:
        return None
    if field in kind.numbers or field not in (*kind.fields, *kind.optional_keys):
        try:
            return int(word)
        except ValueError:
            if field in kind.numbers:
                raise InvalidError(f"{field}: must be a whole number, not {word[:40]!r}", field=field) from None
    return word
