"""Many processes on one store, with a daemon between them and past it, and a daemon that is killed again and again."""

import json
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import PATIENCE_S, Site
from tests.daemons import poll, running_daemon

from taskstore.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIM = """
import json, os, sys
from taskstore.connection import Connection

directory, daemon, by = sys.argv[1], sys.argv[2] == "daemon", sys.argv[3]
with Connection.open(directory=directory, daemon=daemon) as connection:
    assert (connection.remote is not None) == daemon
    print("ready", flush=True)
    sys.stdin.readline()
    while (claimed := connection.call("task_spec.claim", {"by": by})) is not None:
        print(json.loads(claimed)["id"], flush=True)
"""

WRITE = """
import os, sys
from taskstore import Prd, connect

directory, stop, by = sys.argv[1:4]
number = 0
while not os.path.exists(stop):
    with connect(directory=directory) as store:  # anew: without a daemon one stays with the files
        for _ in range(20):
            print(store.create_prd(Prd(title=f"{by}-{number}")).id, flush=True)
            number += 1
print("wrote", number, flush=True)
"""


@contextmanager
def processes(script: str, folder: Path, *arguments: list[str]) -> "Iterator[list[subprocess.Popen[str]]]":
    """A process for each list of arguments, whose output goes to a file of its number."""
    started = []
    try:
        for number, words in enumerate(arguments):
            with (folder / f"{number}.out").open("w") as out:
                started.append(subprocess.Popen([sys.executable, "-c", script, *words], stdin=subprocess.PIPE,
                                                stdout=out, text=True))
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A folder for what processes print."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


def printed(folder: Path) -> list[str]:
    return [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")]


def test_one_holder_each(site: Site, outputs: Path, long: bool) -> None:
    """Of processes that claim at once, half through the daemon and half past it, each task spec has one holder."""
    count, workers = (1000, 64) if long else (120, 8)
    with site.open() as store:
        from taskstore_core.batch import Operation
        from taskstore_core.kinds import KINDS

        store.apply([Operation("create", KINDS["task_spec"], {"prd_id": "p", "phase_name": "n", "id": f"t{number:04}"})
                     for number in range(count)])
    with running_daemon(str(site.directory)), processes(
            CLAIM, outputs, *[[str(site.directory), "daemon" if number % 2 else "direct", f"agent-{number}"]
                              for number in range(workers)]) as claimants:
        for _ in poll():
            if printed(outputs).count("ready\n") == workers:
                break
        for process in claimants:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in claimants:
            assert process.wait(PATIENCE_S) == 0
    claimed = [path.read_text().split()[1:] for path in sorted(outputs.iterdir())]
    assert Counter(one for those in claimed for one in those) == {f"t{number:04}": 1 for number in range(count)}
    assert sum(map(bool, claimed)) > workers // 4
    with site.open() as store:
        specs = [json.loads(line) for line in store.find("task_spec")[0]]
    assert Counter(spec["assigned_to"] for spec in specs) == {
        f"agent-{number}": len(those) for number, those in enumerate(
            path.read_text().split()[1:] for path in sorted(outputs.iterdir(), key=lambda path: int(path.stem)))
        if those}


def test_killed_daemons(site: Site, outputs: Path, tmp_path: Path, long: bool) -> None:
    """However often the daemon is killed under load, programs with the library go on: each record is there once."""
    writers, kills = (32, 20) if long else (6, 4)
    stop = tmp_path / "stop"
    arguments = [[str(site.directory), str(stop), f"w{number}"] for number in range(writers)]
    with processes(WRITE, outputs, *arguments) as all_:
        for _ in range(kills):
            with running_daemon(str(site.directory)) as daemon:
                with Connection.open(directory=str(site.directory)) as connection:
                    for _ in poll():
                        text = connection.call("daemon.metrics", {})["text"]
                        if _created(text) > 10 * writers:
                            break
                daemon.kill()
                assert daemon.wait() < 0
        stop.touch()
        for process in all_:
            assert process.wait(PATIENCE_S) == 0
    with site.open() as store:
        records = [json.loads(line) for line in store.find("prd")[0]]
    titles = Counter(record["title"] for record in records)
    assert set(titles.values()) == {1}
    acknowledged = [line.strip() for line in printed(outputs) if not line.startswith("wrote")]
    assert len(acknowledged) > 10 * writers * kills
    assert set(acknowledged) <= {record["id"] for record in records}
    wrote = [int(line.split()[1]) for line in printed(outputs) if line.startswith("wrote")]
    assert len(records) == sum(wrote) == len(acknowledged)


def _created(metrics: str) -> float:
    """How many creates a daemon has answered, by what it counts."""
    prefix = 'taskstore_requests_total{method="record.create",outcome="ok"} '
    return sum(float(line.removeprefix(prefix)) for line in metrics.splitlines() if line.startswith(prefix))
