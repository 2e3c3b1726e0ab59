"""A draft: what is left of one log after compaction, written beside it and put into its place.

It is made without the lock, as reading a log may take long; what was appended meanwhile is carried over. It knows one
log, not the outbox, nor when it may be put into its place (`compaction` does).
"""

import os
import time

from . import chunks, git, signature
from .cache import Cache, Checkpoint, Chunk
from .chunks import hash_of
from .files import write_all
from .jsonl import indexer
from .kinds import Kind
from .source import Source
from .superseded import Rule, find
from .sync import sync_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .paths import Paths
    from .superseded import Rows

_TEMPORARY = ".new-"


class StaleError(Exception):
    """The log is not the one that a draft was made from."""


class Draft:
    """What is left of one log, and what is dropped from it; `begin`, `finish` and `swap` put it into its place."""

    def __init__(self, paths: "Paths", kind: Kind, rule: Rule) -> None:
        """Read the log and choose among its whole lines; what follows them is carried over. Raises ReadOnlyError."""
        self.kind = kind
        self.path = paths.file(kind.log)
        self.temporary = paths.file(f"{_TEMPORARY}{kind.log}")
        source = Source(self.path)
        try:
            data = source.read(0, source.size)
        finally:
            source.close()
        lines, rest = chunks.split(data)
        self.offset = len(data) - len(rest)
        self._identity = source.signature[:2]
        self._digest = hash_of(memoryview(data)[:self.offset])
        rows = indexer(kind, self.offset)(lines)
        behind = {row[0] for row in indexer(kind, len(rest))([rest]) if isinstance(row, tuple)}
        found = find(kind, lines, rows, rule, behind)
        self.spared: set[str] = set()
        """Deleted ids whose tombstones stay, as some branch does not have them."""
        if found.tombstones and paths.git_dir is not None:
            self.spared = _unsafe(self.path, kind, {key: lines[number] for key, number in found.tombstones.items()})
            found = find(kind, lines, rows, rule, self.spared | behind)
        self.pruned = frozenset(found.tombstones)
        self.dropped = [lines[number] for number in sorted(found.lines)]
        self._kept = [number for number in range(len(lines)) if number not in found.lines]
        self.lines = [lines[number] for number in self._kept]
        self._rows: Rows = [rows[number] for number in self._kept]
        self._fd = self._old = -1
        self._left = self._size = self._end = 0
        self._chunks: list[Chunk] = []

    def report(self) -> dict[str, object]:
        """What is dropped, as plain data."""
        return {"lines": len(self.dropped), "bytes": sum(map(len, self.dropped)) + len(self.dropped),
                "tombstones": len(self.pruned), "tombstones_kept": len(self.spared), "left": len(self.lines)}

    def begin(self) -> None:
        """Write what is left beside the log; raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self.temporary, flags, 0o600)
        data = b"".join(line + b"\n" for line in self.lines)
        self._left = write_all(self._fd, data)
        os.fsync(self._fd)  # now, so that the lock is not held for as long as the disk takes for all of it
        self._chunks = chunks.build(data, self.lines, list(map(hash_of, self.lines)),
                                    list(map(chunks.id_of, self._rows)), first=1.0)

    def finish(self) -> None:
        """Carry over what was appended meanwhile, and sync. Needs the lock; raises StaleError, OSError."""
        self._old = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(self._old)
        if ((status.st_dev, status.st_ino) != self._identity
                or hash_of(os.pread(self._old, self.offset, 0)) != self._digest):
            raise StaleError
        late = os.pread(self._old, status.st_size - self.offset, self.offset)
        for row in indexer(self.kind, len(late))(late.split(b"\n")):
            if isinstance(row, tuple) and row[0] in self.pruned:
                raise StaleError
        self._size = self._left + write_all(self._fd, late)
        self._end = status.st_size
        _like(self._fd, status)
        os.fsync(self._fd)

    def swap(self) -> None:
        """Put it into the place of the log. Needs the lock; raises StaleError, OSError."""
        there = os.stat(self.path, follow_symlinks=False)
        if (there.st_dev, there.st_ino) != self._identity:
            raise StaleError
        os.rename(self.temporary, self.path)
        late = os.pread(self._old, os.fstat(self._old).st_size - self._end, self._end)
        if late:  # of a program that knows nothing of our lock
            self._size += write_all(self._fd, late)
            os.fsync(self._fd)

    def store(self, cache: Cache) -> None:
        """Tell the cache where the lines stand now, inside the caller's transaction; it was level before."""
        mtime = time.time_ns()
        os.utime(self._fd, ns=(mtime, mtime))  # one that no other writer will give it, as after an append of ours
        there = signature.look(self.path)
        ours = there[1:4] == (os.fstat(self._fd).st_ino, self._size, mtime)
        cache.drop_chunks(self.kind, [(float("-inf"), float("inf"))])
        cache.put_chunks(self.kind, self._chunks)
        cache.drop_rows(self.kind, self.pruned)
        cache.set_checkpoint(self.kind, Checkpoint(there, self._left, len(self.lines), racy=not ours,
                                                   unterminated=False))
        sync_log(cache, self.kind, self.path, sealed=(there, there) if ours else None)

    def close(self) -> None:
        """Let go of everything, also of a file that did not come into its place."""
        for fd in (self._fd, self._old):
            if fd >= 0:
                os.close(fd)
        self._fd = self._old = -1
        if os.path.lexists(self.temporary):
            os.unlink(self.temporary)


def _unsafe(path: str, kind: Kind, tombstones: "dict[str, bytes]") -> set[str]:
    """The ids whose tombstone some branch or stash lacks that knows the id: a merge would bring the record back."""
    versions = git.versions_elsewhere(path)
    if versions is None:
        return set(tombstones)
    unsafe: set[str] = set()
    for data in versions:
        lines = data.split(b"\n")
        there = {row[0] for row in indexer(kind, len(data))(lines) if isinstance(row, tuple)}
        have = set(lines)
        unsafe |= {key for key, line in tombstones.items() if key in there and line not in have}
    return unsafe


def _like(fd: int, status: os.stat_result) -> None:
    """Give a file the mode and, where we may, the group of another."""
    if os.fstat(fd).st_gid != status.st_gid:
        try:  # noqa: SIM105 - importing contextlib takes 3 ms
            os.fchown(fd, -1, status.st_gid)
        except PermissionError:
            pass
    os.fchmod(fd, status.st_mode & 0o7777)
