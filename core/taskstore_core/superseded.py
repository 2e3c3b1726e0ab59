"""Which lines of a log are superseded, so that compaction may drop them; pure.

Dropped are lines that no reader needs for the state. Everything else stays, byte for byte: what is no record, the
lines between conflict markers (whoever settles a conflict may take either side away, and must then find what was
before), lines whose `op` may be repeated yet, and all of a live record of which a version lost that nobody has seen
(see `concurrent`). Kept lines stay in their order, so that the state is the same.
"""

from .cache import MEMORY_MS, OP_KEY
from .clock import now_ms
from .concurrent import noted
from .kinds import Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .jsonl import BadLineError, Row

    Rows = Sequence[Row | BadLineError | None]

_TRIM = b" \t\r\xef\xbb\xbf"


class Rule:
    """What may go: versions beyond the `keep` newest of a record that are `older_than_ms` or more; both must hold.

    With `prune_tombstones`, also all that is left of a deleted record whose tombstone is as old as that.
    """

    __slots__ = ("before", "keep", "op_before", "prune_tombstones")

    def __init__(self, older_than_ms: int = 0, keep: int = 1, *, prune_tombstones: bool = False) -> None:
        now = now_ms()
        self.before = now - older_than_ms if older_than_ms else None
        self.op_before = now - MEMORY_MS
        self.keep = keep
        self.prune_tombstones = prune_tombstones

    def holds(self, row: "Row") -> bool:
        """Whether a line is old enough to go once it is not needed."""
        return (self.before is None or row[1] <= self.before) and not (OP_KEY in row[3] and row[1] > self.op_before)


class Superseded:
    """The numbers of the `lines` to drop, and the number of the tombstone of each id that goes altogether."""

    __slots__ = ("lines", "tombstones")

    def __init__(self, lines: set[int], tombstones: dict[str, int]) -> None:
        self.lines = lines
        self.tombstones = tombstones


def find(kind: Kind, lines: "Sequence[bytes]", rows: "Rows", rule: Rule,
         spared: "Collection[str]" = ()) -> Superseded:
    """What of a log may go; `rows` is what each of its `lines` says. The tombstones of `spared` ids stay."""
    versions: dict[str, list[tuple[int, Row]]] = {}
    disputed = set(spared)
    for number, in_conflict in enumerate(_in_conflict(lines)):
        row = rows[number]
        if not isinstance(row, tuple):
            continue
        if in_conflict:
            disputed.add(row[0])
        else:
            versions.setdefault(row[0], []).append((number, row))
    found = Superseded(set(), {})
    for key, its in versions.items():
        its.sort(key=_version)  # stable: of equal versions the later line stays the newer
        if rule.prune_tombstones and key not in disputed and _is_pruned(its, rule):
            found.lines.update(number for number, _ in its)
            found.tombstones[key] = its[-1][0]
        else:
            dropped = [number for number, row in its[:-rule.keep] if rule.holds(row)]
            if dropped and (its[-1][1][2] or noted(kind, [row for _, row in its]) is None):
                found.lines.update(dropped)
    return found


def _version(line: "tuple[int, Row]") -> int:
    return line[1][1]


def _is_pruned(versions: "Sequence[tuple[int, Row]]", rule: Rule) -> bool:
    """Whether the lines of one id, the newest last, are those of a deleted record, and all old enough."""
    return versions[-1][1][2] and all(rule.holds(row) for _, row in versions)


def _in_conflict(lines: "Sequence[bytes]") -> "Iterator[bool]":
    """Whether each line stands between conflict markers; after one that nothing ends, all do."""
    inside = False
    for line in lines:
        first = line[:1]
        if first not in b"<>" and first not in _TRIM:
            yield inside
            continue
        text = line.strip(_TRIM)
        if text.startswith(b"<<<<<<<"):
            inside = True
        yield inside
        if text.startswith(b">>>>>>>"):
            inside = False
