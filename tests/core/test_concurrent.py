"""Concurrent edits made visible: what two changed without seeing one another's is listed until somebody has seen it.

What was seen is worked out here from the logs as they were at each write, and never from what the lines say of it.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.daemons import running_daemon
from tests.merge.repos import DRIVER, Repo

from taskstore import Prd, connect
from taskstore_core import change, concurrent, leveling
from taskstore_core.batch import Operation
from taskstore_core.cache import Cache
from taskstore_core.files import create_folder
from taskstore_core.jsonl import index_line
from taskstore_core.kinds import KINDS, Kind
from taskstore_core.leases import DEFAULT_MS
from taskstore_core.lock import Lock
from taskstore_core.methods import dispatch
from taskstore_core.outbox import Outbox
from taskstore_core.outcome import content
from taskstore_core.store import Store
from taskstore_core.sync import sync_log
from taskstore_merge.merge import merge

PRD = KINDS["prd"]
KEYS = "ab"
EDITS = ("update", "update", "update", "delete", "create")


def text_of(lines: "list[str]") -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def lines_in(data: bytes) -> list[str]:
    return data.decode().split("\n")[:-1]


def row_of(line: str, kind: Kind = PRD) -> Any:
    return index_line(kind, line.encode())


def said(line: str) -> dict[str, object]:
    """What a line says of its record."""
    return {name: value for name, value in content(line).items() if name != "updated_at"}


class Truth:
    """What every line's writer had seen: the lines of the record that stood in the log then, and what they had seen."""

    def __init__(self) -> None:
        self.seen: dict[str, frozenset[str]] = {}
        self.unclaimed: set[str] = set()  # records of which some line is another tool's, or was compacted away

    def wrote(self, line: str, before: "list[str]") -> None:
        of = [each for each in before if row_of(each)[0] == row_of(line)[0]]
        self.seen[line] = frozenset(of).union(*(self.seen[each] for each in of))

    def lost(self, lines: "list[str]", key: str) -> set[str]:
        """The versions that lost to the newest one unseen, and that say what it has never been told."""
        of = [line for line in lines if row_of(line)[0] == key]
        newest = max(of, key=lambda line: row_of(line)[1])
        seen = self.seen[newest] | {newest}
        heads = {line for line in of if line not in seen
                 and not any(line in self.seen[other] for other in of if other not in seen)}
        told = [said(line) for line in seen]
        return {line for line in heads if said(line) not in told}


class Clone:
    """A log, the cache that follows it, and how this clone stamps what it writes."""

    def __init__(self, truth: Truth, folder: str, offset: int) -> None:
        self.truth = truth
        self.offset = offset
        self.lines: list[str] = []
        self.cache = Cache()
        self.path = f"{folder}/{offset}"
        self.put([])

    def put(self, lines: "list[str]") -> None:
        """Replace the log, or append to it, and bring the cache level with it."""
        if lines[:len(self.lines)] == self.lines and os.path.exists(self.path):
            with open(self.path, "ab") as file:
                file.write(text_of(lines[len(self.lines):]))
        else:
            Path(f"{self.path}.new").write_bytes(text_of(lines))
            os.replace(f"{self.path}.new", self.path)
        self.lines = lines
        with self.cache.db:
            sync_log(self.cache, PRD, self.path)

    def stamp(self, before: int, ahead: int) -> int:
        """A stamp that no other clone gives."""
        return (before // 1000 + ahead) * 1000 + self.offset

    def edit(self, verb: str, key: str, title: str, ahead: int) -> None:
        """Write as a store does, where that may be done."""
        known = self.cache.get(PRD, key)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(change, "next_stamp", lambda before: self.stamp(before or 0, ahead))
            if verb == "create" and (known is None or known[1]):
                row = change.create(PRD, {"id": key, "title": title}, known)
            elif known is None or known[1]:
                return
            elif verb == "delete":
                row = change.delete(PRD, key, known)
            elif verb == "foreign":  # a tool that says nothing of what it saw
                row = row_of(json.dumps({"id": key, "title": title, "created_at": 1,
                                         "updated_at": self.stamp(known[0], ahead)}))
                self.truth.unclaimed.add(key)
            else:
                row = change.update(PRD, key, {"title": title}, known)
        self.truth.wrote(row[3], self.lines)
        self.put([*self.lines, row[3]])

    def compact(self, keep: int) -> None:
        """Take out older versions, beyond so many."""
        left: dict[str, int] = {}
        lines = []
        for line in sorted(self.lines, key=lambda line: row_of(line)[1], reverse=True):
            left[row_of(line)[0]] = left.get(row_of(line)[0], keep) - 1
            if left[row_of(line)[0]] >= 0:
                lines.append(line)
            else:
                self.truth.unclaimed.add(row_of(line)[0])
        self.put([line for line in self.lines if line in lines])

    def listed(self, cache: "Cache | None" = None) -> dict[str, list[int]]:
        """The live records of which a version lost, and its stamps."""
        rows = (cache or self.cache).db.execute("SELECT id, concurrent FROM prds WHERE concurrent IS NOT NULL")
        return {key: json.loads(versions) for key, versions in rows}

    def fresh(self) -> dict[str, list[int]]:
        """The same of a cache that is made anew."""
        cache = Cache()
        with cache.db:
            sync_log(cache, PRD, self.path)
        found = self.listed(cache)
        cache.close()
        return found


def by_driver(truth: Truth, base: "list[str]", ours: "list[str]", theirs: "list[str]") -> "list[str]":
    """A merge by the driver. The line that it adds knows what the one that it says again knew."""
    merged = merge(PRD, text_of(base), text_of(ours), text_of(theirs))
    assert not merged.conflicts
    assert merged.data == merge(PRD, text_of(base), text_of(theirs), text_of(ours)).data
    lines = lines_in(merged.data)
    for line in lines:
        if line not in truth.seen:
            key = row_of(line)[0]
            sides = [[one for one in side if row_of(one)[0] == key] for side in (ours, theirs)]
            states = [max(side, key=lambda one: row_of(one)[1]) for side in sides if side]
            (won, *_) = sorted((one for one in states if row_of(one)[2] == row_of(line)[2]),
                               key=lambda one: row_of(one)[1], reverse=True)
            truth.seen[line] = truth.seen[won] | {won}
    return lines


def by_union(_: Truth, base: "list[str]", ours: "list[str]", theirs: "list[str]") -> "list[str]":
    """A merge by git's union."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("ours", "base", "theirs")]
        for path, lines in zip(paths, (ours, base, theirs), strict=True):
            path.write_bytes(text_of(lines))
        done = subprocess.run(["git", "merge-file", "--union", "-p", *map(str, paths)], capture_output=True, check=True)
    return lines_in(done.stdout)


STEPS = st.lists(st.one_of(
    st.tuples(st.just("edit"), st.integers(0, 1), st.sampled_from(EDITS), st.sampled_from(KEYS), st.integers(1, 9)),
    st.tuples(st.just("edit"), st.integers(0, 1), st.sampled_from(EDITS), st.sampled_from(KEYS), st.integers(1, 9)),
    st.tuples(st.just("same"), st.sampled_from(["update", "delete"]), st.sampled_from(KEYS), st.integers(1, 9)),
    st.tuples(st.just("pull"), st.integers(0, 1)),
    st.tuples(st.just("level"))), max_size=24)
ODD = st.one_of(
    st.tuples(st.just("edit"), st.integers(0, 1), st.just("foreign"), st.sampled_from(KEYS), st.integers(1, 9)),
    st.tuples(st.just("compact"), st.integers(0, 1), st.integers(1, 3)))


def play(steps: "list[tuple[Any, ...]]", how: "Any") -> None:
    """Two clones that write, pull from one another and are asked what was concurrent."""
    with tempfile.TemporaryDirectory() as folder:
        truth = Truth()
        clones = [Clone(truth, folder, 100), Clone(truth, folder, 500)]
        _play(steps, how, truth, clones)
        for clone in clones:
            clone.cache.close()


def _play(steps: "list[tuple[Any, ...]]", how: "Any", truth: Truth, clones: "list[Clone]") -> None:
    bases: list[list[str]] = [[]]  # what both had in common last

    def pull(into: int) -> None:
        ours, theirs = clones[into], clones[1 - into]
        took = theirs.lines
        ours.put(how(truth, bases[-1], ours.lines, took) if took != bases[-1] else ours.lines)
        bases.append(took)

    for key in KEYS[:1]:
        clones[0].edit("create", key, "first", 1)
        pull(1)
    for number, step in enumerate(steps):
        match step:
            case ("edit", who, verb, key, ahead):
                clones[who].edit(verb, key, f"title {number}", ahead)
            case ("same", verb, key, ahead):
                for clone in clones:
                    clone.edit(verb, key, f"title {number}", ahead)
            case ("pull", who):
                pull(who)
            case ("compact", who, keep):
                clones[who].compact(keep)
            case _:
                pull(0)
                pull(1)
                assert clones[0].listed() == clones[1].listed()
        for clone in clones:
            check(clone, truth)


def check(clone: Clone, truth: Truth) -> None:
    listed = clone.listed()
    assert clone.fresh() == listed
    wanted = {}
    for key in {row_of(line)[0] for line in clone.lines}:
        known = clone.cache.get(PRD, key)
        lost = truth.lost(clone.lines, key)
        if lost and known is not None and not known[1]:
            wanted[key] = sorted((row_of(line)[1] for line in lost), reverse=True)
    for key in truth.unclaimed:  # of these less may be known, and never more
        assert set(listed.pop(key, [])) <= set(wanted.pop(key, []))
    assert listed == wanted


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_exactly_what_both_changed_is_listed(steps: "list[tuple[Any, ...]]") -> None:
    """With the driver, each clone lists the live records of which a version lost unseen, whatever came before."""
    play(steps, by_driver)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_exactly_what_both_changed_is_listed_after_a_union(steps: "list[tuple[Any, ...]]") -> None:
    """Where git's union merged, in which the newest version counts, deletion or not, the same holds."""
    play(steps, by_union)


@example([[("edit", 1, "update", "a", 2), *[("edit", 0, "foreign", "a", 1)] * 2, ("pull", 0)]])
@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(STEPS.map(lambda steps: steps[:3]), st.lists(ODD, max_size=1)), max_size=8))
def test_nothing_is_claimed_of_what_cannot_be_known(steps: "list[list[tuple[Any, ...]]]") -> None:
    """Lines of a tool that does not say what it saw, and lines that are gone, never make a record look concurrent."""
    play([step for some in steps for step in some], by_driver)


# Through real merges


def calm(repo: Repo) -> Repo:
    """Have git's last work be long ago."""
    create_folder(os.fspath(repo.root / ".git" / "taskstore"))
    (repo.root / ".git" / "taskstore" / "busy").unlink(missing_ok=True)
    long_ago = time.time_ns() - 3600 * 10**9
    os.utime(repo.root / ".git", ns=(long_ago, long_ago))
    return repo


def write(repo: Repo, *operations: Operation) -> None:
    with calm(repo).open() as store:
        store.apply(operations)
        assert not store.pending(PRD)
    repo.commit("changed")


def of(verb: str, key: str, kind: Kind = PRD, **fields: object) -> Operation:
    return Operation(verb, kind, {kind.key: key, **fields})


def listed(store: Store, kind: str = "prd") -> list[str]:
    answer: Any = dispatch(store, "record.list", {"kind": kind, "concurrent": True})
    return [json.loads(line)["id"] for line in answer["items"]]


def marked(store: Store, key: str, kind: str = "prd") -> list[str]:
    """The titles of the versions that history marks; "-" for a deletion."""
    answer: Any = dispatch(store, "record.history", {"kind": kind, "id": key})
    return [json.loads(answer["items"][place]).get("title", "-") for place in answer["lost"]]


class Pair:
    """Two clones with PRDs a, b and c; `pull` takes each one's commits into the other."""

    def __init__(self, folder: Path, *, driver: bool) -> None:
        self.driver = DRIVER if driver else None
        self.one = Repo.make(folder / "one", driver=self.driver)
        if not driver:
            (self.one.root / ".taskstore" / ".gitattributes").write_text("*.jsonl merge=union\n")
            self.one.commit("union")
        write(self.one, *(of("create", key, title="first") for key in "abc"))
        self.two = self.one.clone(folder / "two", driver=self.driver)
        self.both = (self.one, self.two)

    def pull(self) -> None:
        """Bring both level."""
        self.two.git("pull", "-q", "--no-rebase", "--no-edit")
        self.one.git("pull", "-q", "--ff-only", os.fspath(self.two.root), "main")
        assert self.one.read() == self.two.read()


@pytest.fixture(params=["driver", "union"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    return Pair(tmp_path, driver=request.param == "driver")


def test_what_lost_is_listed_in_both_clones_until_somebody_goes_on(pair: Pair) -> None:
    """After a merge both list it, and mark in its history what lost; a later update ends the one, not the other."""
    write(pair.one, of("update", "a", title="one's"), of("update", "b", title="one's"))
    write(pair.two, of("update", "a", title="two's"))
    write(pair.two, of("update", "a", title="two's again"), of("update", "c", title="two's"))
    pair.pull()
    for repo in pair.both:
        with repo.open() as store:
            assert listed(store) == ["a"]
            assert json.loads(store.get("prd", "a"))["title"] == "two's again"
            assert marked(store, "a") == ["one's"]
            assert marked(store, "b") == marked(store, "c") == []
    write(pair.one, of("update", "a", title="both"))
    pair.pull()
    for repo in pair.both:
        with repo.open() as store:
            assert listed(store) == []
            assert marked(store, "a") == ["one's"]
            bases = json.loads(store.get("prd", "a"))["base_at"]
            stamps = {json.loads(line)["title"]: json.loads(line)["updated_at"] for line in store.history("prd", "a")}
            assert bases == [stamps["two's again"], stamps["one's"]]


def test_an_update_made_before_the_merge_settles_nothing(pair: Pair) -> None:
    """Who went on from what was to win, without having seen the other's, has not seen it."""
    write(pair.one, of("update", "a", title="one's"))
    for number in range(3):
        write(pair.two, of("update", "a", title=f"two's {number}"))
    pair.pull()
    with pair.one.open() as store:
        assert listed(store) == ["a"]
        assert marked(store, "a") == ["one's"]


def test_the_longer_branch_may_lose(pair: Pair) -> None:
    """All versions of the branch that lost are marked; the last of them is the one that the next update names."""
    write(pair.one, of("update", "a", title="one's 1"))
    write(pair.one, of("update", "a", title="one's 2"))
    write(pair.two, of("update", "a", title="two's"))
    pair.pull()
    with pair.two.open() as store:
        assert marked(store, "a") == ["one's 1", "one's 2"]
        dispatch(store, "record.restore", {"kind": "prd", "id": "a", "version": json.loads(
            next(line for line in store.history("prd", "a") if "one's 2" in line))["updated_at"]})
        assert listed(store) == []
        assert json.loads(store.get("prd", "a"))["title"] == "one's 2"
        assert len(json.loads(store.get("prd", "a"))["base_at"]) == 2


def test_the_same_said_twice_is_nobody_s_loss(pair: Pair) -> None:
    """Where both sides changed a record alike, or one came to what the other had said before, nothing is listed."""
    for repo in pair.both:
        write(repo, of("update", "a", title="the same"), of("delete", "c"))
    write(pair.one, of("update", "a", title="and more"))
    write(pair.two, of("update", "b", title="there"))
    write(pair.two, of("update", "b", title="first"))
    write(pair.one, of("update", "b", title="another"))
    pair.pull()
    with pair.one.open() as store:
        if json.loads(store.get("prd", "a"))["title"] == "and more":
            assert "a" not in listed(store)
        assert "b" not in listed(store)
        assert marked(store, "b") == marked(store, "c") == []


def test_a_deletion_against_an_edit(pair: Pair) -> None:
    """The one that lost is marked. With the driver that is the edit, of a record that is gone; else what was older."""
    write(pair.one, of("delete", "a"))
    write(pair.two, of("update", "a", title="two's"))
    pair.pull()
    for repo in pair.both:
        with repo.open() as store:
            if pair.driver:
                assert listed(store) == []
                assert marked(store, "a") == ["two's"]
                dispatch(store, "record.restore", {"kind": "prd", "id": "a"})
                assert json.loads(store.get("prd", "a"))["title"] == "two's"
                assert listed(store) == []
            else:
                assert listed(store) == ["a"]
                assert marked(store, "a") == ["-"]


def test_created_in_both(pair: Pair) -> None:
    """Two records that were given the same id are two edits of one."""
    write(pair.one, of("create", "x", title="one's"))
    write(pair.two, of("create", "x", title="two's"))
    pair.pull()
    for repo in pair.both:
        with repo.open() as store:
            assert listed(store) == ["x"]
            assert marked(store, "x") == ["one's"]


def test_lines_in_conflict(tmp_path: Path) -> None:
    """Two versions with the same stamp: what readers see beats the other one until somebody chose."""
    pair = Pair(tmp_path, driver=True)
    before = json.loads(pair.one.read().splitlines()[0])
    for repo, title in zip(pair.both, ("one's", "two's"), strict=True):
        edit = {**before, "title": title, "updated_at": 2**45, "base_at": before["updated_at"]}
        repo.append(json.dumps(edit).encode())
    pair.two.run("pull", "-q", "--no-rebase", "--no-edit")
    with pair.two.open() as store:
        assert listed(store) == [before["id"]]
        dispatch(store, "store.resolve_conflicts", {"take": "newest"})
        assert listed(store) == []
        assert len(marked(store, before["id"])) == 1


def test_through_a_daemon_and_without(tmp_path: Path) -> None:
    """Both clients of the library, over a socket and on the files, tell the same, in pages too."""
    pair = Pair(tmp_path, driver=True)
    for repo, title in zip(pair.both, ("one's", "two's"), strict=True):
        write(repo, *(of("update", key, title=title) for key in "ab"))
    pair.pull()
    directory = os.fspath(pair.one.root / ".taskstore")
    for daemon in (False, True):
        with running_daemon(directory) if daemon else tempfile.TemporaryDirectory(), \
                connect(directory=directory, daemon=daemon) as store:
            assert [prd.id for prd in store.list(Prd, concurrent=True)] == ["a", "b"]
            assert [prd.id for prd in store.list_prds(concurrent=True, title="two's")] == ["a", "b"]
            page = store.page(Prd, limit=1, concurrent=True)
            assert page.cursor is not None
            rest = store.page(Prd, limit=5, concurrent=True, cursor=page.cursor)
            assert [prd.id for prd in (*page.items, *rest.items)] == ["a", "b"]
            assert [(one.record.title, one.lost) for one in store.history(Prd, "a") if one.record is not None] == [
                ("first", False), ("one's", True), ("two's", False)]
            assert [one.id for one in store.list(Prd)] == ["a", "b", "c"]


def compacted(store: Store) -> int:
    """How many lines of PRDs a compaction drops."""
    answer: Any = store.compact()
    return int(answer["kinds"]["prd"]["lines"])


def test_compaction_leaves_what_nobody_has_seen(tmp_path: Path) -> None:
    """A record that is listed keeps all its lines, also in a branch that is compacted; once settled they may go."""
    pair = Pair(tmp_path, driver=True)
    for repo, title in zip(pair.both, ("one's", "two's"), strict=True):
        write(repo, of("update", "a", title=title), of("update", "b", title="the same"))
    write(pair.two, of("update", "c", title="two's"))
    pair.pull()
    with calm(pair.one).open() as store:
        assert compacted(store) == 3  # b's first and one that says the same, c's first
        assert listed(store) == ["a"]
        store.sync(full=True)
        assert listed(store) == ["a"]
        assert marked(store, "a") == ["one's"]
        dispatch(store, "record.update", {"kind": "prd", "id": "a", "set": {"title": "both"}})
        assert listed(store) == []
        assert compacted(store) == 3
        assert len(store.history("prd", "a")) == 1


def test_compaction_drops_what_a_deletion_beat(tmp_path: Path) -> None:
    """What is deleted is not listed, and its lines go as ever."""
    pair = Pair(tmp_path, driver=True)
    write(pair.one, of("delete", "a"))
    write(pair.two, of("update", "a", title="two's"))
    pair.pull()
    with calm(pair.one).open() as store:
        store.compact()
        assert len(store.history("prd", "a")) == 1


# Within one clone


def test_the_work_of_one_clone_is_never_concurrent(store: Store, other: Store) -> None:
    """Whatever agents of one store do in turn, each version names the one before it and nothing else."""
    def call(opened: Store, method: str, **parameters: object) -> Any:
        answer = dispatch(opened, method, parameters)
        return json.loads(answer) if isinstance(answer, str) else answer

    spec = call(store, "record.create", kind="task_spec", record={"prd_id": "p", "phase_name": "N"})["id"]
    for end in ("release", "fail"):
        token = call(other, "task_spec.claim", by="ann", id=spec)["token"]
        call(store, "task_spec.heartbeat", id=spec, by="ann", token=token, lease_ms=DEFAULT_MS)
        call(other, f"task_spec.{end}", id=spec, by="ann", token=token, op=f"op-{end}")
        call(store, "record.update", kind="task_spec", id=spec, set={"status": "pending"})
    run = call(other, "record.create", kind="execution", record={"ts_id": spec})["id"]
    call(store, "record.update", kind="execution", id=run, set={"status": "complete"})
    need = call(store, "record.create", kind="dependency",
                record={"from_exec_id": run, "to_exec_id": "e", "dependency_type": "query"})["id"]
    call(other, "dependency.resolve", id=need, payload="done")
    call(store, "record.delete", kind="task_spec", id=spec)
    call(other, "record.restore", kind="task_spec", id=spec)
    call(store, "record.delete", kind="task_spec", id=spec)
    call(other, "record.create", kind="task_spec", record={"id": spec, "prd_id": "p", "phase_name": "again"})
    for kind, key in (("task_spec", spec), ("execution", run), ("dependency", need)):
        rows = [row_of(line, KINDS[kind]) for line in store.history(kind, key)]
        assert len(rows) > 1
        assert [row[-1] for row in rows] == [None, *(row[1] for row in rows[:-1])]
        assert listed(store, kind) == listed(other, kind) == []
        assert concurrent.lost(KINDS[kind], rows) == []


def test_many_in_one_apply(store: Store) -> None:
    """Operations that follow one another in one apply see what those before them wrote."""
    store.apply([of("create", "x", title="1"), of("update", "x", title="2"), of("delete", "x"),
                 of("create", "x", title="3")])
    rows = [row_of(line) for line in store.history("prd", "x")]
    assert [row[-1] for row in rows] == [None, *(row[1] for row in rows[:-1])]
    assert listed(store) == []


def test_a_record_given_back_as_it_was_read(store: Store) -> None:
    """What a line says of its base is the store's to say: a caller's is left out, on create and on update."""
    store.apply([of("create", "x", title="1", base_at=5), of("update", "x", title="2")])
    given = json.loads(store.get("prd", "x"))
    store.apply([Operation("update", PRD, {**given, "title": "3"})])
    rows = [row_of(line) for line in store.history("prd", "x")]
    assert [row[-1] for row in rows] == [None, *(row[1] for row in rows[:-1])]


def test_imported_lines(store: Store) -> None:
    """Imports claim nothing by themselves; one that says what it was based on is held against what is here."""
    old = {"id": "x", "title": "T", "created_at": 5, "updated_at": 5}
    store.apply([Operation("import", PRD, old)])
    store.apply([Operation("import", PRD, {**old, "updated_at": 7, "title": "later"})])
    assert listed(store) == []
    (ours,) = store.apply([of("update", "x", title="ours")])
    store.apply([Operation("import", PRD, {**old, "updated_at": 2**50, "title": "elsewhere"})])
    assert listed(store) == []
    store.apply([Operation("import", PRD, {**old, "updated_at": 2**50 + 1, "title": "theirs", "base_at": 7})])
    assert listed(store) == ["x"]
    assert marked(store, "x") == ["elsewhere"]  # which may be based on ours
    assert ours.version in {row_of(line)[1] for line in store.history("prd", "x")}


def test_lines_that_wait_for_git(store: Store) -> None:
    """A line that waits in the outbox counts, be it the one that wins or the one that lost."""
    store.apply([of("create", "x", title="first"), of("create", "y", title="first")])
    firsts = {key: json.loads(store.get("prd", key)) for key in "xy"}
    store.close()

    def line(key: str, title: str, ahead: int) -> str:
        first = firsts[key]
        return json.dumps({**first, "title": title, "updated_at": first["updated_at"] + ahead,
                           "base_at": first["updated_at"]}, separators=(",", ":"))

    log = Path(store.paths.file(PRD.log))
    with Lock(store.paths.local("lock")):
        outbox = Outbox(store.paths.local("outbox"))
        outbox.append([[(PRD.log, line("x", "waits", 7)), (PRD.log, line("y", "waits", 5))]])
        outbox.close()
        cache = Cache()
        outbox = Outbox(store.paths.local("outbox"), writable=False)
        leveling.bring_level(store.paths, cache, outbox, {}, KINDS.values())
        with log.open("ab") as file:  # somebody else, while they wait
            file.write(text_of([line("x", "in the log", 5), line("y", "in the log", 7)]))
        leveling.bring_level(store.paths, cache, outbox, {}, KINDS.values())
        outbox.close()
        assert [key for key in "xy" if (cache.get(PRD, key) or ())[3:] != (None,)] == ["x", "y"]
        cache.close()
    assert listed(store) == ["x", "y"]


def test_the_list_is_found_by_its_index(store: Store) -> None:
    """Asking for what is concurrent looks at nothing else, however many records there are."""
    for kind in KINDS.values():
        plan = store.ask(lambda cache, kind=kind: list(cache.db.execute(  # type: ignore[misc]
            f"EXPLAIN QUERY PLAN SELECT id FROM {kind.plural}_rows WHERE NOT deleted AND concurrent > ''")))  # noqa: S608 - names from our own table
        assert f"{kind.plural}_concurrent" in str(plan)


@pytest.mark.parametrize("base", [2**60, -2**60, "5", 1.5, True, None, [], ["5"], {}, 10, 11, [10, 12], "null"])
def test_what_is_no_base_says_nothing(base: object) -> None:
    """A base that is no stamp, or no older than the line itself, is as none."""
    row = row_of(json.dumps({"id": "x", "updated_at": 10, "base_at": base}))
    assert row[-1] is None
    assert concurrent.bases(row) == []


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(1, 9), st.none() | st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=3))))
def test_any_bases_at_all(lines: "list[tuple[int, object]]") -> None:
    """Whatever lines say of their bases, the newest never counts as lost, and asking ends."""
    rows = [row_of(json.dumps({"id": "x", "n": n, "updated_at": version, "base_at": base}))
            for n, (version, base) in enumerate(sorted(lines, key=lambda one: one[0]))]
    assert len(rows) - 1 not in concurrent.lost(PRD, rows)
    noted = concurrent.noted(PRD, rows)
    assert noted is None or max(json.loads(noted)) <= rows[-1][1]
