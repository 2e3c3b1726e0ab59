"""The bytes of a log as they stand now: one open descriptor, read in stretches, never mapped.

(A mapping would end the process with SIGBUS if somebody truncated the file under it.)
"""

import os
import stat

from . import signature
from .errors import ReadOnlyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 4 << 20
_WINDOW = 1 << 18  # read at once where chunk after chunk is asked for


class Source:
    """A log open for reading; a missing one reads as empty. `size` bytes were there when it was opened."""

    def __init__(self, path: str) -> None:
        """Open the log at `path`; raises ReadOnlyError where that is no file that can be read."""
        self._fd = -1
        self._window = (0, b"")
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            status = os.fstat(self._fd)
        except FileNotFoundError:
            self.signature, self.size = signature.MISSING, 0
            return
        except OSError as error:
            raise ReadOnlyError(f"cannot read {path}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise ReadOnlyError(f"{path} is not a regular file")
        self.signature, self.size = signature.of(status), status.st_size

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)

    def changed(self) -> bool:
        """Whether the file was touched since it was opened."""
        return self._fd >= 0 and signature.of(os.fstat(self._fd)) != self.signature

    def read(self, start: int, end: int) -> bytes:
        """The bytes of [start, end), fewer where the file has become shorter."""
        return os.pread(self._fd, end - start, start) if end > start and self._fd >= 0 else b""

    def peek(self, start: int, end: int) -> memoryview:
        """`read`, from a window that is filled once for many small stretches."""
        begin, data = self._window
        if not begin <= start <= end <= begin + len(data):
            begin, data = self._window = (start, self.read(start, max(end, start + _WINDOW)))
        return memoryview(data)[start - begin:end - begin]

    def blocks(self, start: int, size: int = BLOCK) -> "Iterator[bytes]":
        """From `start` to the end in blocks of whole lines; only the last may lack its line end."""
        carried = b""
        while start < self.size:
            block = self.read(start, min(self.size, start + size))
            if not block:
                break
            start += len(block)
            cut = block.rfind(b"\n") + 1
            if start >= self.size:
                cut = len(block)
            if cut:
                yield carried + block[:cut]
                carried = block[cut:]
            else:
                carried += block
        if carried:
            yield carried
