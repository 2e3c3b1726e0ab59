"""A log: one JSONL file of the store, opened for one append under the store's lock.

Git replaces these files by unlink and create whenever it likes and takes none of our locks. So the descriptor is
opened for each append, is compared with the path afterwards, and a missing log is created only where no git
command could be about to create it.
"""

import os
import stat
import time

from . import signature
from .errors import BusyError, ReadOnlyError
from .files import create_file, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NEAR = 4 << 20
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ReplacedError(Exception):
    """The path leads to another file than the one that was appended to."""


class Log:
    """An open log. `start` is its size in bytes before the append, `end` after it; `before` its signature then."""

    def __init__(self, path: str, may_create: "Callable[[], bool]" = lambda: True) -> None:
        """Open the log at `path`, creating it where missing unless git may be about to (`may_create` says).

        Raises ReadOnlyError where it cannot be written, is no regular file or a symbolic link; BusyError where it
        is missing and may not be created.
        """
        self.path = path
        self.start = self.end = 0
        self.before = signature.MISSING
        self._rights = (0, 0)
        try:
            self._fd = self._open(may_create)
            mode = self._look()
            self._is_exact = signature.is_exact(os.path.dirname(path))
        except OSError as error:
            raise ReadOnlyError(f"cannot write {path}: {error.strerror}", hint="nothing was written") from None
        if not stat.S_ISREG(mode):
            os.close(self._fd)
            raise ReadOnlyError(f"{path} is not a regular file", hint="nothing was written; move it away")

    def is_in_place(self) -> bool:
        """Whether the path still leads to this file, and it may be written by whom it might be when it was opened."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == self.before[:2] and (there.st_mode, there.st_uid) == self._rights

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def append(self, lines: "Sequence[str]") -> None:
        """Append complete lines in one write, closing or completing an unterminated one before them.

        A fragment that begins the first line is what a crash left of it: only the rest is written. Raises OSError
        (the file is as before, or `undo` is still due). `seal` tells whether they went to a file that is gone.
        """
        data = "".join(f"{line}\n" for line in lines).encode()
        self._look()
        fragment = self._fragment()
        if fragment:
            data = data[len(fragment):] if data.startswith(fragment) else b"\n" + data
        try:
            self.end = self.start + write_all(self._fd, data)
        except OSError as error:
            self.end = self.start + getattr(error, "written", 0)
            raise

    def seal(self) -> "signature.Signature | None":
        """The file's signature, which no later change by anybody will leave as it is; None where that is not sure.

        Where the file system does not see to that, the file is given a time of our own (at the price of a slower
        fdatasync next time: 307 instead of 242 µs at the median). Raises ReplacedError where the path does not lead
        to it any more.
        """
        mtime = None
        if not self._is_exact:
            mtime = time.time_ns()
            try:
                os.utime(self._fd, ns=(mtime, mtime))
            except PermissionError:  # another user's file, shared with our group
                mtime = -1
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            raise ReplacedError from None
        if (there.st_dev, there.st_ino) != self.before[:2]:
            raise ReplacedError
        is_ours = there.st_size == self.end and mtime in {None, there.st_mtime_ns}
        return signature.of(there) if is_ours else None

    def undo(self) -> bool:
        """Take the append back; whether the file now ends as before. Bytes of others are never cut off."""
        if self.end == self.start:
            return True
        try:
            if os.fstat(self._fd).st_size != self.end:
                return False
            os.ftruncate(self._fd, self.start)
        except OSError:
            return False
        self.end = self.start
        return True

    def missing(self, lines: "Sequence[str]") -> list[str]:
        """Those of `lines` that do not stand in the file, each once, in their order; looks near its end first.

        A line that git swallowed was written anew, so it may wait twice.
        """
        left = self._absent(lines, max(0, self.start - _NEAR))
        return self._absent(left, 0) if left and self.start > _NEAR else left

    def _look(self) -> int:
        """Note what the file is like now; its mode."""
        status = os.fstat(self._fd)
        self.before = signature.of(status)
        self.start = self.end = status.st_size
        self._rights = (status.st_mode, status.st_uid)
        return status.st_mode

    def _open(self, may_create: "Callable[[], bool]") -> int:
        try:
            return os.open(self.path, _FLAGS)
        except FileNotFoundError:
            if not may_create():
                raise BusyError(f"{self.path} is missing and git is at work", hint="try again") from None
            create_file(self.path, b"")
            return os.open(self.path, _FLAGS)

    def _fragment(self) -> bytes:
        """What follows the last line end."""
        if not self.start or os.pread(self._fd, 1, self.start - 1) == b"\n":
            return b""
        size = min(self.start, 4096)
        while size:
            tail = os.pread(self._fd, size, self.start - size)
            newline = tail.rfind(b"\n")
            if newline >= 0 or size == self.start:
                return tail[newline + 1:]
            size = min(self.start, size * 8)
        return b""

    def _absent(self, lines: "Sequence[str]", start: int) -> list[str]:
        present = set(os.pread(self._fd, self.start - start, start).split(b"\n"))
        return [line for line in dict.fromkeys(lines) if line.encode() not in present]
