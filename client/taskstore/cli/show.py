"""`show`: one record in full."""

import sys

from taskstore_core.kinds import Kind, find_kind

from .arguments import Arguments
from .decode import decoder, fields
from .opening import open_store
from .text import bold, moment, visible, write_json

_TAB = "\t"
_LONG = ("description", "content", "awl_code", "payload", "error_message")


def show(arguments: Arguments) -> int:
    """Print a record, laid out for people or as JSON."""
    kind = find_kind(arguments.text("KIND"))
    with open_store(arguments) as store:
        line = store.get(kind, arguments.text("ID"))
    if arguments.json:
        write_json(line)
        return 0
    sys.stdout.write(lay_out(kind, fields(decoder(), line)))
    return 0


def lay_out(kind: Kind, record: dict[str, object]) -> str:
    """The record as text: its short fields in a column, then each long one under its name."""
    names = [name for name in (*kind.fields, *record) if name in record]
    names = [name for name in dict.fromkeys(names) if name != kind.key]
    long = [name for name in names if name in _LONG and record[name]]
    short = [name for name in names if name not in _LONG]
    width = max((len(visible(name)) for name in short), default=0)
    lines = [f"{bold(kind.title)} {visible(str(record[kind.key]))}"]
    lines += [f"  {visible(name):<{width}}  {_value(kind, name, record[name])}".rstrip() for name in short]
    for name in long:
        paragraphs = str(record[name]).rstrip("\n").split("\n")
        lines += ["", bold(visible(name)), *(f"  {visible(text, keep=_TAB)}".rstrip() for text in paragraphs)]
    return "\n".join(lines) + "\n"


def _value(kind: Kind, name: str, value: object) -> str:
    if value is None:
        return "-"
    if name.endswith("_at") and name in kind.numbers:
        return moment(value)
    return visible({True: "true", False: "false"}[value] if isinstance(value, bool) else str(value))
