"""kill -9 between any two system calls of a write: what was acknowledged stays, what was not is whole or absent.

A scenario is prepared once and copied for each point. Its process says when it is ready, is traced from there, and
is killed as it enters the nth call of one name; counting comes from a run that is not killed.
"""

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("strace")

CHANGING = ("write", "pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "renameat", "renameat2", "link", "linkat",
            "unlink", "unlinkat", "mkdir", "mkdirat", "chmod", "fchmod", "fchmodat", "utimensat")
OTHER = ("openat", "flock", "close")
"""Calls that change nothing on the disk, so that a kill there says what a kill at the next of the first says."""
TRACED = ",".join(f"?{name}" for name in (*CHANGING, *OTHER))
Point = tuple[str, int, str]
"""The name of a call, which one of its name, and the path of its file."""
SPARED = 3
"""How many points of a sample are not for the calls that matter most: those that change something but the cache."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A writer that is killed at `points` points.

    It runs `script`, or without one the command `taskstore create`. Before, `prepare` is run: to its end, or to
    where `kill` says, or on the boot before the power loss that then empties the log (`lost`), or before git does
    (`swallowed`). The ids in `durable` must be there whatever happens; of `together` all or none.
    """

    points: int
    script: str = ""
    prepare: str = ""
    kill: str = ""
    lost: bool = False
    swallowed: bool = False
    durable: tuple[str, ...] = ()
    torn: bytes = b""
    store: bool = True
    together: tuple[str, ...] = ()


OPEN = "store = Store.open(directory=directory)\n"
SCENARIOS = {
    "create": Scenario(26, OPEN + """
create(store, id="prd-before")
ready()
create(store, id="prd-killed", content="long " * 2000)
store.close()
"""),
    "apply": Scenario(14, OPEN + """
create(store, id="prd-before")
ready()
apply(store, operation("create", "prd", id="prd-killed"),
      operation("create", "task_spec", id="ts-killed", prd_id="prd-killed", content="long " * 2000))
store.close()
""", together=("prd-killed", "ts-killed")),
    "open": Scenario(12, "ready()\n" + OPEN + """
create(store, id="prd-killed")
store.close()
""", prepare=OPEN + 'create(store, id="prd-before")\nstore.close()\n'),
    "torn": Scenario(10, "ready()\n" + OPEN + """
create(store, id="prd-killed")
store.close()
""", prepare=OPEN + 'create(store, id="prd-before")\nstore.close()\n', torn=b'{"id":"prd-torn","title":"ha'),
    "first": Scenario(20, "ready()\n" + OPEN + """
create(store, id="prd-killed")
store.close()
"""),
    "command": Scenario(6, prepare=OPEN + 'create(store, id="prd-before")\nstore.close()\n'),
    "init": Scenario(16, """
ready()
store, made = Store.create(directory=directory)
store.close()
""", store=False),
    "recover": Scenario(14, "ready()\n" + OPEN + """
create(store, id="prd-killed")
store.close()
""", prepare=OPEN + """
create(store, id="prd-before")
ready()
apply(store, operation("create", "prd", id="prd-pending"),
      operation("create", "task_spec", id="ts-pending", prd_id="prd-pending"))
""", kill="write:signal=KILL:when=2", durable=("prd-pending", "ts-pending")),
    "restore": Scenario(12, "ready()\n" + OPEN + """
create(store, id="prd-killed")
store.close()
""", prepare=OPEN + """
for n in range(3):
    create(store, content=f"some {n} " * 100)
os._exit(0)
""", lost=True),
    "swallowed": Scenario(8, "ready()\n" + OPEN + """
store.sync()
os._exit(0)
""", prepare=OPEN + """
for n in range(3):
    create(store, content=f"some {n} " * 100)
store.close()
""", swallowed=True),
    "grow": Scenario(10, OPEN + """
ready()
create(store, id="prd-killed", content="grow " * 60_000)
store.close()
""", prepare=OPEN + """
for n in range(3):
    create(store, content="grow " * 60_000)
store.close()
"""),
    "claim": Scenario(4, """
from taskstore_core.methods import dispatch
from taskstore_core.plain import to_json
""" + OPEN + """
create(store, "task_spec", id="ts-claimed", prd_id="p")
ready()
claim = json.loads(to_json(dispatch(store, "task_spec.claim", {"by": "me", "op": "claim"})))
held = {"id": claim["id"], "by": "me", "token": claim["token"]}
dispatch(store, "task_spec.heartbeat", held)
dispatch(store, "task_spec.complete", held)
store.close()
"""),
    "retire": Scenario(12, OPEN + """
create(store, id="prd-before")
ready()
create(store, id="prd-killed")
store.close()
""", prepare="""
set_clock(100 * 24 * 3600 * 1000)
""" + OPEN + """
for n in range(3):
    create(store, content="old " * 1000)
store.close()
"""),
}


class Rehearsal:
    """A scenario that was prepared and carried out once: what to copy, and the calls that can be killed."""

    def __init__(self, sites: Any, boot: Any, scenario: Scenario) -> None:
        self.scenario = scenario
        self.template = sites(store=scenario.store)
        began = time.time()
        if scenario.kill:
            prepared = self.template.run_traced(scenario.prepare, calls=TRACED, inject=[scenario.kill])
            assert prepared.killed, prepared.err
        elif scenario.prepare:
            prepared = self.template.run(scenario.prepare, boot=boot if scenario.lost else None)
            assert prepared.status == 0, prepared.err
        if scenario.lost or scenario.swallowed:
            self.template.log().write_bytes(b"")
        if scenario.swallowed:
            seen = self.template.private / "busy"
            seen.touch()
            os.utime(seen, (began, began))
        if scenario.torn:
            with self.template.log().open("ab") as log:
                log.write(scenario.torn)
        carried_out = self.run(sites.copy(self.template))
        assert carried_out.status == 0, carried_out.err
        self.points = number(carried_out.calls)

    def run(self, site: Any, *inject: str) -> Any:
        """Carry the scenario out on `site`, which is a copy of the template."""
        paths = [site.log(), site.outbox, site.private / "lock", site.cache, site.directory / "store.db-wal"]
        if self.scenario.script:  # where git is asked, its own calls are not counted
            return site.run_traced(self.scenario.script, calls=TRACED, inject=inject,
                                   paths=paths if self.scenario.swallowed else ())
        return site.cli_traced("create", "prd", "--set", "title=killed", calls=TRACED, inject=inject, paths=paths)

    def part(self, index: int, *, every: bool) -> list[Point]:
        """The points that the test of this index tries."""
        count = self.scenario.points
        if every:
            return self.points[index::count]
        changing = [point for point in self.points if point[0] in CHANGING]
        cache = [point for point in changing if "/store.db" in point[2]]
        sample = spread([point for point in changing if point not in cache], count - SPARED)
        sample += spread(cache, count - len(sample) - 1)
        sample += spread([point for point in self.points if point not in changing], count - len(sample))
        return [sample[index]]


def number(calls: list[tuple[str, str]]) -> list[Point]:
    """(name, how often it was called by then, path) of each call."""
    counts: dict[str, int] = {}
    for name, _ in calls:
        counts[name] = 0
    numbered = []
    for name, path in calls:
        counts[name] += 1
        numbered.append((name, counts[name], path))
    return numbered


def spread(points: list[Point], count: int) -> list[Point]:
    """`count` of the points, or all: the first, the last and some evenly between."""
    if len(points) <= count:
        return points
    if count == 1:
        return points[len(points) // 2:][:1]
    return [points[n * (len(points) - 1) // (count - 1)] for n in range(count)]


@contextlib.contextmanager
def telling(point: Point) -> Iterator[None]:
    """Says in a failure where the process was killed."""
    try:
        yield
    except AssertionError as error:
        error.add_note("killed at {} number {}, on {}".format(*point))
        raise


@pytest.fixture(scope="module")
def rehearse(tmp_path_factory, make_sites, boots):
    """Each scenario, prepared once."""
    return functools.cache(lambda name: Rehearsal(make_sites(tmp_path_factory.mktemp(name)), boots[0],
                                                  SCENARIOS[name]))


def test_a_write_is_synced_before_a_log_is_touched_and_before_it_is_acknowledged(rehearse):
    """Outbox, sync of the outbox, log, acknowledgement: in this order, or a power loss would take what was told."""
    steps = [(name, path.rpartition("/")[2].rpartition(".")[2]) for name, _, path in rehearse("create").points]
    order = [steps.index(step) for step in (
        ("pwrite64", "outbox"), ("fdatasync", "outbox"), ("write", "jsonl"), ("write", "acknowledged"))]
    assert order == sorted(order)


def test_what_is_durable_is_read_before_its_log_has_it(site):
    """Once a write is in the outbox, every reader sees it, one that was open before too, although its writer died."""
    site.seed(1, id="prd-before")
    with site.start(OPEN + """
print(len(store.find("prd")[0]))
ready()
print(len(store.find("prd")[0]))
""") as reader:
        site.await_word(reader, "ready")
        killed = site.run_traced(OPEN + 'ready()\ncreate(store, id="prd-killed")', calls=TRACED,
                                 inject=["write:signal=KILL:when=1"], paths=[site.log()])
        assert killed.killed, killed.err
        assert [json.loads(line)["id"] for line in site.lines()] == ["prd-before"]
        out, err = reader.communicate("\n", timeout=60)
    assert out == "2\n", err
    assert site.ids() == ["prd-before", "prd-killed"]


@pytest.mark.parametrize(("name", "index"), [
    pytest.param(name, index, id=f"{name}-{index}") for name, scenario in SCENARIOS.items() if scenario.store
    for index in range(scenario.points)])
def test_a_killed_writer_leaves_what_it_acknowledged_and_nothing_half_written(rehearse, sites, long, name, index):
    """Whichever call a writer dies at, acknowledged records stay, others are whole or absent, and writing goes on."""
    rehearsal = rehearse(name)
    scenario = rehearsal.scenario
    for point in rehearsal.part(index, every=long):
        call, nth, _ = point
        site = sites.copy(rehearsal.template)
        with telling(point):
            outcome = rehearsal.run(site, f"{call}:signal=KILL:when={nth}")
            assert outcome.killed or outcome.status == 0, outcome.err  # a call more or less, by the clock
            acknowledged = [*site.acknowledged(), *scenario.durable, *outcome.out.split()]
            site.assert_sound(acknowledged, together=[scenario.together], bad=[scenario.torn],
                              write_first=bool(nth % 2))


@pytest.mark.parametrize("index", range(SCENARIOS["init"].points))
def test_a_killed_init_can_be_repeated(rehearse, sites, long, index):
    """Whichever system call `init` dies at, there is no store or a whole one, and a second `init` completes it."""
    rehearsal = rehearse("init")
    for point in rehearsal.part(index, every=long):
        call, nth, _ = point
        site = sites.copy(rehearsal.template)
        with telling(point):
            outcome = rehearsal.run(site, f"{call}:signal=KILL:when={nth}")
            assert outcome.killed or outcome.status == 0, outcome.err  # a call more or less, by the clock
            if not (site.directory / ".version").exists():
                refused = site.cli("create", "prd", "--set", "title=too early")
                assert (refused.status, refused.out) == (3, "")
                assert "there is no store" in refused.err
            completed = site.cli("init")
            assert completed.status == 0, completed.err
            assert not [name for name in untracked(site) if ".new-" in name or "store.db" in name]
            site.assert_sound([])


def untracked(site: Any) -> list[str]:
    listed = subprocess.run(["git", "-C", str(site.root), "status", "--porcelain", "--untracked-files=all"],
                            capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()
