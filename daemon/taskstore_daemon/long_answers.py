"""Lists that are cut where an answer ends."""

from collections.abc import Mapping
from typing import Any

from taskstore_core import query
from taskstore_core.cache import Cache
from taskstore_core.kinds import find_kind
from taskstore_core.plain import Json, to_json
from taskstore_core.rpc import ANSWER_BYTES
from taskstore_core.store import Store


def cut_list(store: Store, parameters: Mapping[str, Any]) -> str:
    """The answer to `record.list`, with a cursor at `limit` or where all of it would be more than ANSWER_BYTES.

    The rows come from one statement, so that they are of one moment, and no more of them are held than are answered.
    """
    kind = find_kind(parameters["kind"])
    order = parameters.get("order")
    wanted = query.build(kind, parameters.get("where"), order, parameters.get("limit"), parameters.get("cursor"),
                         concurrent=bool(parameters.get("concurrent")))

    def take(cache: Cache) -> str:
        items: list[Json] = []
        size, cursor = 0, None
        last: tuple[Any, str] | None = None
        for key, value, raw in cache.db.execute(wanted.sql, wanted.parameters):
            size += len(raw.encode()) + 1
            if last is not None and (size > ANSWER_BYTES or len(items) == wanted.limit):
                cursor = query.encode_cursor(order or kind.started, *last)
                break
            items.append(Json(raw))
            last = (value, key)
        return to_json({"items": items, "cursor": cursor})

    return store.ask(take)
