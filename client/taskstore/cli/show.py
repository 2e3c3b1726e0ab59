"""`show`: one record in full."""

import sys

from taskstore_core.kinds import Kind, find_kind

from .arguments import Arguments
from .decode import decoder, fields
from .opening import connect
from .text import bold, coloured, moment, visible, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_TAB = "\t"
LONG = ("description", "content", "awl_code", "payload", "error_message")
"""Fields that may hold many lines."""
UNSHOWN = ("deleted", "base_at", "op", "op_sum")
"""Keys of a line that say how it was written, and nothing of the record."""


def show(arguments: Arguments) -> int:
    """Print a record, laid out for people or as JSON."""
    kind = find_kind(arguments.text("KIND"))
    with connect(arguments) as store:
        line = store.call("record.get", {"kind": kind.name, "id": arguments.text("ID")})
    if arguments.json:
        write_json(line)
    else:
        write_record(kind, line)
    return 0


def write_record(kind: Kind, line: str, *, without: tuple[str, ...] = ()) -> None:
    """Print the record in `line` for people."""
    record = shown_fields(kind, fields(decoder(), line))
    sys.stdout.write(lay_out(kind, {name: value for name, value in record.items() if name not in without}))


def shown_fields(kind: Kind, record: "Mapping[str, object]") -> dict[str, object]:
    """The fields of a line that are its record's, those of the kind first."""
    names = (*kind.fields, *record)
    return {name: record[name] for name in dict.fromkeys(names) if name in record and name not in UNSHOWN}


def lay_out(kind: Kind, record: "Mapping[str, object]") -> str:
    """The record as text: its short fields in a column, then each long one under its name."""
    names = [name for name in record if name != kind.key]
    long = [name for name in names if name in LONG and record[name]]
    short = [name for name in names if name not in LONG]
    width = max((len(visible(name)) for name in short), default=0)
    lines = [f"{bold(kind.title)} {visible(str(record[kind.key]))}"]
    lines += [f"  {visible(name):<{width}}  {_coloured_value(kind, name, record[name])}".rstrip() for name in short]
    for name in long:
        paragraphs = str(record[name]).rstrip("\n").split("\n")
        lines += ["", bold(visible(name)), *(f"  {visible(text, keep=_TAB)}".rstrip() for text in paragraphs)]
    return "\n".join(lines) + "\n"


def value_of(kind: Kind, name: str, value: object) -> str:
    """The value of a field as text, made visible."""
    if value is None:
        return "-"
    if name.endswith("_at") and name in kind.numbers:
        return moment(value)
    return visible({True: "true", False: "false"}[value] if isinstance(value, bool) else str(value))


def _coloured_value(kind: Kind, name: str, value: object) -> str:
    text = value_of(kind, name, value)
    return coloured(text, text) if name == "status" else text
