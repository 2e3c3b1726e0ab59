"""Lists: what a filter finds, in which order, and that pages neither repeat nor hide a record."""

import contextlib
import functools
import json
import math
import os
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskstore_core import query
from taskstore_core.errors import InvalidError
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from taskstore_core.cache import Cache

PRD = KINDS["prd"]

Record = dict[str, Any]


class Lists:
    """A store whose log of PRDs holds just the records that a test gives it."""

    def __init__(self, root: str) -> None:
        self.store, _ = Store.create(root)
        self._path = self.store.paths.file(PRD.log)

    def put(self, *records: "Record | str") -> None:
        with open(f"{self._path}.new", "w", encoding="utf-8") as file:
            file.writelines(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records)
        os.replace(f"{self._path}.new", self._path)

    def find(self, where: "Mapping[str, object] | None" = None, **options: Any) -> list[str]:
        """The ids that a list gives."""
        return [json.loads(raw)["id"] for raw in self.store.find(PRD, where, **options)[0]]

    def page(self, where: "Mapping[str, object] | None" = None, **options: Any) -> tuple[list[str], str | None]:
        """The ids of one page, and its cursor."""
        lines, cursor = self.store.find(PRD, where, **options)
        return [json.loads(raw)["id"] for raw in lines], cursor

    def pages(self, limit: int, **options: Any) -> list[str]:
        """The ids of all pages, each asked for by the cursor of the one before."""
        found, cursor = self.page(limit=limit, **options)
        while cursor is not None:
            more, cursor = self.page(limit=limit, cursor=cursor, **options)
            assert more
            found += more
        return found


@pytest.fixture(name="lists")
def fixture_lists(tmp_path: "Path") -> "Iterator[Lists]":
    lists = Lists(str(tmp_path))
    with lists.store:
        yield lists


# What SQLite makes of JSON, in plain Python


def cell(record: Record, field: str) -> Any:
    """What a list compares: a missing field is null, true and false are numbers, lists and objects are text."""
    value = record.get(field)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(value)
    return value


def compared(a: Any, b: Any) -> int:
    """Numbers come before text; null is not compared."""
    if isinstance(a, str) != isinstance(b, str):
        return 1 if isinstance(a, str) else -1
    return int(a > b) - int(a < b)


TESTS: "dict[str, Callable[[Any, Any], bool]]" = {
    "eq": lambda a, b: a is b is None or (None not in {a, b} and compared(a, b) == 0),
    "ne": lambda a, b: not TESTS["eq"](a, b),
    "gt": lambda a, b: None not in {a, b} and compared(a, b) > 0,
    "ge": lambda a, b: None not in {a, b} and compared(a, b) >= 0,
    "lt": lambda a, b: None not in {a, b} and compared(a, b) < 0,
    "le": lambda a, b: None not in {a, b} and compared(a, b) <= 0,
}


def fits(record: Record, where: "Mapping[str, Mapping[str, Any]]") -> bool:
    """Whether every condition holds for a record."""
    for field, tests in where.items():
        for operator, wanted in tests.items():
            if operator == "in":
                held = any(value is not None and TESTS["eq"](cell(record, field), value) for value in wanted)
            elif operator == "contains":
                value = record.get(field)
                held = wanted is not None and str(wanted) in value if isinstance(value, str) else (
                    isinstance(value, list) and any(TESTS["eq"](item, wanted) for item in value))
            else:
                held = TESTS[operator](cell(record, field), int(wanted) if isinstance(wanted, bool) else wanted)
            if not held:
                return False
    return True


def place(record: Record, order: str) -> tuple[Any, str]:
    return cell(record, order.removeprefix("-")), record["id"]


def before(order: str, a: tuple[Any, str], b: tuple[Any, str]) -> int:
    """Negative if the place `a` comes first: nulls come last either way, ids decide between equals."""
    if (a[0] is None) != (b[0] is None):
        return 1 if a[0] is None else -1
    answer = compared(a[0], b[0]) if a[0] is not None else 0
    answer = answer or compared(a[1], b[1])
    return -answer if order.startswith("-") else answer


def expected(records: "list[Record]", where: "Mapping[str, Mapping[str, Any]]", order: str,
             after: tuple[Any, str] | None = None) -> list[Record]:
    """The list in plain Python, behind a place if one is given."""
    by_place = functools.cmp_to_key(functools.partial(before, order))
    found = sorted((record for record in records if fits(record, where)),
                   key=lambda record: by_place(place(record, order)))
    return [record for record in found if after is None or before(order, after, place(record, order)) < 0]


# Properties


TEXT = st.one_of(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=3),
                 st.sampled_from(["a", "ab", "b", "B", "", "10", "9"]))
NUMBERS = st.one_of(st.integers(-3, 3), st.integers(-2**70, 2**70), st.floats(allow_nan=False, allow_infinity=False),
                    st.sampled_from([0.0, -0.0, 1.0, 0.1, 2**53, 2**53 + 1, 2.0**53, 2**63, 1e300]))
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
MEMBERS = st.none() | st.integers(-3, 3) | TEXT
ANYTHING = SCALARS | st.lists(MEMBERS, max_size=3)
STATUSES = st.sampled_from(["draft", "ready", "active"])
STAMPS = st.integers(0, 6)
RECORDS = st.fixed_dictionaries(
    {"created_at": STAMPS},
    optional={"status": STATUSES, "title": TEXT, "review_passes": st.none() | NUMBERS, "x": ANYTHING,
              "a b.c": ANYTHING, "tags": TEXT | st.none() | st.booleans() | st.lists(MEMBERS, max_size=3)})
ORDERS = st.sampled_from([sign + name for sign in ("", "-") for name in (
    "created_at", "status", "title", "review_passes", "x", "a b.c", "id", "no such field")])
COMPARABLE = NUMBERS.filter(lambda value: not isinstance(value, int) or abs(value) < 2**63) | TEXT | st.none()
WHERE = st.fixed_dictionaries({}, optional={
    "status": st.dictionaries(st.sampled_from(["eq", "ne", "gt", "le"]), STATUSES | st.none(), max_size=2)
    | st.fixed_dictionaries({"in": st.lists(STATUSES, max_size=3)}),
    "title": st.dictionaries(st.sampled_from(sorted(TESTS)), COMPARABLE, max_size=2)
    | st.fixed_dictionaries({"contains": TEXT}),
    "created_at": st.dictionaries(st.sampled_from(sorted(TESTS)), STAMPS | st.none(), max_size=2),
    "x": st.dictionaries(st.sampled_from(sorted(TESTS)), COMPARABLE | st.booleans(), max_size=2)
    | st.fixed_dictionaries({"in": st.lists(COMPARABLE, max_size=3)}),
    "tags": st.fixed_dictionaries({"contains": MEMBERS}),
    "a b.c": st.dictionaries(st.sampled_from(sorted(TESTS)), COMPARABLE, max_size=2),
    "id": st.dictionaries(st.sampled_from(sorted(TESTS)), TEXT, max_size=2)})
LOGS = st.dictionaries(st.sampled_from([*"abcdefgh", "é", "A", "10", "9"]), RECORDS, max_size=10).map(
    lambda found: [{"id": key, "updated_at": 1, **record} for key, record in found.items()])


@pytest.fixture(name="shared", scope="module")
def fixture_shared() -> "Iterator[Lists]":
    """One store for all examples of a property; each gives it a log of its own."""
    with tempfile.TemporaryDirectory() as folder:
        lists = Lists(folder)
        with lists.store:
            yield lists


@settings(max_examples=150, deadline=None)
@given(records=LOGS, where=WHERE, order=ORDERS)
def test_a_list_is_what_plain_python_makes_of_the_records(
    shared: Lists, records: list[Record], where: "dict[str, dict[str, Any]]", order: str,
) -> None:
    """Filter and order give just the records that fit, nulls last and ids deciding between equals."""
    shared.put(*records)
    assert shared.find(where, order=order) == [record["id"] for record in expected(records, where, order)]


CHANGES = st.lists(st.tuples(st.sampled_from("abcdefghij"), RECORDS | st.none()), max_size=3)


@settings(max_examples=120, deadline=None)
@given(records=LOGS, listed=st.tuples(WHERE, ORDERS, st.integers(1, 4)), changes=st.lists(CHANGES, max_size=6))
def test_pages_go_on_behind_the_last_record(
    shared: Lists, records: list[Record], listed: "tuple[dict[str, dict[str, Any]], str, int]",
    changes: "list[list[tuple[str, Record | None]]]",
) -> None:
    """While records come, go and change between pages, each page is exactly what follows the last record's place."""
    where, order, limit = listed
    live = {record["id"]: record for record in records}
    shared.put(*live.values())
    after = cursor = None
    steps = iter(changes)
    while True:
        page = expected(list(live.values()), where, order, after)
        ids, cursor = shared.page(where, order=order, limit=limit, cursor=cursor)
        assert ids == [record["id"] for record in page[:limit]]
        assert (cursor is not None) == (len(page) > limit)
        if cursor is None:
            break
        after = place(page[limit - 1], order)
        for key, record in next(steps, []):
            if record is None:
                live.pop(key, None)
            else:
                live[key] = {"id": key, "updated_at": 1, **record}
        shared.put(*live.values())


@settings(max_examples=60, deadline=None)
@given(records=LOGS, order=ORDERS, limit=st.integers(1, 5))
def test_pages_make_up_the_list(shared: Lists, records: list[Record], order: str, limit: int) -> None:
    """Where nothing changes, the pages of any size are the whole list, each record once."""
    shared.put(*records)
    assert shared.pages(limit, order=order) == shared.find(order=order)


# Tables


A = {"id": "a", "updated_at": 1, "created_at": 3, "status": "draft", "title": "one", "tags": ["x", 1, None, True]}
B = {"id": "b", "updated_at": 1, "created_at": 2, "status": "ready", "title": "two", "tags": "x and y", "n": 1}
C = {"id": "c", "updated_at": 1, "created_at": 1, "title": None, "n": 2.5, "tags": {"k": "x", "x": "k"}}
D = {"id": "d", "updated_at": 1, "created_at": 2, "status": "no such", "n": "1", "tags": []}
E = {"id": "e", "updated_at": 1, "created_at": 9, "deleted": True}


@pytest.mark.parametrize(("where", "ids"), [
    ({}, "cbda"), (None, "cbda"),
    ({"status": "draft"}, "a"), ({"status": None}, "c"), ({"status": {"ne": "draft"}}, "cbd"),
    ({"status": {"in": ["draft", "ready"]}}, "ba"), ({"status": {"in": []}}, ""),
    ({"title": "two"}, "b"), ({"title": None}, "cd"), ({"title": {"ne": None}}, "ba"), ({"title": "ONE"}, ""),
    ({"created_at": 2}, "bd"), ({"created_at": {"gt": 1, "lt": 3}}, "bd"), ({"created_at": {"ge": 2}}, "bda"),
    ({"created_at": {"le": 2}, "status": "ready"}, "b"), ({"created_at": {"gt": None}}, ""),
    ({"n": 1}, "b"), ({"n": "1"}, "d"), ({"n": True}, "b"), ({"n": {"gt": 1}}, "cd"), ({"n": {"lt": "1"}}, "cb"),
    ({"n": {"in": [1, "1"]}}, "bd"), ({"n": None}, "a"), ({"no such field": None}, "cbda"),
    ({"no such field": {"ne": None}}, ""), ({"id": "a"}, "a"), ({"id": {"gt": "b"}}, "cd"),
    ({"tags": {"contains": "x"}}, "cba"), ({"tags": {"contains": " and "}}, "b"), ({"tags": {"contains": 1}}, "a"),
    ({"tags": {"contains": None}}, "a"), ({"tags": {"contains": "X"}}, ""), ({"title": {"contains": "o"}}, "ba"),
    ({"title": {"contains": "%"}}, ""), ({"status": "draft", "title": "two"}, ""), ({"status": {}}, "cbda"),
])
def test_filters(lists: Lists, where: "dict[str, object] | None", ids: str) -> None:
    """Each operator on each sort of field, known or not, finds the records that the table names; no deleted one."""
    lists.put(A, B, C, D, E)
    assert lists.find(where) == list(ids)


@pytest.mark.parametrize(("order", "ids"), [
    (None, "cbda"), ("created_at", "cbda"), ("-created_at", "adbc"), ("id", "abcd"), ("-id", "dcba"),
    ("status", "adbc"), ("-status", "bdac"), ("n", "bcda"), ("-n", "dcba"), ("title", "abcd"), ("-title", "badc"),
    ("updated_at", "abcd"), ("-updated_at", "dcba"), ("no such field", "abcd"), ("-no such field", "dcba"),
])
def test_orders(lists: Lists, order: str | None, ids: str) -> None:
    """A list is in the order of a field, or of when records began; nulls last either way, ids between equals."""
    lists.put(D, C, B, A)
    assert lists.find(order=order) == list(ids)
    assert lists.pages(1, order=order) == lists.pages(3, order=order) == list(ids)


@pytest.mark.parametrize("name", [
    "a.b", "a b", "$", "[0]", "a[0]", "ä", "日本", "'", "a'b", "#", "-x", "a\nb", "\u2028",
    "x'); DROP TABLE prds_rows; --", "id2", "o", "raw", "version", "rowid"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_field_of_any_name(lists: Lists, name: str, *, ascii_only: bool) -> None:
    """A field nobody knows is found, compared and ordered by under its name, whatever that holds."""
    records: list[Record] = [{"id": "p", name: "2"}, {"id": "q", name: "1"}, {"id": "r"}]
    lists.put(*(json.dumps(record, ensure_ascii=ascii_only) for record in records))
    assert lists.find({name: "2"}) == ["p"]
    assert lists.find({name: {"contains": "1"}}) == ["q"]
    assert lists.find({name: None}) == ["r"]
    assert lists.find(order=f"-{name}") == ["p", "q", "r"]
    assert lists.pages(1, order=name) == (["q", "p", "r"] if not name.startswith("-") else ["r", "q", "p"])


def test_the_columns_of_the_cache_are_no_fields(lists: Lists) -> None:
    """The table's own columns (raw, version, deleted, rowid) cannot be asked for: they are fields nobody has."""
    lists.put(A, B, C, D, E)
    for name in ("raw", "version", "rowid", "_rowid_", "oid"):
        assert lists.find({name: {"ne": None}}) == []
    assert lists.find({"deleted": True}) == []


def test_the_key_of_a_repo_state(tmp_path: "Path") -> None:
    """A kind whose key is not called id is filtered and paged by that key."""
    with Store.create(str(tmp_path))[0] as store:
        with open(store.paths.file("repo_state.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(f'{{"repo_path":"/{n}","last_synced_commit":"c","updated_at":{n % 2}}}\n' for n in range(5))
        where = {"repo_path": {"ge": "/1"}}
        lines, cursor = store.find("repo_state", where, order="-repo_path", limit=2)
        assert [json.loads(line)["repo_path"] for line in lines] == ["/4", "/3"]
        lines, cursor = store.find("repo_state", where, order="-repo_path", limit=2, cursor=cursor)
        assert [json.loads(line)["repo_path"] for line in lines] == ["/2", "/1"]
        assert cursor is None
        lines, cursor = store.find("repo_state", limit=3)
        assert [json.loads(line)["repo_path"] for line in lines] == ["/0", "/2", "/4"]


def test_numbers_beyond_every_type(lists: Lists) -> None:
    """Numbers that only fit a double, or none, are ordered by size and paged by it."""
    values = ["-1e400", "-1e300", str(-2**64), "-1", "0", "0.5", "1", str(2**63 - 1), str(2**64), "1e300", "1e400"]
    lists.put(*(f'{{"id":"{chr(97 + n)}","updated_at":1,"x":{value}}}' for n, value in enumerate(values)))
    ids = [chr(97 + n) for n in range(len(values))]
    assert lists.find(order="x") == ids
    assert lists.pages(1, order="x") == lists.pages(2, order="x") == ids
    assert lists.pages(1, order="-x") == ids[::-1]


def test_a_line_that_only_just_is_json(lists: Lists) -> None:
    """One record with the oddest text that is still JSON spoils no list of the others."""
    odd = ['{"id":"b","updated_at":1,"title":"\\u0000","x":"\\ud83d\\ude00\\/\\b"}',
           '{ "id" :\t"c" , "updated_at" : 1 , "\\u0074itle" : "escaped" , "x" : -0.0e-0 }',
           '{"id":"d","updated_at":1,"x":' + "[" * 400 + "]" * 400 + "}",
           '{"id":"e","updated_at":1,"x":1e400,"title":"' + "\u2028\x7f\ufeff" + '"}', '{"id":"f"}']
    lists.put(A, *odd)
    assert len(lists.find(order="title")) == len(lists.find(order="x")) == 6
    assert lists.find({"title": "escaped"}) == ["c"]
    assert sorted(lists.find({"x": {"ne": None}})) == ["b", "c", "d", "e"]


# Limits, cursors and what makes no sense


@pytest.mark.parametrize(("limit", "pages"), [(1, 4), (3, 2), (4, 1), (5, 1), (2**31 - 1, 1)])
def test_limits(lists: Lists, limit: int, pages: int) -> None:
    """A list that fits its limit has no cursor; one that does not has as many pages as it takes."""
    lists.put(A, B, C, D)
    cursor, count = None, 0
    while cursor is not None or not count:
        ids, cursor = lists.page(limit=limit, cursor=cursor)
        count += 1
        assert 0 < len(ids) <= limit
    assert count == pages


def explained(wanted: query.Query, cache: "Cache") -> list[str]:
    """The steps that SQLite takes for a query."""
    return [str(row[3]) for row in cache.db.execute(f"EXPLAIN QUERY PLAN {wanted.sql}", wanted.parameters)]


@pytest.mark.parametrize("order", ["created_at", "-created_at"])
def test_a_page_by_status_is_read_off_the_index(lists: Lists, order: str) -> None:
    """Its place in the order of age is looked up: no page sorts, or reads the records that come before it."""
    plans = []
    for cursor in (None, query.encode_cursor(order, 5, "prd-5"), query.encode_cursor(order, None, "prd-5")):
        wanted = query.build(PRD, {"status": "active"}, order, 3, cursor)
        plans.append(lists.store.ask(functools.partial(explained, wanted)))
    seen = [step.partition(" INDEX prds_status ")[2] for plan in plans for step in plan if " prds_rows " in step]
    sign = "<" if order.startswith("-") else ">"
    assert seen == ["(status=?)", f"(status=? AND (created_at,id){sign}(?,?))", "(status=? AND created_at=?)",
                    f"(status=? AND created_at=? AND id{sign}?)"]
    assert "TEMP B-TREE" not in "".join(plans[0] + plans[2])


def test_without_a_limit_there_is_no_cursor(lists: Lists) -> None:
    """All records come at once where no limit is given, behind a cursor too."""
    lists.put(A, B, C, D)
    _, cursor = lists.page(limit=1)
    assert lists.page() == (["c", "b", "d", "a"], None)
    assert lists.page(cursor=cursor) == (["b", "d", "a"], None)


def test_a_cursor_whose_record_is_gone(lists: Lists) -> None:
    """The list goes on at the same place when the record that the cursor names was deleted or moved."""
    lists.put(A, B, C, D)
    _, cursor = lists.page(limit=2)
    lists.put(A, C, D)
    assert lists.find(cursor=cursor) == ["d", "a"]
    lists.put(A, {**B, "created_at": 99}, C, D)
    assert lists.find(cursor=cursor) == ["d", "a", "b"]


def hexed(value: object) -> str:
    return json.dumps(value).encode().hex()


NONSENSE: "list[tuple[dict[str, Any], str]]" = [
    ({"where": {"status": "no such"}}, "status"),
    ({"where": {"status": {"ne": "no such"}}}, "status"),
    ({"where": {"status": {"in": ["draft", "no such"]}}}, "status"),
    ({"where": {"status": 5}}, "status"),
    ({"where": {"title": {"like": "x"}}}, "title"),
    ({"where": {"title": {"": "x"}}}, "title"),
    ({"where": {"title": {"eq ": "x"}}}, "title"),
    ({"where": {"title": {"in": "abc"}}}, "title"),
    ({"where": {"title": {"in": None}}}, "title"),
    ({"where": {"title": {"in": {"a": 1}}}}, "title"),
    ({"where": {"title": {"in": [["a"]]}}}, "title"),
    ({"where": {"title": ["a"]}}, "title"),
    ({"where": {"title": {"eq": ["a"]}}}, "title"),
    ({"where": {"title": {"gt": {}}}}, "title"),
    ({"where": {"title": {"contains": ["a"]}}}, "title"),
    ({"where": {"title": 2**63}}, "title"),
    ({"where": {"title": -2**63 - 1}}, "title"),
    ({"where": {"title": {"contains": 2**70}}}, "title"),
    ({"where": {"title": "\ud800"}}, "title"),
    ({"where": {"title": {"in": ["\ud800"]}}}, "title"),
    ({"where": {"title": {"contains": "\udc00"}}}, "title"),
    ({"where": {"": 1}}, ""),
    ({"where": {'a"b': 1}}, 'a"b'),
    ({"where": {"a\\b": 1}}, "a\\b"),
    ({"where": {"a\0b": 1}}, "a\0b"),
    ({"where": {'a"b': {"contains": 1}}}, 'a"b'),
    ({"where": {"": {"contains": 1}}}, ""),
    ({"order": "-"}, ""),
    ({"order": 'a"b'}, 'a"b'),
    ({"order": "-a\0b"}, "a\0b"),
    ({"limit": 0}, "limit"),
    ({"limit": -1}, "limit"),
    ({"limit": 2**31}, "limit"),
    ({"limit": 10**30}, "limit"),
    ({"limit": True}, "limit"),
    ({"limit": "5"}, "limit"),
    ({"limit": 1.5}, "limit"),
    ({"cursor": ""}, "cursor"),
    ({"cursor": "zz"}, "cursor"),
    ({"cursor": "0"}, "cursor"),
    ({"cursor": "é"}, "cursor"),
    ({"cursor": "00"}, "cursor"),
    ({"cursor": "ff"}, "cursor"),
    ({"cursor": hexed(5)}, "cursor"),
    ({"cursor": hexed("created_at")}, "cursor"),
    ({"cursor": hexed(["created_at"])}, "cursor"),
    ({"cursor": hexed(["created_at", 1])}, "cursor"),
    ({"cursor": hexed(["created_at", 1, "a", 2])}, "cursor"),
    ({"cursor": hexed(["created_at", 1, 2])}, "cursor"),
    ({"cursor": hexed(["created_at", 1, None])}, "cursor"),
    ({"cursor": hexed(["created_at", [1], "a"])}, "cursor"),
    ({"cursor": hexed(["created_at", {}, "a"])}, "cursor"),
    ({"cursor": hexed(["created_at", 2**70, "a"])}, "cursor"),
    ({"cursor": hexed(["created_at", "\ud800", "a"])}, "cursor"),
    ({"cursor": hexed(["created_at", 1, "\ud800"])}, "cursor"),
    ({"cursor": hexed(["-created_at", 1, "a"])}, "cursor"),
    ({"cursor": hexed(["title", 1, "a"])}, "cursor"),
    ({"cursor": hexed({"a": 1, "b": 2, "c": 3})}, "cursor"),
    ({"cursor": (b"[" * 100_000).hex()}, "cursor"),
]


@pytest.mark.parametrize(("arguments", "field"), NONSENSE, ids=lambda value: repr(value)[:40])
def test_what_makes_no_sense_is_refused_by_name(lists: Lists, arguments: dict[str, Any], field: str) -> None:
    """A filter, order, limit or cursor that means nothing is an `invalid` error that names the field, every time."""
    lists.put(A, B)
    with pytest.raises(InvalidError) as caught:
        lists.store.find(PRD, **arguments)
    assert caught.value.field == field
    assert caught.value.message.isprintable()
    assert caught.value.message.isascii()
    assert lists.find() == ["b", "a"]


def test_a_number_that_is_none_is_refused(lists: Lists) -> None:
    """NaN cannot be compared with, which would otherwise find what is null."""
    lists.put(A, B)
    with pytest.raises(InvalidError):
        lists.find({"n": math.nan})


@pytest.mark.parametrize("where", [
    {"id": {"in": [f"x{n}" for n in range(40_000)]}},
    {f"field {n}": None for n in range(2500)},
    {"title": [{"ne": f"x{n}"} for n in range(40_000)]},
], ids=["in", "fields", "conditions"])
def test_a_filter_too_large_for_sqlite_is_refused(lists: Lists, where: "dict[str, object]") -> None:
    """A filter of more parts than SQLite takes is an `invalid` error, or is answered, and costs nobody the cache."""
    lists.put(A, B)
    assert lists.find() == ["b", "a"]
    cache = os.stat(lists.store.paths.file("store.db")).st_ino
    with contextlib.suppress(InvalidError):
        assert len(lists.find(where)) in {0, 2}
    assert os.stat(lists.store.paths.file("store.db")).st_ino == cache


def test_a_cursor_of_one_order_is_not_taken_in_another(lists: Lists) -> None:
    """Turning the order round with an old cursor is refused instead of answered wrongly."""
    lists.put(A, B, C, D)
    _, cursor = lists.page(limit=1, order="title")
    for order in ("-title", "created_at", None):
        with pytest.raises(InvalidError, match="belongs to a list in another order"):
            lists.page(limit=1, order=order, cursor=cursor)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_field_of_every_kind_can_be_asked_for(tmp_path: "Path", kind: Any) -> None:
    """Each field of each kind, optional ones too, serves in a filter, an order and a cursor."""
    with Store.create(str(tmp_path))[0] as store:
        with open(store.paths.file(kind.log), "w", encoding="utf-8") as file:
            file.writelines(json.dumps({kind.key: key, "updated_at": 1}) + "\n" for key in "ab")
        for name in (*kind.fields, *kind.optional_keys, "unknown"):
            word = kind.enums.get(name, ("x",))[0]
            assert len(store.find(kind, {name: {"ne": word}}, order=name)[0]) == 2
            (_,), cursor = store.find(kind, order=f"-{name}", limit=1)
            assert len(store.find(kind, order=f"-{name}", limit=1, cursor=cursor)[0]) == 1


def test_building_is_pure() -> None:
    """A query is text with parameters: values never stand in the SQL."""
    built = query.build(PRD, {"title": "'; DROP TABLE x; --", "u": {"in": ["a", "b"]}}, "-u", 5,
                        query.encode_cursor("-u", "looked for", "key"))
    assert "DROP" not in built.sql
    assert "looked for" not in built.sql
    assert built.sql.count("?") == len(built.parameters)
    assert built.limit == 5
