"""Marked blocks of ours in files of others: put in, found and taken out again to the last byte; pure.

The first line of a block says so, and what else has to be undone with it. Between its two marker lines everything is
ours; nothing outside is ever changed. Marker lines are found also by their LF after an editor made CRLF of them.
"""

BEGIN = b"# >>> taskstore >>>"
END = b"# <<< taskstore <<<"
MADE = b"made this file"
NEWLINE = b"ended the line before"
FOLDER = b"made this folder"
"""Notes: what putting the block in did besides."""


class Block:
    """A block that stands in a file: from `start` to `end`, with its lines in `body` and its notes."""

    __slots__ = ("body", "end", "notes", "start")

    def __init__(self, start: int, end: int, body: bytes, notes: frozenset[bytes]) -> None:
        self.start = start
        self.end = end
        self.body = body
        self.notes = notes


def find(content: bytes) -> Block | None:
    """The first whole block in `content`: a last line of one, and the nearest first line before it."""
    begin, position = -1, 0
    for line in _lines(content):
        if line.startswith(BEGIN):
            begin = position
        elif line.startswith(END) and begin >= 0:
            first = content.index(b"\n", begin) + 1
            words = content[begin:first].strip().removeprefix(BEGIN).strip().strip(b"()")
            notes = frozenset(word.strip() for word in words.split(b",")) - {b""}
            return Block(begin, position + len(line), content[first:position], notes)
        position += len(line)
    return None


def put(content: bytes, body: bytes, at: int, notes: frozenset[bytes] = frozenset()) -> bytes:
    """`content` with a block at offset `at`, where a line begins or the file ends; `body` is whole lines."""
    before, behind = content[:at], content[at:]
    if before and not before.endswith(b"\n"):
        notes |= {NEWLINE}
    first = BEGIN + (b" (" + b", ".join(sorted(notes)) + b")" if notes else b"") + b"\n"
    return before + (b"\n" if NEWLINE in notes else b"") + first + body + END + b"\n" + behind


def take(content: bytes) -> tuple[bytes, frozenset[bytes]]:
    """`content` without its block, and the notes of that; as it is where it has none."""
    block = find(content)
    if block is None:
        return content, frozenset()
    start = block.start - (NEWLINE in block.notes and content[:block.start].endswith(b"\n"))
    return content[:start] + content[block.end:], block.notes


def renew(content: bytes, body: bytes) -> bytes:
    """`content` with other lines in the block that it has."""
    block = find(content)
    if block is None or block.body == body:
        return content
    first = content.index(b"\n", block.start) + 1
    return content[:first] + body + content[first + len(block.body):]


def _lines(content: bytes) -> list[bytes]:
    return [line + b"\n" for line in content.split(b"\n")[:-1]] + [content.rpartition(b"\n")[2]]
