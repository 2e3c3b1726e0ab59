"""Which task specs may be claimed now, oldest first, and why one may not.

Ready is what is pending, or running with no live lease, with every need complete and a PRD that is not cancelled. A
PRD that is not in the store blocks nothing; a need that is not there is not complete.
"""

from .errors import BusyError, ReadOnlyError, check_text
from .jsonl import parse_object
from .kinds import KINDS
from .leases import is_known
from .view import SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .cache import Cache
    from .change import Known
    from .store import Store
    from .view import View

_NONE = (None, None)
_FREE = """
  NOT EXISTS (SELECT 1 FROM prds_rows AS p WHERE p.id = s.prd_id AND NOT p.deleted AND p.status = 'cancelled')
  AND NOT EXISTS (SELECT 1 FROM needs AS n LEFT JOIN task_specs_rows AS t ON t.id = n.need AND NOT t.deleted
                  WHERE n.spec = s.id AND t.status IS NOT 'complete')
"""


def list_ready(store: "Store", prd_id: str | None = None, limit: int | None = None) -> list[str]:
    """The lines of what may be claimed now, oldest first; notes for next time what runs under no lease."""
    from itertools import islice

    if prd_id is not None:
        check_text("prd_id", prd_id)
    view: View | None = None

    def ask(cache: "Cache") -> list[str]:
        nonlocal view
        view = store.view(cache)
        return [raw for _, raw in islice(ready(view, prd_id), limit)]

    lines = store.ask(ask)
    if view is not None and view.noticed:
        from .claims import Notice

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

    written = view.all_touched(SPEC)
    running = [(key, version) for key, version in view.cache.db.execute(
        "SELECT id, version FROM task_specs_rows WHERE status = 'running' AND NOT deleted ORDER BY created_at, id")
        if key not in written]
    tokens = view.tokens()
    for key, version in running:
        if not is_known(tokens.get(key), version):
            view.notice(key, version)
    lapsed = [key for key, version in running if is_known(tokens.get(key), version) and tokens[key][0] is None]
    streams = [_stream(view, "s.status = 'pending'", [], prd_id)]
    ours = _changed(view)
    if lapsed:
        import json

        streams.append(_stream(view, "s.id IN (SELECT value FROM json_each(?)) AND s.status = 'running'",
                               [json.dumps(lapsed)], prd_id))
    unchanged = ((created_at, key, raw) for created_at, key, raw in heapq.merge(*streams)
                 if key not in written and key not in ours and not tokens.get(key, _NONE)[0])
    for _, key, raw in heapq.merge(unchanged, _among(view, ours, prd_id)):
        yield key, raw


def _changed(view: "View") -> set[str]:
    """The task specs of which the group may have changed whether they are ready; the cache does not know yet."""
    specs = {key for key in view.all_touched(SPEC) if not view.is_granted(key)}
    specs |= {spec for key in specs for spec in view.needed_by(key)}
    for prd in view.all_touched(KINDS["prd"]):
        before = view.cache.get(KINDS["prd"], prd)
        if (_status_of(before) == "cancelled") != (_status(view, "prd", prd) == "cancelled"):
            rows = view.cache.db.execute("SELECT id FROM task_specs_rows WHERE prd_id = ?", (prd,))
            specs |= {spec for (spec,) in rows}
    return specs


def _among(view: "View", keys: "set[str]", prd_id: str | None) -> "list[tuple[int, str, str]]":
    """(created_at, id, raw line) of those of `keys` that may be claimed, oldest first, as the group has made them."""
    found = []
    for key in keys:
        known = view.get(SPEC, key)
        if known is None or obstacle(view, key):
            continue
        spec = parse_object(known[2])
        if prd_id is None or spec.get("prd_id") == prd_id:
            created_at = spec.get("created_at")
            found.append((created_at if isinstance(created_at, int) else 0, key, known[2]))
    return sorted(found)


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
    spec = parse_object(known[2])
    status = spec.get("status")
    if status not in {"pending", "running"}:
        return f"its status is {status}"
    lease = view.lease(key)
    if status == "running" and not is_known(None if lease is None else lease.as_token(), known[0]):
        view.notice(key, known[0])
        lease = view.lease(key)
    if lease is not None and lease.is_live() and (lease.token or status == "running"):
        return _held(lease.by, lease.until)
    waiting = [need for need in view.needs(key) if _status(view, "task_spec", need) != "complete"]
    if waiting:
        return f"it needs {', '.join(waiting[:3])}{' …' if len(waiting) > 3 else ''}"  # noqa: PLR2004 - a few of them
    if _status(view, "prd", str(spec.get("prd_id"))) == "cancelled":
        return f"its PRD {spec.get('prd_id')} is cancelled"
    return ""


def unblocked(view: "View", key: str) -> list[str]:
    """The pending task specs that needed this one and may be claimed now."""
    return sorted(spec for spec in view.needed_by(key)
                  if _status(view, "task_spec", spec) == "pending" and not obstacle(view, spec))


def _held(by: str, until: int) -> str:
    from .clock import uptime_ms

    left = max(1, round((until - uptime_ms()) / 1000))
    return (f"{by} holds it for {left} s more" if by else
            f"it runs, though nobody has claimed it here, and is free in {left} s")


def _status(view: "View", kind: str, key: str) -> object:
    return _status_of(view.get(KINDS[kind], key))


def _status_of(known: "Known") -> object:
    return None if known is None or known[1] else parse_object(known[2]).get("status")
