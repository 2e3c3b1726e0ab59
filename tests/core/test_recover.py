"""`store.recover` and what `check` says of the outbox: lines that were thrown away are found and come back."""

import errno
import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import Site

from taskstore_core import lost as lines
from taskstore_core import outbox, reconcile
from taskstore_core.appended import appended_since
from taskstore_core.batch import Operation
from taskstore_core.errors import BusyError, InvalidError, NotFoundError, ReadOnlyError, TaskStoreError
from taskstore_core.kinds import KINDS
from taskstore_core.methods import dispatch
from taskstore_core.outbox import Outbox
from taskstore_core.quiet import PATIENCE_MS
from taskstore_core.recover import Recovery
from taskstore_core.store import Store

PRD, SPEC = KINDS["prd"], KINDS["task_spec"]
LONG_S = 60
Git = Callable[..., str]


@pytest.fixture(autouse=True)
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written was written so long ago that git cannot have raced with it."""
    monkeypatch.setattr(reconcile, "SLACK_MS", -3_600_000)


def create(store: Store, *keys: str, **fields: object) -> None:
    store.apply([Operation("create", PRD, {"id": key, "title": "t", **fields}) for key in keys])


def update(store: Store, key: str, title: str) -> None:
    store.apply([Operation("update", PRD, {"id": key, "title": title})])


def recover(store: Store, *ids: str, **parameters: object) -> Any:
    return dispatch(store, "store.recover", {"ids": list(ids) or None, **parameters})


def lost(store: Store, **parameters: object) -> list[tuple[str, str]]:
    """(id, title) of each lost line."""
    return [(one["id"], json.loads(one["record"]).get("title", "")) for one in recover(store, **parameters)["lines"]]


def problems(store: Store) -> list[dict[str, Any]]:
    found: Any = dispatch(store, "store.check", {})
    return [one for one in found["problems"] if one["problem"] != "orphan"]


def titles(store: Store) -> dict[str, str]:
    return {record["id"]: record["title"] for record in map(json.loads, store.find(PRD)[0])}


def throw_away(store: Store, site: Site, git: Git) -> None:
    """What is not committed is gone from the logs, in which it stood."""
    assert store.flush(LONG_S)
    git("reset", "-q", "--hard")
    site.calm()


# What is lost


@pytest.mark.parametrize("how", ["checkout -- .", "reset -q --hard", "restore .", "checkout -qf main"])
def test_thrown_away(site: Site, git: Git, how: str) -> None:
    """What a git command threw away is listed, changes no file by that, and comes back byte for byte, once."""
    with site.open() as store:
        create(store, "p1", "p2", note="ä\u2028")
        update(store, "p1", "new")
        before = site.log().read_bytes()
        git(*how.split())
        site.calm()
        assert titles(store) == {}
        answer = recover(store)
        assert [(one["kind"], one["id"], one["superseded"], one["held"], one["deleted"], one["recovered"])
                for one in answer["lines"]] == [
            ("prd", key, False, False, False, False) for key in ("p1", "p2", "p1")]
        assert all(one["written_at"] - 5 <= time.time() * 1000 for one in answer["lines"])
        assert answer["left"] == 3
        assert site.log().read_bytes() == b""
        answer = recover(store, "p1")
        assert [one["recovered"] for one in answer["lines"]] == [True, False, True]
        assert answer["left"] == 1
        assert titles(store) == {"p1": "new"}
        assert recover(store, all=True)["left"] == 0
        assert sorted(site.lines()) == sorted(before.splitlines())
        assert recover(store, all=True) == {"lines": [], "left": 0}
    assert sorted(site.lines()) == sorted(before.splitlines())
    with site.open() as store:
        assert titles(store) == {"p1": "new", "p2": "t"}


def test_what_git_brings_back_is_not_lost(site: Site, git: Git) -> None:
    """What another branch, the index or a stash has is not listed; once that is gone, it is."""
    with site.open() as store:
        git("checkout", "-qb", "other")
        create(store, "p1")
        assert store.flush(LONG_S)
        git("commit", "-qam", "p1")
        git("checkout", "-q", "main")
        site.calm()
        create(store, "p2")
        assert store.flush(LONG_S)
        git("stash", "-q")
        create(store, "p3")
        assert store.flush(LONG_S)
        git("add", ".")
        site.log().write_bytes(b"")
        site.calm()
        assert lost(store) == []
        assert problems(store) == []
        git("branch", "-qD", "other")
        site.calm()
        answer = recover(store)
        assert [(one["id"], one["held"]) for one in answer["lines"]] == [("p1", True)]
        git("reset", "-q", "--hard")
        git("stash", "drop", "-q")
        git("reflog", "expire", "--expire=now", "--all")
        git("gc", "-q", "--prune=now")
        site.calm()
        assert [(one["id"], one["held"]) for one in recover(store)["lines"]] == [
            ("p1", False), ("p2", False), ("p3", False)]
        recover(store, all=True)
        assert titles(store) == {"p1": "t", "p2": "t", "p3": "t"}


def test_lines_of_another_commit_are_not_lost_on_a_detached_head(site: Site, git: Git) -> None:
    """Whoever looks at an old commit misses nothing for good."""
    with site.open() as store:
        create(store, "p1")
        assert store.flush(LONG_S)
        git("commit", "-qam", "p1")
        git("checkout", "-q", "--detach", "HEAD~")
        site.calm()
        assert titles(store) == {}
        assert lost(store) == []


def test_an_older_line_comes_back_into_history(site: Site, git: Git) -> None:
    """Where a record was written anew meanwhile, that stays its state, in every cache, and the old line its history."""
    with site.open() as store:
        create(store, "p1", "p2")
        throw_away(store, site, git)
        create(store, "p1", title="again")
        assert [(one["id"], one["superseded"]) for one in recover(store)["lines"]] == [("p1", True), ("p2", False)]
        assert [(one["superseded"], one["recovered"]) for one in recover(store, "p1")["lines"]] == [
            (True, True), (False, False)]
        assert titles(store) == {"p1": "again"}
        assert [json.loads(line)["title"] for line in store.history(PRD, "p1")] == ["t", "again"]
        store.sync(full=True)
        assert titles(store) == {"p1": "again"}


def test_aborted_lines_never_come_back(site: Site, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused was never acknowledged, so it is neither lost nor recovered."""
    from taskstore_core.log import Log

    with site.open() as store:
        create(store, "p1")
        with monkeypatch.context() as patched:
            def fail(*_: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patched.setattr(Log, "append", fail)
            with pytest.raises(ReadOnlyError):
                create(store, "refused")
        assert "abort" in {name for frame in site.frames() for name in frame}
        throw_away(store, site, git)
        assert lost(store, all=True) == [("p1", "t")]
        assert titles(store) == {"p1": "t"}


def test_what_waits_is_not_lost(site: Site, git: Git) -> None:
    """A line that is on its way into its log is not lost, and git at work is waited for, not looked at."""
    lock = site.root / ".git" / "index.lock"
    with site.open() as store:
        create(store, "p1")
        throw_away(store, site, git)
        lock.touch()
        create(store, "p2")
        with pytest.raises(BusyError):
            recover(store)
        assert problems(store) == []
        lock.unlink()
        site.calm()
        assert lost(store) == [("p1", "t")]


def test_what_is_written_anew_is_not_lost(site: Site, git: Git) -> None:
    """A line that was recovered is no longer lost while it waits for git."""
    assert git("status", "--porcelain") == ""
    with site.open() as store:
        create(store, "p1")
        throw_away(store, site, git)
        (one,) = lines.absent(store)
        (site.root / ".git" / "index.lock").touch()
        store.run(Recovery(store.paths, [one]))
        assert site.lines() == []
        assert lines.absent(store) == []


def test_what_git_took_charge_of_and_let_go(site: Site, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found in a stash once, and is not looked for by itself again, is lost when the stash is dropped."""
    monkeypatch.setattr(reconcile, "SLACK_MS", 5000)
    with site.open() as store:
        create(store, "p1")
        assert store.flush(LONG_S)
        git("stash", "-q")
        site.calm()
        assert titles(store) == {}
        assert "settled" in {name for frame in site.frames() for name in frame}
        git("stash", "drop", "-q")
        site.calm()
        assert lost(store) == [("p1", "t")]


def test_an_edited_line_is_not_lost(site: Site, git: Git) -> None:
    """A line that was changed where it stood, and a log with other line ends, miss nothing."""
    assert git("status", "--porcelain") == ""
    with site.open() as store:
        create(store, "p1", "p2")
        assert store.flush(LONG_S)
        site.log().write_bytes(site.log().read_bytes().replace(b'"t"', b'"edited"', 1).replace(b"\n", b"\r\n"))
        assert lost(store) == []


def test_what_was_compacted_is_not_lost(site: Site, git: Git) -> None:
    """Lines that were dropped here on purpose do not come back; what was thrown away since does."""
    assert git("status", "--porcelain") == ""
    with site.open() as store:
        create(store, "p1")
        update(store, "p1", "new")
        dispatch(store, "store.compact", {})
        assert len(site.lines()) == 1
        assert lost(store) == []
        site.log().write_bytes(b"")
        assert lost(store, all=True) == [("p1", "new")]


def test_an_older_outbox(site: Site) -> None:
    """A store whose outbox is gone, or was never made, has nothing to bring back."""
    with site.open() as store:
        create(store, "p1")
    site.outbox.unlink()
    site.log().write_bytes(b"")
    with site.open() as store:
        assert lost(store, all=True) == []


@pytest.mark.parametrize(("ids", "parameters", "error", "said"), [
    (["none"], {}, NotFoundError, "no line of none"), (["p"], {}, NotFoundError, "several"),
    (["p1"], {"all": True}, InvalidError, "ids"), ([""], {}, InvalidError, "ids"),
])
def test_refusals(  # noqa: PLR0917 - the columns of the table
    site: Site, git: Git, ids: list[str], parameters: dict[str, object], error: type[TaskStoreError], said: str,
) -> None:
    """An id of which nothing is lost, or that may mean several, is refused, and nothing is written."""
    with site.open() as store:
        create(store, "p1", "p2", "q1")
        throw_away(store, site, git)
        with pytest.raises(error, match=said):
            recover(store, "q1", *ids, **parameters)
        assert titles(store) == {}
        recover(store, "q")
        assert titles(store) == {"q1": "t"}


def test_task_specs(site: Site, git: Git) -> None:
    """A claim that was thrown away and is recovered is held still; a circle is refused."""
    with site.open() as store:
        store.apply([Operation("create", SPEC, {"id": key, "prd_id": "p", "phase_name": "n"}) for key in "ab"])
        assert store.flush(LONG_S)
        git("commit", "-qam", "specs")
        held = json.loads(str(dispatch(store, "task_spec.claim", {"by": "me", "id": "a"})))
        throw_away(store, site, git)
        recover(store, all=True)
        dispatch(store, "task_spec.complete", {"by": "me", "id": "a", "token": held["token"]})
        assert store.flush(LONG_S)
        git("commit", "-qam", "complete")
        store.apply([Operation("update", SPEC, {"id": "a", "depends_on": ["b"]})])
        throw_away(store, site, git)
        store.apply([Operation("update", SPEC, {"id": "b", "depends_on": ["a"]})])
        with pytest.raises(InvalidError, match="circle"):
            recover(store, all=True)
        assert json.loads(store.get(SPEC, "a")).get("depends_on") in (None, [])


def test_an_older_line_ends_no_lease(site: Site, git: Git) -> None:
    """A task spec that was claimed since keeps its holder when a line from before comes back."""
    with site.open() as store:
        store.apply([Operation("create", SPEC, {"id": "a", "prd_id": "p", "phase_name": "n"})])
        assert store.flush(LONG_S)
        git("commit", "-qam", "spec")
        site.calm()
        store.apply([Operation("update", SPEC, {"id": "a", "description": "thrown away"})])
        throw_away(store, site, git)
        held = json.loads(str(dispatch(store, "task_spec.claim", {"by": "me", "id": "a"})))
        assert recover(store, all=True)["lines"][0]["superseded"]
        dispatch(store, "task_spec.complete", {"by": "me", "id": "a", "token": held["token"]})


RECOVER = """
from taskstore_core.methods import dispatch
ready()
with Store.open(directory=directory) as store:
    dispatch(store, "store.recover", {"all": True})
"""


def test_several_at_once(site: Site, git: Git) -> None:
    """However many recover at once, each line comes back once."""
    with site.open() as store:
        create(store, *(f"p{number}" for number in range(50)))
        before = site.log().read_bytes()
        throw_away(store, site, git)
    now = time.time_ns() - 3600 * 10**9
    os.utime(site.log(), ns=(now, now))
    processes = [site.start(f"import taskstore_core.reconcile\ntaskstore_core.reconcile.SLACK_MS = -3600000\n{RECOVER}")
                 for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.wait(LONG_S) == 0
        process.communicate()
    assert site.log().read_bytes() == before


# check


def test_check_tells_what_was_thrown_away(site: Site, git: Git) -> None:
    """One note for each log, with what mends it, until the lines are back."""
    with site.open() as store:
        create(store, "p1", "p2", "p3", "p4")
        update(store, "p1", "new")
        throw_away(store, site, git)
        (one,) = problems(store)
        assert (one["problem"], one["severity"], one["file"]) == ("lost_lines", "note", "prds.jsonl")
        assert "of 4 records" in one["message"]
        assert "taskstore recover" in one["mend"]
        recover(store, all=True)
        assert problems(store) == []


def test_check_tells_no_old_news(site: Site, git: Git) -> None:
    """Lines whose record has a newer version, or is gone with and without them, are no news; a deletion may be."""
    with site.open() as store:
        create(store, "p1", "p2")
        store.apply([Operation("delete", PRD, {"id": "p2"})])
        throw_away(store, site, git)
        create(store, "p1", title="again")
        assert problems(store) == []
        assert store.flush(LONG_S)
        git("commit", "-qam", "p1")
        store.apply([Operation("delete", PRD, {"id": "p1"})])
        throw_away(store, site, git)
        assert [(one["problem"], one["message"].rpartition(": ")[2]) for one in problems(store)] == [
            ("lost_lines", "p1")]


def test_check_tells_nothing_of_what_git_holds(site: Site, git: Git) -> None:
    """What a reflog alone still has is no news for check, but can be recovered."""
    with site.open() as store:
        create(store, "p1")
        assert store.flush(LONG_S)
        git("commit", "-qam", "p1")
        git("reset", "-q", "--hard", "HEAD~")
        site.calm()
        assert problems(store) == []
        assert lost(store) == [("p1", "t")]


def test_check_tells_of_lines_that_wait(site: Site, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that have waited for half a minute are told of, with what keeps them."""
    assert git("status", "--porcelain") == ""
    lock = site.root / ".git" / "index.lock"
    lock.touch()
    written = int(time.time() * 1000) - PATIENCE_MS - 5000
    with site.open() as store:
        create(store, "p1")
        assert problems(store) == []
    site.outbox.unlink()
    monkeypatch.setattr(outbox, "now_ms", lambda: written)
    with site.open() as store:
        create(store, "p1", "p2")
        (one,) = problems(store)
        assert (one["problem"], one["severity"]) == ("pending_lines", "warning")
        assert one["file"] == os.fspath(site.outbox)
        assert "waited for 35 s" in one["message"]
        assert "2 by now: git" in one["message"]
        lock.unlink()
        site.calm()
        assert problems(store) == []


def test_a_large_outbox_is_read(site: Site) -> None:
    """Frames are found however far back they stand."""
    with site.open() as store:
        for number in range(5):
            create(store, f"p{number}", content="x" * 400_000)
        site.log().write_bytes(b"")
        assert lost(store) == [(f"p{number}", "t") for number in range(5)]


def test_a_reader_of_the_outbox_changes_nothing(site: Site) -> None:
    """Listing writes no frame."""
    with site.open() as store:
        create(store, "p1")
        site.log().write_bytes(b"")
        store.sync()
        before = site.outbox.read_bytes()
        recover(store)
        assert site.outbox.read_bytes() == before
        box = Outbox(os.fspath(site.outbox), writable=False)
        assert len(appended_since(box, 0, settled=True)) == 1
        box.close()


def test_without_git(site: Site) -> None:
    """Outside git, what an editor took out of a log can be brought back, too."""
    root = site.root.parent / "plain"
    root.mkdir()
    store, _ = Store.create(os.fspath(root))
    with store:
        create(store, "p1")
        (root / ".taskstore" / "prds.jsonl").write_bytes(b"")
        assert [one["problem"] for one in problems(store)] == ["lost_lines"]
        recover(store, all=True)
        assert titles(store) == {"p1": "t"}
    assert subprocess.run(["git", "-C", os.fspath(root), "status"], capture_output=True, check=False).returncode
