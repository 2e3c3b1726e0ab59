"""Compaction through a daemon: beside its clients and others, with nothing but what happened told to subscribers."""

import json
from collections import Counter

import pytest
import trio
from tests.daemon.conftest import Client, RpcError, Serving, written_directly

WRITERS = 4
EACH = 40


async def test_it_drops_and_tells_what_it_dropped(serving: Serving, client: Client) -> None:
    """What is superseded is gone, the answer says how much, and the daemon goes on from the new log."""
    await client.create(id="x")
    for number in range(3):
        await client.call("record.update", kind="prd", id="x", set={"n": number})
    answer = await client.call("store.compact", keep=2)
    assert (answer["lines"], answer["kinds"]["prd"]["lines"], answer["dry_run"]) == (2, 2, False)
    assert len(serving.site.lines()) == 2
    made = await client.call("record.update", kind="prd", id="x", set={"n": 9})
    assert made == await client.call("record.get", kind="prd", id="x")
    assert [line["n"] for line in (await client.call("record.history", kind="prd", id="x"))["items"]] == [1, 2, 9]


async def test_writers_and_a_subscriber_beside_it(serving: Serving, client: Client) -> None:
    """Four clients and a process past the daemon write; each change is told once, and none that was none."""
    subscriber = await serving.connect()
    await subscriber.call("changes.subscribe")
    dropped, working = 0, WRITERS + 1

    async def write(writer: Client, name: int) -> None:
        nonlocal working
        for number in range(EACH):
            await writer.create(id=f"{name}-{number}")
            await writer.call("record.update", kind="prd", id=f"{name}-{number}", set={"n": number})
        working -= 1

    def write_directly() -> None:
        with written_directly(serving.site) as call:
            for number in range(EACH):
                call("record.create", kind="prd", record={"title": "t", "id": f"direct-{number}"})
                call("record.update", kind="prd", id=f"direct-{number}", set={"n": number})

    async def direct() -> None:
        nonlocal working
        await trio.to_thread.run_sync(write_directly)
        working -= 1

    async with trio.open_nursery() as nursery:
        for name in range(WRITERS):
            nursery.start_soon(write, await serving.connect(), name)
        nursery.start_soon(direct)
        while working:
            dropped += (await client.call("store.compact"))["lines"]
    dropped += (await client.call("store.compact"))["lines"]

    count = (WRITERS + 1) * EACH
    assert dropped == count
    assert Counter(json.loads(line)["id"] for line in serving.site.lines()) == Counter(
        [f"{name}-{number}" for name in (*range(WRITERS), "direct") for number in range(EACH)])
    told: Counter[str] = Counter()
    newest: dict[str, int] = {}
    while len([key for key in newest if newest[key] >= 0]) < count:
        for change in (await subscriber.event())["changes"]:
            told[change["id"]] += 1
            newest[change["id"]] = change["record"].get("n", -1)
    assert max(told.values()) <= 2
    assert all(newest[key] == int(key.rpartition("-")[2]) for key in newest)
    made = await client.create(id="last")
    assert (await subscriber.event())["changes"] == [{"kind": "prd", "id": "last", "op": "create", "record": made}]


async def test_it_is_refused_while_git_waits(serving: Serving, client: Client) -> None:
    """An unfinished merge refuses it, with an error that may be tried again."""
    await client.create(id="x")
    (serving.site.root / ".git" / "MERGE_HEAD").touch()
    with pytest.raises(RpcError, match="a merge is under way") as refused:
        await client.call("store.compact")
    assert refused.value.data["retryable"]


async def test_a_dry_run_leaves_the_logs_alone(serving: Serving, client: Client) -> None:
    """It says what would go, and the log is the same file."""
    site = serving.site
    await client.create(id="x")
    await client.call("record.update", kind="prd", id="x", set={"n": 1})
    before = site.log().stat()
    assert (await client.call("store.compact", dry_run=True))["lines"] == 1
    assert site.log().stat() == before
