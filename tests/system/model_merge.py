"""What a merge of two versions of a log may come to, by the rules of docs/format.md ("Merging")."""

from collections import Counter

from tests.system.model_log import Line, Log, line_of


def lines_in(data: bytes) -> list[bytes]:
    """The lines that are not empty; one with CRLF is the one without."""
    return [line.removesuffix(b"\r") for line in data.split(b"\n") if line.removesuffix(b"\r")]


def taken_over(base: bytes, ours: bytes, theirs: bytes) -> set[bytes]:
    """The lines that stay because both sides kept them, and those that either added."""
    before, left, right = (set(lines_in(data)) for data in (base, ours, theirs))
    return (before & left & right) | (left - before) | (right - before)


def in_conflict(base: bytes, ours: bytes, theirs: bytes) -> set[str]:
    """The ids of which both sides have the same version with other content."""
    return {key for key, outcome in outcomes(base, ours, theirs).items() if outcome == "conflict"}


def outcomes(base: bytes, ours: bytes, theirs: bytes) -> "dict[str, Line | str]":
    """What each record comes to: a line that says it, "deleted" or "conflict"."""
    before, left, right = (Log(data).state() for data in (base, ours, theirs))
    return {key: _outcome(before.get(key), left.get(key), right.get(key)) for key in {*before, *left, *right}}


def _outcome(base: Line | None, ours: Line | None, theirs: Line | None) -> "Line | str":
    if base is not None and base.deleted:
        ours, theirs = (base if side is None or (side.deleted and side.stamp <= base.stamp) else side
                        for side in (ours, theirs))
    if _same(ours, theirs) or _same(theirs, base):
        won = ours
    elif _same(ours, base):
        won = theirs
    elif any(side is None or side.deleted for side in (ours, theirs)):
        won = None
    else:
        assert ours is not None
        assert theirs is not None
        if ours.stamp == theirs.stamp:
            return "conflict"
        won = max(ours, theirs, key=lambda line: line.stamp)
    return "deleted" if won is None or won.deleted else won


def _same(one: Line | None, other: Line | None) -> bool:
    return (None if one is None else one.says) == (None if other is None else other.says)


def assert_merged(base: bytes, ours: bytes, theirs: bytes, merged: bytes) -> None:
    """Assert that no line is lost or came from nowhere, and that each record is what the table says.

    A line may be new only where readers would see something else without it; it is then the newest of its record.
    """
    expected = taken_over(base, ours, theirs)
    lines = lines_in(merged)
    most = Counter(lines_in(base)) | Counter(lines_in(ours)) | Counter(lines_in(theirs))
    assert all(count <= max(1, most[line]) for line, count in Counter(lines).items())  # what an editor wrote twice, too
    assert expected <= set(lines), expected - set(lines)
    extra = [line for each in lines if each not in expected and (line := line_of(each.decode())) is not None]
    assert len(extra) == len(set(lines) - expected)
    assert len({line.key for line in extra}) == len(extra)
    without, state = Log(b"".join(each + b"\n" for each in lines if each in expected)).state(), Log(merged).state()
    for key, outcome in outcomes(base, ours, theirs).items():
        seen, plain = state.get(key), without.get(key)
        if outcome == "deleted":
            assert seen is None or seen.deleted, key
            assert plain is None or not plain.deleted or (seen is not None and seen.says == plain.says), key
        else:
            assert isinstance(outcome, Line)
            assert seen is not None, key
            assert {**seen.record, **_MARKS} == {**outcome.record, **_MARKS}, key
            assert (seen.says == outcome.says) == (plain is not None and plain.says == outcome.says), key
    for line in extra:
        assert all(line.stamp > other.stamp for other in Log(merged).lines if other.key == line.key and
                   other.raw != line.raw)


_MARKS = {"updated_at": 0, "base_at": 0, "op": "", "op_sum": ""}
