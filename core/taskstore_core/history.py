"""Every version of a record, read from its log."""

from .cache import Cache
from .chunks import split
from .jsonl import index_or_error
from .kinds import Kind
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from .jsonl import Row


def versions(cache: Cache, kind: Kind, path: str, key: str, pending: "Sequence[str]" = ()) -> list[str]:
    """The lines of `key` in the log at `path` and in `pending`, which waits to be appended to it, oldest first.

    Where the log is as the cache knows it, only the chunks that hold the id are read.
    """
    source = Source(path)
    try:
        point = cache.checkpoint(kind)
        known = point is not None and not point.racy and point.signature == source.signature
        lines = _lines_of(cache, kind, source, {key}) if known else _all_lines(source)
        rows = list(_rows(kind, {key}, lines))
    finally:
        source.close()
    waiting = _rows(kind, {key}, (line.encode() for line in pending))
    return [row[3] for row in sorted(_joined(rows, waiting), key=lambda row: row[1])]


def examine(cache: Cache, kind: Kind, source: Source, waiting: "Sequence[Row]" = ()) -> None:
    """Look at the records that are in doubt, and note which versions of theirs lost; inside the caller's transaction.

    `source` is the log that the cache was just made level with, `waiting` the lines that are to be appended to it.
    """
    doubts = cache.in_doubt(kind)
    if not doubts:
        return
    from . import concurrent

    keys = set(doubts)
    versions: dict[str, list[Row]] = {key: [] for key in doubts}
    rows = list(_rows(kind, keys, _lines_of(cache, kind, source, keys)))
    for row in _joined(rows, (row for row in waiting if row[0] in keys)):
        versions[row[0]].append(row)
    cache.set_concurrent(kind, {key: concurrent.noted(kind, rows) for key, rows in versions.items()})


def _joined(rows: "list[Row]", waiting: "Iterable[Row]") -> "list[Row]":
    there = {row[3] for row in rows}
    return rows + [row for row in waiting if row[3] not in there]


def _rows(kind: Kind, keys: "Collection[str]", lines: "Iterable[bytes]") -> "Iterator[Row]":
    for line in lines:
        row = index_or_error(kind, line)
        if isinstance(row, tuple) and row[0] in keys:
            yield row


def _lines_of(cache: Cache, kind: Kind, source: Source, keys: "set[str]") -> "Iterator[bytes]":
    """The lines at the places where the cache has seen one of the ids."""
    offset = 0
    for chunk in cache.chunks(kind):
        ids = chunk.ids.split("\0")
        if not keys.isdisjoint(ids):
            lines = source.read(offset, offset + chunk.bytes).split(b"\n")
            for line, of in zip(lines, ids, strict=False):
                if of in keys:
                    yield line
        offset += chunk.bytes


def _all_lines(source: Source) -> "Iterator[bytes]":
    for block in source.blocks(0):
        lines, rest = split(block)
        yield from lines
        if rest:
            yield rest
