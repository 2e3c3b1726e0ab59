"""A server in the test's own event loop, on a real socket over a real store in a git repository; or one in a process.

The client is a socket and lines of JSON, nothing of ours, so that what is tested is what any other client would see.
"""

import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from tests.conftest import PATIENCE_S, Site
from tests.daemons import running_daemon
from trio.testing import MockClock

from taskstore_core.paths import discover
from taskstore_core.sockets import socket_path
from taskstore_daemon import listener
from taskstore_daemon.server import Server

if TYPE_CHECKING:
    import subprocess


class RpcError(Exception):
    """The error of an answer."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = error["code"]
        self.data: dict[str, Any] = error.get("data", {})


class Client:
    """One connection: lines out, lines in. Messages that were read while another was looked for are kept."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.kept: list[Any] = []
        self._number = 0
        self._buffer = b""

    async def send(self, *messages: object) -> None:
        """Send messages, or bytes as they are, in one go."""
        await self.stream.send_all(b"".join(
            one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in messages))

    async def line(self) -> bytes:
        """The next line; b"" at the end."""
        while b"\n" not in self._buffer:
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                data = b""
            if not data:
                assert not self._buffer, "the connection ends in the middle of a frame"
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    async def receive(self) -> Any:
        """The next message; None at the end."""
        if self.kept:
            return self.kept.pop(0)
        line = await self.line()
        return json.loads(line) if line else None

    async def answer(self, id_: object) -> Any:
        """The answer with an id, with everything before it kept."""
        for number, message in enumerate(self.kept):
            if isinstance(message, dict) and "method" not in message and message["id"] == id_:
                return self.kept.pop(number)
        while True:
            line = await self.line()
            assert line, f"the connection ended before the answer to {id_}"
            message = json.loads(line)
            if isinstance(message, dict) and "method" not in message and message["id"] == id_:
                return message
            self.kept.append(message)

    async def event(self, method: str = "changes.event") -> Any:
        """The parameters of the next notification, which must be of `method`."""
        message = await self.receive()
        assert message["method"] == method, message
        return message["params"]

    def request(self, method: str, **parameters: object) -> dict[str, Any]:
        """A request with a number of its own."""
        self._number += 1
        return {"jsonrpc": "2.0", "id": self._number, "method": method, "params": parameters}

    async def ask(self, *requests: dict[str, Any]) -> list[Any]:
        """The answers to requests that are sent in one go."""
        await self.send(*requests)
        return [await self.answer(one["id"]) for one in requests]

    async def call(self, method: str, **parameters: object) -> Any:
        """The result of one call; raises RpcError."""
        (answer,) = await self.ask(self.request(method, **parameters))
        return result_of(answer)

    async def create(self, kind: str = "prd", **fields: object) -> Any:
        """Create a record with what it must have."""
        needed = {"prd": {"title": "a title"}, "task_spec": {"prd_id": "p", "phase_name": "a phase"},
                  "execution": {"ts_id": "t"}, "workflow": {"name": "w"},
                  "dependency": {"from_exec_id": "a", "to_exec_id": "b", "dependency_type": "query"}}
        return await self.call("record.create", kind=kind, record={**needed[kind], **fields})

    async def aclose(self) -> None:
        """End the connection."""
        await self.stream.aclose()


def result_of(answer: dict[str, Any]) -> Any:
    """The result in an answer; raises RpcError."""
    assert answer["jsonrpc"] == "2.0"
    if "error" in answer:
        raise RpcError(answer["error"])
    return answer["result"]


class Serving:
    """A server that runs in the test's loop, and the clients that are connected to it."""

    def __init__(self, site: Site, nursery: trio.Nursery, *, use_inotify: bool = True) -> None:
        self.site = site
        self.path = os.fspath(site.root.parent / "run" / "socket")
        self.server = Server(discover(os.fspath(site.root)), self.path, use_inotify=use_inotify)
        self._nursery = nursery
        self._clients: list[Client] = []

    async def start(self) -> None:
        """Return once connections are taken."""
        await self._nursery.start(self.server.run, listener.as_trio(listener.listen(self.path)))

    async def connect(self) -> Client:
        """Another connection."""
        self._clients.append(Client(await trio.open_unix_socket(self.path)))
        return self._clients[-1]

    async def end(self) -> None:
        """Close everything, and see the server out."""
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, MockClock):
            clock.rate = 1.0  # what waits for its time gets it now
        for client in self._clients:
            await client.aclose()
        self.server.stop("the test is over")
        await self.server.stopped.wait()


@pytest.fixture
async def nursery_s(nursery: trio.Nursery, long: bool) -> trio.Nursery:
    """The test's nursery, which gives up on a test that hangs."""
    async def watch() -> None:
        await trio.sleep(PATIENCE_S * (30 if long else 1))
        raise AssertionError("the test hangs")

    if not isinstance(trio.lowlevel.current_clock(), MockClock):
        nursery.start_soon(watch)
    return nursery


@pytest.fixture
async def serving(site: Site, nursery_s: trio.Nursery) -> AsyncIterator[Serving]:
    """A server."""
    made = Serving(site, nursery_s)
    await made.start()
    yield made
    await made.end()


@pytest.fixture
async def unwatched(site: Site, nursery_s: trio.Nursery) -> AsyncIterator[Serving]:
    """A server that nobody tells of changes, and that never looks by itself."""
    made = Serving(site, nursery_s, use_inotify=False)

    async def no_look() -> None:
        await trio.lowlevel.checkpoint()

    made.server.watcher.look = no_look  # type: ignore[method-assign]
    await made.start()
    yield made
    await made.end()


@pytest.fixture
async def client(serving: Serving) -> Client:
    """A connection to the server."""
    return await serving.connect()


class Daemon:
    """A daemon as a process."""

    def __init__(self, site: Site, process: "subprocess.Popen[bytes]") -> None:
        self.site = site
        self.process = process
        self.path = socket_path(os.fspath(site.directory), os.environ)

    async def connect(self) -> Client:
        """A connection to it."""
        return Client(await trio.open_unix_socket(self.path))


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    """`python -m taskstore_daemon` on a store."""
    with running_daemon(os.fspath(site.directory)) as process:
        yield Daemon(site, process)


@contextlib.contextmanager
def written_directly(site: Site) -> Iterator[Callable[..., Any]]:
    """What calls methods on the files, past the daemon, as another process would."""
    from taskstore_core.methods import dispatch

    with site.open() as store:
        yield lambda method, **parameters: dispatch(store, method, parameters)


def append(path: Path, **record: object) -> None:
    """Add a line to a log as an editor would."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
