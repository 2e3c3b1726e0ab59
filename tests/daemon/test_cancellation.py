"""Cancelling at every checkpoint of the write path: what was asked is done or not done, and the daemon goes on."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import trio
from tests.conftest import Site
from tests.daemon.conftest import Client, Serving

PADDING = {"on the loop": 0, "in a thread": 1 << 17}


class CancelAt(trio.abc.Instrument):
    """Cancels a scope just before the step `at` of the tasks that count."""

    def __init__(self, at: int, counts: "Callable[[trio.lowlevel.Task], bool]", scope: trio.CancelScope) -> None:
        self._left = at
        self._counts = counts
        self._scope = scope
        self.fired = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step."""
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


def behind_or_not(test: Callable[..., object]) -> Callable[..., object]:
    for name, values in (("behind", [False, True]), ("padding", PADDING.values())):
        test = pytest.mark.parametrize(name, values)(test)
    return test


@behind_or_not
async def test_connection(serving: Serving, client: Client, padding: int, behind: bool) -> None:
    """A connection that is cancelled at any step leaves both records or none, and the others are served."""
    await client.create("task_spec")
    answered: list[str] = []
    for step in range(1, 200):
        others = set(serving.server._sessions)
        victim = await serving.connect()
        await victim.call("hello")
        (session,) = serving.server._sessions - others
        nursery = session._nursery
        assert nursery is not None
        tasks = {nursery.parent_task}
        cancel = CancelAt(step, lambda task, nursery=nursery, tasks=tasks: task in tasks or (  # type: ignore[misc]
            task.parent_nursery is nursery), nursery.cancel_scope)
        with cancel.installed():
            if await write(victim, f"x{step}", padding, behind=behind):
                answered.append(f"x{step}")
        await victim.aclose()
        await client.create("task_spec")
        if not cancel.fired:
            break
    assert 1 < step < 199
    assert_whole(serving.site, answered)


@behind_or_not
async def test_server(site: Site, padding: int, behind: bool) -> None:
    """A server that is cancelled as a whole at any step leaves both records or none, and the next one goes on."""
    answered: list[str] = []
    for step in range(1, 300):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                serving = Serving(site, nursery, use_inotify=False)
                await serving.start()
                victim = await serving.connect()
                await victim.call("hello")
                cancel = CancelAt(step, lambda task: task.name.startswith(("taskstore_daemon.committer.Committer.run",
                                                                           "taskstore_daemon.server.Server._serve",
                                                                           "taskstore_daemon.session")),
                                  nursery.cancel_scope)
                with cancel.installed(), trio.CancelScope(shield=True):
                    if await write(victim, f"x{step}", padding, behind=behind):
                        answered.append(f"x{step}")
                    await victim.aclose()
                nursery.cancel_scope.cancel()
        assert_whole(site, answered)
        if not cancel.fired:
            break
    assert 1 < step < 299
