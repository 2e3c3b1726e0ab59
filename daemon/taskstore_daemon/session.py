"""One connection: what is asked on it is answered in order, waits and notifications excepted.

Most calls are answered where they are read, with no task or thread of their own, and neighbouring writes go to the
committer together. What takes longer goes into a backlog, behind which later calls line up while the connection is
read on, so that they can be cancelled.
"""

import socket
import time
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

import trio

from taskstore_core import rpc
from taskstore_core.errors import BusyError
from taskstore_core.plain import to_json
from taskstore_core.rpc import Call, Fault

from .answerer import Answerer, loads
from .backlog import Backlog, Entry, runs
from .plain_writes import plain_write
from .subscriptions import Subscription
from .turn import Turn
from .wire import PENALTY_S, FrameError, GoneError, Wire
from .work import Work

if TYPE_CHECKING:
    from .server import Server

WAITS = 1024
"""Waits of one connection at the most."""
_LOOK_S = 1.0


class Session:
    """A connection of the server."""

    def __init__(self, sock: socket.socket, server: "Server") -> None:
        self.server = server
        self.subscriptions: dict[int, Subscription] = {}
        self._wire = Wire(sock, server.poller, self._take_at_once)
        self._answerer = Answerer(self)
        self._lookups = server.lookups
        self._committer = server.committer
        self._replies = server.replies
        self._backlog = Backlog()
        self._is_working = False
        self._is_faulty = False
        self._waiting: set[Entry] = set()
        self._new: list[Subscription] = []
        self._change = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serve the connection until the other end or the server closes it."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    await self._read()
                    await self._linger()
                except GoneError:
                    pass  # what it asked for is done or not done all the same
                finally:
                    for subscription in self.subscriptions.values():
                        self.server.publisher.forget(subscription)
                    nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self._wire.close()

    def close_soon(self) -> None:
        """Take no more calls; what was taken is answered, then the connection ends."""
        self._wire.stop_receiving()
        self._change.set()

    def add(self, subscription: Subscription) -> None:
        """Take on a subscription; its events follow the answer that is being made."""
        self.subscriptions[subscription.number] = subscription
        self._new.append(subscription)

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        """Do something beside reading; nobody at the other end ends the session and nothing else."""
        assert self._nursery is not None  # noqa: S101 - only a running session has something to do
        scope = self._nursery.cancel_scope

        async def run() -> None:
            try:
                await function(*arguments)
            except GoneError:
                scope.cancel()

        self._nursery.start_soon(run)

    # Reading

    async def _read(self) -> None:
        try:
            while frames := await self._wire.receive():
                if len(frames) == 1 and self._take_at_once(frames[0]):
                    continue
                await self._take(frames)
                if self._is_faulty:
                    self._is_faulty = False
                    await trio.sleep(PENALTY_S)
                await self._backlog.room()
        except FrameError as error:
            await self._take(error.frames)
            await self._backlog.empty()
            await self._wire.say_farewell(rpc.error("null", error.code, str(error)))
            raise GoneError from error

    def _take_at_once(self, frame: bytes) -> bool:
        """Do what a message asks, if it is of the plainest kind and there is nothing before it; whether it was done."""
        if self._backlog.is_busy or self._wire.is_sending:
            return False
        if answer := self._lookups.answer(frame, set()):
            self._say(answer)
            self._lookups.note()
            return True
        if (write := plain_write(frame, self)) is None:
            return False
        self._backlog.take_off(write.size)
        self._committer.put(write, self)
        return True

    async def _linger(self) -> None:
        """After the last request: until all is answered, or nobody is there to hear of what happens."""
        await self._backlog.empty()
        if self._wire.is_sending:
            await self._wire.send(b"")  # behind what is being sent
        while (self._waiting or self.subscriptions) and not self.server.stopping.is_set() and not self._wire.is_gone():
            self._change = trio.Event()
            with trio.move_on_after(_LOOK_S):
                await self._change.wait()

    async def _take(self, frames: list[bytes]) -> None:
        """Answer what can be answered at once; put the rest into the backlog, behind what is there.

        The others get their turn after some milliseconds or a full buffer of answers.
        """
        turn = Turn()
        for frame in frames:
            await self._take_one(frame, turn)
            if turn.is_over():
                await self._flush(turn)
                await self._backlog.room()
                await trio.lowlevel.checkpoint()
        await self._flush(turn)

    async def _take_one(self, frame: bytes, turn: Turn) -> None:
        if not turn.writes and not self._backlog.is_busy and (answer := self._lookups.answer(frame, turn.held)):
            turn.add(answer)
            self._lookups.note()
            return
        item = self._look(frame)
        if isinstance(item, Work) and item.writes and not self._backlog:
            turn.writes.append(item)
            return
        if turn.writes:
            await self._flush(turn)
        answer = None if self._backlog.is_busy else self._answer_at_once(item, turn)
        if answer is None:
            await self._flush(turn)
            self._put(item, len(frame))
        else:
            turn.add(answer)

    def _answer_at_once(self, item: "Work | bytes | list[Entry]", turn: Turn) -> bytes | None:
        if isinstance(item, Work):
            return self._answerer.at_once(item, turn.fresh)
        return item if isinstance(item, bytes) else None

    async def _flush(self, turn: Turn) -> None:
        """Send the answers, and carry out the writes that follow them."""
        answers, writes = turn.end()
        if answers or self._wire.is_sending:  # who does not take its answers is asked for no more
            await self._wire.send(answers)
        if writes:
            size = sum(work.size for work in writes)
            self._backlog.take_off(size, len(writes))
            tell = partial(self.tell, size, count=len(writes))
            if not self._answerer.put(writes, tell):
                tell(b"".join(await self._answerer.write(writes)))
        turn.begin()

    def tell(self, size: int, answers: bytes, count: int = 1) -> None:
        """Send the answers to so many writes of `size` bytes together, as soon as they are done."""
        self._backlog.land(size, count)
        self._say(answers)

    def _say(self, answers: bytes) -> None:
        """Send answers; as far as there is no room now, beside reading."""
        try:
            rest = self._wire.send_now(answers)
        except GoneError:
            return  # whoever reads finds it out
        if rest is not None and self._nursery is not None:
            self._spawn(rest)

    def _look(self, frame: bytes) -> "Work | bytes | list[Entry]":
        """What a frame asks for; a cancellation is carried out."""
        message = rpc.parse(frame, loads)
        if not isinstance(message, list):
            return self._look_at(message, len(frame))
        return [Entry(self._look_at(one, len(frame)), 0) for one in message]

    def _look_at(self, message: Call | Fault, size: int) -> Work | bytes:
        if isinstance(message, Fault):
            self._is_faulty = True
        elif message.method == "$/cancelRequest":
            self._cancel(message)
            return rpc.result(message.id, "null") if message.id else b""
        return self._answerer.look(message, size)

    def _cancel(self, call: Call) -> None:
        id_ = to_json(call.parameters.get("id")) if isinstance(call.parameters, dict) else ""
        found = self._backlog.find(id_) or next((entry for entry in self._waiting if entry.find(id_)), None)
        if found is not None:
            found.scope.cancel()

    # The backlog

    def _put(self, item: "Work | bytes | list[Entry]", size: int) -> None:
        if item == b"":
            return
        self._backlog.put(Entry(item, size))
        if not self._is_working:
            self._is_working = True
            self._spawn(self._work)

    async def _work(self) -> None:
        """Answer the backlog, in order; ends when there is none."""
        while self._backlog:
            await self._backlog.landed()
            entries = self._backlog.first()
            answers = await self._answer(entries)
            await self._wire.send(b"".join(answers))
            self._backlog.drop(len(entries))
            while self._new:
                self._spawn(self._new.pop(0).run, self._wire.send)
        self._is_working = False

    async def _answer(self, entries: list[Entry]) -> list[bytes]:
        """The answers to neighbouring writes, or to one entry of any other kind; none yet to one that waits."""
        item = entries[0].item
        if isinstance(item, list):
            return [await self._answer_batch(item)]
        if isinstance(item, Work) and item.method.waits and not entries[0].scope.cancel_called:
            return [self._begin_to_wait(entries[0], item)]
        return await self._answer_now(entries)

    async def _answer_now(self, entries: list[Entry]) -> list[bytes]:
        if entries[0].writes():
            works = [entry.item for entry in entries if isinstance(entry.item, Work)]
            wanted = [not entry.scope.cancel_called for entry in entries]  # what is taken now is carried out
            answers = iter(await self._answerer.write(list(compress(works, wanted))))
            return [next(answers) if is_wanted else self._replies.cancelled(work.call)
                    for work, is_wanted in zip(works, wanted, strict=True)]
        (entry,) = entries
        if not isinstance(entry.item, Work):
            return [entry.item] if isinstance(entry.item, bytes) else []
        if not entry.scope.cancel_called:
            with entry.scope:
                return [await self._answerer.answer(entry.item)]
        return [self._replies.cancelled(entry.item.call)]

    async def _answer_batch(self, entries: list[Entry]) -> bytes:
        answers: list[bytes] = []
        size = 0
        for run in runs(entries):
            for entry, answer in zip(run, await self._answer_now(run), strict=True):
                item = entry.item
                answers.append(self._answerer.fitting(item, answer, size) if isinstance(item, Work) else answer)
                size += len(answers[-1]) + 1
        return rpc.batch([answer for answer in answers if answer])

    def _begin_to_wait(self, entry: Entry, work: Work) -> bytes:
        if len(self._waiting) >= WAITS:
            busy = BusyError(f"{WAITS} requests of this connection wait already")
            return self._replies.failed(work.call, busy, time.perf_counter())
        self._waiting.add(entry)
        self._spawn(self._wait, entry)
        return b""

    async def _wait(self, entry: Entry) -> None:
        (answer,) = await self._answer_now([entry])
        await self._wire.send(answer)
        self._waiting.discard(entry)
        self._change.set()
