"""Whether anything may have changed since the cache was last found level: a few `stat`s and one glance at the outbox.

It is an abbreviation of the full look in `Keeper`, which opens files and asks the cache for its checkpoints. What it
remembers is what the cache holds, so a file that is still as remembered is answered from the cache rightly, however
long ago that was; anything else goes the long way.
"""

import os

from . import frames, signature
from .cache import Cache
from .kinds import KINDS, LOGS, Kind
from .paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .drain import Sealed
    from .outbox import Outbox
    from .signature import Signature

_GLANCE = 1 << 12


class Pulse:
    """What the files looked like when the cache was level with them."""

    def __init__(self, paths: Paths) -> None:
        self._version_path = paths.file(".version")
        self._outbox_path = paths.local("outbox")
        self._logs = {name: paths.file(kind.log) for name, kind in KINDS.items()}
        self._signatures: dict[str, Signature] = {}
        self._version: Signature | None = None
        self._fd = -1
        self._outbox = signature.MISSING[:2]
        self._end = -1  # of what has been read of the outbox; -1 for nothing known

    def close(self) -> None:
        """Forget everything."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._end = -1
        self._signatures.clear()
        self._version = None

    def note(self, cache: Cache, kinds: "Iterable[Kind]") -> None:
        """Remember that `cache` was found level for `kinds` just now."""
        for kind in kinds:
            point = cache.checkpoint(kind)
            if point is not None and not point.racy:
                self._signatures[kind.name] = point.signature
            else:
                self._signatures.pop(kind.name, None)
        looked_at = signature.stamping_ns()
        version = signature.look(self._version_path)
        self._version = None if signature.is_racy(version, looked_at) else version
        self._note_outbox(cache)

    def _note_outbox(self, cache: Cache) -> None:
        hint = cache.hint()
        there = signature.look(self._outbox_path)[:2]
        if there != self._outbox or self._fd < 0:
            if self._fd >= 0:
                os.close(self._fd)
            try:
                self._fd = os.open(self._outbox_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                self._fd = -1
            self._outbox = there if self._fd >= 0 else signature.MISSING[:2]
        known = hint is not None and hint[4] == hint[5] and self._fd >= 0 and self._is_of(hint[0])
        self._end = hint[2] if known and hint is not None else -1

    def _is_of(self, identity: str) -> bool:
        status = os.fstat(self._fd)
        return ((status.st_dev, status.st_ino) == self._outbox
                and os.pread(self._fd, 64, 0).startswith(b'{"outbox":"%s"' % identity.encode()))

    def note_append(self, sealed: "Sealed", end: int) -> None:
        """Remember an append of ours: the logs it left behind, and the end of the outbox after it."""
        for log, (_, after) in sealed.items():
            self._signatures[LOGS[log].name] = after
        if self._end >= 0:
            self._end = end

    def knows(self, kind: Kind, there: "Signature") -> bool:
        """Whether a log's signature is the one remembered."""
        return self._signatures.get(kind.name) == there

    def is_at(self, outbox: "Outbox") -> bool:
        """Whether `outbox`, which was found to be in its place just now, has been read to its end."""
        return outbox.identity == self._outbox and os.pread(self._fd, 1, outbox.end) == b"\0"

    def holds(self, kinds: "Iterable[Kind]") -> bool:
        """Whether the cache is level for `kinds` still."""
        if self._end < 0 or self._version is None:
            return False
        try:
            box, version = os.stat(self._outbox_path), os.stat(self._version_path)
        except FileNotFoundError:
            return False
        return ((box.st_dev, box.st_ino) == self._outbox and signature.of(version) == self._version
                and self._same_logs(kinds) and self._nothing_new())

    def holds_log(self, kind: Kind) -> bool:
        """Whether one log is as remembered and nothing waits in the outbox for any: what a look-up needs, no more.

        The cache may have been deleted meanwhile, the store's version raised: what was read of this log is true yet.
        """
        if self._end < 0:
            return False
        try:
            there = os.stat(self._logs[kind.name])
        except OSError:
            return False
        return ((there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)
                == self._signatures.get(kind.name)
                and (os.pread(self._fd, 1, self._end) == b"\0" or self._nothing_new())
                and os.fstat(self._fd).st_nlink > 0)

    def _same_logs(self, kinds: "Iterable[Kind]") -> bool:
        stat, signatures, logs = os.stat, self._signatures, self._logs
        for kind in kinds:
            known = signatures.get(kind.name)
            try:
                there = stat(logs[kind.name])
            except FileNotFoundError:
                if known != signature.MISSING:
                    return False
                continue
            if (there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns) != known:
                return False
        return True

    def _nothing_new(self) -> bool:
        if os.pread(self._fd, 1, self._end) == b"\0":
            return True
        data = os.pread(self._fd, _GLANCE, self._end)
        zero = data.find(b"\0")
        if zero > 0 and data[zero - 1:zero] == b"\n" and frames.only_marks(data[:zero]):
            self._end += zero
            return True
        return False
