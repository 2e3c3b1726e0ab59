"""Waiting for a dependency without a daemon: look whenever a file may have changed."""

import time

from .jsonl import parse_object
from .plain import Json
from .request import check_number
from .store import Store

_PAUSE_S = 0.02  # a look that finds nothing new costs a few stats: 20 µs


def wait(store: Store, key: str, timeout_ms: int | None = None) -> Json:
    """The dependency `key` once it is resolved, or as it is when the time is up; raises NotFoundError."""
    if timeout_ms is not None:
        check_number("timeout_ms", timeout_ms, 0)
    deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
    while True:
        line = store.get("dependency", key)
        if parse_object(line).get("resolved_at") is not None:
            return Json(line)
        left = _PAUSE_S if deadline is None else min(_PAUSE_S, deadline - time.monotonic())
        if left <= 0:
            return Json(line)
        time.sleep(left)
