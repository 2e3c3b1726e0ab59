"""Compaction beside processes that write, and killed at any moment."""

import functools
import json
import threading
from collections import Counter
from typing import Any

import pytest
from tests.conftest import Site
from tests.system.test_concurrency import finish
from tests.system.test_crash import CHANGING, OPEN, Rehearsal, Scenario, spread, telling

WRITERS = 4
EACH = 150
POINTS = 24

WRITER = """
store = Store.open(directory=directory)
ready()
for n in range(int(arguments[0])):
    key = create(store, content="some " * random.randrange(60))
    for m in range(3):
        store.apply([operation("update", "prd", id=key, title=f"{os.getpid()} {n} {m}")])
    store.apply([operation("update", "prd", id="prd-shared", title=f"{os.getpid()} {n}")])
store.close()
"""
READER = """
folder, = arguments
store = Store.open(directory=directory)
ready()
looks = 0
while not os.path.exists(f"{folder}/done"):
    version = json.loads(store.get("prd", "prd-shared"))["updated_at"]
    known = open(f"{folder}/told").read().split()
    there = {json.loads(line)["id"] for line in store.find("prd")[0]}
    assert set(known) <= there, set(known) - there
    assert json.loads(store.get("prd", "prd-shared"))["updated_at"] >= version
    looks += 1
print(looks)
"""
KILLED = Scenario(POINTS, OPEN + """
ready()
store.compact(prune_tombstones=True)
store.close()
""", prepare=OPEN + """
for n in range(4):
    create(store, id=f"prd-{n}", content="some " * 100)
    create(store, "task_spec", id=f"ts-{n}", prd_id=f"prd-{n}")
for n in range(4):
    apply(store, operation("update", "prd", id=f"prd-{n}", title="newer"),
          operation("update", "task_spec", id=f"ts-{n}", phase_name="newer"))
create(store, "prd", id="prd-deleted")
store.apply([operation("delete", "prd", id="prd-deleted")])
store.apply([operation("create", "workflow", id="wf-1", name="w")])
os.truncate(_file, 0)
acknowledge(*(f"prd-{n}" for n in range(4)), *(f"ts-{n}" for n in range(4)))
store.close()
""")


def test_writers_and_readers_are_not_disturbed(site, tmp_path):
    """Four processes write while the logs are compacted over and over: nothing is lost, and no reader misses one."""
    site.seed(1, id="prd-shared")
    told = tmp_path / "told"
    told.touch()
    writers = [site.start(WRITER, str(EACH), acknowledged=told) for _ in range(WRITERS)]
    reader = site.start(READER, str(tmp_path))
    for process in [reader, *writers]:
        site.await_word(process, "ready")
    for process in [reader, *writers]:
        site.go_on(process)
    ended: list[str] = []
    waiting = threading.Thread(target=lambda: ended.extend(finish(writer) for writer in writers))
    waiting.start()
    dropped, runs = 0, 0
    with site.open() as store:
        while waiting.is_alive():
            dropped += store.compact()["lines"]
            runs += 1
        waiting.join()
        dropped += store.compact()["lines"]
    (tmp_path / "done").touch()
    assert int(finish(reader)) > 0
    assert ended == [""] * WRITERS
    assert runs > 1

    acknowledged = told.read_text().split()
    assert len(acknowledged) == WRITERS * EACH
    assert Counter(json.loads(line)["id"] for line in site.lines()) == Counter(["prd-shared", *acknowledged])
    assert dropped == WRITERS * EACH * 4
    with site.open() as store:
        titles = [json.loads(line)["title"] for line in store.find("prd")[0]]
    assert sum(title.endswith(" 2") and title.count(" ") == 2 for title in titles) == WRITERS * EACH
    site.assert_sound(["prd-shared", *acknowledged])


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory, make_sites, boots, strace):  # noqa: ARG001 - skips where nothing can be traced
    """The compaction, prepared and carried out once."""
    return functools.cache(lambda: Rehearsal(make_sites(tmp_path_factory.mktemp("compaction")), boots[0], KILLED))()


def state(site: Site) -> Any:
    with site.open() as store:
        return {kind: store.find(kind)[0] for kind in ("prd", "task_spec", "workflow")}


def test_everything_is_on_the_disk_before_it_takes_its_place(rehearsal):
    """Logs synced, new files synced, then the outbox without the lines, then the logs, then their folder."""
    steps = [(name, path.rpartition("/")[2]) for name, _, path in rehearsal.points]
    logs = ("prds.jsonl", "task_specs.jsonl")
    written = [max(number for number, step in enumerate(steps) if step in {("write", f".new-{log}"), (
        "fchmod", f".new-{log}")}) for log in logs]  # the mode comes behind what was carried over
    synced = [max(number for number, step in enumerate(steps) if step == ("fsync", f".new-{log}")) for log in logs]
    renamed = [steps.index(("rename", f".new-{log}")) for log in logs]
    outbox = steps.index(("rename", "outbox.new"))
    assert all(before < after for before, after in zip(written, synced, strict=True))
    assert max(synced) < outbox < min(renamed)
    assert steps.index(("fsync", "outbox.new")) < outbox
    assert ("fsync", ".taskstore") in steps[max(renamed):]


@pytest.mark.parametrize("index", range(POINTS))
def test_killed_at_any_moment_each_log_is_the_old_one_or_the_new_one(rehearsal, sites, long, index):
    """Whichever call it dies at, each log is whole, before or after; the state is the same, and it can be repeated."""
    reference = sites.copy(rehearsal.template)
    old, was = reference.logs(), state(reference)
    with reference.open() as store:
        store.compact(prune_tombstones=True)
    new = reference.logs()
    assert (len(old["prd"].splitlines()), len(new["prd"].splitlines())) == (10, 4)
    changing = [point for point in rehearsal.points if point[0] in CHANGING]
    ours = [point for point in changing if "/store.db" not in point[2]]
    points = spread(ours, POINTS - 4) + spread([point for point in changing if point not in ours], 4)
    for point in rehearsal.points[index::POINTS] if long else points[index:index + 1]:
        call, nth, _ = point
        site = sites.copy(rehearsal.template)
        with telling(point):
            outcome = rehearsal.run(site, f"{call}:signal=KILL:when={nth}")
            assert outcome.killed or outcome.status == 0, outcome.err  # a call more or less, by the clock
            for kind, content in site.logs().items():
                assert content in {old[kind], new[kind]}, kind
            lines = {line for content in site.logs().values() for line in content.decode().splitlines()}
            held = [line for frame in site.frames() for _, line in frame.get("entries", [])]
            assert set(held) <= lines
            assert state(site) == was
            site.assert_sound(site.acknowledged(), write_first=bool(nth % 2))
            assert site.cli("compact", "--prune-tombstones").status == 0
            assert len(site.lines()) == 5  # with the one that was written meanwhile
            assert not list(site.directory.glob(".new-*"))
