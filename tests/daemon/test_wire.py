"""A socket that is read: at once from whoever asks at once, and never so that others have no turn."""

import socket
from collections.abc import Iterator

import pytest
import trio

from taskstore_daemon import wire
from taskstore_daemon.wire import Wire


class Asker:
    """A client of a wire."""

    def __init__(self) -> None:
        self.ours, self.other = socket.socketpair()
        self.ours.setblocking(False)
        self.wire = Wire(self.ours)

    async def ask(self, times: int = 1) -> None:
        """Have a request there, and read it."""
        for _ in range(times):
            self.other.send(b"{}\n")
            assert await self.wire.receive() == [b"{}\n"]

    def close(self) -> None:
        self.ours.close()
        self.other.close()


@pytest.fixture
def askers() -> Iterator[tuple[Asker, Asker]]:
    both = Asker(), Asker()
    yield both
    for one in both:
        one.close()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was waited for, so that others had their turn. However slow the machine, whoever asks at once is in time."""
    waits: list[object] = []
    real = trio.lowlevel.wait_readable

    async def wait_readable(sock: socket.socket) -> None:
        waits.append(sock)
        await real(sock)

    monkeypatch.setattr(trio.lowlevel, "wait_readable", wait_readable)
    monkeypatch.setattr(wire, "_PROMPT_S", 60.0)
    monkeypatch.setattr(wire, "_TURN_S", 60.0)
    return waits


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
