"""What one line of a log means: tables for the rule, and a property that holds the fast reader to it."""

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskstore_core import jsonl
from taskstore_core.clock import MAX_STAMP
from taskstore_core.jsonl import BadLineError, bulk_indexer, columns, index_line, index_or_error, too_deep
from taskstore_core.kinds import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskstore_core.jsonl import Row

    Answer = Row | BadLineError | None

PRD = KINDS["prd"]
SPEC = KINDS["task_spec"]
EXECUTION = KINDS["execution"]
DEPENDENCY = KINDS["dependency"]
WORKFLOW = KINDS["workflow"]
REPO = KINDS["repo_state"]

A = '{"id":"a","created_at":5,"updated_at":7,"status":"draft"}'
A_ROW = ("a", 7, False, A, "draft", 5, None)


def indexed(kind: Kind, line: bytes | str) -> "Row":
    row = index_line(kind, line.encode() if isinstance(line, str) else line)
    assert row is not None
    return row


def why_bad(kind: Kind, line: bytes | str) -> str:
    with pytest.raises(BadLineError) as caught:
        index_line(kind, line.encode() if isinstance(line, str) else line)
    return str(caught.value)


# What stands around a record


@pytest.mark.parametrize("line", [
    A.encode(), A.encode() + b"\r", b"\xef\xbb\xbf" + A.encode(), b"\xef\xbb\xbf" + A.encode() + b"\r",
    b" \t" + A.encode() + b" \t ", b"\r" + A.encode(), b"\xef\xbb\xbf \xef\xbb\xbf" + A.encode(),
], ids=["bare", "CRLF", "BOM", "BOM and CRLF", "spaces", "CR before", "two BOMs"])
def test_what_stands_around_a_record_is_no_part_of_it(line: bytes) -> None:
    """CR, BOM and spaces around a record are dropped from the stored text."""
    assert index_line(PRD, line) == A_ROW


@pytest.mark.parametrize("line", [
    b"", b"\r", b" ", b"\t \r", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r", b"<<<<<<< HEAD", b"<<<<<<<", b"=======",
    b"=======\r", b">>>>>>> theirs", b"||||||| base", b"\xef\xbb\xbf<<<<<<< ours", b"  ======= ",
])
def test_blank_lines_and_conflict_markers_are_neither_records_nor_bad(line: bytes) -> None:
    """A blank line or one of git's four markers is None, whatever follows the marker."""
    assert index_line(PRD, line) is None


@pytest.mark.parametrize("line", [b"<<<<<< six", b"====", b"x<<<<<<<", b">", b"+++++++", b"-"])
def test_what_only_resembles_a_marker_is_bad(line: bytes) -> None:
    """Fewer than seven signs, or signs of another sort, make no marker."""
    assert why_bad(PRD, line).startswith("not JSON")


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\u00a0"])
def test_no_other_line_end_than_lf_is_one(sign: str) -> None:
    """A character that str.splitlines breaks at is an ordinary character inside a string, written raw or escaped."""
    escaped = json.dumps({"id": "a", "updated_at": 1, "title": f"x{sign}y"})
    assert indexed(PRD, escaped)[:4] == ("a", 1, False, escaped)
    if sign >= " ":
        raw = json.dumps({"id": f"a{sign}b", "updated_at": 1, "title": f"x{sign}y"}, ensure_ascii=False)
        assert indexed(PRD, raw)[:4] == (f"a{sign}b", 1, False, raw)


def test_a_raw_control_character_in_a_string_is_bad() -> None:
    """JSON has control characters in strings escaped; a raw one makes the line bad."""
    assert why_bad(PRD, b'{"id":"a","title":"x\x01y"}').startswith("not JSON")
    assert why_bad(PRD, b'{"id":"a","title":"x\x00y"}').startswith("not JSON")


# What is no record


@pytest.mark.parametrize(("line", "reason"), [
    (b"garbage", "not JSON"),
    (b'{"id":"a","updated_at":7', "not JSON"),
    (b'{"id":"a"} {"id":"b"}', "not JSON"),
    (b"{'id':'a'}", "not JSON"),
    (b'{"id":"a",}', "not JSON"),
    (b'{"id":"a","x":01}', "not JSON"),
    (b'{"id":"a","x":+1}', "not JSON"),
    (b'{"id":"a","x":.5}', "not JSON"),
    (b'{"id":"a","x":"\\x"}', "not JSON"),
    (b'{"id":"a","x":"\\u12"}', "not JSON"),
    (b'{"id":"a"}\x00', "not JSON"),
    (b"\x00", "not JSON"),
    (b'\xef\xbb{"id":"a"}', "not UTF-8 at byte 0"),
    (b'{"id":"\xff"}', "not UTF-8 at byte 7"),
    (b'{"id":"a","x":"\xc3"}', "not UTF-8 at byte 15"),
    (b'{"id":"a","x":"\xed\xa0\x80"}', "not UTF-8 at byte 15"),
    (b"[]", "not a JSON object"),
    (b'[{"id":"a"}]', "not a JSON object"),
    (b'"a"', "not a JSON object"),
    (b"7", "not a JSON object"),
    (b"null", "not a JSON object"),
])
def test_what_is_not_one_json_object_is_bad(line: bytes, reason: str) -> None:
    """A line holds just one JSON object in UTF-8, and the reason says in which way it does not."""
    assert why_bad(PRD, line).startswith(reason)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("place", ['"x":{}', '"x":[1,{{"y":{}}}]', '"updated_at":{}', '"status":{}'])
def test_numbers_that_are_none_are_bad(word: str, place: str) -> None:
    """NaN and the infinities are not JSON, wherever they stand."""
    assert why_bad(PRD, f'{{"id":"a",{place.format(word)}}}') == f"not JSON: {word} is not JSON"


@pytest.mark.parametrize("escape", ["\\ud800", "\\udc00", "\\uD83D", "\\udc00\\ud800", "\\ud83d\\u0041", "\\ud83d x"])
@pytest.mark.parametrize("place", ['"x":"{}"', '"x":["{}"]', '"{}":1', '"x":{{"{}":1}}', '"title":"{}"', '"id":"{}"'])
def test_half_of_a_surrogate_pair_is_bad(escape: str, place: str) -> None:
    """Text that no UTF-8 can hold makes a line bad, in fields nobody reads too."""
    assert why_bad(PRD, f'{{"id":"a",{place.format(escape)}}}') == "half of a surrogate pair in a string"


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "\\uD83D\\uDE00", "\\\\ud800", "\\u0000", "\\u2028", "\\ufeff"])
def test_other_escapes_are_text(text: str) -> None:
    """A whole surrogate pair, an escaped backslash and an escaped NUL are ordinary text and stay as written."""
    line = f'{{"id":"a","x":"{text}"}}'
    assert indexed(PRD, line)[3] == line


# Ids


@pytest.mark.parametrize("value", ['""', "null", "5", "1.5", "true", '["a"]', '{"a":1}', '"\\u0000"', '"a\\u0000"',
                                   '"a\\nb"', '"\\t"', '"\\u001f"', '"\\u0001"'])
def test_an_id_is_a_string_without_control_characters(value: str) -> None:
    """An id that is missing, empty, no string or holds a control character makes the line bad."""
    assert why_bad(PRD, f'{{"id":{value},"updated_at":1}}') == "no usable 'id'"
    assert why_bad(PRD, '{"updated_at":1}') == "no usable 'id'"


@pytest.mark.parametrize("key", ["a", "é", "日本", "a b", "\u2028", "\u200b", "\U0001f600", "x" * 10_000, " "])
def test_an_id_may_be_any_other_text(key: str) -> None:
    """On reading, an id may be long and hold any printable or unprintable text but control characters."""
    line = json.dumps({"id": key, "updated_at": 1}, ensure_ascii=False)
    assert indexed(PRD, line)[:3] == (key, 1, False)


def test_the_key_of_a_repo_state_is_its_path() -> None:
    """A repo_state needs no id; its row's key is repo_path."""
    line = '{"repo_path":"/r","last_synced_commit":"c","updated_at":9}'
    assert indexed(REPO, line) == ("/r", 9, False, line, None)
    assert why_bad(REPO, '{"id":"a","updated_at":9}') == "no usable 'repo_path'"


# Versions


@pytest.mark.parametrize(("kind", "fields", "version"), [
    (PRD, {"updated_at": 7, "created_at": 9}, 7),
    (PRD, {"updated_at": 0, "created_at": 9}, 0),
    (PRD, {"updated_at": -5, "created_at": 9}, -5),
    (PRD, {"created_at": 9}, 9),
    (PRD, {"updated_at": None, "created_at": 9}, 9),
    (PRD, {"created_at": -9}, 0),
    (PRD, {}, 0),
    (PRD, {"started_at": 9, "resolved_at": 9}, 0),
    (SPEC, {"created_at": 3}, 3),
    (EXECUTION, {"started_at": 4, "completed_at": 9}, 4),
    (EXECUTION, {"updated_at": 5, "started_at": 9, "completed_at": 9}, 5),
    (DEPENDENCY, {"created_at": 3}, 3),
    (DEPENDENCY, {"created_at": 3, "resolved_at": None}, 3),
    (DEPENDENCY, {"created_at": 3, "resolved_at": 8}, 8),
    (DEPENDENCY, {"created_at": 8, "resolved_at": 3}, 8),
    (DEPENDENCY, {"created_at": 8, "resolved_at": 9, "updated_at": 4}, 4),
    (WORKFLOW, {"updated_at": 6, "version": 99}, 6),
    (REPO, {"updated_at": 6, "created_at": 9}, 6),
    (REPO, {"created_at": 9}, 0),
    (PRD, {"updated_at": MAX_STAMP}, MAX_STAMP),
    (PRD, {"updated_at": -MAX_STAMP}, -MAX_STAMP),
    (DEPENDENCY, {"resolved_at": MAX_STAMP}, MAX_STAMP),
])
def test_the_version_of_a_line(kind: Kind, fields: dict[str, object], version: int) -> None:
    """It is updated_at, and without it the largest of the kind's other stamps and 0."""
    line = json.dumps({kind.key: "a", **fields}).encode()
    assert indexed(kind, line)[1] == version
    assert bulk_indexer(kind)([line]) == [index_line(kind, line)]


@pytest.mark.parametrize("name", ["updated_at", "created_at"])
@pytest.mark.parametrize(("value", "reason"), [
    ("true", "is not an integer"), ("false", "is not an integer"), ("1.5", "is not an integer"),
    ("7.0", "is not an integer"), ("1e3", "is not an integer"), ("-0.0", "is not an integer"),
    ('"7"', "is not an integer"), ('"2024-01-01"', "is not an integer"), ("[7]", "is not an integer"),
    ("{}", "is not an integer"), (str(MAX_STAMP + 1), "is beyond 2^53"), (str(-MAX_STAMP - 1), "is beyond 2^53"),
    (str(2**63), "is beyond 2^53"), (str(2**64), "is beyond 2^53"), ("9" * 5000, "is not an integer"),
])
def test_a_stamp_is_an_integer_up_to_2_to_the_53(name: str, value: str, reason: str) -> None:
    """A stamp of another type (booleans and whole floats too) or beyond 2^53 makes the line bad and is named."""
    assert why_bad(PRD, f'{{"id":"a","{name}":{value}}}') == f"{name} {reason}"


def test_a_stamp_that_is_no_part_of_the_version_may_be_anything() -> None:
    """completed_at tells no version, so whatever stands there does not make the line bad."""
    assert indexed(EXECUTION, '{"id":"a","updated_at":1,"completed_at":"soon"}')[1] == 1
    assert indexed(PRD, '{"id":"a","updated_at":1,"resolved_at":99999999999999999999}')[1] == 1


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 5000, "-" + "9" * 400, "1e400", "-1e400", "0.1e-400", "-0", "1E+2"])
def test_numbers_of_any_size_in_other_fields_are_kept_as_written(digits: str) -> None:
    """A number that no 64-bit integer and no double holds is bytes of the raw line, not a reason to refuse it."""
    line = f'{{"id":"a","updated_at":1,"x":{digits},"review_passes":{digits}}}'
    assert indexed(PRD, line) == ("a", 1, False, line, None, None, None)


# Deletion, columns, fields nobody knows


@pytest.mark.parametrize(("value", "deleted"), [
    ("true", True), ("false", False), ("null", False), ("1", False), ('"true"', False), ("[true]", False), ("0", False),
])
def test_only_true_deletes(value: str, *, deleted: bool) -> None:
    """A line is a tombstone just where `deleted` is true; no other value is taken for it."""
    assert indexed(PRD, f'{{"id":"a","deleted":{value},"updated_at":3}}')[:3] == ("a", 3, deleted)


@pytest.mark.parametrize(("kind", "names"), [
    (PRD, ("status", "created_at")),
    (SPEC, ("status", "prd_id", "assigned_to", "created_at")),
    (EXECUTION, ("status", "ts_id", "started_at")),
    (DEPENDENCY, ("from_exec_id", "to_exec_id", "created_at")),
    (WORKFLOW, ("name", "created_at")),
    (REPO, ()),
])
def test_the_columns_of_a_row(kind: Kind, names: tuple[str, ...]) -> None:
    """A row ends in what is indexed, in when the record began and in what the line was based on, in this order."""
    assert columns(kind) == names
    values = {name: 4 if name.endswith("_at") else f"the {name}" for name in names}
    line = json.dumps({kind.key: "a", "updated_at": 9, **values, "base_at": 8})
    assert indexed(kind, line)[4:] == (*values.values(), 8)


@pytest.mark.parametrize(("value", "column"), [
    ('"odd"', "odd"), ('""', ""), ("null", None), ("7", 7), ("true", None), ("1.5", None), ("[1]", None),
    ('{"a":1}', None), (str(2**60), None), ("9" * 30, None),
])
def test_a_value_of_another_type_is_no_column(value: str, column: str | int | None) -> None:
    """What SQLite cannot hold as text or integer is left out of the column and kept in the line."""
    line = f'{{"id":"a","updated_at":1,"status":{value}}}'
    assert indexed(PRD, line) == ("a", 1, False, line, column, None, None)


def test_unknown_fields_stay_in_the_line() -> None:
    """Fields that no kind has are no reason to refuse a line and stand in its text as they were."""
    line = '{"zzz":{"deep":[1,{"x":null}]},"id":"a","updated_at":1,"op":"o-1","Status":"x","status ":"y"}'
    assert indexed(PRD, line) == ("a", 1, False, line, None, None, None)


@pytest.mark.parametrize(("line", "row"), [
    ('{"id":"a","id":"b","updated_at":1}', ("b", 1, False)),
    ('{"id":7,"id":"b","updated_at":1}', ("b", 1, False)),
    ('{"id":"a","updated_at":9,"updated_at":1}', ("a", 1, False)),
    ('{"id":"a","updated_at":"x","updated_at":1}', ("a", 1, False)),
    ('{"id":"a","deleted":true,"deleted":false,"updated_at":1}', ("a", 1, False)),
    ('{"id":"a","deleted":false,"deleted":true,"updated_at":1}', ("a", 1, True)),
    ('{"id":"a","created_at":5,"updated_at":3,"updated_at":null}', ("a", 5, False)),
])
def test_of_duplicate_keys_the_last_counts(line: str, row: tuple[str, int, bool]) -> None:
    """Where a key stands twice the later value is the value, even where the earlier one is unusable."""
    assert indexed(PRD, line)[:3] == row
    assert bulk_indexer(PRD)([line.encode()]) == [index_line(PRD, line.encode())]


def test_old_workflow_lines_are_records() -> None:
    """A workflow line with "version" and "content" in the place of awl_code is indexed like any other."""
    line = '{"id":"w","name":"n","version":"1.0","content":"steps","created_at":1,"updated_at":2}'
    assert indexed(WORKFLOW, line) == ("w", 2, False, line, "n", 1, None)


# Nesting


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize(("depth", "fine"), [(63, True), (jsonl.MAX_READ_DEPTH - 1, True),
                                             (jsonl.MAX_READ_DEPTH, False), (5000, False), (200_000, False)])
def test_nesting_has_a_limit(opening: str, closing: str, depth: int, *, fine: bool) -> None:
    """Up to MAX_READ_DEPTH levels are read, one more is bad and no depth ends in another exception."""
    line = f'{{"id":"a","updated_at":1,"x":{opening * depth}1{closing * depth}}}'
    for answer in (index_or_error(PRD, line.encode()), bulk_indexer(PRD)([line.encode()])[0]):
        assert isinstance(answer, tuple) == fine
    if not fine:
        assert why_bad(PRD, line) == "nested too deeply"


def test_brackets_in_strings_do_not_nest() -> None:
    """Any number of brackets in a string is text, behind escaped quotes and backslashes too."""
    for text in ("[" * 2000, '"' + "{" * 2000, "\\" * 3 + '"' + "[" * 2000, "[" * 2000 + "\\"):
        line = json.dumps({"id": "a", "updated_at": 1, "x": text})
        assert not too_deep(line)
        assert indexed(PRD, line)[0] == "a"


def test_brackets_side_by_side_do_not_nest() -> None:
    """Only the depth counts, not the number of brackets."""
    line = json.dumps({"id": "a", "updated_at": 1, "x": [[]] * 3000})
    assert indexed(PRD, line)[0] == "a"


# The fast reader says the same


FAST: "dict[str, Callable[[Sequence[bytes]], list[Answer]]]" = {
    name: bulk_indexer(kind) for name, kind in KINDS.items()}

TEXTS = st.one_of(
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text(max_size=8).map(json.dumps),
    st.sampled_from([
        '"draft"', '""', '"a"', '"\\u0000"', '"\\u001f"', '"\x7f"', '"\x85"', '"\\ud800"', '"\\udc00"',
        '"\\ud83d\\ude00"', '"\\uD83D"', '"\\ude00\\ud83d"', '"\\ud83d\\u0041"', '"\\u2028"', '"\u2028"', '"\\/"',
        '"\\x"', '"\\u12"', '"\\u00zz"', '"\t"', '"\x01"', '"', "'a'", '"\ufeff"', '"\\"', '"\\\\"', '"[[[["']))
NUMBERS = st.one_of(
    st.integers(-10, 10).map(str),
    st.integers(-2**70, 2**70).map(str),
    st.floats().map(repr),
    st.sampled_from([
        "1e400", "-1e400", "1e-400", "01", "-01", "00", "-0", "-0.0", "0.0", "1.0", "1e3", "1E+3", "1.", ".5", "1e",
        "1e+", "+1", "-", "--1", "0x1", "1_0", "9" * 19, "9" * 20, "-" + "9" * 19, "-" + "9" * 20, "9" * 400,
        "9" * 5000, "1" + "0" * 5000 + "e1", str(2**53), str(2**53 + 1), str(-2**53), str(-2**53 - 1),
        "9007199254740992.0", "9007199254740993.0", str(2**63 - 1), str(2**63), str(2**64), "1e308", "0e999",
        "Infinity", "-Infinity", "NaN", "nan", "inf"]))
WORDS = st.sampled_from(["true", "false", "null", "True", "tru", "nul", "", "[]", "{}", "[", "]", "{", "}", "[1,]",
                         '{"a":1,}', "[1 2]", '{"a" 1}', "{1:2}", "//", "/**/1", "\u2028", "\x00"])
SPACES = st.sampled_from(["", "", "", "", " ", "\t", "\r", "\n", "\x0b", "\u00a0", "\ufeff"])
NAMES = sorted({name for kind in KINDS.values() for name in (kind.key, *kind.versions, *columns(kind), "base_at")})
KEYS = st.one_of(
    st.sampled_from([*NAMES, "deleted", "deleted", "op", "zzz", "id", "id", "updated_at"]).map(json.dumps),
    st.sampled_from(['"\\u0069d"', '"i\\u0064"', '"ID"', '"id "', '""', '"\\ud800"', '"updated\\u005fat"', "id"]),
    TEXTS)


def _containers(values: "st.SearchStrategy[str]") -> "st.SearchStrategy[str]":
    return st.one_of(
        st.lists(values, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(KEYS, values), max_size=3).map(_object))


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"


VALUES = st.recursive(st.one_of(TEXTS, NUMBERS, WORDS), _containers, max_leaves=5)


@st.composite
def weird_lines(draw: st.DrawFn) -> bytes:
    """JSON and what nearly is: any names, any values, spaces and BOMs anywhere between them."""
    pairs = draw(st.lists(st.tuples(KEYS, VALUES), max_size=6))
    if draw(st.booleans()):
        pairs += [('"id"', '"a"'), ('"repo_path"', '"a"')]
    text = draw(SPACES) + "{" + ",".join(
        f"{draw(SPACES)}{key}{draw(SPACES)}:{value}{draw(SPACES)}" for key, value in pairs) + "}" + draw(SPACES)
    return text.encode(errors="surrogatepass")


@st.composite
def valid_lines(draw: st.DrawFn, kind: Kind) -> bytes:
    """Lines such as tools write them, on the whole."""
    stamps = st.integers(-3, 2**53)
    record: dict[str, object] = {kind.key: draw(st.text(min_size=1, max_size=6))}
    for name in (*kind.fields[1:], *kind.optional_keys):
        record[name] = draw(st.none() | (stamps if name in kind.numbers else st.text(max_size=6)))
    record["deleted"] = draw(st.booleans())
    for name in draw(st.sets(st.sampled_from([*kind.fields[1:], "deleted"]))):
        del record[name]
    extra = st.none() | st.booleans() | st.floats(allow_nan=False)
    record |= draw(st.dictionaries(st.text(max_size=4), extra, max_size=2))
    names = draw(st.permutations(list(record)))
    text = json.dumps({name: record[name] for name in names}, ensure_ascii=draw(st.booleans()),
                      separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])))
    return (draw(SPACES) + text + draw(SPACES)).encode(errors="surrogatepass")


@st.composite
def mutated_lines(draw: st.DrawFn, kind: Kind) -> bytes:
    """Such lines with a few bytes lost, doubled or changed."""
    line = bytearray(draw(valid_lines(kind)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(line)))
        piece = draw(st.binary(max_size=2) | st.sampled_from([
            b'"', b"\\", b"{", b"}", b",", b":", b"\\ud800", b"\\u0000", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\x00",
            b"1e999", b"-", b"0", b".0", b"e5", b"NaN", b"null", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\r"]))
        line[at:at + draw(st.integers(0, 3))] = piece
    return bytes(line)


def shown(answer: "Answer") -> str:
    """An answer so that 1, 1.0 and True differ."""
    return f"bad: {answer}" if isinstance(answer, BadLineError) else repr(answer)


def disagreements(kind: Kind, lines: list[bytes]) -> list[tuple[bytes, str, str]]:
    """The lines of which the two readers say different things, and what."""
    answers = zip(lines, FAST[kind.name](lines), (index_or_error(kind, line) for line in lines), strict=True)
    return [(line, shown(fast), shown(slow)) for line, fast, slow in answers if shown(fast) != shown(slow)]


@pytest.mark.parametrize("name", KINDS)
def test_the_bulk_indexer_agrees_on_odd_values(name: str) -> None:
    """Both readers say the same of each odd value in each field they look at, in one they skip and as the id."""
    kind = KINDS[name]
    fields = (*kind.versions, *columns(kind), "deleted", "base_at", "zzz", kind.key, "\\u0075pdated_at")
    values = ("1e400", "01", "-0", "1.0", "1e3", "9" * 25, "9" * 5000, '"\\ud800"', '"\\u0000"', '""', "true", "null",
              "NaN", "[NaN]", "[01]", '["\\udc00"]', '{"\\ud800":1}', '"\x01"', str(2**53 + 1), "[" * 600 + "]" * 600,
              "[" * 400 + "]" * 400, '"\\ud83d\\ude00"', "9007199254740993.0",
              "[-1,0,1,2]", "[0,-1]", "[true,0.0,null,[0]]", "[]", "0", "-7", '"\x85"', '"\x7f"', '"\\u001f"')
    lines = [f'{{"{kind.key}":"a","updated_at":1,"{field}":{value}}}'.encode() for field in fields for value in values]
    assert disagreements(kind, lines) == []


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_the_bulk_indexer_gives_the_answer_of_index_line(name: str, data: st.DataObject) -> None:
    """Whatever bytes stand on a line, both readers make the same row, the same nothing or the same complaint of it."""
    kind = KINDS[name]
    lines = st.one_of(valid_lines(kind), mutated_lines(kind), weird_lines(),
                      st.binary(max_size=12).filter(lambda line: b"\n" not in line))
    assert disagreements(kind, data.draw(st.lists(lines, max_size=4), label="lines")) == []


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_stored_line_means_what_it_meant(data: st.DataObject) -> None:
    """The raw text of a row, read again, gives that row."""
    kind = data.draw(st.sampled_from(list(KINDS.values())), label="kind")
    row = index_or_error(kind, data.draw(st.one_of(valid_lines(kind), weird_lines()), label="line"))
    if isinstance(row, tuple):
        assert index_line(kind, row[3].encode()) == row
