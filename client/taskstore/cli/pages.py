"""Lists in full: an answer over a socket ends at some megabytes with a cursor, also where nobody asked for pages."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .opening import Opened


def fetch(store: "Opened", parameters: "dict[str, object]") -> "dict[str, object]":
    """The answer of record.list with all that was asked for: `limit` records, or every one."""
    answer: dict[str, object] = store.call("record.list", parameters)
    items = list(_items(answer))
    limit = parameters.get("limit")
    while answer["cursor"] is not None and not (isinstance(limit, int) and len(items) >= limit):
        rest = {"limit": limit - len(items)} if isinstance(limit, int) else {}
        answer = store.call("record.list", {**parameters, **rest, "cursor": answer["cursor"]})
        items += _items(answer)
    return {"items": items, "cursor": answer["cursor"]}


def _items(answer: "dict[str, object]") -> "list[object]":
    items = answer["items"]
    assert isinstance(items, list)  # noqa: S101 - what record.list answers with
    return items
