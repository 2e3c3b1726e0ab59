"""While git is at work lines wait, and what it swallowed is found again; real git throughout."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import Site

from taskstore_core import git_objects, leveling, passes, quiet, reconcile
from taskstore_core.batch import Operation
from taskstore_core.errors import BusyError
from taskstore_core.kept import Logs
from taskstore_core.kinds import KINDS
from taskstore_core.log import Log
from taskstore_core.paths import Paths, discover
from taskstore_core.quiet import PATIENCE_MS, QUIET_MS, STILL_LOOKS, Quiet
from taskstore_core.source import Source
from taskstore_core.store import Store

PRD = KINDS["prd"]
LONG_S = 60


def create(store: Store, key: str, **fields: object) -> None:
    store.apply([Operation("create", PRD, {"id": key, "title": "t", **fields})])


def ids(store: Store) -> set[str]:
    return {json.loads(line)["id"] for line in store.find(PRD)[0]}


def logged(site: Site) -> list[str]:
    """The ids in the log, one for each line."""
    return [json.loads(line)["id"] for line in site.lines()]


@pytest.fixture(name="lock")
def fixture_lock(site: Site) -> Path:
    """A git command holds the index."""
    lock = site.root / ".git" / "index.lock"
    lock.touch()
    return lock


def replace(path: Path, data: bytes) -> None:
    """What git does to a file: another one in its place."""
    beside = path.with_suffix(".other")
    beside.write_bytes(data)
    beside.replace(path)


# Waiting


@pytest.mark.parametrize("name", ["index.lock", "index.stash.123", "index.stash.123.lock"])
def test_lines_wait_while_git_is_at_work(site: Site, name: str) -> None:
    """What is written meanwhile is durable and read by all, and reaches its log when git is quiet, in order, once."""
    lock = site.root / ".git" / name
    lock.touch()
    with site.open() as store:
        for number in range(5):
            create(store, f"p{number}")
            assert ids(store) == set(site.ids()) == {f"p{n}" for n in range(number + 1)}
        assert json.loads(store.get(PRD, "p3"))["id"] == "p3"
        assert logged(site) == []
        assert not store.flush(0)
        lock.unlink()
        assert ids(store) == {f"p{n}" for n in range(5)}
        assert store.flush(LONG_S)
    assert logged(site) == [f"p{n}" for n in range(5)]
    assert not (site.private / "busy").exists()


def test_another_process_puts_them_into_their_log(site: Site, lock: Path) -> None:
    """Whoever comes when git is quiet appends what a process left waiting that is no longer there."""
    with site.open() as store:
        create(store, "p1")
    lock.unlink()
    site.calm()
    assert site.ids() == ["p1"]
    assert logged(site) == ["p1"]


def test_updates_of_what_waits(site: Site, lock: Path) -> None:
    """A record that waits can be changed, deleted and conflicted over like any other."""
    with site.open() as store:
        create(store, "p1")
        create(store, "p2")
        store.apply([Operation("update", PRD, {"id": "p1", "title": "new"})])
        store.apply([Operation("delete", PRD, {"id": "p2"})])
        assert json.loads(store.get(PRD, "p1"))["title"] == "new"
        assert ids(store) == {"p1"}
        lock.unlink()
        assert store.flush(LONG_S)
        assert len(store.history(PRD, "p1")) == 2
    assert site.ids() == ["p1"]


def test_what_waits_outlives_a_checkout(site: Site, git: Callable[..., str]) -> None:
    """Lines that wait while git puts another version in the log's place lie over that one."""
    with site.open() as store:
        create(store, "old")
    git("commit", "-qam", "old")
    before = git("show", "HEAD~:.taskstore/prds.jsonl")
    lock = site.root / ".git" / "index.lock"
    lock.touch()
    with site.open() as store:
        for number in range(3):
            create(store, f"p{number}")
        replace(site.log(), before.encode())
        assert ids(store) == {"p0", "p1", "p2"}
        create(store, "p3")
        lock.unlink()
        assert store.flush(LONG_S)
    assert logged(site) == ["p0", "p1", "p2", "p3"]


def test_what_waits_outlives_a_rebuild(site: Site, git: Callable[..., str]) -> None:
    """The same where the log is so different that the cache is built anew."""
    site.seed(200)
    git("commit", "-qam", "many")
    lock = site.root / ".git" / "index.lock"
    lock.touch()
    with site.open() as store:
        create(store, "p1")
        replace(site.log(), b"".join(b'{"id":"other-%d","title":"t","updated_at":1}\n' % n for n in range(200)))
        assert len(ids(store)) == 201
        assert "p1" in ids(store)


def test_what_waits_lies_over_a_line_of_the_same_version(site: Site, lock: Path) -> None:
    """Of equal versions the later line counts, and what waits will be the later one, whoever read it before."""
    with site.open() as store:
        create(store, "p1")
        line = store.get(PRD, "p1")
        with site.log().open("a") as log:
            log.write(line.replace('"t"', '"other"') + "\n")
        assert store.get(PRD, "p1") == line
        lock.unlink()
        assert store.flush(LONG_S)
        assert store.get(PRD, "p1") == line
    assert logged(site) == ["p1", "p1"]


def test_a_lock_that_a_crash_left(site: Site, lock: Path) -> None:
    """A lock that has been there for half a minute keeps nobody waiting."""
    long_ago = time.time() - PATIENCE_MS / 1000 - 1
    os.utime(lock, (long_ago, long_ago))
    os.utime(lock.parent, (long_ago, long_ago))
    with site.open() as store:
        create(store, "p1")
    assert logged(site) == ["p1"]


@pytest.mark.parametrize(("age_ms", "waits"), [
    (0, True), (QUIET_MS / 2, True), (QUIET_MS * 2, False), (-10_000, False)])
def test_the_time_after_git_was_at_work(site: Site, age_ms: float, waits: bool,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is taken to be at work until nothing has changed in its folder for a while; a clock set back says nothing."""
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    stamp = now - int(age_ms * 1e6)
    os.utime(site.root / ".git", ns=(stamp, stamp))
    assert Quiet(discover(str(site.root))).is_busy() is waits


def test_something_that_never_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something touches git's folder again and again, lines are appended in the end."""
    monkeypatch.setattr(quiet, "QUIET_MS", 3_600_000)  # however slow the machine is, it was a moment ago
    with site.open() as store:
        (site.root / ".git" / "COMMIT_EDITMSG").touch()
        create(store, "p1")
        noted = time.time() - PATIENCE_MS / 1000 - 1
        os.utime(site.private / "busy", (noted, noted))
        (site.root / ".git" / "COMMIT_EDITMSG").write_text("again")
        store.sync()
    assert logged(site) == ["p1"]


def test_no_log_is_made_while_git_is_at_work(site: Site, lock: Path) -> None:
    """A log that is missing stays so until git is quiet: making it would make a checkout fail."""
    site.log().unlink()
    with site.open() as store:
        create(store, "p1")
        assert not site.log().exists()
        assert ids(store) == {"p1"}
        lock.unlink()
        assert store.flush(LONG_S)
    assert logged(site) == ["p1"]


def test_no_log_is_made_though_git_begins_only_then(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git that begins after it was looked whether it is at work is seen when a missing log would be made."""
    site.log().unlink()
    real = Logs.open

    def begun(logs: Logs, name: str) -> Log:
        (site.root / ".git" / "index.lock").touch()
        return real(logs, name)

    with site.open() as store:
        site.calm()
        monkeypatch.setattr(Logs, "open", begun)
        with pytest.raises(BusyError, match="git is at work"):
            create(store, "p1")
    assert not site.log().exists()


# What git swallowed


def test_a_line_that_git_swallowed_comes_back(site: Site, git: Callable[..., str]) -> None:
    """A line that was acknowledged, and that neither log nor git has a moment later, is written anew, once."""
    before = site.log().read_bytes()
    with site.open() as store:
        create(store, "p1")
        assert logged(site) == ["p1"]
        replace(site.log(), before)
        assert ids(store) == {"p1"}
        assert ids(store) == {"p1"}
    assert logged(site) == site.ids() == ["p1"]
    assert git("status", "--porcelain") == "M .taskstore/prds.jsonl"


def test_a_write_sees_what_git_swallowed(site: Site, git: Callable[..., str]) -> None:
    """Whoever writes next decides on what was acknowledged, whether or not somebody read before."""
    before = site.log().read_bytes()
    with site.open() as store:
        create(store, "p1")
        replace(site.log(), before)
        store.apply([Operation("update", PRD, {"id": "p1", "title": "new"})])
        assert [json.loads(line)["title"] for line in store.history(PRD, "p1")] == ["t", "new"]
    assert logged(site) == ["p1", "p1"]
    assert git("diff", "--numstat").startswith("2\t0\t")


@pytest.mark.parametrize("when", ["restore", "drain"])
def test_swallowed_behind_the_back_of_a_pass(site: Site, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch,
                                             when: str) -> None:
    """What git swallows once a pass has looked for such lines, or has appended its own, is found by the next."""
    with site.open() as store, site.open() as other:
        create(store, "first")
        git("commit", "-qam", "first")
        site.calm()
        assert ids(store) == ids(other) == {"first"}
        create(store, "x")
        lines = b"\n".join(site.lines()[:1]) + b"\n"
        real = leveling.bring_level

        def swallowed(*arguments: Any, **more: Any) -> Any:
            monkeypatch.undo()
            replace(site.log(), lines)
            site.calm(forget=False)
            return real(*arguments, **more)

        if when == "drain":
            monkeypatch.setattr(passes, "bring_level", swallowed)
            create(other, "y")
        else:
            site.log("task_spec").write_bytes(b"")
            monkeypatch.setattr(passes, "bring_level", swallowed)
            other.sync()
        assert store.flush(LONG_S)
    assert sorted(logged(site)) == (["first", "x", "y"] if when == "drain" else ["first", "x"])


def test_a_line_in_a_stash_is_gits(site: Site, git: Callable[..., str]) -> None:
    """What somebody stashes is away until it is popped, and is then there once."""
    with site.open() as store:
        create(store, "p1")
        git("stash")
        site.calm()
        assert ids(store) == set()
        git("stash", "pop")
        assert ids(store) == {"p1"}
        assert store.flush(LONG_S)
    assert logged(site) == ["p1"]


def test_a_stash_in_a_partial_clone_that_is_offline(site: Site, git: Callable[..., str], tmp_path: Path) -> None:
    """Where git lacks what other branches have of a log, and cannot fetch it, it says what it has all the same."""
    for branch in ("early", "late"):
        git("checkout", "-qb", branch, "main")
        site.log().write_text(f'{{"id":"{branch}","title":"t","updated_at":1}}\n')
        git("commit", "-qam", branch)
    git("checkout", "-q", "main")
    git("config", "uploadpack.allowFilter", "true")
    git("clone", "-q", "--filter=blob:none", f"file://{site.root}", os.fspath(tmp_path / "clone"))
    site.root.rename(tmp_path / "away")
    clone = Site(tmp_path / "clone")
    clone.calm()
    with clone.open() as store:
        create(store, "p1")
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@x", "stash"], cwd=clone.root, check=True)
        clone.calm()
        assert ids(store) == set()
    assert logged(clone) == []


@pytest.mark.parametrize("staged", [False, True])
def test_a_line_on_another_branch_is_gits(site: Site, git: Callable[..., str], staged: bool) -> None:
    """What was committed or staged elsewhere a moment ago does not come along to another branch."""
    with site.open() as store:
        create(store, "p1")
        git("checkout", "-qb", "other")
        git("add", ".")
        if not staged:
            git("commit", "-qm", "other")
            git("checkout", "-q", "main")
        else:
            replace(site.log(), b"")
        site.calm()
        assert ids(store) == set()
        assert store.flush(LONG_S)
    assert logged(site) == []


def test_a_line_that_a_person_threw_away_stays_away(site: Site, git: Callable[..., str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written longer ago than git could have raced with does not come back by itself."""
    monkeypatch.setattr(reconcile, "SLACK_MS", -3_600_000)
    with site.open() as store:
        create(store, "p1")
        git("checkout", "--", ".taskstore/prds.jsonl")
        site.calm()
        assert ids(store) == set()
        assert store.flush(LONG_S)
    assert logged(site) == []


@pytest.mark.parametrize("is_away", [True, False])
def test_what_befell_another_log_brings_nothing_back(site: Site, git: Callable[..., str], is_away: bool,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person threw away long after it was written stays away, whenever another log went or was replaced."""
    with site.open() as store:
        create(store, "p1")
        monkeypatch.setattr(reconcile, "SLACK_MS", -3_600_000)  # as if it had been an hour ago
        git("checkout", "--", ".taskstore/prds.jsonl")
        other = site.log("workflow")
        if is_away:
            other.unlink()
        else:  # before the line was written, and nobody has looked since
            replace(other, b"\n")
            look = Source.__init__

            def old(source: Source, path: str) -> None:
                look(source, path)
                if path == str(other):
                    source.signature = (*source.signature[:4], source.signature[4] - 2 * 3600 * 10**9)

            monkeypatch.setattr(Source, "__init__", old)
        site.calm()
        assert ids(store) == set()
        assert store.flush(LONG_S)
    assert logged(site) == []


def test_a_line_that_a_person_edited(site: Site, git: Callable[..., str]) -> None:
    """A line that was changed where it stood is not written anew beside its other version."""
    assert git("status", "--porcelain") == ""
    site.calm()
    with site.open() as store:
        create(store, "p1")
        assert logged(site) == ["p1"]
        site.log().write_bytes(site.log().read_bytes().replace(b'"t"', b'"edited"'))
        assert json.loads(store.get(PRD, "p1"))["title"] == "edited"
    assert logged(site) == ["p1"]


@pytest.mark.parametrize("written", [
    '{"id":"%s","title":"edited"', '{"title":"edited","id":"%s"', '{"id": "%s","title":"edited"'])
@pytest.mark.parametrize(("count", "name"), [
    (3, "p"), (60, "p"), (3, 'quoted"'), (3, "back\\slash"), (3, "h\u00fct,te")])
def test_lines_that_a_person_edited_beside_others(
        site: Site, git: Callable[..., str], count: int, name: str, written: str) -> None:
    """The same for several lines at once, of which one was swallowed, however they are written."""
    assert git("status", "--porcelain") == ""
    site.calm()
    with site.open() as store:
        store.apply([Operation("create", PRD, {"id": f"{name}{number}", "title": "t"}) for number in range(count)])
        lines = site.lines()[1:]
        for number, line in enumerate(lines):
            key = line[len(b'{"id":"'):line.index(b'","title')]
            lines[number] = line.replace(b'{"id":"%s","title":"t"' % key, written.encode() % key)
        replace(site.log(), b"".join(line + b"\n" for line in lines))
        assert json.loads(store.get(PRD, f"{name}1"))["title"] == "edited"
        assert json.loads(store.get(PRD, f"{name}0"))["title"] == "t"
    assert logged(site) == [f"{name}{number}" for number in (*range(1, count), 0)]


def test_a_log_is_gone_through_once_for_all_that_is_missing(site: Site, git: Callable[..., str],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A stash may take thousands of lines away at once, and the lock is held while they are looked for."""
    read = Source.read
    walks: list[int] = []

    class Walked(bytes):
        def split(self, *words: Any) -> list[bytes]:
            walks[-1] += 1
            return super().split(*words)

    monkeypatch.setattr(Source, "read", lambda source, start, end: Walked(read(source, start, end)))
    for count in (30, 300):
        with site.open() as store:
            store.apply([Operation("create", PRD, {"id": f"p{number}", "title": "t"}) for number in range(count)])
            git("stash")
            site.calm()
            walks.append(0)
            assert ids(store) == set()
            git("stash", "drop")
            site.calm()
    assert walks[0] == walks[1]


def test_swallowed_while_git_is_seen_at_work(site: Site, git: Callable[..., str]) -> None:
    """What went before anybody could look, as git was still at work, is looked for when it is quiet."""
    before = site.log().read_bytes()
    with site.open() as store:
        create(store, "p1")
        lock = site.root / ".git" / "index.lock"
        lock.touch()
        replace(site.log(), before)
        create(store, "p2")
        assert "p2" in ids(store)
        lock.unlink()
        assert store.flush(LONG_S)
        assert ids(store) == {"p1", "p2"}
    assert sorted(logged(site)) == ["p1", "p2"]
    assert git("status", "--porcelain") == "M .taskstore/prds.jsonl"


def test_a_log_that_is_away_for_long(site: Site, git: Callable[..., str]) -> None:
    """A line that git swallowed as it took the log away comes back with the log, however much later that is."""
    before = git("show", "HEAD:.taskstore/prds.jsonl").encode()
    with site.open() as store:
        create(store, "p1")
        lock = site.root / ".git" / "index.lock"
        lock.touch()
        site.log().unlink()
        store.sync()
        lock.unlink()
        site.calm(forget=False)
        assert ids(store) == set()
        assert not store.is_waiting
    site.age()
    noted = time.time() - 3600
    os.utime(site.private / "busy-prds.jsonl", (noted, noted))
    site.log().write_bytes(before)
    assert site.ids() == ["p1"]
    assert logged(site) == ["p1"]


def test_a_log_that_is_away_keeps_nothing_of_the_others_in_mind(site: Site, git: Callable[..., str]) -> None:
    """While one log is away for long, what a person throws out of another long after it was written stays away."""
    before = git("show", "HEAD:.taskstore/prds.jsonl").encode()
    with site.open() as store:
        store.apply([Operation("create", KINDS["workflow"], {"id": "w1", "name": "w"})])
        (site.root / ".git" / "index.lock").touch()
        site.log("workflow").unlink()
        store.sync()
        (site.root / ".git" / "index.lock").unlink()
        site.calm(forget=False)
        create(store, "p1")
        assert logged(site) == ["p1"]
    site.age()
    for path in site.private.glob("busy*"):  # as if all of it had been two hours ago
        os.utime(path, (time.time() - 7200,) * 2)
    replace(site.log(), before)
    assert site.ids() == []
    assert logged(site) == []


def test_a_log_that_there_never_was(site: Site, git: Callable[..., str]) -> None:
    """A log that is missing, as that of repo states in a new clone, keeps nobody waiting."""
    git("checkout", "-q", "--detach")
    site.log("repo_state").unlink()
    with site.open() as store:
        create(store, "p1")
        assert store.flush(LONG_S)
    assert logged(site) == ["p1"]
    assert not (site.private / "busy").exists()


def test_git_at_work_between_look_and_append(site: Site, git: Callable[..., str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git was at work after it was asked, it is asked again: it may have taken charge of the line since."""
    asked: list[int] = []
    real = reconcile.SwallowedError.ask

    def ask(error: reconcile.SwallowedError, paths: object) -> object:
        verdict = real(error, paths)  # type: ignore[arg-type]
        asked.append(len(verdict.found))
        if len(asked) == 1:  # not there yet; now it is
            replace(site.log(), line)
            git("stash")
            site.calm()
            os.utime(site.root / ".git", ns=(7 * 10**18 // 10, 7 * 10**17))
        return verdict

    monkeypatch.setattr(reconcile.SwallowedError, "ask", ask)
    before = site.log().read_bytes()
    with site.open() as store:
        create(store, "p1")
        line = site.log().read_bytes()
        replace(site.log(), before)
        assert ids(store) == set()
        assert asked == [0, 1]
        git("stash", "pop")
        assert ids(store) == {"p1"}
        assert store.flush(LONG_S)
    assert logged(site) == ["p1"]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The blobs that were read."""
    read: list[str] = []
    real = git_objects._contents

    def contents(paths: Paths, blobs: Iterable[str]) -> Generator[bytes]:
        return real(paths, (read.append(blob) or blob for blob in blobs))  # type: ignore[func-returns-value]

    monkeypatch.setattr(git_objects, "_contents", contents)
    return read


def stored_at(site: Site, when: float, name: str = "??/*") -> None:
    """Make git's objects appear to have been stored at a time."""
    for path in (site.root / ".git" / "objects").glob(name):
        os.utime(path, (when, when))


@pytest.mark.parametrize("is_old", [True, False])
def test_only_what_git_has_stored_since_is_read(site: Site, git: Callable[..., str], read: list[str], *,
                                                is_old: bool) -> None:
    """What git had stored before a line was written cannot hold it."""
    with site.open() as store:
        create(store, "p0")
        git("add", "-A")
        git("commit", "-qm", "x")
        stored = git("rev-parse", "HEAD:.taskstore/prds.jsonl")
        stored_at(site, time.time() + (-60 if is_old else 60))
        site.calm()
        before = site.log().read_bytes()
        create(store, "p1")
        replace(site.log(), before)
        assert ids(store) == {"p0", "p1"}
    assert logged(site) == ["p0", "p1"]
    assert (stored in read) is not is_old


def test_what_git_has_stored_last_is_read_first(site: Site, git: Callable[..., str], read: list[str]) -> None:
    """What has the missing lines is most often what git has just made of them, and then nothing else is read."""
    with site.open() as store:
        create(store, "p0")
        git("add", "-A")
        git("commit", "-qm", "x")
        site.calm()
        create(store, "p1")
        git("stash")
        stashed = git("rev-parse", "stash@{0}:.taskstore/prds.jsonl")
        stored_at(site, time.time() + 60)
        stored_at(site, time.time() + 61, f"{stashed[:2]}/{stashed[2:]}")
        site.calm()
        assert ids(store) == {"p0"}
    assert read == [stashed]


def test_without_a_git_to_ask(site: Site, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git cannot be asked nothing is taken to be in its charge: a line too many does no harm."""
    with site.open() as store:
        create(store, "p1")
        git("stash")
        site.calm()
        monkeypatch.setenv("PATH", "")
        assert ids(store) == {"p1"}


# Git writes a log bit by bit


@pytest.fixture
def halves(site: Site) -> tuple[bytes, bytes]:
    """The log of two records, cut in two."""
    site.calm()
    with site.open() as store:
        create(store, "p1")
        create(store, "p2")
    first, second, _ = site.log().read_bytes().split(b"\n")
    return first + b"\n", second + b"\n"


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens while somebody waits for git, from the last to the first; nothing is left of it in the end."""
    sleeps: list[Callable[[], object]] = []
    monkeypatch.setattr(quiet, "time", SimpleNamespace(
        sleep=lambda _: sleeps.pop()(), monotonic=time.monotonic, time_ns=time.time_ns))
    return sleeps


@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize("is_new", [False, True])
def test_a_log_is_read_when_git_has_written_it(site: Site, halves: tuple[bytes, bytes], lock: Path,
                                               sleeps: list[Callable[[], object]], *, is_gone: bool,
                                               is_new: bool) -> None:
    """Not when it is unlinked and not yet there, nor when a part is; by a cache that had it, and by a new one."""
    with site.open() as store:
        if is_new:
            site.lose_cache()
        replace(site.log(), halves[0])
        if is_gone:
            site.log().unlink()
        sleeps += [lock.unlink, lambda: replace(site.log(), b"".join(halves))]
        assert ids(store) == {"p1", "p2"}
        assert not sleeps


def test_a_log_that_git_writes_while_it_is_read(site: Site, halves: tuple[bytes, bytes],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Git begins after it was looked whether it does, and may be done before it is looked again."""
    whole, real, sizes = b"".join(halves), Source.blocks, list[int]()

    def blocks(source: Source, *arguments: int) -> Iterator[bytes]:
        sizes.append(source.size)
        yield from real(source, *arguments)
        if len(sizes) == 1:
            replace(site.log(), whole)
            (site.root / ".git" / "HEAD.lock").touch()

    with site.open() as store:
        replace(site.log(), halves[0].replace(b"p1", b"p3"))
        site.lose_cache()
        monkeypatch.setattr(Source, "blocks", blocks)
        assert ids(store) == {"p1", "p2"}
    assert len(sizes) > 1


def test_a_log_that_somebody_else_appends_to_all_the_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git is not at it, what stands there is read once: who appends on and on would keep everybody waiting."""
    site.log().write_bytes(b'{"id":"p0","title":"t","updated_at":1}\n')
    real, sizes = Source.blocks, list[int]()

    def blocks(source: Source, *arguments: int) -> Iterator[bytes]:
        yield from real(source, *arguments)
        if not source.size:  # another log
            return
        sizes.append(source.size)
        with site.log().open("ab") as file:
            file.write(b'{"id":"p%d","title":"t","updated_at":1}\n' % len(sizes))

    with site.open() as store:
        monkeypatch.setattr(Source, "blocks", blocks)
        assert ids(store) == {"p0"}
    assert len(sizes) == 1


def test_git_is_not_waited_for_without_end(site: Site, halves: tuple[bytes, bytes], lock: Path,
                                           sleeps: list[Callable[[], object]],
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that has stood as it is for a while is finished, whatever git has still to do; else a second must do."""
    with site.open() as store:
        replace(site.log(), halves[0])
        monkeypatch.setattr(quiet, "STILL_MS", 0)
        sleeps += [lambda: None] * STILL_LOOKS
        assert ids(store) == {"p1"}
        assert not sleeps
        replace(site.log(), b"".join(halves))
        monkeypatch.setattr(passes, "FINISH_S", 0.0)
        sleeps += [lambda: replace(site.log(), b"".join(halves))] * (STILL_LOOKS + 1)
        assert ids(store) == {"p1", "p2"}
        assert not sleeps
    assert lock.exists()


def test_the_machine_stands_still_while_git_writes(site: Site, halves: tuple[bytes, bytes], lock: Path,
                                                   sleeps: list[Callable[[], object]],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """That much time has passed says nothing of git, which had none of it."""
    def stand_still() -> None:
        monkeypatch.setattr("taskstore_core.quiet.time.monotonic", lambda: time.monotonic() + 10)
        monkeypatch.setattr("taskstore_core.quiet.time.time_ns", lambda: time.time_ns() + 10 * 10**9)

    with site.open() as store:
        replace(site.log(), halves[0])
        sleeps += [lock.unlink, lambda: replace(site.log(), b"".join(halves)), stand_still]
        assert ids(store) == {"p1", "p2"}
        assert not sleeps


def test_git_begins_before_the_machine_stands_still(site: Site, halves: tuple[bytes, bytes], lock: Path,
                                                    sleeps: list[Callable[[], object]],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read meanwhile is read once more when git is done, however late it is by then."""
    lock.unlink()
    real, sizes = Source.blocks, list[int]()

    def blocks(source: Source, *arguments: int) -> Iterator[bytes]:
        if not sizes:
            lock.touch()
            replace(site.log(), halves[0])
            sleeps.extend([lock.unlink, lambda: replace(site.log(), b"".join(halves))])
        sizes.append(source.size)
        yield from real(source, *arguments)

    with site.open() as store:
        replace(site.log(), halves[0].replace(b"p1", b"p3"))
        site.lose_cache()
        monkeypatch.setattr(Source, "blocks", blocks)
        monkeypatch.setattr(passes, "FINISH_S", 0.0)
        assert ids(store) == {"p1", "p2"}
        assert not sleeps


# What git caught in the middle


def test_a_commit_that_caught_a_torn_line(site: Site, git: Callable[..., str], tmp_path: Path) -> None:
    """A line of which git read only a part is not yet written to whoever has that commit; the next commit heals it."""
    with site.open() as store:
        create(store, "p1")
        create(store, "p2")
    torn = tmp_path / "torn"
    torn.write_bytes(site.log().read_bytes()[:-30])
    blob = git("hash-object", "-w", os.fspath(torn))
    git("update-index", "--cacheinfo", f"100644,{blob},.taskstore/prds.jsonl")
    git("commit", "-qm", "torn")
    git("clone", "-q", ".", os.fspath(tmp_path / "clone"))
    with Store.open(os.fspath(tmp_path / "clone")) as there:
        assert ids(there) == {"p1"}
        assert there.stats()["prd"]["bad_lines"] == 0
        git("commit", "-qam", "whole")
        git("-C", os.fspath(tmp_path / "clone"), "pull", "-q")
        assert ids(there) == {"p1", "p2"}
