"""The socket of one connection: whole frames in and out, and nothing of what they mean."""

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ClassVar

import trio

from taskstore_core import rpc
from taskstore_core.rpc import Framer, OversizeError

from .poller import Poller

_buffer = memoryview(bytearray(1 << 16))
"""Where every connection's bytes arrive: to make and shrink so large a one for each takes longer than to receive."""
_FAREWELL_S = 1.0
_SOON_S = 0.0001
"""For which the next request of a prompt client is looked for before we sleep: as long as a request takes."""
_PROMPT_S = 0.0002
_TURN_S = 0.002
PENALTY_S = 0.1
"""How long a connection is not read on after a frame that is none, and one too many is kept before it is hung up on:
whoever does that without end costs the others a fiftieth of the daemon's time, and not half of it."""


class GoneError(Exception):
    """Nobody is at the other end any more, or we hung up."""


class FrameError(Exception):
    """The stream cannot be read on; `frames` came whole before, and `code` and the message say what is wrong."""

    def __init__(self, code: int, message: str, frames: list[bytes]) -> None:
        super().__init__(message)
        self.code = code
        self.frames = frames


class Wire:
    """A connected socket, which does not block. One task reads; any may send.

    It is a plain one, as trio's own lets every other task run after each call: half the cost of a short answer.
    Whoever reads waits for every stretch of bytes, so all get their turn; but for some milliseconds where one client
    alone asks, again and again.
    """

    _last: "ClassVar[Wire | None]" = None
    """Who was read from last."""

    def __init__(self, sock: socket.socket, poller: Poller, take: Callable[[bytes], bool]) -> None:
        """`take` is offered each message that comes alone, and says whether that is all that was to be done."""
        self._sock = sock
        self._poller = poller
        self._take = take
        self._framer = Framer()
        self._sending = trio.Semaphore(1)  # no lock: who begins to send may leave the rest to another task
        self._following: deque[bytes] = deque()
        self._left_s = float(rpc.FRAME_S)
        self._is_alone = False  # nobody else has asked since the last time
        self._is_prompt = False  # the last time it asked again at once, and nobody else had asked meanwhile
        self._waited = 0.0  # when the others last had their turn

    async def receive(self) -> list[bytes]:
        """The frames that came next, none at the end of the stream; raises FrameError, GoneError."""
        while True:
            try:
                data = await (self._receive_in_time() if self._framer.is_partial else self._read())
            except (OSError, trio.ClosedResourceError) as error:
                raise GoneError from error
            if not data:
                break
            if self._is_message(data):
                return [data]
            try:
                frames = self._framer.feed(data)
            except OversizeError as error:
                raise FrameError(rpc.INVALID_REQUEST, f"Invalid Request: a frame of more than {rpc.FRAME_BYTES} bytes",
                                 error.lines) from None
            if frames:
                self._left_s = rpc.FRAME_S
                return frames
        if self._framer.is_partial:
            raise FrameError(rpc.PARSE_ERROR, "Parse error: the last line does not end with a newline", [])
        return []

    async def _receive_in_time(self) -> bytes:
        """The rest of a frame; only what is spent waiting for the other end counts."""
        began = trio.current_time()
        with trio.move_on_after(self._left_s):
            data = await self._read()
            self._left_s -= trio.current_time() - began
            return data
        raise FrameError(rpc.INVALID_REQUEST, f"Invalid Request: a frame took more than {rpc.FRAME_S} s", [])

    async def _read(self) -> bytes:
        began = time.perf_counter()
        if self._is_prompt and began < self._waited + _TURN_S and (data := self._read_soon(began)) is not None:
            return data
        data = await self._poller.wait(self._sock, self._arrived)
        self._is_prompt = self._is_alone and self._waited < began + _PROMPT_S
        return data

    def _arrived(self) -> bytes | None:
        """What came; None where it is dealt with, so that whoever waits for it need not be woken."""
        try:
            data = bytes(_buffer[:self._sock.recv_into(_buffer)])
        except BlockingIOError:
            return None
        self._waited = time.perf_counter()
        self._is_alone, Wire._last = Wire._last is self, self
        if not self._is_alone and self._is_message(data) and self._take(data):
            return None
        return data

    def _is_message(self, data: bytes) -> bool:
        """Whether it is one, and nothing else; most often it is."""
        return data.find(b"\n") == len(data) - 1 > 0 and not self._framer.is_partial and not data.isspace()

    def _read_soon(self, began: float) -> bytes | None:
        """What comes at once from a client that asks again as soon as it is answered; None if it does not.

        To sleep and be woken takes longer than it needs. Only where no other has asked since, and not for long in a
        row, so that nobody waits for us.
        """
        while Wire._last is self and time.perf_counter() < began + _SOON_S:
            try:
                return bytes(_buffer[:self._sock.recv_into(_buffer)])
            except BlockingIOError:
                continue
        self._is_prompt = False
        return None

    @property
    def is_sending(self) -> bool:
        """Whether the other end has yet to take what was sent before."""
        return not self._sending.value

    async def send(self, data: bytes) -> None:
        """Send whole frames, one sender at a time; raises GoneError. Nobody else runs where there is room for them.

        A frame is never cut while the connection lives: where sending is cancelled midway, that ends it.
        """
        if self.is_sending:
            await self._sending.acquire()
            await self._send_rest(data, 0)
        elif (rest := self.send_now(data)) is not None:
            await rest()

    def send_now(self, data: bytes) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """Send whole frames as far as there is room; what must be awaited for the rest, None where there is none.

        Where somebody is sending, they follow what that one has to say.
        """
        if self.is_sending:
            self._following.append(data)
            return None
        sent = self._send_some(data) if data else 0
        if sent == len(data):
            return None
        self._sending.acquire_nowait()
        return partial(self._send_rest, data, sent)

    async def _send_rest(self, data: bytes, sent: int) -> None:
        """Send what is left, as there is room, and what follows; needs `_sending`, and releases it."""
        try:
            while True:
                while sent < len(data):
                    await trio.lowlevel.wait_writable(self._sock)
                    sent += self._send_some(memoryview(data)[sent:])
                if not self._following:
                    break
                data, sent = self._following.popleft(), 0
        except (OSError, trio.ClosedResourceError) as error:
            raise GoneError from error
        finally:
            if 0 < sent < len(data):
                self.close()
            self._sending.release()

    def _send_some(self, data: "bytes | memoryview") -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise GoneError from error

    async def say_farewell(self, data: bytes) -> None:
        """Send a last word, if the other end listens, and let it wait for the end of the connection."""
        with trio.move_on_after(_FAREWELL_S):
            await self.send(data)
        await trio.sleep(PENALTY_S)

    def stop_receiving(self) -> None:
        """Have `receive` end after what has come already."""
        try:
            self._sock.shutdown(socket.SHUT_RD)
        except OSError:
            return

    def close(self) -> None:
        """End the connection for whoever waits for it."""
        if Wire._last is self:
            Wire._last = None
        if self._sock.fileno() >= 0:
            self._poller.forget(self._sock)
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def is_gone(self) -> bool:
        """Whether the other end was closed; one that only has nothing more to say listens still."""
        if self._sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._sock.fileno(), 0)
        return bool(poll.poll(0))
