"""Writes over the socket: they share commits, are answered when they are durable, and fail one by one."""

import json
import logging
import math
import os
from typing import Any

import pytest
import trio
from tests.conftest import Site
from tests.daemon.conftest import Client, RpcError, Serving, append, result_of, written_directly
from trio.testing import wait_all_tasks_blocked

from taskstore_core import quiet, reconcile, rpc, sync
from taskstore_core.lock import Lock
from taskstore_core.store import Store
from taskstore_daemon import committer, engine, turn


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced: the names of the files, in order."""
    names: list[str] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        real(descriptor)
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return names


async def commits(client: Client) -> float:
    """How many commits there were."""
    text = (await client.call("daemon.metrics"))["text"]
    (line,) = [line for line in text.splitlines() if line.startswith("taskstore_commit_seconds_count")]
    return float(line.split()[1])


def create(client: Client, **fields: object) -> dict[str, Any]:
    return client.request("record.create", kind="prd", record={"title": "t", **fields})


async def test_neighbours_share_a_commit(client: Client, synced: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes that one client asks in one go, alone, in a batch or behind a long read, share one sync of the disk."""
    monkeypatch.setattr(turn, "_TURN_S", 60.0)  # however long it takes to read them
    await client.create()
    synced.clear()
    before = await commits(client)
    answers = await client.ask(*[create(client) for _ in range(50)])
    assert len({result_of(answer)["id"] for answer in answers}) == 50
    await client.send([create(client) for _ in range(50)])
    assert len(await client.receive()) == 50
    stats = client.request("store.stats")
    await client.ask(stats, *[create(client) for _ in range(20)])
    assert synced.count("outbox") == await commits(client) - before == 3


async def test_clients_share_a_commit(serving: Serving, client: Client, synced: list[str]) -> None:
    """Writes of many clients that wait for the same disk share one sync, and each gets its own answer."""
    clients = [await serving.connect() for _ in range(32)]
    await client.create()
    synced.clear()
    async with serving.server.engine.alone:
        for number, one in enumerate(clients):
            await one.send(create(one, n=number))
        await wait_all_tasks_blocked()
        assert (await client.call("daemon.status"))["writes_waiting"] == 32
    for number, one in enumerate(clients):
        assert result_of(await one.receive())["n"] == number
    assert synced.count("outbox") == 1
    assert (await client.call("daemon.status"))["writes_waiting"] == 0


async def test_nobody_is_alone_after_a_group(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who queued last for a commit of several may be the first to ask again, and yet shares the next one."""
    monkeypatch.setattr(committer, "_SLOW_S", 1000.0)
    clients = [await serving.connect() for _ in range(3)]
    before = await commits(client)
    for _ in range(20):
        for one in clients:  # without a pause, in which the server would see the first of them alone
            os.write(one.stream.socket.fileno(), json.dumps(create(one)).encode() + b"\n")
        for one in clients:
            result_of(await one.receive())
    assert await commits(client) - before == 20


async def test_large_groups(client: Client, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit takes a bounded number of writes, the oldest first; the others have the next."""
    monkeypatch.setattr(committer, "GROUP", 8)
    answers = await client.ask(*[create(client, n=number) for number in range(50)])
    assert [result_of(answer)["n"] for answer in answers] == list(range(50))
    assert await commits(client) == 7
    assert len(serving.site.ids()) == 50


async def test_the_cache_follows_a_lone_writer(client: Client, serving: Serving,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes on and on, and is alone in that, leaves the cache no further behind than many others do."""
    monkeypatch.setattr(committer, "MANY", 8)
    monkeypatch.setattr(engine, "_PAUSE_S", 1000.0)
    lags = []
    for _ in range(40):
        await client.create()
        lags.append(serving.server.engine.store.lag)
    assert max(lags) <= 8 + 2  # the one that went beyond, and the one that sees it


async def test_durable_before_answered(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """No write is answered before its sync has ended, whether it is made on the loop or in a thread."""
    synced = 0
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        nonlocal synced
        real(descriptor)
        synced += 1

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    for number in range(20):
        before = synced
        await client.send(*[create(client) for _ in range(1 + number % 2)])
        for _ in range(1 + number % 2):
            assert "result" in await client.receive()
            assert synced > before


async def test_fail_one_by_one(client: Client) -> None:
    """Of writes that share a commit each succeeds or fails on its own; a later one sees those before it."""
    asked = [create(client, id="x"), create(client, id="x"),
             client.request("record.update", kind="prd", id="x", set={"n": 1}),
             client.request("record.update", kind="prd", id="no", set={"n": 1}), create(client, status="no such"),
             client.request("record.delete", kind="prd", id="x", if_updated_at=1), create(client, id="y")]
    answers = await client.ask(*asked)
    kinds = [answer["error"]["data"]["kind"] if "error" in answer else "ok" for answer in answers]
    assert kinds == ["ok", "exists", "ok", "not_found", "invalid", "conflict", "ok"]
    assert answers[4]["error"]["data"]["field"] == "status"
    assert answers[5]["error"]["code"] == 4010
    data = answers[1]["error"]["data"]
    assert (data["kind"], data["retryable"], data["applied"]) == ("exists", False, "no")


async def test_parameters(client: Client) -> None:
    """Missing, unknown and mistyped parameters are -32602 and name the parameter; by position they work, too."""
    for parameters, field in (({"kind": "prd"}, "record"), ({"kind": "prd", "record": {}, "x": 1}, "x"),
                              ({"kind": 1, "record": {"title": "t"}}, "kind"),
                              ({"kind": "prd", "record": {"title": "t"}, "flush": 1}, "flush")):
        (answer,) = await client.ask(client.request("record.create", **parameters))
        assert answer["error"]["code"] == rpc.INVALID_PARAMS
        assert answer["error"]["data"]["field"] == field
    (answer,) = await client.ask({"jsonrpc": "2.0", "id": 9, "method": "record.create",
                                  "params": ["prd", {"title": "t"}]})
    assert result_of(answer)["title"] == "t"
    (answer,) = await client.ask({"jsonrpc": "2.0", "id": 9, "method": "record.get", "params": ["prd", "x", 3]})
    assert answer["error"]["code"] == rpc.INVALID_PARAMS


async def test_large_numbers(client: Client) -> None:
    """A whole number is kept to the digit or refused, as without a daemon, and never becomes a float."""
    await client.create(id="x", n=2 ** 64 - 1, m=[-(2 ** 63)])
    record = await client.call("record.get", kind="prd", id="x")
    assert (record["n"], record["m"]) == (2 ** 64 - 1, [-(2 ** 63)])
    with pytest.raises(RpcError, match="65 bits"):
        await client.create(n=2 ** 64)


async def test_repeated(client: Client, serving: Serving) -> None:
    """A write that is repeated with its `op` is answered as the first time, over the socket and past it."""
    asked = {"kind": "prd", "record": {"title": "t"}, "op": "once"}
    first = await client.call("record.create", **asked)
    again = await client.ask(client.request("record.create", **asked), client.request("record.create", **asked))
    assert [result_of(answer) for answer in again] == [first, first]
    with written_directly(serving.site) as call:
        assert json.loads(call("record.create", **asked)) == first
    assert serving.site.ids() == [first["id"]]
    with pytest.raises(RpcError) as refused:
        await client.call("record.create", kind="prd", record={"title": "another"}, op="once")
    assert refused.value.data["field"] == "op"


async def test_leases(serving: Serving, client: Client) -> None:
    """A claim over the socket holds against other clients and other processes, until it is ended."""
    other = await serving.connect()
    await client.create("task_spec", id="t", prd_id="p")
    answers = [result_of(answer) for answer in await client.ask(
        *[client.request("task_spec.claim", by=f"agent {number}") for number in range(5)])]
    (claimed,) = [answer for answer in answers if answer is not None]
    assert await other.call("task_spec.claim", by="another") is None
    with written_directly(serving.site) as call:
        assert call("task_spec.claim", by="a third") is None
    held = {"id": "t", "by": claimed["assigned_to"], "token": claimed["token"]}
    assert (await other.call("task_spec.heartbeat", **held))["expires_at"]
    with pytest.raises(RpcError) as refused:
        await other.call("task_spec.complete", **{**held, "token": "wrong"})
    assert refused.value.data["kind"] == "conflict"
    assert (await other.call("task_spec.complete", **held))["status"] == "complete"


async def test_flush(client: Client) -> None:
    """With `flush` the answer says that the line stands in its file; alone, among others and in a batch."""
    asked = client.request("record.create", kind="prd", record={"title": "t"}, flush=True)
    (answer,) = await client.ask(asked)
    assert answer["meta"] == {"flushed": True}
    answers = await client.ask(create(client), {**asked, "id": "a"})
    assert ["meta" in answer for answer in answers] == [False, True]
    await client.send([client.request("store.stats"), {**asked, "id": "b"}])
    assert [answer.get("meta") for answer in await client.receive()] == [None, {"flushed": True}]


async def test_a_refusal_waits_for_no_git(site: Site, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no line of it to be flushed, though others' lines wait while git is at work."""
    monkeypatch.setattr(engine, "_FLUSH_S", math.inf)
    monkeypatch.setattr(quiet, "PATIENCE_MS", math.inf)
    lock = site.root / ".git" / "index.lock"
    lock.touch()
    await client.create(id="x")
    with pytest.raises(RpcError) as refused:
        await client.call("record.create", kind="prd", record={"id": "x", "title": "t"}, flush=True)
    assert refused.value.data["kind"] == "exists"
    lock.unlink()


async def test_unexpected_failure(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch,
                                  caplog: pytest.LogCaptureFixture) -> None:
    """A commit that fails as nobody thought of is answered and logged, on the loop and in a thread; the next works."""
    real = Store.commit_locked

    def commit(*_: object, **__: object) -> Any:
        raise ZeroDivisionError

    await client.create()
    for count in (1, 3):
        monkeypatch.setattr(Store, "commit_locked", commit)
        with caplog.at_level(logging.ERROR):
            answers = await client.ask(*[create(client) for _ in range(count)])
        assert [answer["error"]["data"]["applied"] for answer in answers] == ["unknown"] * count
        assert "ZeroDivisionError" in caplog.text
        caplog.clear()
        monkeypatch.setattr(Store, "commit_locked", real)
        assert (await client.create(id=f"x{count}"))["id"] == f"x{count}"
    assert len(serving.site.ids()) == 3


async def test_failing_disk(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sync that failed nothing more is written: status and every refusal say so, and reads go on."""
    made = await client.create()
    real = os.fdatasync

    def fdatasync(_: int) -> None:
        raise OSError(5, "Input/output error")

    assert (await client.call("daemon.status"))["read_only"] is None
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    for _ in range(2):
        with pytest.raises(RpcError) as refused:
            await client.create()
        assert refused.value.data["kind"] == "read_only"
        assert refused.value.code == 5003
        monkeypatch.setattr(os, "fdatasync", real)
    assert "sync" in (await client.call("daemon.status"))["read_only"]
    assert await client.call("record.get", kind="prd", id=made["id"]) == made


async def test_busy(serving: Serving, client: Client) -> None:
    """While another process holds the lock, writes wait for it together, and reads go on."""
    await client.create(id="x")
    with Lock(os.fspath(serving.site.private / "lock"), 0):
        writers = [await serving.connect() for _ in range(3)]
        for number, writer in enumerate(writers):
            await writer.send(create(writer, n=number))
        await wait_all_tasks_blocked()
        for _ in range(20):
            assert (await client.call("record.get", kind="prd", id="x"))["id"] == "x"
        assert (await client.call("daemon.status"))["oldest_write_ms"] > 0
        assert (await client.call("daemon.status"))["writes_waiting"] == 3
        told = dict(line.split(" ") for line in (await client.call("daemon.metrics"))["text"].splitlines()
                    if line.startswith(("taskstore_writes_waiting ", "taskstore_oldest_write_seconds ")))
        assert float(told["taskstore_writes_waiting"]) == 3
        assert float(told["taskstore_oldest_write_seconds"]) > 0
    for number, writer in enumerate(writers):
        assert result_of(await writer.receive())["n"] == number


async def test_a_turn_among_readers_and_others(unwatched: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that had to let somebody through who uses the store gets the next turn, with no reader before it."""
    client, server = await unwatched.connect(), unwatched.server
    await client.create(id="x")
    path, real, had = os.fspath(unwatched.site.private / "lock"), server.committer._lock, trio.Event()

    async def lock() -> Lock | None:
        found = await real()
        had.set()
        return found

    monkeypatch.setattr(server.committer, "_lock", lock)
    with Lock(path, 0):
        await client.send(create(client, id="y"))
        await wait_all_tasks_blocked()
        await server.engine.alone.acquire()
    await had.wait()  # and then it gave it back
    with Lock(path, 0):
        server.engine.alone.release()
        await wait_all_tasks_blocked()
        assert server.engine.alone.locked()
    assert result_of(await client.receive())["id"] == "y"


async def test_git_and_others_go_on_and_on(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write gets through although git is at work again whenever it was asked for missing lines, and others write."""
    site, store = serving.site, serving.server.engine.store
    before = site.log().read_bytes()
    await client.create(id="x")
    other, real, asked = Lock(os.fspath(site.private / "lock"), 0), store.lock, 0
    is_held = False

    def lock(wait_s: float = 5.0) -> Lock:
        """Another process always has the lock when it is wanted at once, and never for long."""
        nonlocal is_held
        if is_held and wait_s:
            other.__exit__(None, None, None)
        elif not is_held and not wait_s:
            other.__enter__()
        is_held = not wait_s
        return real(wait_s)

    def ask(_: reconcile.SwallowedError, __: object) -> reconcile.Verdict:
        nonlocal asked
        asked += 1
        stamp = site.root.stat().st_mtime_ns - asked * 10**9
        os.utime(site.root / ".git", ns=(stamp, stamp))
        return reconcile.Verdict(0, set(), set())

    monkeypatch.setattr(reconcile.SwallowedError, "ask", ask)
    monkeypatch.setattr(store, "lock", lock)
    site.calm()
    beside = site.log().with_suffix(".other")
    beside.write_bytes(before)
    beside.replace(site.log())
    for key in ("y", "z"):
        await client.create(id=key)
    monkeypatch.undo()
    if is_held:
        other.__exit__(None, None, None)
    site.calm(forget=False)
    assert asked
    found = await client.call("record.list", kind="prd")
    assert {item["id"] for item in found["items"]} == {"x", "y", "z"}


async def test_busy_for_long(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is not to be had at all is an error that may be tried again; nothing was written."""
    await client.create()
    monkeypatch.setattr(serving.server.engine.store, "lock", lambda wait_s=0.01: Lock(
        os.fspath(serving.site.private / "lock"), min(wait_s, 0.01)))
    with Lock(os.fspath(serving.site.private / "lock"), 0), pytest.raises(RpcError) as refused:
        await client.create()
    assert (refused.value.data["kind"], refused.value.data["retryable"], refused.value.data["applied"]) == (
        "busy", True, "no")
    await client.create()
    assert len(serving.site.ids()) == 2


async def test_reads_between_commits(serving: Serving, client: Client) -> None:
    """Readers get their turn under a steady stream of writes."""
    await client.create(id="x")
    written, begun, over = 0, trio.Event(), trio.Event()

    async def write() -> None:
        nonlocal written
        one = await serving.connect()
        while not over.is_set():
            await one.create()
            written += 1
            if written >= 16:
                begun.set()

    async with trio.open_nursery() as writers:
        for _ in range(8):
            writers.start_soon(write)
        await begun.wait()
        before = written
        for _ in range(50):
            assert (await client.call("record.get", kind="prd", id="x"))["id"] == "x"
        passed = written - before
        over.set()
    assert passed <= 50 * 16  # two commits of everybody a read, at the most


async def test_own_writes_are_not_read_again(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the daemon wrote itself is never looked for in the logs, whoever else looks, with a watcher and without."""
    await client.create(id="x")
    await client.call("record.list", kind="prd")
    parsed: list[str] = []
    real = sync._bring_level

    def bring_level(*parties: Any, trusted: bool) -> Any:
        report, end = real(*parties, trusted=trusted)
        parsed.append(f"{report.mode} {report.parsed} {trusted}")
        return report, end

    monkeypatch.setattr(sync, "_bring_level", bring_level)
    for _ in range(30):
        await client.create()
        await client.call("record.get", kind="prd", id="x")
        await serving.server.watcher.look()
    assert len(parsed) <= 30
    assert all(one.endswith("True") for one in parsed), parsed
    append(serving.site.log(), id="y", title="t", updated_at=1, created_at=1)
    assert (await client.call("record.get", kind="prd", id="y"))["title"] == "t"
    assert parsed[-1].endswith("False")
