"""Limits: what is too large, too deep, too many or too slow is refused with a word, and costs nobody else anything."""

import json
import select
import socket
from typing import Any

import pytest
import trio
from tests.daemon.conftest import Client, RpcError, Serving, written_directly
from trio.testing import MockClock, wait_all_tasks_blocked

from taskstore_core import rpc
from taskstore_daemon import own_methods, session, wire


async def assert_lives(client: Client) -> None:
    """The connection is served still."""
    assert (await client.call("hello"))["protocol"] == rpc.PROTOCOL


async def assert_refused(client: Client, code: int, words: str, *, ends: bool) -> None:
    """The next message is an error without an id; then the connection is closed, or goes on."""
    message = await client.receive()
    assert (message["id"], message["error"]["code"]) == (None, code)
    assert words in message["error"]["message"]
    if ends:
        assert await client.line() == b""
    else:
        await assert_lives(client)


async def test_byte_by_byte(client: Client) -> None:
    """Requests may come in any pieces, with any line ends and blank lines between them."""
    stream = b"".join(json.dumps(client.request("hello")).encode() + end for end in (b"\n", b"\r\n", b"\n\n \r\n"))
    for byte in stream:
        await client.send(bytes([byte]))
    assert [(await client.receive())["id"] for _ in range(3)] == [1, 2, 3]


async def test_blank_lines(client: Client) -> None:
    """A blank line is nothing, also where it comes alone."""
    for blank in (b"\n", b"\r\n", b"  \n", b" \t \r\n"):
        await client.send(blank)
        await wait_all_tasks_blocked()
        await assert_lives(client)
    assert client.kept == []


@pytest.mark.parametrize(("frame", "code", "words"), [
    (b"{\n", rpc.PARSE_ERROR, "JSON"),
    (b"\xff\n", rpc.PARSE_ERROR, "JSON"),
    (b"7\n", rpc.INVALID_REQUEST, "object"),
    (b"[]\n", rpc.INVALID_REQUEST, "empty"),
    (b'{"params":' + b"[" * 65 + b"]" * 65 + b"}\n", rpc.INVALID_REQUEST, "64 levels"),
    (b"[" * 100_000 + b"]" * 100_000 + b"\n", rpc.PARSE_ERROR, "nested"),
    (b"[" + b"1," * 100 + b"1]\n", rpc.INVALID_REQUEST, "101 in a batch"),
], ids=["JSON", "UTF-8", "object", "empty", "depth", "depth 100,000", "batch"])
async def test_faults(client: Client, frame: bytes, code: int, words: str) -> None:
    """After a frame that is none, or nests too deeply, or holds too many calls, the connection goes on."""
    await client.send(frame)
    await assert_refused(client, code, words, ends=False)


async def test_faults_are_paced(mock_clock: MockClock, unwatched: Serving) -> None:
    """A connection is not read on for a moment after a frame that is none, and others are served meanwhile."""
    bad, good = await unwatched.connect(), await unwatched.connect()
    await bad.send(b"{\n")
    assert (await bad.receive())["error"]["code"] == rpc.PARSE_ERROR
    counted = unwatched.server.metrics.requests.total
    before = counted()
    await bad.send(bad.request("hello"))
    await wait_all_tasks_blocked()
    assert counted() == before
    await assert_lives(good)
    mock_clock.jump(wire.PENALTY_S)
    assert (await bad.receive())["result"]["protocol"] == rpc.PROTOCOL


async def test_the_end_is_paced(mock_clock: MockClock, unwatched: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is hung up on, for what it sent or as one too many, hears why at once and has to wait for the end."""
    monkeypatch.setattr(rpc, "CONNECTIONS", 1)
    bad = await unwatched.connect()
    await bad.send(b'{"')
    await wait_all_tasks_blocked()
    late = await unwatched.connect()
    assert (await late.receive())["error"]["data"]["kind"] == "busy"
    mock_clock.jump(rpc.FRAME_S + 0.1)
    assert "10 s" in (await bad.receive())["error"]["message"]
    await wait_all_tasks_blocked()
    assert not unwatched.server.is_idle
    late_again = await unwatched.connect()
    await late_again.receive()
    await wait_all_tasks_blocked()
    ended, _, _ = select.select([one.stream.socket for one in (bad, late, late_again)], [], [], 0)
    assert ended == [late.stream.socket]
    mock_clock.jump(wire.PENALTY_S)
    for client in (bad, late, late_again):
        assert await client.line() == b""


async def test_largest_batch(client: Client) -> None:
    """A hundred calls are a batch, answered in one frame, in order."""
    await client.send([client.request("hello") for _ in range(rpc.BATCH)])
    assert [one["id"] for one in await client.receive()] == list(range(1, rpc.BATCH + 1))


async def test_largest_frame(client: Client) -> None:
    """A frame of just 8 MiB is taken."""
    request = json.dumps(client.request("hello"))
    await client.send(request.encode().ljust(rpc.FRAME_BYTES) + b"\n")
    assert (await client.receive())["id"] == 1
    await assert_lives(client)


async def test_largest_answer(serving: Serving, client: Client) -> None:
    """An answer that fits no frame is an error, which says that a write was done all the same."""
    with written_directly(serving.site) as call:
        for number in range(3):
            call("record.update" if number else "record.create", kind="prd", **({"id": "x"} if number else {}),
                 **{"set" if number else "record": {"title": "t", "content": "c" * (3 << 20), **(
                     {} if number else {"id": "x"})}})
    (answer,) = await client.ask(client.request("record.history", kind="prd", id="x"))
    assert "too many for one frame" in answer["error"]["message"]
    operations = [{"op": "update", "kind": "prd", "id": "x", "set": {"n": number}} for number in range(3)]
    (answer,) = await client.ask(client.request("store.apply", ops=operations))
    assert answer["error"]["data"]["applied"] == "yes"
    assert (await client.call("record.get", kind="prd", id="x"))["n"] == 2


async def test_oversize(client: Client, serving: Serving) -> None:
    """One byte more ends the connection, without the rest being awaited; what came before it is answered."""
    await client.send(client.request("hello"), client.request("record.create", kind="prd", record={"title": "t"}))
    with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - it may break at any of them
        for _ in range(1 << 15):
            await client.send(b"x" * (1 << 16))
    assert [(await client.receive())["id"] for _ in range(2)] == [1, 2]
    await assert_refused(client, rpc.INVALID_REQUEST, "8388608 bytes", ends=True)
    await assert_lives(await serving.connect())


async def test_connections(serving: Serving) -> None:
    """256 connections are served; the next is told so at once, and taken when another has ended."""
    clients = [await serving.connect() for _ in range(rpc.CONNECTIONS)]
    for client in clients:
        await assert_lives(client)
    for late in [await serving.connect() for _ in range(44)]:
        answer = await late.receive()
        assert answer["error"]["data"] == {"kind": "busy", "retryable": True, "applied": "no"}
        assert await late.line() == b""
    await clients[7].aclose()
    await wait_all_tasks_blocked()
    await assert_lives(await serving.connect())
    assert (await clients[0].call("daemon.status"))["connections"] == rpc.CONNECTIONS


async def test_slow_frame(mock_clock: MockClock, unwatched: Serving) -> None:
    """A frame must end within 10 s of its beginning, however its bytes trickle in; others notice nothing of it."""
    slow, other = await unwatched.connect(), await unwatched.connect()
    await slow.call("changes.subscribe")
    await slow.send(b'{"')
    await wait_all_tasks_blocked()
    for _ in range(9):
        mock_clock.jump(1)
        await slow.send(b"x")
        await wait_all_tasks_blocked()
        await assert_lives(other)
    mock_clock.jump(1.1)
    mock_clock.rate = 1.0  # the connection ends some time after it was told why
    await assert_refused(slow, rpc.INVALID_REQUEST, "10 s", ends=True)
    await assert_lives(other)


async def test_idle(mock_clock: MockClock, unwatched: Serving) -> None:
    """A connection may be silent for ever, and a frame that follows a whole one has 10 s of its own."""
    client = await unwatched.connect()
    await wait_all_tasks_blocked()
    mock_clock.jump(100_000)
    await assert_lives(client)
    frame = json.dumps(client.request("hello")).encode() + b"\n"
    await client.send(frame[:9])
    for _ in range(3):
        await wait_all_tasks_blocked()
        mock_clock.jump(9)
        await client.send(frame[9:] + frame[:9])
        assert (await client.receive())["result"]["protocol"] == rpc.PROTOCOL


async def test_time_to_finish_a_frame(mock_clock: MockClock, unwatched: Serving) -> None:
    """The time in which the server does not read does not count against the client."""
    client = await unwatched.connect()
    frame = json.dumps(client.request("hello")).encode() + b"\n"
    async with unwatched.server.engine.alone:
        many = [client.request("record.get", kind="prd", id="x") for _ in range(rpc.IN_FLIGHT + 1)]
        await client.send(*(json.dumps(one).encode() + b"\n" for one in many), frame[:9])
        await wait_all_tasks_blocked()
        mock_clock.jump(60)
        await wait_all_tasks_blocked()
    assert [(await client.receive())["id"] for _ in many] == [one["id"] for one in many]
    await client.send(frame[9:])
    assert (await client.receive())["result"]["protocol"] == rpc.PROTOCOL


@pytest.mark.parametrize("size", [0, 1 << 17])
async def test_in_flight(serving: Serving, client: Client, nursery_s: trio.Nursery, size: int) -> None:
    """Above 64 requests, or 8 MiB of them, in flight the server reads no further; nothing is refused."""
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    requests = [client.request("record.get", kind="prd", id="x" * size) for _ in range(300)]
    sent: list[int] = []

    async def send() -> None:
        for request in requests:
            await client.send(request)
            sent.append(request["id"])

    async with serving.server.engine.alone:
        nursery_s.start_soon(send)
        await wait_all_tasks_blocked()
        (running,) = serving.server._sessions
        taken = len(running._backlog._entries)
        if size:
            assert rpc.FRAME_BYTES // size <= taken <= rpc.FRAME_BYTES // size + 1, taken
        else:
            assert rpc.IN_FLIGHT < taken < 200
        assert len(sent) < 200
    assert [(await client.receive())["id"] for _ in requests] == [request["id"] for request in requests]


async def test_writes_in_flight(serving: Serving, client: Client) -> None:
    """Of hundreds of writes that come in one go, no more are on their way at a time than of other requests."""
    many = [client.request("record.create", kind="prd", record={"title": "t"}) for _ in range(600)]
    async with serving.server.engine.alone:
        await client.send(*many)
        await wait_all_tasks_blocked(0.05)
        assert rpc.IN_FLIGHT <= serving.server.committer.waiting <= 2 * rpc.IN_FLIGHT
    assert [(await client.receive())["id"] for _ in many] == [one["id"] for one in many]


@pytest.mark.parametrize("alone", [True, False])
async def test_answers_that_nobody_takes(serving: Serving, client: Client, *, alone: bool) -> None:
    """Who writes and takes no answers is soon read no further, so that few are kept; none is lost."""
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    requests = [client.request("record.create", kind="prd", record={"title": "t" * 4000}) for _ in range(300)]

    async def send() -> None:
        for request in requests:
            await client.send(request)
            if not alone:  # each comes when the one before is written, while others ask too
                await other.create()

    other = await serving.connect()
    running = next(iter(serving.server._sessions))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while not running._wire.is_sending:
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked(0.05)
        assert len(running._wire._following) <= rpc.IN_FLIGHT
        assert [(await client.receive())["id"] for _ in requests] == [one["id"] for one in requests]


async def test_long_answers(client: Client) -> None:
    """An answer ends at 4 MiB with a cursor; the pages that follow give the rest, each record once."""
    for number in range(9):
        await client.create(id=f"x{number}", content="c" * (1 << 20))
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        await client.send(client.request("record.list", kind="prd", order="id", cursor=cursor))
        line = await client.line()
        assert len(line) < rpc.ANSWER_BYTES + (1 << 16)
        page = json.loads(line)["result"]
        found += [item["id"] for item in page["items"]]
        cursor = page["cursor"]
        pages += 1
    assert found == [f"x{number}" for number in range(9)]
    assert pages == 3
    assert len((await client.call("record.list", kind="prd", order="id", limit=2))["items"]) == 2


async def test_largest_answer_to_a_batch(client: Client) -> None:
    """The answers to a batch are one frame of at most 8 MiB: those that do not fit say so."""
    await client.create(id="x", content="c" * (3 << 20))
    await client.send([client.request("record.get", kind="prd", id="x") for _ in range(5)])
    line = await client.line()
    assert len(line) <= rpc.FRAME_BYTES
    answers = json.loads(line)
    assert ["result" in answer for answer in answers] == [True, True, False, False, False]
    assert "too many for one frame" in answers[2]["error"]["message"]


async def test_waits_and_subscriptions(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits and subscriptions of one connection are many, and not without end."""
    monkeypatch.setattr(session, "WAITS", 3)
    monkeypatch.setattr(own_methods, "SUBSCRIPTIONS", 2)
    await client.create("dependency", id="d")
    waits: list[dict[str, Any]] = [client.request("dependency.wait", id="d") for _ in range(4)]
    await client.send(*waits)
    assert (await client.answer(waits[3]["id"]))["error"]["data"]["kind"] == "busy"
    for _ in range(2):
        await client.call("changes.subscribe")
    with pytest.raises(RpcError, match="2 subscriptions"):
        await client.call("changes.subscribe")
    await client.call("dependency.resolve", id="d")
    assert {(await client.answer(wait["id"]))["result"]["id"] for wait in waits[:3]} == {"d"}
