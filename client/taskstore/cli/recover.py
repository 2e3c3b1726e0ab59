"""`recover`: lines that were acknowledged and thrown away, and bringing them back."""

import sys

from taskstore_core.kinds import KINDS
from taskstore_core.plain import to_json

from .arguments import Arguments
from .opening import connect
from .progress import Working
from .table import print_table
from .text import ago, count_of, visible, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Line = dict[str, Any]


def recover(arguments: Arguments) -> int:
    """List what can be brought back, or do so."""
    ids, everything = arguments.many("ID"), arguments.flag("all")
    with connect(arguments) as store, Working("looking for lost lines"):
        answer = store.call("store.recover", {"ids": ids or None, "all": everything})
    if arguments.flag("json"):
        write_json(to_json(answer))
    elif arguments.flag("jsonl"):
        for line in answer["lines"]:
            write_json(to_json(line))
    elif ids or everything:
        _print_recovered([line for line in answer["lines"] if line["recovered"]], answer["left"])
    else:
        _print_lost(answer["lines"])
    return 0


def _print_lost(lines: "Sequence[Line]") -> None:
    if not lines:
        sys.stdout.write("no line is lost\n")
        return
    rows = [[KINDS[line["kind"]].title, line["id"], str(line["updated_at"]), ago(line["written_at"]), _rank(line),
             "holds it still" if line["held"] else "does not have it"] for line in lines]
    print_table(("KIND", "ID", "VERSION", "WRITTEN", "THAN WHAT IS THERE", "GIT"), rows, right=("VERSION",))
    sys.stdout.write(f"\n{count_of(len(lines), 'line')}; taskstore recover ID … brings back those of a record, --all"
                     " all of them\n")


def _rank(line: "Line") -> str:
    if line["superseded"]:
        return "older: for the history alone"
    return "newer: a deletion" if line["deleted"] else "newer"


def _print_recovered(lines: "Sequence[Line]", left: int) -> None:
    for line in lines:
        only = "; a newer version stands, so only its history has this one" if line["superseded"] else ""
        sys.stdout.write(f"{KINDS[line['kind']].title} {visible(line['id'])}: version {line['updated_at']}, written"
                         f" {ago(line['written_at'])}, is back{only}\n")
    sys.stdout.write(f"{count_of(len(lines), 'line')} brought back{f', {left} left' if left else ''}\n")
