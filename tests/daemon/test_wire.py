"""A socket that is read: at once from whoever asks at once, and never so that others have no turn."""

import socket
from collections.abc import Callable, Iterator

import pytest
import trio
from tests.conftest import PATIENCE_S
from trio.testing import wait_all_tasks_blocked

from taskstore_daemon import wire
from taskstore_daemon.poller import Poller
from taskstore_daemon.wire import GoneError, Wire


class Asker:
    """A client of a wire. `dealt_with` are the messages that it took without `receive`, `plain` those that it may."""

    def __init__(self, poller: Poller) -> None:
        self.ours, self.other = socket.socketpair()
        self.ours.setblocking(False)
        self.plain: set[bytes] = set()
        self.dealt_with: list[bytes] = []
        self.received: list[list[bytes]] = []
        self.wire = Wire(self.ours, poller, self._take)

    def _take(self, message: bytes) -> bool:
        if message == b"fault\n":
            raise ZeroDivisionError
        if message == b"close\n":
            self.wire.close()
        if message in self.plain:
            self.dealt_with.append(message)
        return message in self.plain

    async def ask(self, times: int = 1) -> None:
        """Have a request there, and read it."""
        for _ in range(times):
            self.other.send(b"{}\n")
            assert await self.wire.receive() == [b"{}\n"]

    async def receive(self) -> None:
        """Read once, for whoever looks at `received` later."""
        self.received.append(await self.wire.receive())

    def close(self) -> None:
        self.wire.close()
        self.other.close()


class Waits(Poller):
    """`waits` are the sockets that were waited for, so that others had their turn."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[object] = []

    async def wait(self, sock: socket.socket, take: Callable[[], bytes | None]) -> bytes:
        self.waits.append(sock)
        return await super().wait(sock, take)


@pytest.fixture(name="poller")
async def fixture_poller(nursery: trio.Nursery) -> Waits:
    poller = Waits()
    nursery.start_soon(poller.run)
    return poller


@pytest.fixture
def askers(poller: Waits) -> Iterator[tuple[Asker, Asker]]:
    both = Asker(poller), Asker(poller)
    yield both
    for one in both:
        one.close()


@pytest.fixture
def waits(poller: Waits) -> list[object]:
    return poller.waits


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, whoever asks at once is in time."""
    monkeypatch.setattr(wire, "_PROMPT_S", 60.0)
    monkeypatch.setattr(wire, "_TURN_S", 60.0)


async def test_who_asks_at_once_is_read_at_once(askers: tuple[Asker, Asker], waits: list[object]) -> None:
    """Once it has asked again at once, what it asks next is read with nothing in between."""
    one, _ = askers
    await one.ask(2)
    assert waits == [one.ours] * 2
    await one.ask(5)
    assert waits == [one.ours] * 2


async def test_who_takes_its_time_is_waited_for(askers: tuple[Asker, Asker], waits: list[object],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is looked for who was not there at once the last time."""
    one, _ = askers
    monkeypatch.setattr(wire, "_PROMPT_S", 0.0)
    await one.ask(5)
    assert waits == [one.ours] * 5


async def test_others_have_their_turn(askers: tuple[Asker, Asker], waits: list[object],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """After some milliseconds, however prompt it is."""
    one, _ = askers
    await one.ask(3)
    monkeypatch.setattr(wire, "_TURN_S", 0.0)
    await one.ask()
    assert waits == [one.ours] * 3


async def test_where_others_ask_nobody_is_looked_for(askers: tuple[Asker, Asker], waits: list[object]) -> None:
    """Of several that ask each is waited for."""
    one, other = askers
    await one.ask(3)
    await other.ask()
    await one.ask()
    await other.ask()
    assert waits == [one.ours, one.ours, other.ours, one.ours, other.ours]


async def test_who_asks_no_more_is_waited_for(askers: tuple[Asker, Asker], waits: list[object]) -> None:
    """A client that was prompt and is not is looked for once, and not the next time."""
    one, _ = askers
    await one.ask(3)
    with trio.move_on_after(0):
        await one.wire.receive()
    assert waits == [one.ours] * 3
    with trio.move_on_after(0):
        await one.wire.receive()
    await one.ask()
    assert waits == [one.ours] * 5


async def test_what_is_taken_wakes_nobody(askers: tuple[Asker, Asker], nursery: trio.Nursery) -> None:
    """A message that comes alone, where others ask too, is dealt with as it comes; the next is received as ever."""
    one, other = askers
    one.plain = {b"a\n", b"b\n"}
    nursery.start_soon(one.receive)
    for message in (b"a\n", b"b\n"):
        await other.ask()
        one.other.send(message)
        await wait_all_tasks_blocked()
    assert (one.dealt_with, one.received) == ([b"a\n", b"b\n"], [])
    await other.ask()
    one.other.send(b"a\nb\n")  # two
    await wait_all_tasks_blocked()
    assert (one.dealt_with, one.received) == ([b"a\n", b"b\n"], [[b"a", b"b"]])


async def test_parts_of_messages_are_not_taken(askers: tuple[Asker, Asker], nursery: trio.Nursery) -> None:
    """What ends a message that began before is no message."""
    one, other = askers
    one.plain = {b"b\n"}
    nursery.start_soon(one.receive)
    for part in (b"a", b"b\n"):
        one.other.send(part)
        await wait_all_tasks_blocked()
        await other.ask()
    assert (one.dealt_with, one.received) == ([], [[b"ab"]])


async def test_who_asks_alone_is_received(askers: tuple[Asker, Asker], waits: list[object]) -> None:
    """Nothing is taken from a client that nobody else came after, as it may be a prompt one."""
    one, _ = askers
    await one.ask()
    one.plain = {b"{}\n"}
    with trio.fail_after(PATIENCE_S):
        await one.ask(3)
    assert waits == [one.ours] * 2


async def test_a_fault_is_for_whoever_waits(askers: tuple[Asker, Asker]) -> None:
    """What goes wrong in taking a message ends that connection, and the others are read on."""
    one, other = askers
    await other.ask()
    one.other.send(b"fault\n")
    with pytest.raises(ZeroDivisionError):
        await one.wire.receive()
    await other.ask()


async def test_who_is_not_read_costs_nothing(askers: tuple[Asker, Asker]) -> None:
    """What comes for one whom nobody reads is told of once, and is there when somebody does."""
    one, other = askers
    await one.ask()
    one.other.send(b"later\n")
    await other.ask(2)
    with trio.fail_after(PATIENCE_S):
        await wait_all_tasks_blocked()
    assert await one.wire.receive() == [b"later\n"]
    one.other.send(b"last\n")
    one.other.close()
    await other.ask()
    assert await one.wire.receive() == [b"last\n"]
    assert await one.wire.receive() == []


async def test_closing_wakes_who_waits(askers: tuple[Asker, Asker], nursery: trio.Nursery) -> None:
    """A connection that is closed here is gone for whoever waits for it, and for whoever asks later."""
    one, other = askers
    ended: list[str] = []

    async def receive() -> None:
        with pytest.raises(GoneError):
            await one.receive()
        ended.append("gone")

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    one.wire.close()
    await wait_all_tasks_blocked()
    assert ended == ["gone"]
    with pytest.raises(GoneError):
        await one.wire.receive()
    await other.ask()


async def test_a_message_may_close_its_connection(askers: tuple[Asker, Asker]) -> None:
    """Whoever waits for it hears of that, and the others are read on."""
    one, other = askers
    await other.ask()
    one.other.send(b"close\n")
    with pytest.raises(GoneError):
        await one.wire.receive()
    await other.ask()


async def test_one_task_reads(askers: tuple[Asker, Asker], nursery: trio.Nursery, poller: Waits) -> None:
    """A second one is refused, and the first gets what comes."""
    one, _ = askers
    nursery.start_soon(one.receive)
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError):
        await poller.wait(one.ours, bytes)
    one.other.send(b"{}\n")
    await wait_all_tasks_blocked()
    assert one.received == [[b"{}\n"]]
