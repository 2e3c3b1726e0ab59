"""`dependency.wait`: answered when the dependency is resolved, whoever does it, or at the timeout."""

import json
from collections.abc import Callable

import pytest
import trio
from tests.conftest import Site
from tests.daemon.conftest import Client, RpcError, Serving, append, written_directly
from trio.testing import MockClock, wait_all_tasks_blocked

from taskstore_core.kinds import Kind


@pytest.fixture
async def waiting(serving: Serving, client: Client) -> Client:
    """A connection that waits for the dependency `dep-1`, with id 1."""
    await client.create("dependency", id="dep-1")
    made = await serving.connect()
    await made.send(made.request("dependency.wait", id="dep-1"))
    await somebody_waits(serving)
    return made


async def somebody_waits(serving: Serving) -> None:
    """Return when a wait has begun, and has looked."""
    while not serving.server.publisher.waits:
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked(0.005)


async def test_resolved(client: Client, waiting: Client) -> None:
    """Whoever waits hears of the resolution, with its payload."""
    await client.call("dependency.resolve", id="dep-1", payload="p")
    answer = await waiting.receive()
    assert (answer["id"], answer["result"]["payload"]) == (1, "p")
    assert answer["result"]["resolved_at"]


async def test_resolved_already(client: Client) -> None:
    """A dependency that is resolved already, or is by the call before, is answered at once, also by a prefix."""
    await client.create("dependency", id="dep-1")
    _, wait, prefix = await client.ask(client.request("dependency.resolve", id="dep-1"),
                                       client.request("dependency.wait", id="dep-1"),
                                       client.request("dependency.wait", id="dep"))
    assert wait["result"] == prefix["result"]
    assert wait["result"]["resolved_at"]


async def test_resolved_by_another_process(site: Site, waiting: Client) -> None:
    """A resolution that another process writes past the daemon is heard of, too."""
    with written_directly(site) as call:
        call("dependency.resolve", id="dep-1", payload="p")
    assert (await waiting.receive())["result"]["payload"] == "p"


async def test_resolved_by_git(site: Site, serving: Serving, client: Client, git: Callable[..., str]) -> None:
    """A resolution that arrives with a checkout is heard of, too."""
    git("checkout", "-qb", "resolved")
    record = {"id": "d", "from_exec_id": "a", "to_exec_id": "b", "dependency_type": "query", "created_at": 1}
    append(site.log("dependency"), **record, resolved_at=2)
    git("commit", "-qam", "resolved")
    git("checkout", "-q", "main")
    append(site.log("dependency"), **record)
    git("commit", "-qam", "not resolved")
    await client.send(client.request("dependency.wait", id="d"))
    await somebody_waits(serving)
    git("checkout", "-q", "resolved")
    assert (await client.receive())["result"]["resolved_at"] == 2


async def test_cache_lost(site: Site, client: Client, waiting: Client) -> None:
    """Who waits goes on waiting when the cache is made anew."""
    site.lose_cache()
    await client.create()
    await client.call("dependency.resolve", id="dep-1")
    assert (await waiting.receive())["result"]["resolved_at"]


async def test_other_changes(serving: Serving, client: Client, waiting: Client,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is not woken by what is no business of theirs, and nothing spins meanwhile."""
    await client.create()  # the first change after nobody listened may have been anything
    await wait_all_tasks_blocked(0.005)
    reads: list[object] = []
    real = serving.server.engine.store.get

    def get(kind: Kind, key: str) -> str:
        reads.append(key)
        return real(kind, key)

    monkeypatch.setattr(serving.server.engine.store, "get", get)
    for _ in range(10):
        await client.create()
    await client.create("dependency", id="dep-2")
    await client.call("dependency.resolve", id="dep-2")
    await wait_all_tasks_blocked()
    assert reads == []
    await client.call("record.update", kind="dependency", id="dep-1", set={"n": 1})
    await wait_all_tasks_blocked()
    assert reads == ["dep-1"]
    await client.call("dependency.resolve", id="dep-1")
    assert (await waiting.receive())["result"]["n"] == 1


async def test_many(serving: Serving, client: Client) -> None:
    """Many wait for one dependency, from many connections and on one, and each is answered."""
    await client.create("dependency", id="d")
    others = [await serving.connect() for _ in range(20)]
    for other in others:
        await other.send(*[other.request("dependency.wait", id="d") for _ in range(20)])
    await wait_all_tasks_blocked()
    await client.call("dependency.resolve", id="d")
    for other in others:
        assert {(await other.receive())["id"] for _ in range(20)} == set(range(1, 21))
    assert not serving.server.publisher.waits


async def test_timeout(mock_clock: MockClock, unwatched: Serving) -> None:
    """At the timeout, or at once where that is 0, the dependency is answered as it is."""
    client = await unwatched.connect()
    await client.create("dependency", id="d")
    assert (await client.call("dependency.wait", id="d", timeout_ms=0)).get("resolved_at") is None
    await client.send(client.request("dependency.wait", id="d", timeout_ms=5000))
    await wait_all_tasks_blocked()
    mock_clock.jump(4.9)
    await client.call("record.update", kind="dependency", id="d", set={"n": 1})
    await wait_all_tasks_blocked()
    assert unwatched.server.publisher.waits
    mock_clock.jump(0.2)
    assert (await client.receive())["result"]["n"] == 1
    assert not unwatched.server.publisher.waits
    with pytest.raises(RpcError) as refused:
        await client.call("dependency.wait", id="d", timeout_ms=-1)
    assert refused.value.data["field"] == "timeout_ms"


async def test_deleted(client: Client, waiting: Client) -> None:
    """A dependency that is deleted, or was never there, is an error to who waits for it."""
    await client.call("record.delete", kind="dependency", id="dep-1")
    assert (await waiting.receive())["error"]["data"]["kind"] == "not_found"
    with pytest.raises(RpcError) as refused:
        await client.call("dependency.wait", id="no such")
    assert refused.value.data["kind"] == "not_found"


async def test_vanished(serving: Serving, client: Client, waiting: Client) -> None:
    """Nobody is waited for who has gone."""
    await waiting.aclose()
    while serving.server.publisher.waits:
        await trio.lowlevel.checkpoint()
    assert await client.call("dependency.resolve", id="dep-1")


async def test_in_a_batch(serving: Serving, client: Client) -> None:
    """A batch is answered when the last wait in it is."""
    await client.create("dependency", id="d")
    other = await serving.connect()
    await other.send([other.request("hello"), other.request("dependency.wait", id="d")])
    await wait_all_tasks_blocked()
    await client.call("dependency.resolve", id="d")
    batch = await other.receive()
    assert [one["id"] for one in batch] == [1, 2]
    assert json.dumps(batch[1]["result"]["resolved_at"])
