"""The typed library: records go in with types and come out with types, and nothing of them is lost."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.daemons import running_daemon

import taskstore
from taskstore import (
    ConflictError,
    Dependency,
    DependencyType,
    Execution,
    ExecutionStatus,
    ExistsError,
    InvalidError,
    NoStoreError,
    NotFoundError,
    Prd,
    PrdStatus,
    ReadOnlyError,
    Record,
    RepoState,
    Store,
    TaskSpec,
    TaskSpecStatus,
    TaskStoreError,
    UnsupportedVersionError,
    Workflow,
    connect,
    now_ms,
)
from taskstore_core.store import Store as Engine

EXTRA = {"labels": ["a", {"b": None}], "ünknown": "é\u2028😀", "n": 1.5, "id2": "", "kind": "x"}
FULL: list[Record] = [
    Prd(title="Search", id="p1", description="D", created_at=5, status=PrdStatus.READY, review_passes=255,
        content="# A\n\nB", extra=EXTRA),
    TaskSpec(prd_id="p1", phase_name="Index", id="t1", description="D", created_at=5, status=TaskSpecStatus.FAILED,
             workflow_name="w", assigned_to="ann", content="c", depends_on=["t0", "t2"], extra=EXTRA),
    Execution(ts_id="t1", id="e1", worktree_path="/w", branch_name="b", status=ExecutionStatus.PAUSED, started_at=5,
              completed_at=6, current_phase="p", iteration_count=2**32 - 1, error_message="m", extra=EXTRA),
    Dependency(from_exec_id="e1", to_exec_id="e2", dependency_type=DependencyType.SHARE, id="d1", created_at=5,
               resolved_at=6, payload="{}", extra=EXTRA),
    Workflow(name="w", id="w1", description="D", awl_code="code", created_at=5, extra=EXTRA),
    RepoState(repo_path="/r", last_synced_commit="c0ffee", extra=EXTRA),
]
BARE: list[Record] = [
    Prd(title="T"), TaskSpec(prd_id="p", phase_name="N"), Execution(ts_id="t"),
    Dependency(from_exec_id="a", to_exec_id="b", dependency_type=DependencyType.QUERY), Workflow(name="N"),
    RepoState(repo_path="/bare", last_synced_commit=""),
]
KINDS = [type(record) for record in FULL]


@pytest.fixture(scope="module", params=["files", "daemon"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty store; every test runs without a daemon and with one."""
    engine, _ = Engine.create(os.fspath(tmp_path_factory.mktemp("library")))
    engine.close()
    directory = engine.paths.directory
    with contextlib.ExitStack() as stack:
        if request.param == "daemon":
            stack.enter_context(running_daemon(directory))
        yield directory


@pytest.fixture
def store(directory: str) -> Iterator[Store]:
    """A store in which nothing is left of the tests before."""
    with connect(directory=directory) as opened:
        yield opened
        for kind in KINDS:
            for record in opened.list(kind):
                opened.delete(kind, key_of(record))


def key_of(record: Record) -> str:
    return str(getattr(record, "repo_path" if isinstance(record, RepoState) else "id"))


@pytest.mark.parametrize("record", FULL, ids=lambda record: record.kind)
def test_round_trip(store: Store, record: Any) -> None:
    """A record of any kind comes back as it went in, stamped, with its enums and with all its unknown fields."""
    before = now_ms()
    made = store.create(record)
    assert type(made) is type(record)
    assert made == store.get(type(record), key_of(record))
    assert store.list(type(record)) == [made]
    if isinstance(made, Dependency):
        assert made.updated_at is None
    else:
        assert before <= made.updated_at <= now_ms()
    made.updated_at = record.updated_at
    if isinstance(made, RepoState):
        record = RepoState(repo_path="/r", last_synced_commit="c0ffee", extra=EXTRA)
    assert made == record
    assert repr(made.extra) == repr(EXTRA)


@pytest.mark.parametrize("record", BARE, ids=lambda record: record.kind)
def test_least(store: Store, record: Any) -> None:
    """A record of which only the least is given gets an id, stamps and the defaults; the one given is left alone."""
    before = repr(record)
    made: Any = store.create(record)
    assert repr(record) == before
    assert key_of(made)
    assert made.extra == {}
    if not isinstance(made, RepoState):
        assert made.id != store.create(record).id
        assert now_ms() >= getattr(made, "created_at", 0) or made.started_at
    again = store.update(type(made), key_of(made))
    assert again.updated_at > (made.updated_at or 0)
    again.updated_at = made.updated_at
    assert again == made


@pytest.mark.parametrize("record", FULL, ids=lambda record: record.kind)
def test_update(store: Store, record: Any) -> None:
    """An update changes the fields it names, known or not, keeps the others, and gives the next version."""
    made: Any = store.create(record)
    version = made.updated_at or made.created_at
    changed: Any = store.update(type(record), key_of(record), n=None, new={"a": [1]})
    assert changed.updated_at > version
    assert changed.extra == {**EXTRA, "n": None, "new": {"a": [1]}}
    assert changed == store.get(type(record), key_of(record))
    for name in record.__struct_fields__:
        if name not in {"extra", "updated_at"}:
            assert getattr(changed, name) == getattr(made, name)


def test_enums(store: Store) -> None:
    """A status is set as a member or as its word, and read as a member that is its word."""
    store.create(Prd(title="T", id="x"))
    for word in (PrdStatus.ACTIVE, "cancelled"):
        assert store.update(Prd, "x", status=word).status is PrdStatus(word)
    status = store.get(Prd, "x").status
    assert status is PrdStatus.CANCELLED
    assert f"{status}" == "cancelled"
    execution = store.create(Execution(ts_id="t", status=ExecutionStatus.STOPPED))
    assert execution.completed_at == execution.updated_at
    assert store.update(Execution, execution.id, status=ExecutionStatus.RUNNING).completed_at is None


def test_lists(store: Store) -> None:
    """A list is filtered by equality and by conditions, on known and unknown fields, and ordered by any of them."""
    for number, status in enumerate(PrdStatus):
        store.create(Prd(title=f"T{number}", id=f"x{number}", created_at=9 - number, status=status,
                         extra={"n": number, "tags": ["a"] * number}))
    def found(*args: Any, **kwargs: Any) -> str:
        return "".join(prd.id[1] for prd in store.list(Prd, *args, **kwargs))
    assert found() == "43210"
    assert found(order="id") == "01234"
    assert found(order="-n") == "43210"
    assert found(status=PrdStatus.DRAFT) == found(status="draft") == "0"
    assert found({"n": {"ge": 1, "lt": 3}}, order="n") == "12"
    assert found({"n": {"in": [0, 4]}}, order="n") == "04"
    assert found({"title": {"contains": "T3"}}) == "3"
    assert found({"tags": {"contains": "a"}}, status="ready") == "1"
    assert found({"status": {"ne": PrdStatus.DRAFT}}, n=0) == ""
    assert [type(each) for each in store.list(TaskSpec)] == []
    for record in FULL[1:]:
        store.create(record)
    assert [task.id for task in store.list(TaskSpec, {"depends_on": {"contains": "t2"}})] == ["t1"]
    assert store.list(TaskSpec, assigned_to=None) == []
    assert [each.id for each in store.list(Dependency, dependency_type=DependencyType.SHARE)] == ["d1"]


def test_getting_by_prefix(store: Store) -> None:
    """A record is got by the beginning of its id where only one begins so, and by nothing else."""
    store.create(Prd(title="T", id="abc"))
    store.create(Prd(title="T", id="abd"))
    assert store.get(Prd, "abc").id == "abc"
    with pytest.raises(NotFoundError, match="several"):
        store.get(Prd, "ab")
    store.delete(Prd, "abd")
    assert store.get(Prd, "ab").id == "abc"
    with pytest.raises(NotFoundError):
        store.get(TaskSpec, "abc")


def test_errors(store: Store) -> None:
    """Each refusal has its own class under TaskStoreError, one line, the field it is about and what became of it."""
    made = store.create(Prd(title="T", id="x"))
    refusals: list[tuple[Any, type[TaskStoreError], str | None]] = [
        (lambda: store.create(Prd(title="T", id="x")), ExistsError, None),
        (lambda: store.get(Prd, "nope"), NotFoundError, None),
        (lambda: store.update(Prd, "nope", title="U"), NotFoundError, None),
        (lambda: store.delete(Prd, "nope"), NotFoundError, None),
        (lambda: store.update(Prd, "x", if_updated_at=made.updated_at - 1), ConflictError, None),
        (lambda: store.delete(Prd, "x", if_updated_at=made.updated_at + 1), ConflictError, None),
        (lambda: store.update(Prd, "x", title=5), InvalidError, "title"),
        (lambda: store.update(Prd, "x", status="nope"), InvalidError, "status"),
        (lambda: store.update(RepoState, "x", repo_path="y"), InvalidError, "repo_path"),
        (lambda: store.update(Prd, "x", op=""), InvalidError, "op"),
        (lambda: store.update(Prd, "x", z=float("nan")), InvalidError, "z"),
        (lambda: store.create(Prd(title="\ud800")), InvalidError, "title"),
        (lambda: store.create(Prd(title="T", review_passes=256)), InvalidError, "review_passes"),
        (lambda: store.create(Prd(title="T", extra={"deleted": True})), InvalidError, "deleted"),
        (lambda: store.create(Prd(title=None)), InvalidError, "title"),  # type: ignore[arg-type]
        (lambda: store.list(Prd, status="nope"), InvalidError, "status"),
        (lambda: store.list(Prd, {"title": {"like": "x"}}), InvalidError, "title"),
    ]
    for attempt, error, field in refusals:
        with pytest.raises(error) as caught:
            attempt()
        assert isinstance(caught.value, TaskStoreError)
        assert caught.value.field == field
        assert caught.value.applied == "no"
        assert "\n" not in caught.value.message
    assert store.list(Prd) == [made]
    assert store.update(Prd, "x", if_updated_at=made.updated_at, title="U").title == "U"


def test_values_of_another_tool(store: Store, directory: str) -> None:
    """A line of another tool whose values do not fit its type is named; all others are still there."""
    with open(f"{directory}/workflows.jsonl", "a", encoding="utf-8") as file:
        file.write('{"id":"old","name":"n","version":"1","content":"awl","created_at":1,"updated_at":2}\n'
                   '{"id":"bad","name":7,"updated_at":2}\n')
    assert store.get(Workflow, "old") == Workflow(
        name="n", id="old", awl_code="awl", created_at=1, updated_at=2, extra={"version": "1", "content": "awl"})
    with pytest.raises(InvalidError, match="name"):
        store.get(Workflow, "bad")
    assert store.update(Workflow, "old", description="d").awl_code == "awl"
    store.delete(Workflow, "bad")


def test_stats_and_sync(store: Store) -> None:
    """Stats count by kind and status; a sync tells for each kind what it read."""
    store.create(Prd(title="T"))
    assert store.stats()["prd"]["status"] == {"draft": 1}
    report = store.sync(full=True)
    assert set(report["kinds"]) == {kind.kind for kind in KINDS}
    assert report["kinds"]["prd"]["mode"] == "rebuilt"
    assert store.sync()["parsed"] == 0


def test_no_store(tmp_path: Path) -> None:
    """Where there is no store, or one of a newer release, opening says so."""
    with pytest.raises(NoStoreError):
        Store.open(os.fspath(tmp_path))
    with pytest.raises(NoStoreError):
        Store.open(directory=os.fspath(tmp_path / "nope"))
    engine, _ = Engine.create(os.fspath(tmp_path))
    engine.close()
    with open(engine.paths.file(".version"), "w", encoding="utf-8") as file:
        file.write("2\n")
    with pytest.raises(UnsupportedVersionError):
        Store.open(os.fspath(tmp_path))
    assert not issubclass(UnsupportedVersionError, ReadOnlyError)


def test_opening_from_below(tmp_path: Path) -> None:
    """A store is found from any folder below the one it stands in."""
    engine, _ = Engine.create(os.fspath(tmp_path))
    engine.close()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    with Store.open(os.fspath(deep)) as store:
        store.create(Prd(title="T", id="x"))
    with Store.open(directory=engine.paths.directory) as store:
        assert store.get(Prd, "x").title == "T"


def test_importing_the_package_is_cheap() -> None:
    """`import taskstore` imports none of the packages that its names need, until one of them is used."""
    code = """
import json, sys
before = set(sys.modules)
import taskstore
bare = sorted(set(sys.modules) - before)
taskstore.now_ms, taskstore.InvalidError
names = sorted(set(sys.modules) - before)
taskstore.Store
print(json.dumps([bare, names, "msgspec" in sys.modules, "apsw" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    bare, names, has_msgspec, has_apsw = json.loads(done.stdout)
    assert bare == ["taskstore"]
    assert not {"msgspec", "apsw", "orjson", "taskstore_core.records"} & set(names)
    assert has_msgspec
    assert has_apsw


def test_names_of_the_package() -> None:
    """Every name the package says it has can be had, and any other is refused as of any module."""
    for name in taskstore.__all__:
        assert getattr(taskstore, name).__name__ == name
    assert sorted(taskstore.__all__) == taskstore.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        _ = taskstore.nope
    namespace: dict[str, object] = {}
    exec("from taskstore import *", namespace)  # noqa: S102 - what a user types
    assert set(taskstore.__all__) <= set(namespace)
