"""What a daemon answers beyond the method table: about itself, and changes as they happen.

Each function gets the session first; what it says comes from the server.
"""

from typing import TYPE_CHECKING

from taskstore_core import rpc
from taskstore_core.errors import InvalidError, UnsupportedVersionError
from taskstore_core.interest import Interest
from taskstore_core.methods import METHODS, Method

if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import Session

IN_ORDER = frozenset({"changes.subscribe", "changes.unsubscribe", "daemon.shutdown"})
"""Those that do something, and so wait for what the connection asked before."""
SUBSCRIPTIONS = 64
"""Subscriptions of one connection at the most: each may queue rpc.QUEUED_BYTES."""
_PROTOCOLS = 2


def hello(session: "Session", protocol: "list[object] | None" = None, client: str = "",
          capabilities: "dict[str, object] | None" = None) -> dict[str, object]:  # noqa: ARG001 - none so far
    """Who answers; raises UnsupportedVersionError where the ranges of protocols do not meet."""
    wanted = [rpc.PROTOCOL, rpc.PROTOCOL] if protocol is None else protocol
    numbers = [one for one in wanted if isinstance(one, int) and not isinstance(one, bool)]
    if len(wanted) != _PROTOCOLS or len(numbers) != _PROTOCOLS:
        raise InvalidError("protocol: must be two whole numbers, the least and the greatest", field="protocol")
    if not numbers[0] <= rpc.PROTOCOL <= numbers[1]:
        raise UnsupportedVersionError(
            f"this daemon speaks protocol {rpc.PROTOCOL}, {client or 'the client'} {numbers[0]} to {numbers[1]}",
            hint="taskstore daemon stop, then try again; or --no-daemon")
    return session.server.greeting()


async def subscribe(session: "Session", kinds: "list[object] | None" = None,
                    where: "dict[str, object] | None" = None, since: str | None = None) -> dict[str, object]:
    """Begin to send changes, once this is answered."""
    if len(session.subscriptions) >= SUBSCRIPTIONS:
        raise InvalidError(f"a connection may have {SUBSCRIPTIONS} subscriptions", hint="open another one")
    interest = Interest(None if kinds is None else [str(kind) for kind in kinds], where)
    subscription, cursor, fresh = await session.server.publisher.subscribe(interest, since)
    session.add(subscription)
    return {"subscription": subscription.number, "cursor": cursor, "fresh": fresh}


def unsubscribe(session: "Session", subscription: int) -> dict[str, object]:
    """Send no more of them."""
    found = session.subscriptions.pop(subscription, None)
    if found is None:
        raise InvalidError(f"there is no subscription {subscription} on this connection", field="subscription")
    session.server.publisher.forget(found)
    return {"subscription": subscription}


def status(session: "Session") -> dict[str, object]:
    """Who serves, and how far behind."""
    return session.server.status()


def metrics(session: "Session") -> dict[str, object]:
    """What was counted."""
    return {"text": session.server.metrics_text()}


def shutdown(session: "Session") -> dict[str, object]:
    """Leave, once this is answered."""
    session.server.stop("asked to by a client")
    return {"pid": session.server.pid}


def discover(session: "Session") -> dict[str, object]:
    """The OpenRPC document."""
    from .openrpc import document

    return document(session.server.methods)


_ROWS: "list[tuple[str, str, str, str, Callable[..., object]]]" = [
    ("hello", "protocol:array? client:string? capabilities:object?", "hello",
     "Agree on a version of the protocol; optional.", hello),
    ("changes.subscribe", "kinds:array? where:object? since:string?", "subscription",
     "Be told of changes from now on, or from the cursor `since` on.", subscribe),
    ("changes.unsubscribe", "subscription:integer", "unsubscribed", "Be told no more.", unsubscribe),
    ("daemon.status", "", "status", "Who serves this store, since when, and how far behind it is.", status),
    ("daemon.metrics", "", "metrics", "Everything that is counted, in Prometheus' text format.", metrics),
    ("daemon.shutdown", "", "shutdown", "Finish what is in flight, answer, and leave.", shutdown),
    ("rpc.discover", "", "openrpc", "This interface as an OpenRPC document.", discover),
]
OWN = {name: Method(name, parameters, answer, summary, function)
       for name, parameters, answer, summary, function in _ROWS}
ALL_METHODS = {**METHODS, **OWN}
"""Every method that a daemon answers."""
