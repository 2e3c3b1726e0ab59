"""The one write path: a group of requests under one lock, one sync of the outbox, one append a log.

    level the cache → decide every request → outbox (durable from here) → logs → leases → cache → answer

The requests of a group fail one by one.
"""

from collections.abc import Mapping, Sequence

from .drain import DrainError, drain
from .errors import ReadOnlyError, TaskStoreError
from .outbox import Outbox
from .request import Outcome, Request, run
from .view import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .drain import Sealed
    from .frames import Entry
    from .kept import Logs
    from .leases import Lease, Leases
    from .log import Log

    Outcomes = Sequence["Outcome | TaskStoreError"]

_FRAME = 1 << 16  # characters of lines up to which requests share a frame


def decide(view: View, requests: Sequence[Request]) -> "list[Outcome | TaskStoreError]":
    """What each request would do, seen in order, or why it may not; nothing is written."""
    outcomes: list[Outcome | TaskStoreError] = []
    for request in requests:
        if request.is_plain:
            outcomes.append(_decide_plain(view, request))
            continue
        above = view.above(request.op, "" if request.op is None else request.digest())
        try:
            result = run(request, above, above.lines_of_op())
        except TaskStoreError as error:
            outcomes.append(error)
        else:
            view.absorb(above)
            outcomes.append(Outcome(above.written, above.leases, result))
    return outcomes


def _decide_plain(view: View, request: Request) -> "Outcome | TaskStoreError":
    """What a request would do that has nothing to take back where it fails, so that it needs no view of its own."""
    before = len(view.written)
    try:
        result = request.decide(view)
    except TaskStoreError as error:
        return error
    return Outcome(view.written[before:], {}, result)


def commit(
    logs: "Logs", outbox: Outbox, held: "Leases", outcomes: "Outcomes", noticed: "Mapping[str, Lease]",
) -> "Sealed | None":
    """Make what was decided durable and put it into the logs; None where there was no line. Needs the lock.

    Raises ReadOnlyError, BusyError: nothing was written, unless `applied` says "unknown".
    """
    done = [outcome for outcome in outcomes if isinstance(outcome, Outcome)]
    changes = _lease_changes(done)
    changes.update((spec, lease) for spec, lease in noticed.items() if changes.get(spec) is None)
    frames = _framed(done)
    if changes:
        held.prepare()
    sealed = _append(logs, outbox, frames) if frames else None
    held.apply(changes)
    return sealed


def _lease_changes(outcomes: Sequence[Outcome]) -> "dict[str, Lease | None]":
    changes: dict[str, Lease | None] = {}
    for outcome in outcomes:
        changes.update(outcome.leases)
    return changes


def _framed(outcomes: Sequence[Outcome]) -> "list[list[Entry]]":
    """The lines of requests, by frame of the outbox: neighbours share one, as each costs a checksum, while it is small.

    Frames are what the outbox lets go of when it grows too large.
    """
    frames: list[list[Entry]] = []
    size = _FRAME
    for outcome in outcomes:
        entries = [(written.kind.log, written.raw) for written in outcome.written if written.changed]
        if not entries:
            continue
        length = sum([len(raw) for _, raw in entries])
        size += length
        if size <= _FRAME:
            frames[-1] += entries
        else:
            frames.append(entries)
            size = length
    return frames


def _append(logs: "Logs", outbox: Outbox, groups: "list[list[Entry]]") -> "Sealed":
    if logs.quiet.is_busy():
        outbox.append(groups)
        return {}
    opened: dict[str, Log] = {}
    try:
        for name in dict.fromkeys(name for group in groups for name, _ in group):
            opened[name] = logs.open(name)  # no permission, a symbolic link: said before anything is written
        frames = outbox.append(groups)
    except BaseException:
        for log in opened.values():
            logs.done(log)
        raise
    try:
        return drain(logs, outbox, opened)
    except DrainError as error:
        if error.undone:
            try:
                outbox.abort(frames)
            except (OSError, TaskStoreError):
                error.undone = False
        raise _refusal(error) from error


def _refusal(error: DrainError) -> TaskStoreError:
    cause = error.cause
    reason = cause.strerror if isinstance(cause, OSError) else str(cause)
    if error.undone:
        return ReadOnlyError(f"the write failed: {reason}", hint="nothing was written; free some space and try again")
    return ReadOnlyError(f"the write failed half-way: {reason}", applied="unknown",
                         hint="it will be completed once the logs can be written again")
