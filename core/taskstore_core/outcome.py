"""What becomes of one record in a three-way merge: the table of outcomes, and nothing of files or lines. Pure.

    added in one                        that one
    deleted in one                      the deletion, also against a concurrent edit
    modified in one                     that one, whatever its clock says
    modified in both                    the newest version
    the same version, other content     a conflict

Deleted means that the newest version is a tombstone, or that a side no longer has any line of a record that was live
in the base: there git's base proves that it was taken away. Where a tombstone was the base, no line is no change.
"""

from .versions import rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .jsonl import Row

    State = tuple[Row, ...]
    """The newest version of a record in one file: one row; several where a conflict was left open; none for no line."""

_MARKS = ("base_at", "op", "op_sum")  # of the write that made a line, not of what it says


class Outcome:
    """What a record comes to: `state`, empty for a deletion without a tombstone; or rivals where it is a conflict."""

    __slots__ = ("deleted", "rivals", "state")

    def __init__(self, state: "State", rivals: "tuple[State, State] | None" = None) -> None:
        self.state = state
        self.deleted = not state or is_deleted(state)
        self.rivals = rivals
        if rivals is None and len(state) > 1:
            self.rivals = (state[:1], state[1:])


def decide(base: "State", ours: "State", theirs: "State") -> Outcome:
    """The outcome for one record; the same with `ours` and `theirs` exchanged, but for the sides of a conflict."""
    if base and is_deleted(base):
        ours, theirs = (base if _is_no_news(state, base) else state for state in (ours, theirs))
    if same_state(ours, theirs):
        return Outcome(max(ours, theirs, key=_ranks))
    if same_state(theirs, base):
        return Outcome(ours)
    if same_state(ours, base):
        return Outcome(theirs)
    tombstones = [state for state in (ours, theirs) if not state or is_deleted(state)]
    if tombstones:
        return Outcome(max(tombstones, key=_ranks))
    if ours[-1][1] != theirs[-1][1]:
        return Outcome(max(ours, theirs, key=_ranks))
    others = tuple(row for row in theirs if not any(same_content(row, one) for one in ours))
    return Outcome((), (ours, others)) if others else Outcome(ours)


def is_deleted(state: "State") -> bool:
    """Whether a state that is not empty is a tombstone."""
    return state[-1][2]


def _is_no_news(state: "State", tombstone: "State") -> bool:
    """Whether a side of what was deleted has no line of it any more, or an older tombstone: it was compacted."""
    return not state or (is_deleted(state) and state[-1][1] <= tombstone[-1][1])


def same_state(one: "State", other: "State") -> bool:
    """Whether two states say the same."""
    return len(one) == len(other) and all(any(same_content(a, b) for b in other) for a in one)


def same_content(one: "Row", other: "Row") -> bool:
    """Whether two lines say the same, however they are written and whichever write made them."""
    if one[3] == other[3]:
        return True
    return one[:3] == other[:3] and content(one[3]) == content(other[3])


def content(text: str) -> dict[str, object]:
    """What a line says, however it is written and whichever write made it."""
    import json

    record: dict[str, object] = json.loads(text, parse_int=_number, parse_float=_number)
    return {name: value for name, value in record.items() if name not in _MARKS}


def _number(digits: str) -> object:
    """A number as it is written: 1, 1.0 and true are three things, and no digit is lost. JSON makes no tuples."""
    return ("number", digits)


def _ranks(state: "State") -> "list[tuple[int, str, str]]":
    return sorted(map(rank, state), reverse=True)
