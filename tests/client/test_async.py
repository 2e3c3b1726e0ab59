"""The asynchronous client, under trio and under asyncio, without a daemon and with one."""

import contextlib
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.client.test_connection import Clock, Relay, titles
from tests.daemons import private_folder, running_daemon

from taskstore import (
    AsyncStore,
    BusyError,
    Changed,
    Claim,
    Create,
    Delete,
    Dependency,
    DependencyType,
    Execution,
    InvalidError,
    NotFoundError,
    Prd,
    RepoState,
    Resync,
    Store,
    TaskSpec,
    TaskStoreError,
    Update,
    Workflow,
    connect,
    connect_async,
)
from taskstore.async_changes import AsyncChanges
from taskstore.interface import Interface
from taskstore.lookout import Lookout
from taskstore_core.lock import Lock
from taskstore_core.paths import Paths
from taskstore_core.sockets import socket_path
from taskstore_core.store import Store as Engine

if TYPE_CHECKING:
    import subprocess

PATIENCE_S = 60


@pytest.fixture(params=["trio", "asyncio"])
def backend(request: pytest.FixtureRequest) -> str:
    """What runs the tasks."""
    return str(request.param)


def empty(folder: Path) -> str:
    engine, _ = Engine.create(directory=os.fspath(folder / ".taskstore"))
    engine.close()
    return engine.paths.directory


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """An empty store without a daemon."""
    return empty(tmp_path)


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A runtime folder that no daemon listens in."""
    with private_folder() as folder:
        yield Path(folder)


@pytest.fixture(params=["files", "daemon"])
def directory(request: pytest.FixtureRequest, bare: str) -> Iterator[str]:
    """An empty store, without a daemon and with one."""
    with running_daemon(bare) if request.param == "daemon" else contextlib.nullcontext():
        yield bare


def run(backend: str, directory: str, work: Callable[[AsyncStore], Awaitable[Any]]) -> Any:
    """What `work` makes of a store in time."""
    async def main() -> Any:
        with anyio.fail_after(PATIENCE_S):
            async with connect_async(directory=directory) as store:
                return await work(store)

    return anyio.run(main, backend=backend)


async def link_of(store: AsyncStore) -> object:
    return await store._connection.link()


# The same as the synchronous one


def given(*arguments: object, **named: object) -> Callable[[dict[str, Any]], tuple[Any, Any]]:
    """Arguments that are known beforehand."""
    return lambda _: (arguments, named)


def claimed(key: str, **named: object) -> Callable[[dict[str, Any]], tuple[Any, Any]]:
    """A claim that was made earlier."""
    return lambda seen: ((seen[key],), named)


KINDS: list[tuple[str, str, str, object, dict[str, object]]] = [
    ("prd", "prds", "n1", Prd(id="n1", title="T", extra={"odd": 1.5}), {"title": "U"}),
    ("task_spec", "task_specs", "n2", TaskSpec(id="n2", prd_id="n1", phase_name="N"), {"status": "failed"}),
    ("execution", "executions", "n3", Execution(id="n3", ts_id="n2"), {"iteration_count": 3}),
    ("dependency", "dependencies", "n4", Dependency(id="n4", from_exec_id="a", to_exec_id="b",
                                                    dependency_type=DependencyType.QUERY), {"payload": "x"}),
    ("workflow", "workflows", "n5", Workflow(id="n5", name="N"), {"awl_code": "x"}),
    ("repo_state", "repo_states", "/r", RepoState(repo_path="/r", last_synced_commit=""), {"last_synced_commit": "c"}),
]
STEPS = [
    ("create", given(Prd(id="p", title="T"))),
    ("create", given(Prd(id="p", title="again"))),
    ("create", given(Prd(id="q", title="T", review_passes=-1))),
    ("create", given(Prd(id="o", title="once"), op="op-1")),
    ("create", given(Prd(id="o", title="once"), op="op-1")),
    ("get", given(Prd, "p")),
    ("get", given(Prd, "nope")),
    ("update", given(Prd, "p", title="U", odd=[1.5])),
    ("update", given(Prd, "p", title="V", if_updated_at=1)),
    ("update", given(Prd, "p", status="odd")),
    ("delete", given(Prd, "p")),
    ("restore", given(Prd, "p")),
    ("restore", given(Prd, "p")),
    ("history", given(Prd, "p")),
    ("apply", given([Create(TaskSpec(id=f"t{n}", prd_id="p", phase_name=f"phase {n}", created_at=n,
                                     depends_on=["t1"] if n == 4 else [])) for n in range(1, 6)])),
    ("apply", given([Update(Prd, "p", title="W"), Create(Prd(id="p", title="T")), Delete(Prd, "p")])),
    ("list", given(TaskSpec, {"created_at": {"gt": 2}}, order="-id", limit=2)),
    ("list", given(TaskSpec, odd="1")),
    ("page", given(TaskSpec, limit=2, order="id")),
    ("page", lambda seen: ((TaskSpec,), {"limit": 2, "order": "id", "cursor": seen["page"].cursor})),
    ("ready", given("p", limit=3)),
    ("claim", given("t1", by="ann", op="op-2")),
    ("claim", given("t1", by="bob")),
    ("claim", given(by="ann", prd_id="none")),
    ("heartbeat", lambda seen: ((seen["claim t1"],), {"lease_ms": 60_000})),
    ("complete", claimed("claim t1")),
    ("complete", claimed("claim t1")),
    ("claim", given("t2", by="ann")),
    ("fail", claimed("claim t2")),
    ("claim", given("t3", by="ann")),
    ("release", claimed("claim t3")),
    ("create", given(Dependency(id="d", from_exec_id="a", to_exec_id="b", dependency_type=DependencyType.NOTIFY))),
    ("wait_dependency", given("d", timeout_ms=0)),
    ("wait_dependency", given("d", timeout_ms=-1)),
    ("wait_dependency", given("d", timeout_ms="soon")),
    ("wait_dependency", given("nope")),
    ("resolve_dependency", given("d", "here")),
    ("resolve_dependency", given("d")),
    ("wait_dependency", given("d")),
    *((f"{verb}_{plural if verb == 'list' else name}", given(*arguments, **named))
      for name, plural, key, record, changes in KINDS for verb, arguments, named in (
          ("create", (record,), {}), ("get", (key,), {}), ("update", (key,), changes), ("list", (), {}),
          ("delete", (key,), {}), ("get", (key,), {}))),
    ("list_task_specs", given("p", status="failed")),
    ("list_executions", given("n2")),
    ("stats", given()),
    ("check", given()), ("resolve_conflicts", given()), ("recover", given()), ("recover", given("none")),
    ("compact", given(keep=0)),  # a refusal: what may be dropped differs, as only one of them gives its writes an `op`
    ("sync", given(full=True)),
]
FLEETING = re.compile(r"\b1\d{12}\b|'[0-9a-f]{16}'|'took_ms': [\d.]+")
"""Times and tokens."""


def outcome(answer: object) -> str:
    """An answer or an error in full, but for what differs each time."""
    if isinstance(answer, TaskStoreError):
        answer = type(answer), answer.message, answer.hint, answer.field, answer.applied, answer.operation
    elif isinstance(answer, Claim):
        answer = answer.id, answer.by, answer.token, answer.spec
    elif isinstance(answer, list) and answer and type(answer[0]).__name__ == "Version":
        answer = [(version.updated_at, version.record) for version in answer]
    elif type(answer).__name__ == "Page":
        answer = answer.items, answer.cursor  # type: ignore[attr-defined]
    return f"{type(answer).__name__} {FLEETING.sub('…', repr(answer))}"


def keep(seen: dict[str, Any], name: str, answer: Any) -> str:
    if isinstance(answer, Claim):
        seen[f"claim {answer.id}"] = answer
    seen.setdefault(name, answer)
    return f"{name}: {outcome(answer)}"


def waited_for(store: Store) -> list[str]:
    seen: dict[str, Any] = {}
    said = []
    for name, make in STEPS:
        arguments, named = make(seen)
        try:
            answer = getattr(store, name)(*arguments, **named)
        except TaskStoreError as error:
            answer = error
        said.append(keep(seen, name, answer))
    return said


async def awaited(store: AsyncStore) -> list[str]:
    seen: dict[str, Any] = {}
    said = []
    for name, make in STEPS:
        arguments, named = make(seen)
        try:
            answer = await getattr(store, name)(*arguments, **named)
        except TaskStoreError as error:
            answer = error
        said.append(keep(seen, name, answer))
    return said


def test_every_call_is_that_of_the_synchronous_client(backend: str, directory: str, tmp_path: Path) -> None:
    """Each call, with each sort of error, ends as it does in `Store`: the same types, values, messages and fields."""
    assert {name for name, _ in STEPS} == {name for name in vars(Interface) if not name.startswith("_")}
    with connect(directory=empty(tmp_path / "twin"), daemon=False) as store:
        expected = waited_for(store)
    assert run(backend, directory, awaited) == expected
    kinds = [kind for kind in ("Exists", "NotFound", "Conflict", "Invalid") if f"{kind}Error" not in str(expected)]
    assert kinds == []


def test_an_error_leaves_the_block_as_it_is(backend: str, directory: str) -> None:
    """What is raised in the block of `connect_async` comes out of it as it is, not in a group."""
    async def work(store: AsyncStore) -> None:
        await store.get(Prd, "nope")

    with pytest.raises(NotFoundError, match="nope"):
        run(backend, directory, work)


def test_the_block_can_be_cancelled(backend: str, directory: str) -> None:
    """Cancelling whoever holds the store ends it, also in the middle of a wait."""
    async def main() -> bool:
        with anyio.CancelScope() as scope:
            async with connect_async(directory=directory) as store, anyio.create_task_group() as tasks:
                await depend(store)
                tasks.start_soon(store.wait_dependency, "d")
                await store.stats()
                scope.cancel()
        return scope.cancelled_caught

    assert anyio.run(main, backend=backend)


# Sharing


async def depend(store: AsyncStore) -> None:
    await store.create(Dependency(id="d", from_exec_id="a", to_exec_id="b", dependency_type=DependencyType.QUERY))


def test_tasks_share_a_connection(backend: str, directory: str) -> None:
    """Of many tasks on one store each gets its own answers: every task spec is claimed, held and completed by one."""
    async def agent(store: AsyncStore, name: str, done: list[tuple[str, str]]) -> None:
        while (claim := await store.claim(by=name)) is not None:
            assert await store.heartbeat(claim) > claim.spec.updated_at
            assert (await store.get(TaskSpec, claim.id)).assigned_to == claim.by == name
            await store.complete(claim)
            done.append((claim.id, name))

    async def work(store: AsyncStore) -> list[tuple[str, str]]:
        await store.apply([Create(TaskSpec(id=f"t{n}", prd_id="p", phase_name="N")) for n in range(40)])
        done: list[tuple[str, str]] = []
        link = await link_of(store)
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(agent, store, f"agent-{number}", done)
        assert await link_of(store) is link
        return done

    done = run(backend, directory, work)
    assert sorted(key for key, _ in done) == sorted(f"t{n}" for n in range(40))
    assert len({name for _, name in done}) > 1


def test_a_wait_keeps_nobody(backend: str, directory: str) -> None:
    """While one task waits for a dependency another resolves it, on the same store."""
    async def work(store: AsyncStore) -> None:
        await depend(store)
        found: list[Dependency] = []

        async def wait() -> None:
            found.append(await store.wait_dependency("d"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await store.stats()
            await store.resolve_dependency("d", "here")
        assert [one.payload for one in found] == ["here"]

    run(backend, directory, work)


def test_cancelled_waits_leave_nothing(backend: str, directory: str) -> None:
    """However many waits are cancelled, the connection is as good as before, and the daemon does not wait on."""
    async def work(store: AsyncStore) -> None:
        await depend(store)
        link = await link_of(store)
        for _ in range(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(300):  # of 1,024 that may wait on a connection at once
                    tasks.start_soon(store.wait_dependency, "d")
                await anyio.lowlevel.checkpoint()
                await store.stats()  # is answered after the daemon has taken them
                tasks.cancel_scope.cancel()
        assert (await store.wait_dependency("d", timeout_ms=0)).resolved_at is None
        assert await link_of(store) is link

    run(backend, directory, work)


def test_a_call_cancelled_while_it_is_sent(backend: str, bare: str) -> None:
    """A task that gives up on a daemon that reads nothing is let go at once, and its frame does not spoil the next."""
    async def work(store: AsyncStore, daemon: "subprocess.Popen[bytes]") -> None:
        link = await link_of(store)
        daemon.send_signal(signal.SIGSTOP)
        try:
            with anyio.move_on_after(0.1) as scope:
                await store.create(Prd(id="long", title="T", content="x" * 2_000_000))
            assert scope.cancelled_caught
        finally:
            daemon.send_signal(signal.SIGCONT)
        assert (await store.create(Prd(id="next", title="T"))).id == "next"
        assert await link_of(store) is link

    with running_daemon(bare) as daemon:
        run(backend, bare, lambda store: work(store, daemon))


def test_what_no_frame_holds(backend: str, directory: str) -> None:
    """What is too large for a frame goes past the daemon, and ends as it does there; the connection stays as it is."""
    content = "x" * 4_190_000

    async def work(store: AsyncStore) -> None:
        link = await link_of(store)
        await store.create(Prd(id="long", title="T", content=content))
        assert (await store.get(Prd, "long")).content == content
        with pytest.raises(InvalidError, match="a record may have"):
            await store.create(Prd(id="longer", title="T", content=3 * content))
        await store.apply([Create(Prd(id=f"p{n}", title="T", content=content[:900_000])) for n in range(10)])
        assert (await store.stats())["prd"]["records"] == 11
        assert await link_of(store) is link

    run(backend, directory, work)


def test_what_the_daemon_cannot_read(backend: str, directory: str) -> None:
    """What is too deep for the daemon to say whose it is, is refused as by the files; a wait beside it goes on."""
    async def work(store: AsyncStore) -> None:
        deep: object = 1
        for _ in range(100):
            deep = [deep]
        await depend(store)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.wait_dependency, "d")
            with pytest.raises(InvalidError, match="nested more than 64 levels deep"):
                await store.create(Prd(id="deep", title="T", extra={"odd": deep}))
            await store.resolve_dependency("d")

    run(backend, directory, work)


# Daemons that come and go


def test_a_write_whose_answer_was_lost_happens_once(backend: str, bare: str, runtime: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """A create whose answer gets lost on the way is sent again by itself, and stands there once."""
    async def work(store: AsyncStore) -> None:
        made = await store.create(Prd(title="once"))
        assert (await store.get(Prd, made.id)).title == "once"
        assert await link_of(store) is not None

    with running_daemon(bare):
        there = socket_path(bare, os.environ)
        monkeypatch.setenv("XDG_RUNTIME_DIR", os.fspath(runtime))
        relay = Relay(socket_path(bare, os.environ), there)
        run(backend, bare, work)
    assert relay.cut == 1
    assert titles(bare) == ["once"]


def test_a_daemon_that_is_killed_at_work(backend: str, bare: str) -> None:
    """When the daemon is killed under tasks that write, each goes on with the files; no write is lost or doubled."""
    async def writer(store: AsyncStore, name: str, half: anyio.Event, turned: anyio.Event) -> None:
        for number in range(20):
            await store.create(Prd(title=f"{name}-{number:02}"))
            if number == 10 and not half.is_set():
                half.set()
        await turned.wait()

    async def work(store: AsyncStore, daemon: "subprocess.Popen[bytes]") -> None:
        half, turned = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as tasks:
            for name in "abcd":
                tasks.start_soon(writer, store, name, half, turned)
            await half.wait()
            assert await link_of(store) is not None
            daemon.kill()
            daemon.wait()
            await store.stats()
            assert await link_of(store) is None
            turned.set()

    with running_daemon(bare) as daemon:
        run(backend, bare, lambda store: work(store, daemon))
    assert titles(bare) == [f"{name}-{number:02}" for name in "abcd" for number in range(20)]


def test_a_daemon_that_is_replaced(backend: str, bare: str) -> None:
    """When its daemon was replaced by another, a store goes on with that one at once."""
    async def work(store: AsyncStore) -> None:
        store._connection._lookout = Lookout(store._connection.paths, Clock())
        for title in "12":
            with running_daemon(bare):
                await store.create(Prd(title=title))
                assert await link_of(store) is not None

    run(backend, bare, work)
    assert titles(bare) == ["1", "2"]


def test_a_daemon_that_comes_later_is_used(backend: str, bare: str) -> None:
    """A store that began without a daemon, or lost it, uses the next one soon after that has come."""
    async def work(store: AsyncStore) -> None:
        await store.create(Prd(id="p", title="by the files"))
        assert await link_of(store) is None
        for _ in range(2):
            with running_daemon(bare) as daemon:
                while await link_of(store) is None:
                    assert (await store.get(Prd, "p")).title == "by the files"
                daemon.kill()
                daemon.wait()
                assert (await store.get(Prd, "p")).title == "by the files"

    run(backend, bare, work)


# Changes


def is_told(changes: AsyncChanges) -> bool:
    """Whether a daemon tells it."""
    return changes._link is not None


def test_what_a_lost_daemon_did_is_unknown(backend: str, bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that a daemon may have taken before it was killed, and that cannot be repeated, is not called undone."""
    monkeypatch.setattr(Lock.__init__, "__defaults__", (0.01, None))

    async def work(store: AsyncStore) -> None:
        assert await link_of(store) is not None
        daemon.kill()
        with Lock(Paths(bare).local("lock"), 60), pytest.raises(BusyError) as busy:
            await store.create(Prd(title="T"))
        assert busy.value.applied == "unknown"

    with running_daemon(bare) as daemon:
        run(backend, bare, work)


def test_changes_outlast_a_lock(backend: str, bare: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who has the lock for longer than anybody waits ends no iteration: what changed is told afterwards."""
    monkeypatch.setattr(Lock.__init__, "__defaults__", (0.01, None))

    async def work(store: AsyncStore) -> None:
        async with store.changes() as changes:
            with Lock(Paths(bare).local("lock"), 60), open(f"{bare}/prds.jsonl", "a", encoding="utf-8") as log:  # noqa: ASYNC230 - a line
                log.write('{"id":"x","title":"by hand","updated_at":5}\n')
                log.flush()
                await changes._wait()
                assert not changes._tracker.waiting
            event = await anext(changes)
            assert isinstance(event, Changed)
            assert event.id == "x"

    run(backend, bare, work)


def test_changes_are_told_as_they_happen(backend: str, directory: str) -> None:
    """Changes by this store and by others are told in order, typed, and once more from a cursor on."""
    async def work(store: AsyncStore) -> None:
        async with store.changes(kinds=["prd"]) as changes:
            begin = changes.cursor
            await store.create(Prd(id="x", title="1"))
            await store.create(TaskSpec(id="t", prd_id="x", phase_name="N"))
            with Store.open(directory=directory) as files:
                files.update(Prd, "x", title="2")
                files.delete(Prd, "x")
            told = []
            async for event in changes:
                assert isinstance(event, Changed)
                told.append((event.op, event.id))
                if event.op == "delete":
                    break
            assert told[-1] == ("delete", "x")
            assert {key for _, key in told} == {"x"}
        async with store.changes(since=begin) as changes:
            event = await anext(changes)
            assert isinstance(event, Changed)
            assert (event.op, event.id) == ("create", "t")
        async with store.changes(since="other:1") as changes:
            assert isinstance(await anext(changes), Resync)

    run(backend, directory, work)


def test_changes_that_fit(backend: str, directory: str) -> None:
    """Only what fits the filter is told; a filter that makes no sense is refused at once, and harms nobody."""
    async def work(store: AsyncStore) -> None:
        async with store.changes(kinds=["prd"], where={"status": "active"}) as changes:
            await store.create(Prd(id="x", title="1"))
            await store.create(Prd(id="y", title="2", status="active"))  # type: ignore[arg-type]
            event = await anext(changes)
            assert isinstance(event, Changed)
            assert event.id == "y"
        for kinds, where in ((["prd"], {"status": "nope"}), (["nope"], None)):
            with pytest.raises(TaskStoreError) as caught:
                async with store.changes(kinds=kinds, where=where):
                    pass
            assert caught.value.kind == "invalid"
        assert (await store.get(Prd, "x")).title == "1"

    run(backend, directory, work)


def test_changes_can_be_waited_for_in_vain(backend: str, directory: str) -> None:
    """Whoever gives up waiting for the next change, time and again, misses none."""
    async def work(store: AsyncStore) -> None:
        seen: list[str] = []
        async with store.changes() as changes:
            for number in range(30):
                await store.create(Prd(id=f"p{number:02}", title="T"))
                with anyio.move_on_after(number / 10_000):
                    while True:
                        event = await anext(changes)
                        assert isinstance(event, Changed)
                        seen.append(event.id)
            while len(seen) < 30:
                event = await anext(changes)
                assert isinstance(event, Changed)
                seen.append(event.id)
        assert seen == [f"p{number:02}" for number in range(30)]

    run(backend, directory, work)


def test_nobody_has_to_take_what_is_told(backend: str, directory: str) -> None:
    """One who hears of changes and takes none keeps nobody, and can be closed."""
    async def work(store: AsyncStore) -> None:
        async with store.changes():
            for number in range(200):
                await store.create(Prd(id=f"p{number}", title="T"))
        assert (await store.stats())["prd"]["records"] == 200

    run(backend, directory, work)


def test_changes_go_on_with_the_next_daemon(backend: str, bare: str) -> None:
    """When daemons are killed and replaced, with and without a time in between, every change is told once, in order."""
    written = 0

    def write(count: int) -> None:
        nonlocal written
        with Store.open(directory=bare) as files:
            for number in range(written, written + count):
                files.create(Prd(id=f"p{number:03}", title="T"))
        written += count

    async def work(store: AsyncStore) -> list[str]:
        seen: list[str] = []

        async def read_to(count: int) -> None:
            while len(seen) < count:
                event = await anext(changes)
                assert isinstance(event, Changed), event
                seen.append(event.id)

        def kill() -> None:
            daemon.kill()
            daemon.wait()

        with contextlib.ExitStack() as stack:
            daemon = stack.enter_context(running_daemon(bare))
            async with store.changes() as changes:
                assert is_told(changes)
                write(30)
                await read_to(10)
                kill()
                write(10)
                await read_to(35)  # some by the files
                daemon = stack.enter_context(running_daemon(bare))
                while not is_told(changes):
                    write(1)
                    await read_to(written)
                write(30)
                await read_to(written - 20)
                kill()
                daemon = stack.enter_context(running_daemon(bare))
                write(10)
                await read_to(written)
                while not is_told(changes):
                    write(1)
                    await read_to(written)
        return seen

    assert run(backend, bare, work) == [f"p{number:03}" for number in range(written)]
