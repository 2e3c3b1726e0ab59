"""What differs between a log and what the cache remembers of it, after git (or anybody) replaced the file.

The walk follows rsync's idea (Tridgell, 1996) on whole lines: where the next remembered chunk stands at this place,
skip it; else read line by line until one is the first line of a later chunk, and go on there. In the stretches
between, lines are matched by hash. Every id on a line that came, went or changed places is `affected`, and its
state is computed anew from all its lines in the file: so the answer is the one a rebuild would give.
"""

from itertools import accumulate

from . import chunks
from .cache import OP_KEY, Cache, Checkpoint, Chunk
from .chunks import hash_of
from .jsonl import BadLineError, index_or_error, indexer
from .kinds import Kind
from .source import Source
from .versions import newest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .jsonl import Row

_TOO_MANY = 0.3  # of the lines: beyond this a rebuild is cheaper
_SLACK = 1 << 11  # bytes read beyond the size of a chunk in search of the next
_LF = 0x0A


class Stretch:
    """A part of the file that matched no chunk, and the chunks [first, last) that may have been there before."""

    __slots__ = ("data", "first", "hashes", "ids", "last", "line", "lines", "rows", "start")

    def __init__(self, start: int, line: int, first: int) -> None:
        self.start = start  # offset in bytes
        self.line = line  # count of lines before it
        self.lines: list[bytes] = []
        self.hashes: list[int] = []
        self.data = b""
        self.first = self.last = first
        self.ids: list[str] = []
        self.rows: dict[int, Row] = {}  # of the lines that were parsed


class Difference:
    """What to change in the cache, and what was found on the way."""

    def __init__(self) -> None:
        self.affected: set[str] = set()
        self.bad: list[tuple[int, BadLineError]] = []
        self.parsed = self.limit = 0
        self.offset = self.lines = 0
        self.unterminated = False
        self.rows: dict[str, Row] = {}  # the state of each affected id that is still there
        self.concurrent: dict[str, str | None] = {}  # which of their versions lost
        self.marked: list[Row] = []  # their lines that carry an `op`
        self.dropped: list[tuple[float, float]] = []  # ranges of positions, ends included
        self.chunks: list[Chunk] = []

    def store(self, cache: Cache, kind: Kind) -> None:
        """Make the cache say so, inside the caller's transaction."""
        cache.drop_ops(kind, self.affected)
        cache.put_ops(kind, self.marked)
        cache.drop_rows(kind, self.affected - self.rows.keys())
        cache.set_rows(kind, self.rows.values())
        cache.set_concurrent(kind, self.concurrent)
        cache.drop_chunks(kind, self.dropped)
        cache.put_chunks(kind, self.chunks)


class _Walk:
    """The remembered chunks of a log laid along its file."""

    def __init__(self, cache: Cache, kind: Kind, source: Source) -> None:
        self.kind = kind
        self.source = source
        self.chunks = list(cache.chunks(kind))
        self.kept: dict[int, int] = {}  # index of a chunk → its offset in the file
        self.stretches: list[Stretch] = []
        self.offset = self.line = 0
        self._firsts: dict[int, list[int]] = {}
        for index, chunk in enumerate(self.chunks):
            self._firsts.setdefault(chunks.unpack(chunk.hashes[:chunks.HASH_BYTES])[0], []).append(index)

    def run(self) -> None:
        chunk = 0
        while chunk < len(self.chunks) or self.offset < self.source.size:
            if chunk < len(self.chunks) and _stands_at(self.source, self.offset, self.chunks[chunk].bytes,
                                                       self.chunks[chunk].digest):
                self.kept[chunk] = self.offset
                self.offset += self.chunks[chunk].bytes
                self.line += self.chunks[chunk].lines
                chunk += 1
            else:
                chunk = self._read_stretch(chunk)
                if self.stretches[-1].last == len(self.chunks):
                    break

    def _read_stretch(self, chunk: int) -> int:
        """Read lines up to the first line of a chunk after `chunk`, or to the end; the chunk to go on with."""
        begin, found = self.offset, len(self.chunks)
        stretch = self._stretch_at(chunk)
        step = (self.chunks[chunk].bytes if chunk < len(self.chunks) else 0) + _SLACK
        for block in self.source.blocks(begin, step):
            fresh, rest = chunks.split(block)
            if rest and isinstance(index_or_error(self.kind, rest), tuple):
                fresh.append(rest)
            hashes = list(map(hash_of, fresh))
            stop, found = self._resume(hashes, chunk)
            stretch.lines += fresh[:stop]
            stretch.hashes += hashes[:stop]
            data = block[:sum(map(len, fresh[:stop])) + stop]  # less one where the last line lacks its line end
            stretch.data += data
            self.offset += len(data)
            self.line += stop
            if stop < len(fresh):
                break
        stretch.last = found
        return found

    def _stretch_at(self, chunk: int) -> Stretch:
        """The stretch that ended here, to go on with, if no chunk was kept since; else a new one."""
        if not self.stretches or self.stretches[-1].last != chunk or chunk in self.kept:
            self.stretches.append(Stretch(self.offset, self.line, chunk))
        return self.stretches[-1]

    def _resume(self, hashes: list[int], chunk: int) -> tuple[int, int]:
        """(count of lines before one that begins a later chunk, that chunk)."""
        firsts = self._firsts
        for number, line in enumerate(hashes):
            if line in firsts:
                for later in firsts[line]:
                    if later > chunk:
                        return number, later
        return len(hashes), len(self.chunks)


def is_prefix(cache: Cache, kind: Kind, source: Source, point: Checkpoint) -> bool:
    """Whether everything the cache remembers still stands, unchanged, at the beginning of the log."""
    if source.size < point.offset:
        return False
    offset = 0
    for size, digest in cache.chunk_digests(kind):
        if not _stands_at(source, offset, size, digest, may_go_on=True):
            return False
        offset += size
    return True


def _stands_at(source: Source, offset: int, size: int, digest: bytes, *, may_go_on: bool = False) -> bool:
    """Whether a chunk's bytes stand at `offset` and end a line there.

    A chunk that ended the file without a line end must do so still, or, if it `may_go_on`, be given its line end.
    """
    data = source.peek(offset, offset + size + 2)
    if len(data) < size or chunks.pack([hash_of(data[:size])]) != digest:
        return False
    behind = bytes(data[size:])
    return data[size - 1] == _LF or not behind or (may_go_on and behind.startswith((b"\n", b"\r\n")))


def find(cache: Cache, kind: Kind, source: Source) -> Difference | None:
    """What differs; None where so much does that a rebuild is cheaper."""
    walk = _Walk(cache, kind, source)
    walk.run()
    index = indexer(kind, sum(len(stretch.data) for stretch in walk.stretches))
    found = Difference()
    found.limit = int(_TOO_MANY * sum(chunk.lines for chunk in walk.chunks)) + chunks.LINES
    for stretch in walk.stretches:
        new = _match_lines(walk, stretch, found)
        if len(found.affected) + len(new) > found.limit:
            return None
        _take_new(stretch, new, index([stretch.lines[number] for number in new]), found)
    found.affected -= {"", chunks.BAD}
    found.offset, found.lines = walk.offset, walk.line
    found.unterminated = walk.offset > 0 and source.read(walk.offset - 1, walk.offset) != b"\n"
    rows = [row for _, row in sorted(_rows_of(walk, found), key=lambda pair: pair[0])]
    found.marked = [row for row in rows if OP_KEY in row[3]]
    found.rows = newest(rows)
    found.concurrent = _concurrent(kind, rows)
    return found if _lay_out(walk, found) else None


def _concurrent(kind: Kind, rows: "list[Row]") -> "dict[str, str | None]":
    """Which versions lost, by id, of ids of which any did; `rows` are all lines of theirs."""
    from . import concurrent

    versions: dict[str, list[Row]] = {}
    for row in rows:
        versions.setdefault(row[0], []).append(row)
    noted = {key: concurrent.noted(kind, its) for key, its in versions.items()}
    return {key: lost for key, lost in noted.items() if lost is not None}


def _match_lines(walk: _Walk, stretch: Stretch, found: Difference) -> list[int]:
    """Tell which lines of a stretch were in its chunks before, and in this order; the numbers of the others."""
    hashes: list[int] = []
    ids: list[str] = []
    for chunk in walk.chunks[stretch.first:stretch.last]:
        hashes += chunks.unpack(chunk.hashes)
        ids += chunk.ids.split("\0")
    if len(hashes) == len(stretch.hashes):  # edited where they stand, most likely
        new = [number for number, (old, now) in enumerate(zip(hashes, stretch.hashes, strict=True)) if old != now]
        if set(map(hashes.__getitem__, new)).isdisjoint(map(stretch.hashes.__getitem__, new)):
            found.affected.update(ids[number] for number in new)
            stretch.ids = ids
            return new
    places = dict(zip(hashes, range(len(hashes)), strict=True))
    at = list(map(places.get, stretch.hashes))
    stretch.ids = ["" if place is None else ids[place] for place in at]
    found.affected.update(ids[places[line]] for line in places.keys() - set(stretch.hashes))
    known = [place for place in at if place is not None]
    if known != sorted(known):
        found.affected.update(ids[place] for place, furthest in zip(known, accumulate(known, max), strict=True)
                              if place < furthest)
    return [number for number, place in enumerate(at) if place is None]


def _take_new(stretch: Stretch, numbers: list[int], rows: "list[Row | BadLineError | None]",
              found: Difference) -> None:
    """Note the lines of a stretch that were not there before."""
    for number, row in zip(numbers, rows, strict=True):
        key = stretch.ids[number] = chunks.id_of(row)
        found.affected.add(key)
        if isinstance(row, BadLineError):
            found.bad.append((stretch.line + number + 1, row))
        elif row is not None:
            stretch.rows[number] = row
    found.parsed += len(numbers)


def _rows_of(walk: _Walk, found: Difference) -> "list[tuple[tuple[int, int], Row]]":
    """Every line of the file whose id is affected, as ((offset of its part, number in it), row)."""
    rows: list[tuple[tuple[int, int], Row]] = []
    for stretch in walk.stretches:
        for number, key in enumerate(stretch.ids):
            if key in found.affected:
                row = stretch.rows.get(number) or index_or_error(walk.kind, stretch.lines[number])
                if isinstance(row, tuple):
                    rows.append(((stretch.start, number), row))
    for index, offset in walk.kept.items():
        keys = walk.chunks[index].ids.split("\0")
        if found.affected.isdisjoint(keys):
            continue
        lines = walk.source.read(offset, offset + walk.chunks[index].bytes).split(b"\n")
        for number, key in enumerate(keys):
            row = index_or_error(walk.kind, lines[number]) if key in found.affected else None
            if isinstance(row, tuple):
                rows.append(((offset, number), row))
    return rows


def _lay_out(walk: _Walk, found: Difference) -> bool:
    """Give the new chunks positions between those that stay; whether there was room for them."""
    old = walk.chunks
    for stretch in walk.stretches:
        count = -(-len(stretch.lines) // chunks.LINES)
        low = old[stretch.first - 1].position if stretch.first else old[0].position - 1
        high = old[stretch.last].position if stretch.last < len(old) else old[-1].position + count + 1
        step = (high - low) / (count + 1)
        if step <= abs(high) * 1e-12:
            return False
        found.chunks += chunks.build(stretch.data, stretch.lines, stretch.hashes, stretch.ids,
                                     first=low + step, step=step)
        if stretch.first < stretch.last:
            found.dropped.append((old[stretch.first].position, old[stretch.last - 1].position))
    return True
