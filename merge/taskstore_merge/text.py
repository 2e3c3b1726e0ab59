"""One of the three versions of a log, as lines; and what one side changed since the base. Pure.

Lines are compared as bytes. What a side changed is found without parsing anything: nothing but the lines that differ
is looked into, so that a line that nobody understands costs nothing and loses nothing.
"""

from itertools import filterfalse

from taskstore_core import blocks
from taskstore_core.jsonl import index_or_error
from taskstore_core.kinds import Kind


class Text:
    """The lines of one version, without conflict markers.

    `torn` is what follows the last line end and is no record: a line that is not yet written. `data` are the bytes
    again where the lines are exactly theirs, None where something was taken out.
    """

    def __init__(self, kind: Kind, data: bytes, before: "Text | None" = None) -> None:
        """Read `data`; what stands in `before`, if it begins with that, is not read again."""
        self.data: bytes | None = data
        self.blocks: list[blocks.Block] = []
        self._known: set[bytes] | None = None
        start = 0
        if before is not None and before.data is not None and not before.blocks and data.startswith(before.data):
            start = len(before.data)
        self.lines = data[start:].split(b"\n")
        self.torn = self.lines.pop()
        if self.torn:
            self._take_last(kind)
        if data.find(b"\r", start) >= 0:
            self._take_out(_without_returns(kind, self.lines))
        known = before.lines if before is not None and start else []
        if data.find(blocks.MARK[:1], start) >= 0 and data.find(blocks.MARK, start) >= 0:  # one byte is found faster
            lines, self.blocks = blocks.dissolve(self.lines, len(known))
            self._take_out(lines)
        if known:
            self.lines = known + self.lines

    def known(self) -> set[bytes]:
        """Its lines, to look one up."""
        if self._known is None:
            self._known = set(self.lines)
        return self._known

    def _take_last(self, kind: Kind) -> None:
        """A last line without its line end counts if it is a whole record, a marker or blank."""
        self.data = None
        if not isinstance(index_or_error(kind, self.torn), Exception):
            self.lines.append(self.torn)
            self.torn = b""

    def _take_out(self, lines: list[bytes]) -> None:
        if lines != self.lines:
            self.data, self.lines = None, lines


class Change:
    """What a side did to the base: lines that came, in its order, and lines that went.

    `reordered`: the lines that stayed stand in another order. `inserted`: one that came stands before one that stayed.
    """

    __slots__ = ("added", "inserted", "removed", "reordered")

    def __init__(self, base: Text, side: Text) -> None:
        self.removed: set[bytes] = set()
        self.inserted = self.reordered = False
        count = len(base.lines)
        if side.lines[:count] == base.lines:  # appended to, as logs are
            self.added = side.lines[count:]
        elif not self._edit_in_place(base, side):
            self._compare(base, side)

    def _edit_in_place(self, base: Text, side: Text) -> bool:
        """Whether lines were only replaced by others where they stand; twice as fast as comparing sets."""
        if len(base.lines) != len(side.lines):
            return False
        pairs = [(old, new) for old, new in zip(base.lines, side.lines, strict=True) if old != new]
        removed, added = {old for old, _ in pairs}, {new: None for _, new in pairs}
        if not removed.isdisjoint(side.lines) or not added.keys().isdisjoint(base.lines):
            return False
        self.removed, self.added = removed, list(added)
        self.inserted = True
        return True

    def _compare(self, base: Text, side: Text) -> None:
        there, here = base.known(), side.known()
        self.added = list(filterfalse(there.__contains__, side.lines))
        self.removed = set(filterfalse(here.__contains__, base.lines))
        stayed = list(filter(there.__contains__, side.lines)) if self.added else side.lines
        self.reordered = stayed != (list(filter(here.__contains__, base.lines)) if self.removed else base.lines)
        self.inserted = side.lines[len(stayed):] != self.added


def _without_returns(kind: Kind, lines: list[bytes]) -> list[bytes]:
    """Lines without the CR of a CRLF: a record is the same with and without; what is none keeps every byte."""
    return [line[:-1] if line.endswith(b"\r") and not isinstance(index_or_error(kind, line), Exception) else line
            for line in lines]
