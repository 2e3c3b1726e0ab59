"""Answers that take long: lists that must be cut, and waiting for a dependency."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
import trio

from taskstore_core.plain import Json, to_json
from taskstore_core.request import check_number
from taskstore_core.rpc import ANSWER_BYTES
from taskstore_core.store import Store

from .engine import Engine


def cut_list(store: Store, function: Callable[..., Any], parameters: Mapping[str, object]) -> str:
    """The answer to `record.list`, with a cursor where all of it would be more than ANSWER_BYTES."""
    answer = function(store, **parameters)
    size = fitting = 0
    for item in answer["items"]:
        size += len(item.encode()) + 1
        if size > ANSWER_BYTES:
            break
        fitting += 1
    if fitting < len(answer["items"]):
        answer = function(store, **{**parameters, "limit": max(1, fitting)})
    return to_json(answer)


async def wait(engine: Engine, id: str, timeout_ms: int | None = None) -> Json:  # noqa: A002 - the name on the wire
    """The dependency `id` once it is resolved, or as it is when the time is up; raises NotFoundError."""
    if timeout_ms is not None:
        check_number("timeout_ms", timeout_ms, 0)
    line = ""
    with trio.move_on_after(float("inf") if timeout_ms is None else timeout_ms / 1000):
        while True:
            changed = engine.changed
            line = await engine.in_thread(lambda store: store.get("dependency", id))
            if orjson.loads(line).get("resolved_at") is not None:
                break
            await changed.wait()
    return Json(line) if line else Json(await engine.in_thread(lambda store: store.get("dependency", id)))
