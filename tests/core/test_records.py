"""The six kinds: one table against the typed records, every value that may not be written, and what a write keeps.

The expectations stand here a second time, copied from the format and not from the code.
"""

import enum
import json
import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskstore_core import change, records
from taskstore_core.clock import MAX_STAMP
from taskstore_core.errors import ConflictError, ExistsError, InvalidError, NotFoundError
from taskstore_core.jsonl import index_line, version_of
from taskstore_core.kinds import KINDS, LOGS, Kind, find_kind

Fields = dict[str, Any]
Known = tuple[int, bool, str, str | None]

NOW = 1_700_000_000_000
FUTURE = NOW + 86_400_000
U8, U32, STAMP = 2**8 - 1, 2**32 - 1, 2**53


class Expected:
    """A kind as the format describes it; `least` is what a new record needs, `options` are null when empty."""

    def __init__(self, log: str, fields: str, *, least: Fields, optional: str = "", options: str = "",
                 enums: Mapping[str, str] | None = None, limits: Mapping[str, int] | None = None) -> None:
        self.log = log
        self.fields = fields.split()
        self.least = least
        self.optional = optional.split()
        self.options = options.split()
        self.enums = {name: words.split() for name, words in (enums or {}).items()}
        stamps = {name: STAMP for name in (*self.fields, *self.optional) if name.endswith("_at")}
        self.limits = {**stamps, **(limits or {})}


EXPECTED = {
    "prd": Expected(
        "prds.jsonl", "id title description created_at updated_at status review_passes content",
        least={"id": "x", "title": "T"}, enums={"status": "draft ready active complete cancelled"},
        limits={"review_passes": U8}),
    "task_spec": Expected(
        "task_specs.jsonl", "id prd_id phase_name description created_at updated_at status workflow_name assigned_to"
        " content",
        least={"id": "x", "prd_id": "p", "phase_name": "N"}, optional="depends_on",
        options="workflow_name assigned_to", enums={"status": "pending running complete failed"}),
    "execution": Expected(
        "executions.jsonl", "id ts_id worktree_path branch_name status started_at updated_at completed_at"
        " current_phase iteration_count error_message",
        least={"id": "x", "ts_id": "t"}, options="completed_at current_phase error_message",
        enums={"status": "running paused complete failed stopped"}, limits={"iteration_count": U32}),
    "dependency": Expected(
        "dependencies.jsonl", "id from_exec_id to_exec_id dependency_type created_at resolved_at payload",
        least={"id": "x", "from_exec_id": "a", "to_exec_id": "b", "dependency_type": "query"},
        optional="updated_at", options="resolved_at payload updated_at",
        enums={"dependency_type": "notify query share"}),
    "workflow": Expected(
        "workflows.jsonl", "id name description awl_code created_at updated_at", least={"id": "x", "name": "N"}),
    "repo_state": Expected(
        "repo_state.jsonl", "repo_path last_synced_commit updated_at",
        least={"repo_path": "/r", "last_synced_commit": "c0ffee"}, optional="branch", options="branch"),
}
NAMES = list(EXPECTED)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskstore_core.clock.now_ms", lambda: NOW)


def least(name: str, /, **fields: Any) -> Fields:
    return {**EXPECTED[name].least, **fields}


def key_of(name: str) -> str:
    return str(EXPECTED[name].least[KINDS[name].key])


def create(name: str, fields: Fields, known: Known | None = None) -> str:
    """The line that creating a record of these fields writes; what is noted of it is what reading it gives."""
    row = change.create(KINDS[name], fields, known)
    assert row == index_line(KINDS[name], row[3].encode())
    return row[3]


def update(name: str, line: str, changes: Fields, *, known: Known | None = None, stamp: int | None = None) -> str:
    """The line that updating the record on `line` writes."""
    known = known or known_of(name, line)
    return change.update(KINDS[name], key_of(name), changes, known, stamp)[3]


def known_of(name: str, line: str) -> Known:
    """What the store knows of an id whose newest line is this."""
    row = index_line(KINDS[name], line.encode())
    assert row is not None
    return row[1], bool(row[2]), row[3], None


def raw_of(line: str) -> dict[str, bytes]:
    """The bytes of each value on a line."""
    return {name: bytes(raw) for name, raw in msgspec.json.decode(line, type=dict[str, msgspec.Raw]).items()}


def refused(name: str, fields: Fields) -> list[InvalidError]:
    """The errors of creating a record with these fields and of updating one to them."""
    errors = []
    line = create(name, least(name))
    with pytest.raises(InvalidError) as caught:
        create(name, least(name, **fields))
    errors.append(caught.value)
    with pytest.raises(InvalidError) as caught:
        update(name, line, fields)
    return [*errors, caught.value]


# The table and the typed records


@pytest.mark.parametrize("name", NAMES)
def test_table_has_the_fields_of_the_format(name: str) -> None:
    """Each kind's row has the log, the keys in their order, the words and the numbers that the format gives it."""
    kind, expected = KINDS[name], EXPECTED[name]
    assert kind.log == expected.log
    assert list(kind.fields) == expected.fields
    assert list(kind.optional_keys) == expected.optional
    assert {field: list(words) for field, words in kind.enums.items()} == expected.enums
    assert sorted(kind.numbers) == sorted(expected.limits)
    assert len(set(kind.numbers)) == len(kind.numbers)


def test_table_is_complete() -> None:
    """There are six kinds, six types and six logs, each under the same name everywhere."""
    assert list(KINDS) == list(records.TYPES) == list(records.FIELDS) == NAMES
    assert {log: kind.name for log, kind in LOGS.items()} == {row.log: name for name, row in EXPECTED.items()}
    assert all(type_.kind == name for name, type_ in records.TYPES.items())


@pytest.mark.parametrize("name", NAMES)
def test_types_have_the_fields_of_the_table(name: str) -> None:
    """A typed record has the fields of its row and `extra`: the required ones first, each part in the table's order."""
    kind = KINDS[name]
    names = [info.name for info in msgspec.structs.fields(records.TYPES[name])]
    required = set(EXPECTED[name].least) - {"id"}
    order = sorted((*kind.fields, *kind.optional_keys), key=lambda field: field not in required)
    assert [field for field in names if field != "extra"] == order
    assert names.count("extra") == 1
    assert {field for field, info in records.FIELDS[name].items() if info.required} == required


@pytest.mark.parametrize("name", NAMES)
def test_types_have_the_values_of_the_table(name: str) -> None:
    """A typed record's enums have the words of its row in their order, and its integers the bounds of the format."""
    expected = EXPECTED[name]
    enums: dict[str, list[str]] = {}
    limits: dict[str, int] = {}
    options: set[str] = set()
    for field, info in records.FIELDS[name].items():
        type_ = msgspec.inspect.type_info(info.type)
        parts = type_.types if isinstance(type_, msgspec.inspect.UnionType) else (type_,)
        for part in parts:
            match part:
                case msgspec.inspect.EnumType(cls=cls):
                    enums[field] = [word.value for word in cls]
                case msgspec.inspect.IntType(ge=least_, le=most):
                    assert least_ == 0
                    limits[field] = most or 0
                case msgspec.inspect.NoneType():
                    options.add(field)
    assert enums == expected.enums
    assert limits == expected.limits
    assert options == set(expected.options)


@pytest.mark.parametrize(("word", "name"), [
    *((name, name) for name in NAMES), ("ts", "task_spec"), ("task-spec", "task_spec"), ("repo-state", "repo_state"),
])
def test_names_of_kinds(word: str, name: str) -> None:
    """A kind is found by its name and its aliases."""
    assert find_kind(word).name == name


@pytest.mark.parametrize("word", ["", "prds", "PRD", "prd ", "deps", "\ud800", "__class__"])
def test_unknown_kind(word: str) -> None:
    """Any other word is no kind, and the error names the field `kind` and the kinds there are."""
    with pytest.raises(InvalidError, match="there is no kind") as caught:
        find_kind(word)
    assert caught.value.field == "kind"
    assert all(name in caught.value.hint for name in NAMES)


# Creating


@pytest.mark.parametrize(("name", "line"), [
    ("prd", """{"id":"x","title":"T","description":"","created_at":NOW,"updated_at":NOW,"status":"draft",
        "review_passes":0,"content":""}"""),
    ("task_spec", """{"id":"x","prd_id":"p","phase_name":"N","description":"","created_at":NOW,"updated_at":NOW,
        "status":"pending","workflow_name":null,"assigned_to":null,"content":""}"""),
    ("execution", """{"id":"x","ts_id":"t","worktree_path":"","branch_name":"","status":"running","started_at":NOW,
        "updated_at":NOW,"completed_at":null,"current_phase":null,"iteration_count":0,"error_message":null}"""),
    ("dependency", """{"id":"x","from_exec_id":"a","to_exec_id":"b","dependency_type":"query","created_at":NOW,
        "resolved_at":null,"payload":null}"""),
    ("workflow", """{"id":"x","name":"N","description":"","awl_code":"","created_at":NOW,"updated_at":NOW}"""),
    ("repo_state", """{"repo_path":"/r","last_synced_commit":"c0ffee","updated_at":NOW}"""),
])
def test_line_of_a_new_record(name: str, line: str) -> None:
    """A record with no more than it needs gets the defaults and stamps of the format, as one compact line."""
    assert create(name, least(name)) == re.sub(r"\n +", "", line).replace("NOW", str(NOW))


@pytest.mark.parametrize(("name", "field"), [
    (name, field) for name in NAMES for field in EXPECTED[name].least if field != KINDS[name].key])
def test_required_fields(name: str, field: str) -> None:
    """A record without a field it needs is refused by that field's name."""
    fields = least(name)
    del fields[field]
    with pytest.raises(InvalidError) as caught:
        create(name, fields)
    assert caught.value.field == field


@pytest.mark.parametrize("name", NAMES)
def test_given_stamps(name: str) -> None:
    """The stamp of a beginning is the caller's if given, and the stamp of an update always the store's."""
    started = KINDS[name].started
    line = json.loads(create(name, least(name, **{started: 5, "updated_at": 6})))
    if started != "updated_at":
        assert line[started] == 5
    assert line.get("updated_at", NOW) == NOW
    assert ("updated_at" in line) == (name != "dependency")


@pytest.mark.parametrize("name", NAMES)
def test_order_of_keys(name: str) -> None:
    """Keys stand in the format's order whichever way they are given, and unknown ones behind them in theirs."""
    given_fields = least(name, z=1, a=2, **{field: ["y"] for field in EXPECTED[name].optional if field == "depends_on"})
    backwards = dict(reversed(given_fields.items()))
    line = json.loads(create(name, backwards))
    known = [field for field in (*EXPECTED[name].fields, *EXPECTED[name].optional) if field in line]
    unknown = [field for field in backwards if field in {"a", "z"}]
    assert list(line) == [*known, *unknown]
    assert set(EXPECTED[name].fields) <= set(line)
    again = json.loads(update(name, json.dumps(dict(reversed(line.items()))), {"b": 3}))
    assert list(again)[:len(known)] == known
    assert set(list(again)[-3:]) >= {"b"}


def test_empty_depends_on() -> None:
    """`depends_on` stands on a line only where there is something in it."""
    assert "depends_on" not in create("task_spec", least("task_spec", depends_on=[]))
    line = create("task_spec", least("task_spec", depends_on=["a", "b"]))
    assert '"depends_on":["a","b"]' in line
    assert "depends_on" not in update("task_spec", line, {"depends_on": []})
    assert '"depends_on":["a","b"]' in update("task_spec", line, {"content": "c"})


@pytest.mark.parametrize("name", NAMES)
def test_taken_id(name: str) -> None:
    """A record whose id is taken cannot be created."""
    line = create(name, least(name))
    with pytest.raises(ExistsError):
        create(name, least(name), known_of(name, line))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [NOW - 5, NOW, FUTURE])
def test_created_again(name: str, version: int) -> None:
    """A deleted id is created again as a version that beats its tombstone, whatever the clock says."""
    key = KINDS[name].key
    line = create(name, least(name), (version, True, f'{{"{key}":"x","deleted":true,"updated_at":{version}}}', None))
    stamp = max(NOW, version + 1)
    assert json.loads(line)["updated_at"] == stamp
    assert version_of(KINDS[name], json.loads(line)) == stamp
    assert json.loads(line).get(KINDS[name].started) == stamp
    assert "deleted" not in line


def test_dependency_created_again_with_an_old_stamp() -> None:
    """A re-created dependency carries `updated_at`, so that it beats its tombstone with any `created_at`."""
    line = create("dependency", least("dependency", created_at=1), (FUTURE, True, "{}", None))
    assert list(json.loads(line))[-2:] == ["updated_at", "base_at"]
    assert known_of("dependency", line)[0] == FUTURE + 1


# Values that may not be written


def wrong_values(name: str) -> list[tuple[str, object]]:
    """(field, value) for each field of a kind and each value that its type excludes."""
    expected = EXPECTED[name]
    made: list[tuple[str, object]] = []
    for field in (*expected.fields, *expected.optional):
        if field == "updated_at" or field == KINDS[name].key:
            continue  # the store's to give; an id is checked below
        made.append((field, {"a": 1}))
        if field not in (*expected.options, "depends_on"):
            made.append((field, None))
        if field in expected.limits:
            most = expected.limits[field]
            made += [(field, value) for value in (-1, most + 1, 2**64, 1.5, 1.0, "1", "", True, [1])]
        elif field in expected.enums:
            made += [(field, value) for value in ("nope", "", expected.enums[field][0].upper(), 1, True, ["draft"])]
        elif field == "depends_on":
            made += [(field, value) for value in ("a", [1], [None], ["a", ["b"]], 1)]
        else:
            made += [(field, value) for value in (1, 1.5, True, ["a"])]
    return made


@pytest.mark.parametrize(("name", "field", "value"), [
    (name, field, value) for name in NAMES for field, value in wrong_values(name)])
def test_wrong_values(name: str, field: str, value: object) -> None:
    """A value outside its field's type is refused by the field's name, on create and on update."""
    for error in refused(name, {field: value}):
        assert error.field == field
        assert error.message.startswith(f"{field}: ")
        assert "\n" not in error.message


@pytest.mark.parametrize("value", ["", 0, False, {}], ids=repr)
def test_empty_values_of_another_type(value: object) -> None:
    """What is empty but no list is refused as `depends_on` on create, as it is on update."""
    for error in refused("task_spec", {"depends_on": value}):
        assert error.field == "depends_on"


@pytest.mark.parametrize("name", NAMES)
def test_right_values(name: str) -> None:
    """The bounds of every number, every word of every enum and null for every option are written as given."""
    expected = EXPECTED[name]
    values: list[tuple[str, object]] = [
        *((field, value) for field, most in expected.limits.items() for value in (0, most) if field != "updated_at"),
        *((field, word) for field, words in expected.enums.items() for word in words),
        *((field, None) for field in expected.options if field not in expected.optional)]  # those are left out instead
    line = create(name, least(name))
    for field, value in values:
        assert json.loads(create(name, least(name, **{field: value})))[field] == value
        if not (field == KINDS[name].started and value == STAMP and name == "dependency"):
            assert json.loads(update(name, line, {field: value}))[field] == value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", [
    "", "a\nb", "a\rb", "\x00", "a\x1bb", "\x7f", "a\x85b", "\x9f", "\ud800", "a\udcff", None, 7, True, ["x"],
    {"x": 1}], ids=ascii)
def test_bad_ids(name: str, key: object) -> None:
    """What is no text, empty or holds a control character is no id, and the error names the field."""
    kind = KINDS[name]
    with pytest.raises(InvalidError) as caught:
        create(name, least(name, **{kind.key: key}))
    assert caught.value.field == kind.key
    with pytest.raises(InvalidError) as caught:
        change.bring_in(kind, least(name, **{kind.key: key}), None)
    assert caught.value.field == kind.key


@pytest.mark.parametrize("name", NAMES)
def test_long_ids(name: str) -> None:
    """An id of more than 256 characters is refused, but the path of a repository is not."""
    fields = least(name, **{KINDS[name].key: "x" * 257})
    if name == "repo_state":
        assert json.loads(create(name, fields)) == {**fields, "updated_at": NOW}
    else:
        with pytest.raises(InvalidError, match="257 characters") as caught:
            create(name, fields)
        assert caught.value.field == "id"


@pytest.mark.parametrize("key", ["x" * 256, "ü" * 256, "a b", "-x", "a/b", "\u202e", "日本", "😀"], ids=range(8))
def test_good_ids(key: str) -> None:
    """Any other text of up to 256 characters is an id."""
    assert json.loads(create("prd", {"id": key, "title": "T"}))["id"] == key


class Word(str, enum.Enum):  # noqa: UP042 - the str() of which is not its value
    """Texts that are members of an enumeration."""

    KEY = "abc"


def test_an_id_of_an_enumeration() -> None:
    """An id is what its value says, which is what stands in the line."""
    row = change.create(KINDS["prd"], {"id": Word.KEY, "title": "T"}, None)
    assert row == index_line(KINDS["prd"], row[3].encode())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("field", "value"), [
    ("z", math.nan), ("z", math.inf), ("z", -math.inf), ("z", [1, {"a": [math.nan]}]),
    ("z", 2**64), ("z", -(2**63) - 1), ("z", {"a": [2**70]}),
    ("z", "\ud800"), ("z", ["\udfff"]), ("z", {"a": {"b": "a\ud83d"}}), ("z", {"\ud800": 1}),
    ("z", {1: 2}), ("z", {"a": {None: 2}}),
    ("z", {1, 2}), ("z", b"x"), ("z", object()), ("z", [1j]),
])
def test_values_that_are_not_json(name: str, field: str, value: object) -> None:
    """What JSON, UTF-8 or 64 bits cannot hold is refused by the name of the unknown field it stands in."""
    for error in refused(name, {field: value}):
        assert error.field == field
        assert len(error.message) < 200


def test_a_number_too_long_to_spell() -> None:
    """An integer of thousands of digits is refused like any other beyond 64 bits."""
    for error in refused("prd", {"z": 10**5000}):
        assert error.field == "z"


@pytest.mark.parametrize("field", ["title", "description", "content", "created_at", "status", "review_passes"])
def test_surrogates_in_known_fields(field: str) -> None:
    """Half of a surrogate pair in a known field is refused by the field's name."""
    for error in refused("prd", {field: "a\ud800b"}):
        assert error.field == field


def test_surrogate_in_the_name_of_a_field() -> None:
    """Half of a surrogate pair in a field's name is refused, with the name spelt so that it can be printed."""
    for error in refused("prd", {"a\ud800": 1}):
        assert error.field == "a\\ud800"
        assert error.message.isascii()


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 2**63, 0, -1, 1e308, -0.0, 5e-324])
def test_numbers_that_fit(value: float) -> None:
    """A number of 64 bits, signed or not, and any finite float is written as it is."""
    written = json.loads(create("prd", least("prd", z=value)))["z"]
    assert repr(written) == repr(value)


def nested(levels: int, *, objects: bool) -> object:
    value: object = 0
    for _ in range(levels):
        value = {"a": value} if objects else [value]
    return value


@pytest.mark.parametrize("objects", [False, True])
def test_nesting(*, objects: bool) -> None:
    """64 levels are written, the record being the first of them, and 65 are refused by the field's name."""
    deepest = nested(63, objects=objects)
    assert json.loads(create("prd", least("prd", z=deepest)))["z"] == deepest
    for levels in (64, 2000):
        for error in refused("prd", {"z": nested(levels, objects=objects)}):
            assert error.field == "z"
            assert "64" in error.message


@pytest.mark.parametrize(("field", "char"), [("content", "x"), ("z", "x"), ("content", "ü"), ("content", "\n")])
def test_size(field: str, char: str) -> None:
    """A line of exactly 4 MiB is written and one byte more is refused, counted in bytes as they stand on disk."""
    width = len(json.dumps(char, ensure_ascii=False).encode()) - 2
    room = (4 << 20) - len(create("prd", least("prd", **{field: ""})).encode())
    filling = char * (room // width) + "x" * (room % width)
    line = create("prd", least("prd", **{field: filling}))
    assert len(line.encode()) == 4 << 20
    based = len(f',"base_at":{NOW}')
    for error, more in zip(refused("prd", {field: f"{filling}x"}), (1, 1 + based), strict=True):
        assert f"{(4 << 20) + more} bytes" in error.message
        assert "4194304" in error.message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["op", "deleted"])
@pytest.mark.parametrize("value", [True, False, None, "x"])
def test_reserved_names(name: str, field: str, value: object) -> None:
    """`op` and `deleted` are no fields of a record, whatever their value."""
    for error in refused(name, {field: value}):
        assert error.field == field


def test_dotted_and_empty_names() -> None:
    """A field's name may be any text."""
    fields = {"": 1, "a.b": 2, "$": 3, 'q"': 4, "\n": 5, "extra": {"x": 6}, "kind": 7}
    line = json.loads(create("prd", least("prd", **fields)))
    assert {field: line[field] for field in fields} == fields


# Updating

ODD = {
    "f": "1.10", "e": "1e400", "E": "-1E-400", "n": "123456789012345678901234567890", "m": "-0", "d": "9" * 5000,
    "s": r'"\u00e9\/\ud83d\ude00\u0000\b"', "u": '"é😀\u2028"', "o": '{"b" : 1 ,"a":[ 1.0 , {} ]}',
    "t": "true", "l": "null", "x": '"null"',
}


@pytest.mark.parametrize("name", NAMES)
def test_unknown_fields_survive_updates(name: str) -> None:
    """Unknown fields keep every byte of their values through updates, behind the known ones and in their order."""
    known = create(name, least(name))
    line = known[:-1] + "".join(f',"{field}": {text} ' for field, text in ODD.items()) + "}"
    for number in range(3):
        line = update(name, line, {"note": number})
        raw = raw_of(line)
        assert {field: raw[field].decode().strip() for field in ODD} == ODD
        assert list(raw)[-len(ODD) - 2:] == [*ODD, "note", "base_at"]
        assert raw["note"] == b"%d" % number
        index_line(KINDS[name], line.encode())


@pytest.mark.parametrize("name", NAMES)
def test_known_fields_survive_updates(name: str) -> None:
    """A known field that is not changed keeps every byte, even where another tool wrote it differently."""
    line = create(name, least(name))
    text = next(field for field in EXPECTED[name].least if field != KINDS[name].key)
    odd = line.replace(f'"{text}":"{EXPECTED[name].least[text]}"', f'"{text}" : "\\u0041\\/"')
    assert odd != line
    assert raw_of(update(name, odd, {"z": 1}))[text].strip() == b'"\\u0041\\/"'


TEXT = st.text(st.characters(codec="utf-8"), max_size=9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=9)
UNKNOWN = TEXT.filter(lambda name: name not in {"op", "deleted", *EXPECTED["prd"].fields})


@given(st.dictionaries(UNKNOWN, JSON, max_size=5))
def test_any_json_survives(extra: Fields) -> None:
    """Any JSON under any unknown name comes back from create and from update as it was given."""
    line = create("prd", least("prd", **extra))
    again = update("prd", line, {"title": "U"})
    for text in (line, again):
        written = json.loads(text)
        assert "\n" not in text
        assert repr({name: written[name] for name in extra}) == repr(extra)
    assert {name: raw_of(again)[name] for name in extra} == {name: raw_of(line)[name] for name in extra}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [0, NOW - 1, NOW, NOW + 1, FUTURE])
def test_stamp_of_an_update(name: str, version: int) -> None:
    """An update is stamped later than what it follows and than the clock, and its caller has no say in it."""
    line = create(name, least(name))
    new = update(name, line, {"z": 1, "updated_at": 5}, known=(version, False, line, None))
    assert json.loads(new)["updated_at"] == max(NOW, version + 1)
    assert known_of(name, new)[0] == max(NOW, version + 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [NOW - 1, FUTURE])
def test_tombstone(name: str, version: int) -> None:
    """A deletion is a tombstone that names what it deletes, and is stamped later."""
    key = KINDS[name].key
    row = change.delete(KINDS[name], "x", (version, False, "{}", None), None)
    assert json.loads(row[3]) == {key: "x", "deleted": True, "updated_at": max(NOW, version + 1), "base_at": version}
    assert row[:3] == ("x", max(NOW, version + 1), 1)


@pytest.mark.parametrize("name", NAMES)
def test_end_of_the_range(name: str) -> None:
    """Where the version is the largest there can be, nothing follows it, and the error says so."""
    line = create(name, least(name))
    known = (MAX_STAMP, False, line, None)
    for attempt in (lambda: update(name, line, {"z": 1}, known=known),
                    lambda: change.delete(KINDS[name], "x", known, None),
                    lambda: create(name, least(name), (MAX_STAMP, True, "{}", None))):
        with pytest.raises(InvalidError, match="largest possible") as caught:
            attempt()
        assert caught.value.field == "updated_at"


@pytest.mark.parametrize("name", NAMES)
def test_expected_version(name: str) -> None:
    """A change that expects another version than the newest is a conflict; one that expects the newest is made."""
    line = create(name, least(name))
    known = known_of(name, line)
    assert known[0] == NOW
    for stamp in (NOW - 1, NOW + 1, 0):
        with pytest.raises(ConflictError, match=str(NOW)):
            update(name, line, {"z": 1}, stamp=stamp)
        with pytest.raises(ConflictError):
            change.delete(KINDS[name], "x", known, stamp)
    assert json.loads(update(name, line, {"z": 1}, stamp=NOW))["z"] == 1
    assert change.delete(KINDS[name], "x", known, NOW)[2] == 1


@pytest.mark.parametrize("known", [None, (NOW, True, '{"id":"x","deleted":true,"updated_at":1}', None)])
def test_nothing_to_change(known: Known | None) -> None:
    """What never was or was deleted can be neither updated nor deleted, whatever version is expected."""
    for stamp in (None, NOW, 5):
        with pytest.raises(NotFoundError):
            change.update(KINDS["prd"], "x", {"title": "U"}, known, stamp)
        with pytest.raises(NotFoundError):
            change.delete(KINDS["prd"], "x", known, stamp)


@pytest.mark.parametrize("name", NAMES)
def test_ids_stay(name: str) -> None:
    """An update may name the record's own id and no other."""
    line, key = create(name, least(name)), KINDS[name].key
    assert json.loads(update(name, line, {key: key_of(name)}))[key] == key_of(name)
    with pytest.raises(InvalidError) as caught:
        update(name, line, {key: "y"})
    assert caught.value.field == key


def test_op_belongs_to_its_line() -> None:
    """The `op` of a line is not carried into the next version."""
    line = create("prd", least("prd"))[:-1] + ',"op":"1234","z":1}'
    assert "op" not in raw_of(update("prd", line, {"title": "U"}))


ENDED = ["complete", "failed", "stopped"]
GOING = ["running", "paused"]


@pytest.mark.parametrize("status", [*ENDED, *GOING])
@pytest.mark.parametrize("given_", [None, 77])
def test_completion_on_create(status: str, given_: int | None) -> None:
    """A new execution that has ended has the stamp of its creation as `completed_at`, unless one is given."""
    fields = least("execution", status=status) | ({} if given_ is None else {"completed_at": given_})
    expected = given_ if given_ is not None or status in GOING else NOW
    assert json.loads(create("execution", fields))["completed_at"] == expected


@pytest.mark.parametrize("before", [*ENDED, *GOING])
@pytest.mark.parametrize("after", [*ENDED, *GOING])
def test_completion_on_update(before: str, after: str) -> None:
    """Any status may follow any: ending sets `completed_at` to the stamp of the update, going on empties it."""
    line = create("execution", least("execution", status=before))
    new = json.loads(update("execution", line, {"status": after}, known=(FUTURE, False, line, None)))
    assert new["status"] == after
    assert new["completed_at"] == (FUTURE + 1 if after in ENDED else None)
    other = json.loads(update("execution", line, {"status": after, "completed_at": 77}))
    assert other["completed_at"] == 77


@pytest.mark.parametrize("status", [*ENDED, *GOING])
def test_completion_without_a_status(status: str) -> None:
    """An update that does not set the status leaves `completed_at` alone."""
    line = create("execution", least("execution", status=status))
    before = json.loads(line)["completed_at"]
    assert json.loads(update("execution", line, {"iteration_count": 3}))["completed_at"] == before


@pytest.mark.parametrize("name", ["prd", "task_spec"])
def test_completion_of_other_kinds(name: str) -> None:
    """Only executions have a `completed_at`."""
    line = create(name, least(name, status="complete"))
    assert "completed_at" not in line
    assert "completed_at" not in update(name, line, {"status": "complete"})


def test_dependency_is_resolved_by_an_update() -> None:
    """An updated dependency carries `updated_at` behind its other keys, which is its version from then on."""
    line = create("dependency", least("dependency"))
    new = update("dependency", line, {"resolved_at": FUTURE})
    assert list(json.loads(new)) == [*EXPECTED["dependency"].fields, "updated_at", "base_at"]
    assert known_of("dependency", new)[0] == NOW + 1


# JSON Schema


_ANNOTATIONS = {"$schema", "$defs", "title", "description", "default", "additionalProperties"}
_JSON_TYPES = {"string": str, "integer": int, "object": dict, "array": list, "null": type(None)}


def fits(schema: Mapping[str, Any], value: Any, definitions: Mapping[str, Any]) -> bool:
    """Whether `value` is valid under the keywords that our schemas use; an unknown keyword is an error."""
    rules: dict[str, Callable[[Any], bool]] = {
        "$ref": lambda to: fits(definitions[to.removeprefix("#/$defs/")], value, definitions),
        "anyOf": lambda parts: any(fits(part, value, definitions) for part in parts),
        "type": lambda name: isinstance(value, _JSON_TYPES[name]) and not isinstance(value, bool),
        "enum": lambda words: value in words,
        "minimum": lambda bound: not isinstance(value, int) or value >= bound,
        "maximum": lambda bound: not isinstance(value, int) or value <= bound,
        "required": lambda names: not isinstance(value, dict) or set(names) <= set(value),
        "properties": lambda parts: not isinstance(value, dict) or all(
            fits(parts[name], part, definitions) for name, part in value.items() if name in parts),
        "items": lambda each: not isinstance(value, list) or all(fits(each, part, definitions) for part in value),
    }
    return all(rules[keyword](argument) for keyword, argument in schema.items() if keyword not in _ANNOTATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_schema(name: str) -> None:
    """A kind's JSON Schema has its keys in order, its required ones, all its words, and lets unknown keys be."""
    schema: dict[str, Any] = records.json_schema(KINDS[name])
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert list(schema["properties"]) == [*EXPECTED[name].fields, *EXPECTED[name].optional]
    assert set(schema["required"]) == set(EXPECTED[name].least) - {"id"}
    assert schema["additionalProperties"] is True
    for field, words in EXPECTED[name].enums.items():
        reference = schema["properties"][field]["$ref"].removeprefix("#/$defs/")
        assert sorted(schema["$defs"][reference]["enum"]) == sorted(words)
    assert set(re.findall(r"#/\$defs/(\w+)", json.dumps(schema))) == set(schema.get("$defs", {}))


@pytest.mark.parametrize("name", NAMES)
def test_schema_agrees_with_the_checks(name: str) -> None:
    """The JSON Schema holds for lines that are written and for none with a value that is refused."""
    schema: dict[str, Any] = records.json_schema(KINDS[name])
    definitions = schema.get("$defs", {})
    lines = [create(name, least(name)), create(name, least(name, z=[1], **{
        field: words[-1] for field, words in EXPECTED[name].enums.items()}))]
    lines += [update(name, line, {"y": None}) for line in lines]
    for line in map(json.loads, lines):
        assert fits(schema, line, definitions)
        for field, value in wrong_values(name):
            assert not fits(schema, {**line, field: value}, definitions), (field, value)


# Typed records


def full(name: str) -> records.Record:
    """A typed record with something in every field."""
    values: Fields = {}
    for field in (*EXPECTED[name].fields, *EXPECTED[name].optional):
        if field in EXPECTED[name].limits:
            values[field] = 7
        elif field in EXPECTED[name].enums:
            values[field] = EXPECTED[name].enums[field][-1]
        else:
            values[field] = ["a", "b"] if field == "depends_on" else f"{field} ü"
    record = msgspec.convert(values, records.TYPES[name])
    record.extra = {"z": [1.5, {"a": None}], "kind": "x"}
    return record


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name: str) -> None:
    """A typed record written and read again is the same but for the store's stamp."""
    record: Any = full(name)
    line = create(name, records.to_fields(record))
    again: Any = records.from_line(type(record), line)
    assert type(again) is type(record)
    assert again.updated_at == (None if name == "dependency" else NOW)
    again.updated_at = record.updated_at
    assert again == record
    assert all(isinstance(getattr(again, field), StrEnum) for field in EXPECTED[name].enums)


@pytest.mark.parametrize("name", NAMES)
def test_fields_of_an_empty_record(name: str) -> None:
    """What a new typed record leaves open (id, stamps, depends_on) is left to the store."""
    bare = {field: value for field, value in EXPECTED[name].least.items() if field != "id"}
    fields = records.to_fields(msgspec.convert(bare, records.TYPES[name]))
    assert not {"id", "created_at", "started_at", "updated_at", "completed_at", "resolved_at", "depends_on",
                "extra"} & set(fields)
    assert create(name, {**fields, KINDS[name].key: key_of(name)}) == create(name, least(name))


def test_stamps_of_a_typed_record() -> None:
    """A stamp other than 0 on a typed record is taken, but for `updated_at`."""
    record = records.Execution(ts_id="t", id="x", started_at=5, completed_at=6, updated_at=7)
    line = json.loads(create("execution", records.to_fields(record)))
    assert (line["started_at"], line["completed_at"], line["updated_at"]) == (5, 6, NOW)


def test_old_workflow_line() -> None:
    """An old workflow line's `content` is read as the code, and stays with `version` among the unknown fields."""
    line = '{"id":"w","name":"n","version":"1.0","content":"awl","created_at":1,"updated_at":2}'
    workflow = records.from_line(records.Workflow, line)
    assert (workflow.awl_code, workflow.description) == ("awl", "")
    assert workflow.extra == {"version": "1.0", "content": "awl"}
    both = records.from_line(records.Workflow, line[:-1] + ',"awl_code":"new"}')
    assert both.awl_code == "new"
    new = change.update(KINDS["workflow"], "w", {"description": "d"}, (2, False, line, None), None)[3]
    assert raw_of(new)["content"] == b'"awl"'
    assert raw_of(new)["version"] == b'"1.0"'
    assert records.from_line(records.Workflow, new).awl_code == "awl"


@pytest.mark.parametrize(("line", "expected"), [
    ('{"id":"x","title":"T","description":null,"status":null,"review_passes":null,"created_at":null}',
     records.Prd(title="T", id="x")),
    ('{"id":"x","title":"T"}', records.Prd(title="T", id="x")),
    ('{"title":"T","id":"x","z":1.10,"extra":2}', records.Prd(title="T", id="x", extra={"z": 1.1, "extra": 2})),
])
def test_lenient_reading(line: str, expected: records.Prd) -> None:
    """A line of another tool that lacks fields, or holds null for them, is read with the defaults."""
    assert records.from_line(records.Prd, line) == expected


@pytest.mark.parametrize(("line", "field"), [
    ('{"id":"x","title":1}', "title"), ('{"id":"x"}', "title"), ('{"id":"x","title":null}', "title"),
    ('{"id":"x","title":"T","status":"ACTIVE"}', "status"),
    ('{"id":"x","title":"T","review_passes":256}', "review_passes"),
    ('{"id":"x","title":"T","created_at":-1}', "created_at"),
])
def test_lines_outside_their_types(line: str, field: str) -> None:
    """A line of another tool whose values do not fit is no typed record, and the error says where."""
    with pytest.raises(InvalidError, match=field) as caught:
        records.from_line(records.Prd, line)
    assert caught.value.message.startswith("x: ")


# Importing


@pytest.mark.parametrize("name", NAMES)
def test_import_keeps_stamps(name: str) -> None:
    """An imported line keeps its own stamps, and one that is there already, or older, is not written again."""
    kind: Kind = KINDS[name]
    stamp = "updated_at"
    fields = least(name, **{kind.started: 3, stamp: 5, "z": 1})
    row = change.bring_in(kind, fields, None)
    assert row is not None
    assert json.loads(row[3]) == fields
    assert row[1] == 5
    assert change.bring_in(kind, fields, (5, False, row[3], None)) is None
    assert change.bring_in(kind, fields, (6, True, "{}", None)) is None
    assert change.bring_in(kind, fields, (4, False, "{}", None)) == row


@pytest.mark.parametrize(("fields", "field"), [
    ({"status": "nope"}, "status"), ({"updated_at": -1}, "updated_at"), ({"updated_at": 2**53 + 1}, "updated_at"),
    ({"review_passes": 256}, "review_passes"), ({"z": math.nan}, "z"), ({"id": "a\nb"}, "id"),
])
def test_import_checks_values(fields: Fields, field: str) -> None:
    """An imported line's values are held to the same types."""
    with pytest.raises(InvalidError) as caught:
        change.bring_in(KINDS["prd"], least("prd", **fields), None)
    assert caught.value.field == field
