"""Conflict blocks in a log, in git's form: what the merge driver writes, and what git's text merge leaves.

    <<<<<<< ours
    lines of ours
    ||||||| base            only with merge.conflictStyle diff3 or zdiff3
    lines of the base
    =======
    lines of theirs
    >>>>>>> theirs

Git writes longer markers for a block within a block (a conflict between several merge bases, in the part of the
base); such inner markers are passed over. A block that is not complete is none: its lines are ordinary. Pure.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MARK = b"<<<<<<<"
"""What a log without a block does not hold at the beginning of any line."""
SIZE = 7
_KINDS = b"<|=>"
_AROUND = b" \t\r\xef\xbb\xbf"  # what readers pass over around a line


class Block:
    """One block: the places of its sides among the lines that are left without markers, and the lines of its base.

    `from_ours` and `from_theirs` are lines of a side that are not left, as the other side had taken them out.
    """

    __slots__ = ("base", "from_ours", "from_theirs", "ours", "theirs")

    def __init__(self, ours: range, theirs: range, base: "Sequence[bytes]") -> None:
        self.ours = ours
        self.theirs = theirs
        self.base = base
        self.from_ours: Sequence[bytes] = ()
        self.from_theirs: Sequence[bytes] = ()


def dissolve(lines: "Sequence[bytes]", start: int = 0) -> tuple[list[bytes], list[Block]]:
    """The lines of a log without markers, and the blocks that stood among them; `start` lines stand before them.

    The base's part of a block goes: a line of it stays where both sides have it.
    """
    left: list[bytes] = []
    blocks: list[Block] = []
    pending = list(reversed(lines))
    while pending:
        line = pending.pop()
        kind, size = _marker(line)
        if not kind:
            left.append(line)
        elif kind == b"<":
            parts = _parts(pending, size)
            if parts is not None:
                blocks.append(_add(left, start, *parts))
    return left, blocks


def render(ours: "Iterable[bytes]", theirs: "Iterable[bytes]", size: int = SIZE) -> list[bytes]:
    """A block as lines."""
    return [b"<" * size + b" ours", *ours, b"=" * size, *theirs, b">" * size + b" theirs"]


def _marker(line: bytes) -> tuple[bytes, int]:
    """The character that a marker is made of, and how many of them; (b"", 0) for any other line."""
    if line[:1] == b"{":
        return b"", 0
    text = line.lstrip(_AROUND)
    size = len(text) - len(text.lstrip(text[:1]))
    return (text[:1], size) if text[:1] and text[:1] in _KINDS and size >= SIZE else (b"", 0)


def _parts(pending: list[bytes], size: int) -> "tuple[list[bytes], list[bytes], list[bytes]] | None":
    """The lines of ours, base and theirs behind an opening marker, taken off `pending`; None for no whole block."""
    parts: dict[bytes, list[bytes]] = {b"<": [], b"|": [], b"=": []}
    now = b"<"
    for number in range(len(pending) - 1, -1, -1):
        kind, length = _marker(pending[number])
        if not kind:
            parts[now].append(pending[number])
        elif length == size:
            if kind == b">" and now == b"=":
                del pending[number:]
                return parts[b"<"], parts[b"|"], parts[b"="]
            if _KINDS.index(kind) <= _KINDS.index(now) or kind == b">":
                return None
            now = kind
    return None


def _add(left: list[bytes], begin: int, ours: list[bytes], base: list[bytes], theirs: list[bytes]) -> Block:
    """Put the sides of a block behind `left`."""
    taken_away = set(base) - (set(ours) & set(theirs))
    start = begin + len(left)
    left += [line for line in ours if line not in taken_away]
    middle = begin + len(left)
    left += [line for line in theirs if line not in taken_away]
    block = Block(range(start, middle), range(middle, begin + len(left)), base)
    block.from_ours = [line for line in ours if line in taken_away]
    block.from_theirs = [line for line in theirs if line in taken_away]
    return block
