"""Rebuild, tail sync and the sync of a rewritten file, on a log of 100,000 records.

Floor of a rebuild: the decoding of the index fields plus the insertion of the same rows into the same tables, with
the lines in memory and nothing remembered of the file.
"""

import json
import os
import time
from collections.abc import Callable

import msgspec
from measure import Row, interleaved, scratch

from taskstore_core import schema
from taskstore_core.cache import Cache, delete
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store

KIND = KINDS["task_spec"]


def line(number: int, revision: int = 0) -> str:
    """One task spec of about 380 bytes."""
    return json.dumps({
        "id": f"ts-{number:08x}", "prd_id": f"prd-{number // 50:06x}", "phase_name": f"Phase {number % 7}",
        "description": f"Build part {number}: " + "and see that it holds " * 5,
        "created_at": 1_700_000_000_000 + number,
        "updated_at": 1_700_000_000_000 + number + revision,
        "status": ("pending", "running", "complete")[number % 3],
        "workflow_name": None, "assigned_to": f"agent-{number % 40}" if number % 3 else None,
        "content": "- read\n- write\n" * 3}, separators=(",", ":"))


def replace(path: str, lines: list[str]) -> None:
    """Put another file in the log's place, as git does."""
    with open(f"{path}.other", "w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in lines)
    os.replace(f"{path}.other", path)


class Index(msgspec.Struct, gc=False):
    """The fields of a task spec that the cache keeps in columns."""

    id: str
    updated_at: int
    created_at: int
    status: str
    prd_id: str
    assigned_to: str | None = None


def floor(lines: list[str], path: str) -> None:
    """Decode the index fields of every line and insert the rows, then make the indexes."""
    delete(path)
    cache = Cache(path, make=True)
    decoded = list(map(msgspec.json.Decoder(Index).decode, lines))
    with cache.db:
        cache.db.execute(schema.drop_index_statements(KIND))
        columns = "id, version, deleted, raw, status, prd_id, assigned_to, created_at"
        cache.db.executemany(f"INSERT INTO {KIND.plural}_rows({columns}) VALUES(?,?,?,?,?,?,?,?)", (
            (row.id, row.updated_at, 0, text, row.status, row.prd_id, row.assigned_to, row.created_at)
            for row, text in zip(decoded, lines, strict=True)))
        cache.db.execute(schema.index_statements(KIND))
    cache.close()


def run(count: int = 100_000, rounds: int = 5) -> list[Row]:
    """The three figures against their floors."""
    with scratch() as folder:
        store, _ = Store.create(directory=os.path.join(folder, ".taskstore"))
        path = store.paths.file(KIND.log)
        lines = [line(number) for number in range(count)]
        replace(path, lines)
        turn = 0

        def rewritten() -> None:
            nonlocal turn
            turn += 1
            changed = [line(number, turn) if number % 100 == turn % 100 else text
                       for number, text in enumerate(lines)]
            replace(path, changed)
            store.sync()  # not measured: brings the cache to the other branch
            replace(path, lines)

        times = interleaved({
            "floor": lambda: floor(lines, f"{folder}/floor.db"),
            "rebuild": lambda: store.sync(full=True),
        }, rounds)
        one, tail = [], []
        for number in range(rounds * 3):
            rewritten()
            one.append(timed(store.sync))
            with open(path, "a", encoding="utf-8") as file:
                file.write(line(count + number) + "\n")
            tail.append(timed(store.sync))
        store.close()
    one.sort()
    tail.sort()
    return [
        Row(f"rebuild of {count} records", times["rebuild"], "index decode + SQLite insert", times["floor"], 1.5),
        Row("file rewritten, 1 % of its lines changed", one[len(one) // 2], "rebuild", times["rebuild"], 0.15),
        Row("one line appended by somebody else", tail[len(tail) // 2], "rebuild", times["rebuild"]),
    ]


def timed(function: Callable[[], object]) -> float:
    """Wall time of one call in ms."""
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) * 1000
