"""`sync`, `stats` and `schema`: the store as a whole; and making one, for `init`."""

import os
import sys

from taskstore.connection import FLUSH_MS
from taskstore_core import layout
from taskstore_core.kinds import KINDS, Kind, find_kind
from taskstore_core.paths import discover, named
from taskstore_core.plain import to_json
from taskstore_core.store import Store

from .arguments import Arguments, directory_of
from .opening import connect
from .progress import Working
from .table import print_table
from .text import ago, count_of, visible, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHORT = 10  # of the digits of a commit


def make(arguments: Arguments) -> list[str]:
    """Make a store, or what is missing of one; the names of the files made."""
    store, made = Store.create(os.curdir, directory=directory_of(arguments))
    with store:
        store.sync()
    return made


def sync(arguments: Arguments) -> int:
    """Bring the cache level, making a store first where a person asks in a place that never had one.

    On a branch without the store none is made: git would then refuse to check out the one that has it.
    """
    directory = directory_of(arguments)
    paths = named(directory) if directory is not None else discover(os.curdir)
    if layout.is_elsewhere(paths):
        layout.read_version(paths)
    Store.create(os.curdir, directory=directory)[0].close()
    with connect(arguments) as store, Working("reading the files"):
        answer = store.call("store.sync", {"full": arguments.flag("full"), "wait_ms": FLUSH_MS})
    if arguments.json:
        write_json(to_json(answer))
        return 0
    for name, report in answer["kinds"].items():
        if report["parsed"]:
            sys.stdout.write(f"{KINDS[name].log}: {report['mode']}, {count_of(report['parsed'], 'line')} parsed,"
                             f" {count_of(report['changed'], 'record')} touched\n")
        for bad in report["bad"]:
            sys.stderr.write(f"{KINDS[name].log}, line {bad['line']}: skipped: {visible(bad['reason'])}\n")
    waiting = "" if answer["flushed"] else "; lines wait until git is done, and are read all the same"
    sys.stdout.write(f"in sync after {answer['took_ms']:.0f} ms{waiting}\n")
    return 0


def stats(arguments: Arguments) -> int:
    """Print counts by kind and status."""
    with connect(arguments) as store:
        answer = store.call("store.stats", {})
    if arguments.json:
        write_json(to_json(answer))
        return 0
    sys.stdout.write(f"{visible(answer['store'])}\n")
    if answer.get("repository"):
        sys.stdout.write(f"{_place(answer['repository'])}\n")
    sys.stdout.write("\n")
    rows = []
    for name, counts in answer["kinds"].items():
        status = ", ".join(f"{count} {word}" for word, count in counts.get("status", {}).items())
        rows.append([KINDS[name].plural.replace("_", " "), str(counts["records"]), str(counts["deleted"]),
                     str(counts["lines"]), status or "-"])
    print_table(("KIND", "RECORDS", "DELETED", "LINES", "STATUS"), rows, right=("RECORDS", "DELETED", "LINES"))
    for name, counts in answer["kinds"].items():
        if counts["bad_lines"]:
            sys.stderr.write(f"{KINDS[name].log}: {counts['bad_lines']} lines are not records;"
                             " taskstore sync --full names them\n")
    return 0


def _place(repository: "dict[str, Any]") -> str:
    """Where the clone is, and where it was when its logs were last read."""
    last = repository["last_synced"]
    if last is None:
        return f"at {_commit(repository)}; not synced since"
    if last["commit"] == repository["commit"]:
        return f"synced at {_commit(repository)}, {ago(last['at'])}"
    counts = [f"{count_of(repository[way], 'commit')} {way}" for way in ("ahead", "behind") if repository[way]]
    return (f"synced at {_commit(last)}, {ago(last['at'])}; HEAD is at {_commit(repository)},"
            f" {' and '.join(counts) or 'elsewhere'}")


def _commit(place: "dict[str, Any]") -> str:
    branch = visible(place["branch"] or "a detached HEAD")
    return f"{visible(place['commit'][:_SHORT])} ({branch})"


def schema(arguments: Arguments) -> int:
    """Print the JSON Schema of a kind's lines, or of what a method answers with."""
    import json

    from taskstore_core.methods import METHODS

    name = arguments.text("NAME")
    if name in METHODS:
        from taskstore_core.answers import answer_schema

        made = answer_schema(name)
    else:
        from taskstore_core.records import json_schema

        made = json_schema(_kind(name))
    indent = None if arguments.json else 2
    write_json(json.dumps(made, indent=indent, ensure_ascii=False,
                          separators=(",", ":") if arguments.json else None))
    return 0


def _kind(name: str) -> Kind:
    """The kind of this name; for one with a dot in it, which is no method, the error of a method."""
    if "." in name:
        from taskstore_core.methods import look_up

        look_up(name, {})
    return find_kind(name)
