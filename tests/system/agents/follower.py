"""One who follows the changes and writes down what it hears, until it hears of the PRD `the-end`. A program.

    python -m tests.system.agents.follower HISTORY "daemon" or "files"

Started anew with the same HISTORY it goes on from the last cursor in there. See `feeds.read` for what it writes.
"""

import json
import sys
import time
from pathlib import Path

from tests.system.agents import history

from taskstore.changes import Changes
from taskstore.connection import Connection
from taskstore_core.errors import BusyError
from taskstore_core.jsonl import version_of
from taskstore_core.kinds import KINDS

THE_END = "the-end"


def follow(path: Path, *, uses_daemon: bool) -> None:
    """Hear of everything."""
    since = ""
    for line in history.lines(path) if path.exists() else ():
        since = line.get("start") or line.get("anew") or line.get("cursor") or since
    recorder = history.Recorder(path, path.stem)
    with Connection.open(daemon=uses_daemon) as connection, begun(connection, since or None) as changes:
        recorder.note(start=since or changes.cursor, at=time.monotonic_ns())
        for event in changes:
            if "resync" in event:
                recorder.note(anew=changes.cursor, at=time.monotonic_ns())
            elif "branch" not in event:
                kind = KINDS[event["kind"]]
                version = None if event["record"] is None else version_of(kind, json.loads(event["record"]))
                recorder.note(event=[kind.name, event["id"], version], cursor=changes.cursor)
                if event["id"] == THE_END and event["op"] == "create":
                    return


def begun(connection: Connection, since: str | None) -> Changes:
    """Changes, once nobody is in the way."""
    while True:
        try:
            return Changes(connection, since=since)
        except BusyError:
            continue


if __name__ == "__main__":
    follow(Path(sys.argv[1]), uses_daemon=sys.argv[2] == "daemon")
