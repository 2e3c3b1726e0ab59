"""`resolve-dependency` and `wait-dependency`: what one execution wants of another."""

import sys

from taskstore_core.kinds import KINDS

from .arguments import Arguments
from .decode import decoder, fields
from .ids import find_record
from .opening import connect
from .progress import Working
from .show import write_record
from .text import span, visible, write_json

_DEPENDENCY = KINDS["dependency"]


def resolve(arguments: Arguments) -> int:
    """Note that a dependency is resolved."""
    with connect(arguments) as store:
        key, _ = find_record(store, _DEPENDENCY, arguments.text("ID"))
        record = store.call("dependency.resolve", {"id": key, "payload": arguments.option("payload"),
                                                   "op": arguments.option("op")})
    if arguments.json:
        write_json(record)
    else:
        sys.stdout.write(f"dependency {visible(key)} is resolved\n")
    return 0


def wait(arguments: Arguments) -> int:
    """Wait for a dependency and show it; 1 where the time is up before it is resolved."""
    timeout_ms = arguments.number("timeout_ms")
    with connect(arguments) as store:
        key, _ = find_record(store, _DEPENDENCY, arguments.text("ID"))
        with Working(f"waiting for {visible(key)}"):
            record = store.call("dependency.wait", {"id": key, "timeout_ms": timeout_ms})
    resolved = fields(decoder(), record).get("resolved_at") is not None
    if arguments.json:
        write_json(record)
    elif resolved:
        write_record(_DEPENDENCY, record)
    else:
        sys.stderr.write(f"taskstore: dependency {visible(key)} is not resolved after {span(timeout_ms or 0)}\n")
    return 0 if resolved else 1
