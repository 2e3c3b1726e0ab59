"""What the typed library offers beyond single records, without a daemon and with one."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.daemons import running_daemon

from taskstore import (
    BusyError,
    Changed,
    Claim,
    ConflictError,
    Create,
    Delete,
    Dependency,
    Execution,
    ExistsError,
    Import,
    InvalidError,
    NotFoundError,
    Prd,
    PrdStatus,
    RepoState,
    Restore,
    Store,
    TaskSpec,
    TaskSpecStatus,
    Update,
    Workflow,
    connect,
    now_ms,
)
from taskstore_core.lock import Lock
from taskstore_core.paths import Paths
from taskstore_core.store import Store as Engine


@pytest.fixture(params=["files", "daemon"])
def directory(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    """An empty store; every test runs without a daemon and with one."""
    engine, _ = Engine.create(os.fspath(tmp_path))
    engine.close()
    with contextlib.ExitStack() as stack:
        if request.param == "daemon":
            stack.enter_context(running_daemon(engine.paths.directory))
        yield engine.paths.directory


@pytest.fixture
def store(directory: str) -> Iterator[Store]:
    with connect(directory=directory) as opened:
        yield opened


def specs(store: Store, *ids: str, **fields: Any) -> None:
    for key in ids:
        store.create(TaskSpec(id=key, prd_id="p", phase_name="N", **fields))


NAMED: list[tuple[str, Any, dict[str, object], Any]] = [
    ("prd", Prd(title="T"), {"title": "U"}, Prd),
    ("task_spec", TaskSpec(prd_id="p", phase_name="N"), {"status": "failed"}, TaskSpec),
    ("execution", Execution(ts_id="t"), {"iteration_count": 3}, Execution),
    ("dependency", Dependency(from_exec_id="a", to_exec_id="b", dependency_type="query"),  # type: ignore[arg-type]
     {"payload": "x"}, Dependency),
    ("workflow", Workflow(name="N"), {"awl_code": "x"}, Workflow),
    ("repo_state", RepoState(repo_path="/r", last_synced_commit=""), {"last_synced_commit": "c"}, RepoState),
]
PLURALS = {"prd": "prds", "task_spec": "task_specs", "execution": "executions", "dependency": "dependencies",
           "workflow": "workflows", "repo_state": "repo_states"}


@pytest.mark.parametrize(("name", "record", "changes", "type_"), NAMED, ids=[row[0] for row in NAMED])
def test_every_kind_under_its_own_names(store: Store, name: str, record: Any, changes: Any, type_: Any) -> None:
    """Each kind can be created, got, updated, listed and deleted under names that speak of it."""
    made = getattr(store, f"create_{name}")(record)
    key = made.repo_path if name == "repo_state" else made.id
    assert getattr(store, f"get_{name}")(key) == made == store.get(type_, key)
    changed = getattr(store, f"update_{name}")(key, **changes)
    assert {field: getattr(changed, field) for field in changes} == changes
    assert getattr(store, f"list_{PLURALS[name]}")() == [changed] == store.list(type_)
    getattr(store, f"delete_{name}")(key)
    assert getattr(store, f"list_{PLURALS[name]}")() == []


def test_the_lists_of_the_seed(store: Store) -> None:
    """PRDs and executions are listed by status, task specs by their PRD and executions by their task spec."""
    store.create_prd(Prd(id="a", title="A", status=PrdStatus.ACTIVE))
    store.create_prd(Prd(id="b", title="B"))
    store.create_task_spec(TaskSpec(id="t1", prd_id="a", phase_name="1"))
    store.create_task_spec(TaskSpec(id="t2", prd_id="b", phase_name="2", status=TaskSpecStatus.FAILED))
    store.create_execution(Execution(id="e1", ts_id="t1"))
    assert [prd.id for prd in store.list_prds(status=PrdStatus.ACTIVE)] == ["a"]
    assert [spec.id for spec in store.list_task_specs("b")] == ["t2"]
    assert [spec.id for spec in store.list_task_specs(status="pending")] == ["t1"]
    assert [one.id for one in store.list_executions("t1", status="running")] == ["e1"]
    assert store.list_executions("t2") == []


def test_pages_are_the_whole_list(store: Store) -> None:
    """Pages of a list, one after the other, give every record once and end without a cursor."""
    store.apply([Create(Prd(id=f"p{n}", title="T", created_at=5)) for n in range(7)])
    seen, cursor = [], None
    while True:
        page = store.page(Prd, limit=3, order="-id", cursor=cursor)
        seen += [prd.id for prd in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"p{n}" for n in reversed(range(7))]


def test_apply_is_all_or_nothing(store: Store) -> None:
    """Operations of all sorts happen together; with a bad one among them none does, and the error says which."""
    store.create(Prd(id="old", title="T"))
    before = store.stats()
    with pytest.raises(ExistsError) as caught:
        store.apply([Create(Prd(id="new", title="T")), Update(Prd, "old", title="U"), Create(Prd(id="old", title="T"))])
    assert caught.value.operation == 2
    assert store.stats() == before
    made, changed, gone, brought = store.apply([
        Create(TaskSpec(id="t", prd_id="new", phase_name="N")), Update(Prd, "old", title="U"), Delete(TaskSpec, "t"),
        Import(Prd, {"id": "from afar", "title": "T", "updated_at": 7})])
    assert isinstance(made, TaskSpec)
    assert isinstance(changed, Prd)
    assert (made.id, changed.title, gone, brought) == ("t", "U", None, None)
    assert store.get(Prd, "from afar").updated_at == 7
    (back,) = store.apply([Restore(TaskSpec, "t")])
    assert isinstance(back, TaskSpec)
    assert back.phase_name == "N"


REPEATED: list[tuple[str, Callable[[Store, str], Any], Callable[[Store, str], Any]]] = [
    ("create", lambda s, op: s.create(Prd(title="new"), op=op), lambda s, op: s.create(Prd(title="other"), op=op)),
    ("update", lambda s, op: s.update(Prd, "x", title="U", op=op), lambda s, op: s.update(Prd, "x", title="V", op=op)),
    ("delete", lambda s, op: s.delete(Prd, "x", op=op), lambda s, op: s.delete(Prd, "y", op=op)),
    ("restore", lambda s, op: s.restore(Prd, "gone", op=op), lambda s, op: s.restore(Prd, "x", version=1, op=op)),
    ("apply", lambda s, op: s.apply([Create(Prd(title="1")), Delete(Prd, "x")], op=op),
     lambda s, op: s.apply([Create(Prd(title="1"))], op=op)),
]


@pytest.mark.parametrize(("name", "write", "other"), REPEATED, ids=[row[0] for row in REPEATED])
def test_a_write_with_an_op_happens_once(store: Store, name: str, write: Any, other: Any) -> None:
    """Sent again under its op a write gives the first answer and writes nothing; another under that op is refused."""
    store.apply([Create(Prd(id=key, title="T")) for key in ("x", "y", "gone")])
    store.delete(Prd, "gone")
    first = write(store, "op-1")
    before = store.stats()
    assert write(store, "op-1") == first, name
    assert store.stats() == before
    with pytest.raises(InvalidError) as caught:
        other(store, "op-1")
    assert caught.value.field == "op"


def test_history_and_restore(store: Store) -> None:
    """A record's versions are listed oldest first, deletions too, and each can be brought back, unknown fields too."""
    first = store.create(Prd(id="x", title="1", extra={"odd": [1.50]}))
    second = store.update(Prd, "x", title="2")
    store.delete(Prd, "x")
    versions = store.history(Prd, "x")
    assert [version.record for version in versions] == [first, second, None]
    assert [version.updated_at for version in versions] == sorted(version.updated_at for version in versions)
    assert store.restore(Prd, "x").title == "2"
    back = store.restore(Prd, "x", version=first.updated_at)
    assert (back.title, back.extra) == ("1", {"odd": [1.5]})
    with pytest.raises(InvalidError):
        store.restore(Prd, "x")
    with pytest.raises(NotFoundError):
        store.history(Prd, "never")


def test_a_claim_from_ready_to_complete(store: Store) -> None:
    """What is ready is claimed, held, completed, and completing it unblocks what needed it."""
    specs(store, "t1")
    specs(store, "t2", depends_on=["t1"])
    assert [spec.id for spec in store.ready()] == ["t1"]
    claim = store.claim(by="ann", prd_id="p", op="c")
    assert isinstance(claim, Claim)
    assert (claim.id, claim.spec.status, claim.spec.assigned_to, claim.spec.extra) == ("t1", "running", "ann", {})
    again = store.claim(by="ann", prd_id="p", op="c")
    assert again is not None
    assert again.token == claim.token
    assert store.claim(by="bob") is None
    with pytest.raises(ConflictError, match="ann holds it"):
        store.claim("t1", by="bob")
    assert store.heartbeat(claim, lease_ms=60_000) > now_ms() + 50_000
    assert store.complete(claim) == ["t2"]
    with pytest.raises(ConflictError):
        store.heartbeat(claim)
    assert store.get_task_spec("t1").status == TaskSpecStatus.COMPLETE


def test_other_ends_of_a_claim(store: Store) -> None:
    """A claim that fails leaves a failed spec, one that is released a pending one that nobody is assigned to."""
    specs(store, "t1", "t2")
    first, second = store.claim("t1", by="ann"), store.claim("t2", by="ann")
    assert first is not None
    assert second is not None
    assert store.fail(first).status == TaskSpecStatus.FAILED
    released = store.release(second)
    assert (released.status, released.assigned_to) == (TaskSpecStatus.PENDING, None)
    assert [spec.id for spec in store.ready(limit=5)] == ["t2"]


def test_waiting_for_a_dependency(store: Store, directory: str) -> None:
    """Who waits for a dependency gets it, payload and all, when another process resolves it, or as it is in the end."""
    made = store.create(Dependency(id="d", from_exec_id="a", to_exec_id="b", dependency_type="query"))  # type: ignore[arg-type]
    assert store.wait_dependency("d", timeout_ms=1) == made
    found: list[Dependency] = []

    def wait() -> None:
        with connect(directory=directory) as other:
            found.append(other.wait_dependency("d", timeout_ms=60_000))

    thread = threading.Thread(target=wait)
    thread.start()
    script = "import sys, taskstore; taskstore.connect(directory=sys.argv[1]).resolve_dependency('d', 'here')"
    subprocess.run([sys.executable, "-c", script, directory], check=True)
    thread.join()
    assert (found[0].payload, found[0].resolved_at is not None) == ("here", True)
    with pytest.raises(ConflictError):
        store.resolve_dependency("d")
    with pytest.raises(NotFoundError):
        store.wait_dependency("nope", timeout_ms=1)


def test_changes_are_told_as_they_happen(store: Store, directory: str) -> None:
    """Creates, updates and deletes by this store and by others are told in order, and from a cursor on once more."""
    with store.changes(kinds=["prd"]) as changes:
        begin = changes.cursor
        events = iter(changes)
        store.create(Prd(id="x", title="1"))
        specs(store, "t1")
        assert seen(events) == ("create", "x", "1")
        with Store.open(directory=directory) as files:
            files.update(Prd, "x", title="2")
        assert seen(events) == ("update", "x", "2")
        store.delete(Prd, "x")
        assert seen(events) == ("delete", "x", None)
    with store.changes(since=begin) as changes:
        told = {(event.kind, event.id): event.op for _, event in zip(range(2), changes, strict=False)
                if isinstance(event, Changed)}
        assert told == {("task_spec", "t1"): "create", ("prd", "x"): "delete"}


def test_a_cursor_is_not_ahead_of_what_was_taken(store: Store) -> None:
    """Whoever took one of several changes that are told together, and goes on from its cursor, misses none of them."""
    with store.changes() as changes:
        store.apply([Create(Prd(id=key, title=key)) for key in "abc"])
        taken = next(event.id for event in changes if isinstance(event, Changed))
        cursor = changes.cursor
    store.create(Prd(id="last", title="last"))
    told = set()
    with store.changes(since=cursor) as changes:
        for event in changes:
            assert isinstance(event, Changed)
            told.add(event.id)
            if event.id == "last":
                break
    assert told | {taken} == {"a", "b", "c", "last"}


def test_what_a_lost_daemon_did_is_unknown(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that a daemon may have taken before it was killed, and that cannot be repeated, is not called undone."""
    monkeypatch.setattr(Lock.__init__, "__defaults__", (0.01, None))
    engine, _ = Engine.create(os.fspath(tmp_path))
    engine.close()
    with running_daemon(engine.paths.directory) as daemon, connect(directory=engine.paths.directory) as store:
        assert store._connection.remote is not None
        daemon.kill()
        with Lock(engine.paths.local("lock"), 60), pytest.raises(BusyError) as busy:
            store.create(Prd(title="T"))
        assert busy.value.applied == "unknown"


def test_changes_outlast_a_lock(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who has the lock for longer than anybody waits ends no iteration: what changed is told afterwards."""
    monkeypatch.setattr(Lock.__init__, "__defaults__", (0.01, None))
    with Store.open(directory=directory) as store, store.changes() as changes:
        with Lock(Paths(directory).local("lock"), 60), open(f"{directory}/prds.jsonl", "a", encoding="utf-8") as log:
            log.write('{"id":"x","title":"by hand","updated_at":5}\n')
            log.flush()
            with pytest.raises(BusyError):
                store.get(Prd, "x")
            changes._changes._wait()
            assert not changes._changes._tracker.waiting
        assert next(event.id for event in changes if isinstance(event, Changed)) == "x"


def test_changes_that_fit(store: Store) -> None:
    """Only changes that fit the filter are told, and deletions; a filter that makes no sense is refused at once."""
    with store.changes(kinds=["prd"], where={"status": "active"}) as changes:
        store.create(Prd(id="x", title="1"))
        store.create(Prd(id="y", title="2", status=PrdStatus.ACTIVE))
        store.delete(Prd, "x")
        events = iter(changes)
        assert [seen(events)[:2], seen(events)[:2]] == [("create", "y"), ("delete", "x")]
    with pytest.raises(InvalidError), store.changes(kinds=["prd"], where={"status": "nope"}):
        pass
    with pytest.raises(InvalidError), store.changes(kinds=["nope"]):
        pass


def seen(events: Iterator[Any]) -> tuple[str, str, str | None]:
    event = next(events)
    assert isinstance(event, Changed)
    return event.op, event.id, event.record.title if isinstance(event.record, Prd) else None


def test_check_and_sync(store: Store) -> None:
    """A sound store has no problems; a circle that came by import is found."""
    assert store.check() == []
    store.apply([Import(TaskSpec, {"id": key, "prd_id": "p", "phase_name": "N", "updated_at": 5, "status": "pending",
                                   "depends_on": [need]}) for key, need in (("a", "b"), ("b", "a"))])
    assert [problem["problem"] for problem in store.check() if problem["severity"] != "note"] == ["circle"]
    with pytest.raises(InvalidError, match="circle"):
        store.update(TaskSpec, "a", depends_on=["b"])
    assert store.sync(full=True)["parsed"] == 2
