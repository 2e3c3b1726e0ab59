"""The signature of a file: what `stat` says of it, enough to tell whether it changed since we looked.

The rule for racy timestamps is git's (Documentation/technical/racy-git.txt): a file modified within the clock's
granularity of our look may change again without showing it, so such a signature proves nothing. Linux stamps changes
by a clock that may be read, and no change after a look is stamped with less than it said then. Our own appends
are never racy: the file system tells every change after a look from those before it, or we set a modification time
of our own, to the nanosecond, which no other writer's will equal.
"""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    Signature = tuple[int, int, int, int, int]
    """device, inode, size in bytes, mtime and ctime in ns. An inode alone proves nothing: it is reused at once."""

MISSING: "Signature" = (0, 0, 0, 0, 0)
"""Signature of a file that does not exist."""

_SECOND = 1_000_000_000
_CENTISECOND = 10_000_000
_FINE = 1_000_000 - 1  # what file systems cut off that do not show it: 100 ns (NTFS, CIFS) to a millisecond
_TRIES = 8
_exact: dict[int, bool] = {}
_CLOCK_REALTIME_COARSE = 5  # which Python has no name for


def of(status: os.stat_result) -> "Signature":
    """The signature in a `stat` result."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def look(path: str) -> "Signature":
    """The signature of the file at `path` now, MISSING where there is none."""
    try:
        return of(os.stat(path))
    except FileNotFoundError:
        return MISSING


def is_exact(directory: str) -> bool:
    """Whether the file system of a folder gives a file that was looked at another time with its next change.

    Linux does since 6.13 on ext4, XFS, Btrfs and tmpfs (Documentation/filesystems/multigrain-ts.rst). It is tried, on
    a file without a name, once a process and device.
    """
    try:
        device = os.stat(directory).st_dev
        if device not in _exact:
            _exact[device] = _tells_changes_apart(directory)
        return _exact[device]
    except OSError:
        return False


def _tells_changes_apart(directory: str) -> bool:
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        times = []
        for _ in range(_TRIES):  # faster than the coarsest clock ticks
            os.write(fd, b"x")
            times.append(os.fstat(fd).st_mtime_ns)
        return len(set(times)) == _TRIES
    finally:
        os.close(fd)


def stamping_ns() -> int:
    """What a file that was changed now would be stamped with at the least, in ns: the time as of the last tick."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def is_racy(signature: "Signature", looked_at_ns: int) -> bool:
    """Whether the file may have changed after the look without its signature showing it.

    `looked_at_ns` is what `stamping_ns` said before the look.
    """
    if signature == MISSING:
        return False
    newest = max(signature[3], signature[4]) + _FINE
    if not signature[3] % _CENTISECOND:  # so does a file system show that keeps no more of it (exFAT)
        newest += (_CENTISECOND if signature[3] % _SECOND else 2 * _SECOND) - 1  # or whole seconds (FAT: two)
    return newest >= looked_at_ns
