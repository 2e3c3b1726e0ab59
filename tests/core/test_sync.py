"""Sync: whatever happens to a log, the cache says what a rebuild and the rule of the format say of it."""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskstore_core import chunks, difference, jsonl, signature, source, sync
from taskstore_core.batch import Operation
from taskstore_core.cache import Cache, Checkpoint
from taskstore_core.jsonl import index_or_error
from taskstore_core.kinds import KINDS, Kind
from taskstore_core.log import Log
from taskstore_core.source import Source
from taskstore_core.store import Store
from taskstore_core.sync import sync_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from taskstore_core.signature import Signature
    from taskstore_core.sync import LogReport

PRD = KINDS["prd"]
SPEC = KINDS["task_spec"]

State = dict[str, tuple[int, bool, str]]


def record(key: str, version: int, **fields: object) -> bytes:
    return json.dumps({"id": key, "updated_at": version, **fields}, ensure_ascii=False).encode()


def text(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def write(path: str, data: bytes) -> None:
    """Replace a file the way git does: unlink and create."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "wb") as file:
        file.write(data)


def rows(cache: Cache, kind: Kind) -> State:
    found = cache.db.execute(f"SELECT id, version, deleted, raw FROM {kind.plural}_rows")  # noqa: S608 - our own names
    return {key: (version, bool(deleted), raw) for key, version, deleted, raw in found}


def bring_level(cache: Cache, kind: Kind, path: str, *, full: bool = False,
                sealed: "tuple[Signature, Signature] | None" = None) -> "LogReport":
    with cache.db:
        report = sync_log(cache, kind, path, full=full, sealed=sealed)
    return report  # noqa: RET504 - for all mypy knows, the `with` may swallow an exception


def checkpoint(cache: Cache, kind: Kind) -> Checkpoint:
    point = cache.checkpoint(kind)
    assert point is not None
    return point


class Meaning(NamedTuple):
    """What the format says of the bytes of a log, worked out line by line in plain Python."""

    state: State
    lines: int
    bad: list[int]
    offset: int


def meaning_of(data: bytes, key: str = "id") -> Meaning:
    """The rule of the format: the newest version of an id is its state, on equal versions the later line."""
    lines = data.split(b"\n")
    torn = lines.pop()
    if torn and isinstance(_read(torn, key), tuple):
        lines.append(torn)
        torn = b""
    state: State = {}
    bad = []
    for number, line in enumerate(lines, 1):
        match _read(line, key):
            case (str(name), int(version), bool(deleted), str(raw)):
                if name not in state or state[name][0] <= version:
                    state[name] = (version, deleted, raw)
            case "bad":
                bad.append(number)
    return Meaning(state, len(lines), bad, len(data) - len(torn))


def _read(line: bytes, key: str) -> tuple[str, int, bool, str] | str:
    """(id, version, deleted, text) of a line of the few sorts that these tests write, "bad" or "nothing"."""
    try:
        raw = line.decode().strip("\r \ufeff")
        if not raw or raw[:7] in {"<<<<<<<", "=======", ">>>>>>>"}:
            return "nothing"
        match json.loads(raw):
            case {"updated_at": int(version), **values} if values.get(key):
                return str(values[key]), version, values.get("deleted") is True, raw
            case _:
                return "bad"
    except ValueError:
        return "bad"


# The model


RECORDS = st.builds(
    record, st.sampled_from(["a", "b", "c", "d", "é", "a\u2028b"]), st.integers(1, 3),
    title=st.sampled_from(["", "x", "y", "long" * 20]), status=st.sampled_from(["draft", "ready"]))
TOMBSTONES = st.builds(record, st.sampled_from(["a", "b", "c"]), st.integers(1, 3), deleted=st.just(value=True))
OTHERS = st.sampled_from([
    b"", b"", b" ", b"\xef\xbb\xbf", b"<<<<<<< ours", b"=======", b">>>>>>> theirs", b"garbage", b"{", b"\xff\xfe",
    b"[]", b'{"id":"a"', b'{"id":"","updated_at":1}', b'{"id":"a","updated_at":"x"}', b"7", b"\x00"])
PLAIN = st.one_of(RECORDS, RECORDS, RECORDS, RECORDS, TOMBSTONES, OTHERS)
LINES = st.one_of(PLAIN, PLAIN, PLAIN, PLAIN.map(lambda line: line + b"\r"),
                  PLAIN.map(lambda line: b"\xef\xbb\xbf" + line), PLAIN.map(lambda line: b" " + line + b" "))
TAILS = st.one_of(st.just(b""), st.just(b""), LINES, st.builds(
    lambda line, cut: line[:cut], RECORDS, st.integers(1, 40)))
LOGS = st.builds(lambda lines, tail: text(*lines) + tail, st.lists(LINES, max_size=14), TAILS)


class Edit(NamedTuple):
    """What is done to a log, two numbers that tell where, and what is put there."""

    what: str
    at: int
    length: int
    lines: list[bytes]
    tail: bytes


EDITS = st.builds(
    Edit,
    st.sampled_from(["append", "append", "continue", "replace", "replace", "delete", "insert", "insert", "move",
                     "double", "truncate", "cut", "swap", "reverse", "overwrite", "end", "nothing", "own"]),
    st.integers(0, 20), st.integers(0, 4), st.lists(LINES, min_size=1, max_size=4), TAILS)


def edited(data: bytes, edit: Edit) -> bytes:  # noqa: C901, PLR0911, PLR0912 - a table of edits
    whole = data.split(b"\n")
    rest = whole.pop()
    at, count = edit.at % (len(whole) + 1), edit.length
    match edit.what:
        case "append":
            return data + (b"\n" if rest else b"") + text(*edit.lines) + edit.tail
        case "continue":
            return data + edit.tail
        case "replace":
            whole[at:at + count] = edit.lines
        case "delete":
            del whole[at:at + count + 1]
        case "insert":
            whole[at:at] = edit.lines
        case "move":
            moved = whole[at:at + count + 1]
            del whole[at:at + count + 1]
            to = count * 3 % (len(whole) + 1)
            whole[to:to] = moved
        case "double":
            whole += whole[at:at + count + 1]
        case "truncate":
            return text(*whole[:at])
        case "cut":
            return data[:len(data) * count // 5]
        case "swap":
            return text(*edit.lines) + edit.tail
        case "reverse":
            whole.reverse()
        case "overwrite":  # the same size, other bytes
            return data.replace(b'"updated_at": 1', b'"updated_at": 2', count + 1).replace(b'"x"', b'"y"', count)
        case "end":
            return data + (b"\n" if rest else b"")
    return text(*whole) + rest


class Model:
    """A log, its incremental cache, and one that is always rebuilt."""

    def __init__(self, path: str, kind: Kind) -> None:
        self.path = path
        self.kind = kind
        self.data = b""
        self.cache = Cache()
        self.fresh = Cache()

    def put(self, data: bytes, way: str) -> None:
        """Give the file other bytes: in place or as another file."""
        if way == "in place" and os.path.exists(self.path):
            with open(self.path, "r+b") as file:
                file.write(data)
                file.truncate()
        elif way == "append" and data.startswith(self.data) and os.path.exists(self.path):
            with open(self.path, "ab") as file:
                file.write(data[len(self.data):])
        else:
            write(self.path, data)
        self.data = data

    def append_ours(self, lines: list[bytes]) -> "tuple[Signature, Signature] | None":
        """Append the way the store does; the signatures before and after."""
        log = Log(self.path)
        try:
            log.append([line.decode() for line in lines])
            sealed = log.seal()
        finally:
            log.close()
        with open(self.path, "rb") as file:
            self.data = file.read()
        return (log.before, sealed) if sealed else None

    def check(self, report: "LogReport") -> None:
        """Everything the cache holds is what a rebuild makes and what the format says."""
        meaning = meaning_of(self.data, self.kind.key)
        rebuilt = bring_level(self.fresh, self.kind, self.path, full=True)
        assert rows(self.cache, self.kind) == rows(self.fresh, self.kind) == meaning.state
        end, fresh = checkpoint(self.cache, self.kind), checkpoint(self.fresh, self.kind)
        assert (end.offset, end.lines, end.unterminated) == (fresh.offset, fresh.lines, fresh.unterminated)
        assert (end.offset, end.lines) == (meaning.offset, meaning.lines)
        assert [line for line, _ in rebuilt.bad] == meaning.bad
        assert {line for line, _ in report.bad} <= set(meaning.bad)
        assert report.bad_lines == len(report.bad)
        assert self.cache.bad_lines(self.kind) == self.fresh.bad_lines(self.kind) == len(meaning.bad)
        self.check_chunks()

    def check_chunks(self) -> None:
        """The chunks lie side by side on the bytes taken in, on line ends, and describe every line."""
        known, fresh = list(self.cache.chunks(self.kind)), list(self.fresh.chunks(self.kind))
        positions = [chunk.position for chunk in known]
        assert positions == sorted(set(positions))
        start = 0
        for chunk in known:
            assert 0 < chunk.lines <= chunks.LINES
            part = self.data[start:start + chunk.bytes]
            lines = part.removesuffix(b"\n").split(b"\n")
            assert len(lines) == chunk.lines
            answers = [index_or_error(self.kind, line) for line in lines]
            assert chunk.ids.split("\0") == list(map(chunks.id_of, answers))
            assert chunk.bad == sum(isinstance(answer, jsonl.BadLineError) for answer in answers)
            assert start == 0 or self.data[start - 1:start] == b"\n"
            start += chunk.bytes
        assert start == checkpoint(self.cache, self.kind).offset
        assert b"".join(chunk.hashes for chunk in known) == b"".join(chunk.hashes for chunk in fresh)
        opened = Source(self.path)
        with contextlib.closing(opened):
            assert difference.is_prefix(self.cache, self.kind, opened, checkpoint(self.cache, self.kind))


@contextlib.contextmanager
def sizes(lines: int, block: int, slack: int, small: int, too_many: float) -> "Iterator[None]":
    """Small chunks and small reads, so that files of a few lines have many of both."""
    with patch.object(chunks, "LINES", lines), patch.object(source.Source.blocks, "__defaults__", (block,)), \
            patch.object(difference, "_SLACK", slack), patch.object(jsonl, "_SMALL", small), \
            patch.object(difference, "_TOO_MANY", too_many):
        yield


SIZES = st.builds(sizes, lines=st.sampled_from([1, 2, 3, 5, chunks.LINES]), block=st.sampled_from([40, 200, 4 << 20]),
                  slack=st.sampled_from([1, 30, 1 << 11]), small=st.sampled_from([-1, 200_000]),
                  too_many=st.sampled_from([0.3, 100.0, 100.0]))
STEPS = st.lists(st.tuples(EDITS, st.sampled_from(["new file", "in place", "append"]), st.booleans()), max_size=6)


@pytest.mark.parametrize("name", ["prd", "repo_state"])
@settings(max_examples=150, deadline=None)
@given(sizes=SIZES, log=LOGS, steps=STEPS)
def test_the_cache_is_what_a_rebuild_and_the_format_say(
    name: str, sizes: "contextlib.AbstractContextManager[None]", log: bytes, steps: list[tuple[Edit, str, bool]],
) -> None:
    """After any edits of a log, synced one by one or several at once, rows, checkpoint and chunks are a rebuild's."""
    kind = KINDS[name]

    def translated(data: bytes) -> bytes:
        return data.replace(b'{"id":', b'{"%s":' % kind.key.encode())

    with tempfile.TemporaryDirectory() as folder, sizes:
        model = Model(f"{folder}/log", kind)
        model.put(translated(log), "new file")
        model.check(bring_level(model.cache, kind, model.path))
        for edit, way, synced in steps:
            sealed = None
            if edit.what == "own":
                lines = [translated(line).strip(b"\r ") for line in edit.lines]
                sealed = model.append_ours([line for line in lines if isinstance(_read(line, kind.key), tuple)])
            else:
                model.put(translated(edited(model.data, edit)), way)
            if synced:
                model.check(bring_level(model.cache, kind, model.path, sealed=sealed))
        model.check(bring_level(model.cache, kind, model.path))


# The cases that the model found first, one by one


@pytest.fixture(name="model")
def fixture_model(tmp_path: "Path") -> Model:
    return Model(str(tmp_path / "log"), PRD)


def step(model: Model, data: bytes) -> "LogReport":
    model.put(data, "new file")
    report = bring_level(model.cache, model.kind, model.path)
    model.check(report)
    return report


A1, A2, B1, C1 = record("a", 1), record("a", 2), record("b", 1), record("c", 1)


@pytest.mark.parametrize("contents", [
    [text(A1), b""],
    [text(A1), b'{"id":'],
    [text(A1), b"", text(A1)],
    [b"", text(A1)],
    [b"\n\n\n", b"\n", b""],
    [A1, A1 + b"\n"],
    [A1, A1 + b"\r\n"],
    [A1, A1 + b"\r", A1 + b"\r\n"],
    [A1, A1 + b"\rfoo\n"],
    [A1, A1 + b" \n"],
    [A1, A1 + b"}\n", A1],
    [text(A1) + A2, text(A1) + A2 + text(b"", B1)],
    [text(A1) + A2, text(C1) + A2 + text(b"", B1)],
    [text(A1, B1) + C1, text(A2, B1, C1), text(A2, B1, C1) + b"\r"],
    [text(A1, A2, A1), text(A1, A2), text(A2, A1), text(A1, A2, A1)],
    [text(record("a", 1, x=1), record("a", 1, x=2)), text(record("a", 1, x=2), record("a", 1, x=1))],
    [text(B1, A1, C1), text(b"<<<<<<< ours", A1, b"=======", A2, b">>>>>>> theirs"), text(A2)],
    [text(A1, record("a", 2, deleted=True)), text(A1), text(record("a", 2, deleted=True))],
    [text(b"bad", A1), text(A1), text(A1, b"bad"), text(b"bad", A1)],
    [text(A1) + b'{"id":"b","upda', text(A1, B1), text(A1) + b'{"id":"b","upda'],
])
@pytest.mark.parametrize("lines", [1, 2, 64])
def test_a_log_of_a_few_lines(model: Model, contents: list[bytes], lines: int) -> None:
    """Each content that follows another in these tables leaves the cache as a rebuild of it would be."""
    with sizes(lines, 4 << 20, 1 << 11, 200_000, 100.0):
        for content in contents:
            step(model, content)


def test_a_missing_log_is_an_empty_one(model: Model) -> None:
    """A log that is not there, or is gone again, has no records and no lines, and is not looked at twice."""
    assert bring_level(model.cache, PRD, model.path).mode == "rebuilt"
    assert rows(model.cache, PRD) == {}
    step(model, text(A1, B1))
    os.unlink(model.path)
    model.data = b""
    model.check(bring_level(model.cache, PRD, model.path))
    assert rows(model.cache, PRD) == {}
    assert model.cache.is_level(PRD, model.path)


def test_many_edits_in_one_place(model: Model) -> None:
    """Lines put between the same two again and again never run out of room, nor lose their order."""
    first, last = [record(f"first {n}", 1) for n in range(8)], [record(f"last {n}", 1) for n in range(8)]
    between: list[bytes] = []
    modes = set()
    with sizes(2, 4 << 20, 1 << 11, 200_000, 100.0):
        for n in range(120):
            between[len(between) // 2:len(between) // 2] = [record(f"between {n}", 1)]
            modes.add(step(model, text(*first, *between, *last)).mode)
    assert modes == {"rebuilt", "changed"}


@pytest.mark.parametrize("seed", range(6))
def test_a_long_log(model: Model, seed: int) -> None:
    """With thousands of lines, chunks of the real size and edits here and there the answers are a rebuild's too."""
    chance = random.Random(seed)
    lines = [record(f"r{chance.randrange(900)}", chance.randrange(5), title="x" * chance.randrange(200))
             for _ in range(3000)]
    step(model, text(*lines))
    for _ in range(4):
        for _ in range(chance.choice([1, 3, 40])):
            at = chance.randrange(len(lines))
            match chance.choice(["replace", "insert", "delete", "move", "block"]):
                case "replace":
                    lines[at] = record(f"r{chance.randrange(900)}", chance.randrange(6))
                case "insert":
                    lines.insert(at, record(f"new{at}", 1))
                case "delete":
                    del lines[at]
                case "move":
                    lines.insert(chance.randrange(len(lines)), lines.pop(at))
                case "block":
                    moved = lines[at:at + 100]
                    del lines[at:at + 100]
                    to = chance.randrange(len(lines))
                    lines[to:to] = moved
        step(model, text(*lines))


# What it costs


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 1), (31, 1), (32, 1), (33, 40), (64, 64), (1000, 7)])
def test_an_appended_log_is_parsed_from_where_it_ended(model: Model, before: int, after: int) -> None:
    """Of a log that grew, exactly the new lines are parsed and counted."""
    old, new = [record(f"old {n}", 1) for n in range(before)], [record(f"new {n}", 1) for n in range(after)]
    step(model, text(*old))
    report = step(model, text(*old, *new))
    assert (report.mode, report.parsed, report.changed) == ("tail", after, after)


def test_a_line_end_that_was_missing_is_no_change(model: Model) -> None:
    """When an unterminated record gets its line end, and more lines follow it, only those are parsed."""
    step(model, text(A1) + B1)
    assert step(model, text(A1, B1)).parsed == 0
    report = step(model, text(A1, B1, C1))
    assert (report.mode, report.parsed) == ("tail", 1)


def test_a_torn_line_is_taken_in_once_it_is_whole(model: Model) -> None:
    """A record of which half is there is no record and not bad; when the rest comes it is parsed, and only it."""
    half = len(B1) // 2
    report = step(model, text(A1) + B1[:half])
    assert (sorted(rows(model.cache, PRD)), report.bad_lines) == (["a"], 0)
    report = step(model, text(A1, B1))
    assert (report.mode, report.parsed, sorted(rows(model.cache, PRD))) == ("tail", 1, ["a", "b"])


def test_of_a_replaced_log_only_what_differs_is_parsed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 5000 lines in a new file of which 5 were changed, 2 inserted and 3 deleted, 7 are parsed."""
    lines = [record(f"r{n}", 1, title="x" * 50) for n in range(5000)]
    step(model, text(*lines))
    for at in (4, 1000, 1001, 3000, 4998):
        lines[at] = record(f"r{at}", 2)
    lines[2000:2000] = [record("new 1", 1), record("new 2", 1)]
    del lines[4000:4003]
    write(model.path, text(*lines))
    model.data = text(*lines)
    parsed: list[bytes] = []

    def counting(kind: Kind, line: bytes) -> object:
        parsed.append(line)
        return index_or_error(kind, line)

    for module in (difference, jsonl, sync):
        if hasattr(module, "index_or_error"):
            monkeypatch.setattr(module, "index_or_error", counting)
    report = bring_level(model.cache, PRD, model.path)
    monkeypatch.undo()
    assert (report.mode, report.parsed, report.changed) == ("changed", 7, 10)
    assert len(parsed) == 7
    model.check(report)


def test_an_unchanged_log_is_not_opened(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log whose signature is the noted one, and not racy, costs one stat."""
    step(model, text(A1))
    until_not_racy(model)

    def refuse(_: str) -> Source:
        raise AssertionError

    monkeypatch.setattr(sync, "Source", refuse)
    assert model.cache.is_level(PRD, model.path)


def test_touching_a_log_changes_nothing(model: Model) -> None:
    """The same bytes in a new file, or under a new time, are recognised without parsing any."""
    step(model, text(A1, B1))
    assert (step(model, text(A1, B1)).parsed, checkpoint(model.cache, PRD).lines) == (0, 2)
    os.utime(model.path, ns=(1, 1))
    report = bring_level(model.cache, PRD, model.path)
    assert (report.mode, report.parsed, report.changed) == ("unchanged", 0, 0)


def test_lines_that_change_places_are_known(model: Model) -> None:
    """Lines that only stand elsewhere now are recognised: they count as changed, at most, and not as parsed."""
    lines = [record(f"r{n}", 1) for n in range(500)]
    step(model, text(*lines))
    lines[100], lines[101] = lines[101], lines[100]
    report = step(model, text(*lines))
    assert (report.mode, report.parsed) == ("changed", 0)
    assert report.changed <= 2


def test_too_much_that_differs_is_a_rebuild(model: Model) -> None:
    """A wholly different file is rebuilt, which is cheaper than comparing it."""
    step(model, text(*(record(f"a{n}", 1) for n in range(1000))))
    assert step(model, text(*(record(f"b{n}", 1) for n in range(1000)))).mode == "rebuilt"


# Bad lines


@pytest.mark.parametrize("bulk", [False, True])
def test_bad_lines_are_reported_by_their_number(model: Model, monkeypatch: pytest.MonkeyPatch, *, bulk: bool) -> None:
    """A line that is no record is told by its number in the file, whichever way the log was read."""
    monkeypatch.setattr(jsonl, "_SMALL", -1 if bulk else 1 << 30)
    report = step(model, text(b"bad one", A1, b"", b"bad two"))
    assert [number for number, _ in report.bad] == [1, 4]
    report = step(model, text(b"bad one", A1, b"", b"bad two", B1, b"bad three"))
    assert (report.mode, [number for number, _ in report.bad]) == ("tail", [6])
    report = step(model, text(b"bad one", A1, b"bad four", b"", b"bad two", B1, b"bad three"))
    assert (report.mode, [number for number, _ in report.bad]) == ("changed", [3])
    assert model.cache.bad_lines(PRD) == 4


def test_the_report_names_a_hundred_bad_lines_and_counts_all(model: Model) -> None:
    """A log that is garbage from end to end makes a report of bounded size, with the true count."""
    write(model.path, b"garbage\n" * 5000)
    report = bring_level(model.cache, PRD, model.path)
    assert ([number for number, _ in report.bad], report.bad_lines) == (list(range(1, sync.REPORTED + 1)), 5000)
    assert model.cache.bad_lines(PRD) == 5000


# Transactions


READER = """
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for _ in sys.stdin:
    print(json.dumps(db.execute("SELECT id, title FROM prds ORDER BY id").fetchall()), flush=True)
"""

CRASHING = """
import os, sys
from taskstore_core.cache import Cache
from taskstore_core.store import Store
real = getattr(Cache, sys.argv[2])


def die(self, *arguments):
    if sys.argv[3] == "behind":
        real(self, *arguments)
    os._exit(7)


with Store.open(sys.argv[1]) as store:
    setattr(Cache, sys.argv[2], die)
    store.sync()
"""


def test_readers_see_the_old_state_or_the_new(model: Model, tmp_path: "Path") -> None:
    """While a rebuild is under way another process reads the whole old state, and after it the whole new one."""
    cache = Cache(str(tmp_path / "store.db"), make=True)
    old, new = [[f"old{n}", "o"] for n in range(500)], [[f"new{n}", "n"] for n in range(500)]
    write(model.path, text(*(record(key, 1, title=title) for key, title in old)))
    bring_level(cache, PRD, model.path)
    with subprocess.Popen([sys.executable, "-c", READER, str(tmp_path / "store.db")], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as reader:

        def seen() -> list[list[str]]:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
            found: list[list[str]] = json.loads(reader.stdout.readline())
            return found

        assert seen() == sorted(old)
        write(model.path, text(*(record(key, 1, title=title) for key, title in new)))
        with cache.db:
            cache.begin_rebuild(PRD)
            assert seen() == sorted(old)
            assert sync_log(cache, PRD, model.path, full=True).mode == "rebuilt"
            assert len(rows(cache, PRD)) == 500
            assert seen() == sorted(old)
        assert seen() == sorted(new)
        assert reader.stdin is not None
        reader.stdin.close()
    cache.close()


@pytest.mark.parametrize("when", ["before", "behind"])
@pytest.mark.parametrize("method", [
    "begin_rebuild", "put_rows", "put_chunks", "end_rebuild", "set_checkpoint", "set_hint"])
def test_a_crash_in_a_sync_changes_nothing(tmp_path: "Path", method: str, when: str) -> None:
    """A process that dies anywhere within a sync leaves rows and checkpoint as they were, and the next one goes on."""

    def seen(path: str) -> list[object]:
        with contextlib.closing(Cache(path)) as cache:
            return [rows(cache, PRD), checkpoint(cache, PRD).offset, len(list(cache.chunks(PRD)))]

    with make_store(tmp_path, A1, B1) as store:
        store.sync()
        path, log = store.paths.file("store.db"), store.paths.file(PRD.log)
        assert store.apply([Operation("create", PRD, {"id": "c", "title": "t"})])
    os.unlink(f"{tmp_path}/.taskstore/.local/outbox")  # else there would be nothing new to note of it
    before = seen(path)
    write(log, text(*(record(f"r{n}", 1, title="x" * 500) for n in range(2000))))
    done = subprocess.run([sys.executable, "-c", CRASHING, str(tmp_path), method, when], check=False)
    assert done.returncode == 7
    assert seen(path) == before
    with Store.open(str(tmp_path)) as store:
        assert len(store.find("prd")[0]) == 2000
    assert seen(path) != before


# Racy signatures


NOW = 1_700_000_000_123_456_789
SECOND = 1_000_000_000
KERNELS = 4_000_000


@pytest.mark.parametrize(("mtime", "ctime", "racy"), [
    (NOW, NOW, True),
    (NOW - SECOND, NOW, True),
    (NOW, NOW - SECOND, True),
    (NOW - 1, NOW - 1, True),
    (NOW - 999_999, NOW - 999_999, True),
    (NOW - 1_000_000, NOW - 1_000_000, False),
    (NOW // 10_000_000 * 10_000_000, NOW - SECOND, True),
    (NOW // 10_000_000 * 10_000_000 - 10_000_000, NOW - SECOND, False),
    (NOW // SECOND * SECOND, NOW - SECOND, True),
    (NOW // SECOND * SECOND - SECOND, NOW - SECOND, True),
    (NOW // SECOND * SECOND - 3 * SECOND, NOW - 3 * SECOND, False),
    (NOW + SECOND + 1, NOW - SECOND, True),
    (NOW - SECOND - 1, NOW + SECOND + 1, True),
])
def test_which_signatures_are_racy(mtime: int, ctime: int, *, racy: bool) -> None:
    """A file changed within the clock's granularity of the look, or in the future, may change again unseen."""
    assert signature.is_racy((1, 2, 3, mtime, ctime), NOW) == racy


def test_no_change_is_stamped_with_less_than_the_clock_said_before(tmp_path: "Path") -> None:
    """Neither a file made after a look at the clock nor one written to: what is older has been as it is since."""
    path = tmp_path / "file"
    for number in range(2000):
        before = signature.stamping_ns()
        path.unlink(missing_ok=True)
        path.write_bytes(b"x")
        assert min(signature.look(str(path))[3:]) >= before
        before = signature.stamping_ns()
        path.write_bytes(b"x" * (number % 3))
        assert min(signature.look(str(path))[3:]) >= before


def test_a_missing_file_is_not_racy(tmp_path: "Path") -> None:
    """That a file is missing shows at once when it comes."""
    assert signature.look(str(tmp_path / "none")) == signature.MISSING
    assert not signature.is_racy(signature.MISSING, 0)


def until_not_racy(model: Model) -> None:
    """Read again and again until the clock has left the tick in which the log was written."""
    while not model.cache.is_level(model.kind, model.path):
        bring_level(model.cache, model.kind, model.path)


def rewrite_unseen(path: str, old: bytes, new: bytes) -> None:
    """Overwrite in place, the same size, and put the modification time back."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        data = file.read().replace(old, new)
        file.seek(0)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


def make_store(folder: "Path", *lines: bytes) -> Store:
    store, _ = Store.create(str(folder))
    with open(store.paths.file(PRD.log), "wb") as file:
        file.write(text(*lines))
    return store


def is_level(store: Store) -> bool:
    """Whether one stat of the PRDs' log is enough to answer from the cache's file."""
    with contextlib.closing(Cache(store.paths.file("store.db"))) as cache:
        return cache.is_level(PRD, store.paths.file(PRD.log))


@pytest.mark.parametrize("way", ["in place", "new file"])
def test_a_rewrite_within_the_tick_of_a_read_is_seen(tmp_path: "Path", way: str) -> None:
    """A log rewritten at once after a read, with its size and modification time kept, is read anew, each time."""
    with make_store(tmp_path, record("a", 1, title="0000")) as store:
        path = store.paths.file(PRD.log)
        for n in range(100):
            assert json.loads(store.get("prd", "a"))["title"] == f"{n:04}"
            if way == "in place":
                rewrite_unseen(path, b"%04d" % n, b"%04d" % (n + 1))
            else:
                before = os.stat(path)
                write(path, text(record("a", 1, title=f"{n + 1:04}")))
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("tick", [KERNELS, 10_000_000, SECOND, 2 * SECOND], ids=["kernel's", "10 ms", "1 s", "2 s"])
def test_a_rewrite_within_the_tick_of_a_coarse_clock_is_seen(
    tmp_path: "Path", monkeypatch: pytest.MonkeyPatch, tick: int,
) -> None:
    """Where a file's times are coarser than the clock's, a rewrite that no signature shows is seen as well."""

    def coarse(status: os.stat_result) -> "Signature":
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns // tick * tick,
                status.st_ctime_ns // tick * tick)

    monkeypatch.setattr(signature, "of", coarse)
    if tick == KERNELS:
        real = signature.stamping_ns
        monkeypatch.setattr(signature, "stamping_ns", lambda: real() // tick * tick)
    with make_store(tmp_path, record("a", 1, title="0000")) as store:
        for n in range(50):
            assert json.loads(store.get("prd", "a"))["title"] == f"{n:04}"
            rewrite_unseen(store.paths.file(PRD.log), b"%04d" % n, b"%04d" % (n + 1))


def test_a_rewrite_long_after_a_read_is_seen_by_its_ctime(tmp_path: "Path") -> None:
    """A log whose signature had settled shows a rewrite of the same size and modification time by its ctime."""
    with make_store(tmp_path, record("a", 1, title="old"), record("b", 1)) as store:
        store.get("prd", "a")
        while not is_level(store):
            store.get("prd", "b")
        rewrite_unseen(store.paths.file(PRD.log), b"old", b"new")
        assert not is_level(store)
        assert json.loads(store.get("prd", "a"))["title"] == "new"


def test_our_own_appends_are_not_racy(tmp_path: "Path") -> None:
    """Right after a write of ours the cache is level: nothing is opened or parsed again, by us or by another."""
    with make_store(tmp_path) as store, Store.open(str(tmp_path)) as other:
        store.sync()
        while not is_level(store):
            store.sync()
        for n in range(20):
            store.apply([Operation("create", PRD, {"id": f"p{n}", "title": "t"})])
            assert is_level(store)
            assert {report.mode for report in store.sync().values()} == {"unchanged"}
            assert json.loads(other.get("prd", f"p{n}"))["title"] == "t"


def test_a_change_right_behind_our_own_append_is_seen(tmp_path: "Path") -> None:
    """Another writer's change within the same tick as an append of ours shows by its modification time."""
    with make_store(tmp_path) as store:
        path = store.paths.file(PRD.log)
        for n in range(50):
            store.apply([Operation("create", PRD, {"id": f"p{n}", "title": "old"})])
            with open(path, "r+b") as file:
                data = file.read().replace(b'"old"', b'"new"')
                file.seek(0)
                file.write(data)
            assert json.loads(store.get("prd", f"p{n}"))["title"] == "new"


def test_our_append_takes_nothing_for_granted_that_others_changed_before(tmp_path: "Path") -> None:
    """A foreign edit just before a write of ours is in the cache after it, whether it kept the size or not."""
    with make_store(tmp_path, record("a", 1, title="0000")) as store:
        path = store.paths.file(PRD.log)
        store.get("prd", "a")
        for n in range(30):
            if n % 2:
                rewrite_unseen(path, b"%04d" % n, b"%04d" % (n + 1))
            else:
                with open(path, "rb") as file:
                    data = file.read()
                write(path, data.replace(b"%04d" % n, b"%04d" % (n + 1)))
            store.apply([Operation("create", PRD, {"id": f"p{n}", "title": "t"})])
            assert json.loads(store.get("prd", "a"))["title"] == f"{n + 1:04}"


@pytest.mark.parametrize("what", ["same size", "longer", "new file"])
def test_an_append_of_ours_vouches_only_for_what_stood_before_it(model: Model, what: str) -> None:
    """A foreign edit between the last look and our append is found, although the append itself is known."""
    step(model, text(record("a", 1, title="old"), B1))
    until_not_racy(model)
    match what:
        case "same size":
            model.put(model.data.replace(b"old", b"new"), "in place")
        case "longer":
            model.put(model.data.replace(b"old", b"longer"), "in place")
        case _:
            model.put(model.data.replace(b"old", b"new"), "new file")
    sealed = model.append_ours([C1])
    assert sealed is not None
    model.check(bring_level(model.cache, PRD, model.path, sealed=sealed))
    assert sorted(rows(model.cache, PRD)) == ["a", "b", "c"]


def test_a_log_that_changes_while_it_is_read_is_read_again(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a file is touched between opening and the end of reading, its checkpoint proves nothing."""
    write(model.path, text(A1))
    while signature.is_racy(signature.look(model.path), signature.stamping_ns()):
        pass
    real = sync._rebuild

    def meddling(cache: Cache, kind: Kind, opened: Source) -> "tuple[LogReport, sync.End]":
        answer = real(cache, kind, opened)
        with open(model.path, "ab") as file:
            file.write(text(B1))
        return answer

    monkeypatch.setattr(sync, "_rebuild", meddling)
    bring_level(model.cache, PRD, model.path)
    assert checkpoint(model.cache, PRD).racy
    assert not model.cache.is_level(PRD, model.path)
    monkeypatch.undo()
    model.data = text(A1, B1)
    model.check(bring_level(model.cache, PRD, model.path))


def test_a_chain_of_every_kind_is_synced_by_its_own_rule(tmp_path: "Path") -> None:
    """One sync of a store brings all six logs level, each with its key and its version rule."""
    lines = {
        "prds": {"id": "p", "updated_at": 1}, "task_specs": {"id": "s", "created_at": 2},
        "executions": {"id": "e", "started_at": 3}, "dependencies": {"id": "d", "created_at": 1, "resolved_at": 4},
        "workflows": {"id": "w", "updated_at": 5}, "repo_state": {"repo_path": "/r", "updated_at": 6}}
    store, _ = Store.create(str(tmp_path))
    with store:
        for plural, values in lines.items():
            write(store.paths.file(f"{plural}.jsonl"), text(json.dumps(values).encode()))
        reports = store.sync()
        assert {report.parsed for report in reports.values()} == {1}
        with contextlib.closing(Cache(store.paths.file("store.db"))) as cache:
            assert [version for kind in KINDS.values() for version, _, _ in rows(cache, kind).values()] == [
                1, 2, 3, 4, 5, 6]
