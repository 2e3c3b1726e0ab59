"""One connection to a daemon, shared by tasks: frames out in order, answers to whoever waits for them.

A task that stops waiting tells the daemon so, and leaves the connection as good as it was: frames are written by a task
of their own, so that nobody's cancellation cuts one in half.
"""

import json
import math
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import SocketStream

from taskstore_core import rpc
from taskstore_core.methods import METHODS

from .remote import ANSWER_S, LostError, encode, result_of

_BUFFERED = 16  # notifications read ahead; more wait at the daemon, which drops them for one resync
_ANSWER = b'{"jsonrpc":"2.0","id":'
_ENDS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class _Waiting:
    """Somebody who waits for an answer; `rest` is what follows the id in its frame."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.rest: bytes | None = None


class Link:
    """A connection; it lives while `run` does."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._scope = anyio.CancelScope()
        self._framer = rpc.Framer()
        self._number = 0
        self._waiting: dict[int, _Waiting] = {}
        self._outgoing, self._frames = anyio.create_memory_object_stream[bytes](math.inf)
        self._told, self.notifications = anyio.create_memory_object_stream[tuple[str, dict[str, Any]]](_BUFFERED)
        self.is_lost = False

    async def run(self) -> None:
        """Carry frames both ways until the connection ends, or `close` ends it."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write)
                    await self._read()
        finally:
            self._lose()
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    def close(self) -> None:
        """End it."""
        self._lose()
        self.notifications.close()

    def _lose(self) -> None:
        """Tell everybody who waits that there will be no answer; what was told already can still be taken."""
        self.is_lost = True
        self._scope.cancel()
        self._outgoing.close()
        self._frames.close()
        self._told.close()
        for waiting in self._waiting.values():
            waiting.event.set()

    async def _write(self) -> None:
        with suppress(*_ENDS):
            async for frame in self._frames:
                await self._stream.send(frame)
        self._scope.cancel()

    async def _read(self) -> None:
        with suppress(*_ENDS, rpc.OversizeError):
            while not self.is_lost:
                for frame in self._framer.feed(await self._stream.receive()):
                    await self._take(frame)
        self._scope.cancel()

    async def _take(self, frame: bytes) -> None:
        if not frame.startswith(_ANSWER):
            message = json.loads(frame)
            await self._told.send((message["method"], message["params"]))
            return
        number, _, rest = frame[len(_ANSWER):].partition(b",")
        if number == b"null":  # it could not make out what was asked, and by whom
            self._lose()
            return
        waiting = self._waiting.pop(int(number), None)
        if waiting is not None:  # else nobody waits for it any more
            waiting.rest = rest
            waiting.event.set()

    async def call(self, method: str, parameters: dict[str, object]) -> Any:  # noqa: ANN401 - plain data
        """The answer of a method; raises its error, LostError, or UnsendableError.

        Cancelled, what it asked for may happen all the same.
        """
        if self.is_lost:
            raise LostError("the daemon closed the connection")
        self._number += 1
        number, waiting = self._number, _Waiting()
        self._outgoing.send_nowait(encode(number, method, parameters))
        self._waiting[number] = waiting
        row = METHODS.get(method)
        try:
            with anyio.move_on_after(None if row is not None and row.waits else ANSWER_S):
                await waiting.event.wait()
        finally:
            if self._waiting.pop(number, None) is not None and not self.is_lost:
                self._outgoing.send_nowait(rpc.notification("$/cancelRequest", {"id": number}))
        if waiting.rest is None:
            self._lose()  # if it is not yet: whoever does not answer one does not answer the others
            raise LostError("the daemon went away, or does not answer")
        return result_of(method, waiting.rest)
