"""`import`: records of another tool, under their own ids and times."""

import json
import sys

from taskstore_core.batch import Operation
from taskstore_core.errors import InvalidError, NotFoundError
from taskstore_core.kinds import KINDS

from .arguments import Arguments
from .opening import open_store
from .text import visible, write_json

_SHOWN = 20


def import_(arguments: Arguments) -> int:
    """`import beads FILE`: bring in what can be, and list what cannot with the reason."""
    from taskstore.beads import convert

    path = arguments.text("FILE")
    try:
        with open(path, "rb") as file:
            conversion = convert(file)
    except OSError as error:
        raise NotFoundError(f"cannot read {path}: {error.strerror}") from None
    if conversion.skipped and not conversion.records:
        line, _, reason = conversion.skipped[0]
        raise InvalidError(f"{path} holds nothing that can be imported; line {line}: {reason}")
    with open_store(arguments) as store:
        written = store.apply([Operation("import", KINDS[kind], fields) for kind, fields in conversion.records])
    counts: dict[str, dict[str, int]] = {}
    for one in written:
        count = counts.setdefault(one.kind.name, {"imported": 0, "deleted": 0, "unchanged": 0})
        count["unchanged" if not one.changed else "deleted" if one.deleted else "imported"] += 1
    if arguments.json:
        skipped = [{"line": line, "id": key, "reason": reason} for line, key, reason in conversion.skipped]
        notes = [{"id": key, "note": note} for key, note in conversion.notes]
        write_json(json.dumps({"lines": counts, "skipped": skipped, "notes": notes}, ensure_ascii=False,
                              separators=(",", ":")))
        return 0
    for kind, count in counts.items():
        sys.stdout.write(f"{KINDS[kind].title}s: {count['imported']} imported, {count['deleted']} deleted,"
                         f" {count['unchanged']} here already\n")
    _tell([f"line {line}: {key or 'no id'} skipped: {reason}" for line, key, reason in conversion.skipped])
    _tell([f"{key}: {note}" for key, note in conversion.notes])
    return 0


def _tell(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        sys.stderr.write(visible(line) + "\n")
    if len(lines) > _SHOWN:
        sys.stderr.write(f"… and {len(lines) - _SHOWN} more: --json lists them all\n")
