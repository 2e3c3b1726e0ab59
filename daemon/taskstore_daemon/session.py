"""One connection: frames in, answers out, in order.

Most calls are answered where they are read, with no task or thread of their own. Neighbouring writes are handed to
the engine together. What takes long waits in a queue behind which later calls line up, while the connection is read
on, so that it can be cancelled. Waiting for a dependency and notifications keep no order.
"""

import contextlib
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import orjson
import trio

from taskstore_core import rpc
from taskstore_core.errors import InvalidError, TaskStoreError, UnsupportedVersionError
from taskstore_core.kinds import find_kind
from taskstore_core.plain import to_json
from taskstore_core.request import Outcome
from taskstore_core.rpc import Call, Fault, Framer, OversizeError

from .answer import NoMethodError, Work, bad_parameters, refusal
from .long_answers import cut_list, wait
from .subscriptions import Subscription

if TYPE_CHECKING:
    from .server import Server

Message = Call | Fault | list[Call | Fault]
_READ = 1 << 16
_BY_ITSELF = frozenset({"changes.subscribe", "changes.unsubscribe", "daemon.shutdown"})


class Session:
    """A connection of the server."""

    def __init__(self, sock: trio.socket.SocketType, server: "Server") -> None:
        self.server = server
        self.engine = server.engine
        self.subscriptions: dict[int, Subscription] = {}
        self._sock = sock
        self._framer = Framer()
        self._sending = trio.Lock()
        self._queue: deque[Message] = deque()
        self._queued = trio.Event()
        self._room = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._cancelled: set[str] = set()
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serve the connection until the other end or the server closes it."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._work)
            try:
                await self._read()
                await self._idle.wait()
            except (OSError, trio.ClosedResourceError):
                pass  # gone: what it asked for is done or not done all the same
            finally:
                for subscription in self.subscriptions.values():
                    self.server.subscriptions.discard(subscription)
                nursery.cancel_scope.cancel()

    def close_soon(self) -> None:
        """Take no more calls; what was taken is answered, then the connection ends."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def start(self, subscription: Subscription) -> None:
        """Have a subscription's events sent."""
        assert self._nursery is not None  # noqa: S101 - only a running session subscribes
        self._nursery.start_soon(subscription.run, self.send)

    async def send(self, data: bytes) -> None:
        """Send whole frames; one sender at a time."""
        if not data:
            return
        async with self._sending:
            view = memoryview(data)
            while view:
                view = view[await self._sock.send(view):]

    # Reading

    async def _read(self) -> None:
        while data := await self._receive():
            try:
                frames = self._framer.feed(data)
            except OversizeError:
                await self.send(rpc.error("null", rpc.INVALID_REQUEST,
                                          f"Invalid Request: a frame of more than {rpc.FRAME_BYTES} bytes"))
                return
            await self._take(deque(rpc.parse(frame, orjson.loads) for frame in frames))
            while len(self._queue) > rpc.IN_FLIGHT:
                self._room = trio.Event()
                await self._room.wait()

    async def _receive(self) -> bytes:
        if not self._framer.is_partial:
            return await self._sock.recv(_READ)
        with trio.move_on_after(rpc.FRAME_S):
            return await self._sock.recv(_READ)
        await self.send(rpc.error("null", rpc.INVALID_REQUEST,
                                  f"Invalid Request: a frame took more than {rpc.FRAME_S} s"))
        return b""

    async def _take(self, messages: deque[Message]) -> None:
        """Answer what can be answered at once; put the rest into the queue, behind what is there."""
        answers: list[bytes] = []
        while messages:
            if self._idle.is_set():
                answered = self._answer_now(messages[0])
                if answered is not None:
                    answers.append(answered)
                    messages.popleft()
                    continue
                if writes := self._leading_writes(messages):
                    await self.send(b"".join(answers))
                    answers = [await self._write(writes)]
                    continue
            await self.send(b"".join(answers))
            answers = []
            self._enqueue(messages)
        await self.send(b"".join(answers))

    def _enqueue(self, messages: deque[Message]) -> None:
        while messages:
            message = messages.popleft()
            if isinstance(message, Call) and message.method == "$/cancelRequest":
                self._cancel(message)
                continue
            self._queue.append(message)
            self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._queued.set()

    async def _work(self) -> None:
        """Answer what is in the queue, in order."""
        while True:
            await self._queued.wait()
            self._queued = trio.Event()
            while self._queue:
                message = self._queue[0]
                answer = await self._answer(message)
                self._queue.popleft()
                self._room.set()
                await self.send(answer)
            self._idle.set()

    # Answering

    def _answer_now(self, message: Message) -> bytes | None:  # noqa: PLR0911 - one for each kind of message
        """The answer to a message that needs no waiting; None if it does."""
        if isinstance(message, Fault):
            return rpc.error(message.id, message.code, message.message)
        if isinstance(message, list):
            return None
        if message.method == "$/cancelRequest":
            self._cancel(message)
            return b""
        began = time.perf_counter()
        try:
            work = self._work_of(message)
            if isinstance(work, bytes):
                return work
            if work.method.request is not None or work.method.waits or work.is_long or message.method in _BY_ITSELF:
                return None
            if message.method in self.server.own:
                result: Any = work.method.function(self, **work.parameters) if work.method.function else None
            elif self.engine.is_fresh(work.kinds()):
                result = self._short(work)
                if result is None:
                    return None
            else:
                return None
            return self._done(message, to_json(result), began)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it
            return self._failed(message, error, began)

    def _short(self, work: Work) -> Any:  # noqa: ANN401 - plain data
        """The answer to a read on the loop; None where it turns out to be long."""
        function = work.method.function
        assert function is not None  # noqa: S101 - it does not write
        short = work.short_list()
        result: Any = self.engine.store.trusting(lambda store: function(store, **(short or work.parameters)))
        return None if short is not None and result["cursor"] is not None else result

    def _work_of(self, call: Call) -> "Work | bytes":
        """The call in order, or the answer that says what is wrong with it."""
        try:
            return Work(call, self.server.methods)
        except (InvalidError, NoMethodError) as error:
            if call.id == "":
                return b""
            made = bad_parameters(call.id, error) if isinstance(error, InvalidError) else refusal(call.id, error)
            self.server.metrics.requests.note(call.method if made[1] == "invalid_params" else "?", made[1], 0.0)
            return made[0]

    def _leading_writes(self, messages: deque[Message]) -> list[Work]:
        """The writes at the head of `messages`, taken from it; those that are out of order stay."""
        works: list[Work] = []
        while messages and isinstance(call := messages[0], Call):
            method = self.server.methods.get(call.method)
            if method is None or method.request is None:
                break
            work = self._work_of(call)
            if isinstance(work, bytes):
                break
            works.append(work)
            messages.popleft()
        return works

    async def _write(self, works: list[Work]) -> bytes:
        """Carry out writes together; their answers in order."""
        began = time.perf_counter()
        requests, failed = [], {}
        for number, work in enumerate(works):
            try:
                assert work.method.request is not None  # noqa: S101 - it writes
                requests.append(work.method.request(**work.parameters))
            except TaskStoreError as error:
                failed[number] = error
        with trio.CancelScope(shield=True):  # what was begun is finished, whoever has gone
            outcomes = iter(await self.engine.write(requests) if requests else [])
        answers = []
        for number, work in enumerate(works):
            outcome = failed.get(number) or next(outcomes)
            if isinstance(outcome, Outcome):
                meta = await self._meta(work)
                answers.append(self._done(work.call, to_json(outcome.result), began, meta))
            else:
                answers.append(self._failed(work.call, outcome, began))
        return b"".join(answers)

    async def _meta(self, work: Work) -> str:
        if not work.flush:
            return ""
        return f',"meta":{{"flushed":{to_json(await self.engine.flush())}}}'

    async def _answer(self, message: Message) -> bytes:  # noqa: PLR0911 - one for each kind of message
        """The answer to any message, however long it takes."""
        if isinstance(message, list):
            return await self._answer_batch(message)
        if isinstance(message, Call) and message.id in self._cancelled:
            self._cancelled.discard(message.id)
            return rpc.error(message.id, rpc.CANCELLED, "Request cancelled")
        answered = self._answer_now(message)
        if answered is not None or isinstance(message, Fault):
            return answered or b""
        work = self._work_of(message)
        if isinstance(work, bytes):
            return work
        if work.method.request is not None:
            return await self._write([work])
        if work.method.waits:
            assert self._nursery is not None  # noqa: S101 - it runs
            self._nursery.start_soon(self._answer_later, work)
            return b""
        return await self._answer_slowly(work)

    async def _answer_batch(self, messages: list[Call | Fault]) -> bytes:
        """The answers to a batch, in order; neighbouring writes share a commit."""
        answers: list[bytes] = []
        left: deque[Message] = deque(messages)
        while left:
            if writes := self._leading_writes(left):
                answers += (await self._write(writes)).splitlines()
                continue
            message = left.popleft()
            work = self._work_of(message) if isinstance(message, Call) else b""
            waits = isinstance(work, Work) and work.method.waits
            answers.append(await self._answer_slowly(work) if waits and isinstance(work, Work)
                           else await self._answer(message))
        return rpc.batch([answer for answer in answers if answer])

    async def _answer_later(self, work: Work) -> None:
        await self.send(await self._answer_slowly(work))

    async def _answer_slowly(self, work: Work) -> bytes:
        began = time.perf_counter()
        scope = self._scopes[work.call.id] = trio.CancelScope()
        try:
            with scope:
                return self._done(work.call, await self._result(work), began)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it
            return self._failed(work.call, error, began)
        finally:
            self._scopes.pop(work.call.id, None)
        return rpc.error(work.call.id, rpc.CANCELLED, "Request cancelled") if work.call.id else b""

    async def _result(self, work: Work) -> str:
        function = work.method.function
        assert function is not None  # noqa: S101 - what writes goes another way
        if work.method.name in self.server.own:
            result = function(self, **work.parameters)
            return to_json(await result if hasattr(result, "__await__") else result)
        if work.method.waits:
            return to_json(await wait(self.engine, **work.parameters))  # type: ignore[arg-type]  # looked at by Work
        if work.method.name == "record.list":
            return await self.engine.at_length(lambda store: cut_list(store, function, work.parameters))
        if work.is_long:
            return await self.engine.at_length(lambda store: to_json(function(store, **work.parameters)))
        return await self.engine.in_thread(lambda store: to_json(function(store, **work.parameters)))

    def _cancel(self, call: Call) -> None:
        id_ = to_json(call.parameters.get("id")) if isinstance(call.parameters, dict) else ""
        if id_ in self._scopes:
            self._scopes[id_].cancel()
        elif any(isinstance(message, Call) and message.id == id_ for message in self._queue):
            self._cancelled.add(id_)

    def _done(self, call: Call, text: str, began: float, meta: str = "") -> bytes:
        self.server.metrics.requests.note(call.method, "ok", time.perf_counter() - began)
        if call.id == "":
            return b""
        if len(text) > rpc.FRAME_BYTES - 1024:
            return self._failed(call, InvalidError(f"the answer has {len(text)} characters, too many for one frame",
                                                   hint="ask for less at once"), began)
        return f'{{"jsonrpc":"2.0","id":{call.id},"result":{text}{meta}}}\n'.encode()

    def _failed(self, call: Call, error: Exception, began: float) -> bytes:
        frame, outcome = refusal(call.id, error)
        self.server.metrics.requests.note(call.method, outcome, time.perf_counter() - began)
        return frame if call.id else b""

    # What only a daemon answers

    def hello(self, protocol: list[object] | None = None, client: str = "",
              capabilities: dict[str, object] | None = None) -> dict[str, object]:  # noqa: ARG002 - none so far
        """Who answers; raises UnsupportedVersionError where the ranges of protocols do not meet."""
        low, high = (*(protocol or [rpc.PROTOCOL]), rpc.PROTOCOL)[:2] if protocol else (rpc.PROTOCOL, rpc.PROTOCOL)
        if not isinstance(low, int) or not isinstance(high, int):
            raise InvalidError("protocol: must be [least, greatest]", field="protocol")
        if not low <= rpc.PROTOCOL <= high:
            raise UnsupportedVersionError(
                f"this daemon speaks protocol {rpc.PROTOCOL}, {client or 'the client'} {low} to {high}",
                hint="taskstore daemon stop, then try again; or --no-daemon")
        return self.server.greeting()

    async def subscribe(self, kinds: list[object] | None = None, where: dict[str, object] | None = None,
                        since: str | None = None) -> dict[str, object]:
        """Begin to send changes."""
        names = [find_kind(str(kind)).name for kind in kinds] if kinds is not None else None
        subscription, cursor, fresh = await self.server.publisher.subscribe(self, names, where, since)
        return {"subscription": subscription.number, "cursor": cursor, "fresh": fresh}

    def unsubscribe(self, subscription: int) -> dict[str, object]:
        """Send no more of them."""
        found = self.subscriptions.pop(subscription, None)
        if found is None:
            raise InvalidError(f"there is no subscription {subscription} on this connection", field="subscription")
        self.server.subscriptions.discard(found)
        found.end()
        return {"subscription": subscription}

    def status(self) -> dict[str, object]:
        """Who serves, and how far behind."""
        return self.server.status()

    def metrics(self) -> dict[str, object]:
        """What was counted."""
        return {"text": self.server.metrics_text()}

    def shutdown(self) -> dict[str, object]:
        """Leave, once this is answered."""
        self.server.stop("asked to by a client")
        return {"pid": self.server.pid}

    def discover(self) -> dict[str, object]:
        """The OpenRPC document."""
        from .openrpc import document

        return document(self.server.methods)
