"""The feed: what changed in the cache, in order, whichever process brought it level.

A cursor is (epoch, seq). The epoch changes when the cache is built anew, so that a cursor of another one, or one that
lies too far back, says that its holder must look at everything again.
"""

from .cache import Cache
from .kinds import LOGS, Kind

Cursor = tuple[str, int]


class Change:
    """One record that came, changed or went; `raw` is its line now, None if it is not live."""

    __slots__ = ("key", "kind", "op", "raw", "seq")

    def __init__(self, seq: int, kind: Kind, key: str, op: str, raw: str | None) -> None:
        self.seq = seq
        self.kind = kind
        self.key = key
        self.op = op
        self.raw = raw


class Changes:
    """Changes up to `cursor`; `fresh` if whoever asks must look at everything anew."""

    __slots__ = ("cursor", "fresh", "items")

    def __init__(self, cursor: "Cursor", items: list[Change], *, fresh: bool) -> None:
        self.cursor = cursor
        self.items = items
        self.fresh = fresh


def read(cache: Cache, since: "Cursor | None", limit: int, until: int | None = None) -> Changes:
    """What changed after `since`, at most `limit` entries of the feed; an id that changed twice stands there once.

    `until` is the number of the last entry wanted. Without `since` the answer is a cursor for what comes next.
    """
    epoch = cache.epoch()
    first, last = cache.feed_range()
    if since is None or since[0] != epoch or not first - 1 <= since[1] <= last:
        return Changes((epoch, last), [], fresh=since is not None)
    entries = cache.feed(since[1], last if until is None else until, limit)
    ops: dict[tuple[str, str], list[str]] = {}
    for _, log, key, op in entries:
        ops.setdefault((log, key), []).append(op)
    last_seq = {(log, key): seq for seq, log, key, _ in entries}
    items = [_change(cache, last_seq[name], LOGS[name[0]], name[1], seen[0]) for name, seen in ops.items()]
    items.sort(key=lambda change: change.seq)
    return Changes((epoch, entries[-1][0] if entries else since[1]), items, fresh=False)


def _change(cache: Cache, seq: int, kind: Kind, key: str, first: str) -> Change:
    known = cache.get(kind, key)
    if known is None or known[1]:
        return Change(seq, kind, key, "delete", None)
    return Change(seq, kind, key, "create" if first == "create" else "update", known[2])
