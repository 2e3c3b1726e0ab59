"""`check`: what is wrong with a store, what it means, and what mends it."""

import sys

from taskstore_core.plain import to_json

from .arguments import Arguments
from .opening import connect
from .progress import Working
from .text import coloured, count_of, visible, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskstore_core.paths import Paths

    Problem = dict[str, object]

_SEVERITIES = ("error", "warning", "note")
_SHOWN = 10  # of each name


def look(arguments: Arguments) -> "tuple[Paths, list[Problem]]":
    """The store, and every problem that is found in it."""
    with connect(arguments) as store, Working("checking"):
        return store.paths, store.call("store.check", {"fix": arguments.flag("fix")})["problems"]


def report(arguments: Arguments, problems: "Sequence[Problem]") -> int:
    """Print problems; 1 if anything but notes is left."""
    left = sum(not problem["fixed"] and problem["severity"] != "note" for problem in problems)
    if arguments.flag("json"):
        write_json(to_json({"problems": problems, "left": left}))
    elif arguments.flag("jsonl"):
        for problem in problems:
            write_json(to_json(problem))
    else:
        _print(problems)
    return 1 if left else 0


def _print(problems: "Sequence[Problem]") -> None:
    shown: dict[str, int] = {}
    for problem in sorted(problems, key=lambda each: _SEVERITIES.index(str(each["severity"]))):
        name = str(problem["problem"])
        shown[name] = shown.get(name, 0) + 1
        if shown[name] <= _SHOWN:
            _print_one(problem)
    for name, count in shown.items():
        if count > _SHOWN:
            sys.stdout.write(f"… and {count - _SHOWN} more {name.replace('_', ' ')}: --json lists them all\n")
    sys.stdout.write(f"{chr(10) if problems else ''}{_summary(problems)}\n")


def _print_one(problem: "Problem") -> None:
    """One problem: how bad, where, what it means; and below, what mends it."""
    label = "mended" if problem["fixed"] else str(problem["severity"])
    place = "" if problem["file"] is None else visible(str(problem["file"]))
    if problem["line"] is not None:
        place += f", line {problem['line']}"
    sys.stdout.write(f"{coloured(f'{label:<7}', label)}  {place}{': ' if place else ''}"
                     f"{visible(str(problem['message']))}\n")
    if not problem["fixed"]:
        sys.stdout.write(f"         to mend it: {visible(str(problem['mend']))}\n")


def _summary(problems: "Sequence[Problem]") -> str:
    left = [problem for problem in problems if not problem["fixed"]]
    counts = [count_of(number, severity) for severity in _SEVERITIES
              if (number := sum(problem["severity"] == severity for problem in left))]
    words = ", ".join(counts) or ("nothing is wrong any more" if problems else "nothing is wrong")
    fixable = sum(bool(problem["fixable"]) for problem in left)
    return f"{words}; taskstore check --fix mends {fixable} of them" if fixable else words
