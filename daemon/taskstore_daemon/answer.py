"""From calls to what carries them out: the method table with what only a daemon can do, and errors as answers."""

import logging
from collections.abc import Callable, Mapping

from taskstore_core import rpc
from taskstore_core.errors import InvalidError, TaskStoreError
from taskstore_core.kinds import KINDS, Kind, find_kind
from taskstore_core.methods import METHODS, Method, check_parameters
from taskstore_core.rpc import Call

log = logging.getLogger(__name__)

_FLUSH = "flush"
_SHORT = 200
"""Rows of a list that is answered on the loop; at 0.1 ms a hundred, a longer one goes to a thread."""
_LONG = frozenset({"record.history", "store.sync", "store.stats", "store.check", "task_spec.ready"})
"""Reads that look at many rows or at files."""


class NoMethodError(Exception):
    """There is no method of this name."""


class Work:
    """A call that is in order: its method and the parameters by name."""

    __slots__ = ("call", "flush", "method", "parameters")

    def __init__(self, call: Call, methods: Mapping[str, Method]) -> None:
        """Raises NoMethodError, InvalidError."""
        method = methods.get(call.method)
        if method is None:
            raise NoMethodError(call.method)
        given = call.parameters
        if isinstance(given, list):
            if len(given) > len(method.parameters):
                raise InvalidError(f"{method.name} takes {len(method.parameters)} parameters", field="params")
            given = dict(zip(method.parameters, given, strict=False))
        flush = given.pop(_FLUSH, None) if method.request is not None else None
        if flush is not None and not isinstance(flush, bool):
            raise InvalidError(f"{_FLUSH}: must be boolean", field=_FLUSH)
        check_parameters(method, given)
        self.call = call
        self.method = method
        self.flush = bool(flush)
        self.parameters = {name: value for name, value in given.items() if value is not None}

    @property
    def is_long(self) -> bool:
        """Whether it may take so long that others should not wait for it."""
        return self.method.name in _LONG

    def kinds(self) -> tuple[Kind, ...]:
        """The kinds whose logs it reads."""
        kind = self.parameters.get("kind")
        if isinstance(kind, str):
            return (find_kind(kind),)
        return (KINDS["dependency"],) if self.method.name.startswith("dependency.") else tuple(KINDS.values())

    def short_list(self) -> "dict[str, object] | None":
        """For a list without a small limit: the parameters of one that is cut short, to see whether it is long."""
        limit = self.parameters.get("limit")
        if self.method.name != "record.list" or (isinstance(limit, int) and limit <= _SHORT):
            return None
        return {**self.parameters, "limit": _SHORT}


def own_methods() -> dict[str, Method]:
    """What a daemon answers beyond the method table; each function gets the session first."""
    from .session import Session

    rows: list[tuple[str, str, str, str, Callable[..., object]]] = [
        ("hello", "protocol:array? client:string? capabilities:object?", "hello",
         "Agree on a version of the protocol; optional.", Session.hello),
        ("changes.subscribe", "kinds:array? where:object? since:string?", "subscription",
         "Be told of changes from now on, or from the cursor `since` on.", Session.subscribe),
        ("changes.unsubscribe", "subscription:integer", "unsubscribed", "Be told no more.", Session.unsubscribe),
        ("daemon.status", "", "status", "Who serves this store, since when, and how far behind it is.",
         Session.status),
        ("daemon.metrics", "", "metrics", "Everything that is counted, in Prometheus' text format.", Session.metrics),
        ("daemon.shutdown", "", "shutdown", "Finish what is in flight, answer, and leave.", Session.shutdown),
        ("rpc.discover", "", "openrpc", "This interface as an OpenRPC document.", Session.discover),
    ]
    return {name: Method(name, parameters, answer, summary, function)
            for name, parameters, answer, summary, function in rows}


def all_methods() -> dict[str, Method]:
    """Every method a daemon answers."""
    return {**METHODS, **own_methods()}


def refusal(id_: str, error: Exception) -> tuple[bytes, str]:
    """The frame that answers a call with an error, and the outcome's name for metrics."""
    if isinstance(error, NoMethodError):
        return rpc.error(id_, rpc.METHOD_NOT_FOUND, f"Method not found: {error}"), "method_not_found"
    if isinstance(error, TaskStoreError):
        return rpc.error(id_, error.code, error.message, rpc.error_data(error)), error.kind
    log.error("internal error", exc_info=error)
    data: dict[str, object] = {"kind": "internal", "retryable": False, "applied": "unknown",
                               "hint": "the daemon's log tells more: taskstore daemon logs"}
    return rpc.error(id_, rpc.INTERNAL_ERROR, f"Internal error: {type(error).__name__}", data), "internal"


def bad_parameters(id_: str, error: InvalidError) -> tuple[bytes, str]:
    """The frame for parameters that the method does not take."""
    return rpc.error(id_, rpc.INVALID_PARAMS, error.message, rpc.error_data(error)), "invalid_params"
