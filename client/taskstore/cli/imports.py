"""`import beads`: records of another tool, under their own ids and times; and how any import is summed up."""

import sys

from taskstore_core.errors import InvalidError, NotFoundError
from taskstore_core.kinds import KINDS
from taskstore_core.plain import to_json

from .arguments import Arguments
from .opening import connect
from .progress import Working
from .text import plural, visible, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskstore.beads import Conversion

    Counts = dict[str, dict[str, int]]

_SHOWN = 20


def import_beads(arguments: Arguments) -> int:
    """Bring in what can be, and list what cannot with the reason."""
    conversion = _convert(arguments.text("FILE"))
    operations: list[dict[str, object]] = [{"op": "import", "kind": kind, "record": fields}
                                           for kind, fields in conversion.records]
    with connect(arguments) as store, Working("importing"):
        results = store.call("store.apply", {"ops": operations})
    counts = count_results(operations, results)
    if arguments.json:
        skipped = [{"line": line, "id": key, "reason": reason} for line, key, reason in conversion.skipped]
        notes = [{"id": key, "note": note} for key, note in conversion.notes]
        write_json(to_json({"lines": counts, "skipped": skipped, "notes": notes}))
        return 0
    print_counts(counts)
    _tell([f"line {line}: {key or 'no id'} skipped: {reason}" for line, key, reason in conversion.skipped])
    _tell([f"{key}: {note}" for key, note in conversion.notes])
    return 0


def _convert(path: str) -> "Conversion":
    """The records of a beads log; raises NotFoundError, InvalidError."""
    from taskstore.beads import convert

    try:
        if path == "-":
            conversion = convert(sys.stdin.buffer)
        else:
            with open(path, "rb") as file:
                conversion = convert(file)
    except OSError as error:
        raise NotFoundError(f"cannot read {path}: {error.strerror}") from None
    if conversion.skipped and not conversion.records:
        line, _, reason = conversion.skipped[0]
        raise InvalidError(f"{path} holds nothing that can be imported; line {line}: {reason}")
    return conversion


def count_results(operations: "Sequence[dict[str, object]]", results: "Sequence[dict[str, object]]") -> "Counts":
    """For each kind how many lines were imported, deleted something, or were here already."""
    counts: Counts = {}
    for operation, result in zip(operations, results, strict=True):
        count = counts.setdefault(str(operation["kind"]), {"imported": 0, "deleted": 0, "unchanged": 0})
        count["unchanged" if not result["changed"] else "deleted" if result["deleted"] else "imported"] += 1
    return counts


def print_counts(counts: "Counts") -> None:
    """Print them for people."""
    for kind, count in counts.items():
        sys.stdout.write(f"{plural(KINDS[kind].title)}: {count['imported']} imported, {count['deleted']} deleted,"
                         f" {count['unchanged']} here already\n")


def _tell(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        sys.stderr.write(visible(line) + "\n")
    if len(lines) > _SHOWN:
        sys.stderr.write(f"… and {len(lines) - _SHOWN} more: --json lists them all\n")
