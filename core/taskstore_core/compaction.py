"""Compaction: a log is written anew without its superseded lines, and put in the place of the old one.

    read, choose, write beside (no lock) → [lock] carry over what was appended, fsync → outbox forgets → rename → cache

The outbox forgets first: from then on nothing would bring a dropped line back, while a kill before the rename leaves
the old log, whole. Each log is the old one or the new one at every moment. The state is the same before and after,
so the cache gets the new places of its lines and nothing else.
"""

import os
import time

from . import git
from .cache import DAMAGED, UNWRITABLE
from .draft import Draft, StaleError
from .errors import BusyError, ReadOnlyError
from .files import sync_folder
from .kinds import KINDS
from .lock import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .keeper import Keeper
    from .paths import Paths
    from .superseded import Rule

_PATIENCE_S = 1.0
"""How long git is waited for."""
_LOOK_S = 0.02


def compact(keeper: "Keeper", rule: "Rule", *, dry_run: bool = False) -> dict[str, object]:
    """Drop from every log what `rule` lets go; what was dropped, by kind.

    With `dry_run` nothing is written. Raises BusyError while git is at work or an operation of it is unfinished, or
    another compaction is going on, ReadOnlyError where something cannot be written: every log is whole then.
    """
    began = time.perf_counter()
    if dry_run:
        drafts = _drafts(keeper.paths, rule)
    else:
        with Lock(keeper.paths.local("compact.lock"), 0):
            drafts = _carry_out(keeper, rule)
    kinds = {draft.kind.name: draft.report() for draft in drafts}
    return {"kinds": kinds, "lines": sum(len(draft.dropped) for draft in drafts),
            "bytes": sum(len(line) + 1 for draft in drafts for line in draft.dropped),
            "dry_run": dry_run, "took_ms": round((time.perf_counter() - began) * 1000, 3)}


def _drafts(paths: "Paths", rule: "Rule") -> list[Draft]:
    return [Draft(paths, kind, rule) for kind in KINDS.values()]


def _carry_out(keeper: "Keeper", rule: "Rule") -> list[Draft]:
    git.refuse_unfinished(keeper.paths)
    end = time.monotonic() + _PATIENCE_S
    while keeper.quiet.is_busy():
        if time.monotonic() >= end:
            raise _at_work()
        time.sleep(_LOOK_S)
    keeper.sync()  # so that what waited for git is looked at, too
    try:
        return _prepare_and_swap(keeper, rule)
    except StaleError:
        pass  # somebody replaced a log meanwhile: once more, with nobody of ours writing
    try:
        return keeper.in_turn(lambda: _prepare_and_swap(keeper, rule, locked=True))
    except StaleError:
        raise BusyError("somebody keeps replacing the logs", hint="try again") from None


def _prepare_and_swap(keeper: "Keeper", rule: "Rule", *, locked: bool = False) -> list[Draft]:
    drafts = _drafts(keeper.paths, rule)
    changed = [draft for draft in drafts if draft.dropped]
    try:
        for draft in changed:
            if not os.access(draft.path, os.W_OK):
                raise ReadOnlyError(f"cannot write {draft.path}", hint="nothing was dropped")
            draft.begin()
        if changed and locked:
            _swap(keeper, changed)
        elif changed:
            keeper.in_turn(lambda: _swap(keeper, changed))
    except OSError as error:
        raise ReadOnlyError(f"cannot write {error.filename or keeper.paths.directory}: {error.strerror}",
                            hint="every log is whole; try again once this is mended") from None
    finally:
        for draft in drafts:
            draft.close()
    return drafts


def _swap(keeper: "Keeper", drafts: "Sequence[Draft]") -> None:
    """Put drafts into the places of their logs. Needs the lock."""
    cache, outbox = keeper.settled()
    git.refuse_unfinished(keeper.paths)
    if keeper.quiet.is_busy() or outbox.pending:
        raise _at_work()
    if outbox.unsynced:
        raise ReadOnlyError("the logs could not be synced to the disk", hint="check the disk; nothing was dropped")
    for draft in drafts:
        draft.finish()
    outbox.forget_lines({draft.kind.log: frozenset(draft.dropped).difference(draft.lines) for draft in drafts})
    for draft in drafts:
        draft.swap()
    sync_folder(keeper.paths.directory)
    try:
        with cache.transaction():
            for draft in drafts:
                draft.store(cache)
            cache.set_hint(outbox.hint)
    except (*DAMAGED, *UNWRITABLE):
        pass  # the logs are true: whoever reads next finds the cache behind


def _at_work() -> BusyError:
    return BusyError("git is at work in this repository", hint="try again")
