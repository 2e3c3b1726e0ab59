"""A store of old records, for tests of the command line that write to it."""

import os
import shutil
from pathlib import Path

import pytest
from tests.client.test_cli import RECORDS, THEN

from taskstore_core.batch import Operation
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store

LOST = {"id": "t4", "prd_id": "p1", "phase_name": "lost", "created_at": THEN, "updated_at": THEN}
"""A task spec that was deleted, and one whose id begins with its id."""
HISTORY: list[tuple[str, dict[str, object]]] = [
    ("task_spec", {**LOST, "updated_at": THEN - 5}), ("task_spec", {**LOST, "phase_name": "found"}),
    ("task_spec", {"id": "t4", "deleted": True, "updated_at": THEN + 1}),
    ("task_spec", {**LOST, "id": "t44", "phase_name": "longer", "status": "complete"}),
    ("task_spec", {**LOST, "id": "t5", "phase_name": "rank", "status": "pending", "created_at": THEN + 2,
                   "depends_on": ["t2"]}),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of old records, and files to read; copied for each test that writes."""
    folder = tmp_path_factory.mktemp("manners") / "shop"
    folder.mkdir()
    store, _ = Store.create(os.fspath(folder))
    with store:
        store.apply([Operation("import", KINDS[kind], fields) for kind, fields in (*RECORDS, *HISTORY)])
    (folder / "export.jsonl").write_text('{"kind":"prd","record":{"id":"p7","title":"N","updated_at":5}}\n')
    return folder


@pytest.fixture
def shop(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base, tmp_path / "shop")
