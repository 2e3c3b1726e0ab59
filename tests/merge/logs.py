"""Logs for tests of merging: lines, files, and what readers see in them."""

import functools
import json
import tempfile

from taskstore_core.cache import Cache
from taskstore_core.jsonl import index_or_error
from taskstore_core.kinds import KINDS, Kind
from taskstore_core.sync import sync_log
from taskstore_merge.merge import Merged, merge

PRD = KINDS["prd"]
State = dict[str, dict[str, object] | None]
"""What readers see: a record without its stamp and what belongs to its line, None for one that is deleted."""


def line(key: str, version: int, **fields: object) -> bytes:
    return json.dumps({"id": key, "updated_at": version, **fields}, separators=(",", ":"), ensure_ascii=False).encode()


def gone(key: str, version: int, **fields: object) -> bytes:
    return line(key, version, deleted=True, **fields)


def log(*lines: bytes) -> bytes:
    return b"".join(each + b"\n" for each in lines)


def lines_of(data: bytes) -> list[bytes]:
    return data.split(b"\n")[:-1]


def state(data: bytes, kind: Kind = PRD) -> State:
    """What the cache says after a sync of a log with these bytes: what every reader of the store is told."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        cache = _cache()
        with cache.db:
            sync_log(cache, kind, file.name, full=True)
        rows = list(cache.db.execute(f"SELECT id, deleted, raw FROM {kind.plural}_rows"))  # noqa: S608 - names from our own table
    return {key: None if deleted else _said(raw) for key, deleted, raw in rows}


def live(data: bytes, kind: Kind = PRD) -> State:
    """The same without what is deleted: a deletion may leave a tombstone or nothing."""
    return {key: record for key, record in state(data, kind).items() if record is not None}


@functools.cache
def _cache() -> Cache:
    """One for all: making the tables takes longer than reading a short log."""
    return Cache()


def _said(raw: str) -> dict[str, object]:
    record: dict[str, object] = json.loads(raw)
    return {name: value for name, value in record.items() if name not in {"updated_at", "base_at", "op", "op_sum"}}


def both(base: bytes, ours: bytes, theirs: bytes, kind: Kind = PRD) -> Merged:
    """The merge in one direction, after seeing that the other gives the same bytes, or the same conflicts."""
    merged, other = merge(kind, base, ours, theirs), merge(kind, base, theirs, ours)
    assert merged.conflicts == other.conflicts
    if not merged.conflicts:
        assert merged.data == other.data
    else:
        assert sorted(lines_of(merged.data)) == sorted(lines_of(other.data))
    return merged


def records_in(data: bytes, kind: Kind = PRD) -> set[str]:
    """The text of every line that is a record."""
    rows = (index_or_error(kind, each) for each in data.split(b"\n"))
    return {row[3] for row in rows if isinstance(row, tuple)}
