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
    writes, undone = _writes(outbox.tail(size), since)
    return [Appended(write, number) for write in writes for number in range(len(write.entries))
            if write.seq <= outbox.applied and write.seq not in waiting
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


def _writes(data: bytes, since: int) -> tuple[list[frames.Write], set[str]]:
    """The writes since then in the end of an outbox, and which of them, or of their lines, were aborted or settled.

    What stands before the first line end may be the end of a frame, which its sum tells from a whole one.
    """
    writes: list[frames.Write] = []
    undone: set[str] = set()
    for frame in frames.written_since(data, since):
        seq, boot, at, entries = (frame.get(name) for name in ("seq", "boot", "at", "entries"))
        if isinstance(seq, int) and isinstance(boot, str) and isinstance(at, int) and isinstance(entries, list):
            if at >= since:
                writes.append(frames.Write(seq, boot, at, [(name, line) for name, line in entries]))
        elif "abort" in frame:
            undone.add(str(frame["abort"]))
        elif "settled" in frame:
            undone.update(str(frame["settled"]).split(","))
    return writes, undone
