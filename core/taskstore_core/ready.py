"""Which task specs may be claimed now, oldest first, and why one may not.

Ready is what is pending, or running with no live lease, with every need complete and a PRD that is not cancelled. A
PRD that is not in the store blocks nothing; a need that is not there is not complete.
"""

from .errors import BusyError, ReadOnlyError
from .view import SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .cache import Cache
    from .store import Store
    from .view import View

_FREE = """
  NOT EXISTS (SELECT 1 FROM prds_rows AS p WHERE p.id = s.prd_id AND NOT p.deleted AND p.status = 'cancelled')
  AND NOT EXISTS (SELECT 1 FROM needs AS n LEFT JOIN task_specs_rows AS t ON t.id = n.need AND NOT t.deleted
                  WHERE n.spec = s.id AND t.status IS NOT 'complete')
"""


def list_ready(store: "Store", prd_id: str | None = None, limit: int | None = None) -> list[str]:
    """The lines of what may be claimed now, oldest first; notes for next time what runs under no lease."""
    from itertools import islice

    from .claims import Notice

    view: View | None = None

    def ask(cache: "Cache") -> list[str]:
        nonlocal view
        view = store.view(cache)
        return [raw for _, raw in islice(ready(view, prd_id), limit)]

    lines = store.ask(ask)
    if view is not None and view.leases:
        try:  # noqa: SIM105 - importing contextlib takes 3 ms
            store.run(Notice())
        except (ReadOnlyError, BusyError):
            pass  # whoever claims next will note them
    return lines


def ready(view: "View", prd_id: str | None = None) -> "Iterator[tuple[str, str]]":
    """(id, raw line) of what may be claimed, oldest first.

    What runs under no known lease is noticed on the way: it counts as held from now on, for the default time.
    """
    import heapq

    running = [key for (key,) in view.cache.db.execute(
        "SELECT id FROM task_specs_rows WHERE status = 'running' AND NOT deleted ORDER BY created_at, id")]
    for key in running:
        if view.lease(key) is None:
            view.notice(key)
    lapsed = [key for key in running if not view.is_held(key)]
    streams = [_stream(view, "s.status = 'pending'", [], prd_id)]
    if lapsed:
        import json

        streams.append(_stream(view, "s.id IN (SELECT value FROM json_each(?)) AND s.status = 'running'",
                               [json.dumps(lapsed)], prd_id))
    for _, key, raw in heapq.merge(*streams):
        if not view.touched(SPEC, key) and not view.is_held(key):
            yield key, raw


def _stream(view: "View", which: str, values: "list[object]", prd_id: str | None) -> "Iterator[tuple[int, str, str]]":
    if prd_id is not None:
        which, values = f"{which} AND s.prd_id = ?", [*values, prd_id]
    for created_at, key, raw in view.cache.db.execute(
            f"SELECT s.created_at, s.id, s.raw FROM task_specs_rows AS s WHERE {which} AND NOT s.deleted"  # noqa: S608 - our own words, values bound
            f" AND {_FREE} ORDER BY s.created_at, s.id", values):
        yield created_at if isinstance(created_at, int) else 0, key, raw


def obstacle(view: "View", key: str) -> str:
    """Why a live task spec may not be claimed now; "" if it may."""
    known = view.get(SPEC, key)
    if known is None or known[1]:
        return "it is not there"
    spec = _columns(known[2])
    status = spec.get("status")
    if status not in {"pending", "running"}:
        return f"its status is {status}"
    if status == "running" and view.lease(key) is None:
        view.notice(key)
    lease = view.lease(key)
    if lease is not None and lease.is_live():
        return _held(lease.by, lease.until)
    waiting = [need for need in view.needs(key) if _status(view, "task_spec", need) != "complete"]
    if waiting:
        return f"it needs {', '.join(waiting[:3])}{' …' if len(waiting) > 3 else ''}"  # noqa: PLR2004 - a few of them
    if _status(view, "prd", str(spec.get("prd_id"))) == "cancelled":
        return f"its PRD {spec.get('prd_id')} is cancelled"
    return ""


def unblocked(view: "View", key: str) -> list[str]:
    """The pending task specs that needed this one and may be claimed now."""
    return sorted(spec for spec in view.cache.needed_by(key)
                  if _status(view, "task_spec", spec) == "pending" and not obstacle(view, spec))


def _held(by: str, until: int) -> str:
    from .clock import uptime_ms

    left = max(1, round((until - uptime_ms()) / 1000))
    return (f"{by} holds it for {left} s more" if by else
            f"it runs, though nobody has claimed it here, and is free in {left} s")


def _status(view: "View", kind: str, key: str) -> object:
    from .kinds import KINDS

    known = view.get(KINDS[kind], key)
    return None if known is None or known[1] else _columns(known[2]).get("status")


def _columns(raw: str) -> dict[str, object]:
    import json

    fields: dict[str, object] = json.loads(raw)
    return fields
