"""`resolve-conflicts`: what a merge left in the logs, and which version is to count."""

import sys

from taskstore_core.kinds import find_kind
from taskstore_core.plain import to_json

from .arguments import Arguments
from .opening import connect
from .text import count_of, visible, word_of_shell, write_json
from .versions import differences, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Conflict = dict[str, Any]


def resolve_conflicts(arguments: Arguments) -> int:
    """Settle what can be, and conflicts as --take says; 1 if any is left."""
    word = arguments.option("KIND")
    with connect(arguments) as store:
        answer = store.call("store.resolve_conflicts", {
            "take": arguments.option("take"), "kind": None if word is None else find_kind(word).name,
            "id": arguments.option("ID")})
    if arguments.flag("json"):
        write_json(to_json(answer))
    elif arguments.flag("jsonl"):
        for conflict in answer["conflicts"]:
            write_json(to_json(conflict))
    else:
        for conflict in answer["conflicts"]:
            _print(conflict)
        sys.stdout.write("".join(f"{log} has no markers any more\n" for log in answer["logs"]))
        sys.stdout.write(f"{_summary(answer['left'], len(answer['logs']))}\n")
    return 1 if answer["left"] else 0


def _print(conflict: "Conflict") -> None:
    """One conflict: what differs between the sides, and what settles it or which side was taken."""
    kind, key = find_kind(conflict["kind"]), conflict["id"]
    ours, theirs = read(kind, [to_json(conflict["ours"]), to_json(conflict["theirs"])])
    if conflict["taken"]:
        sys.stdout.write(f"{kind.title} {visible(key)}: {conflict['taken']} is taken\n")
        return
    sys.stdout.write(f"{kind.title} {visible(key)}: both sides changed it with the same stamp; ours → theirs:\n")
    for name, change in differences(kind, ours.fields, theirs.fields):
        sys.stdout.write(f"  {visible(name)}  {visible(change)}\n")
    sys.stdout.write(f"  to settle it: taskstore resolve-conflicts {kind.name} {word_of_shell(key)} --take ours\n")


def _summary(left: int, mended: int) -> str:
    if left:
        return f"{count_of(left, 'conflict')} left; --take ours, theirs or newest settles all of them"
    return "settled; git add takes the logs in" if mended else "no conflict"
