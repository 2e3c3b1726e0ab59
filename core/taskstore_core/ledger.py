"""What the frames of an outbox add up to: which writes there are, and how far they have come; pure."""

from .frames import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    Hint = tuple[str, str, int, int, int, int, int]
    """(outbox id, boot id, end, resume, seq, applied, synced): what the cache remembers of an outbox it has read.

    `end` is the offset up to which it was read; `resume` that of the first frame not yet applied and synced.
    """


class Ledger:
    """The state of an outbox.

    `pending` are frames whose lines may be missing from their logs; `unsynced` those whose logs were not fsynced
    since they were appended to. Both in order of `seq`.
    """

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self.reset()

    def reset(self) -> None:
        """Forget everything: the file was replaced, or nothing of it is known."""
        self.id = ""
        self.end = 0  # offset behind the last frame
        self.seq = 0  # of the newest frame
        self.applied = self.synced = 0
        self.doubted = ""  # the boot in which a sync of the logs last failed
        self.pending: list[Write] = []
        self.unsynced: list[Write] = []

    @property
    def hint(self) -> "Hint":
        """What to remember so that the next process need not read this far again."""
        waiting = [*self.pending[:1], *self.unsynced[:1]]
        resume = min((frame.offset for frame in waiting), default=self.end)
        # Lines of an earlier boot that still wait to be restored: let the next process doubt them anew.
        boot = "" if any(frame.seq <= self.applied for frame in self.pending) else self.boot
        return (self.id, boot, self.end, resume, self.seq, self.applied, self.synced)

    def take(self, offset: int, end: int, frame: dict[str, object] | None) -> None:
        """Take in the next line of the file, None where it is damaged."""
        self.end = max(self.end, end)
        match frame:
            case {"seq": int(seq), "boot": str(boot), "at": int(at), "entries": list(entries)}:
                write = Write(seq, boot, at, [(name, line) for name, line in entries])
                write.offset, write.end = offset, end
                self.seq = max(self.seq, seq)
                self.pending.append(write)
                self.unsynced.append(write)
            case {"applied": int(seq)}:
                self.applied = max(self.applied, seq)
                self.seq = max(self.seq, seq)
            case {"synced": int(seq)}:
                self.synced = max(self.synced, seq)
            case {"doubted": str(boot)}:
                self.doubted = boot
            case {"abort": int(seq)}:
                self.forget({seq})
            case _:
                pass  # damaged, the header, or a frame of a later release

    @property
    def is_doubted(self) -> bool:
        """Whether a sync of the logs failed since the kernel was started."""
        return self.doubted == self.boot

    def trim(self) -> None:
        """Let go of the frames that the marks say are done with."""
        self.pending = [frame for frame in self.pending if frame.seq > self.applied]
        self.unsynced = [frame for frame in self.unsynced if frame.seq > self.synced]

    def forget(self, aborted: "Collection[int]") -> None:
        """Let go of the frames with these sequence numbers."""
        self.pending = [frame for frame in self.pending if frame.seq not in aborted]
        self.unsynced = [frame for frame in self.unsynced if frame.seq not in aborted]

    def doubt_older_boots(self) -> None:
        """Count as pending what an earlier boot appended and never fsynced: the logs may have lost it."""
        self.pending = [frame for frame in self.unsynced if frame.seq > self.applied or frame.boot != self.boot]
