"""The outbox: the file in which a write becomes durable before any tracked file is touched.

Append-only, and the only record of what was acknowledged: git rewrites the logs, but never this file. How far it
has been applied to the logs is written into the same file, so no crash can separate the two. Whoever changes it
holds the store's lock; `is_ahead` may be asked without.
"""

import os
from time import perf_counter

from . import frames
from .clock import boot_id, now_ms
from .errors import ReadOnlyError, TaskStoreError
from .files import share_like_folder, sync_folder, write_all
from .ledger import Ledger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .appended import Appended
    from .ledger import Hint

GROW = 1 << 20      # zero-filled ahead: a sync that changes no metadata is 15 to 40 % faster
RESERVE = 4096      # kept free in the zeros, so that a full disk still has room for an abort
KEEP_MS = 30 * 24 * 3600 * 1000
KEEP_BYTES = 64 << 20
_GLANCE = 1 << 12   # most looks behind the known end find nothing
_BLOCK = 1 << 18


class Outbox(Ledger):
    """An open outbox: its file, and the ledger of what has been read of it."""

    def __init__(self, path: str, hint: "Hint | None" = None, *, writable: bool = True) -> None:
        """Open the outbox at `path` and read it from where `hint` ends.

        Writable, it is created where missing and the lock must be held. Raises ReadOnlyError where it cannot be.
        """
        super().__init__(boot_id())
        self.path = path
        self._writable = writable
        self.failed = ""
        self._fd = -1
        self._size = 0  # of the file, or less
        self.synced_s = 0.0
        """Seconds that this process has waited for the syncs of `append`, all together."""
        self.identity = (0, 0)
        """Device and inode of the open file."""
        self._open(hint)

    def close(self) -> None:
        """Close the descriptor; nothing is written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def refresh(self) -> None:
        """Read what others have written since; start over where the file was replaced. Needs the lock."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != self.identity:
            self.close()
            self._open(None)
        else:
            self._read(self.end)

    def append(self, groups: "Sequence[Sequence[frames.Entry]]") -> "list[frames.Write]":
        """Make one frame a group durable, all with one fdatasync.

        Raises ReadOnlyError when the disk is full (nothing was written) or a sync failed (`applied` tells whether
        the frames could be taken back), and from then on always: what a failed fsync left behind is unknown.
        """
        self._refuse_if_failed()
        at = now_ms()
        written = [frames.Write(self.seq + 1 + n, self.boot, at, group) for n, group in enumerate(groups)]
        data, offset = b"", self.end
        for frame in written:
            frame.offset = offset + len(data)
            data += frame.encode()
            frame.end = offset + len(data)
        self._reserve(offset + len(data))
        self._put(data, offset)
        began = perf_counter()
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._take_back(written, error)
        self.synced_s += perf_counter() - began
        self.seq = written[-1].seq
        self.pending += written
        self.unsynced += written
        return written

    def mark_applied(self) -> None:
        """Note that every pending frame's lines stand in their logs. Not synced: a crash only means looking again."""
        self._note("applied", self.seq)
        self.applied = self.seq
        self.pending.clear()

    def mark_synced(self) -> None:
        """Note that the logs were fsynced after everything applied so far, unless a sync of this boot failed."""
        if self.is_doubted:
            return
        self._note("synced", self.applied)
        self.synced = self.applied
        self.trim()

    def mark_doubted(self) -> None:
        """Note that a sync of the logs failed: what the kernel then forgot, no later sync will vouch for."""
        self._note("doubted", self.boot)
        self.doubted = self.boot

    def mark_settled(self, appended: "Sequence[Appended]") -> None:
        """Note lines that need not be looked for again: git has them, or they were written anew."""
        self._note("settled", ",".join(f"{one.seq}:{one.number}" for one in appended))

    def tail(self, size: int) -> bytes:
        """The last `size` bytes that were written, or all of them."""
        begin = max(0, self.end - size)
        return os.pread(self._fd, self.end - begin, begin)

    def abort(self, aborted: "Sequence[frames.Write]") -> None:
        """Take pending frames back, durably; raises ReadOnlyError when that cannot be made sure of."""
        self._put(b"".join(frames.encode_mark("abort", frame.seq) for frame in aborted), self.end)
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self.failed = f"syncing {self.path} failed ({error.strerror}): this process writes nothing more"
            raise ReadOnlyError(self.failed, applied="unknown") from error
        self.forget({frame.seq for frame in aborted})
        if not self.pending:
            self.mark_applied()

    def retire(self) -> None:
        """Drop the older half of frames once they fill KEEP_BYTES, and all older than KEEP_MS once some are twice that.

        Everything must be applied and synced. The slack makes a rewrite rare, and a look that finds nothing cheap.
        """
        oldest = self._oldest_at()
        if self.pending or self.unsynced or (self.end < KEEP_BYTES and oldest > now_ms() - 2 * KEEP_MS):
            return
        data = os.pread(self._fd, self.end, 0)
        lines = [line for line in frames.scan(data, 0) if line[2]]
        aborted = {frame.get("abort") for _, _, frame in lines if frame}
        since = now_ms() - KEEP_MS
        marks = b"".join(frames.encode_mark(name, self.seq) for name in ("applied", "synced"))
        self._rewrite(b"".join(data[offset:end] for offset, end, frame in lines if frame
                               and offset >= self.end - KEEP_BYTES // 2 and _written_at(frame) > since
                               and frame.get("seq") not in aborted) + marks)

    def forget_lines(self, dropped: "Mapping[str, Collection[bytes]]") -> None:
        """Let go of lines, by log, that are to be dropped from there, so that nothing brings them back.

        Everything must be applied and synced. Raises ReadOnlyError: nothing was forgotten.
        """
        kept = frames.without(os.pread(self._fd, self.end, 0), dropped)
        if kept is not None:
            self._rewrite(kept + b"".join(frames.encode_mark(name, self.seq) for name in ("applied", "synced")))

    def _oldest_at(self) -> int:
        """When the first frame was written, read from its beginning alone."""
        _, _, first = os.pread(self._fd, 512, 0).partition(b"\n")
        _, _, stamp = first.partition(b'"at":')
        digits = stamp.partition(b",")[0]
        return int(digits) if digits.isdigit() else now_ms()

    def _open(self, hint: "Hint | None") -> None:
        flags = (os.O_RDWR if self._writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(self.path, flags)
        except FileNotFoundError:
            if self._writable:
                self._rewrite(b"")
            return
        except OSError as error:
            raise ReadOnlyError(f"cannot open {self.path}: {error.strerror}") from None
        self.reset()
        self._size = 0
        status = os.fstat(self._fd)
        self.identity = (status.st_dev, status.st_ino)
        header = next(iter(frames.scan(os.pread(self._fd, 512, 0), 0)), (0, 0, None))[2]
        self.id = str(header.get("outbox", "")) if header else ""
        if not self.id and self._writable:  # emptied or cut off at its beginning: begin anew with what can be read
            data = _read_to_zero(self._fd, 0)
            self._rewrite(b"".join(data[offset:end] for offset, end, frame in frames.scan(data, 0) if frame))
            return
        if hint and self.id and hint[:2] == (self.id, self.boot) and os.pread(self._fd, 1, hint[2] - 1) == b"\n":
            _, _, self.end, resume, self.seq, self.applied, self.synced = hint
            self._read(resume)
        else:
            self._read(0)
            self.doubt_older_boots()

    def _read(self, start: int) -> None:
        data = _read_to_zero(self._fd, start)
        for offset, end, frame in frames.scan(data, start):
            self.take(offset, end, frame)
        self.trim()
        if self._writable and self.end > start and data[self.end - start - 1:self.end - start] != b"\n":
            self._put(b"\n", self.end)  # closes what a crash tore, so that the next frame begins a line

    def _note(self, name: str, value: int | str) -> None:
        """Write a mark, which speeds up the next opening. Without it nothing is lost, but nothing more is written."""
        try:
            self._put(frames.encode_mark(name, value), self.end)
        except ReadOnlyError as error:
            self.failed = error.message

    def _put(self, data: bytes, offset: int) -> None:
        try:
            write_all(self._fd, data, offset)
        except OSError as error:
            self.failed = f"writing {self.path} failed: {error.strerror}"
            raise ReadOnlyError(self.failed, applied="unknown") from error
        self.end = offset + len(data)

    def _reserve(self, end: int) -> None:
        """Zero-fill ahead so that a frame ending at `end` and an abort fit; raises ReadOnlyError on a full disk."""
        if end + RESERVE <= self._size:
            return
        size = self._size = os.fstat(self._fd).st_size
        if end + RESERVE <= size:
            return
        target = (end + RESERVE + GROW - 1) // GROW * GROW
        try:
            write_all(self._fd, bytes(target - size), size)
            os.fsync(self._fd)
        except OSError as error:
            try:  # noqa: SIM105 - importing contextlib takes 3 ms
                os.ftruncate(self._fd, size)
            except OSError:
                pass  # zeros ahead do no harm
            raise ReadOnlyError(f"cannot write {self.path}: {error.strerror}",
                                hint="nothing was written; free some space and try again") from None

    def _take_back(self, written: "Sequence[frames.Write]", cause: OSError) -> None:
        """After a failed sync: write the same bytes again, with aborts behind them, and sync those.

        Again, because the kernel may have dropped the first copy and marked its pages clean: a hole there would
        end the next scan before whatever is appended later.
        """
        self.failed = f"syncing {self.path} failed ({cause.strerror}): this process writes nothing more"
        start = written[0].offset // 4096 * 4096
        head = os.pread(self._fd, self.end - start, start)
        aborts = b"".join(frames.encode_mark("abort", frame.seq) for frame in written)
        self.seq = written[-1].seq
        if not self.pending:
            aborts += frames.encode_mark("applied", self.seq)
            self.applied = self.seq
        try:
            self._put(head + aborts, start)
            os.fdatasync(self._fd)
        except (OSError, TaskStoreError):
            raise ReadOnlyError(self.failed, applied="unknown", hint="check the disk; then look whether the write "
                                "is there before repeating it") from cause
        raise ReadOnlyError(self.failed, hint="nothing was written; check the disk") from cause

    def _refuse_if_failed(self) -> None:
        if self.failed:
            raise ReadOnlyError(self.failed, hint="check the disk, then start anew")

    def _rewrite(self, kept: bytes) -> None:
        """Put a fresh outbox with the lines in `kept` in the place of this one, whole or not at all."""
        import secrets

        temporary = f"{self.path}.new"
        data = frames.encode_mark("outbox", secrets.token_hex(8)) + kept
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            share_like_folder(fd, temporary)
            write_all(fd, data.ljust((len(data) // GROW + 1) * GROW, b"\0"))
            os.fsync(fd)
        except OSError as error:
            os.unlink(temporary)
            raise ReadOnlyError(f"cannot write {self.path}: {error.strerror}", hint="nothing was written") from None
        finally:
            os.close(fd)
        os.rename(temporary, self.path)
        sync_folder(os.path.dirname(self.path))
        self.close()
        self._open(None)


def _written_at(frame: dict[str, object]) -> int:
    at = frame.get("at", 0)
    return at if isinstance(at, int) else 0


def is_ahead(path: str, hint: "Hint | None") -> bool:
    """Whether the outbox may hold frames that the reader who noted `hint` has not seen applied. Needs no lock."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return hint is not None and hint[4] != hint[5]  # what waited there is gone with it
    except OSError:
        return True  # whoever opens it in earnest will say why it cannot be
    try:
        if hint is None or hint[1] != boot_id():
            return True
        if not os.pread(fd, 64, 0).startswith(b'{"outbox":"%s"' % hint[0].encode()):
            return True
        return not frames.only_marks(_read_to_zero(fd, hint[2]))
    finally:
        os.close(fd)


def _read_to_zero(fd: int, start: int) -> bytes:
    """The bytes from `start` up to the first zero: all that was written there."""
    data = b""
    while block := os.pread(fd, _BLOCK if data else _GLANCE, start + len(data)):
        zero = block.find(b"\0")
        if zero >= 0:
            return data + block[:zero]
        data += block
    return data
