"""`compact`: dropping superseded lines from the logs."""

import sys

from taskstore_core.errors import InvalidError
from taskstore_core.kinds import KINDS
from taskstore_core.plain import to_json

from .arguments import Arguments
from .opening import connect
from .progress import Working
from .table import print_table
from .text import count_of, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNITS_MS = {"s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_SIZES = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_DIGITS = 9


def compact(arguments: Arguments) -> int:
    """Drop superseded lines, or say which would be, and print how many by kind."""
    age = arguments.option("older_than")
    parameters: dict[str, object] = {"prune_tombstones": arguments.flag("prune_tombstones"),
                                     "dry_run": arguments.flag("dry_run")}
    if age is not None:
        parameters["older_than_ms"] = milliseconds(age)
    if (keep := arguments.number("keep")) is not None:
        parameters["keep"] = keep
    with connect(arguments) as store, Working("compacting"):
        answer = store.call("store.compact", parameters)
    if arguments.json:
        write_json(to_json(answer))
    else:
        _print(answer)
    return 0


def milliseconds(age: str) -> int:
    """An age as people write it ("30d", "12 h") in ms; raises InvalidError."""
    text = age.strip()
    digits = text[:next((n for n, char in enumerate(text) if not char.isdigit()), len(text))]
    unit = _UNITS_MS.get(text[len(digits):].strip())
    if unit is None or not digits.isascii() or not 0 < len(digits) <= _DIGITS:
        raise InvalidError(f"--older-than: {age!r} is no length of time", field="older_than",
                           hint=f"a whole number and a unit ({', '.join(_UNITS_MS)}), such as 30d")
    return int(digits) * unit


def _print(answer: "dict[str, Any]") -> None:
    rows = [[KINDS[name].plural.replace("_", " "), f"{counts['lines']:,}", size_of(counts["bytes"]),
             f"{counts['left']:,}"]
            for name, counts in answer["kinds"].items() if counts["lines"]]
    if rows:
        print_table(("KIND", "DROPPED", "SIZE", "LEFT"), rows, right=("DROPPED", "SIZE", "LEFT"))
        sys.stdout.write("\n")
    verb = "would drop" if answer["dry_run"] else "dropped"
    sys.stdout.write(f"{verb} {count_of(answer['lines'], 'line')}, {size_of(answer['bytes'])}\n" if rows else
                     "there is nothing to drop\n")
    kept = sum(counts["tombstones_kept"] for counts in answer["kinds"].values())
    if kept:
        sys.stdout.write(f"{count_of(kept, 'tombstone')} stay: a branch or stash here knows the record and not its"
                         " deletion, and merging it would bring the record back\n")


def size_of(count: int) -> str:
    """A count of bytes as people say it: "1.2 MB"."""
    for unit, size in _SIZES:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
