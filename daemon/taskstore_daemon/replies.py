"""The frames that answer calls, and counting them."""

import logging
import time
from typing import TYPE_CHECKING

from taskstore_core import rpc
from taskstore_core.errors import InvalidError, TaskStoreError
from taskstore_core.methods import METHODS
from taskstore_core.plain import to_json
from taskstore_core.request import Outcome
from taskstore_core.rpc import Call

from .logs import fields
from .work import NoMethodError

if TYPE_CHECKING:
    from .metrics import Metrics

log = logging.getLogger(__name__)

SLOW_S = 1.0
"""A request that took longer is logged."""
_WAITING = frozenset(method.name for method in METHODS.values() if method.waits)
_ENVELOPE = 1024
LOG_HINT = "the daemon's log tells more: taskstore daemon logs"


class Replies:
    """Answers of one daemon. A notification's is no bytes at all; what is wrong with it is counted all the same."""

    def __init__(self, metrics: "Metrics") -> None:
        self._count = metrics.requests.note

    def _note(self, method: str, outcome: str, began: float) -> None:
        seconds = time.perf_counter() - began
        self._count(method, outcome, seconds)
        if seconds > SLOW_S and method not in _WAITING:
            log.warning("%s took %.1f s", method, seconds, extra=fields(
                "slow", method=method, outcome=outcome, ms=round(seconds * 1000, 3)))

    def done(self, call: Call, text: str, began: float, meta: str = "", *, applied: str = "no") -> bytes:
        """The answer with a result, as JSON text; `began` is when its turn came (time.perf_counter).

        One that fits no frame becomes an error that says with `applied` what was done.
        """
        frame = f'{{"jsonrpc":"2.0","id":{call.id},"result":{text}{meta}}}\n'.encode() if call.id else b""
        if len(frame) > rpc.FRAME_BYTES - len(call.id) - _ENVELOPE:
            return self.failed(call, too_large(len(frame), applied), began)
        self._note(call.method, "ok", began)
        return frame

    def written(self, call: Call, outcome: Outcome | Exception, began: float, meta: str = "") -> bytes:
        """The answer to a write."""
        if isinstance(outcome, Exception):
            return self.failed(call, outcome, began)
        try:
            return self.done(call, to_json(outcome.result), began, meta, applied="yes")
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it
            return self.failed(call, error, began)

    def failed(self, call: Call, error: Exception, began: float) -> bytes:
        """The answer with an error that came up while the call was carried out."""
        outcome, code, message, data = _described(call, error)
        self._note(call.method if outcome != "method_not_found" else "?", outcome, began)
        return rpc.error(call.id, code, message, data) if call.id else b""

    def refused(self, call: Call, error: InvalidError | NoMethodError) -> bytes:
        """The answer to a call that is not in order: no such method, or parameters that it does not take."""
        if isinstance(error, NoMethodError):
            return self.failed(call, error, time.perf_counter())
        self._count(call.method, "invalid_params", 0.0)
        return rpc.error(call.id, rpc.INVALID_PARAMS, error.message, rpc.error_data(error)) if call.id else b""

    def cancelled(self, call: Call) -> bytes:
        """The answer to a call that was taken back."""
        self._count(call.method, "cancelled", 0.0)
        data: dict[str, object] = {"kind": "cancelled", "retryable": True, "applied": "no"}
        return rpc.error(call.id, rpc.CANCELLED, "Request cancelled", data) if call.id else b""


def too_large(size: int, applied: str = "no") -> InvalidError:
    """What is said where an answer fits no frame."""
    return InvalidError(f"the answer has {size} bytes, too many for one frame", hint="ask for less at once",
                        applied=applied)


def _described(call: Call, error: Exception) -> "tuple[str, int, str, dict[str, object] | None]":
    """An error as (outcome for the metrics, code, message, data)."""
    if isinstance(error, NoMethodError):
        return "method_not_found", rpc.METHOD_NOT_FOUND, f"Method not found: {error}", None
    if isinstance(error, TaskStoreError):
        return error.kind, error.code, error.message, rpc.error_data(error)
    log.error("internal error", exc_info=error, extra=fields("error", method=call.method))
    return "internal", rpc.INTERNAL_ERROR, f"Internal error: {type(error).__name__}", {
        "kind": "internal", "retryable": False, "applied": "unknown", "hint": LOG_HINT}
