"""Laws of merging, over random histories: commutative, associative, idempotent, and nothing lost."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.merge.logs import PRD, both, line, live, log, records_in, state

from taskstore_core.jsonl import index_line, index_or_error
from taskstore_core.outcome import decide
from taskstore_core.versions import newest
from taskstore_merge.merge import merge

KEYS = "abc"
EXAMPLES = 300


@st.composite
def lines(draw: st.DrawFn, versions: "st.SearchStrategy[int]") -> bytes:
    """A line of one of a few records."""
    key, version = draw(st.sampled_from(KEYS)), draw(versions)
    if draw(st.integers(0, 3)) == 0:
        return line(key, version, deleted=True)
    return line(key, version, title=draw(st.sampled_from(["x", "y"])))


@st.composite
def edits(draw: st.DrawFn, base: list[bytes], first: int) -> list[bytes]:
    """What became of `base` on one side: lines taken out, put in and appended. Stamps of sides differ by `first`."""
    versions = st.integers(0, 7).map(lambda n: 3 * n + first)
    left = [each for each in base if draw(st.integers(0, 9))]
    for _ in range(draw(st.integers(0, 1))):
        left.insert(draw(st.integers(0, len(left))), draw(lines(versions)))
    return left + draw(st.lists(lines(versions), max_size=3))


@st.composite
def histories(draw: st.DrawFn, sides: int, *, apart: bool = False) -> list[bytes]:
    """A base and what became of it on each side.

    `apart`: as stores do it, no side gives one record two versions with the same stamp, and no two sides the same.
    """
    base = draw(st.lists(lines(st.integers(0, 7).map(lambda n: 3 * n)), max_size=5))
    made = [base, *(draw(edits(base, number if apart else 0)) for number in range(sides))]
    return [log(*(_one_a_stamp(each) if apart else each)) for each in made]


def _one_a_stamp(written: list[bytes]) -> list[bytes]:
    """The first line with each id and stamp."""
    rows = {index_or_error(PRD, each)[:2]: each for each in reversed(written)}  # type: ignore[index]
    return [each for each in written if each in rows.values()]


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(2))
def test_commutative(history: list[bytes]) -> None:
    """Merging either into the other gives the same bytes, or the same conflicts between the same lines."""
    base, ours, theirs = history
    both(base, ours, theirs)


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(2))
def test_the_table(history: list[bytes]) -> None:
    """What readers of the merged log see of each record is its outcome, worked out from the whole of the files."""
    base, ours, theirs = history
    merged = both(base, ours, theirs)
    states = [newest(row for each in data.split(b"\n") if isinstance(row := index_or_error(PRD, each), tuple))
              for data in history]
    seen, conflicts = state(merged.data), []
    for key in KEYS:
        outcome = decide(*((rows[key],) if key in rows else () for rows in states))
        if outcome.rivals is not None:
            conflicts.append(key)
        elif outcome.deleted:
            assert seen.get(key) is None
        else:
            assert seen[key] == state(log(outcome.state[-1][3].encode()))[key]
    assert merged.conflicts == conflicts


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(2))
def test_no_line_is_lost(history: list[bytes]) -> None:
    """Every line that no side took out is in the merged log, once, and nothing else but lines with newer stamps."""
    merged = both(history[0], history[1], history[2])
    base, ours, theirs = map(records_in, history)
    there = records_in(merged.data)
    assert there >= (ours | theirs) - (base - ours) - (base - theirs)
    before = ours | theirs | base
    for text in there - before:
        row = index_line(PRD, text.encode())
        others = [index_line(PRD, each.encode()) for each in there if each != text]
        assert row is not None
        assert all(each is not None and (each[0] != row[0] or each[1] < row[1]) for each in others)


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(3, apart=True))
def test_associative(history: list[bytes]) -> None:
    """Three branches come to the same state whichever two are merged first, where none stops for a conflict."""
    base, first, second, third = history
    left, right = both(base, first, second), both(base, second, third)
    whole = [both(base, left.data, third), both(base, first, right.data)]
    if not any(each.conflicts for each in (left, right, *whole)):
        assert live(whole[0].data) == live(whole[1].data)


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(2))
def test_idempotent(history: list[bytes]) -> None:
    """A version merged with itself is itself, and merging the same once more changes no state."""
    base, ours, theirs = history
    assert merge(PRD, base, ours, ours).data == ours
    merged = both(base, ours, theirs)
    if merged.conflicts:
        return
    for side in (ours, theirs):
        again = both(base, merged.data, side)
        if not again.conflicts:
            assert live(again.data) == live(merged.data)
            assert live(both(side, merged.data, side).data) == live(merged.data)


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(1))
def test_one_side_alone(history: list[bytes]) -> None:
    """Where one side changed nothing, the state is the other's."""
    base, ours = history
    assert live(both(base, ours, base).data) == live(ours)
