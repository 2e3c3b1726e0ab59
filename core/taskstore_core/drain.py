"""From the outbox into the logs: what every write does last, and what a crash left undone.

A frame's lines may stand in their logs already (a crash after the append, before the mark), partly (within it) or
not at all (a power loss took them), so unless the frame is of this very pass each line is looked for first.
"""

import os

from .errors import TaskStoreError
from .log import Log, ReplacedError
from .paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .frames import Write
    from .kept import Logs
    from .outbox import Outbox
    from .signature import Signature

    Sealed = dict[str, tuple[Signature, Signature]]
    """Log name → its signature before our append, and the one our append left it with."""

_TRIES = 3


class DrainError(Exception):
    """A log could not be appended to; `undone` tells whether every log is as it was before."""

    def __init__(self, cause: Exception, *, undone: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.undone = undone


def drain(logs: "Logs", outbox: "Outbox", fresh: "Mapping[str, Log] | None" = None) -> "Sealed":
    """Append the lines of all pending frames to their logs and note it in the outbox. Needs the lock.

    `fresh` are the logs of frames that were written in this pass, so that their lines need not be looked for. A log
    that is replaced under every try keeps its lines in the outbox, as pending. Raises DrainError.
    """
    sealed: Sealed = {}
    opened = list(fresh.values()) if fresh else []
    done = True
    try:
        for name, lines in _by_log(outbox.pending).items():
            log = fresh.get(name) if fresh else None
            done = _append(logs, name, lines, log, opened, sealed) and done
    except (OSError, TaskStoreError) as error:
        undone = [log.undo() for log in opened]
        raise DrainError(error, undone=all(undone)) from error
    finally:
        for log in reversed(opened):  # the last one opened is the one that is in place
            logs.done(log)
    if done:
        outbox.mark_applied()
    return sealed


def sync_logs(paths: Paths, outbox: "Outbox") -> None:
    """Fsync the logs that were appended to since they last were, and note it. Needs the lock; raises OSError."""
    if outbox.pending:
        return
    complete = True
    for name in _by_log(outbox.unsynced):
        try:
            fd = os.open(paths.file(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # gone with a branch; when it is back, nothing vouches for its lines but a sync
            complete = False
            continue
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    if outbox.unsynced and complete:
        outbox.mark_synced()


def _append(  # noqa: PLR0917 - the parties to one append
    logs: "Logs", name: str, lines: list[str], fresh: Log | None, opened: list[Log], sealed: "Sealed",
) -> bool:
    """Whether the lines of one log stand in it."""
    for _ in range(_TRIES):
        if fresh:
            log, wanted, fresh = fresh, lines, None
        else:
            log = logs.open(name)
            opened.append(log)
            wanted = log.missing(lines)
        if not wanted:
            return True
        log.append(wanted)
        try:
            signature = log.seal()
        except ReplacedError:
            continue
        if signature:
            sealed[name] = (log.before, signature)
        return True
    return False


def _by_log(pending: "Sequence[Write]") -> dict[str, list[str]]:
    logs: dict[str, list[str]] = {}
    for frame in pending:
        for name, line in frame.entries:
            logs.setdefault(name, []).append(line)
    return logs
