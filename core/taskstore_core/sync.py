"""Bringing the cache level with the logs, at the cost of what changed.

    unchanged   the signature is the one noted, and not racy
    tail        everything noted is still there: only what follows is parsed
    changed     the file was replaced: only the lines that differ are parsed (see `difference`)
    rebuilt     nothing is known of it, or too much differs

Each runs in the caller's transaction together with its checkpoint, so that a crash leaves both old or both new.
Nothing in a log makes sync fail: what is not a record is skipped, counted and reported.
"""

from . import chunks, difference, signature
from .cache import Cache, Checkpoint, Chunk
from .history import examine
from .jsonl import BadLineError, index_or_error, indexer
from .kinds import Kind
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .signature import Signature

REPORTED = 100


class LogReport:
    """What syncing one log did. `bad` lists up to REPORTED lines that are not records, as (line number, reason)."""

    __slots__ = ("bad", "bad_lines", "changed", "mode", "parsed")

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.parsed = 0
        self.changed = 0
        self.bad: list[tuple[int, str]] = []
        self.bad_lines = 0

    def note_bad(self, line: int, error: BadLineError) -> None:
        """Note a line that is not a record."""
        self.bad_lines += 1
        if len(self.bad) < REPORTED:
            self.bad.append((line, str(error)))


def sync_log(cache: Cache, kind: Kind, path: str, *, full: bool = False,
             sealed: "tuple[Signature, Signature] | None" = None) -> LogReport:
    """Bring the cache level with one log, inside the caller's transaction.

    `sealed` are the log's signatures before and after an append of ours: what stood before need not be compared
    then. Raises ReadOnlyError where the log cannot be read.
    """
    looked_at = signature.stamping_ns()
    source = Source(path)
    try:
        point = None if full else cache.checkpoint(kind)
        ours = sealed is not None and source.signature == sealed[1]
        trusted = ours and point is not None and not point.racy and sealed is not None and sealed[0] == point.signature
        report, end = _bring_level(cache, kind, source, point, trusted=trusted)
        examine(cache, kind, source)
        racy = source.changed() or (not ours and signature.is_racy(source.signature, looked_at))
        cache.set_checkpoint(kind, Checkpoint(source.signature, end.offset, end.lines, racy=racy,
                                              unterminated=end.unterminated))
        return report
    finally:
        source.close()


def _bring_level(cache: Cache, kind: Kind, source: Source, point: Checkpoint | None, *,
                 trusted: bool) -> "tuple[LogReport, End]":
    if point is None:
        return _rebuild(cache, kind, source)
    if trusted or difference.is_prefix(cache, kind, source, point):
        return _tail(cache, kind, source, point)
    found = difference.find(cache, kind, source)
    if found is None:
        return _rebuild(cache, kind, source)
    report = LogReport("changed")
    report.parsed, report.changed = found.parsed, len(found.affected)
    for line, error in found.bad:
        report.note_bad(line, error)
    found.store(cache, kind)
    return report, End(found.offset, found.lines, unterminated=found.unterminated)


class End:
    """Where reading a log ended: the offset behind the last line taken in, and the count of lines before it."""

    __slots__ = ("lines", "offset", "unterminated")

    def __init__(self, offset: int, lines: int, *, unterminated: bool = False) -> None:
        self.offset = offset
        self.lines = lines
        self.unterminated = unterminated


def _rebuild(cache: Cache, kind: Kind, source: Source) -> "tuple[LogReport, End]":
    report = LogReport("rebuilt")
    cache.begin_rebuild(kind)
    end = _take_in(cache, kind, source, End(0, 0), None, report)
    cache.end_rebuild(kind)
    return report, end


def _tail(cache: Cache, kind: Kind, source: Source, point: Checkpoint) -> "tuple[LogReport, End]":
    report = LogReport("tail" if source.size > point.offset else "unchanged")
    begin = End(point.offset, point.lines, unterminated=point.unterminated)
    if source.size == point.offset:
        return report, begin
    return report, _take_in(cache, kind, source, begin, cache.last_chunk(kind), report)


def _take_in(  # noqa: PLR0917 - the parties to one read
    cache: Cache, kind: Kind, source: Source, begin: End, last: Chunk | None, report: LogReport,
) -> End:
    """Read from `begin` to the end of the log; `last` is the chunk before, which is filled up first."""
    start, known, position = begin.offset, list[str](), 1.0
    if last is not None:
        position = last.position + 1
        if last.lines < chunks.LINES or begin.unterminated:
            start, known, position = start - last.bytes, last.ids.split("\0"), last.position
    end = End(start, begin.lines - len(known))
    touched: set[str] = set()
    index = indexer(kind, source.size - begin.offset)
    for block in source.blocks(start):
        data, lines, end.unterminated = _whole_lines(kind, block)
        ids, known = known[:len(lines)], known[len(lines):]
        rows = index(lines[len(ids):])
        good = [row for row in rows if row is not None and not isinstance(row, BadLineError)]
        for number, row in enumerate(rows, end.lines + len(ids) + 1):
            if isinstance(row, BadLineError):
                report.note_bad(number, row)
        cache.put_rows(kind, good)
        ids += map(chunks.id_of, rows)
        made = chunks.build(data, lines, list(map(chunks.hash_of, lines)), ids, first=position)
        cache.put_chunks(kind, made)
        position += len(made)
        report.parsed += len(rows)
        touched.update(row[0] for row in good)
        end.offset += len(data)
        end.lines += len(lines)
    report.changed = len(touched)
    return end


def _whole_lines(kind: Kind, block: bytes) -> tuple[bytes, list[bytes], bool]:
    """The bytes of a block that can be taken in, their lines, and whether the last of those lacks its line end.

    An unterminated line is taken in if it is a whole record (no record begins another); else it is torn: not yet
    written, left for later.
    """
    lines, rest = chunks.split(block)
    if not rest:
        return block, lines, False
    if isinstance(index_or_error(kind, rest), tuple):
        return block, [*lines, rest], True
    return block[:len(block) - len(rest)], lines, False
