"""Cancelling at every checkpoint of the write path: what was asked is done or not done, and the daemon goes on."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
from tests.conftest import Site
from tests.daemon.conftest import Client, Serving
from trio.testing import wait_all_tasks_blocked

from taskstore_core.lock import Lock

WAYS = {"on the loop": (0, False), "in a thread": (1 << 17, False), "behind a lock": (0, True)}
"""How a write is carried out, as (bytes of padding, whether another process has the store's lock at first)."""
COMMITTER = "taskstore_daemon.committer.Committer.run"
PARTS = (COMMITTER, "taskstore_daemon.server.Server._serve", "taskstore_daemon.session")
"""The tasks that a write passes through."""
MANY = 400


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at the step `at` of the tasks that count.

    Just before it, so that the task's next checkpoint is cancelled when it is reached; or, `parked`, just after it,
    so that what the task has begun to wait for is (or, for a thread, goes on behind a cancelled task).
    """

    def __init__(self, at: int, counts: "Callable[[trio.lowlevel.Task], bool]", scope: trio.CancelScope, *,
                 parked: bool) -> None:
        self._left = at
        self._counts = counts
        self._scope = scope
        self._parked = parked
        self.fired = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step that begins."""
        if not self._parked:
            self._count(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step that is over."""
        if self._parked:
            self._count(task)

    def _count(self, task: trio.lowlevel.Task) -> None:
        if not self.fired and self._counts(task):
            self._left -= 1
            if self._left <= 0:
                self.fired = True
                self._scope.cancel()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Counts while it lasts."""
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)


async def write(client: Client, name: str, padding: int, *, behind: bool) -> bool:
    """Ask for two records that come together, alone or `behind` a batch; whether they were answered."""
    apply = client.request("store.apply", ops=[
        {"op": "create", "kind": kind, "record": {"title": "t", "name": "w", "id": name, "content": "c" * padding}}
        for kind in ("prd", "workflow")])
    received = b""
    with contextlib.suppress(trio.BrokenResourceError):
        await client.send(*[[client.request("hello")]] * behind, apply)
        while data := await client.stream.receive_some():
            received += data
            *lines, _ = received.split(b"\n")
            if any(line.startswith(b'{"jsonrpc":"2.0","id":%d,"result"' % apply["id"]) for line in lines):
                return True
    return False


def assert_whole(site: Site, answered: list[str]) -> None:
    """Of the two records there are both or none, and both of what was answered."""
    found = [set(site.ids(kind)) for kind in ("prd", "workflow")]
    assert found[0] == found[1]
    assert set(answered) <= found[0]


@contextlib.asynccontextmanager
async def in_the_way(serving: Serving, cancel: CancelAt, *, locked: bool) -> AsyncIterator[None]:
    """If `locked`, another has the store's lock until the committer waits for it, or is cancelled on the way there."""
    if not locked:
        yield
        return
    lock = Lock(os.fspath(serving.site.private / "lock"), 0)
    lock.__enter__()

    async def let_go() -> None:
        while not (serving.server.committer.waiting or cancel.fired):
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        lock.__exit__(None, None, None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        yield


def each_way(test: Callable[..., object]) -> Callable[..., object]:
    for name, values in (("behind", [False, True]), ("parked", [False, True]), ("way", list(WAYS))):
        test = pytest.mark.parametrize(name, values)(test)
    return test


@each_way
async def test_connection(serving: Serving, client: Client, way: str, behind: bool, parked: bool) -> None:
    """A connection that is cancelled at any step leaves both records or none, and the others are served."""
    padding, locked = WAYS[way]
    await client.create("task_spec")
    answered: list[str] = []
    for step in range(1, MANY):
        others = set(serving.server._sessions)
        victim = await serving.connect()
        await victim.call("hello")
        (session,) = serving.server._sessions - others
        nursery = session._nursery
        assert nursery is not None
        tasks = {nursery.parent_task}

        def counts(task: trio.lowlevel.Task, nursery: trio.Nursery = nursery,
                   tasks: set[trio.lowlevel.Task] = tasks) -> bool:
            return task in tasks or task.parent_nursery is nursery or task.name.startswith(COMMITTER)

        cancel = CancelAt(step, counts, nursery.cancel_scope, parked=parked)
        async with in_the_way(serving, cancel, locked=locked):
            with cancel.installed():
                if await write(victim, f"x{step}", padding, behind=behind):
                    answered.append(f"x{step}")
        await victim.aclose()
        await client.create("task_spec")
        if not cancel.fired:
            break
    assert f"x{step}" in answered
    assert 1 < step < MANY - 1
    assert_whole(serving.site, answered)


@each_way
async def test_server(site: Site, way: str, behind: bool, parked: bool) -> None:
    """A server that is cancelled as a whole at any step leaves both records or none, and the next one goes on."""
    padding, locked = WAYS[way]
    answered: list[str] = []
    for step in range(1, MANY):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                serving = Serving(site, nursery, use_inotify=False)
                await serving.start()
                victim = await serving.connect()
                await victim.call("hello")
                cancel = CancelAt(step, lambda task: task.name.startswith(PARTS), nursery.cancel_scope, parked=parked)
                with trio.CancelScope(shield=True):
                    async with in_the_way(serving, cancel, locked=locked):
                        with cancel.installed():
                            if await write(victim, f"x{step}", padding, behind=behind):
                                answered.append(f"x{step}")
                    await victim.aclose()
                nursery.cancel_scope.cancel()
        assert_whole(site, answered)
        if not cancel.fired:
            break
    assert f"x{step}" in answered
    assert 1 < step < MANY - 1
