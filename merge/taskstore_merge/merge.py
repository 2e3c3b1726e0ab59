"""The three-way merge of a log: lines first, so that history survives, then what each record comes to. Pure.

1. A line stays if both sides kept it, and comes if either side added it. Lines of the base keep their order; those
   that came follow, ordered by version, id and bytes. So both directions give the same bytes.
2. Where both sides touched a record, the table of outcomes (`taskstore_core.outcome`) says what it comes to.
3. Where the merged lines would be read as something else, one line is added that makes it so, stamped above them all.
   What lost stays in history.
4. A conflict stands in a block at the end of the file; its lines stand there and nowhere else.
"""

from taskstore_core import blocks
from taskstore_core.clock import MAX_STAMP
from taskstore_core.jsonl import BASE
from taskstore_core.kinds import Kind
from taskstore_core.outcome import Outcome, decide, same_content
from taskstore_core.versions import newest, rank

from .records import Sides
from .text import Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskstore_core.jsonl import Row
    from taskstore_core.outcome import State


class Merged:
    """The bytes of the merged log, and the ids that are in conflict."""

    __slots__ = ("conflicts", "data")

    def __init__(self, data: bytes, conflicts: "list[str]") -> None:
        self.data = data
        self.conflicts = conflicts


def merge(kind: Kind, base: bytes, ours: bytes, theirs: bytes, marker_size: int = blocks.SIZE) -> Merged:
    """Merge three versions of the log of `kind`; `base` is empty where there is none."""
    if ours == theirs:
        return Merged(ours, [])
    before = Text(kind, base)
    return _Merge(kind, before, Text(kind, ours, before), Text(kind, theirs, before)).run(marker_size)


class _Merge:
    """One merge: the lines that stay, those that come, and what the records in doubt add and take away."""

    def __init__(self, kind: Kind, base: Text, ours: Text, theirs: Text) -> None:
        self.kind = kind
        self.base = base
        self.sides = Sides(kind, base, ours, theirs)
        self.rows = self.sides.rows
        gone = self.sides.changes[0].removed | self.sides.changes[1].removed
        self.kept = [line for line in base.lines if line not in gone] if gone else base.lines
        self.came = self._in_order({line for change in self.sides.changes for line in change.added})
        self.torn = _torn(base, ours, theirs)
        self.extra: list[str] = []
        self.rivals: dict[str, tuple[State, State]] = {}

    def run(self, marker_size: int) -> Merged:
        ids = self.sides.doubtful()
        if ids is None or ids:
            in_base = self.rows.of(self.base.lines, ids)
            kept = set(self.kept) if self.kept is not self.base.lines else None
            lines = [row for line, row in in_base if kept is None or line in kept]
            lines += [row for row in self.rows.good(self.came) if ids is None or row[0] in ids]
            self._decide(self.sides.states(ids, in_base), lines)
        return Merged(b"".join(self._parts(marker_size)), sorted(self.rivals))

    def _in_order(self, lines: "Iterable[bytes]") -> list[bytes]:
        """Lines that came, by version, id and bytes; bad ones have version 0, and what is no line is left out."""
        keyed = []
        for line in lines:
            row = self.rows.get(line)
            if row is not None:
                keyed.append((row[1], row[0], line) if isinstance(row, tuple) else (0, "", line))
        return [line for _, _, line in sorted(keyed)]

    def _decide(self, states: "tuple[dict[str, State], ...]", lines: "list[Row]") -> None:
        """Find the outcome of each record, of whose merged lines `lines` are the rows, and make it so."""
        base, ours, theirs = states
        merged = newest(lines)
        for key in sorted(base.keys() | ours.keys() | theirs.keys()):
            outcome = decide(base.get(key, ()), ours.get(key, ()), theirs.get(key, ()))
            if outcome.rivals is not None:
                self.rivals[key] = outcome.rivals
            elif not _reads_as(merged.get(key), outcome):
                rows = (*ours.get(key, ()), *theirs.get(key, ()))
                self.extra.append(self._made_so(key, outcome, rows, merged.get(key), base.get(key, ())))

    def _made_so(self, key: str, outcome: Outcome, rows: "Sequence[Row]", merged: "Row | None", base: "State") -> str:
        """A line that is newer than all three versions of its record, and says what that came to.

        It is based on what won (and what both sides had), not on what lost: nobody has looked at that yet.

        A deletion needs to be newer than the merged lines alone: one that came to be newer than the tombstone of the
        base for another reason would be taken for another deletion by the next merge.
        """
        from taskstore_core import change, validation

        beaten = [merged] if outcome.deleted else [*rows, *base, *outcome.state, merged]
        stamp = min(MAX_STAMP, 1 + max(row[1] for row in beaten if row is not None))
        won = outcome.state[-1][1] if outcome.state else None
        saw = [won] if won is not None else []
        saw = [row[1] for row in base[-1:] if won is None or row[1] > won] + saw  # a clock may have been behind
        mark = {BASE: saw if len(saw) > 1 else saw[0]} if saw else {}
        if outcome.state:
            return change.restamp(self.kind, outcome.state[-1][3], stamp, mark)
        return validation.encode(self.kind, {self.kind.key: key, "deleted": True, "updated_at": stamp, **mark})

    def _parts(self, marker_size: int) -> "Iterable[bytes]":
        """The merged file in parts."""
        rivals = {row[3] for pair in self.rivals.values() for state in pair for row in state}
        if self.base.data is not None and self.kept is self.base.lines and not rivals:
            yield self.base.data
            lines = list(self.came)
        else:
            lines = [line for line in (*self.kept, *self.came) if not rivals or not self._is_one_of(line, rivals)]
        lines += [line.encode() for line in self.extra]
        for key in sorted(self.rivals):
            ours, theirs = ([row[3].encode() for row in sorted(state, key=rank)] for state in self.rivals[key])
            lines += blocks.render(ours, theirs, marker_size)
        # What begins another line is that line, which was written since.
        torn = [line for line in self.torn if not any(each.startswith(line) for each in (*self.kept, *lines))]
        yield b"\n".join([*lines, *(torn or [b""])] if lines or torn else [])

    def _is_one_of(self, line: bytes, texts: set[str]) -> bool:
        row = self.rows.get(line)
        return isinstance(row, tuple) and row[3] in texts


def _reads_as(merged: "Row | None", outcome: Outcome) -> bool:
    """Whether readers of the merged lines, of which `merged` is the newest, will see the outcome."""
    if outcome.deleted:
        return merged is None or merged[2]
    return merged is not None and same_content(merged, outcome.state[-1])


def _torn(base: Text, ours: Text, theirs: Text) -> list[bytes]:
    """What is not yet written, in order: merged like lines."""
    both = {ours.torn} & {theirs.torn}
    return sorted(({ours.torn, theirs.torn} - {base.torn} | both) - {b""})
