"""`record.create`, `record.update` and `record.delete` that come alone, in as few steps as there can be.

Only the plainest form of a call is taken. Whatever is unusual, or cannot be, goes the way of all calls, which does the
same or says what is wrong.
"""

import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from taskstore_core import rpc
from taskstore_core.errors import TaskStoreError
from taskstore_core.methods import create, delete, update
from taskstore_core.plain import to_json
from taskstore_core.rpc import Call

from .committer import Waiting

if TYPE_CHECKING:
    from taskstore_core.request import Outcome, Request

    from .session import Session

_MARK = b'"record.'


class _Parameters(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    kind: str
    op: str | None = None


class _OfCreate(_Parameters, forbid_unknown_fields=True, kw_only=True):
    record: dict[str, Any]


class _OfUpdate(_Parameters, forbid_unknown_fields=True, kw_only=True):
    id: str
    set: dict[str, Any]
    if_updated_at: int | None = None


class _OfDelete(_Parameters, forbid_unknown_fields=True, kw_only=True):
    id: str
    if_updated_at: int | None = None


class _Message(msgspec.Struct, tag_field="method"):
    jsonrpc: Literal["2.0"]
    id: int | str


class _Create(_Message, tag="record.create"):
    params: _OfCreate

    def request(self) -> "Request":
        of = self.params
        return create(of.kind, of.record, of.op)


class _Update(_Message, tag="record.update"):
    params: _OfUpdate

    def request(self) -> "Request":
        of = self.params
        return update(of.kind, of.id, of.set, of.if_updated_at, of.op)


class _Delete(_Message, tag="record.delete"):
    params: _OfDelete

    def request(self) -> "Request":
        of = self.params
        return delete(of.kind, of.id, of.if_updated_at, of.op)


_decode = msgspec.json.Decoder(_Create | _Update | _Delete).decode
_METHODS = {_Create: "record.create", _Update: "record.update", _Delete: "record.delete"}


class PlainWrite(Waiting):
    """One write of a session, on its way."""

    __slots__ = ("_id", "_method", "_session")

    def __init__(self, session: "Session", message: _Create | _Update | _Delete, size: int) -> None:
        """Raises TaskStoreError for what cannot be."""
        self.began = time.perf_counter()
        self.requests = (message.request(),)
        self.size = size
        self._session = session
        self._id = message.id
        self._method = _METHODS[type(message)]

    def take(self, outcome: "Outcome | TaskStoreError") -> None:
        """Answer."""
        id_ = self._id
        call = Call(str(id_) if type(id_) is int else to_json(id_), self._method, {})
        self._session.tell(self.size, self._session.server.replies.written(call, outcome, self.began))


def plain_write(frame: bytes, session: "Session") -> PlainWrite | None:
    """The write that a frame asks for; None for what is not as plain as that."""
    if _MARK not in frame or rpc.may_be_deep(frame):
        return None
    try:
        return PlainWrite(session, _decode(frame), len(frame))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TaskStoreError):
        return None  # the long way says what it is
