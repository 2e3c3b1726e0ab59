"""Method calls carried out by a daemon: one connection to its socket.

The standard library alone, so that a command starts fast. Answers come as the same plain data that direct access
gives: records as the JSON text they have in the log.
"""

import json
import os
import socket

from taskstore_core import errors, rpc
from taskstore_core.methods import METHODS
from taskstore_core.plain import Json
from taskstore_core.presence import sockets
from taskstore_core.sockets import is_private, peer_uid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from taskstore_core.errors import TaskStoreError
    from taskstore_core.paths import Paths

GREETING_S = 2.0
"""How long a daemon may take to greet; one that is stopped or stuck is passed by."""
ANSWER_S = 60.0
_READ = 1 << 16
_KINDS: "dict[str, type[TaskStoreError]]" = {
    kind.kind: kind for kind in (
        errors.NotFoundError, errors.ExistsError, errors.ConflictError, errors.InvalidError, errors.NoStoreError,
        errors.ReadOnlyError, errors.BusyError, errors.UnsupportedVersionError)}
_NO_RECORD = {"id", "updated_at", "deleted", "changed"}
"""The keys of what a deletion or an import is answered with."""
_DECODER = json.JSONDecoder()


class LostError(Exception):
    """The daemon went away, before or after it did what it was asked to."""


class UnsendableError(Exception):
    """The parameters are no JSON, or more than a frame holds; direct access says what is wrong, if anything is."""


class Remote:
    """A connection to a daemon."""

    def __init__(self, sock: socket.socket, patience_s: float = GREETING_S) -> None:
        """Greet the daemon behind `sock`; raises LostError, UnsupportedVersionError."""
        self._sock = sock
        self._framer = rpc.Framer()
        self._frames: list[bytes] = []
        self._number = 0
        self.greeting: dict[str, Any] = {}
        sock.settimeout(patience_s)
        self.greeting = result_of("hello", self._request(
            "hello", {"protocol": [rpc.PROTOCOL, rpc.PROTOCOL], "client": "taskstore for Python"}))

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def call(self, method: str, parameters: "dict[str, object]") -> "Any":  # noqa: ANN401 - plain data, as JSON has it
        """The answer of a method; raises its error, or LostError."""
        row = METHODS.get(method)
        self._sock.settimeout(None if row is not None and row.waits else ANSWER_S)
        return result_of(method, self._request(method, parameters))

    def notifications(self) -> "Iterator[tuple[str, dict[str, Any]]]":
        """What the daemon says of itself, as (method, parameters), for as long as it does; raises LostError."""
        self._sock.settimeout(None)
        while True:
            message = json.loads(self._frame())
            if "method" in message:
                yield message["method"], message["params"]

    def _request(self, method: str, parameters: "dict[str, object]") -> bytes:
        self._number += 1
        frame = encode(self._number, method, parameters)
        try:
            self._sock.sendall(frame)
        except OSError as error:
            raise LostError(str(error)) from None
        return self._answer(b'{"jsonrpc":"2.0","id":%d,' % self._number)

    def _answer(self, beginning: bytes) -> bytes:
        """What follows the beginning of the frame that answers; notifications before it are let go."""
        while True:
            frame = self._frame()
            if frame.startswith(beginning):
                return frame[len(beginning):]
            if frame.startswith(b'{"jsonrpc":"2.0","id":null,'):
                raise LostError(frame.decode(errors="replace"))

    def _frame(self) -> bytes:
        while not self._frames:
            try:
                data = self._sock.recv(_READ)
            except TimeoutError:
                raise LostError("the daemon does not answer") from None
            except OSError as error:
                raise LostError(str(error)) from None
            if not data:
                raise LostError("the daemon closed the connection")
            self._frames = self._framer.feed(data)
            self._frames.reverse()
        return self._frames.pop()


def encode(number: int, method: str, parameters: "dict[str, object]") -> bytes:
    """The frame of a request; raises UnsendableError."""
    try:
        frame = rpc.request(number, method, parameters)
    except (ValueError, TypeError, RecursionError) as error:
        raise UnsendableError from error
    if len(frame) > rpc.FRAME_BYTES:
        raise UnsendableError
    return frame


def result_of(method: str, rest: bytes) -> "Any":  # noqa: ANN401 - plain data, as JSON has it
    """The answer of a method as plain data, from what follows the id in its frame; raises the error it may be."""
    text = rest.decode()
    if text.startswith('"error":'):
        raise error_of(json.loads("{" + text)["error"])
    text = text.removeprefix('"result":').removesuffix("}")
    for flushed in ("true", "false"):
        text = text.removesuffix(f',"meta":{{"flushed":{flushed}}}')
    row = METHODS.get(method)
    return plain(row.answer if row is not None else "", text)


def error_of(error: "dict[str, Any]") -> "TaskStoreError":
    """The exception that an error of an answer stands for."""
    data = error.get("data") or {}
    kind = _KINDS.get(data.get("kind", ""), errors.InvalidError if error["code"] in {
        rpc.INVALID_PARAMS, rpc.METHOD_NOT_FOUND} else errors.TaskStoreError)
    made = kind(error["message"], hint=data.get("hint", ""), field=data.get("field"), applied=data.get("applied", "no"))
    made.operation = data.get("operation")
    return made


def plain(answer: str, text: str) -> "Any":  # noqa: ANN401 - plain data, as JSON has it
    """The JSON text of an answer as plain data, with records as the text they have."""
    if answer in {"record", "claim", "completed"}:
        return None if text == "null" else Json(text)
    if answer in {"page", "items", "versions"} and text.startswith('{"items":['):
        items, end = _split(text, len('{"items":['))
        return {**json.loads('{"items":[' + text[end:]), "items": [one for one, _ in items]}
    if answer == "results":
        return [fields if fields.keys() <= _NO_RECORD else one for one, fields in _split(text, 1)[0]]
    return json.loads(text)


def _split(text: str, start: int) -> "tuple[list[tuple[Json, dict[str, Any]]], int]":
    """The objects of an array whose first begins at `start`, as text and decoded, and where its bracket closes."""
    items = []
    while text[start] != "]":
        fields, end = _DECODER.raw_decode(text, start)
        items.append((Json(text[start:end]), fields))
        start = end + (text[end] == ",")
    return items, start


def reach(paths: "Paths") -> "Remote | None":
    """A connection to the store's daemon; None where none answers.

    Raises UnsupportedVersionError for a daemon of another protocol.
    """
    sock = knock(sockets(paths, os.environ))
    return greet(sock, paths.directory) if sock is not None else None


def knock(paths: "Sequence[str]", patience_s: float = GREETING_S) -> "socket.socket | None":
    """A socket that is connected to the first who listens at one of `paths`, if any does.

    It must be this user's, in a folder that nobody else may enter.
    """
    for path in paths:
        if not is_private(os.path.dirname(path)):
            continue
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(patience_s)
            sock.connect(path)
            if peer_uid(sock) == os.geteuid():
                return sock
        except OSError:
            pass
        sock.close()
    return None


def greet(sock: socket.socket, directory: str, patience_s: float = GREETING_S) -> "Remote | None":
    """The daemon of the store in `directory` at the other end; None if it is another's, or does not answer.

    Raises UnsupportedVersionError for one of another protocol.
    """
    try:
        remote = Remote(sock, patience_s)
        if remote.greeting.get("store") == directory:  # and not one whose path has the same hash
            return remote
    except LostError:
        pass
    except BaseException:
        sock.close()
        raise
    sock.close()
    return None
