"""Logs that others wrote: the original tool's, an editor's, a merge's. All of it loads, none of it is lost."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskstore_core.batch import Operation
from taskstore_core.errors import InvalidError, NotFoundError, ReadOnlyError
from taskstore_core.kinds import KINDS, LOGS
from taskstore_core.methods import dispatch
from taskstore_core.records import Workflow, from_line
from taskstore_core.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

ORIGINAL = {
    "prds.jsonl": [
        ('{"id":"prd-1","title":"Log in","description":"","created_at":1700000000000,"updated_at":1700000000001,'
         '"status":"draft","review_passes":0,"content":"# Log in\\n\\nÄ \\u2028 \u2028 \\"x\\""}'),
        ('{"id":"prd-1","title":"Log in","description":"","created_at":1700000000000,"updated_at":1700000000002,'
         '"status":"active","review_passes":5,"content":""}'),
    ],
    "task_specs.jsonl": [
        ('{"id":"ts-1","prd_id":"prd-1","phase_name":"one","description":"d","created_at":1700000000000,'
         '"updated_at":1700000000001,"status":"pending","workflow_name":null,"assigned_to":null,"content":""}'),
    ],
    "executions.jsonl": [
        ('{"id":"exec-1","ts_id":"ts-1","worktree_path":"/w","branch_name":"b","status":"running",'
         '"started_at":1700000000000,"updated_at":1700000000001,"completed_at":null,"current_phase":null,'
         '"iteration_count":0,"error_message":null}'),
    ],
    "dependencies.jsonl": [
        ('{"id":"dep-1","from_exec_id":"exec-1","to_exec_id":"exec-2","dependency_type":"notify",'
         '"created_at":1700000000000,"resolved_at":null,"payload":null}'),
        ('{"id":"dep-1","from_exec_id":"exec-1","to_exec_id":"exec-2","dependency_type":"notify",'
         '"created_at":1700000000000,"resolved_at":1700000000009,"payload":"{}"}'),
    ],
    "workflows.jsonl": [
        ('{"id":"wf-1","name":"build","description":"","version":"1.0","content":"steps",'
         '"created_at":1700000000000,"updated_at":1700000000001}'),
        ('{"id":"wf-2","name":"build","description":"","awl_code":"steps","created_at":1700000000000,'
         '"updated_at":1700000000001}'),
    ],
    "repo_state.jsonl": [
        '{"repo_path":"/home/me/repo","last_synced_commit":"c0ffee","updated_at":1700000000001}',
    ],
}
NEWEST = {"prd-1": 1, "ts-1": 0, "exec-1": 0, "dep-1": 1, "wf-1": 0, "wf-2": 1, "/home/me/repo": 0}
"""The id of each record in ORIGINAL, and which line of its log is its state."""


def make(root: Path, logs: "Mapping[str, bytes]", version: bytes = b"1  # Current schema version\n") -> Path:
    folder = root / ".taskstore"
    folder.mkdir(parents=True)
    (folder / ".version").write_bytes(version)
    for name, data in logs.items():
        (folder / name).write_bytes(data)
    return folder


def prds(root: Path, data: bytes) -> Store:
    make(root, {"prds.jsonl": data})
    return Store.open(str(root))


def state(store: Store, kind: str = "prd") -> dict[str, int]:
    """The version of each live record."""
    records: list[Any] = [json.loads(raw) for raw in store.find(kind)[0]]
    return {record[KINDS[kind].key]: record.get("updated_at", 0) for record in records}


def rec(key: str, version: int, **fields: object) -> bytes:
    return json.dumps({"id": key, "title": "t", "updated_at": version, **fields}, ensure_ascii=False).encode()


# What loads


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n \n", "\r\n\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_files_of_the_original_tool_load(tmp_path: Path, end: str, bom: bytes, *, last: bool) -> None:
    """Its lines are read as they stand, with either line end, blank lines, a BOM or no final line end."""
    make(tmp_path, {name: bom + end.join([*lines, ""] if last else lines).encode() for name, lines in ORIGINAL.items()})
    with Store.open(str(tmp_path)) as store:
        for name, lines in ORIGINAL.items():
            kind = LOGS[name]
            for key in {json.loads(line)[kind.key] for line in lines}:
                assert store.get(kind, key) == lines[NEWEST[key]]
        assert {report.bad_lines for report in store.sync().values()} == {0}


def test_old_workflows_are_typed_leniently(tmp_path: Path) -> None:
    """A workflow line with version and content is a Workflow whose code is the content; the line keeps both."""
    make(tmp_path, {"workflows.jsonl": f"{ORIGINAL['workflows.jsonl'][0]}\n".encode()})
    with Store.open(str(tmp_path)) as store:
        workflow = from_line(Workflow, store.get("workflow", "wf-1"))
        assert (workflow.name, workflow.awl_code) == ("build", "steps")
        store.apply([Operation("update", KINDS["workflow"], {"id": "wf-1", "description": "new"})])
        record = json.loads(store.get("workflow", "wf-1"))
        assert (record["version"], record["content"], record["description"]) == ("1.0", "steps", "new")


def test_a_store_without_any_log(tmp_path: Path) -> None:
    """A folder with a version and nothing else is an empty store; writing makes the log it needs and no other."""
    folder = make(tmp_path, {}, b"1")
    with Store.open(str(tmp_path)) as store:
        assert store.find("prd") == ([], None)
        assert {stats["lines"] for stats in store.stats().values()} == {0}
        with pytest.raises(NotFoundError):
            store.get("task_spec", "ts-1")
        assert not list(folder.glob("*.jsonl"))
        store.apply([Operation("create", KINDS["prd"], {"id": "a", "title": "t"})])
        assert [path.name for path in folder.glob("*.jsonl")] == ["prds.jsonl"]
        assert list(state(store)) == ["a"]


@pytest.mark.parametrize(("data", "ids", "bad"), [
    (b"\n".join([rec("a", 1), b"garbage", rec("b", 1), b""]), {"a": 1, "b": 1}, [2]),
    (b"\n".join([b"\xff\xfe\x00", rec("a", 1), b'{"id":"b"', rec("c", 1), b"[]", b""]), {"a": 1, "c": 1}, [1, 3, 5]),
    (b"\n".join([rec("a", 1), rec("b", 1)[:-1] + rec("c", 1), rec("d", 1), b""]), {"a": 1, "d": 1}, [2]),
    (b"\n".join([b"<<<<<<< HEAD", rec("a", 2), b"||||||| base", rec("a", 1), b"=======", rec("a", 3), rec("b", 1),
                 b">>>>>>> branch", b""]), {"a": 3, "b": 1}, []),
    (b"\r\n".join([b"<<<<<<< HEAD", rec("a", 2), b"=======", rec("a", 1), b">>>>>>> branch", b""]), {"a": 2}, []),
    (b"\n".join([rec("a", 1), rec("b", 1)[:20]]), {"a": 1}, []),
    (b"\n".join([rec("a", 1), rec("b", 1)]), {"a": 1, "b": 1}, []),
    (b"\n" * 50 + rec("a", 1) + b"\n" * 50, {"a": 1}, []),
    (b"\xef\xbb\xbf" + rec("a", 1) + b"\n\xef\xbb\xbf" + rec("b", 2) + b"\n\xef\xbb\xbf\n", {"a": 1, "b": 2}, []),
    (rec("a", 1, title="x\u2028y\u2029z\x85") + b"\n" + rec("b\u2028", 1) + b"\n", {"a": 1, "b\u2028": 1}, []),
    (rec("a", 5) + b"\n" + rec("a", 4) + b"\n" + rec("a", 5, status="ready") + b"\n", {"a": 5}, []),
    (rec("a", 5) + b"\n" + rec("a", 6, deleted=True) + b"\n" + rec("a", 5) + b"\n", {}, []),
    (rec("a", 5, deleted=True) + b"\n" + rec("a", 6) + b"\n", {"a": 6}, []),
    (b'{"id":"a","updated_at":NaN}\n{"id":"b","updated_at":9007199254740993}\n' + rec("c", 2**53) + b"\n",
     {"c": 2**53}, [1, 2]),
    (b"\x00" * 64 + b"\n" + rec("a", 1) + b"\n", {"a": 1}, [1]),
    (b"", {}, []), (b"\n", {}, []), (b"{", {}, []), (b"=======\n", {}, []),
])
def test_what_stands_between_records_is_passed_over(tmp_path: Path, data: bytes, ids: dict[str, int],
                                                    bad: list[int]) -> None:
    """Garbage, torn lines, blank lines and markers hide no record, and what is bad is told by file and line."""
    with prds(tmp_path, data) as store:
        assert state(store) == ids
        report: Any = dispatch(store, "store.sync", {"full": True})
        assert [found["line"] for found in report["kinds"]["prd"]["bad"]] == bad
        assert all(found["reason"] for found in report["kinds"]["prd"]["bad"])
        assert {name: kind["bad_lines"] for name, kind in report["kinds"].items()} == {
            name: len(bad) if name == "prd" else 0 for name in KINDS}
        assert store.stats()["prd"]["bad_lines"] == len(bad)


def test_the_reason_says_what_is_wrong(tmp_path: Path) -> None:
    """A bad line is reported with what a person needs to mend it."""
    lines = [b"\xff", b'{"id":7}', b'{"id":"a","updated_at":"now"}', b"[1]", b'{"id":"a","x":"\\ud800"}',
             b"[" * 2000]
    with prds(tmp_path, b"\n".join(lines) + b"\n") as store:
        assert store.sync(full=True)["prd"].bad == [
            (1, "not UTF-8 at byte 0"), (2, "no usable 'id'"), (3, "updated_at is not an integer"),
            (4, "not a JSON object"), (5, "half of a surrogate pair in a string"), (6, "nested too deeply")]


# What never makes sync fail


ODD: dict[str, list[dict[str, object]]] = {
    "prds.jsonl": [
        {"id": "p", "updated_at": 1, "title": None, "status": "no such status", "review_passes": "many", "content": 7},
        {"id": "q", "updated_at": 1, "status": 5, "title": ["a"], "description": {"x": {}}, "review_passes": -1},
        {"id": "r"},
        {"id": "s", "status": True, "created_at": 3, "extra": None, "": "", "a b": 1, "$.x": 2, '"': 3},
    ],
    "task_specs.jsonl": [
        {"id": "t", "updated_at": 1, "prd_id": "no such PRD", "depends_on": ["t", "none"], "assigned_to": 7},
        {"id": "u", "updated_at": 1, "prd_id": None, "depends_on": "t"},
    ],
    "executions.jsonl": [{"id": "e", "updated_at": 1, "ts_id": "gone", "iteration_count": 2**70, "completed_at": "no"}],
    "dependencies.jsonl": [
        {"id": "d", "created_at": 1, "from_exec_id": "none", "to_exec_id": "d", "dependency_type": "?", "payload": {}}],
    "workflows.jsonl": [{"id": "w1", "updated_at": 1, "name": "same"}, {"id": "w2", "updated_at": 1, "name": "same"},
                        {"id": "w1", "updated_at": 1, "name": "same"}],
    "repo_state.jsonl": [{"repo_path": "x" * 5000, "updated_at": 1, "id": "no id"}],
}


def test_orphans_and_duplicate_names_never_make_sync_fail(tmp_path: Path) -> None:
    """Records that point nowhere, share a name or hold values of any type are all taken as they are."""
    make(tmp_path, {name: b"".join(json.dumps(record).encode() + b"\n" for record in records)
                    for name, records in ODD.items()})
    with Store.open(str(tmp_path)) as store:
        reports = store.sync()
        assert {report.bad_lines for report in reports.values()} == {0}
        for name, records in ODD.items():
            kind = LOGS[name]
            for record in records:
                assert json.loads(store.get(kind, str(record[kind.key]))) == record
            assert len(store.find(kind)[0]) == len({str(record[kind.key]) for record in records})
        assert len(store.find("workflow", {"name": "same"})[0]) == 2
        assert store.stats()["prd"]["status"] == {"": 2, "5": 1, "no such status": 1}
        for field in (*KINDS["prd"].fields, "extra", "no such field"):
            assert len(store.find("prd", order=field)[0]) == 4
            assert len(store.find("prd", {field: {"ne": None}})[0]) + len(store.find("prd", {field: None})[0]) == 4


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=4)
RECORDS = st.dictionaries(
    st.sampled_from(["id", "id", "updated_at", "created_at", "status", "title", "deleted", "review_passes", "x"]),
    VALUES, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=30) | RECORDS.map(lambda record: json.dumps(record).encode()), max_size=8))
def test_no_bytes_make_a_store_fail(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    """Whatever stands in a log, reading, listing, counting and writing work, and the bytes stay where they are."""
    root = tmp_path_factory.mktemp("any")
    data = b"\n".join(lines)
    with prds(root, data) as store:
        found, _ = store.find("prd", order="title")
        assert all(store.get("prd", json.loads(raw)["id"]) == raw for raw in found)
        assert store.stats()["prd"]["records"] == len(found)
        store.apply([Operation("create", KINDS["prd"], {"id": "ours is new", "title": "t"})])
        assert len(store.find("prd")[0]) == len(found) + 1
    assert (root / ".taskstore" / "prds.jsonl").read_bytes().startswith(data)


# Writing behind it


TORN = rec("torn", 1)[:25]


@pytest.mark.parametrize("before", [
    b"", b"\n", b" ", b"\r", rec("a", 1), rec("a", 1) + b"\n", rec("a", 1) + b"\r\n", rec("a", 1) + b"\r", TORN,
    rec("a", 1) + b"\n" + TORN, b"garbage", b"garbage\n", b"\xff\xfe", b"\x00" * 10, b"<<<<<<< ours\n" + rec("a", 1),
    b">>>>>>> theirs", b"\xef\xbb\xbf", b"\xef\xbb\xbf" + rec("a", 1) + b"\r\n\r\n", b"{", b'{"id":', b'{"id":"ours',
    rec("long", 1, content="x" * 20_000), b"y" * 20_000 + b"\n" + b"z" * 20_000,
], ids=lambda data: repr(data[:20]))
def test_what_others_wrote_stays_before_what_we_append(tmp_path: Path, before: bytes) -> None:
    """Our lines come behind every byte that was there, a line end first where the last line had none."""
    log = tmp_path / ".taskstore" / "prds.jsonl"
    with prds(tmp_path, before) as store:
        known = state(store)
        written = [store.apply([Operation("create", KINDS["prd"], {"id": f"ours-{n}", "title": "t"})])[0].raw
                   for n in range(3)]
        after = log.read_bytes()
        assert after.startswith(before)
        ours = "".join(f"{raw}\n" for raw in written).encode()
        assert after.endswith(ours)
        between = after[len(before):len(after) - len(ours)] if len(after) >= len(before) + len(ours) else b""
        assert between == (b"\n" if before and not before.endswith(b"\n") and not ours.startswith(before) else b"")
        assert {key for key in state(store) if not key.startswith("ours-")} == set(known)
    with Store.open(str(tmp_path)) as store:
        store.sync(full=True)
        assert len(state(store)) == len(known) + 3


def test_an_update_of_a_foreign_record_keeps_what_we_do_not_know(tmp_path: Path) -> None:
    """Unknown fields go through an update byte for byte, behind the known ones; the old line stays in the file."""
    line = ('{"zzz":1.10,"id":"a","b":{"k" : [1e400, "\\u00e9"]},"updated_at":5,"title":"t","op":"once","big":'
            '123456789012345678901234567890,"status":"draft"}')
    with prds(tmp_path, line.encode()) as store:
        raw = store.apply([Operation("update", KINDS["prd"], {"id": "a", "title": "new"})])[0].raw
        stamp = json.loads(raw)["updated_at"]
        assert raw == (f'{{"id":"a","title":"new","updated_at":{stamp},"status":"draft","zzz":1.10,'
                       '"b":{"k" : [1e400, "\\u00e9"]},"big":123456789012345678901234567890,"base_at":5}')
        assert (tmp_path / ".taskstore" / "prds.jsonl").read_text() == f"{line}\n{raw}\n"


def test_a_foreign_record_dated_ahead_is_still_beaten(tmp_path: Path) -> None:
    """An edit of ours follows a version from a clock that runs ahead, by one millisecond if need be."""
    ahead = 2**52
    with prds(tmp_path, rec("a", ahead) + b"\n") as store:
        assert store.apply([Operation("update", KINDS["prd"], {"id": "a", "title": "new"})])[0].version == ahead + 1
        assert state(store) == {"a": ahead + 1}
        store.apply([Operation("delete", KINDS["prd"], {"id": "a"})])
        assert state(store) == {}
        assert store.apply([Operation("create", KINDS["prd"], {"id": "a", "title": "again"})])[0].version == ahead + 3
    with Store.open(str(tmp_path)) as store:
        store.sync(full=True)
        assert state(store) == {"a": ahead + 3}


def test_a_foreign_record_at_the_end_of_time(tmp_path: Path) -> None:
    """A version of 2^53 can be read but not followed; the refusal says so and writes nothing."""
    data = rec("a", 2**53) + b"\n"
    with prds(tmp_path, data) as store:
        with pytest.raises(InvalidError, match="nothing can follow it"):
            store.apply([Operation("update", KINDS["prd"], {"id": "a", "title": "new"})])
        assert state(store) == {"a": 2**53}
    assert (tmp_path / ".taskstore" / "prds.jsonl").read_bytes() == data


# What is no file at all


@pytest.mark.parametrize("what", ["folder", "link", "dangling", "fifo", "link to a folder"])
def test_a_log_that_is_no_file(tmp_path: Path, what: str) -> None:
    """A folder, link or pipe in the place of a log is refused by name, at once, and followed nowhere."""
    folder = make(tmp_path, {"task_specs.jsonl": rec("t", 1) + b"\n"})
    log, target = folder / "prds.jsonl", tmp_path / "target"
    match what:
        case "folder":
            log.mkdir()
        case "link":
            target.write_bytes(rec("a", 1) + b"\n")
            log.symlink_to(target)
        case "dangling":
            log.symlink_to(target)
        case "fifo":
            os.mkfifo(log)
        case _:
            target.mkdir()
            log.symlink_to(target)
    with Store.open(str(tmp_path)) as store:
        with pytest.raises(ReadOnlyError, match=r"prds\.jsonl"):
            store.find("prd")
        with pytest.raises(ReadOnlyError, match=r"prds\.jsonl"):
            store.apply([Operation("create", KINDS["prd"], {"title": "t"})])
    if what == "link":
        assert target.read_bytes() == rec("a", 1) + b"\n"
    if what == "dangling":
        assert not target.exists()
