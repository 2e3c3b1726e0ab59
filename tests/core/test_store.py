"""The store: what is written together, what a group of requests costs, and that everybody sees it at once."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from json import loads
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskstore_core import frames
from taskstore_core.batch import Batch, Operation
from taskstore_core.errors import (
    ConflictError,
    ExistsError,
    InvalidError,
    NoStoreError,
    NotFoundError,
    TaskStoreError,
    UnsupportedVersionError,
)
from taskstore_core.kinds import KINDS
from taskstore_core.paths import Paths
from taskstore_core.request import Outcome
from taskstore_core.store import Store
from taskstore_core.view import Written

Fields = dict[str, Any]

PRD, SPEC, EXECUTION, DEPENDENCY = (KINDS[name] for name in ("prd", "task_spec", "execution", "dependency"))
LEAST: dict[str, Fields] = {
    "prd": {"title": "T"}, "task_spec": {"prd_id": "p", "phase_name": "N"}, "execution": {"ts_id": "t"},
    "dependency": {"from_exec_id": "a", "to_exec_id": "b", "dependency_type": "query"}, "workflow": {"name": "N"},
    "repo_state": {"repo_path": "/r", "last_synced_commit": "c0ffee"},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an empty store, to be copied: making one syncs every file of it."""
    folder = os.fspath(tmp_path_factory.mktemp("template"))
    made, _ = Store.create(folder)
    with made:
        made.sync()
    return made.paths.directory


def copy(template: str, folder: Path) -> str:
    """A store of its own in `folder`."""
    return os.fspath(shutil.copytree(template, folder / ".taskstore"))


@pytest.fixture
def store(template: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(directory=copy(template, tmp_path)) as opened:
        yield opened


@pytest.fixture
def other(store: Store) -> Iterator[Store]:
    """The same store, opened a second time."""
    with Store.open(directory=store.paths.directory) as opened:
        yield opened


def create(key: str, **fields: object) -> Operation:
    return Operation("create", PRD, {"id": key, "title": "T", **fields})


def update(key: str, if_updated_at: int | None = None, **fields: object) -> Operation:
    return Operation("update", PRD, {"id": key, **fields}, if_updated_at)


def delete(key: str, if_updated_at: int | None = None) -> Operation:
    return Operation("delete", PRD, {"id": key}, if_updated_at)


def files(paths: Paths) -> dict[str, bytes]:
    """The bytes of all files of a store but those of its cache."""
    found = {}
    for folder in {paths.directory, paths.private}:
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            if os.path.isfile(path) and not name.startswith("store.db"):
                with open(path, "rb") as file:
                    found[path] = file.read()
    return found


def lines(store: Store, log: str = "prds.jsonl") -> list[bytes]:
    with open(store.paths.file(log), "rb") as file:
        return file.read().splitlines()


def done(outcomes: list[Outcome | TaskStoreError]) -> list[Outcome]:
    """The outcomes of the requests that succeeded."""
    return [outcome for outcome in outcomes if isinstance(outcome, Outcome)]


def ids(found: tuple[list[str], str | None]) -> list[str]:
    return [loads(line)["id"] for line in found[0]]


def script(code: str, *arguments: str, wrapper: tuple[str, ...] = ()) -> str:
    """What a program of its own prints."""
    done = subprocess.run([*wrapper, sys.executable, "-c", textwrap.dedent(code), *arguments],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Opening


def test_where_there_is_no_store(tmp_path: Path) -> None:
    """A folder without a store is said to have none, and is left as it is."""
    with pytest.raises(NoStoreError, match="there is no store"):
        Store.open(os.fspath(tmp_path))
    with pytest.raises(NoStoreError):
        Store.open(directory=os.fspath(tmp_path))
    assert os.listdir(tmp_path) == []


def test_creating_twice(store: Store) -> None:
    """Creating a store that is there makes nothing, and what is missing of one is made again."""
    store.apply([create("x")])
    again, made = Store.create(directory=store.paths.directory)
    with again:
        assert made == []
        os.unlink(store.paths.file("workflows.jsonl"))
    again, made = Store.create(directory=store.paths.directory)
    with again:
        assert made == ["workflows.jsonl"]
        assert loads(again.get("prd", "x"))["title"] == "T"


@pytest.mark.parametrize("version", ["2", "2 # later", "999999999", "x", "", "\n"])
def test_a_version_we_do_not_know(store: Store, version: str) -> None:
    """A store of a newer format, or of none, is refused by everything, also under an open store, and not touched."""
    store.apply([create("x")])
    with open(store.paths.file(".version"), "w", encoding="utf-8") as file:
        file.write(version)
    before = files(store.paths)
    for attempt in (lambda: Store.open(directory=store.paths.directory), lambda: store.get("prd", "x"),
                    lambda: store.apply([create("y")]), store.stats, lambda: store.find("prd"), store.sync,
                    lambda: Store.create(directory=store.paths.directory)):
        with pytest.raises(UnsupportedVersionError):
            attempt()
    assert files(store.paths) == before


# Records


@pytest.mark.parametrize("name", list(KINDS))
def test_a_life(store: Store, name: str) -> None:
    """A record of any kind is created, read, changed, deleted and created again, each step a line of its log."""
    kind = KINDS[name]
    fields = {kind.key: "/r", **LEAST[name]}
    (made,) = store.apply([Operation("create", kind, fields)])
    assert (made.kind, made.key, made.deleted, made.changed) == (kind, "/r", False, True)
    assert store.get(kind, "/r") == store.get(name, "/r") == made.raw
    (changed,) = store.apply([Operation("update", kind, {kind.key: "/r", "z": [1]})])
    assert changed.version > made.version
    assert loads(store.get(kind, "/r"))["z"] == [1]
    (deleted,) = store.apply([Operation("delete", kind, {kind.key: "/r"})])
    assert deleted.deleted
    assert deleted.version > changed.version
    with pytest.raises(NotFoundError):
        store.get(kind, "/r")
    assert store.find(kind) == ([], None)
    (again,) = store.apply([Operation("create", kind, fields)])
    assert again.version > deleted.version
    assert store.get(kind, "/r") == again.raw
    written = [one.raw.encode() for one in (made, changed, deleted, again)]
    assert lines(store, kind.log) == written


@pytest.mark.parametrize("name", [name for name in KINDS if name != "repo_state"])
def test_made_ids(store: Store, name: str) -> None:
    """A record without an id gets one that begins with its kind's prefix, and no two the same."""
    kind = KINDS[name]
    written = store.apply([Operation("create", kind, LEAST[name]) for _ in range(200)])
    assert len({one.key for one in written}) == 200
    assert all(re.fullmatch(rf"{kind.prefix}-[0-9a-hjkmnp-tv-z]{{8}}", one.key) for one in written)
    assert [loads(one.raw)["id"] for one in written] == [one.key for one in written]


def test_a_key_that_is_not_made(store: Store) -> None:
    """A repo state needs its path."""
    with pytest.raises(InvalidError) as caught:
        store.apply([Operation("create", KINDS["repo_state"], {"last_synced_commit": "c0ffee"})])
    assert caught.value.field == "repo_path"


@pytest.mark.parametrize("key", ["", 0, False, [], {}], ids=repr)
def test_an_empty_id(store: Store, key: object) -> None:
    """An id that is given and empty is refused, not replaced."""
    with pytest.raises(InvalidError) as caught:
        store.apply([Operation("create", PRD, {"id": key, "title": "T"})])
    assert caught.value.field == "id"


@pytest.mark.parametrize("verb", ["create", "update", "delete", "import"])
@pytest.mark.parametrize("key", ["x" * 257, "a\nb", "\x00", 7, True, ["x"], "\ud800"], ids=range(7))
def test_bad_ids(store: Store, verb: str, key: object) -> None:
    """No operation takes what cannot be an id, and the error names the field."""
    with pytest.raises(InvalidError) as caught:
        store.apply([Operation(verb, PRD, {"id": key, "title": "T"})])
    assert caught.value.field == "id"


@pytest.mark.parametrize("key", ["\ud800", "a\udcff"], ids=ascii)
def test_looking_for_what_is_no_text(store: Store, key: str) -> None:
    """An id that is not text is not looked for."""
    with pytest.raises(InvalidError) as caught:
        store.get("prd", key)
    assert caught.value.field == "id"


@pytest.mark.parametrize("verb", ["update", "delete", "import"])
def test_a_missing_id(store: Store, verb: str) -> None:
    """Every operation but create needs an id."""
    with pytest.raises(InvalidError) as caught:
        store.apply([Operation(verb, PRD, {"title": "T"})])
    assert caught.value.field == "id"


@pytest.mark.parametrize("stamp", ["1", 1.0, True, [1], 2**60], ids=repr)
@pytest.mark.parametrize("verb", ["update", "delete"])
def test_an_expected_version_that_is_none(store: Store, verb: str, stamp: Any) -> None:
    """What cannot be a version is refused as `if_updated_at`."""
    store.apply([create("x")])
    with pytest.raises(InvalidError) as caught:
        store.apply([Operation(verb, PRD, {"id": "x"}, stamp)])
    assert caught.value.field == "if_updated_at"


def test_expected_versions(store: Store, other: Store) -> None:
    """Of two changes that expect the same version, the second is a conflict, whoever makes it."""
    (made,) = store.apply([create("x")])
    (changed,) = other.apply([update("x", made.version, title="U")])
    for late in (store, other):
        for operation in (update("x", made.version, title="V"), delete("x", made.version)):
            with pytest.raises(ConflictError):
                late.apply([operation])
    store.apply([delete("x", changed.version)])
    with pytest.raises(NotFoundError):
        other.get("prd", "x")


def test_unknown_verbs_and_kinds(store: Store) -> None:
    """What is no operation and no kind is refused by its name."""
    with pytest.raises(InvalidError, match="burn") as caught:
        store.apply([Operation("burn", PRD, {"id": "x"})])
    assert caught.value.field == "op"
    with pytest.raises(InvalidError) as caught:
        store.get("prds", "x")
    assert caught.value.field == "kind"
    with pytest.raises(InvalidError) as caught:
        store.find("prds")
    assert caught.value.field == "kind"


def test_importing(store: Store) -> None:
    """An import keeps stamps, tells what it wrote, and writes nothing that is there already or older."""
    operations = [Operation("import", PRD, {"id": "x", "title": title, "updated_at": stamp})
                  for title, stamp in (("A", 5), ("B", 5), ("C", 4), ("D", 6))]
    written = store.apply(operations)
    assert [one.changed for one in written] == [True, False, False, True]
    assert [one.version for one in written] == [5, 5, 5, 6]
    assert [loads(line)["title"] for line in lines(store)] == ["A", "D"]
    before = files(store.paths)
    assert not any(one.changed for one in store.apply(operations))
    assert files(store.paths) == before


# Together or not at all

GOOD: list[Operation] = [create("n1"), update("x", title="U"), delete("y"), Operation(
    "create", SPEC, {"id": "s", **LEAST["task_spec"]})]


@pytest.mark.parametrize("place", range(len(GOOD) + 1))
@pytest.mark.parametrize(("bad", "error"), [
    (create("x"), ExistsError), (create("n2", status="nope"), InvalidError), (update("nope"), NotFoundError),
    (delete("nope"), NotFoundError), (update("x", 5), ConflictError), (create("n2", z=float("nan")), InvalidError),
    (create("n2", content="c" * (4 << 20)), InvalidError), (Operation("burn", PRD, {"id": "x"}), InvalidError),
    (Operation("import", PRD, {"id": "q", "updated_at": -1}), InvalidError),
], ids=range(9))
def test_apply_is_atomic(store: Store, place: int, bad: Operation, error: type[TaskStoreError]) -> None:
    """One operation that cannot be, wherever it stands, stops all others: no byte of any file changes."""
    store.apply([create("x"), create("y")])
    before, state = files(store.paths), store.find("prd")
    with pytest.raises(error):
        store.apply([*GOOD[:place], bad, *GOOD[place:]])
    assert files(store.paths) == before
    assert store.find("prd") == state
    assert set(map(os.path.basename, before)) >= {"outbox", "prds.jsonl", ".version"}
    store.apply(GOOD)
    assert loads(store.get("prd", "x"))["title"] == "U"


def test_operations_see_those_before_them(store: Store) -> None:
    """Operations of one request are seen in order: each follows on what those before it made."""
    made, changed, gone, again = store.apply([create("x"), update("x", title="U"), delete("x"), create("x", title="V")])
    assert made.version < changed.version < gone.version < again.version
    assert loads(store.get("prd", "x"))["title"] == "V"
    with pytest.raises(ExistsError):
        store.apply([create("y"), create("y")])
    with pytest.raises(NotFoundError):
        store.get("prd", "y")


def test_nothing_to_do(store: Store) -> None:
    """An empty request and an empty group write nothing."""
    store.apply([create("x")])
    before = files(store.paths)
    assert store.apply([]) == []
    assert store.commit([]) == []
    assert [outcome.written for outcome in done(store.commit([Batch([]), Batch([])]))] == [[], []]
    assert files(store.paths) == before


def test_a_group(store: Store) -> None:
    """The requests of a group fail and succeed one by one, each whole, and see those before them that succeeded."""
    store.apply([create("x")])
    outcomes = store.commit([
        Batch([create("a"), update("x", title="U")]),
        Batch([create("b"), create("a")]),
        Batch([create("b"), Operation("create", EXECUTION, {"id": "e", **LEAST["execution"]})]),
        Batch([delete("a"), update("nope")]),
        Batch([update("a", title="A2")], single=True),
    ])
    assert [type(outcome) for outcome in outcomes] == [Outcome, ExistsError, Outcome, NotFoundError, Outcome]
    assert [outcome.operation for outcome in outcomes if isinstance(outcome, TaskStoreError)] == [1, 1]
    assert [[one.key for one in outcome.written] for outcome in done(outcomes)] == [["a", "x"], ["b", "e"], ["a"]]
    assert [outcome.result for outcome in done(outcomes)] == [
        [outcome.written[0].raw, outcome.written[1].raw] for outcome in done(outcomes)[:2]] + [store.get("prd", "a")]
    assert all(not outcome.leases for outcome in done(outcomes))
    assert {loads(line)["id"]: loads(line)["title"] for line in store.find("prd")[0]} == {"x": "U", "a": "A2", "b": "T"}
    assert loads(store.get("execution", "e"))["status"] == "running"
    assert all(isinstance(one, Written) for outcome in done(outcomes) for one in outcome.written)


def test_an_id_that_is_no_text_in_a_group(store: Store) -> None:
    """A request with half of a surrogate pair for an id fails alone."""
    outcomes = store.commit([Batch([create("a")]), Batch([create("\ud800")]), Batch([create("b")])])
    assert [type(outcome) for outcome in outcomes] == [Outcome, InvalidError, Outcome]


def test_a_group_costs_one_sync(store: Store, tmp_path: Path) -> None:
    """A group of any number of requests is made durable by one fdatasync, that of the outbox, and no fsync."""
    if shutil.which("strace") is None or subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("strace counts the syncs, and cannot be used here")
    store.apply([create("x")])
    store.close()
    trace = f"{tmp_path}/trace"
    code = """
        import os, sys
        from taskstore_core import store as module
        from taskstore_core.errors import NotFoundError
        from taskstore_core.kinds import KINDS
        from taskstore_core.batch import Batch, Operation
        from taskstore_core.request import Outcome
        for each in list(sys.modules.values()):
            if hasattr(each, "_SETTLE_MS"):
                each._SETTLE_MS = 10**9  # the logs' own syncs may lag, and do so here
        def create(key):
            return Operation("create", KINDS["prd"], {"id": key, "title": "T"})
        with module.Store.open(directory=sys.argv[1]) as store:
            store.apply([create("warm")])
            os.chdir("/")
            outcomes = store.commit([Batch([create(f"g{n}"), Operation("create", KINDS["workflow"], {"name": "N"})])
                                     for n in range(20)] + [Batch([create("x")])])
            os.chdir("/")
            print([isinstance(outcome, Outcome) for outcome in outcomes].count(True), type(outcomes[-1]).__name__)
            store.commit([Batch([create("x")])])
            os.chdir("/")
    """
    wrapper = ("strace", "-f", "-y", "-e", "trace=fdatasync,fsync,sync_file_range,chdir", "-o", trace)
    assert script(code, store.paths.directory, wrapper=wrapper) == "20 ExistsError\n"
    with open(trace, encoding="utf-8") as file:
        calls = re.findall(r"(\w+)\((?:\d+<([^>]*)>)?", file.read())
    _, group, refused, closing = _split(calls, ("chdir", ""))
    assert group == [("fdatasync", store.paths.local("outbox"))]
    assert refused == []
    assert {path for _, path in closing} >= {store.paths.file(log) for log in ("prds.jsonl", "workflows.jsonl")}


def _split(calls: list[tuple[str, str]], mark: tuple[str, str]) -> list[list[tuple[str, str]]]:
    parts: list[list[tuple[str, str]]] = [[]]
    for call in calls:
        if call == mark:
            parts.append([])
        elif call[0].endswith("sync"):
            parts[-1].append(call)
    return parts


# Finding


def test_prefixes(store: Store) -> None:
    """A record is found by its id, or by the beginning of just one live id; several are named, and none is said."""
    store.apply([create(key) for key in ("abc", "abcd", "abx", "b", "gone1", "gone2", "w%_x", "ü1")])
    store.apply([delete("gone1"), delete("gone2")])
    for key, found in {"abc": "abc", "abcd": "abcd", "abx": "abx", "b": "b", "w%": "w%_x", "ü": "ü1"}.items():
        assert loads(store.get("prd", key))["id"] == found
    for key in ("c", "abcde", "gone", "B", "%", "w_", "", "bb"):
        with pytest.raises(NotFoundError, match="there is no PRD"):
            store.get("prd", key)
    with pytest.raises(NotFoundError, match="the PRD gone1 was deleted") as caught:
        store.get("prd", "gone1")
    assert caught.value.hint
    with pytest.raises(NotFoundError, match=r"several PRDs begin with ab: abc, abcd, abx$") as caught:
        store.get("prd", "ab")
    assert caught.value.hint
    store.apply([create("aby")])
    with pytest.raises(NotFoundError, match="abc, abcd, abx …"):
        store.get("prd", "ab")
    with pytest.raises(NotFoundError):
        store.get("workflow", "abc")


def test_prefixes_are_for_reading(store: Store) -> None:
    """Only whole ids can be changed and deleted."""
    store.apply([create("abc")])
    for operation in (update("ab", title="U"), delete("ab")):
        with pytest.raises(NotFoundError):
            store.apply([operation])


@pytest.fixture(scope="module")
def filled(template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store to be read and not written to."""
    with Store.open(directory=copy(template, tmp_path_factory.mktemp("filled"))) as opened:
        fill(opened)
        yield opened


def fill(store: Store) -> None:
    store.apply([
        create("a", created_at=1, status="active", review_passes=3, title="Über", tags=["x", "y"], n=1),
        create("b", created_at=2, status="draft", review_passes=1, title="under", tags=[], n=2.5),
        create("c", created_at=2, status="active", review_passes=2, title="other", n="2"),
        create("d", created_at=3, status="complete", title="d", **{"a.b": True, "nil": None}),
        create("gone", created_at=1, status="active", title="Über", n=1)])
    store.apply([delete("gone")])


@pytest.mark.parametrize(("where", "found"), [
    ({}, "abcd"),
    (None, "abcd"),
    ({"status": "active"}, "ac"),
    ({"status": {"eq": "active"}}, "ac"),
    ({"status": {"ne": "active"}}, "bd"),
    ({"status": {"in": ["draft", "complete"]}}, "bd"),
    ({"status": {"in": []}}, ""),
    ({"status": "active", "created_at": {"gt": 1}}, "c"),
    ({"created_at": {"ge": 2, "lt": 3}}, "bc"),
    ({"created_at": {"le": 2}}, "abc"),
    ({"review_passes": {"gt": 1}}, "ac"),
    ({"review_passes": 0}, "d"),
    ({"id": "b"}, "b"),
    ({"id": {"ge": "b"}}, "bcd"),
    ({"title": {"contains": "der"}}, "b"),
    ({"title": "Über"}, "a"),
    ({"title": {"contains": "Ü"}}, "a"),
    ({"tags": {"contains": "y"}}, "a"),
    ({"tags": {"contains": "z"}}, ""),
    ({"n": 1}, "a"),
    ({"n": {"gt": 1, "lt": 3}}, "b"),
    ({"n": "2"}, "c"),
    ({"n": None}, "d"),
    ({"n": {"ne": None}}, "abc"),
    ({"nil": None}, "abcd"),
    ({"a.b": True}, "d"),
    ({"nosuch": 1}, ""),
    ({"nosuch": None}, "abcd"),
])
def test_filters(filled: Store, where: Fields | None, found: str) -> None:
    """A list has the live records for which every condition holds, on known and unknown fields alike."""
    assert ids(filled.find("prd", where)) == list(found)


@pytest.mark.parametrize(("order", "found"), [
    (None, "abcd"), ("created_at", "abcd"), ("-created_at", "dcba"), ("id", "abcd"), ("-id", "dcba"),
    ("title", "dcba"), ("review_passes", "dbca"), ("n", "abcd"), ("-n", "cbad"), ("nosuch", "abcd"), ("a.b", "dabc"),
])
def test_order(filled: Store, order: str | None, found: str) -> None:
    """A list is in the order of a field, records without it last, and among equals in that of the ids."""
    assert ids(filled.find("prd", order=order)) == list(found)


@pytest.mark.parametrize("order", [None, "created_at", "-created_at", "status", "-status", "n", "-n", "nosuch", "-a.b"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages(filled: Store, order: str | None, limit: int) -> None:
    """Pages put together are the whole list, whatever values are equal or missing; only the last has no cursor."""
    whole = filled.find("prd", order=order)[0]
    pages: list[str] = []
    cursor = None
    while True:
        page, cursor = filled.find("prd", order=order, limit=limit, cursor=cursor)
        pages += page
        assert len(page) == min(limit, len(whole) - len(pages) + len(page))
        if cursor is None:
            break
    assert pages == whole


def test_pages_while_records_come_and_go(store: Store) -> None:
    """A page goes on behind the last record of the one before, even if that is gone and others came."""
    fill(store)
    page, cursor = store.find("prd", order="id", limit=2)
    assert ids((page, None)) == ["a", "b"]
    store.apply([delete("b"), create("a2"), create("bb")])
    assert ids(store.find("prd", order="id", limit=2, cursor=cursor)) == ["bb", "c"]


@pytest.mark.parametrize(("arguments", "field"), [
    ({"where": {"status": "nope"}}, "status"),
    ({"where": {"status": {"in": ["draft", "nope"]}}}, "status"),
    ({"where": {"title": {"like": "x"}}}, "title"),
    ({"where": {"title": ["x"]}}, "title"),
    ({"where": {"title": {"in": "x"}}}, "title"),
    ({"where": {"title": {"eq": {}}}}, "title"),
    ({"where": {'a"b': 1}}, 'a"b'),
    ({"where": {"": 1}}, ""),
    ({"order": 'a"b'}, 'a"b'),
    ({"order": "-"}, ""),
    ({"limit": 0}, "limit"),
    ({"limit": -1}, "limit"),
    ({"limit": True}, "limit"),
    ({"limit": 1.0}, "limit"),
    ({"cursor": "zz"}, "cursor"),
    ({"cursor": "5b5d"}, "cursor"),
    ({"cursor": b'["title","x","y"]'.hex()}, "cursor"),
    ({"cursor": b'["created_at",[],"y"]'.hex()}, "cursor"),
])
def test_lists_that_make_no_sense(filled: Store, arguments: Any, field: str) -> None:
    """A condition, order, limit or cursor that makes no sense is refused by the field's name."""
    with pytest.raises(InvalidError) as caught:
        filled.find("prd", **arguments)
    assert caught.value.field == field


@pytest.mark.parametrize(("arguments", "field"), [
    ({"limit": 2**63}, "limit"),
    ({"limit": 2**63 - 1}, "limit"),
    ({"where": {"review_passes": 2**64}}, "review_passes"),
    ({"where": {"title": "\ud800"}}, "title"),
    ({"where": {"title": {"contains": "\ud800"}}}, "title"),
    ({"where": {"\ud800": 1}}, "field"),
    ({"order": "\ud800"}, "field"),
    ({"cursor": b'["created_at",18446744073709551616,"y"]'.hex()}, "cursor"),
    ({"cursor": b'["created_at",1,"\\ud800"]'.hex()}, "cursor"),
])
def test_lists_that_sqlite_cannot_make(filled: Store, arguments: Any, field: str) -> None:
    """A number beyond 64 bits or half of a surrogate pair in a condition, order or cursor is refused by its field."""
    with pytest.raises(InvalidError) as caught:
        filled.find("prd", **arguments)
    assert caught.value.field == field


def test_stats(store: Store) -> None:
    """Stats count live records by status in the table's order, deleted ids, lines, and lines that are no records."""
    fill(store)
    store.apply([Operation("create", EXECUTION, {"id": "e", "ts_id": "t", "status": "paused"})])
    with open(store.paths.file("prds.jsonl"), "ab") as file:
        file.write(b'not json\n\n{"id":"odd","title":"T","status":"odd","updated_at":5}\n{"id":7}\n')
    stats = store.stats()
    assert list(stats) == list(KINDS)
    assert stats["prd"] == {"records": 5, "deleted": 1, "lines": 10, "bad_lines": 2,
                            "status": {"draft": 1, "active": 2, "complete": 1, "odd": 1}}
    assert list(stats["prd"]["status"]) == ["draft", "active", "complete", "odd"]  # type: ignore[call-overload]
    assert stats["execution"] == {"records": 1, "deleted": 0, "status": {"paused": 1}, "lines": 1, "bad_lines": 0}
    assert stats["workflow"] == {"records": 0, "deleted": 0, "lines": 0, "bad_lines": 0}


# Several stores and processes


def test_two_stores_see_each_other_at_once(store: Store, other: Store) -> None:
    """What one writes the other reads next, in turns, with nothing in between."""
    one, two = store, other
    for number in range(30):
        (made,) = one.apply([create(f"r{number}", z=number)])
        assert two.get("prd", f"r{number}") == made.raw
        (changed,) = two.apply([update(f"r{number}", z=-number)])
        assert one.get("prd", f"r{number}") == changed.raw
        with pytest.raises(ExistsError):
            two.apply([create(f"r{number}")])
        assert len(one.find("prd")[0]) == len(two.find("prd")[0]) == number + 1
        assert one.stats()["prd"]["records"] == number + 1
        one, two = two, one


def test_lines_of_others_are_seen_at_once(store: Store, other: Store) -> None:
    """What anybody else appends to a log, or puts in its place, is read next by every open store."""
    store.apply([create("x")])
    other.get("prd", "x")
    path = store.paths.file("prds.jsonl")
    for number in range(20):
        line = f'{{"id":"x","title":"{number}","updated_at":{2**52 + number}}}\n'
        if number % 2:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line)
        else:
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(line)
            os.replace(f"{path}.new", path)
        assert loads(store.get("prd", "x"))["title"] == loads(other.get("prd", "x"))["title"] == str(number)
    (changed,) = other.apply([update("x", title="ours")])
    assert changed.version == 2**52 + 20
    assert loads(store.get("prd", "x"))["title"] == "ours"


def test_a_cache_that_vanishes(store: Store) -> None:
    """A cache that is deleted or spoilt is made anew, and nothing is lost."""
    store.apply([create("x")])
    path = store.paths.file("store.db")
    for content in (None, b"garbage" * 999, b""):
        store.close()
        os.unlink(path)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
        assert loads(store.get("prd", "x"))["title"] == "T"
        store.apply([update("x", z=1)])
        assert loads(store.get("prd", "x"))["z"] == 1


STEPS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["create", "update", "delete", "reopen"]),
                           st.sampled_from("abc"), st.integers(0, 9)), max_size=25)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_order_of_operations(template: str, tmp_path_factory: pytest.TempPathFactory,
                                 steps: list[tuple[int, str, str, int]]) -> None:
    """Two stores that take turns in any way say what a dictionary says, after every step, and a third one after all."""
    directory = copy(template, tmp_path_factory.mktemp("model"))
    stores = [Store.open(directory=directory) for _ in range(2)]
    model: dict[str, int] = {}
    try:
        for which, verb, key, value in steps:
            if verb == "reopen":
                stores[which].close()
                stores[which] = Store.open(directory=directory)
            elif (verb == "create") == (key in model):
                with pytest.raises((ExistsError, NotFoundError)):
                    stores[which].apply([Operation(verb, PRD, {"id": key, "title": "T"})])
            else:
                stores[which].apply([Operation(verb, PRD, {"id": key, "title": "T", "z": value})])
                model = {**model, key: value} if verb != "delete" else {k: v for k, v in model.items() if k != key}
            for store in stores:
                assert _values(store) == model
        with Store.open(directory=directory) as third:
            third.sync(full=True)
            assert _values(third) == model
    finally:
        for store in stores:
            store.close()


def _values(store: Store) -> dict[str, int]:
    return {record["id"]: record["z"] for record in map(loads, store.find("prd")[0])}


def test_a_fork_is_refused(store: Store) -> None:
    """A store opened before a fork refuses everything in the child, which cannot harm the parent's."""
    code = """
        import os, sys
        from taskstore_core.errors import InvalidError
        from taskstore_core.kinds import KINDS
        from taskstore_core.store import Store
        from taskstore_core.batch import Batch, Operation
        def create(key):
            return Operation("create", KINDS["prd"], {"id": key, "title": "T"})
        store = Store.open(directory=sys.argv[1])
        store.apply([create("x")])
        child = os.fork()
        if not child:
            refused = 0
            for attempt in (lambda: store.get("prd", "x"), lambda: store.apply([create("y")]), store.stats,
                            store.sync, lambda: store.find("prd"), lambda: store.commit([Batch([create("z")])])):
                try:
                    attempt()
                except InvalidError as error:
                    refused += "fork" in error.message
            store.close()
            with Store.open(directory=sys.argv[1]) as own:
                own.apply([create("of-child")])
            os._exit(refused)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        store.apply([create("of-parent")])
        store.close()
    """
    assert script(code, store.paths.directory) == "6\n"
    assert ids(store.find("prd", order="id")) == ["of-child", "of-parent", "x"]


def test_closing_settles(store: Store) -> None:
    """A store that is closed has synced the logs it wrote to and noted it; closing twice is fine."""
    store.apply([create("x"), Operation("create", SPEC, {"id": "s", **LEAST["task_spec"]})])
    assert len(_unsynced(store.paths)) == 1
    store.close()
    assert _unsynced(store.paths) == []
    settled = files(store.paths)
    store.close()
    with Store.open(directory=store.paths.directory) as again:
        again.get("prd", "x")
    assert files(store.paths) == settled


def _frames(paths: Paths) -> list[dict[str, Any]]:
    with open(paths.local("outbox"), "rb") as file:
        return [frame for _, _, frame in frames.scan(file.read(), 0) if frame]


def test_small_requests_share_a_frame(store: Store) -> None:
    """Requests of a group share frames of the outbox while these are small: whole frames are what it forgets."""
    sizes = [10, 10, 30_000, 30_000, 30_000, 200_000, 10, 10]
    group = [Batch([create(f"x{number}", content="c" * size)]) for number, size in enumerate(sizes)]
    group.insert(1, Batch([update("missing", title="T")]))
    group.insert(5, Batch([create("y0"), create("y1")]))
    assert len(done(store.commit(group))) == 9
    held = [[loads(line)["id"] for _, line in frame["entries"]] for frame in _frames(store.paths) if "entries" in frame]
    assert held == [["x0", "x1", "x2", "x3", "y0", "y1"], ["x4"], ["x5"], ["x6", "x7"]]
    assert [loads(line)["id"] for line in lines(store)] == [key for keys in held for key in keys]


def _unsynced(paths: Paths) -> list[object]:
    """The frames of the outbox whose logs were not synced, as its marks tell."""
    found = _frames(paths)
    marks = {name: max((frame[name] for frame in found if name in frame), default=0) for name in ("applied", "synced")}
    seqs = [frame["seq"] for frame in found if "seq" in frame]
    assert marks["applied"] == max(seqs)
    return [seq for seq in seqs if seq > marks["synced"]]


def test_a_store_can_be_used_after_closing(store: Store) -> None:
    """A closed store opens what it needs anew."""
    store.apply([create("x")])
    store.close()
    assert loads(store.get("prd", "x"))["id"] == "x"
    store.apply([create("y")])
    assert ids(store.find("prd", order="id")) == ["x", "y"]


def test_no_descriptor_is_left(store: Store) -> None:
    """A closed store holds no file open."""
    before = set(os.listdir("/proc/self/fd"))
    with Store.open(directory=store.paths.directory) as opened:
        opened.apply([create("x")])
        opened.get("prd", "x")
        for operation in (create("x"), update("nope")):
            with pytest.raises(TaskStoreError):
                opened.apply([operation])
        assert len(os.listdir("/proc/self/fd")) > len(before)
    assert set(os.listdir("/proc/self/fd")) == before
