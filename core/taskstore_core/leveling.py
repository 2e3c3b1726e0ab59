"""What makes a cache say what logs and outbox do, and makes the logs durable: the steps of a pass over the store."""

from .cache import Cache
from .clock import now_ms
from .errors import ReadOnlyError
from .kinds import KINDS, LOGS, Kind
from .paths import Paths
from .signature import look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .drain import Sealed
    from .frames import Write
    from .jsonl import Row
    from .ledger import Hint
    from .outbox import Outbox
    from .quiet import Quiet
    from .sync import LogReport

    Reports = dict[str, LogReport]

_TRIM_EVERY = 16  # frames between two looks at what the feed need not keep


def bring_level(  # noqa: PLR0917 - the parties to a pass
    paths: Paths, cache: Cache, outbox: "Outbox", sealed: "Sealed", kinds: "Iterable[Kind]",
    quiet: "Quiet | None" = None, *, full: bool = False,
) -> "Reports":
    """Bring `cache` level with the logs of `kinds`, after we appended to those named in `sealed`, and the outbox.

    With `quiet`, raises UnfinishedError where what was read of a log may be but a part of what git writes there.
    """
    hint = cache.hint()
    full = full or _lost_lines(hint, outbox)
    since = 0 if quiet is None else quiet.stamp()
    with cache.transaction():
        reports = sync_logs(paths, cache, sealed, kinds, full=full)
        if quiet is not None:
            refuse_unfinished(paths, cache, quiet, since, _read(cache, reports, sealed))
        is_known = hint is not None and hint[0] == outbox.id and all(
            report.mode in {"unchanged", "tail"} for report in reports.values())
        if is_known and hint is not None:
            changed = [KINDS[name] for name, report in reports.items() if report.mode != "unchanged"]
            overlay(paths, cache, outbox, hint[4], changed)
        else:
            overlay(paths, cache, outbox, -1, KINDS.values())
        if hint is None or hint[4] // _TRIM_EVERY != outbox.seq // _TRIM_EVERY:
            cache.trim_feed()
        if hint != outbox.hint:
            cache.set_hint(outbox.hint)
    return reports


def sync_logs(paths: Paths, cache: Cache, sealed: "Sealed", kinds: "Iterable[Kind]", *, full: bool = False,
              ) -> "Reports":
    """Bring `cache` level with the logs of `kinds`, inside the caller's transaction."""
    from .sync import LogReport, sync_log

    reports = {}
    for kind in kinds:
        path = paths.file(kind.log)
        reports[kind.name] = (
            LogReport("unchanged") if not full and cache.is_level(kind, path) else
            sync_log(cache, kind, path, full=full, sealed=sealed.get(kind.log)))
    return reports


def refuse_unfinished(paths: Paths, cache: Cache, quiet: "Quiet", since: int, read: "Sequence[Kind]") -> None:
    """Raise UnfinishedError where git may be in the middle of a log that was just read, or was then.

    `since` is `quiet.stamp` before: git that has let go of its lock meanwhile has changed it.
    """
    from .quiet import UnfinishedError

    if quiet.is_writing([paths.file(kind.log) for kind in read]):
        raise UnfinishedError
    if quiet.stamp() != since:
        points = {kind: cache.checkpoint(kind) for kind in read}
        if any(point is not None and point.signature != look(paths.file(kind.log)) for kind, point in points.items()):
            raise UnfinishedError


def _read(cache: Cache, reports: "Reports", sealed: "Sealed") -> list[Kind]:
    """The kinds of the logs of which something was read and that do not stand as our append left them."""
    read = [KINDS[name] for name, report in reports.items() if report.mode != "unchanged"]
    points = {kind: cache.checkpoint(kind) for kind in read}
    return [kind for kind, point in points.items()
            if point is None or kind.log not in sealed or point.signature != sealed[kind.log][1]]


def overlay(paths: Paths, cache: Cache, outbox: "Outbox", after: int, changed: "Collection[Kind]") -> None:
    """Put the lines that wait in the outbox over what the logs say: they were acknowledged. Not those up to `after`.

    `changed` are the kinds whose logs have lines that were compared without those that wait.
    """
    waiting: dict[str, list[Row]] = {}
    new: dict[str, list[Row]] = {}
    for frame in outbox.pending:
        for (name, _), row in zip(frame.entries, _indexed(frame), strict=True):
            if row is not None:
                waiting.setdefault(name, []).append(row)
                if frame.seq > after:
                    new.setdefault(name, []).append(row)
    for name, rows in waiting.items():
        kind = LOGS[name]
        cache.put_rows(kind, rows if kind in changed else new.get(name, []))  # of equal versions the later line counts
        if kind in changed:
            cache.doubt(kind, [row[0] for row in rows])
        if cache.in_doubt(kind):
            _examine(paths, cache, kind, rows)


def _indexed(frame: "Write") -> "Sequence[Row | None]":
    """The rows of a frame's lines, read once: a frame may wait through hundreds of passes."""
    if frame.rows is None:
        from .jsonl import index_or_error

        found = (index_or_error(LOGS[name], line.encode()) for name, line in frame.entries)
        frame.rows = [row if isinstance(row, tuple) else None for row in found]
    return frame.rows


def _examine(paths: Paths, cache: Cache, kind: Kind, waiting: "Sequence[Row]") -> None:
    """Look at records of which lines wait; if the log has changed since it was read, whoever reads it then will."""
    from .history import examine
    from .source import Source

    source = Source(paths.file(kind.log))
    try:
        point = cache.checkpoint(kind)
        if point is not None and point.signature == source.signature:
            examine(cache, kind, source, waiting)
    finally:
        source.close()


def pending_lines(paths: Paths, log: str, hint: "Hint | None" = None) -> list[str]:
    """The lines for a log that wait in the outbox, in order, which is read from where `hint` ends. Takes no lock."""
    from .outbox import Outbox

    outbox = Outbox(paths.local("outbox"), hint, writable=False)
    try:
        return [line for frame in outbox.pending for name, line in frame.entries if name == log]
    finally:
        outbox.close()


def settle(paths: Paths, outbox: "Outbox", *, after_ms: int) -> None:
    """Fsync the logs if the oldest append that was not is `after_ms` old. Needs the lock."""
    from . import drain

    if not outbox.unsynced or outbox.failed or outbox.is_doubted or outbox.unsynced[0].at > now_ms() - after_ms:
        return
    try:
        drain.sync_logs(paths, outbox)
    except OSError as error:
        outbox.mark_doubted()
        outbox.failed = f"syncing the logs failed ({error.strerror}): this process writes nothing more"
        return
    try:  # noqa: SIM105 - importing contextlib takes 3 ms
        outbox.retire()
    except ReadOnlyError:
        pass  # housekeeping, for which there is no room now: the old file stands as it was


def _lost_lines(hint: "Hint | None", outbox: "Outbox") -> bool:
    """Whether the cache may hold lines that waited in an outbox which somebody has replaced since."""
    return hint is not None and hint[0] != outbox.id and hint[4] != hint[5]
