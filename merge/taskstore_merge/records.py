"""The records that the outcome table must decide, and where their lines stand in the three versions. Pure.

A record that one side alone touched needs no decision: the merged lines of its id are that side's. Only for ids that
both touched (or whose lines changed places, or stood in a conflict block) are all lines read.
"""

from itertools import chain

from taskstore_core.jsonl import BadLineError, index_or_error, indexer
from taskstore_core.kinds import Kind
from taskstore_core.outcome import same_content
from taskstore_core.versions import newest, rank

from .text import Change, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from taskstore_core.jsonl import Row
    from taskstore_core.outcome import State

    Lines = Sequence[bytes]
    Ids = Collection[str] | None  # None: every one


_ESCAPED = set("\"\\/<>&'+=`")  # by some writer of JSON or other


class Rows:
    """The index rows of lines, each parsed once."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._rows: dict[bytes, Row | BadLineError | None] = {}
        self._prefix = b'{"%s":"' % kind.key.encode()

    def read(self, lines: "Lines") -> None:
        """Parse lines that are going to be asked for, in bulk where there are many."""
        new = [line for line in dict.fromkeys(lines) if line not in self._rows]
        if new:
            self._rows.update(zip(new, indexer(self.kind, sum(map(len, new)))(new), strict=True))

    def get(self, line: bytes) -> "Row | BadLineError | None":
        """What a line is: a record, bad, or None for one that is blank or a marker."""
        if line not in self._rows:
            self._rows[line] = index_or_error(self.kind, line)
        return self._rows[line]

    def good(self, lines: "Iterable[bytes]") -> "list[Row]":
        """The rows of those lines that are records."""
        return [row for row in map(self.get, lines) if isinstance(row, tuple)]

    def of(self, lines: "Lines", ids: "Ids") -> "list[tuple[bytes, Row]]":
        """The lines that are records of `ids`, in order, with their rows."""
        if ids is not None:
            lines = self._likely(lines, ids)
        self.read(lines)
        found = []
        for line in lines:
            row = self._rows[line]
            if isinstance(row, tuple) and (ids is None or row[0] in ids):
                found.append((line, row))
        return found

    def _likely(self, lines: "Lines", ids: "Collection[str]") -> "Lines":
        """Lines that may be of `ids`, told by how they begin; one that does not begin as ours do may always be.

        An id with characters that some tool writes with a backslash cannot be told so: then every line may be.
        (Parsing all of 100,000 lines takes five times as long.)
        """
        if any(not key.isascii() or not key.isprintable() or not _ESCAPED.isdisjoint(key) for key in ids):
            return lines
        prefix, start = self._prefix, len(self._prefix)
        wanted = {key.encode() + b'"' for key in ids}
        ends = {start + len(key) for key in wanted}
        if len(ends) > 1:
            return [line for line in lines
                    if line[start:line.find(b'"', start) + 1] in wanted or line[:start] != prefix]
        end = ends.pop()
        return [line for line in lines if line[start:end] in wanted or line[:start] != prefix]


class Sides:
    """The three versions together: `changes` of ours and theirs, and the states of records in each."""

    def __init__(self, kind: Kind, base: Text, ours: Text, theirs: Text) -> None:
        self.base = base
        self.sides = (ours, theirs)
        self.changes = (Change(base, ours), Change(base, theirs))
        self.rows = Rows(kind)
        self.rows.read([*chain.from_iterable((*change.added, *change.removed) for change in self.changes)])

    def doubtful(self) -> "Ids":
        """The ids whose outcome may be another than what the merged lines say by themselves."""
        if any(change.reordered for change in self.changes):
            return None
        touched = [{row[0] for row in self.rows.good((*change.added, *change.removed))} for change in self.changes]
        found = touched[0] & touched[1]
        for change in self.changes:
            found |= self._tied(change)
            if change.inserted:
                found.update(row[0] for row in self.rows.good(change.added))
        for text in (self.base, *self.sides):
            for block in text.blocks:
                found.update(row[0] for places in (block.ours, block.theirs)
                             for row in self.rows.good(text.lines[places.start:places.stop]))
        return found

    def _tied(self, change: Change) -> set[str]:
        """The ids of which a side added several lines with one version, so that their order decides."""
        rows = self.rows.good(change.added)
        sorted_states = newest(sorted(rows, key=rank))
        return {key for key, row in newest(rows).items() if sorted_states[key] != row}

    def states(self, ids: "Ids", base_lines: "Sequence[tuple[bytes, Row]]") -> "tuple[dict[str, State], ...]":
        """The states of `ids` in base, ours and theirs; `base_lines` are their lines in the base."""
        found = [self._open(self.base, [row for _, row in base_lines])]
        for text, change in zip(self.sides, self.changes, strict=True):
            stayed = [row for line, row in base_lines if line not in change.removed]
            came = [row for row in self.rows.good(change.added) if ids is None or row[0] in ids]
            if change.reordered or (change.inserted and not {row[:2] for row in stayed}.isdisjoint(
                    row[:2] for row in came)):  # of equal versions the later line counts, so see which it is
                found.append(self._open(text, [row for _, row in self.rows.of(text.lines, ids)]))
            else:
                found.append(self._open(text, stayed + came))
        return tuple(found)

    def _open(self, text: Text, rows: "list[Row]") -> "dict[str, State]":
        """States by id; a conflict in a block of the text, which no later version settles, stays open."""
        states: dict[str, State] = {key: (row,) for key, row in newest(rows).items()}
        for block in text.blocks:
            ours, theirs = (newest(self.rows.good(text.lines[places.start:places.stop]))
                            for places in (block.ours, block.theirs))
            for key in ours.keys() & theirs.keys():
                one, other = ours[key], theirs[key]
                if (states.get(key) == (other,) and one[1] == other[1] and not one[2] and not other[2]
                        and not same_content(one, other)):
                    states[key] = (one, other)
        return states
