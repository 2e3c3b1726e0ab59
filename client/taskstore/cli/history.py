"""`history` and `restore`: the versions of a record, and going back to one."""

import sys

from taskstore_core.errors import NotFoundError
from taskstore_core.kinds import Kind, find_kind

from .arguments import Arguments
from .ids import history_of
from .lists import write_items
from .opening import connect
from .table import print_table
from .text import ago, visible, word_of_shell, write_json
from .versions import Version, describe, read, seen_by


def history(arguments: Arguments) -> int:
    """Print a line for each version, oldest first: its number, when it was written, what it did, whether it lost."""
    kind = find_kind(arguments.text("KIND"))
    with connect(arguments) as store:
        key, answer = history_of(store, kind, arguments.text("ID"))
    if write_items(arguments, answer):
        return 0
    versions, lost = read(kind, answer["items"]), set(answer["lost"])
    rows = []
    for place, version in enumerate(versions):
        did = describe(kind, seen_by(versions, place), version)
        did = f"lost to a concurrent one: {did}" if place in lost else did
        rows.append([str(version.stamp), ago(version.stamp), did])
    print_table(("VERSION", "WHEN", "WHAT IT DID"), rows, right=("VERSION",))
    if lost:
        sys.stderr.write(f"to bring back what lost: taskstore restore {kind.name} {word_of_shell(key)}"
                         f" --version {versions[max(lost)].stamp}\n")
    return 0


def restore(arguments: Arguments) -> int:
    """Write an earlier version once more."""
    kind = find_kind(arguments.text("KIND"))
    wanted = arguments.number("version")
    with connect(arguments) as store:
        key, answer = history_of(store, kind, arguments.text("ID"))
        record = store.call("record.restore", {
            "kind": kind.name, "id": key, "version": wanted, "op": arguments.option("op")})
    if arguments.json:
        write_json(record)
    else:
        stamp = wanted if wanted is not None else _last_live(kind, read(kind, answer["items"]))
        sys.stdout.write(f"{kind.title} {visible(key)} is as it was at version {stamp}, written {ago(stamp)}\n")
    return 0


def _last_live(kind: Kind, versions: list[Version]) -> int:
    """The version that `restore` takes by itself."""
    for version in reversed(versions):
        if not version.deleted:
            return version.stamp
    raise NotFoundError(f"there is no version of this {kind.title} that is no deletion")
