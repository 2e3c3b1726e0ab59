"""Settling the conflicts that a merge left in the logs: those of the merge driver, and the blocks of git's text merge.

Each record in a block gets its outcome by the table that the driver goes by (`outcome`), with what stands outside the
blocks as its base. What is a conflict waits for a choice. What was chosen is appended like any write, as the newest
version, through the outbox; then the markers are taken out of the file, whose every other line stays. So a crash in
between leaves a log that says the right thing and still has markers, and settling it again takes only those away.
"""

from . import blocks, signature
from .batch import Batch, Operation
from .errors import BusyError, InvalidError, NotFoundError, ReadOnlyError, TaskStoreError
from .files import replace_file
from .jsonl import MARKERS, indexer
from .kinds import KINDS, Kind
from .outcome import decide, same_content
from .plain import Json
from .source import Source
from .versions import newest, rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .jsonl import Row
    from .outcome import State
    from .store import Store

CHOICES = ("ours", "theirs", "newest")
_TRIES = 3
_PATIENCE_S = 1.0  # for git to be quiet


class Conflict:
    """A record of which two sides made different versions with the same stamp. `taken` is the side that was chosen."""

    __slots__ = ("key", "kind", "ours", "taken", "theirs")

    def __init__(self, kind: Kind, key: str, ours: "State", theirs: "State") -> None:
        self.kind = kind
        self.key = key
        self.ours = max(ours, key=rank)
        self.theirs = max(theirs, key=rank)
        self.taken: str | None = None

    def take(self, choice: str) -> "Row":
        """The version that a choice means; "newest", of equal stamps, the larger text: so it is the same everywhere."""
        if choice == "newest":
            choice = "ours" if rank(self.ours) > rank(self.theirs) else "theirs"
        self.taken = choice
        return self.ours if choice == "ours" else self.theirs

    def plain(self) -> dict[str, object]:
        """As plain data."""
        return {"kind": self.kind.name, "id": self.key, "ours": Json(self.ours[3]), "theirs": Json(self.theirs[3]),
                "taken": self.taken}


class Conflicted:
    """A log with markers in it: its conflicts, and the versions that readers must come to see though nobody chose."""

    __slots__ = ("conflicts", "due", "kind")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.conflicts: list[Conflict] = []
        self.due: list[Row | str] = []  # of a deletion without a tombstone, the id


def look(kind: Kind, data: bytes) -> Conflicted | None:
    """What the blocks in a log come to; None where it has no marker."""
    if not any(mark.encode() in data for mark in MARKERS):
        return None
    lines, found = blocks.dissolve(data.split(b"\n"))
    if len(lines) == data.count(b"\n") + 1:
        return None
    conflicted = Conflicted(kind)
    base, ours, theirs, merged = _sides(kind, lines, found)
    for key in sorted(base.keys() | ours.keys() | theirs.keys()):
        outcome = decide(*(((states[key],) if key in states else ()) for states in (base, ours, theirs)))
        seen = merged.get(key)
        if outcome.rivals is not None:
            conflicted.conflicts.append(Conflict(kind, key, *outcome.rivals))
        elif outcome.deleted and seen is not None and not seen[2]:
            conflicted.due.append(outcome.state[-1] if outcome.state else key)
        elif not outcome.deleted and (seen is None or not same_content(seen, outcome.state[-1])):
            conflicted.due.append(outcome.state[-1])
    return conflicted


def _sides(kind: Kind, lines: list[bytes], found: list[blocks.Block]) -> "list[dict[str, Row]]":
    """The states in base, ours, theirs and all lines together, of the ids that stand in a block."""
    index = indexer(kind, sum(map(len, lines)))
    rows = index(lines)
    in_ours = {number for block in found for number in block.ours}
    in_theirs = {number for block in found for number in block.theirs}
    old, more_of_ours, more_of_theirs = ([row for row in index([*each]) if isinstance(row, tuple)] for each in (
        [line for block in found for line in block.base], [line for block in found for line in block.from_ours],
        [line for block in found for line in block.from_theirs]))
    good = [(number, row) for number, row in enumerate(rows) if isinstance(row, tuple)]
    ids = {row[0] for number, row in good if number in in_ours or number in in_theirs} | {row[0] for row in old}

    def states(without: set[int], more: "Iterable[Row]" = ()) -> "dict[str, Row]":
        return newest([*(row for number, row in good if number not in without and row[0] in ids), *more])

    return [states(in_ours | in_theirs, old), states(in_theirs, more_of_ours), states(in_ours, more_of_theirs),
            states(set())]


def resolve(store: "Store", take: str | None = None, kind: Kind | None = None,
            key: str | None = None) -> dict[str, object]:
    """Settle what can be settled, and conflicts by `take` ("ours", "theirs", "newest"), if need be of one record only.

    Gives the conflicts, the logs whose markers were taken out, and how many conflicts are left, as plain data. Raises
    InvalidError, NotFoundError where `key` is in no conflict, BusyError while git is writing, ReadOnlyError.
    """
    if take is not None and take not in CHOICES:
        raise InvalidError(f"take: {take!r} is not one of {', '.join(CHOICES)}", field="take")
    if key is not None and (kind is None or take is None):
        raise InvalidError("id: needs a kind, and what to take", field="id")
    if not store.flush(_PATIENCE_S):  # a merge has just ended, most likely
        raise BusyError("git is at work", hint="try again when it is done")
    with store.lock():
        _write(store, [])  # so that what waits in the outbox stands in the logs
        found = [conflicted for one in KINDS.values() if (conflicted := look(one, read(store, one)[1])) is not None]
        conflicts = [conflict for conflicted in found for conflict in conflicted.conflicts]
        chosen = [] if take is None else _chosen(conflicts, kind, key)
        operations = [_operation(conflicted.kind, row) for conflicted in found for row in conflicted.due]
        operations += [_operation(conflict.kind, conflict.take(take)) for conflict in chosen if take is not None]
        _write(store, operations)
        mended = [conflicted.kind for conflicted in found if all(one.taken for one in conflicted.conflicts)]
        for one in mended:
            _take_out(store, one)
    return {"conflicts": [conflict.plain() for conflict in conflicts], "logs": [one.log for one in mended],
            "left": sum(conflict.taken is None for conflict in conflicts)}


def _chosen(conflicts: list[Conflict], kind: Kind | None, key: str | None) -> list[Conflict]:
    """The conflicts that a choice is about; an id may be given by its beginning."""
    named = [one for one in conflicts if kind is None or one.kind is kind]
    if key is None or kind is None:
        return named
    found = [one for one in named if one.key == key] or [one for one in named if one.key.startswith(key)]
    if len(found) != 1:
        raise NotFoundError(f"several {kind.title}s in conflict begin with {key}" if found else
                            f"the {kind.title} {key} is in no conflict",
                            hint="taskstore resolve-conflicts lists the conflicts")
    return found


def _operation(kind: Kind, version: "Row | str") -> Operation:
    if isinstance(version, str):
        return Operation("delete", kind, {kind.key: version})
    return Operation("choose", kind, {kind.key: version[0], "line": version[3]})


def _write(store: "Store", operations: list[Operation]) -> None:
    """Append the versions that win, all or none, as the newest. Needs the lock."""
    for outcome in store.commit_locked([Batch(operations)] if operations else []):
        if isinstance(outcome, TaskStoreError):
            raise outcome


def read(store: "Store", kind: Kind) -> "tuple[signature.Signature, bytes]":
    """The signature and the bytes of a log; raises ReadOnlyError."""
    source = Source(store.paths.file(kind.log))
    try:
        return source.signature, source.read(0, source.size)
    finally:
        source.close()


def _take_out(store: "Store", kind: Kind) -> None:
    """Put the log without its markers into its place. Needs the lock; git may write all the same, so look again."""
    for _ in range(_TRIES):
        if store.paths.git_is_writing():
            break
        before, data = read(store, kind)
        lines, _ = blocks.dissolve(data.split(b"\n"))
        try:
            if replace_file(store.paths.file(kind.log), b"\n".join(lines), before):
                return
        except OSError as error:
            raise ReadOnlyError(f"cannot write {kind.log}: {error.strerror}",
                                hint="what was chosen is written; the markers are still there", applied="yes") from None
    raise BusyError(f"git is writing {kind.log}", hint="try again: what was chosen is written", applied="yes")
