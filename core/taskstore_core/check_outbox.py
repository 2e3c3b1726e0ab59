"""What `check` looks for in the outbox: lines that do not come into their logs, and lines that were taken out of them.

Only what may be news to somebody. A person may have thrown lines away on purpose, so that they are gone is a note; and
where their record has a newer version, or is as much gone without them, it is none at all.
"""

from . import git_objects, lost
from .clock import now_ms
from .outbox import Outbox
from .problems import Problem, warning
from .quiet import PATIENCE_MS, Quiet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .kinds import Kind
    from .lost import Lost
    from .paths import Paths
    from .store import Store

_NAMED = 3


def look(store: "Store") -> "Iterator[Problem]":
    """The problems of the outbox, of a store that was brought level a moment ago."""
    is_busy = Quiet(store.paths).is_busy()
    yield from _pending(store.paths, is_busy=is_busy)
    if not is_busy:  # else a log may be missing for a moment, as git unlinks it before it creates it
        yield from _thrown_away(store)


def _pending(paths: "Paths", *, is_busy: bool) -> "Iterator[Problem]":
    outbox = Outbox(paths.local("outbox"), writable=False)
    try:
        waiting = [frame for frame in outbox.pending if frame.seq > outbox.applied]
    finally:
        outbox.close()
    if waiting and now_ms() - waiting[0].at > PATIENCE_MS:
        count, seconds = sum(len(frame.entries) for frame in waiting), (now_ms() - waiting[0].at) // 1000
        why = "git, or something in its folder, is at work all the time" if is_busy else "their logs cannot be written"
        mend = (f"look what touches {paths.git_dir}, and end it; the next command appends them" if is_busy else
                "make the logs files that this user can write; the next command appends them")
        yield warning("pending_lines", f"lines have waited for {seconds} s to be put into their logs, {count} by now:"
                      f" {why}. They are durable, and are read", mend, file=paths.local("outbox"))


def _thrown_away(store: "Store") -> "Iterator[Problem]":
    news = _news(lost.absent(store))
    there = lost.among(store.paths, news, git_objects.held)
    by_kind: dict[Kind, list[str]] = {}
    for one in news:
        if one not in there:
            by_kind.setdefault(one.kind, []).append(one.key)
    for kind, keys in by_kind.items():
        some = ", ".join(keys[:_NAMED]) + (" …" if len(keys) > _NAMED else "")
        yield Problem("lost_lines", "note", f"what was written of {len(keys)} records is in no file and not in git, so"
                      f" that somebody threw it away: {some}",
                      "taskstore recover lists it and brings it back; nothing, if that was on purpose", file=kind.log)


def _news(absent: "Sequence[Lost]") -> "list[Lost]":
    """Of each record the newest of its lines, if it would change what the record is."""
    newest = {(one.kind, one.key): one for one in sorted(absent, key=lambda one: one.row[1])}
    return [one for one in newest.values() if not one.superseded and not (
        one.row[2] and (one.now is None or one.now[1]))]
