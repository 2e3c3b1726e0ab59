"""The asynchronous client, on anyio: the same calls as `Store`, awaited, under trio and asyncio.

    async with connect_async(".") as store:
        claim = await store.claim(by="agent-1")

Any number of tasks may share one: their calls go over one connection and are answered as they come. Without a daemon
the files are used, in a thread, one call at a time.
"""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import anyio
from anyio.abc import SocketAttribute, SocketStream

from taskstore_core import layout, rpc
from taskstore_core.errors import UnsupportedVersionError
from taskstore_core.methods import METHODS
from taskstore_core.paths import Paths, discover, named
from taskstore_core.presence import sockets
from taskstore_core.sockets import is_private, peer_uid
from taskstore_core.store import Store as Engine

from . import calls
from .calls import Call
from .changes import PAUSE_S, REACH_EVERY
from .connection import prepared
from .direct import Direct
from .events import BranchChanged, Changed, Resync, Tracker, typed
from .remote import GREETING_S, LostError, UnsendableError, encode, result_of

P = ParamSpec("P")
T = TypeVar("T")

_TRIES = 3
_BUFFERED = 16  # notifications read ahead; more wait at the daemon, which drops them for one resync


class _Link:
    """One connection to a daemon, shared by tasks; `run` reads the answers."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._framer = rpc.Framer()
        self._sending = anyio.Lock()
        self._number = 0
        self._answers: dict[int, tuple[anyio.Event, list[bytes]]] = {}
        self.notify: Callable[[str, dict[str, Any]], Awaitable[None]] | None = None
        self.lost: Callable[[], None] = lambda: None
        self.is_lost = False

    async def run(self) -> None:
        """Hand out answers until the connection ends."""
        try:
            while True:
                for frame in self._framer.feed(await self._stream.receive()):
                    await self._take(frame)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, rpc.OversizeError):
            self.lose()

    def lose(self) -> None:
        """Tell everybody who waits that there will be no answer."""
        self.is_lost = True
        self.lost()
        for event, _ in self._answers.values():
            event.set()

    async def _take(self, frame: bytes) -> None:
        beginning = b'{"jsonrpc":"2.0","id":'
        number, comma, rest = frame.removeprefix(beginning).partition(b",")
        if frame.startswith(beginning) and comma and number.isdigit():
            waiting = self._answers.pop(int(number), None)
            if waiting is not None:
                waiting[1].append(rest)
                waiting[0].set()
        elif self.notify is not None:
            message = json.loads(frame)
            await self.notify(message["method"], message["params"])

    async def call(self, method: str, parameters: dict[str, object]) -> Any:  # noqa: ANN401 - plain data
        """The answer of a method; raises its error, or LostError."""
        if self.is_lost:
            raise LostError("the daemon closed the connection")
        self._number += 1
        number, event, answer = self._number, anyio.Event(), list[bytes]()
        frame = encode(number, method, parameters)
        self._answers[number] = (event, answer)
        try:
            with anyio.CancelScope(shield=True):  # half of a frame would spoil the connection for the others
                async with self._sending:
                    await self._stream.send(frame)
            await event.wait()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise LostError(str(error)) from None
        finally:
            self._answers.pop(number, None)
        if not answer:
            raise LostError("the daemon closed the connection")
        return result_of(method, answer[0])

    async def close(self) -> None:
        """End the connection."""
        await self._stream.aclose()
        self.lose()


def _method(make: Callable[P, Call[T]]) -> "Callable[Concatenate[AsyncStore, P], Awaitable[T]]":
    """A method of `AsyncStore` that awaits the call which `make` makes."""
    @wraps(make)
    async def method(store: "AsyncStore", /, *arguments: P.args, **named: P.kwargs) -> T:
        return await store.run(make(*arguments, **named))

    return method


class AsyncStore:
    """A store of typed records for asynchronous programs; made by `connect_async`."""

    def __init__(self, paths: Paths, tasks: anyio.abc.TaskGroup, *, daemon: bool, start: bool) -> None:
        self._paths = paths
        self._tasks = tasks
        self.uses_daemon = daemon
        self._start = start
        self._link: _Link | None = None
        self._direct: Direct | None = None
        self._linking = anyio.Lock()
        self._alone = anyio.Lock()

    async def run(self, call: Call[T]) -> T:
        """Carry out a call."""
        return call.decode(await self._call(call.method, call.parameters))

    async def _call(self, method: str, parameters: dict[str, object]) -> Any:  # noqa: ANN401 - plain data
        for _ in range(_TRIES):
            link = await self._linked()
            if link is None:
                break
            parameters = prepared(method, parameters)
            try:
                return await link.call(method, parameters)
            except LostError:
                continue
            except UnsendableError:
                break
        return await self._call_directly(method, parameters)

    async def _linked(self) -> _Link | None:
        async with self._linking:
            if self.uses_daemon and (self._link is None or self._link.is_lost):
                self._link = await self.reach()
            return self._link

    async def reach(self) -> _Link | None:
        """A connection of one's own to the daemon; None where none answers."""
        stream = await self._knock()
        if stream is None and self._start:
            from .starting import start

            stream = await self._knock() if await anyio.to_thread.run_sync(start, self._paths) else None
        return await self._greet(stream) if stream is not None else None

    async def _knock(self) -> SocketStream | None:
        for path in sockets(self._paths, os.environ):
            if not is_private(os.path.dirname(path)):
                continue
            try:
                stream = await anyio.connect_unix(path)
            except OSError:
                continue
            if peer_uid(stream.extra(SocketAttribute.raw_socket)) == os.geteuid():  # noqa: S610 - anyio's, not Django's
                return stream
            await stream.aclose()
        return None

    async def _greet(self, stream: SocketStream) -> _Link | None:
        link = _Link(stream)
        self._tasks.start_soon(link.run)
        try:
            with anyio.fail_after(GREETING_S):
                greeting = await link.call("hello", {"protocol": [rpc.PROTOCOL, rpc.PROTOCOL],
                                                     "client": "taskstore for Python"})
        except (TimeoutError, LostError, UnsupportedVersionError):
            greeting = {}
        if greeting.get("store") == self._paths.directory:
            return link
        await link.close()
        return None

    async def look(self, work: "Callable[[Engine], T]") -> T:
        """Do something with the files, in a thread, when nobody else does."""
        async with self._alone:
            return await anyio.to_thread.run_sync(lambda: work(self._opened().engine))

    async def _call_directly(self, method: str, parameters: dict[str, object]) -> Any:  # noqa: ANN401 - plain data
        row = METHODS.get(method)
        if row is not None and row.waits:
            return await self._wait(parameters)
        async with self._alone:
            return await anyio.to_thread.run_sync(lambda: self._opened().call(method, parameters))

    async def _wait(self, parameters: dict[str, object]) -> Any:  # noqa: ANN401 - plain data
        """Wait for a dependency without keeping others from the files."""
        timeout = parameters.get("timeout_ms")
        answer: Any = None
        with anyio.move_on_after(timeout / 1000 if isinstance(timeout, int) else None):
            while True:
                answer = await self._call_directly("record.get", {"kind": "dependency", "id": parameters["id"]})
                if json.loads(answer).get("resolved_at") is not None:
                    return answer
                await anyio.sleep(PAUSE_S)
        return answer or await self._call_directly("record.get", {"kind": "dependency", "id": parameters["id"]})

    def _opened(self) -> Direct:
        if self._direct is None:
            self._direct = Direct(Engine(self._paths))
        return self._direct

    async def close(self) -> None:
        """Let go of everything."""
        if self._link is not None:
            await self._link.close()
        if self._direct is not None:
            await anyio.to_thread.run_sync(self._direct.close)

    def changes(self, *, kinds: Sequence[str] | None = None, where: dict[str, object] | None = None,
                since: str | None = None) -> "AsyncChanges":
        """What changes from now on, or after the cursor `since`: `async with` it, then `async for`."""
        return AsyncChanges(self, Tracker(kinds, where, since))

    create = _method(calls.create)
    get = _method(calls.get)
    update = _method(calls.update)
    delete = _method(calls.delete)
    list = _method(calls.list_records)
    page = _method(calls.page)
    history = _method(calls.history)
    restore = _method(calls.restore)
    apply = _method(calls.apply)

    ready = _method(calls.ready)
    claim = _method(calls.claim)
    heartbeat = _method(calls.heartbeat)
    complete = _method(calls.complete)
    fail = _method(calls.fail)
    release = _method(calls.release)
    resolve_dependency = _method(calls.resolve_dependency)
    wait_dependency = _method(calls.wait_dependency)

    sync = _method(calls.sync)
    stats = _method(calls.stats)
    check = _method(calls.check)
    resolve_conflicts = _method(calls.resolve_conflicts)


class AsyncChanges:
    """An asynchronous iterator over `Changed`, `Resync` and `BranchChanged` that reconnects and goes on."""

    def __init__(self, store: AsyncStore, tracker: Tracker) -> None:
        self._store = store
        self._tracker = tracker
        self._link: _Link | None = None
        self._looks = 0

    @property
    def cursor(self) -> str:
        """Where it is; given as `since` later, another goes on from there."""
        return self._tracker.cursor or ""

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._link is not None:
            with anyio.CancelScope(shield=True):
                await self._link.close()

    async def __aiter__(self) -> AsyncIterator[Changed | Resync | BranchChanged]:
        while True:
            while self._tracker.waiting:
                yield typed(self._tracker.waiting.pop(0))
            await self._wait()

    async def _begin(self) -> None:
        self._link = await self._store.reach() if self._store.uses_daemon else None
        if self._link is None:
            await self._store.look(self._tracker.look)
            return
        self._send, self._receive = anyio.create_memory_object_stream[tuple[str, dict[str, Any]]](_BUFFERED)
        self._link.notify = self._notify
        self._link.lost = self._send.close
        try:
            self._tracker.begin(await self._link.call("changes.subscribe", self._tracker.wanted()))
        except LostError:
            await self._lose()

    async def _notify(self, method: str, parameters: dict[str, Any]) -> None:
        await self._send.send((method, parameters))

    async def _lose(self) -> None:
        await anyio.sleep(PAUSE_S)  # a daemon that is being started anew needs a moment
        await self._begin()

    async def _wait(self) -> None:
        """Wait for something to tell."""
        if self._link is not None:
            try:
                self._tracker.take(*await self._receive.receive())
            except anyio.EndOfStream:
                await self._lose()
            return
        await anyio.sleep(PAUSE_S)
        self._looks += 1
        if self._looks % REACH_EVERY == 0:
            await self._begin()
        else:
            await self._store.look(self._tracker.look)


@asynccontextmanager
async def connect_async(path: str = ".", *, directory: str | None = None,
                        daemon: bool = True, start: bool = False) -> AsyncIterator[AsyncStore]:
    """A store for asynchronous programs, through the daemon where one answers, else by its files.

    `start` (or TASKSTORE_AUTOSTART=1 in the environment) starts a daemon where none runs.
    Raises NoStoreError where there is none, UnsupportedVersionError for one of a newer release.
    """
    paths = named(directory) if directory is not None else discover(path)
    layout.read_version(paths)
    async with anyio.create_task_group() as tasks:
        store = AsyncStore(paths, tasks, daemon=daemon,
                           start=start or os.environ.get("TASKSTORE_AUTOSTART") == "1")
        try:
            yield store
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()
            tasks.cancel_scope.cancel()
