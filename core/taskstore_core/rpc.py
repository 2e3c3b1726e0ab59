"""JSON-RPC 2.0, one message per line: bytes in, messages out, and back. It never touches a socket.

Both ends use it. It knows the protocol's rules (https://www.jsonrpc.org/specification), not what any method does.
Decoding is the caller's (`loads`): the daemon uses orjson, the client what Python starts with.
"""

from .errors import TaskStoreError
from .plain import to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Loads = Callable[[bytes], object]

PROTOCOL = 1
FRAME_BYTES = 8 << 20
DEPTH = 64
BATCH = 100
CONNECTIONS = 256
FRAME_S = 10
QUEUED_BYTES = 1 << 20
IN_FLIGHT = 64
ANSWER_BYTES = 4 << 20
LIMITS = {"frame_bytes": FRAME_BYTES, "depth": DEPTH, "batch": BATCH, "connections": CONNECTIONS,
          "frame_seconds": FRAME_S, "queued_bytes": QUEUED_BYTES, "in_flight": IN_FLIGHT,
          "answer_bytes": ANSWER_BYTES}

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR, CANCELLED = (
    -32700, -32600, -32601, -32602, -32603, -32800)


class OversizeError(Exception):
    """A frame is longer than allowed; `lines` came whole before it, and what follows is not looked at."""

    def __init__(self, lines: "list[bytes]") -> None:
        super().__init__("a frame is too long")
        self.lines = lines


class Framer:
    """Bytes of a stream, cut into lines."""

    def __init__(self, limit: int = FRAME_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self.is_partial = False
        """Whether a line has begun and not ended; one of blanks has not."""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, blank ones left out; raises OversizeError."""
        if not self._buffer and data.endswith(b"\n") and len(data) <= self._limit:  # whole messages, most often
            return _not_blank(data.split(b"\n"))
        self._buffer += data
        lines: list[bytes] = []
        if b"\n" in data:
            *lines, rest = bytes(self._buffer).split(b"\n")
            self._buffer = bytearray(rest)
            self.is_partial = bool(rest) and not rest.isspace()
        elif data:  # only what is new: megabytes of blanks would be looked at again with each piece
            self.is_partial = self.is_partial or not data.isspace()
        for number, line in enumerate(lines):
            if len(line) > self._limit:
                raise OversizeError(_not_blank(lines[:number]))
        if len(self._buffer) > self._limit:
            self._buffer.clear()  # at once: whatever refers to the error may keep us for long
            raise OversizeError(_not_blank(lines))
        return _not_blank(lines)


def _not_blank(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if line.strip()]


class Call:
    """A request, or a notification if `id` is "" (as JSON text, an id is never empty)."""

    __slots__ = ("id", "method", "parameters")

    def __init__(self, id_: str, method: str, parameters: "dict[str, object] | list[object]") -> None:
        self.id = id_
        self.method = method
        self.parameters = parameters


class Fault:
    """What cannot be a call, with the error that answers it."""

    __slots__ = ("code", "id", "message")

    def __init__(self, code: int, message: str, id_: str = "null") -> None:
        self.code = code
        self.message = message
        self.id = id_


def parse(frame: bytes, loads: "Loads") -> "Call | Fault | list[Call | Fault]":
    """The message in a frame: a call, several, or why it is none. `loads` raises ValueError for what is not JSON."""
    try:
        message = loads(frame)
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError) or may_be_deep(frame)  # counting takes longer than failing does
        return Fault(PARSE_ERROR, "Parse error: not JSON" + (", or nested too deeply" if deep else ""))
    if may_be_deep(frame) and _is_too_deep(message):
        return Fault(INVALID_REQUEST, f"Invalid Request: nested more than {DEPTH} levels deep")
    if not isinstance(message, list):
        return _call(message)
    if not message:
        return Fault(INVALID_REQUEST, "Invalid Request: an empty batch")
    if len(message) > BATCH:
        return Fault(INVALID_REQUEST, f"Invalid Request: {len(message)} in a batch, {BATCH} are allowed")
    return [_call(one) for one in message]


def _call(message: object) -> "Call | Fault":
    if not isinstance(message, dict):
        return Fault(INVALID_REQUEST, "Invalid Request: not an object")
    id_ = message.get("id")
    if isinstance(id_, bool) or not isinstance(id_, str | int | float | None):
        return Fault(INVALID_REQUEST, "Invalid Request: id must be a string, a number or null")
    text = str(id_) if type(id_) is int else to_json(id_) if "id" in message else ""
    method, parameters = message.get("method"), message.get("params", {})
    if message.get("jsonrpc") != "2.0":
        return Fault(INVALID_REQUEST, 'Invalid Request: jsonrpc must be "2.0"', text or "null")
    if not isinstance(method, str):
        return Fault(INVALID_REQUEST, "Invalid Request: method must be a string", text or "null")
    if not isinstance(parameters, dict | list):
        return Fault(INVALID_REQUEST, "Invalid Request: params must be an object or an array", text or "null")
    return Call(text, method, parameters)


def may_be_deep(frame: bytes) -> bool:
    """Whether containers may nest more than DEPTH levels deep; cheap, and sure of a No."""
    return frame.count(b"{") + frame.count(b"[") > DEPTH


def _is_too_deep(message: object) -> bool:
    """Whether containers nest too deeply: level by level, so that no depth is a recursion of ours."""
    level = [message] if isinstance(message, dict | list) else []
    for _ in range(DEPTH):
        level = [one for container in level
                 for one in (container.values() if isinstance(container, dict) else container)
                 if isinstance(one, dict | list)]
    return bool(level)


def result(id_: str, text: str) -> bytes:
    """The frame that answers a call with JSON text."""
    return f'{{"jsonrpc":"2.0","id":{id_},"result":{text}}}\n'.encode()


def error(id_: str, code: int, message: str, data: "dict[str, object] | None" = None) -> bytes:
    """The frame that answers a call with an error."""
    return f'{{"jsonrpc":"2.0","id":{id_},"error":{to_json(error_object(code, message, data))}}}\n'.encode()


def error_object(code: int, message: str, data: "dict[str, object] | None" = None) -> dict[str, object]:
    """The error of an answer, as plain data."""
    return {"code": code, "message": message, **({} if data is None else {"data": data})}


def error_data(problem: TaskStoreError) -> dict[str, object]:
    """What an error of ours tells programs."""
    data: dict[str, object] = {"kind": problem.kind, "retryable": problem.retryable, "applied": problem.applied}
    for name in ("hint", "field", "operation"):
        value = getattr(problem, name)
        if value or value == 0:
            data[name] = value
    return data


def batch(frames: "list[bytes]") -> bytes:
    """The answers to a batch, as one frame; nothing at all where there is none."""
    return b"[" + b",".join(frame.rstrip(b"\n") for frame in frames) + b"]\n" if frames else b""


def request(id_: int | str, method: str, parameters: "dict[str, object]") -> bytes:
    """The frame of a request."""
    return f'{{"jsonrpc":"2.0","id":{to_json(id_)},{_body(method, parameters)}'.encode()


def notification(method: str, parameters: "dict[str, object]") -> bytes:
    """The frame of a notification."""
    return f'{{"jsonrpc":"2.0",{_body(method, parameters)}'.encode()


def _body(method: str, parameters: "dict[str, object]") -> str:
    return f'"method":{to_json(method)},"params":{to_json(parameters)}}}\n'
