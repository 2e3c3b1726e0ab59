"""What differs between a log and what the cache remembers of it, after git (or anybody) replaced the file.

The walk follows rsync's idea (Tridgell, 1996) on whole lines: where the next remembered chunk stands at this place,
skip it; else read line by line until one is the first line of a later chunk, and go on there. In the stretches
between, lines are matched by hash. Every id on a line that came, went or changed places is `affected`, and its
state is computed anew from all its lines in the file: so the answer is the one a rebuild would give.
"""

from . import chunks
from .cache import Cache, Checkpoint, Chunk
from .chunks import digest_of
from .jsonl import BadLineError, index_or_error
from .kinds import Kind
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .jsonl import Row

_TOO_MANY = 0.3  # of the lines: beyond this a rebuild is cheaper
_STEP = 1 << 16


class Stretch:
    """A part of the file that matched no chunk, and the chunks [first, last) that may have been there before."""

    __slots__ = ("data", "first", "ids", "last", "line", "lines", "rows", "start")

    def __init__(self, start: int, line: int, first: int) -> None:
        self.start = start  # offset in bytes
        self.line = line  # count of lines before it
        self.lines: list[bytes] = []
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
        self.rows: list[Row] = []
        self.stretches: list[tuple[Stretch, list[Chunk], float, float]] = []

    def store(self, cache: Cache, kind: Kind) -> None:
        """Make the cache say so, inside the caller's transaction."""
        cache.drop_rows(kind, self.affected)
        cache.put_rows(kind, self.rows)
        for _, made, low, high in self.stretches:
            if low <= high:
                cache.drop_chunks(kind, low, high)
            cache.put_chunks(kind, made)


class _Walk:
    """The remembered chunks of a log laid along its file."""

    def __init__(self, cache: Cache, kind: Kind, source: Source) -> None:
        self.kind = kind
        self.source = source
        self.chunks = cache.chunk_sizes(kind)
        self.kept: dict[int, int] = {}  # index of a chunk → its offset in the file
        self.stretches: list[Stretch] = []
        self.offset = self.line = 0
        self._firsts: dict[bytes, list[int]] = {}
        for index, chunk in enumerate(self.chunks):
            self._firsts.setdefault(chunk[4], []).append(index)

    def run(self) -> None:
        chunk = 0
        while chunk < len(self.chunks) or self.offset < self.source.size:
            if chunk < len(self.chunks) and stands_at(self.source, self.offset, self.chunks[chunk]):
                self.kept[chunk] = self.offset
                self.offset += self.chunks[chunk][1]
                self.line += self.chunks[chunk][2]
                chunk += 1
            else:
                chunk = self._read_stretch(chunk)
                if self.stretches[-1].last == len(self.chunks):
                    break

    def _read_stretch(self, chunk: int) -> int:
        """Read lines up to the first line of a chunk after `chunk`, or to the end; the chunk to go on with."""
        begin, found = self.offset, len(self.chunks)
        stretch = self._stretch_at(chunk)
        for block in self.source.blocks(begin, _STEP):
            fresh, rest = chunks.split(block)
            if rest and isinstance(index_or_error(self.kind, rest), tuple):
                fresh.append(rest)
            stop, found = self._resume(fresh, chunk)
            stretch.lines += fresh[:stop]
            self.offset += sum(map(len, fresh[:stop])) + stop
            self.line += stop
            if stop < len(fresh):
                break
        self.offset = min(self.offset, self.source.size)  # the last line may lack its line end
        stretch.data = self.source.read(stretch.start, self.offset)
        stretch.last = found
        return found

    def _stretch_at(self, chunk: int) -> Stretch:
        """The stretch that ended here, to go on with, if no chunk was kept since; else a new one."""
        if not self.stretches or self.stretches[-1].last != chunk or chunk in self.kept:
            self.stretches.append(Stretch(self.offset, self.line, chunk))
        return self.stretches[-1]

    def _resume(self, lines: list[bytes], chunk: int) -> tuple[int, int]:
        """(count of lines before one that begins a later chunk, that chunk)."""
        for number, line in enumerate(lines):
            for later in self._firsts.get(digest_of(line), ()):
                if later > chunk:
                    return number, later
        return len(lines), len(self.chunks)


def is_prefix(cache: Cache, kind: Kind, source: Source, point: Checkpoint) -> bool:
    """Whether everything the cache remembers still stands, unchanged, at the beginning of the log."""
    if source.size < point.offset:
        return False
    offset = 0
    for chunk in cache.chunk_sizes(kind):
        if not stands_at(source, offset, chunk):
            return False
        offset += chunk[1]
    return True


def stands_at(source: Source, offset: int, chunk: "tuple[float, int, int, bytes, bytes]") -> bool:
    """Whether a chunk's bytes stand at `offset` and end a line there."""
    data = source.read(offset, offset + chunk[1] + 1)
    if digest_of(memoryview(data)[:chunk[1]]) != chunk[3] or len(data) < chunk[1]:
        return False
    return data[chunk[1] - 1:chunk[1]] == b"\n" or data[chunk[1]:] in {b"", b"\n", b"\r"}


def find(cache: Cache, kind: Kind, source: Source) -> Difference | None:
    """What differs; None where so much does that a rebuild is cheaper."""
    walk = _Walk(cache, kind, source)
    walk.run()
    found = Difference()
    found.limit = int(_TOO_MANY * sum(chunk[2] for chunk in walk.chunks)) + chunks.LINES
    for stretch in walk.stretches:
        _match_lines(cache, walk, stretch, found)
        if len(found.affected) > found.limit:
            return None
    found.affected -= {"", chunks.BAD}
    found.offset, found.lines = walk.offset, walk.line
    found.unterminated = source.read(walk.offset - 1, walk.offset) not in {b"", b"\n"}
    found.rows = [row for _, row in sorted(_rows_of(cache, walk, found), key=lambda pair: pair[0])]
    found.parsed += sum(len(stretch.rows) for stretch in walk.stretches)
    return found if _lay_out(walk, found) else None


def _match_lines(cache: Cache, walk: _Walk, stretch: Stretch, found: Difference) -> None:
    """Tell which lines of a stretch were in its chunks before, in this order; parse the others."""
    before = _remembered(cache, walk, stretch)
    places = {digest: (place, key) for place, (digest, key) in enumerate(before)}
    furthest = -1
    seen: set[bytes] = set()
    for number, line in enumerate(stretch.lines):
        digest = digest_of(line)
        place, key = places.get(digest, (-1, ""))
        if place < 0:
            key = _parse(walk.kind, stretch, number, found)
        if place < max(furthest, 0):
            found.affected.add(key)
            if len(found.affected) > found.limit:
                return
        furthest = max(furthest, place)
        seen.add(digest)
        stretch.ids.append(key)
    found.affected.update(key for digest, key in before if digest not in seen)


def _remembered(cache: Cache, walk: _Walk, stretch: Stretch) -> list[tuple[bytes, str]]:
    if stretch.first >= stretch.last:
        return []
    return chunks.line_hashes(cache.chunks(walk.kind, walk.chunks[stretch.first][0], walk.chunks[stretch.last - 1][0]))


def _parse(kind: Kind, stretch: Stretch, number: int, found: Difference) -> str:
    row = index_or_error(kind, stretch.lines[number])
    if isinstance(row, BadLineError):
        found.bad.append((stretch.line + number + 1, row))
        found.parsed += 1
    elif row is not None:
        stretch.rows[number] = row
    return chunks.id_of(row)


def _rows_of(cache: Cache, walk: _Walk, found: Difference) -> "list[tuple[tuple[int, int], Row]]":
    """Every line of the file whose id is affected, as ((offset of its part, number in it), row)."""
    rows: list[tuple[tuple[int, int], Row]] = []
    for stretch in walk.stretches:
        for number, key in enumerate(stretch.ids):
            if key in found.affected:
                row = stretch.rows.get(number) or index_or_error(walk.kind, stretch.lines[number])
                if isinstance(row, tuple):
                    rows.append(((stretch.start, number), row))
    for index, (_, ids) in enumerate(cache.chunk_ids(walk.kind)):
        offset = walk.kept.get(index)
        keys = ids.split("\0")
        if offset is None or found.affected.isdisjoint(keys):
            continue
        lines = walk.source.read(offset, offset + walk.chunks[index][1]).split(b"\n")
        for number, key in enumerate(keys):
            row = index_or_error(walk.kind, lines[number]) if key in found.affected else None
            if isinstance(row, tuple):
                rows.append(((offset, number), row))
    return rows


def _lay_out(walk: _Walk, found: Difference) -> bool:
    """Give the new chunks positions between those that stay; whether there was room for them."""
    for stretch in walk.stretches:
        count = -(-len(stretch.lines) // chunks.LINES)
        low = walk.chunks[stretch.first - 1][0] if stretch.first else walk.chunks[0][0] - 1
        high = walk.chunks[stretch.last][0] if stretch.last < len(walk.chunks) else walk.chunks[-1][0] + count + 1
        step = (high - low) / (count + 1)
        made = chunks.build(stretch.data, stretch.lines, stretch.ids, low + step, step)
        if step <= abs(high) * 1e-12:
            return False
        dropped = (0.0, -1.0) if stretch.first >= stretch.last else (
            walk.chunks[stretch.first][0], walk.chunks[stretch.last - 1][0])
        found.stretches.append((stretch, made, *dropped))
    return True
