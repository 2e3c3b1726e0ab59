"""The feed: who remembers a cursor hears of every change after it, once, whoever made or noticed it."""

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskstore_core import cache as cache_module
from taskstore_core import feed, leveling
from taskstore_core.batch import Batch, Operation
from taskstore_core.feed import Changes, Cursor
from taskstore_core.kinds import KINDS
from taskstore_core.lock import Lock
from taskstore_core.outbox import Outbox
from taskstore_core.store import Store

PRD = KINDS["prd"]
ALL = 10**6
Event = tuple[str, str]


def create(key: str, **fields: object) -> Operation:
    return Operation("create", PRD, {"id": key, "title": "T", **fields})


def update(key: str, **fields: object) -> Operation:
    return Operation("update", PRD, {"id": key, **fields})


def delete(key: str) -> Operation:
    return Operation("delete", PRD, {"id": key})


def read(store: Store, since: Cursor | None, limit: int = ALL, until: int | None = None) -> Changes:
    return store.ask(lambda cache: feed.read(cache, since, limit, until))


def begin(store: Store) -> Cursor:
    """The cursor for what comes next."""
    changes = read(store, None)
    assert (changes.items, changes.fresh) == ([], False)
    return changes.cursor


class Listener:
    """Who hears of changes through one store, from now on."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cursor = begin(store)

    def hear(self) -> list[Event]:
        """What changed since the last time."""
        changes = read(self.store, self.cursor)
        assert not changes.fresh
        self.cursor = changes.cursor
        assert [change.seq for change in changes.items] == sorted({change.seq for change in changes.items})
        for change in changes.items:
            assert change.kind is PRD
            assert change.raw == (None if change.op == "delete" else self.store.get(PRD, change.key))
        return [(change.op, change.key) for change in changes.items]


@pytest.fixture
def listeners(store: Store, other: Store) -> list[Listener]:
    return [Listener(store), Listener(other)]


def log(store: Store) -> Path:
    return Path(store.paths.file(PRD.log))


def line(key: str, version: int, **fields: object) -> bytes:
    return json.dumps({"id": key, "title": "T", "updated_at": version, **fields}).encode() + b"\n"


def put(store: Store, *lines: bytes) -> None:
    """Put other lines in the place of the log, as git does."""
    log(store).with_suffix(".new").write_bytes(b"".join(lines))
    log(store).with_suffix(".new").replace(log(store))


def append(store: Store, *lines: bytes) -> None:
    with log(store).open("ab") as file:
        file.write(b"".join(lines))


def hear(listeners: list[Listener]) -> list[Event]:
    """What all of them hear, which is the same, and no second time."""
    first, *others = [listener.hear() for listener in listeners]
    assert all(events == first for events in others)
    assert all(listener.hear() == [] for listener in listeners)
    return first


def test_what_a_store_writes(store: Store, other: Store, listeners: list[Listener]) -> None:
    """Creates, updates and deletes are heard of in order, by who made them and by others, whoever made them."""
    store.apply([create("a"), create("b")])
    assert hear(listeners) == [("create", "a"), ("create", "b")]
    other.apply([update("b", z=1), delete("a"), create("c")])
    assert hear(listeners) == [("update", "b"), ("delete", "a"), ("create", "c")]
    store.apply([create("a")])
    other.commit([Batch([update("c", z=2)]), Batch([update("none")])])
    assert hear(listeners) == [("create", "a"), ("update", "c")]


def test_what_changes_twice_stands_once(store: Store, listeners: list[Listener]) -> None:
    """A record that changed several times is told once, as it is now, at its last place; what came and went is gone."""
    store.apply([create("a"), create("b")])
    hear(listeners)
    store.apply([update("a", z=1)])
    store.apply([create("new"), update("b", z=1)])
    store.apply([update("a", z=2), update("new", z=3), create("brief")])
    store.apply([delete("brief"), delete("b")])
    store.apply([create("b")])
    assert hear(listeners) == [("update", "a"), ("create", "new"), ("delete", "brief"), ("update", "b")]


def test_what_others_write(store: Store, listeners: list[Listener]) -> None:
    """Lines that anybody appends are heard of if they change what is so, whichever process noticed them first."""
    append(store, line("a", 5), line("b", 5), b"bad\n", b"\n", line("a", 6, z=1))
    store.find("prd")
    assert hear(listeners) == [("create", "b"), ("create", "a")]
    append(store, line("a", 3), line("b", 5), line("c", 1), b'{"id":"a","deleted":true,"updated_at":7}\n')
    assert hear(listeners) == [("create", "c"), ("delete", "a")]
    append(store, line("c", 1, z=2), b'{"id":"never","deleted":true,"updated_at":7}\n', b'{"id":"torn","tit')
    assert hear(listeners) == [("update", "c"), ("delete", "never")]
    append(store, b'le":"T","updated_at":1}\n')
    assert hear(listeners) == [("create", "torn")]


def test_what_git_does(store: Store, listeners: list[Listener]) -> None:
    """A log that was replaced is heard of by what differs: not what moved, not what an older line says."""
    store.apply([create(f"p{n}", created_at=1) for n in range(200)])
    hear(listeners)
    lines = log(store).read_bytes().splitlines(keepends=True)
    put(store, *lines)
    os.utime(log(store))
    assert hear(listeners) == []
    changed = [one for one in lines if b'"p7"' not in one]
    changed[50] = changed[50].replace(b'"title":"T"', b'"title":"U"')
    changed.insert(20, line("p9", 1, z="old"))
    changed.insert(90, line("new", 1))
    changed[120], changed[121] = changed[121], changed[120]
    put(store, *changed)
    assert sorted(hear(listeners)) == [("create", "new"), ("delete", "p7"), ("update", f"p{51}")]
    put(store, *lines)
    assert sorted(hear(listeners)) == [("create", "p7"), ("delete", "new"), ("update", "p51")]


def test_what_other_processes_do(store: Store, listeners: list[Listener]) -> None:
    """What a process that has ended wrote, or levelled the cache with, is heard of by those that go on."""
    append(store, line("theirs", 5))
    code = """
        import sys
        from taskstore_core.batch import Operation
        from taskstore_core.kinds import KINDS
        from taskstore_core.store import Store
        with Store.open(directory=sys.argv[1]) as store:
            store.apply([Operation("create", KINDS["prd"], {"id": "ours", "title": "T"})])
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), store.paths.directory], check=True)
    assert hear(listeners) == [("create", "theirs"), ("create", "ours")]


def test_what_waits_in_the_outbox(store: Store, listeners: list[Listener]) -> None:
    """A line that is durable before it stands in its log is heard of once, not again when it stands there."""
    store.apply([create("x")])
    hear(listeners)
    with Lock(store.paths.local("lock")):
        outbox = Outbox(store.paths.local("outbox"))
        outbox.append([[(PRD.log, line("x", 2**50).decode().strip())], [(PRD.log, line("y", 1).decode().strip())]])
        outbox.close()
    assert hear(listeners) == [("update", "x"), ("create", "y")]
    store.sync()
    assert hear(listeners) == []


def test_all_kinds(store: Store) -> None:
    """Changes of every kind are in one feed, in the order of the cache, with a cursor for all."""
    cursor = begin(store)
    store.apply([
        Operation("create", KINDS["task_spec"], {"id": "s", "prd_id": "p", "phase_name": "N"}), create("p"),
        Operation("create", KINDS["execution"], {"id": "e", "ts_id": "s"}),
        Operation("create", KINDS["workflow"], {"id": "w", "name": "N"}),
        Operation("create", KINDS["repo_state"], {"repo_path": "/r", "last_synced_commit": "c"}),
        Operation("create", KINDS["dependency"], {"id": "d", "from_exec_id": "e", "to_exec_id": "f",
                                                  "dependency_type": "share"})])
    assert {(change.kind.name, change.key) for change in read(store, cursor).items} == {
        ("prd", "p"), ("task_spec", "s"), ("execution", "e"), ("workflow", "w"), ("repo_state", "/r"),
        ("dependency", "d")}


# Cursors


def test_a_part_at_a_time(store: Store) -> None:
    """With a limit the feed is read in parts, each going on where the one before ended; `until` ends it sooner."""
    cursor = first = begin(store)
    store.apply([create(f"p{n}") for n in range(10)])
    heard = []
    for _ in range(4):
        changes = read(store, cursor, 3)
        heard += [change.key for change in changes.items]
        cursor = changes.cursor
    assert heard == [f"p{n}" for n in range(10)]
    assert read(store, cursor, 3).items == []
    some = read(store, first, 5, first[1] + 2)
    assert ([change.key for change in some.items], some.cursor) == (["p0", "p1"], (first[0], first[1] + 2))
    assert read(store, first, 5, first[1]).cursor == first


BREAKS: dict[str, Callable[[Store, Cursor], object]] = {
    "a rebuild": lambda store, _: store.sync(full=True),
    "a cache that was deleted": lambda store, _: _lose_cache(store),
    "a log rewritten from end to end": lambda store, _: put(store, *(line(f"q{n}", 1) for n in range(100))),
    "another epoch": lambda _, cursor: ("0" * 16, cursor[1]),
    "a number that is yet to come": lambda _, cursor: (cursor[0], cursor[1] + 1),
    "a number below all": lambda _, cursor: (cursor[0], -1),
}


def _lose_cache(store: Store) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(store.paths.file(f"store.db{suffix}")).unlink(missing_ok=True)


@pytest.mark.parametrize("what", BREAKS)
def test_a_cursor_that_leads_nowhere(store: Store, what: str) -> None:
    """A cursor of another epoch or outside the feed says so, and gives one that hears of what comes next."""
    store.apply([create(f"p{n}") for n in range(100)])
    cursor = begin(store)
    given_up = BREAKS[what](store, cursor)
    cursor = given_up if isinstance(given_up, tuple) else cursor
    changes = read(store, cursor)
    assert (changes.fresh, changes.items) == (True, [])
    assert changes.cursor != cursor
    store.apply([create("next")])
    after = read(store, changes.cursor)
    assert (after.fresh, [change.key for change in after.items]) == (False, ["next"])


def test_a_cursor_that_is_too_old(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed keeps what is recent; a cursor just behind its beginning still works, an older one says so."""
    monkeypatch.setattr(cache_module, "_FEED", 10)
    monkeypatch.setattr(leveling, "_TRIM_EVERY", 1)
    epoch, old = begin(store)
    for n in range(25):
        store.apply([create(f"p{n}")])
    store.sync()
    first, last = store.ask(lambda cache: cache.feed_range())
    assert (first, last) == (old + 16, old + 25)
    assert [change.key for change in read(store, (epoch, first - 1)).items] == [f"p{n}" for n in range(15, 25)]
    for since in (old, first - 2):
        changes = read(store, (epoch, since))
        assert (changes.fresh, changes.items, changes.cursor) == (True, [], (epoch, last))


def test_an_empty_feed(store: Store) -> None:
    """Where nothing ever changed a cursor stays as it is."""
    cursor = begin(store)
    assert read(store, cursor).cursor == cursor == begin(store)
    assert not read(store, cursor).fresh


# Over anything


def _state(store: Store) -> dict[str, str]:
    return {json.loads(raw)["id"]: raw for raw in store.find("prd")[0]}


class Follower:
    """Who knows of the state only through the feed, and lists anew when told to."""

    def __init__(self, store: Store) -> None:
        self.cursor: Cursor | None = None
        self.state: dict[str, str] = {}
        self.fresh = 0
        self.follow(store, ALL)

    def follow(self, store: Store, limit: int) -> None:
        changes = read(store, self.cursor, limit)
        if changes.fresh or self.cursor is None:
            self.fresh += 1
            self.state = _state(store)
        for change in changes.items:
            if change.raw is None:
                self.state.pop(change.key, None)
            else:
                self.state[change.key] = change.raw
        self.cursor = changes.cursor


EDITS = ["create", "update", "delete", "append", "append", "mix", "mix", "cut", "same", "rebuild", "lose"]
STEPS = st.lists(st.tuples(st.sampled_from(EDITS), st.integers(0, 1), st.sampled_from("abcdef"), st.integers(1, 9),
                           st.sampled_from([0, 1, 2, ALL])), max_size=25)


def _edit(store: Store, edit: str, key: str, number: int) -> None:
    there = key in _state(store)
    match edit:
        case "create" if not there:
            store.apply([create(key, z=number)])
        case "update" if there:
            store.apply([update(key, z=number)])
        case "delete" if there:
            store.apply([delete(key)])
        case "append":
            append(store, line(key, number * 10**11, z=number) if number % 4 else
                   json.dumps({"id": key, "deleted": True, "updated_at": number * 10**11}).encode() + b"\n")
        case "mix" | "cut" | "same":
            lines = log(store).read_bytes().splitlines(keepends=True)
            chosen = random.Random(number)
            kept = [one for one in lines if edit == "same" or chosen.random() < (0.3 if edit == "cut" else 0.9)]
            if edit == "mix":
                chosen.shuffle(kept)
                kept.insert(0, line(key, number, z="old"))
            put(store, *kept)
        case "rebuild":
            store.sync(full=True)
        case "lose":
            _lose_cache(store)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 120), STEPS)
def test_replaying_the_feed_gives_the_state(empty: str, tmp_path_factory: pytest.TempPathFactory, seeds: int,
                                            steps: list[tuple[str, int, str, int, int]]) -> None:
    """Over any edits by stores and by others, in parts of any size, the changes of the feed make up the state."""
    directory = os.fspath(shutil.copytree(empty, tmp_path_factory.mktemp("feed") / ".taskstore"))
    stores = [Store.open(directory=directory) for _ in range(2)]
    try:
        append(stores[0], *(line(f"s{n}", 1) for n in range(seeds)))
        followers = [Follower(store) for store in stores]
        for edit, which, key, number, limit in steps:
            _edit(stores[which], edit, key, number)
            for follower, store in zip(followers, stores, strict=True):
                if limit:
                    follower.follow(store, limit)
        for follower, store in zip(followers, stores, strict=True):
            while read(store, follower.cursor).cursor != follower.cursor:
                follower.follow(store, 3)
            assert follower.state == _state(store)
        with Store.open(directory=directory) as third:
            third.sync(full=True)
            assert followers[0].state == _state(third)
    finally:
        for store in stores:
            store.close()
