"""Whether git is at work in the worktree that holds the store, so that its files are better left alone.

Git rewrites a tracked file by unlink and create, takes none of our locks, and refuses commands where it finds one
changed. So nothing is appended while it works: lines wait in the outbox, which is where they became durable.

Whatever git does begins or ends with an entry of its folder being made, renamed or deleted (`index.lock`, a stash's
`index.stash.*`, `HEAD.lock`), so one look at that folder's modification time tells most often that nothing goes on.
"""

import os
import time

from .paths import Paths
from .signature import look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .signature import Signature

QUIET_MS = 100
"""After the last sign of git: a stash lets go of the lock in its middle."""
PATIENCE_MS = 30_000
"""After which a lock is taken for one that a crash left behind."""
STILL_MS = 200
"""After the last change of a file that was read, in which git may have been in the middle of it."""
STILL_LOOKS = 200
"""After which a file that did not change is taken for finished, though git holds its lock: some 0.5 s. Counted, as no
clock tells how long git has had no processor, or the whole machine stood still."""
FINISH_S = 1.0
"""How long git is waited for to finish a file that goes on changing."""
_LOOK_S = 0.002
_MS = 1_000_000
_SEEN = "busy"
_LOCKS = ("index.lock", "index.stash.")


class UnfinishedError(Exception):
    """What was read of a log may be but a part of what git is writing there."""


class Quiet:
    """Git's activity around one store.

    The first sighting is noted in a file beside the outbox, for all processes: what was appended shortly before may
    be swallowed. It stays until somebody has looked for that (see `reconcile`).
    """

    def __init__(self, paths: Paths) -> None:
        self._git_dir = paths.git_dir
        self._seen = paths.local(_SEEN)
        self._quiet_at = -1  # git's folder was last modified then, and it was quiet afterwards

    def is_busy(self) -> bool:
        """Whether git is at work, or was a moment ago. Notes it."""
        if self._git_dir is None:
            return False
        stamp = self.stamp()
        if stamp == self._quiet_at:
            return False
        now = time.time_ns()
        if self._is_locked(now) or (0 <= now - stamp < QUIET_MS * _MS and not self._is_endless(now)):
            self.note()
            return True
        if now - stamp >= QUIET_MS * _MS:
            self._quiet_at = stamp
        return False

    def let_finish(self, paths: "Sequence[str]", end: float) -> None:
        """Wait while git may be in the middle of writing one of these files, until `end` (time.monotonic).

        That is while it holds a lock, until nothing has changed in STILL_LOOKS looks; so many are taken in any case.
        """
        seen: list[Signature] = []
        looks = still = 0
        while self._git_dir is not None and paths and self._is_locked(time.time_ns()):
            there = [look(path) for path in paths]
            still = still + 1 if there == seen else 0
            if still == STILL_LOOKS or (looks > STILL_LOOKS and time.monotonic() >= end):
                return
            seen = there
            looks += 1
            time.sleep(_LOOK_S)

    def is_writing(self, paths: "Sequence[str]") -> bool:
        """Whether git holds a lock, and one of these files has changed a moment ago, or is gone so lately."""
        now = time.time_ns()
        return self._git_dir is not None and any(_is_fresh(path, now) for path in paths) and self._is_locked(now)

    def stamp(self) -> int:
        """The modification time of git's folder, in ns; 0 where there is none."""
        try:
            return os.stat(self._git_dir).st_mtime_ns if self._git_dir is not None else 0
        except OSError:
            return 0

    def note(self) -> None:
        """Note that lines appended from shortly before now on must be looked for."""
        try:
            os.close(os.open(self._seen, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except OSError:
            return  # noted already; or nothing can be written here, so that nothing of ours was appended

    def noted_ms(self, log: str = "") -> int | None:
        """When git was first seen at work since `forget`, in Unix ms; None if it was not. Of a log: what was noted."""
        try:
            return os.stat(self._place(log)).st_mtime_ns // _MS
        except OSError:
            return None

    def note_gone(self, log: str, since_ms: int) -> None:
        """Note that lines of a log which is not there must be looked for when it is, from shortly before then on."""
        if self.noted_ms(log) is None:
            try:
                os.close(os.open(self._place(log), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
                os.utime(self._place(log), ns=(since_ms * _MS, since_ms * _MS))
            except OSError:
                return  # nothing can be written here

    def forget(self, log: str = "") -> None:
        """Be done with what was noted, or noted of a log. Needs the store's lock."""
        try:
            os.unlink(self._place(log))
        except OSError:
            return

    def _place(self, log: str) -> str:
        return f"{self._seen}-{log}" if log else self._seen

    def _is_locked(self, now: int) -> bool:
        """Whether a lock of git's is there that a living command may hold."""
        assert self._git_dir is not None  # noqa: S101 - asked for only where there is git
        try:
            with os.scandir(self._git_dir) as entries:
                return any(now - entry.stat(follow_symlinks=False).st_mtime_ns < PATIENCE_MS * _MS
                           for entry in entries if entry.name.startswith(_LOCKS))
        except OSError:  # gone between two looks: something goes on
            return True

    def _is_endless(self, now: int) -> bool:
        """Whether something touches git's folder again and again, without a lock that we ever see."""
        noted = self.noted_ms()
        return noted is not None and now // _MS - noted > PATIENCE_MS


def _is_fresh(path: str, now: int) -> bool:
    """Whether a file, or its folder where it is gone, was touched a moment before `now`."""
    for place in (path, os.path.dirname(path)):
        try:
            return abs(now - os.stat(place).st_ctime_ns) < STILL_MS * _MS  # it may have changed since `now`
        except OSError:
            continue
    return False
