"""The table of outcomes, row by row: both directions, with an ancestor and without; and lines that are no records."""

import json
from collections.abc import Callable

import pytest
from tests.merge.logs import PRD, State, both, gone, lines_of, live, log, state
from tests.merge.logs import line as make

from taskstore_core.clock import MAX_STAMP
from taskstore_core.kinds import KINDS
from taskstore_merge.merge import merge


def a(version: int, title: str = "x", **fields: object) -> bytes:
    return make("a", version, title=title, **fields)


def said(title: str, **fields: object) -> State:
    return {"a": {"id": "a", "title": title, **fields}}


BASE = log(a(5))


@pytest.mark.parametrize(("base", "ours", "theirs", "seen", "history"), [
    pytest.param(b"", log(a(7)), b"", said("x"), [a(7)], id="added in one, no ancestor"),
    pytest.param(log(make("b", 1)), log(make("b", 1), a(7)), log(make("b", 1)), {**said("x"), "b": {"id": "b"}},
                 [make("b", 1), a(7)], id="added in one"),
    pytest.param(BASE, log(a(5), gone("a", 8)), BASE, {"a": None}, [a(5), gone("a", 8)], id="deleted in one"),
    pytest.param(BASE, b"", BASE, {}, [], id="every line of a live record removed in one"),
    pytest.param(BASE, log(a(5), gone("a", 8)), log(a(5), a(7, "y")), {"a": None}, [a(5), a(7, "y"), gone("a", 8)],
                 id="deleted in one, edited before in the other"),
    pytest.param(BASE, log(a(5), gone("a", 8)), log(a(5), a(9, "y")), {"a": None},
                 [a(5), gone("a", 8), a(9, "y"), gone("a", 10, base_at=8)],
                 id="deleted in one, edited later in the other"),
    pytest.param(BASE, b"", log(a(5), a(9, "y")), {"a": None}, [a(9, "y"), gone("a", 10, base_at=5)],
                 id="every line removed in one, edited in the other"),
    pytest.param(b"", log(a(7), gone("a", 8)), log(a(9, "y")), {"a": None},
                 [a(7), gone("a", 8), a(9, "y"), gone("a", 10, base_at=8)], id="deleted in one, no ancestor"),
    pytest.param(BASE, log(a(5), gone("a", 8)), log(a(5), gone("a", 9)), {"a": None},
                 [a(5), gone("a", 8), gone("a", 9)], id="deleted in both"),
    pytest.param(BASE, log(a(5), gone("a", 8)), b"", {"a": None}, [gone("a", 8)],
                 id="deleted in one, every line removed in the other"),
    pytest.param(BASE, log(a(5), a(7, "y")), log(a(5), a(9, "z")), said("z"), [a(5), a(7, "y"), a(9, "z")],
                 id="modified in both"),
    pytest.param(b"", log(a(7, "y")), log(a(9, "z")), said("z"), [a(7, "y"), a(9, "z")], id="added in both"),
    pytest.param(BASE, log(a(5), a(7, "y")), BASE, said("y"), [a(5), a(7, "y")], id="modified in one"),
    pytest.param(BASE, log(a(3, "y")), BASE, said("y"), [a(3, "y")], id="modified in one, whose clock is behind"),
    pytest.param(log(a(5), a(4, "w")), log(a(3, "y"), a(4, "w")), log(a(5), a(4, "w"), make("b", 1)),
                 {**said("w"), "b": {"id": "b"}}, [a(4, "w"), make("b", 1), a(3, "y")],
                 id="newest version removed in one, which brings an older one up"),
    pytest.param(BASE, log(a(3, "y")), log(b" " + a(5)), said("y"), [a(3, "y"), b" " + a(5), a(6, "y", base_at=[5, 3])],
                 id="modified in one, only written anew in the other"),
    pytest.param(BASE, log(a(5), a(7, "y", n=1)), log(a(5), a(7, "y", n=1).replace(b",", b", ")), said("y", n=1),
                 [a(5), a(7, "y", n=1).replace(b",", b", "), a(7, "y", n=1)],
                 id="the same in both, written in two ways"),
    pytest.param(BASE, log(a(5), a(7, "y", op="1", op_sum="2")), log(a(5), a(7, "y", op="3", op_sum="4")), said("y"),
                 [a(5), a(7, "y", op="1", op_sum="2"), a(7, "y", op="3", op_sum="4")], id="the same by two writes"),
    pytest.param(log(gone("a", 5)), log(gone("a", 5), a(7)), log(gone("a", 5)), said("x"), [gone("a", 5), a(7)],
                 id="created again in one"),
    pytest.param(log(a(1), gone("a", 5)), b"", log(a(1), gone("a", 5), a(7)), said("x"), [a(7)],
                 id="compacted with its tombstone in one, created again in the other"),
    pytest.param(log(a(1), gone("a", 5)), b"", log(a(1), gone("a", 5), make("b", 1)), {"b": {"id": "b"}},
                 [make("b", 1)], id="compacted with its tombstone in one"),
    pytest.param(log(gone("a", 5)), log(gone("a", 3)), log(gone("a", 5), a(7)), said("x"), [gone("a", 3), a(7)],
                 id="an older tombstone in one, created again in the other"),
    pytest.param(BASE, log(a(5), a(9, "y"), a(9)), log(a(5), make("b", 1)), {**said("x"), "b": {"id": "b"}},
                 [a(5), make("b", 1), a(9), a(9, "y"), a(10, base_at=9)], id="two lines of one version added in one"),
    pytest.param(log(a(5), a(5, "y")), log(a(5, "y"), a(5)), log(a(5), a(5, "y"), make("b", 1)),
                 {**said("x"), "b": {"id": "b"}}, [a(5), a(5, "y"), make("b", 1), a(6, base_at=5)],
                 id="lines put in order"),
    pytest.param(log(a(1), a(5)), log(a(5)), log(a(1), a(5), a(7, "y")), said("y"), [a(5), a(7, "y")],
                 id="compacted in one, appended to in the other"),
    pytest.param(log(a(2), a(5, "z")), log(a(1, "y")), log(a(2)), said("x"), [a(1, "y"), a(6, base_at=[5, 2])],
                 id="gone back in both, to versions that are older than the base"),
    pytest.param(log(a(1), a(5)), log(a(1)), log(a(5)), said("x"), [a(6, base_at=[5, 1])],
                 id="each removed what the other kept"),
    pytest.param(log(a(5), a(5, "y")), log(a(5), a(5, "y"), a(5)), log(a(5), a(5, "y"), make("b", 1)),
                 {**said("x"), "b": {"id": "b"}}, [a(5), a(5, "y"), make("b", 1), a(5)], id="a line repeated in one"),
    pytest.param(log(a(5)), log(a(5, "y"), a(5)), log(a(5), make("b", 1)), {**said("x"), "b": {"id": "b"}},
                 [a(5), make("b", 1), a(5, "y"), a(6, base_at=5)], id="a line of the same version put before in one"),
])
def test_outcome(base: bytes, ours: bytes, theirs: bytes, seen: State, history: list[bytes]) -> None:
    """Readers of the merged log see the outcome, and every line that nobody took out is still in it, in one order."""
    merged = both(base, ours, theirs)
    assert merged.conflicts == []
    assert state(merged.data) == seen
    assert [json.loads(each) for each in lines_of(merged.data)] == [json.loads(each) for each in history]


@pytest.mark.parametrize("base", [b"", BASE], ids=["no ancestor", "an ancestor"])
def test_conflict(base: bytes) -> None:
    """The same version with other content is a conflict: a block in git's form at the end, and the lines only there."""
    ours, theirs = base + log(a(6), a(7, "y")), base + log(a(7, "z"), make("b", 9))
    merged = both(base, ours, theirs)
    assert merged.conflicts == ["a"]
    before = [a(5), a(6), make("b", 9)][not base:]
    assert lines_of(merged.data) == [*before, b"<<<<<<< ours", a(7, "y"), b"=======", a(7, "z"), b">>>>>>> theirs"]
    assert lines_of(merge(PRD, base, ours, theirs, 9).data)[-5:] == [
        b"<" * 9 + b" ours", a(7, "y"), b"=" * 9, a(7, "z"), b">" * 9 + b" theirs"]


@pytest.mark.parametrize(("one", "other"), [
    (1, 1.0), (1, True), (10**30, 10**30 + 1), (None, 0), (["number", "1"], 1), (1e22, 10**22),
], ids=str)
def test_what_is_not_the_same(one: object, other: object) -> None:
    """Values that only some readers take for equal are a conflict."""
    assert both(BASE, BASE + log(a(7, n=one)), BASE + log(a(7, n=other))).conflicts == ["a"]


def test_no_conflict_where_a_version_is_older() -> None:
    """Lines with the same version conflict only where they are the newest of both sides."""
    merged = both(BASE, log(a(5), a(7, "y")), log(a(5), a(7, "z"), a(8, "w")))
    assert (merged.conflicts, state(merged.data)) == ([], said("w"))
    assert both(log(a(9)), log(a(9), a(7, "y")), log(a(9), a(7, "z"))).conflicts == []


CONFLICT = merge(PRD, BASE, BASE + log(a(7, "y")), BASE + log(a(7, "z"))).data


def test_earlier_conflict_stays_open() -> None:
    """A conflict that somebody committed with its markers is not settled by the next merge behind everybody's back."""
    merged = both(CONFLICT, CONFLICT, CONFLICT + log(make("b", 1)))
    assert merged.conflicts == ["a"]
    assert lines_of(merged.data) == [a(5), make("b", 1), b"<<<<<<< ours", a(7, "y"), b"=======", a(7, "z"),
                                     b">>>>>>> theirs"]


@pytest.mark.parametrize("settled", [log(a(5), a(7, "y"), a(7, "z"), a(8, "y")), log(a(5), a(7, "y"))],
                         ids=["by a newer version", "by hand"])
def test_earlier_conflict_settled(settled: bytes) -> None:
    """Where one side has settled a conflict that the other still has, it is settled, and no marker is left."""
    merged = both(CONFLICT, settled, CONFLICT + log(make("b", 1)))
    assert (merged.conflicts, live(merged.data)) == ([], {**said("y"), "b": {"id": "b"}})
    assert b"<<<" not in merged.data


def test_earlier_conflict_settled_in_two_ways() -> None:
    """Two sides that settled it by hand, each in its way, are in conflict."""
    assert both(CONFLICT, log(a(5), a(7, "y")), log(a(5), a(7, "z"))).conflicts == ["a"]


@pytest.mark.parametrize("style", [[], [b"||||||| base"]], ids=["merge", "diff3"])
def test_blocks_of_git(style: list[bytes]) -> None:
    """What git's text merge left, committed with its markers, is dissolved into its lines."""
    block = log(b"<<<<<<< HEAD", a(7, "y"), *style, b"=======", a(8, "z"), b">>>>>>> other branch")
    merged = both(BASE, BASE + block, BASE + log(make("b", 1)))
    assert (merged.conflicts, state(merged.data)) == ([], {**said("z"), "b": {"id": "b"}})
    assert lines_of(merged.data) == [a(5), make("b", 1), a(7, "y"), a(8, "z")]


def test_block_within_a_block() -> None:
    """With several merge bases git puts a block with longer markers into the base's part of another."""
    data = log(a(5), b"<<<<<<< ours", a(9, "y"), b"||||||| merged common ancestors",
               b"<<<<<<<<< Temporary merge branch 1", a(7, "v"), b"|||||||||", b"=========", a(7, "w"),
               b">>>>>>>>> Temporary merge branch 2", b"=======", a(9, "z"), b">>>>>>> theirs")
    merged = both(BASE, data, BASE + log(make("b", 1)))
    assert lines_of(merged.data) == [a(5), make("b", 1), b"<<<<<<< ours", a(9, "y"), b"=======", a(9, "z"),
                                     b">>>>>>> theirs"]


BAD = [b"{broken", b'{"no":"id"}', b"\xff\xfe", b'{"id":""}', b'{"id":"a","updated_at":"yesterday"}', b"plain text \r",
       b'{"id":"a","updated_at":1' + b"0" * 20 + b"}"]


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_bad_lines_are_carried(bad: bytes) -> None:
    """What is not a record stays, byte for byte, wherever it stands; one that a side took out is gone."""
    assert lines_of(both(BASE, log(a(5), bad), log(a(5), a(7, "y"))).data) == [a(5), bad, a(7, "y")]
    assert lines_of(both(log(bad, a(5)), log(bad, a(5), a(6)), log(bad, a(5), a(7))).data) == [bad, a(5), a(6), a(7)]
    assert lines_of(both(log(bad, a(5)), log(a(5), a(6)), log(bad, a(5), a(7))).data) == [a(5), a(6), a(7)]


def test_bad_lines_stand_in_order() -> None:
    """Bad lines of both sides come first of what was added, by their bytes, each once."""
    merged = both(BASE, log(a(5), *BAD[:4], a(6)), log(a(5), a(7), *reversed(BAD[1:])))
    assert lines_of(merged.data) == [a(5), *sorted(BAD), a(6), a(7)]


def test_unknown_fields() -> None:
    """A version that has to be written once more keeps every byte of unknown fields, and says what it is based on."""
    odd = (b'{"id":"a","updated_at":3,"title":"y","x":{"n":1.50,"m":[1e2,"\\u00e9"]},'
           b'"big":123456789012345678901234567890}')
    merged = both(BASE, log(odd), log(b" " + a(5)))
    assert lines_of(merged.data)[-1] == odd.replace(b'"updated_at":3,', b"").replace(
        b'"title":"y",', b'"title":"y","updated_at":6,')[:-1] + b',"base_at":[5,3]}'


def test_line_ends() -> None:
    """CRLF is no change: a side that an editor saved so merges like any other, and LF comes out."""
    crlf = log(a(5), make("b", 1)).replace(b"\n", b"\r\n")
    merged = both(log(a(5), make("b", 1)), crlf, log(a(5), make("b", 1), a(7, "y")))
    assert merged.data == log(a(5), make("b", 1), a(7, "y"))
    assert both(BASE, BASE + b"no record\r\n", BASE + log(a(6))).data == BASE + b"no record\r\n" + log(a(6))


def test_without_a_last_line_end() -> None:
    """A last line that is a whole record counts like any other."""
    assert both(BASE, log(a(5), a(7))[:-1], log(a(5), a(6))).data == log(a(5), a(6), a(7))
    assert both(BASE[:-1], log(a(5), a(7)), BASE[:-1] + b"\n" + a(6)).data == log(a(5), a(6), a(7))


def test_torn_line() -> None:
    """A torn last line is not yet written: it stays last and open, until a side has it whole."""
    torn = a(7)[:24]
    assert both(BASE, BASE + torn, log(a(5), a(6))).data == log(a(5), a(6)) + torn
    assert both(BASE, BASE + torn, log(a(5), a(7))).data == log(a(5), a(7))
    assert both(BASE + torn, BASE + torn, log(a(5), a(7))).data == log(a(5), a(7))
    assert both(BASE + torn, BASE + torn, log(a(5), torn, a(8))).data == log(a(5), torn, a(8))
    assert both(BASE, BASE + torn, BASE + b'{"z').data == BASE + torn + b"\n" + b'{"z'
    assert both(BASE, torn, BASE + log(a(9))).data.endswith(b"\n" + torn)


def test_empty_and_blank() -> None:
    """Empty files merge, blank lines are no lines, a BOM is none of a record."""
    assert both(b"", b"", log(a(1))).data == log(a(1))
    assert both(BASE, b"", b"").data == b""
    assert both(BASE, BASE + b"\n  \n" + log(a(6)), BASE + log(a(7))).data == log(a(5), a(6), a(7))
    assert both(BASE, b"\xef\xbb\xbf" + BASE, BASE + log(a(7))).conflicts == []


def test_huge_line() -> None:
    """A line beyond what we would write is merged, and written once more where it must be."""
    huge = a(3, "y" * (5 << 20))
    merged = both(BASE, log(huge), log(b" " + a(5)))
    assert len(lines_of(merged.data)[-1]) == len(huge) + len(',"base_at":[5,3]')
    assert state(merged.data) == said("y" * (5 << 20))


def test_deep_line() -> None:
    """A line as deep as readers take is written once more where it must be."""
    deep = a(3).replace(b'"x"', b"[" * 499 + b"]" * 499)
    assert state(both(BASE, log(deep), log(b" " + a(5))).data)["a"] is not None


def test_the_largest_stamp() -> None:
    """Where nothing can be newer, the line that makes it so stands last."""
    merged = both(BASE, log(a(5), gone("a", 8)), log(a(5), a(MAX_STAMP, "y")))
    assert state(merged.data) == {"a": None}


@pytest.mark.parametrize("spelling", [
    lambda text: text.replace(b'{"id"', b'{ "id"'), lambda text: text.replace(b'"id":"a/b"', b'"id": "a/b"'),
    lambda text: text.replace(b"a/b", b"a\\/b"), lambda text: text.replace(b"a/b", b"\\u0061/b"),
    lambda text: b'{"title":"x",' + text[1:],
], ids=["space", "space behind", "solidus", "unicode", "another order"])
def test_other_spellings_of_an_id(spelling: Callable[[bytes], bytes]) -> None:
    """A line that both kept counts for its record, however its id is written: here it is newer than both edits."""
    old = spelling(make("a/b", 9))
    assert old != make("a/b", 9)
    base = log(make("c", 1), old)
    merged = both(base, base + log(make("a/b", 7, title="y")), base + log(make("a/b", 7, title="z")))
    assert merged.conflicts == []


@pytest.mark.parametrize("spelling", [
    lambda text: text.replace(b'{"id"', b'{ "id"'), lambda text: text.replace(b'"id":', b'"id": '),
    lambda text: b'{"title":"x",' + text[1:],
], ids=["space", "space behind", "another order"])
def test_other_beginnings(spelling: Callable[[bytes], bytes]) -> None:
    """Also where the id itself could be told by how a line of ours begins."""
    base = log(make("c", 1), spelling(make("ab", 9)))
    merged = both(base, base + log(make("ab", 7, title="y")), base + log(make("ab", 7, title="z")))
    assert merged.conflicts == []


def test_ids_of_several_lengths() -> None:
    """The lines that both kept are found for each of the records in doubt."""
    keys = ["a", "bb", "ccc", "d" * 300]
    base = log(*(make(key, 9) for key in keys))
    ours, theirs = (base + log(*(make(key, 7, n=n) for key in keys)) for n in (1, 2))
    assert both(base, ours, theirs).conflicts == []
    ours, theirs = (base + log(*(make(key, 10, n=n) for key in keys)) for n in (1, 2))
    assert both(base, ours, theirs).conflicts == sorted(keys)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind: str) -> None:
    """The version of a line is that of its kind, also of a dependency that is resolved, and of repo state."""
    key, started = KINDS[kind].key, KINDS[kind].started

    def record(stamp: int, **fields: object) -> bytes:
        return json.dumps({key: "/a", started: stamp, **fields}, separators=(",", ":")).encode()

    stamp = "resolved_at" if kind == "dependency" else "updated_at"
    base = log(record(5))
    if kind == "repo_state":
        base = log(record(5, last_synced_commit="c1"))
        ours, theirs = (base + log(record(5 + n, last_synced_commit=f"c{n}")) for n in (2, 3))
    else:
        ours, theirs = (base + log(record(5, **{stamp: 5 + n, "content": str(n)})) for n in (2, 3))
    merged = both(base, ours, theirs, KINDS[kind])
    assert merged.conflicts == []
    assert len(lines_of(merged.data)) == 3
    (seen,) = live(merged.data, KINDS[kind]).values()
    assert seen is not None
    assert "3" in json.dumps(seen)


def test_one_side_only_resolved() -> None:
    """A dependency resolved on one side and untouched on the other is resolved."""
    kind = KINDS["dependency"]
    open_, resolved = make("d", 0).replace(b"updated_at", b"created_at"), b'{"id":"d","created_at":0,"resolved_at":4}'
    merged = both(log(open_), log(open_, resolved), log(open_, make("e", 1)), kind)
    assert live(merged.data, kind)["d"] == {"id": "d", "created_at": 0, "resolved_at": 4}
