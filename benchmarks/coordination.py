"""Claiming and completing through the library, and what is ready of 100,000 task specs.

A claim and a completion are two durable writes, so their floor is two appends with fdatasync. The floor of `ready`
is SQLite giving as many rows of the same table in the same order, without asking whether any of them may be claimed.
"""

import json
import os

from measure import Row, interleaved, scratch

from taskstore import connect
from taskstore_core.kinds import KINDS
from taskstore_core.methods import dispatch
from taskstore_core.store import Store

SPEC = KINDS["task_spec"]
COUNT = 100_000
BLOCKED = 10
"""Of a hundred task specs, how many wait for another."""
_ROUNDS = 300
_FIRST = 100


def line(number: int) -> str:
    """One pending task spec; every tenth needs the one before it."""
    needs = {"depends_on": [f"ts-{number - 1:08x}"]} if number % 100 < BLOCKED and number else {}
    return json.dumps({
        "id": f"ts-{number:08x}", "prd_id": f"prd-{number // 50:06x}", "phase_name": f"Phase {number % 7}",
        "description": f"Build part {number}: " + "and see that it holds " * 5,
        "created_at": 1_700_000_000_000 + number, "updated_at": 1_700_000_000_000 + number, "status": "pending",
        "workflow_name": None, "assigned_to": None, "content": "- read\n- write\n" * 3, **needs},
        separators=(",", ":"))


def run() -> list[Row]:
    """Claim and complete, and lists of what is ready."""
    with scratch() as folder:
        store, _ = Store.create(directory=os.path.join(folder, ".taskstore"))
        with open(store.paths.file(SPEC.log), "w", encoding="utf-8") as log:
            log.writelines(f"{line(number)}\n" for number in range(COUNT))
        store.sync()
        rows = [*_ready(store)]
        store.close()
        return [*_claims(folder), *rows]


def _claims(folder: str) -> list[Row]:
    plain = os.open(f"{folder}/plain", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    with connect(directory=os.path.join(folder, ".taskstore"), daemon=False) as library:

        def claim() -> None:
            claimed = library.claim(by="bench")
            assert claimed is not None
            library.complete(claimed)

        def append() -> None:
            for _ in range(2):
                os.write(plain, b"x" * 450 + b"\n")
                os.fdatasync(plain)

        times = interleaved({"append": append, "claim": claim}, _ROUNDS)
    os.close(plain)
    return [Row("claim and complete", times["claim"], "two appends + fdatasyncs", times["append"])]


def _ready(store: Store) -> list[Row]:
    rows = []
    for name, limit, rounds in ((f"first {_FIRST} ready of {COUNT}", _FIRST, 50), (f"all ready of {COUNT}", None, 5)):
        count = len(_listed(store, limit))
        assert count == (limit or COUNT - COUNT * BLOCKED // 100 + 1), count

        def floor(count: int = count) -> None:
            store.ask(lambda cache: list(cache.db.execute(
                f"SELECT raw FROM {SPEC.plural}_rows WHERE status = 'pending' AND NOT deleted"  # noqa: S608 - our table
                " ORDER BY created_at, id LIMIT ?", (count,))))

        def listed(limit: int | None = limit) -> None:
            _listed(store, limit)

        times = interleaved({"floor": floor, "ready": listed}, rounds)
        rows.append(Row(name, times["ready"], "as many pending rows from SQLite", times["floor"]))
    return rows


def _listed(store: Store, limit: int | None) -> list[str]:
    answer = dispatch(store, "task_spec.ready", {"limit": limit})
    assert isinstance(answer, dict)
    return list(answer["items"])
