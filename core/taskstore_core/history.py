"""Every version of one record, read from its log."""

from .cache import Cache
from .chunks import split
from .jsonl import index_or_error
from .kinds import Kind
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .jsonl import Row


def versions(cache: Cache, kind: Kind, path: str, key: str, pending: "Sequence[str]" = ()) -> list[str]:
    """The lines of `key` in the log at `path` and in `pending`, which waits to be appended to it, oldest first.

    Where the log is as the cache knows it, only the chunks that hold the id are read.
    """
    source = Source(path)
    try:
        point = cache.checkpoint(kind)
        known = point is not None and not point.racy and point.signature == source.signature
        lines = _lines_of(cache, kind, source, key) if known else _all_lines(source)
        rows = list(_rows(kind, key, lines))
    finally:
        source.close()
    there = {row[3] for row in rows}
    rows += [row for row in _rows(kind, key, (line.encode() for line in pending)) if row[3] not in there]
    return [row[3] for row in sorted(rows, key=lambda row: row[1])]


def _rows(kind: Kind, key: str, lines: "Iterator[bytes]") -> "Iterator[Row]":
    for line in lines:
        row = index_or_error(kind, line)
        if isinstance(row, tuple) and row[0] == key:
            yield row


def _lines_of(cache: Cache, kind: Kind, source: Source, key: str) -> "Iterator[bytes]":
    """The lines at the places where the cache has seen the id."""
    offset = 0
    for chunk in cache.chunks(kind):
        if key in chunk.ids:
            lines = source.read(offset, offset + chunk.bytes).split(b"\n")
            for line, of in zip(lines, chunk.ids.split("\0"), strict=False):
                if of == key:
                    yield line
        offset += chunk.bytes


def _all_lines(source: Source) -> "Iterator[bytes]":
    for block in source.blocks(0):
        lines, rest = split(block)
        yield from lines
        if rest:
            yield rest
