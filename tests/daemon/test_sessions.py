"""One connection among others: the order of its answers, taking requests back, and ends of all kinds."""

import json
import logging
from typing import Any

import pytest
import trio
from tests.daemon.conftest import Client, Serving, result_of
from trio.testing import MockClock, wait_all_tasks_blocked

from taskstore_core import rpc
from taskstore_daemon.answerer import Answerer
from taskstore_daemon.wire import Wire

CANCELLED = {"kind": "cancelled", "retryable": True, "applied": "no"}


def cancel(id_: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": id_}}


async def assert_lives(serving: Serving) -> None:
    """The server takes connections and answers."""
    client = await serving.connect()
    assert await client.call("store.stats")
    await client.aclose()


async def test_order(client: Client) -> None:
    """Whatever is asked in one go, short and long, right and wrong, reads and writes, is answered in order."""
    def requests() -> list[dict[str, Any]]:
        return [client.request("hello"), client.request("record.create", kind="prd", record={"title": "t"}),
                client.request("record.list", kind="prd"), client.request("nonsense"), client.request("store.stats"),
                client.request("record.create", kind="prd", record={}),
                client.request("record.get", kind="prd", id="x"),
                client.request("record.create", kind="prd", record={"title": "t"}),
                client.request("task_spec.ready"), client.request("hello", protocol=3),
                client.request("record.create", kind="prd", record={"title": "u"})]
    wanted = [one for _ in range(40) for one in requests()]
    await client.send(*wanted, [client.request("hello")])
    assert [(await client.receive())["id"] for _ in wanted] == [one["id"] for one in wanted]
    assert isinstance(await client.receive(), list)


async def test_order_of_what_comes_by_and_by(client: Client) -> None:
    """What could be answered at once waits for the answers to what was asked before, until they are sent."""
    for _ in range(200):
        first, second = client.request("hello"), client.request("hello")
        await client.send([first])
        await client.send(second)
        assert [one["id"] for one in await client.receive()] == [first["id"]]
        assert (await client.receive())["id"] == second["id"]


async def test_read_your_writes(client: Client) -> None:
    """A read sees the writes that were asked before it on the same connection, in the same breath."""
    for number in range(20):
        create, get, update, again = await client.ask(
            client.request("record.create", kind="prd", record={"title": "t", "id": f"x{number}"}),
            client.request("record.get", kind="prd", id=f"x{number}"),
            client.request("record.update", kind="prd", id=f"x{number}", set={"n": number}),
            client.request("record.list", kind="prd", where={"n": number}))
        assert create["result"] == get["result"]
        assert again["result"]["items"] == [update["result"]]


@pytest.mark.parametrize("method", ["record.get", "record.update"])
@pytest.mark.parametrize("ending", ["client", "server"])
async def test_what_is_being_sent_comes_whole(serving: Serving, client: Client, method: str, ending: str) -> None:
    """An answer of which a part waits for room ends whole, though nothing more will be asked, or taken."""
    await client.create(id="a", description="x" * 900_000)
    last = client.request(method, kind="prd", id="a", **({"set": {"title": "u"}} if method == "record.update" else {}))
    await client.send(last)
    (running,) = serving.server._sessions
    while not running._wire.is_sending:
        await wait_all_tasks_blocked()
    if ending == "client":
        await client.stream.send_eof()
    else:
        serving.server.stop("the test is over")
    await wait_all_tasks_blocked(0.05)
    assert (await client.receive())["id"] == last["id"]
    assert await client.line() == b""


async def test_waits_keep_no_order(client: Client) -> None:
    """A wait is answered when it is over, and holds up nothing that was asked after it."""
    await client.create("dependency", id="d")
    wait, after = client.request("dependency.wait", id="d"), client.request("hello")
    await client.send(wait, after)
    assert (await client.receive())["id"] == after["id"]
    resolve = client.request("dependency.resolve", id="d")
    await client.send(resolve)
    assert {(await client.receive())["id"] for _ in range(2)} == {wait["id"], resolve["id"]}


async def test_turns(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who asks very much in one go is answered a part at a time, so that others have their turn between."""
    await client.create(id="x", content="c" * 9000)
    sizes: list[int] = []
    real = Wire.send

    async def send(wire: Wire, data: bytes) -> None:
        sizes.append(len(data))
        await real(wire, data)

    monkeypatch.setattr(Wire, "send", send)
    await client.send(*[client.request("record.get", kind="prd", id="x") for _ in range(400)])
    for _ in range(400):
        assert (await client.receive())["result"]["id"] == "x"
    assert max(sizes) < 100_000


# Taking back


async def test_cancel_what_waits_its_turn(serving: Serving, client: Client) -> None:
    """Reads and writes that have not begun are taken back, answered as cancelled in their place, and do nothing."""
    first, read = client.request("record.list", kind="prd"), client.request("record.get", kind="prd", id="x")
    write = client.request("record.create", kind="prd", record={"title": "t", "id": "x"})
    last = client.request("record.get", kind="prd", id="x")
    async with serving.server.engine.alone, serving.server.engine._long:
        await client.send(client.request("store.stats"), first, read, write, last,
                          cancel(read["id"]), cancel(write["id"]), cancel(77))
        await wait_all_tasks_blocked()
    answers = [await client.receive() for _ in range(5)]
    assert [answer["id"] for answer in answers][1:] == [first["id"], read["id"], write["id"], last["id"]]
    for answer in answers[2:4]:
        assert answer["error"]["code"] == rpc.CANCELLED
        assert answer["error"]["data"] == CANCELLED
    assert answers[4]["error"]["data"]["kind"] == "not_found"


async def test_cancel_what_runs(serving: Serving, client: Client) -> None:
    """A read that waits for the store is taken back; its id may be used again at once."""
    read = client.request("record.get", kind="prd", id="x")
    async with serving.server.engine.alone:
        await client.send(read)
        await wait_all_tasks_blocked()
        await client.send(cancel(read["id"]))
        assert (await client.receive())["error"]["code"] == rpc.CANCELLED
    await client.send(read)
    assert (await client.receive())["error"]["data"]["kind"] == "not_found"


async def test_cancel_what_is_being_written(serving: Serving, client: Client) -> None:
    """A write that was taken for a commit is completed, whatever is said afterwards."""
    read, write = client.request("hello"), client.request("record.create", kind="prd", record={"title": "t", "id": "x"})
    async with serving.server.engine.alone:
        await client.send([read], write)
        await wait_all_tasks_blocked()
        await client.send(cancel(write["id"]))
        await wait_all_tasks_blocked()
    await client.receive()
    assert (await client.receive())["result"]["id"] == "x"
    await client.send(write)
    assert (await client.receive())["error"]["data"]["kind"] == "exists"


async def test_cancel_a_wait(client: Client) -> None:
    """A wait is taken back, alone or as one of a batch; so is a request whose id is null."""
    await client.create("dependency", id="d")
    wait = client.request("dependency.wait", id="d")
    await client.send(wait)
    await wait_all_tasks_blocked()
    await client.send(cancel(wait["id"]))
    assert (await client.receive())["error"]["code"] == rpc.CANCELLED
    await client.send({**wait, "id": None})
    await wait_all_tasks_blocked()
    await client.send(cancel(None))
    assert (await client.receive())["id"] is None
    await client.send([client.request("hello"), wait, client.request("hello")])
    await wait_all_tasks_blocked()
    await client.send({**cancel(wait["id"]), "id": "c"})
    batch = await client.receive()
    assert ["error" in answer for answer in batch] == [False, True, False]
    assert await client.receive() == {"jsonrpc": "2.0", "id": "c", "result": None}


# Ends


async def test_half_closed(client: Client) -> None:
    """Who says that nothing more will come gets every answer, waits among them, and then the end."""
    await client.create("dependency", id="d")
    wait = client.request("dependency.wait", id="d")
    asked = [client.request("store.stats"), client.request("record.create", kind="prd", record={"title": "t"}),
             client.request("hello"), client.request("dependency.resolve", id="d")]
    await client.send(wait, *asked)
    await client.stream.send_eof()
    found = [await client.receive() for _ in range(5)]
    assert sorted(one["id"] for one in found) == sorted(one["id"] for one in [wait, *asked])
    assert await client.line() == b""


async def test_half_closed_subscriber(serving: Serving, client: Client) -> None:
    """A subscriber that says nothing more is told of changes until it closes; then it is forgotten."""
    await client.send(client.request("changes.subscribe"))
    await client.stream.send_eof()
    await client.receive()
    other = await serving.connect()
    await other.create(id="x")
    assert (await client.event())["changes"][0]["id"] == "x"
    await client.aclose()
    while (await other.call("daemon.status"))["subscribers"]:
        await trio.lowlevel.checkpoint()


async def test_unfinished(client: Client) -> None:
    """A last line without its newline may have been cut, so it is refused; what came before is answered."""
    await client.send(client.request("hello"), json.dumps(client.request("hello")).encode())
    await client.stream.send_eof()
    assert (await client.receive())["id"] == 1
    refused = await client.receive()
    assert (refused["id"], refused["error"]["code"]) == (None, rpc.PARSE_ERROR)
    assert "newline" in refused["error"]["message"]
    assert await client.line() == b""


async def test_vanishing(serving: Serving, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Clients that vanish in the middle of anything leave no half of a write, and nobody else notices."""
    for moment in range(12):
        gone = await serving.connect()
        apply = gone.request("store.apply", ops=[
            {"op": "create", "kind": kind, "record": {"title": "t", "name": "w", "id": f"x{moment}"}}
            for kind in ("prd", "workflow")])
        frame = json.dumps(apply).encode() + b"\n"
        async with serving.server.engine.alone:
            await gone.send(*[gone.request("hello")] * (moment % 3), frame if moment % 2 else frame[:-moment - 2])
            if moment % 4 < 2:
                await wait_all_tasks_blocked()
            await gone.aclose()
            await wait_all_tasks_blocked()
    await client.create(id="last")
    found = [{item["id"] for item in (await client.call("record.list", kind=kind))["items"]} - {"last"}
             for kind in ("prd", "workflow")]
    assert found[0] == found[1]
    assert found[0] <= {f"x{moment}" for moment in range(1, 12, 2)}
    assert {"x1", "x5", "x9"} <= found[0]
    await assert_lives(serving)
    assert "failed" not in caplog.text


async def test_vanishing_before_the_answer(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    """A connection whose answer from the backlog finds nobody there ends alone."""
    gone = await serving.connect()
    async with serving.server.engine.alone, serving.server.engine._long:
        await gone.send(gone.request("store.stats"), *[gone.request("hello")] * 20)
        await wait_all_tasks_blocked()
        await gone.aclose()
        await wait_all_tasks_blocked()
    await assert_lives(serving)
    assert "failed" not in caplog.text  # it is no fault of ours


async def test_never_reading(serving: Serving, client: Client) -> None:
    """A client that reads none of its answers is held up by itself alone, and holds no more than its share."""
    await client.create(id="x", content="c" * (1 << 20))
    deaf = await serving.connect()
    await deaf.send(*[deaf.request("record.get", kind="prd", id="x") for _ in range(50)])
    for number in range(20):
        assert (await client.create(n=number))["n"] == number
        assert (await client.call("record.get", kind="prd", id="x"))["id"] == "x"
    for _ in range(50):
        assert (await deaf.receive())["result"]["id"] == "x"


async def test_broken_connection(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch,
                                 caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours in one connection ends that one, is logged, and takes nothing else down."""
    look = Answerer.look

    def broken(answerer: Answerer, message: Any, size: int) -> Any:
        if getattr(message, "method", "") == "break":
            raise RuntimeError("a fault of ours")
        return look(answerer, message, size)

    monkeypatch.setattr(Answerer, "look", broken)
    other = await serving.connect()
    with caplog.at_level(logging.ERROR):
        await other.send(other.request("break"))
        assert await other.line() == b""
    assert "a fault of ours" in caplog.text
    assert result_of((await client.ask(client.request("hello")))[0])
    await assert_lives(serving)


@pytest.mark.parametrize("name", ["record.get", "store.stats", "record.list", "daemon.status", "dependency.wait"])
async def test_broken_method(serving: Serving, client: Client, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A fault of ours in a method is an internal error to who called it, and the connection goes on."""
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(serving.server.methods[name], "function", broken)
    monkeypatch.setattr("taskstore_daemon.answerer.cut_list", broken)
    monkeypatch.setattr("taskstore_daemon.answerer.wait", broken)
    parameters = {"record.get": {"kind": "prd", "id": "x"}, "record.list": {"kind": "prd"},
                  "dependency.wait": {"id": "x"}}
    (answer,) = await client.ask(client.request(name, **parameters.get(name, {})))
    assert answer["error"]["code"] == rpc.INTERNAL_ERROR
    assert answer["error"]["data"]["kind"] == "internal"
    assert result_of((await client.ask(client.request("hello")))[0])


async def test_shutdown_under_load(serving: Serving) -> None:
    """What was taken is answered and there, what was not is not, and the server is gone at once."""
    answered: list[str] = []
    enough = trio.Event()

    async def write(number: int) -> None:
        client = await serving.connect()
        for turn in range(1000):
            try:
                await client.send(client.request("record.create", kind="prd",
                                                 record={"title": "t", "id": f"x{number}-{turn}"}))
            except trio.BrokenResourceError:
                return
            message = await client.receive()
            if message is None:
                return
            answered.append(result_of(message)["id"])
            if len(answered) >= 50:
                enough.set()

    async with trio.open_nursery() as writers:
        for number in range(16):
            writers.start_soon(write, number)
        await enough.wait()
        serving.server.stop("enough")
        await serving.server.stopped.wait()
    assert set(answered) <= set(serving.site.ids())


async def test_shutdown_with_those_who_do_nothing(mock_clock: MockClock, unwatched: Serving) -> None:
    """Idle clients, waits and subscribers do not keep the server at all; the answer to `daemon.shutdown` is sent."""
    idle, waiting, client = [await unwatched.connect() for _ in range(3)]
    began = mock_clock.current_time()
    await client.create("dependency", id="d")
    await waiting.send(waiting.request("dependency.wait", id="d"))
    await client.call("changes.subscribe")
    assert await client.call("daemon.shutdown") == {"pid": unwatched.server.pid}
    for _ in range(100):
        await wait_all_tasks_blocked(0.01)
        if unwatched.server.stopped.is_set():
            break
    assert unwatched.server.stopped.is_set()
    assert mock_clock.current_time() == began
    for one in (idle, waiting, client):
        assert await one.line() == b""
