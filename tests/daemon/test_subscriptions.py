"""Subscriptions: every change once and in order, whoever made it, and nobody is held up by a slow reader."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import trio
from tests.conftest import Site
from tests.daemon.conftest import Client, RpcError, Serving, append, written_directly
from trio.testing import MockClock, wait_all_tasks_blocked

from taskstore_core import rpc
from taskstore_daemon import publisher


async def told(client: Client, count: int) -> list[tuple[str, str, str]]:
    """The next changes, as (kind, id, op)."""
    found: list[tuple[str, str, str]] = []
    while len(found) < count:
        found += [(one["kind"], one["id"], one["op"]) for one in (await client.event())["changes"]]
    assert len(found) == count, found
    return found


async def nothing_more(client: Client) -> None:
    """Nothing was sent that was not read."""
    await wait_all_tasks_blocked(publisher._PACE_S + 0.005)
    answer = client.request("hello")
    await client.send(answer)
    message = await client.receive()
    assert message.get("id") == answer["id"], message


@pytest.fixture
async def subscriber(serving: Serving) -> Client:
    """A connection that is told of every change."""
    made = await serving.connect()
    answer = await made.call("changes.subscribe")
    assert (answer["subscription"], answer["fresh"]) == (1, False)
    return made


async def test_paced(mock_clock: MockClock, unwatched: Serving) -> None:
    """The first change is told at once, and those that follow at its heels together, a moment later."""
    writer, subscriber = await unwatched.connect(), await unwatched.connect()
    await subscriber.call("changes.subscribe")
    await writer.create(id="x")
    assert await told(subscriber, 1) == [("prd", "x", "create")]
    for key in ("y", "z"):
        await writer.create(id=key)
        await wait_all_tasks_blocked()
    mock_clock.jump(publisher._PACE_S)
    assert [change["id"] for change in (await subscriber.event())["changes"]] == ["y", "z"]


async def test_changes(client: Client, subscriber: Client) -> None:
    """Creates, updates and deletes are told once and in order, with the record as it is, or null."""
    made = await client.create(id="x")
    event = await subscriber.event()
    assert event["subscription"] == 1
    assert event["changes"] == [{"kind": "prd", "id": "x", "op": "create", "record": made}]
    changed = await client.call("record.update", kind="prd", id="x", set={"n": 1})
    assert (await subscriber.event())["changes"] == [{"kind": "prd", "id": "x", "op": "update", "record": changed}]
    await client.call("record.delete", kind="prd", id="x")
    assert (await subscriber.event())["changes"] == [{"kind": "prd", "id": "x", "op": "delete", "record": None}]
    await client.call("store.apply", ops=[{"op": "create", "kind": "prd", "record": {"title": "t", "id": f"y{number}"}}
                                          for number in range(20)])
    assert await told(subscriber, 20) == [("prd", f"y{number}", "create") for number in range(20)]
    await nothing_more(subscriber)


async def test_before(client: Client, serving: Serving) -> None:
    """What happened before one subscribed is not told, even where nobody has been told of it yet."""
    for number in range(10):
        one = await serving.connect()
        await one.ask(one.request("record.create", kind="prd", record={"title": "t", "id": f"x{number}"}),
                      one.request("changes.subscribe"))
        await client.create(id=f"y{number}")
        assert await told(one, 1) == [("prd", f"y{number}", "create")]
        await nothing_more(one)
        await one.aclose()


async def test_answer_first(serving: Serving, client: Client) -> None:
    """The answer to `changes.subscribe` comes before its first event, also where much is to be told from the start."""
    cursor = (await client.call("changes.subscribe"))["cursor"]
    serving.site.seed(50)
    for _ in range(10):
        late = await serving.connect()
        await late.send(late.request("changes.subscribe", since=cursor), late.request("hello"))
        assert (await late.receive())["id"] == 1
        assert len({message["params"]["cursor"] for message in [await late.receive(), await late.receive()]
                    if "method" in message}) == 1


async def test_answer_first_in_a_batch(serving: Serving, client: Client) -> None:
    """Also where other calls of the same batch take longer."""
    cursor = (await client.call("changes.subscribe"))["cursor"]
    await client.create(id="x")
    late = await serving.connect()
    async with serving.server.engine._long:
        await late.send([late.request("changes.subscribe", since=cursor), late.request("store.stats")])
        await wait_all_tasks_blocked(0.005)
        assert not serving.server.publisher.subscriptions or not late._buffer
    assert [one["id"] for one in await late.receive()] == [1, 2]
    assert await told(late, 1) == [("prd", "x", "create")]


async def test_kinds(client: Client) -> None:
    """Only what was asked for is told: by kind, by a filter on what the record is now, and what is gone."""
    wanted: list[dict[str, Any]] = [{"kinds": ["task_spec"]}, {"kinds": ["prd"], "where": {"status": "ready"}},
                                    {"kinds": []}]
    for number, parameters in enumerate(wanted):
        assert (await client.call("changes.subscribe", **parameters))["subscription"] == number + 1
    await client.create(id="a")
    await client.create(id="b", status="ready")
    await client.create("task_spec", id="t")
    await client.call("record.delete", kind="prd", id="a")
    found: list[tuple[int, str, str]] = []
    while len(found) < 3:  # events, of which one may tell of several changes
        event = await client.event()
        found += [(event["subscription"], one["id"], one["op"]) for one in event["changes"]]
    assert sorted(found) == [(1, "t", "create"), (2, "a", "delete"), (2, "b", "create")]
    await nothing_more(client)


@pytest.mark.parametrize(("parameters", "field"), [
    ({"kinds": ["no such"]}, "kind"), ({"where": {"status": {"like": 1}}, "kinds": ["prd"]}, "status"),
    ({"since": "x"}, "since"), ({"since": "x:-1"}, "since"), ({"since": "x:" + "9" * 30}, "since"),
    ({"since": 7}, "since"), ({"kinds": "prd"}, "kinds"),
])
async def test_nonsense(client: Client, parameters: dict[str, Any], field: str) -> None:
    """What makes no sense is refused, and names the parameter."""
    with pytest.raises(RpcError) as refused:
        await client.call("changes.subscribe", **parameters)
    assert refused.value.data["kind"] == "invalid"
    assert refused.value.data.get("field") == field


async def test_resume(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any cursor that was given one hears everything after it and nothing twice, in pages, beside others."""
    monkeypatch.setattr(publisher, "_AT_ONCE", 7)
    first = await serving.connect()
    cursors = [(await first.call("changes.subscribe"))["cursor"]]
    for number in range(40):
        await client.create(id=f"x{number}")
        cursors.append((await first.event())["cursor"])
    lates = []
    for start in (0, 1, 20, 39, 40):
        late = await serving.connect()
        answer = await late.call("changes.subscribe", since=cursors[start])
        assert answer["fresh"] is False
        assert answer["cursor"] == cursors[start]
        assert await told(late, 40 - start) == [("prd", f"x{number}", "create") for number in range(start, 40)]
        await nothing_more(late)
        lates.append(late)
    await client.create(id="y")
    for one in (first, *lates):
        assert await told(one, 1) == [("prd", "y", "create")]


async def test_changes_while_resuming(serving: Serving, client: Client, subscriber: Client,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written while somebody is being told what they have missed is told once, to them and to the others."""
    start = (await subscriber.call("changes.subscribe"))["cursor"]
    await client.create(id="x")
    real = serving.server.publisher._catch_up

    async def catch_up(*arguments: Any) -> bool:
        await client.create(id="y")
        return await real(*arguments)

    monkeypatch.setattr(serving.server.publisher, "_catch_up", catch_up)
    late = await serving.connect()
    await late.call("changes.subscribe", since=start)
    assert await told(late, 2) == [("prd", "x", "create"), ("prd", "y", "create")]
    await nothing_more(late)


async def test_too_old(serving: Serving, client: Client) -> None:
    """A cursor of another cache, or from before what is kept, is answered with fresh and a cursor to go on from."""
    cursor = (await client.call("changes.subscribe"))["cursor"]
    await client.create(id="x")
    await client.event()
    epoch, _, number = cursor.rpartition(":")
    for old in (f"other:{number}", f"{epoch}:999999", ":0"):
        late = await serving.connect()
        answer = await late.call("changes.subscribe", since=old)
        assert answer["fresh"] is True
        await client.create(id=f"x{old}".replace(":", "-"))
        await client.event()
        assert len(await told(late, 1)) == 1
        await nothing_more(late)
        await late.aclose()


async def test_rebuild(serving: Serving, client: Client, subscriber: Client) -> None:
    """When the cache is made anew every subscriber is told once to look at everything, and then of what follows."""
    other = await serving.connect()
    await other.call("changes.subscribe", kinds=["workflow"])
    serving.site.lose_cache()
    await client.create(id="x")
    for one in (subscriber, other):
        resync = await one.event("changes.resync")
        assert resync["cursor"]
    await client.create("workflow", id="y")
    assert await told(subscriber, 1) == [("workflow", "y", "create")]
    assert await told(other, 1) == [("workflow", "y", "create")]


async def test_unsubscribe(client: Client) -> None:
    """After the answer to `changes.unsubscribe` nothing more comes; a subscription of another's is none of ours."""
    one = (await client.call("changes.subscribe"))["subscription"]
    two = (await client.call("changes.subscribe"))["subscription"]
    await client.create(id="x")
    answers = await client.ask(client.request("changes.unsubscribe", subscription=one))
    assert answers[0]["result"] == {"subscription": one}
    client.kept.clear()
    await client.create(id="y")
    await wait_all_tasks_blocked(0.005)
    await client.call("hello")
    assert {message["params"]["subscription"] for message in client.kept} <= {two}
    with pytest.raises(RpcError, match="no subscription"):
        await client.call("changes.unsubscribe", subscription=one)


async def test_unsubscribe_while_sending(serving: Serving, client: Client) -> None:
    """Ending a subscription never cuts the frame that is being sent: what follows on the connection is whole."""
    slow = await serving.connect()
    number = (await slow.call("changes.subscribe"))["subscription"]
    await client.create(id="x", content="c" * (3 << 20))
    await wait_all_tasks_blocked(0.005)
    unsubscribe = slow.request("changes.unsubscribe", subscription=number)
    await slow.send(unsubscribe, slow.request("hello"))
    await wait_all_tasks_blocked(0.005)
    assert (await slow.event())["changes"][0]["id"] == "x"
    assert (await slow.receive())["id"] == unsubscribe["id"]
    assert (await slow.receive())["result"]["protocol"] == rpc.PROTOCOL


async def test_slow(serving: Serving, client: Client) -> None:
    """Who does not read is told once to look at everything, holds up no writer, and is then told of what follows."""
    slow, quick = await serving.connect(), await serving.connect()
    await slow.call("changes.subscribe")
    await quick.call("changes.subscribe")
    for number in range(40):
        await client.create(id=f"x{number}", content="c" * 200_000)
        assert await told(quick, 1) == [("prd", f"x{number}", "create")]
    assert all(one._size <= rpc.QUEUED_BYTES for one in serving.server.publisher.subscriptions)
    assert "taskstore_resyncs_total 0.0" not in (await client.call("daemon.metrics"))["text"]
    methods: list[str] = []
    while not methods or methods[-1] != "changes.resync":
        message = await slow.receive()
        methods.append(message["method"])
    assert methods.count("changes.resync") == 1
    assert len(methods) < 40
    cursor = message["params"]["cursor"]
    await client.create(id="last")
    rest: list[Any] = []
    while "last" not in rest:
        event = await slow.event()
        rest += [one["id"] for one in event["changes"]]
    late = await serving.connect()
    await late.call("changes.subscribe", since=cursor)
    assert [one[1] for one in await told(late, len(rest))] == rest


async def test_large(serving: Serving, client: Client, subscriber: Client) -> None:
    """Much that changes at once is told in several events, none of which is too large for a frame."""
    with written_directly(serving.site) as call:
        call("store.apply", ops=[{"op": "create", "kind": "prd", "record": {
            "title": "t", "id": f"x{number:02}", "content": "c" * 100_000}} for number in range(9)])
    found: list[str] = []
    cursors = []
    while len(found) < 9:
        event = await subscriber.event()
        cursors.append(event["cursor"])
        found += [one["id"] for one in event["changes"]]
    assert found == [f"x{number:02}" for number in range(9)]
    assert len(set(cursors)) == 3
    late = await serving.connect()
    await late.call("changes.subscribe", since=cursors[0])
    assert len(await told(late, 9 - 3)) == 6
    assert await client.call("hello")


async def test_other_processes(site: Site, subscriber: Client) -> None:
    """What other processes and editors write past the daemon is told without anybody asking."""
    with written_directly(site) as call:
        for number in range(5):
            call("record.create", kind="prd", record={"title": "t", "id": f"x{number}"})
            assert await told(subscriber, 1) == [("prd", f"x{number}", "create")]
    append(site.log(), id="y", title="t", created_at=1, updated_at=1)
    assert await told(subscriber, 1) == [("prd", "y", "create")]


async def test_read_first(site: Site, client: Client, subscriber: Client) -> None:
    """A change that a read of somebody else's noticed first is told all the same."""
    for number in range(20):
        append(site.log(), id=f"x{number}", title="t", created_at=1, updated_at=1)
        await client.call("record.get", kind="prd", id=f"x{number}")
        assert await told(subscriber, 1) == [("prd", f"x{number}", "create")]


@pytest.fixture
def branches(site: Site, git: Callable[..., str]) -> Callable[..., str]:
    """A repository with the branches `main` and `other`, which has more and fewer records."""
    site.seed(3)
    append(site.log(), id="main", title="t", created_at=1, updated_at=1)
    git("commit", "-qam", "more")
    git("checkout", "-qb", "other", "HEAD~")
    append(site.log(), id="other", title="t", created_at=1, updated_at=1)
    git("commit", "-qam", "other")
    git("checkout", "-q", "main")
    return git


async def test_branches(branches: Callable[..., str], serving: Serving, client: Client) -> None:
    """A checkout is told as the branch first and then what changed with it, however soon a read notices the files."""
    subscriber = await serving.connect()
    await client.call("record.list", kind="prd")
    await subscriber.call("changes.subscribe", kinds=["prd"])
    for number in range(10):
        branch, other = ("other", "main") if number % 2 == 0 else ("main", "other")

        async def checkout(branch: str = branch) -> None:
            await trio.to_thread.run_sync(lambda: branches("checkout", "-q", branch))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(checkout)
            for _ in range(30):
                await client.call("record.list", kind="prd")
        assert (await subscriber.event("changes.branch_changed"))["branch"] == branch
        seen: dict[str, str] = {}
        while seen.get(branch) != "create" or seen.get(other) != "delete":
            seen |= {one["id"]: one["op"] for one in (await subscriber.event())["changes"]}
        await wait_all_tasks_blocked(0.005)
        while subscriber._buffer:
            await subscriber.receive()


async def test_git_at_work(site: Site, git: Callable[..., str], serving: Serving, client: Client) -> None:
    """What changes while git is at work is told when it is done, also if somebody who made us look has gone."""
    subscriber, other = await serving.connect(), await serving.connect()
    await subscriber.call("changes.subscribe", kinds=["prd"])
    lock = site.root / ".git" / "index.lock"
    lock.touch()
    await client.create(id="x")
    subscribe = other.request("changes.subscribe")
    await other.send(subscribe)
    await wait_all_tasks_blocked()
    await other.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": subscribe["id"]}})
    assert (await other.receive())["error"]["code"] == rpc.CANCELLED
    third = await serving.connect()
    await third.send(third.request("changes.subscribe"))
    await wait_all_tasks_blocked()
    await third.aclose()
    assert not subscriber._buffer
    git("symbolic-ref", "HEAD", "refs/heads/elsewhere")
    lock.unlink()
    assert (await subscriber.event("changes.branch_changed"))["branch"] == "elsewhere"
    assert await told(subscriber, 1) == [("prd", "x", "create")]
    await nothing_more(other)


async def test_cancelled_while_git_is_at_work(site: Site, unwatched: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks on behalf of everybody and is cancelled before it was told has taken nothing from the others."""
    subscriber, other = await unwatched.connect(), await unwatched.connect()
    await subscriber.call("changes.subscribe")
    lock = site.root / ".git" / "index.lock"
    lock.touch()
    waits = trio.Event()
    real = unwatched.server.publisher._await_git

    async def await_git() -> None:
        waits.set()
        await real()

    monkeypatch.setattr(unwatched.server.publisher, "_await_git", await_git)
    append(site.log(), id="x", title="t", created_at=1, updated_at=1)
    subscribe = other.request("changes.subscribe")
    await other.send(subscribe)
    await waits.wait()
    await other.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": subscribe["id"]}})
    assert (await other.receive())["error"]["code"] == rpc.CANCELLED
    lock.unlink()
    await other.create(id="y")
    assert await told(subscriber, 2) == [("prd", "x", "create"), ("prd", "y", "create")]


async def test_merge(branches: Callable[..., str], serving: Serving) -> None:
    """A merge is told as what it changed; the branch is the same."""
    branches("checkout", "-q", "main")
    (serving.site.root / ".gitattributes").write_text("*.jsonl merge=union\n")
    subscriber = await serving.connect()
    await subscriber.call("changes.subscribe", kinds=["prd"])
    await trio.to_thread.run_sync(lambda: branches("merge", "-q", "--no-edit", "other"))
    assert await told(subscriber, 1) == [("prd", "other", "create")]


async def test_branch_without_a_store(branches: Callable[..., str], serving: Serving, client: Client) -> None:
    """A branch that has no store is told, too, and the way back."""
    await client.call("changes.subscribe", kinds=["prd"])
    branches("checkout", "-q", "--orphan", "empty")
    branches("rm", "-rqf", ".")
    assert (await client.event("changes.branch_changed"))["branch"] == "empty"
    branches("checkout", "-qf", "main")
    assert (await client.event("changes.branch_changed"))["branch"] == "main"
    await wait_all_tasks_blocked(0.005)
    assert len((await client.call("record.list", kind="prd"))["items"]) == 4
    assert serving.server.publisher.subscriptions


async def test_detached(branches: Callable[..., str], client: Client) -> None:
    """A detached HEAD is told by its commit."""
    commit = branches("rev-parse", "other")
    await client.call("changes.subscribe", kinds=["prd"])
    branches("checkout", "-q", "--detach", "other")
    assert (await client.event("changes.branch_changed"))["branch"] == commit


async def test_without_inotify(site: Site, nursery_s: trio.Nursery) -> None:
    """Where there is no inotify, looking now and then takes its place."""
    serving = Serving(site, nursery_s, use_inotify=False)
    await serving.start()
    subscriber = await serving.connect()
    await subscriber.call("changes.subscribe")
    assert (await subscriber.call("daemon.status"))["watching"] == "stat"
    append(site.log(), id="x", title="t", created_at=1, updated_at=1)
    assert await told(subscriber, 1) == [("prd", "x", "create")]
    await serving.end()


async def test_folder_made_anew(site: Site, serving: Serving, subscriber: Client) -> None:
    """The watch survives that the store's folder is moved away and another takes its place."""
    while not serving.server.watcher.is_watching:
        await trio.lowlevel.checkpoint()
    for number in range(3):
        subprocess.run(["sh", "-c", "cp -a .taskstore new && mv .taskstore old && mv new .taskstore && rm -r old"],  # noqa: ASYNC221
                       cwd=site.root, check=True)
        append(site.log(), id=f"x{number}", title="t", created_at=1, updated_at=1)
        while True:
            message = await subscriber.receive()
            if message["method"] == "changes.event" and f'"x{number}"' in json.dumps(message):
                break
            if message["method"] == "changes.resync":
                assert f"x{number}" in site.ids()
                break
