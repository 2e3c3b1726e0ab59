"""`check`: everything that is wrong with a store, and mending what is safe to mend.

Files and permissions first, then the lines of the logs, then what they say, and last whether the cache says the same.
It looks at the files itself: what the cache holds is one of the things in doubt.
"""

from . import check_files, check_outbox, check_records, conflicts
from .cache import Cache, Checkpoint
from .errors import TaskStoreError
from .jsonl import index_or_error
from .kinds import KINDS
from .problems import Problem, error, warning
from .store import Store
from .sync import LogReport, sync_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .jsonl import Row

    Waiting = dict[str, list[Row]]

_TRIES = 3


def check(store: Store, *, fix: bool = False) -> dict[str, object]:
    """Every problem found, as plain data, and how many are left after mending."""
    found = list(_look(store))
    if fix and any(problem.fixable for problem in found):
        _mend(store, found)
        left = {(problem.name, problem.file, problem.line, problem.id) for problem in _look(store)}
        for problem in found:
            problem.fixed = (problem.name, problem.file, problem.line, problem.id) not in left
    return {"problems": [problem.plain() for problem in found],
            "left": sum(not problem.fixed and problem.severity != "note" for problem in found)}


def _look(store: Store) -> "Iterator[Problem]":
    yield from check_files.look(store.paths)
    try:
        store.look(KINDS.values())  # so that what is merely not read yet is not taken for drift
    except TaskStoreError as problem:
        yield error("unreadable", problem.message, problem.hint or "make it a file that this user can read")
        return
    waiting = _waiting(store)  # before the logs: what goes into one meanwhile is then seen twice, and not never
    fresh, reports = _read_anew(store)
    try:
        yield from _bad_lines(reports)
        yield from _merges(store)
        drift = list(_drift(store, fresh, waiting))
        _lay_over(fresh, waiting)  # lines that wait for git are read by all, and so part of what records say
        yield from check_records.look(fresh)
        yield from check_outbox.look(store)
        yield from drift
    finally:
        fresh.close()


def _mend(store: Store, found: list[Problem]) -> None:
    check_files.mend(store.paths, found)
    if any(problem.name == "cache_differs" for problem in found):
        store.sync(full=True)


def _read_anew(store: Store) -> tuple[Cache, dict[str, LogReport]]:
    """A cache in memory made from the logs alone, with what was found on the way."""
    fresh = Cache()
    with fresh.transaction():
        reports = {kind.name: sync_log(fresh, kind, store.paths.file(kind.log), full=True) for kind in KINDS.values()}
    return fresh, reports


def _bad_lines(reports: dict[str, LogReport]) -> "Iterator[Problem]":
    for name, report in reports.items():
        log = KINDS[name].log
        for line, reason in report.bad:
            yield error("bad_line", f"not a record, and skipped: {reason}",
                        f"correct or delete line {line} of {log}", file=log, line=line)
        if report.bad_lines > len(report.bad):
            yield error("bad_line", f"{report.bad_lines - len(report.bad)} more lines are not records",
                        f"look at {log} in an editor", file=log)


def _merges(store: Store) -> "Iterator[Problem]":
    """What merges left with markers in the logs."""
    for kind in KINDS.values():
        found = conflicts.look(kind, conflicts.read(store, kind)[1])
        if found is None:
            continue
        for one in found.conflicts:
            yield error("conflict", f"{one.key} was changed on two branches with the same stamp; the later line counts"
                        " until somebody chooses", f"taskstore resolve-conflicts {kind.name} {one.key} --take …",
                        file=kind.log, key=one.key)
        yield warning("markers", "a merge left markers between the lines; readers pass them over",
                      "taskstore resolve-conflicts", file=kind.log)


def _drift(store: Store, fresh: Cache, waiting: "Waiting") -> "Iterator[Problem]":
    """Whether the cache says what the logs say, both looked at in the same state.

    A difference is believed when it is there each time: the cache knows lines that have come to wait since `waiting`.
    """
    differing = _compare(store, fresh, waiting)
    for _ in range(_TRIES):
        if differing is not None and not any(differing.values()):
            break
        waiting = _waiting(store)
        again, _ = _read_anew(store)
        differing = _compare(store, again, waiting)
        again.close()
    for kind, keys in (differing or {}).items():
        if not keys:
            continue
        some = ", ".join(keys[:3]) + (" …" if len(keys) > 3 else "")  # noqa: PLR2004 - a few of them
        yield error("cache_differs", f"the cache differs from {KINDS[kind].log} in {len(keys)} records: {some}",
                    "taskstore sync --full", file="store.db", key=kind, fixable=True)


def _compare(store: Store, fresh: Cache, waiting: "Waiting") -> dict[str, list[str]] | None:
    """The ids in which the cache differs from `fresh`, by kind; None where they were read from different files."""
    def ask(cache: Cache) -> dict[str, list[str]] | None:
        differing = None
        with cache.transaction():  # one state for all that is read
            if all(_same_files(cache.checkpoint(kind), fresh.checkpoint(kind)) for kind in KINDS.values()):
                differing = {kind.name: cache.differing(fresh, kind, {row[0] for row in waiting[kind.name]})
                             for kind in KINDS.values()}
        return differing

    return store.ask(ask)


def _same_files(ours: Checkpoint | None, theirs: Checkpoint | None) -> bool:
    return ours is not None and theirs is not None and ours.signature == theirs.signature


def _waiting(store: Store) -> "Waiting":
    """The lines that wait for their logs, by kind."""
    rows = {kind.name: [index_or_error(kind, line.encode()) for line in store.pending(kind)] for kind in KINDS.values()}
    return {name: [row for row in of_kind if isinstance(row, tuple)] for name, of_kind in rows.items()}


def _lay_over(fresh: Cache, waiting: "Waiting") -> None:
    with fresh.transaction():
        for name, rows in waiting.items():
            fresh.put_rows(KINDS[name], rows)
