"""Reads are never stale, whoever changed the files and with nobody watching them; long ones hold up nobody."""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from tests.conftest import Site
from tests.daemon.conftest import Client, RpcError, Serving, append, written_directly
from trio.testing import wait_all_tasks_blocked

from taskstore_core.store import Store


@pytest.fixture
async def reader(unwatched: Serving) -> Client:
    """A client of a server that looks at the files for a read and at no other time."""
    return await unwatched.connect()


async def ids(client: Client, kind: str = "prd") -> set[str]:
    return {item["id"] for item in (await client.call("record.list", kind=kind))["items"]}


async def test_appended_by_hand(site: Site, reader: Client) -> None:
    """A line that was appended with an editor is there in the next read, of whichever form."""
    for number in range(30):
        append(site.log(), id=f"x{number}", title="t", created_at=1, updated_at=1)
        assert (await reader.call("record.get", kind="prd", id=f"x{number}"))["title"] == "t"
        append(site.log(), id=f"y{number}", title="t", created_at=1, updated_at=1)
        assert f"y{number}" in await ids(reader)
        append(site.log(), id=f"z{number}", title="t", created_at=1, updated_at=1)
        assert (await reader.call("store.stats"))["kinds"]["prd"]["records"] == 3 * number + 3


async def test_written_by_another_process(site: Site, reader: Client) -> None:
    """What another process wrote with no word to the daemon is in the next read, and a claim made there holds."""
    await reader.create("task_spec", id="t")
    with written_directly(site) as call:
        for number in range(30):
            call("record.create", kind="prd", record={"title": "t", "id": f"x{number}"})
            assert (await reader.call("record.get", kind="prd", id=f"x{number}"))["id"] == f"x{number}"
            await reader.create(id=f"y{number}")
            assert json.loads(call("record.get", kind="prd", id=f"y{number}"))["id"] == f"y{number}"
        call("task_spec.claim", by="somebody")
        assert (await reader.call("record.get", kind="task_spec", id="t"))["status"] == "running"
        assert await reader.call("task_spec.claim", by="another") is None


async def test_pipelined_behind_a_change(site: Site, reader: Client) -> None:
    """Of many reads in one go none is older than what ended before they were sent."""
    for number in range(20):
        append(site.log(), id="x", title=f"t{number}", created_at=1, updated_at=number + 1)
        answers = await reader.ask(*[reader.request("record.get", kind="prd", id="x") for _ in range(50)])
        assert {answer["result"]["title"] for answer in answers} == {f"t{number}"}


async def checkouts(site: Site, client: Client, git: Callable[..., str], reads: int) -> None:
    """Check branches out in turn and read at once, `reads` times; each must say what is checked out."""
    for branch in ("one", "two"):
        git("checkout", "-qb", branch, "main")
        append(site.log(), id="x", title=branch, created_at=1, updated_at=1)
        append(site.log(), id=f"only-{branch}", title=branch, created_at=1, updated_at=1)
        git("commit", "-qam", branch)
    for number in range(reads // 4):
        branch, other = ("one", "two") if number % 2 else ("two", "one")
        git("checkout", "-q", branch)
        answers = await client.ask(
            client.request("record.get", kind="prd", id="x"),
            client.request("record.get", kind="prd", id=f"only-{other}"),
            client.request("record.list", kind="prd"),
            client.request("record.get", kind="prd", id=f"only-{branch}"))
        assert answers[0]["result"]["title"] == branch
        assert answers[1]["error"]["data"]["kind"] == "not_found"
        assert {item["id"] for item in answers[2]["result"]["items"]} == {"x", f"only-{branch}"}
        assert answers[3]["result"]["title"] == branch


async def test_checkout(site: Site, reader: Client, git: Callable[..., str]) -> None:
    """Right after `git checkout` every read says what is checked out."""
    await checkouts(site, reader, git, 200)


@pytest.mark.long
async def test_many_checkouts(site: Site, reader: Client, git: Callable[..., str]) -> None:
    """Of ten thousand reads right after `git checkout` none is stale."""
    await checkouts(site, reader, git, 10_000)


async def test_clean(site: Site, reader: Client, git: Callable[..., str]) -> None:
    """After `git clean -fdx`, or without store.db, whenever it is deleted, reads and writes go on as if nothing was."""
    await reader.create(id="x", n=1)
    for number in range(5):
        git("add", ".")
        git("clean", "-fdx")
        assert not site.cache.exists()
        assert (await reader.call("record.get", kind="prd", id="x"))["n"] == 1
        site.lose_cache()
        assert (await reader.create(id=f"y{number}"))["id"] == f"y{number}"
        site.lose_cache()
        assert await ids(reader) == {"x", *(f"y{n}" for n in range(number + 1))}


async def test_branch_without_a_store(site: Site, reader: Client, git: Callable[..., str]) -> None:
    """On a branch that has no store every call but those about the daemon says so; back on the other all is there."""
    await reader.create(id="x")
    assert (await reader.call("store.sync", wait_ms=60_000))["flushed"]
    git("add", ".")
    git("commit", "-qm", "x")
    git("checkout", "-q", "--orphan", "empty")
    git("rm", "-rqf", ".")
    git("commit", "-q", "--allow-empty", "-m", "nothing")
    for method, parameters in (("record.get", {"kind": "prd", "id": "x"}), ("record.list", {"kind": "prd"}),
                               ("record.create", {"kind": "prd", "record": {"title": "t"}}), ("store.stats", {}),
                               ("task_spec.claim", {"by": "a"}), ("task_spec.ready", {})):
        with pytest.raises(RpcError) as refused:
            await reader.call(method, **parameters)
        assert (refused.value.data["kind"], refused.value.code) == ("no_store", 4040), method
    assert (await reader.call("hello"))["protocol"] == 1
    assert not site.log().exists()
    git("checkout", "-q", "main")
    assert await ids(reader) == {"x"}
    assert (await reader.create(id="y"))["id"] == "y"


async def test_long_lists(unwatched: Serving, reader: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long list is made in a thread, while gets of others are answered; a short one is made at once."""
    unwatched.site.seed(500)
    assert await reader.create(id="x")
    threads: list[str] = []
    real = trio.to_thread.run_sync

    async def run_sync(work: Any, *arguments: Any, **options: Any) -> Any:
        threads.append(str(work))
        return await real(work, *arguments, **options)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    assert len((await reader.call("record.list", kind="prd", limit=100))["items"]) == 100
    assert len((await reader.call("record.list", kind="prd", where={"id": "x"}))["items"]) == 1
    assert threads == []
    assert len((await reader.call("record.list", kind="prd"))["items"]) == 501
    assert len(threads) == 1
    other = await unwatched.connect()
    async with unwatched.server.engine._long:
        await other.send(other.request("record.list", kind="prd"), other.request("record.get", kind="prd", id="x"))
        await wait_all_tasks_blocked()
        assert (await reader.call("record.get", kind="prd", id="x"))["id"] == "x"
        await reader.create(id="y")
    assert len((await other.receive())["result"]["items"]) == 502
    assert (await other.receive())["result"]["id"] == "x"


async def test_gets_need_no_thread(unwatched: Serving, reader: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A get of files that did not change needs neither a thread nor a task of its own."""
    await reader.create(id="x")
    await reader.call("record.get", kind="prd", id="x")

    async def run_sync(*_: Any, **__: Any) -> Any:
        raise AssertionError("a thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    await unwatched.server.engine.refresh()
    spawned: list[object] = []
    for running in unwatched.server._sessions:
        monkeypatch.setattr(running, "_spawn", lambda *arguments: spawned.append(arguments))
    for _ in range(20):
        assert (await reader.call("record.get", kind="prd", id="x"))["id"] == "x"
    assert spawned == []


async def test_one_user_at_a_time(unwatched: Serving, reader: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads on the loop while a thread uses the store, however many reads came in the same breath."""
    await reader.create(id="x", content="c" * 9000)
    server, other = unwatched.server, await unwatched.connect()
    real = server.engine.store.trusting
    in_thread = 0
    run_sync = trio.to_thread.run_sync

    def trusting(work: Any) -> Any:
        assert in_thread == 0
        return real(work)

    async def counted(*arguments: Any) -> Any:
        nonlocal in_thread
        in_thread += 1
        try:
            return await run_sync(*arguments)
        finally:
            in_thread -= 1

    monkeypatch.setattr(server.engine.store, "trusting", trusting)
    monkeypatch.setattr(trio.to_thread, "run_sync", counted)
    for number in range(20):
        await reader.send(*[reader.request("record.get", kind="prd", id="x") for _ in range(60)])
        append(unwatched.site.log(), id=f"y{number}", title="t", created_at=1, updated_at=1)
        assert (await other.call("record.get", kind="prd", id=f"y{number}"))["title"] == "t"
        for _ in range(60):
            assert (await reader.receive())["result"]["id"] == "x"


async def test_damaged(site: Site, reader: Client) -> None:
    """A cache that is damaged while it is in use is built anew, and the answer is right."""
    await reader.create(id="x", n=1)
    with site.cache.open("r+b") as file:
        file.write(b"no database at all" * 500)
    assert (await reader.call("record.get", kind="prd", id="x"))["n"] == 1
    site.lose_cache()
    site.cache.write_bytes(b"no database at all" * 500)
    assert (await reader.call("record.get", kind="prd", id="x"))["n"] == 1


async def test_sync_and_check(site: Site, reader: Client) -> None:
    """A full sync and a check run beside everything else and say what they found."""
    site.seed(50)
    with site.log().open("a") as file:
        file.write("no line\n")
    report = await reader.call("store.sync", full=True)
    assert report["kinds"]["prd"]["bad_lines"] == 1
    assert report["kinds"]["prd"]["mode"] == "rebuilt"
    assert str(site.log()) in json.dumps(await reader.call("store.check")) or site.log().name in json.dumps(
        await reader.call("store.check"))
    assert len(await ids(reader)) == 50


@pytest.fixture
def read_only(site: Site) -> Iterator[Callable[[bool], None]]:
    """Makes the repository read-only, or writable again."""
    def mount(*words: str) -> bool:
        return subprocess.run(["mount", *words, site.root], check=False, capture_output=True).returncode == 0

    def switch(on: bool) -> None:
        if not on:
            subprocess.run(["umount", "-l", site.root], check=True)
        elif not mount("--bind", str(site.root)) or not mount("-o", "remount,bind,ro"):
            pytest.skip("nothing can be mounted here")

    yield switch
    subprocess.run(["umount", "-lq", site.root], check=False, capture_output=True)


async def test_read_only(read_only: Callable[[bool], None], site: Site, reader: Client,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written, reads are answered all the same and nobody spins; then all is as it was."""
    append(site.log(), id="x", title="t", created_at=1, updated_at=1)
    await reader.call("changes.subscribe")
    looks = 0
    real = Store.ask

    def ask(store: Store, question: Any) -> Any:
        nonlocal looks
        looks += 1
        return real(store, question)

    monkeypatch.setattr(Store, "ask", ask)
    append(site.log(), id="y", title="t", created_at=1, updated_at=1)
    read_only(True)
    assert (await reader.call("record.get", kind="prd", id="y"))["id"] == "y"
    with pytest.raises(RpcError) as refused:
        await reader.create()
    assert refused.value.data["kind"] == "read_only"
    await trio.to_thread.run_sync(list)  # long enough for whoever spins
    await wait_all_tasks_blocked(0.005)
    before = looks
    for _ in range(20):
        await wait_all_tasks_blocked(0.005)
    assert looks <= before + 2  # who was late
    read_only(False)
    assert (await reader.create(id="z"))["id"] == "z"
    assert await ids(reader) == {"x", "y", "z"}
