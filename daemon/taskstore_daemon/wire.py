"""The socket of one connection: whole frames in and out, and nothing of what they mean."""

import select
import socket

import trio

from taskstore_core import rpc
from taskstore_core.rpc import Framer, OversizeError

_READ = 1 << 16
_FAREWELL_S = 1.0


class GoneError(Exception):
    """Nobody is at the other end any more, or we hung up."""


class FrameError(Exception):
    """The stream cannot be read on; `frames` came whole before, and `code` and the message say what is wrong."""

    def __init__(self, code: int, message: str, frames: list[bytes]) -> None:
        super().__init__(message)
        self.code = code
        self.frames = frames


class Wire:
    """A connected socket. One task reads; any may send."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._framer = Framer()
        self._sending = trio.Lock()
        self._left_s = float(rpc.FRAME_S)

    async def receive(self) -> list[bytes]:
        """The frames that came next, none at the end of the stream; raises FrameError, GoneError."""
        while data := await self._receive():
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

    async def _receive(self) -> bytes:
        try:
            if not self._framer.is_partial:
                return await self._sock.recv(_READ)
            began = trio.current_time()
            with trio.move_on_after(self._left_s):
                data = await self._sock.recv(_READ)
                self._left_s -= trio.current_time() - began  # only what was spent waiting for the other end counts
                return data
        except (OSError, trio.ClosedResourceError) as error:
            raise GoneError from error
        raise FrameError(rpc.INVALID_REQUEST, f"Invalid Request: a frame took more than {rpc.FRAME_S} s", [])

    async def send(self, data: bytes) -> None:
        """Send whole frames, one sender at a time; raises GoneError.

        A frame is never cut while the connection lives: where sending is cancelled midway, that ends it.
        """
        if not data:
            return
        try:
            self._sending.acquire_nowait()  # `acquire` would let every other task run first
        except trio.WouldBlock:
            await self._sending.acquire()
        left = memoryview(data)
        try:
            while left:
                left = left[await self._sock.send(left):]
        except (OSError, trio.ClosedResourceError) as error:
            raise GoneError from error
        finally:
            if 0 < len(left) < len(data):
                self._sock.close()
            self._sending.release()

    async def say_farewell(self, data: bytes) -> None:
        """Send a last word, if the other end listens."""
        with trio.move_on_after(_FAREWELL_S):
            await self.send(data)

    def stop_receiving(self) -> None:
        """Have `receive` end after what has come already."""
        try:
            self._sock.shutdown(socket.SHUT_RD)
        except OSError:
            return

    def is_gone(self) -> bool:
        """Whether the other end was closed; one that only has nothing more to say listens still."""
        if self._sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._sock.fileno(), 0)
        return bool(poll.poll(0))
