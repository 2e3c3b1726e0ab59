"""`record.get` by its whole id, in as few steps as there can be: it is what agents ask most.

Only the plainest form of the call is taken, and only where there is such a record and the cache is level. Whatever
is unusual goes the way of all calls, which finds the same record or says what is wrong.
"""

import time
from typing import TYPE_CHECKING, Literal

import msgspec

from taskstore_core import rpc
from taskstore_core.plain import to_json

if TYPE_CHECKING:
    from .engine import Engine, Fresh

_METHOD = "record.get"
_MARK = f'"{_METHOD}"'.encode()
_LONG = rpc.FRAME_BYTES // 8
"""Characters of a line that might fill a frame, with an id around it."""


class _Parameters(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    kind: str
    id: str


class _Get(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    jsonrpc: Literal["2.0"]
    id: int | str
    method: Literal["record.get"]
    params: _Parameters


_decode = msgspec.json.Decoder(_Get).decode


class Lookups:
    """What answers them, for one daemon."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._note = engine.metrics.requests.note
        self._began = 0.0

    def note(self) -> None:
        """Count what was answered; apart, so that whoever asked need not wait for it."""
        self._note(_METHOD, "ok", time.perf_counter() - self._began)

    def answer(self, frame: bytes, held: "Fresh") -> bytes | None:
        """The answer, or None for what is not as plain as that; `held` are kinds that were just looked at."""
        if _MARK not in frame:
            return None
        self._began = time.perf_counter()
        try:
            call = _decode(frame)
            line = self._engine.look_up(call.params.kind, call.params.id, held)
        except Exception:  # noqa: BLE001 - the long way says what it is
            return None
        if line is None or len(line) > _LONG:
            return None
        id_ = call.id if type(call.id) is int else to_json(call.id)
        return f'{{"jsonrpc":"2.0","id":{id_},"result":{line}}}\n'.encode()
