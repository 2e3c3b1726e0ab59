"""Compaction: what the rule lets go is gone, and nothing else differs, in any log and whatever happens meanwhile."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.conftest import Clocks
from tests.core.test_sync import OTHERS, meaning_of, record, rows, text, write

from taskstore_core import difference, feed, frames, jsonl
from taskstore_core.batch import Operation
from taskstore_core.cache import Cache
from taskstore_core.clock import now_ms
from taskstore_core.draft import Draft
from taskstore_core.errors import BusyError, InvalidError, ReadOnlyError
from taskstore_core.kinds import KINDS
from taskstore_core.methods import dispatch
from taskstore_core.source import Source
from taskstore_core.store import Store
from taskstore_core.superseded import Rule, find
from taskstore_core.sync import sync_log

PRD = KINDS["prd"]
HOUR = 3_600_000
PATIENCE_S = 30
DAY = 24 * HOUR
T1, T2, T3 = (1_700_000_000_000 + n * DAY for n in range(3))
LATELY = now_ms() - HOUR

STAMPS = st.sampled_from([T1, T2, T3, LATELY])
KEYS = st.sampled_from(["a", "b", "c", "é"])
RECORDS = st.builds(record, KEYS, STAMPS, title=st.sampled_from(["", "x", "long" * 20]))
MARKED = st.builds(record, KEYS, STAMPS, title=st.just("x"), op=st.just("try-1"))
MARKED = MARKED.map(lambda line: line.replace(b'"op": ', b'"op":'))  # as we write it
TOMBSTONES = st.builds(record, KEYS, STAMPS, deleted=st.just(value=True))
PLAIN = st.one_of(RECORDS, RECORDS, RECORDS, RECORDS, MARKED, TOMBSTONES, OTHERS)
LINES = st.one_of(PLAIN, PLAIN, PLAIN.map(lambda line: line + b"\r"), PLAIN.map(lambda line: b"\xef\xbb\xbf" + line))
TAILS = st.one_of(st.just(b""), st.just(b""), LINES, RECORDS.map(lambda line: line[:9]))
LISTS = st.lists(LINES, max_size=16)


@pytest.fixture(name="git")
def fixture_git(empty: str, tmp_path: Path) -> "Iterator[Repository]":
    """An empty store in a repository with one commit."""
    with Repository(tmp_path / "repo", empty) as made:
        yield made


class Repository:
    """A git repository with a store in it."""

    def __init__(self, root: Path, empty: str) -> None:
        self.root = root
        root.mkdir()
        self("init", "-q", "-b", "main", ".")
        shutil.copytree(empty, root / ".taskstore")
        self.store = Store.open(os.fspath(root))
        self.commit("begin")
        self.log = root / ".taskstore" / "prds.jsonl"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def __call__(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@x", "-c", "core.hooksPath=/dev/null", *words],
            cwd=self.root, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, message: str) -> None:
        assert self.store.flush(PATIENCE_S)
        self("add", "-A")
        self("commit", "-qm", message, "--allow-empty")


def put(store: Store, verb: str, **fields: object) -> int:
    """One write of a PRD; its version."""
    if verb == "create":
        fields = {"title": "t", **fields}
    (written,) = store.apply([Operation(verb, PRD, fields)], op=None)
    return written.version


def log_of(store: Store) -> bytes:
    with open(store.paths.file(PRD.log), "rb") as file:
        return file.read()


def outbox_lines(store: Store) -> set[str]:
    with open(store.paths.local("outbox"), "rb") as file:
        found = [frame for _, _, frame in frames.scan(file.read(), 0) if frame]
    entries: list[Any] = [entry for frame in found for entry in frame.get("entries", [])]  # type: ignore[attr-defined]
    return {line for _, line in entries}


def compact(store: Store, **rule: Any) -> dict[str, Any]:
    answer: Any = dispatch(store, "store.compact", rule)
    return dict(answer)


# The rule, line by line, said in another way than the code says it


def left_by(lines: Sequence[bytes], tail: bytes, *, keep: int, before: int | None, prune: bool) -> list[bytes]:
    """The lines that stay."""
    read: dict[int, tuple[str, int, bool, str]] = {}
    disputed = set()
    inside = False
    for number, line in enumerate(lines):
        words = line.strip(b"\r \xef\xbb\xbf")
        inside = inside or words.startswith(b"<<<<<<<")
        row = jsonl.index_or_error(PRD, line)
        if isinstance(row, tuple):
            if inside:
                disputed.add(row[0])
            else:
                read[number] = (row[0], row[1], row[2], row[3])
        inside = inside and not words.startswith(b">>>>>>>")

    behind = jsonl.index_or_error(PRD, tail)
    if isinstance(behind, tuple):
        disputed.add(behind[0])

    def newer(number: int) -> list[int]:
        key, version = read[number][:2]
        return [other for other, row in read.items() if row[0] == key and (row[1], other) > (version, number)]

    def may_go(number: int) -> bool:
        _, version, _, raw = read[number]
        return (before is None or version <= before) and not ('"op":' in raw and version > now_ms() - DAY)

    def is_pruned(key: str) -> bool:
        its = [number for number, row in read.items() if row[0] == key]
        newest = next(number for number in its if not newer(number))
        return prune and key not in disputed and read[newest][2] and all(map(may_go, its))

    gone = {number for number in read if is_pruned(read[number][0])
            or (len(newer(number)) >= keep and may_go(number))}
    return [line for number, line in enumerate(lines) if number not in gone]


@settings(max_examples=150, deadline=None)
@given(lines=LISTS, tail=TAILS, keep=st.integers(1, 3), aged=st.booleans(), prune=st.booleans(),
       bulk=st.booleans())
def test_a_log_is_shortened_by_the_rule_and_says_the_same(  # noqa: PLR0917 - what varies
    empty: str, lines: list[bytes], tail: bytes, keep: int, aged: bool, prune: bool, bulk: bool,
) -> None:
    """Exactly what the rule lets go is gone, every other byte stays, and so does the state; twice is once."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_SMALL", -1 if bulk else 200_000)
        directory = shutil.copytree(empty, f"{folder}/.taskstore")
        with Store.open(directory=os.fspath(directory)) as store:
            write(store.paths.file(PRD.log), text(*lines) + tail)
            store.sync()
            before = meaning_of(log_of(store)).state
            cursor = store.ask(lambda cache: feed.read(cache, None, 0)).cursor
            parameters: dict[str, Any] = {"keep": keep, "prune_tombstones": prune}
            if aged:
                parameters["older_than_ms"] = now_ms() - (T2 + HOUR)
            told = compact(store, **parameters, dry_run=True)
            assert log_of(store) == text(*lines) + tail
            answer = compact(store, **parameters)
            kept = left_by(lines, tail, keep=keep, before=T2 + HOUR if aged else None, prune=prune)
            assert log_of(store) == text(*kept) + tail
            assert answer["lines"] == told["lines"] == answer["kinds"]["prd"]["lines"] == len(lines) - len(kept)
            assert answer["bytes"] == told["bytes"] == len(text(*lines)) - len(text(*kept))
            gone = before.keys() - meaning_of(log_of(store)).state.keys()
            assert len(gone) == answer["kinds"]["prd"]["tombstones"]
            assert all(before[key][1] for key in gone)
            assert meaning_of(log_of(store)).state == {key: row for key, row in before.items() if key not in gone}
            assert_level(store, cursor, rewritten=len(kept) < len(lines))
            look = os.stat(store.paths.file(PRD.log))
            assert compact(store, **parameters)["lines"] == 0
            assert os.stat(store.paths.file(PRD.log)) == look


def assert_level(store: Store, cursor: feed.Cursor, *, rewritten: bool) -> None:
    """The cache says what one built anew says, remembers the log as it is, and has no change to tell."""
    assert not store.ask(lambda cache: feed.read(cache, cursor, 100)).items
    assert not store.ask(lambda cache: feed.read(cache, cursor, 100)).fresh
    with Store.open(directory=store.paths.directory) as second:
        reports = second.sync()
    assert {report.mode for report in reports.values()} <= {"unchanged", "tail"}  # a torn line is looked at again
    fresh = Cache()
    source = Source(store.paths.file(PRD.log))
    try:
        with fresh.db:
            sync_log(fresh, PRD, store.paths.file(PRD.log))

        def compare(cache: Cache) -> None:
            assert rows(cache, PRD) == rows(fresh, PRD)
            mine, its = cache.checkpoint(PRD), fresh.checkpoint(PRD)
            assert mine is not None
            assert its is not None
            assert (mine.offset, mine.lines, mine.unterminated) == (its.offset, its.lines, its.unterminated)
            assert not (mine.racy and rewritten)
            assert difference.is_prefix(cache, PRD, source, mine)
            assert cache.bad_lines(PRD) == fresh.bad_lines(PRD)
            assert "".join(chunk.ids for chunk in cache.chunks(PRD)).replace("\0", "") == "".join(
                chunk.ids for chunk in fresh.chunks(PRD)).replace("\0", "")

        store.ask(compare)
    finally:
        source.close()
        fresh.close()


UNIQUE = st.lists(RECORDS, max_size=8, unique=True)


@settings(max_examples=200, deadline=None)
@given(base=UNIQUE, ours=UNIQUE, theirs=UNIQUE, keep=st.integers(1, 2))
def test_a_merge_brings_no_dropped_line_back_and_loses_none_that_was_appended(
    base: list[bytes], ours: list[bytes], theirs: list[bytes], keep: int,
) -> None:
    """A line-by-line merge of a compacted log with one that grew has the state of both, and nothing dropped."""
    ours, theirs = [line for line in ours if line not in base], [line for line in theirs if line not in base]
    whole = base + ours
    gone = find(PRD, whole, [jsonl.index_or_error(PRD, line) for line in whole], Rule(keep=keep)).lines
    compacted = [line for number, line in enumerate(whole) if number not in gone]
    grown = base + theirs
    merged = [line for line in base if line in compacted and line in grown]
    merged += [line for line in dict.fromkeys(compacted + grown) if line not in base]
    assert not {whole[number] for number in gone}.intersection(merged) - set(theirs)
    assert set(theirs) <= set(merged)
    assert _versions(merged) == _versions(whole + theirs)


def _versions(lines: Sequence[bytes]) -> dict[str, int]:
    return {key: row[0] for key, row in meaning_of(text(*lines)).state.items()}


# One by one


def test_what_is_dropped_is_told_by_kind(store: Store) -> None:
    """The answer counts lines and bytes by kind, and `history` begins with what was kept."""
    put(store, "create", id="a")
    versions = [put(store, "update", id="a", title=f"t{n}") for n in range(4)]
    store.apply([Operation("create", KINDS["workflow"], {"id": "w", "name": "w"})])
    store.apply([Operation("update", KINDS["workflow"], {"id": "w", "name": "v"})])
    size = len(log_of(store))
    answer = compact(store, keep=2)
    assert (answer["kinds"]["prd"]["lines"], answer["kinds"]["prd"]["left"], answer["lines"]) == (3, 2, 3)
    assert answer["bytes"] == size - len(log_of(store))
    assert [json.loads(line)["updated_at"] for line in store.history("prd", "a")] == versions[-2:]
    assert compact(store)["kinds"]["workflow"]["lines"] == 1
    assert json.loads(store.get("prd", "a"))["title"] == "t3"


def test_age_is_that_of_the_version(store: Store, clocks: Clocks) -> None:
    """With an age, a version goes once it is that old, whenever it was superseded; what is younger stays."""
    put(store, "create", id="a")
    clocks.go_on(2 * HOUR)
    versions = [put(store, "update", id="a", title="x"), put(store, "update", id="a", title="y")]
    assert compact(store, older_than_ms=3 * HOUR)["lines"] == 0
    assert compact(store, older_than_ms=HOUR)["lines"] == 1
    assert [json.loads(line)["updated_at"] for line in store.history("prd", "a")] == versions


@pytest.mark.parametrize(("rule", "field"), [({"older_than_ms": -1}, "older_than_ms"), ({"keep": 0}, "keep"),
                                             ({"keep": True}, "keep"), ({"nothing": 1}, "nothing")])
def test_a_rule_that_makes_no_sense_is_refused(store: Store, rule: dict[str, Any], field: str) -> None:
    """An age below 0 and a count below 1 are named, and nothing is dropped."""
    with pytest.raises(InvalidError) as refused:
        compact(store, **rule)
    assert refused.value.field == field


def test_a_write_can_be_repeated_after_a_compaction(store: Store, clocks: Clocks) -> None:
    """A line whose `op` may be repeated stays for a day, though it is superseded; then it goes."""
    put(store, "create", id="a")
    first = dispatch(store, "record.update", {"kind": "prd", "id": "a", "set": {"title": "x"}, "op": "try"})
    put(store, "update", id="a", title="y")
    assert compact(store)["lines"] == 1
    again = dispatch(store, "record.update", {"kind": "prd", "id": "a", "set": {"title": "x"}, "op": "try"})
    assert again == first
    assert json.loads(store.get("prd", "a"))["title"] == "y"
    clocks.go_on(DAY + 1)
    assert compact(store)["lines"] == 1


def test_the_outbox_forgets_what_was_dropped_and_nothing_else(store: Store, other: Store) -> None:
    """No dropped line is left in the outbox, every kept one is, and another process goes on with the new one."""
    put(store, "create", id="a")
    put(other, "update", id="a", title="x")
    put(store, "update", id="a", title="y")
    put(other, "create", id="b")
    store.apply([Operation("create", PRD, {"id": key, "title": "together"}) for key in ("c", "d")])
    put(store, "update", id="c", title="x")
    compact(store)
    there = {line.decode() for line in log_of(store).splitlines()}
    assert outbox_lines(store) == there
    assert put(other, "update", id="b", title="z")
    assert put(store, "update", id="a", title="w")
    assert compact(other)["lines"] == 2
    assert outbox_lines(other) == {line.decode() for line in log_of(other).splitlines()}


def test_what_git_took_charge_of_is_still_known_after_a_line_was_forgotten() -> None:
    """A mark that settles a line names it by its new place, and goes with a line that is forgotten."""
    writes = [frames.Write(1, "b", 1, [("prds.jsonl", "x"), ("prds.jsonl", "y"), ("prds.jsonl", "z")]),
              frames.Write(2, "b", 1, [("prds.jsonl", "w")]), frames.Write(3, "b", 1, [("prds.jsonl", "gone")])]
    data = frames.encode_mark("outbox", "id") + b"".join(write.encode() for write in writes)
    data += frames.encode_mark("settled", "1:2,2:0,3:0") + frames.encode_mark("abort", 3)
    kept = frames.without(data, {"prds.jsonl": {b"x"}})
    assert kept is not None
    read = [frame for _, _, frame in frames.scan(kept, 0)]
    assert [frame.get("entries") for frame in read[:2] if frame] == [
        [["prds.jsonl", "y"], ["prds.jsonl", "z"]], [["prds.jsonl", "w"]]]
    assert read[2:] == [{"settled": "1:1,2:0"}]
    assert frames.without(data, {"prds.jsonl": {b"none"}, "other.jsonl": {b"x"}}) is None


def test_nothing_dropped_comes_back_after_a_power_loss(store: Store, clocks: Clocks) -> None:
    """In the next boot, what the disk lost of a log is restored from the outbox, without what was dropped."""
    put(store, "create", id="a")
    put(store, "update", id="a", title="x")
    compact(store)
    kept = log_of(store)
    late = put(store, "create", id="late")
    clocks.reboot()
    write(store.paths.file(PRD.log), kept)  # the log as it was synced last
    with Store.open(directory=store.paths.directory) as next_boot:
        assert [json.loads(line)["updated_at"] for line in next_boot.find("prd")[0]][-1] == late
        assert len(next_boot.history("prd", "a")) == 1


def test_the_mode_of_a_log_is_kept(store: Store) -> None:
    """A log that the group may write stays so."""
    put(store, "create", id="a")
    put(store, "update", id="a", title="x")
    os.chmod(store.paths.file(PRD.log), 0o664)
    assert compact(store)["lines"] == 1
    assert os.stat(store.paths.file(PRD.log)).st_mode & 0o7777 == 0o664


def test_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    """A symbolic link in the place of a log is refused and stays."""
    put(store, "create", id="a")
    put(store, "update", id="a", title="x")
    path = Path(store.paths.file(PRD.log))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReadOnlyError):
        compact(store)
    assert path.is_symlink()


def test_a_log_that_may_not_be_written_is_refused(store: Store, obedient: list[str]) -> None:
    """A log that this user may only read stays as it is, though its folder could be written."""
    put(store, "create", id="a")
    put(store, "update", id="a", title="x")
    store.close()
    os.chmod(store.paths.file(PRD.log), 0o444)
    done = subprocess.run([*obedient, "python3", "-m", "taskstore", "--store", store.paths.directory, "compact"],
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "PATH": f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"})  # type: ignore[attr-defined]
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot write" in done.stderr
    assert len(log_of(store).splitlines()) == 2


def snapshot(store: Store) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for folder in {store.paths.directory, store.paths.private}:
        for name in os.listdir(folder):
            path = Path(folder, name)
            if path.is_file():
                look = path.stat()
                found[os.fspath(path)] = (look.st_ino, look.st_mtime_ns, path.read_bytes())
    return found


def test_a_dry_run_touches_no_file(store: Store, other: Store) -> None:
    """Every file is as it was, to the nanosecond, and the answer is the one of the run that follows."""
    put(store, "create", id="a")
    put(store, "update", id="a", title="x")
    store.close()
    before = snapshot(store)
    told = compact(other, dry_run=True)
    assert snapshot(store) == before
    done = compact(other)
    assert (told["kinds"], told["lines"], told["dry_run"], done["dry_run"]) == (done["kinds"], 1, True, False)


# What happens meanwhile


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> "Callable[[str, Callable[[], object]], None]":
    """Has something happen once, just after a step of a draft."""
    def arrange(step: str, what: Callable[[], object]) -> None:
        real, waiting = getattr(Draft, step), [what]

        def then(self: Draft) -> None:
            real(self)
            if waiting:
                waiting.pop()()

        monkeypatch.setattr(Draft, step, then)

    return arrange


def test_lines_that_are_written_meanwhile_are_carried_over(
    store: Store, other: Store, meanwhile: "Callable[[str, Callable[[], object]], None]",
) -> None:
    """A write of another process while the new log is prepared is in it; so is what an unknown program appends."""
    put(store, "create", id="a")
    put(store, "update", id="a", title="x")
    cursor = store.ask(lambda cache: feed.read(cache, None, 0)).cursor

    def work() -> None:
        put(other, "create", id="late")
        with open(store.paths.file(PRD.log), "ab") as file:
            file.write(record("foreign", 5, title="f"))

    meanwhile("begin", work)
    assert compact(store)["lines"] == 1
    assert meaning_of(log_of(store)).state.keys() == {"a", "late", "foreign"}
    assert {json.loads(line)["id"] for line in store.find("prd")[0]} == {"a", "late", "foreign"}
    changes = store.ask(lambda cache: feed.read(cache, cursor, 100))
    assert sorted(change.key for change in changes.items) == ["foreign", "late"]


def test_what_an_unknown_program_appends_in_the_last_moment_is_there(
    store: Store, meanwhile: "Callable[[str, Callable[[], object]], None]",
) -> None:
    """A line that goes to the old log after it was copied is put into the new one."""
    put(store, "create", id="a")
    put(store, "update", id="a", title="x")

    def append() -> None:
        with open(store.paths.file(PRD.log), "ab") as file:
            file.write(record("foreign", 5, title="f") + b"\n")

    meanwhile("finish", append)
    assert compact(store)["lines"] == 1
    assert {json.loads(line)["id"] for line in store.find("prd")[0]} == {"a", "foreign"}
    assert len(log_of(store).splitlines()) == 2


@pytest.mark.parametrize("step", ["begin", "finish"])
def test_a_log_that_is_replaced_meanwhile_is_compacted_as_it_is_then(
    store: Store, step: str, meanwhile: "Callable[[str, Callable[[], object]], None]",
) -> None:
    """Where git puts another file in the place of the log, the other file is what counts."""
    put(store, "create", id="a")
    put(store, "update", id="a", title="x")
    others = text(record("b", T1, title="1"), record("b", T2, title="2"), record("c", T1, title="c"))
    meanwhile(step, lambda: write(store.paths.file(PRD.log), others))
    compact(store)
    assert log_of(store) == text(record("b", T2, title="2"), record("c", T1, title="c"))
    assert {json.loads(line)["id"] for line in store.find("prd")[0]} == {"b", "c"}


def test_a_deleted_record_that_comes_back_meanwhile_stays(
    store: Store, other: Store, meanwhile: "Callable[[str, Callable[[], object]], None]",
) -> None:
    """A record that is created again while its tombstone is being pruned is there."""
    put(store, "create", id="a")
    put(store, "delete", id="a")
    meanwhile("begin", lambda: put(other, "create", id="a", title="again"))
    compact(store, prune_tombstones=True)
    assert json.loads(store.get("prd", "a"))["title"] == "again"
    assert len(log_of(store).splitlines()) == 1


def test_an_old_line_of_a_deleted_record_does_not_bring_it_back(
    store: Store, meanwhile: "Callable[[str, Callable[[], object]], None]",
) -> None:
    """Where an older version of a deleted id is appended while its tombstone is being pruned, it stays deleted."""
    put(store, "create", id="a")
    put(store, "delete", id="a")

    def append() -> None:
        with open(store.paths.file(PRD.log), "ab") as file:
            file.write(record("a", 5, title="old") + b"\n")

    meanwhile("begin", append)
    compact(store, prune_tombstones=True)
    assert not any(not row[1] for row in meaning_of(log_of(store)).state.values())
    assert store.find("prd")[0] == []


def test_one_compaction_at_a_time(
    store: Store, other: Store, meanwhile: "Callable[[str, Callable[[], object]], None]",
) -> None:
    """A second one is refused, and can be repeated; the first is not disturbed."""
    put(store, "create", id="a")
    put(store, "update", id="a", title="x")
    refused = []

    def second() -> None:
        with pytest.raises(BusyError) as error:
            compact(other)
        refused.append(error.value.retryable)

    meanwhile("begin", second)
    assert compact(store)["lines"] == 1
    assert refused == [True]
    assert not [name for name in os.listdir(store.paths.directory) if name.startswith(".new-")]


def test_a_cache_that_was_left_behind_follows_without_a_change(store: Store) -> None:
    """With the cache of before (a kill before it was written), nothing but where lines stand is found changed."""
    store.apply([Operation("create", PRD, {"id": f"p{n}", "title": "t"}) for n in range(100)])
    put(store, "delete", id="p3")
    put(store, "update", id="p5", title="x")
    cursor = store.ask(lambda cache: feed.read(cache, None, 0)).cursor
    store.close()
    cache = {path: path.read_bytes() for path in Path(store.paths.directory).glob("store.db*")}
    with Store.open(directory=store.paths.directory) as one:
        assert compact(one, prune_tombstones=True)["lines"] == 3
    for path in Path(store.paths.directory).glob("store.db*"):
        path.unlink()
    for path, content in cache.items():
        path.write_bytes(content)
    with Store.open(directory=store.paths.directory) as one:
        assert one.sync()["prd"].mode == "changed"
        changes = one.ask(lambda cache: feed.read(cache, cursor, 100))
        assert (changes.items, changes.fresh) == ([], False)
        assert len(one.find("prd")[0]) == 99


# Git


def conflict(git: Repository) -> None:
    """Two branches that change one file, and a third commit."""
    (git.root / "file").write_text("base\n")
    git.commit("base")
    git("checkout", "-qb", "other")
    (git.root / "file").write_text("theirs\n")
    git.commit("theirs")
    git("checkout", "-q", "main")
    (git.root / "file").write_text("ours\n")
    git.commit("ours")


@pytest.mark.parametrize(("what", "begin", "end"), [
    ("merge", "merge other", "merge --abort"), ("rebase", "rebase other", "rebase --abort"),
    ("rebase", "rebase --apply other", "rebase --abort"), ("cherry-pick", "cherry-pick other", "cherry-pick --abort"),
    ("revert", "revert --no-edit HEAD~2", "revert --abort"), ("bisect", "bisect start", "bisect reset")])
@pytest.mark.parametrize("tables", [False, True])
def test_an_unfinished_operation_of_git_refuses_it(
    git: Repository, what: str, begin: str, end: str, tables: bool,
) -> None:
    """While git waits for somebody to settle something, nothing is dropped; afterwards it is. A dry run is allowed."""
    conflict(git)
    if tables:  # where references are not kept in files, git is asked
        (git.root / ".git" / "reftable").mkdir()
    put(git.store, "create", id="a")
    put(git.store, "update", id="a", title="x")
    git.commit("records")
    git(*begin.split(), check=False)
    before = git.log.read_bytes()
    assert compact(git.store, dry_run=True)["kinds"]["prd"]["lines"] >= 0
    with pytest.raises(BusyError, match=f"a {what} is under way") as refused:
        compact(git.store)
    assert refused.value.hint
    assert git.log.read_bytes() == before
    git(*end.split())
    assert compact(git.store)["kinds"]["prd"]["lines"] == 1


@pytest.mark.parametrize("name", ["index.lock", "index.stash.123"])
def test_it_is_refused_while_git_is_at_work(git: Repository, name: str) -> None:
    """While git holds its lock, nothing is dropped."""
    put(git.store, "create", id="a")
    put(git.store, "update", id="a", title="x")
    path = git.root / ".git" / name
    path.touch()
    with pytest.raises(BusyError, match="git is at work"):
        compact(git.store)
    path.unlink()
    assert compact(git.store)["kinds"]["prd"]["lines"] == 1


def deleted(git: Repository) -> None:
    """A record whose deletion the branch `other`, on which it lives, does not have."""
    put(git.store, "create", id="a")
    git.commit("create")
    git("branch", "other")
    put(git.store, "delete", id="a")
    git.commit("delete")


def test_a_tombstone_goes_once_every_branch_has_it(git: Repository) -> None:
    """A tombstone stays while a branch knows the record and not its deletion, and goes when that has been merged."""
    deleted(git)
    answer = compact(git.store, prune_tombstones=True)
    assert (answer["kinds"]["prd"]["tombstones"], answer["kinds"]["prd"]["tombstones_kept"]) == (0, 1)
    assert answer["kinds"]["prd"]["lines"] == 1  # what stands before it
    git.commit("compact")
    git("branch", "-f", "other", "main")
    answer = compact(git.store, prune_tombstones=True)
    assert (answer["kinds"]["prd"]["tombstones"], answer["kinds"]["prd"]["tombstones_kept"]) == (1, 0)
    assert log_of(git.store) == b""
    assert git.store.stats()["prd"]["deleted"] == 0


@pytest.mark.parametrize("where", ["stash", "remote", "packed", "not committed", "detached"])
def test_stashes_and_remote_branches_are_looked_at_too(git: Repository, where: str) -> None:
    """A stash, a remote-tracking branch and HEAD itself keep a tombstone that they do not have."""
    put(git.store, "create", id="a")
    assert git.store.flush(PATIENCE_S)
    if where == "detached":
        git("checkout", "-q", "--detach")
    if where == "stash":
        git("stash")
        git("stash", "apply")
    git.commit("create")
    if where == "remote":
        git("update-ref", "refs/remotes/origin/main", "HEAD")
    if where == "packed":
        git("branch", "other")
        git("pack-refs", "--all")
    put(git.store, "delete", id="a")
    if where not in {"not committed", "detached"}:
        git.commit("delete")
    assert compact(git.store, prune_tombstones=True)["kinds"]["prd"]["tombstones_kept"] == 1


def test_a_tombstone_in_dispute_stays(store: Store) -> None:
    """A tombstone stays while a line between conflict markers is about the same record."""
    lines = [record("a", T1, title="a"), record("a", T2, deleted=True), b"<<<<<<< ours", record("a", T1, title="b"),
             b"=======", record("c", T1, title="c"), b">>>>>>> theirs"]
    write(store.paths.file(PRD.log), text(*lines))
    assert compact(store, prune_tombstones=True)["kinds"]["prd"]["tombstones"] == 0
    assert log_of(store) == text(*lines[1:])
