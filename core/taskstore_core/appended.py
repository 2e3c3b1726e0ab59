"""What was put into the logs lately, read back from the end of the outbox."""

from . import frames
from .outbox import Outbox

_BLOCK = 1 << 18


class Appended:
    """A line that was put into its log: `number` within the write `seq`, made at `at`, in Unix ms."""

    __slots__ = ("at", "line", "log", "number", "seq")

    def __init__(self, write: frames.Write, number: int) -> None:
        self.at = write.at
        self.seq = write.seq
        self.number = number
        self.log, self.line = write.entries[number]


def appended_since(outbox: Outbox, since: int, *, settled: bool = False) -> list[Appended]:
    """The lines that were put into their logs since `since`, in Unix ms, oldest first; those settled only if asked for.

    What was aborted is never among them, nor what is to be put there anew, as a power loss may have taken it.
    """
    if not outbox.end:
        return []
    waiting = {write.seq for write in outbox.pending}
    size = _BLOCK
    while size < outbox.end and not _begins_before(since, outbox.tail(size)):
        size *= 4
    writes, undone = _writes(outbox.tail(size), is_all=size >= outbox.end)
    return [Appended(write, number) for write in writes for number in range(len(write.entries))
            if since <= write.at and write.seq <= outbox.applied and write.seq not in waiting
            and f"{write.seq}" not in undone and (settled or f"{write.seq}:{number}" not in undone)]


def _begins_before(since: int, data: bytes) -> bool:
    """Whether the first whole write in the end of an outbox was made before `since`."""
    for _, _, frame in frames.scan(data[data.find(b"\n") + 1:], 0):
        match frame:
            case {"seq": int(), "at": int(at)}:
                return at < since
            case _:
                pass
    return False


def _writes(data: bytes, *, is_all: bool) -> tuple[list[frames.Write], set[str]]:
    """The writes in the end of an outbox, and which of them, or of their lines, were aborted or settled."""
    if not is_all:
        data = data[data.find(b"\n") + 1:]
    writes: list[frames.Write] = []
    undone: set[str] = set()
    for _, _, frame in frames.scan(data, 0):
        match frame:
            case {"seq": int(seq), "boot": str(boot), "at": int(at), "entries": list(entries)}:
                writes.append(frames.Write(seq, boot, at, [(name, line) for name, line in entries]))
            case {"abort": int(seq)}:
                undone.add(str(seq))
            case {"settled": str(lines)}:
                undone.update(lines.split(","))
            case _:
                pass
    return writes, undone
