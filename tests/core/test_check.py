"""`check`: everything that is wrong is found, by name, file and line; what is safe to mend is mended, nothing else."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from taskstore_core import check as check_module
from taskstore_core import layout
from taskstore_core.batch import Operation
from taskstore_core.cache import Cache
from taskstore_core.kinds import KINDS
from taskstore_core.lock import Lock
from taskstore_core.methods import dispatch
from taskstore_core.outbox import Outbox
from taskstore_core.store import Store

PRD, SPEC = KINDS["prd"], KINDS["task_spec"]
PATIENCE_S = 60.0
Where = tuple[str, str | None, int | None, str | None]
"""(problem, file, line, id)"""


def check(store: Store, **parameters: object) -> list[dict[str, Any]]:
    answer: Any = dispatch(store, "store.check", parameters)
    assert answer == json.loads(json.dumps(answer))
    assert answer["left"] == sum(one["severity"] != "note" and not one["fixed"] for one in answer["problems"])
    for one in answer["problems"]:
        assert one["severity"] in {"error", "warning", "note"}
        assert one["message"]
        assert one["mend"]
        assert "\n" not in one["message"] + one["mend"]
        assert one["fixable"] or not one["fixed"]
    return list(answer["problems"])


def found(store: Store, **parameters: object) -> list[Where]:
    return [(one["problem"], one["file"], one["line"], one["id"]) for one in check(store, **parameters)]


def log(store: Store, kind: str = "prd") -> Path:
    return Path(store.paths.file(KINDS[kind].log))


def append(store: Store, kind: str, *lines: bytes | dict[str, object]) -> None:
    with log(store, kind).open("ab") as file:
        for line in lines:
            file.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")


def spec(key: str, *needs: str, **fields: object) -> dict[str, object]:
    return {"id": key, "prd_id": "p", "phase_name": "N", "updated_at": 1, "status": "pending",
            "depends_on": list(needs), **fields}


def fill(store: Store) -> None:
    """A store with a bit of everything, and nothing wrong."""
    store.apply([
        Operation("create", PRD, {"id": "p", "title": "T"}), Operation("create", PRD, {"id": "q", "title": "T"}),
        Operation("delete", PRD, {"id": "q"}),
        Operation("create", SPEC, {"id": "s", "prd_id": "p", "phase_name": "N"}),
        Operation("create", SPEC, {"id": "t", "prd_id": "p", "phase_name": "N", "depends_on": ["s"]}),
        Operation("create", KINDS["execution"], {"id": "e", "ts_id": "s"}),
        Operation("create", KINDS["execution"], {"id": "f", "ts_id": "t"}),
        Operation("create", KINDS["dependency"], {"id": "d", "from_exec_id": "e", "to_exec_id": "f",
                                                  "dependency_type": "share"}),
        Operation("create", KINDS["workflow"], {"id": "w", "name": "N"}),
        Operation("create", KINDS["repo_state"], {"repo_path": "/r", "last_synced_commit": "c"})])
    dispatch(store, "task_spec.claim", {"by": "me"})


def test_a_sound_store(store: Store, other: Store) -> None:
    """Of an empty store, and of one in which nothing is wrong, nothing is said, and `fix` changes no file."""
    assert found(store) == []
    fill(store)
    append(store, "prd", b"")
    before = {path: path.read_bytes() for path in Path(store.paths.directory).glob("*.jsonl")}
    for opened in (store, other):
        assert found(opened) == found(opened, fix=True) == []
    assert {path: path.read_bytes() for path in before} == before


# Lines


def test_bad_lines(store: Store) -> None:
    """Every line that is no record is told of with its file and line, with why, and is left as it is."""
    fill(store)
    append(store, "prd", b"no record", {"id": "z", "title": "T"}, b"[1]", b'{"id":7}')
    append(store, "workflow", b'{"id":"v","updated_at":"late"}')
    before = log(store).read_bytes()
    for fix in (False, True):
        assert found(store, fix=fix) == [
            ("bad_line", "prds.jsonl", 4, None), ("bad_line", "prds.jsonl", 6, None),
            ("bad_line", "prds.jsonl", 7, None),
            ("bad_line", "workflows.jsonl", 2, None)]
    one, *_, last = check(store)
    assert (one["severity"], one["fixable"]) == ("error", False)
    assert "not JSON" in one["message"]
    assert "line 4 of prds.jsonl" in one["mend"]
    assert "updated_at is not an integer" in last["message"]
    assert log(store).read_bytes() == before


def test_what_a_merge_left(store: Store) -> None:
    """Markers are told of, and each record that two sides changed with one stamp, until somebody chooses."""
    block: list[bytes | dict[str, object]] = [
        b"<<<<<<< ours", {"id": "z", "title": "T", "updated_at": 5}, b"=======",
        {"id": "z", "title": "U", "updated_at": 5}, b">>>>>>> theirs"]
    append(store, "prd", *block)
    assert found(store, fix=True) == [("conflict", "prds.jsonl", None, "z"), ("markers", "prds.jsonl", None, None)]
    append(store, "prd", {"id": "z", "title": "V", "updated_at": 6})
    assert found(store) == [("markers", "prds.jsonl", None, None)]
    dispatch(store, "store.resolve_conflicts", {})
    assert found(store) == []


def test_very_many_bad_lines(store: Store) -> None:
    """Of bad lines without number the first hundred are told one by one, and how many more there are."""
    append(store, "prd", *[b"x"] * 250)
    problems = check(store)
    assert [one["line"] for one in problems] == [*range(1, 101), None]
    assert "150 more lines" in problems[-1]["message"]


# Records


RECORDS: dict[str, tuple[str, list[dict[str, object] | bytes], list[Where]]] = {
    "a circle": ("task_spec", [spec("a", "b"), spec("b", "c"), spec("c", "a"), spec("d", "a")],
                 [("circle", "task_specs.jsonl", None, "a")]),
    "one that needs itself": ("task_spec", [spec("a", "a")], [("circle", "task_specs.jsonl", None, "a")]),
    "two circles": ("task_spec", [spec("a", "b"), spec("b", "a"), spec("c", "d"), spec("d", "c")],
                    [("circle", "task_specs.jsonl", None, "a"), ("circle", "task_specs.jsonl", None, "c")]),
    "a circle that was": ("task_spec", [spec("a", "b"), spec("b", "a"), spec("b", updated_at=2)], []),
    "a need that is not there": ("task_spec", [spec("a", "none", "s")], [
        ("missing_need", "task_specs.jsonl", None, "a")]),
    "a need that was deleted": ("task_spec", [spec("a", "b"), {"id": "b", "deleted": True, "updated_at": 3}], [
        ("missing_need", "task_specs.jsonl", None, "a")]),
    "a need that nobody waits for": ("task_spec", [spec("a", "none", status="complete")], []),
    "a spec without its PRD": ("task_spec", [spec("a", prd_id="none")], [("orphan", "task_specs.jsonl", None, "a")]),
    "a spec of a deleted PRD": ("task_spec", [spec("a", prd_id="q")], [("orphan", "task_specs.jsonl", None, "a")]),
    "an execution without its spec": ("execution", [{"id": "x", "ts_id": "none", "updated_at": 1}], [
        ("orphan", "executions.jsonl", None, "x")]),
    "a dependency without either": ("dependency", [
        {"id": "x", "from_exec_id": "n", "to_exec_id": "m", "dependency_type": "share"}],
        [("orphan", "dependencies.jsonl", None, "x")] * 2),
    "a word that is no status": ("prd", [{"id": "x", "title": "T", "status": "nope"}], [
        ("bad_value", "prds.jsonl", None, "x")]),
    "a field that is not there": ("workflow", [{"id": "x"}], [("bad_value", "workflows.jsonl", None, "x")]),
    "a number that is too large": ("prd", [{"id": "x", "title": "T", "review_passes": 256}], [
        ("bad_value", "prds.jsonl", None, "x")]),
    "a bad value that was": ("prd", [{"id": "x", "title": "T", "status": "nope", "updated_at": 1},
                                     {"id": "x", "title": "T", "status": "draft", "updated_at": 2}], []),
    "a bad value that was deleted": (
        "prd", [{"id": "x", "title": 5}, {"id": "x", "deleted": True, "updated_at": 3}], []),
    "an old workflow": ("workflow", [{"id": "x", "name": "N", "content": "…", "updated_at": 1}], []),
    "numbers of any size": ("prd", [b'{"id":"x","title":"T","op":"o","n":%s}' % (b"9" * 5000)], []),
    "needs that are none": ("task_spec", [spec("a", depends_on=5)], [("bad_value", "task_specs.jsonl", None, "a")]),
}


@pytest.mark.parametrize("what", RECORDS)
def test_what_records_say(store: Store, what: str) -> None:
    """What leads nowhere, goes round or has an odd value is told of by its log and id, and is left as it is."""
    kind, lines, wanted = RECORDS[what]
    fill(store)
    append(store, kind, *lines)
    before = log(store, kind).read_bytes()
    for fix in (False, True):
        assert found(store, fix=fix) == wanted
    assert log(store, kind).read_bytes() == before
    for one in check(store):
        assert one["severity"] == {"circle": "error", "orphan": "note"}.get(one["problem"], "warning")


def test_records_whose_lines_wait_for_git(site: Any) -> None:
    """What waits in the outbox counts as it does for every reader: it may be needed, and it may itself be wrong."""
    with site.open() as store:
        dispatch(store, "record.create", {"kind": "prd", "record": {"id": "p", "title": "P"}})
        (site.root / ".git" / "index.lock").touch()
        for one in (spec("a", "b"), spec("b"), {"id": "c", "prd_id": "p", "phase_name": "N", "updated_at": 2**50}):
            dispatch(store, "store.apply", {"ops": [{"op": "import", "kind": "task_spec", "record": one}]})
        dispatch(store, "store.apply", {"ops": [{"op": "import", "kind": "prd", "record": {
            "id": "q", "title": "Q", "updated_at": 2**50}}]})
        assert site.lines("task_spec") == []
        assert found(store) == [("future_stamp", "prds.jsonl", None, "q"),
                                ("future_stamp", "task_specs.jsonl", None, "c")]
        dispatch(store, "record.delete", {"kind": "task_spec", "id": "b"})
        assert ("missing_need", "task_specs.jsonl", None, "a") in found(store)


@pytest.mark.parametrize("when", ["after the logs were read", "while the cache is compared"])
def test_lines_that_waited_and_go_into_their_logs_meanwhile(
        site: Any, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that waits for git and is appended by somebody else while `check` looks is not overlooked."""
    lock = site.root / ".git" / "index.lock"

    def append() -> None:
        if lock.exists():
            lock.unlink()
            site.calm()
            assert other.flush(PATIENCE_S)

    with site.open() as store, site.open() as other:
        dispatch(store, "record.create", {"kind": "prd", "record": {"id": "p", "title": "P"}})
        lock.touch()
        for one in (spec("b"), spec("a", "b")):
            dispatch(store, "store.apply", {"ops": [{"op": "import", "kind": "task_spec", "record": one}]})
        waits = {"kind": "workflow", "record": {"id": "w", "name": "W", "updated_at": 2**50}}
        dispatch(store, "store.apply", {"ops": [{"op": "import", **waits}]})
        if when == "after the logs were read":
            interpose(monkeypatch, check_module, "_read_anew", append)
        else:
            interpose(monkeypatch, Cache, "differing", append)
        assert found(store) == [("future_stamp", "workflows.jsonl", None, "w")]
        assert not lock.exists()
        assert len(site.lines("task_spec")) == 2


def test_lines_that_come_to_wait_meanwhile(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that the cache knows and `check` does not yet, as it was written while that looks, is no drift."""
    with site.open() as store, site.open() as other:
        fill(store)
        (site.root / ".git" / "index.lock").touch()
        interpose(monkeypatch, check_module, "_read_anew", lambda: dispatch(other, "record.update", {
            "kind": "prd", "id": "p", "set": {"title": "waits"}}))
        assert found(store) == []
        assert json.loads(store.get("prd", "p"))["title"] == "waits"


def interpose(monkeypatch: pytest.MonkeyPatch, where: object, name: str, act: Callable[[], object]) -> None:
    """Have something happen right after the first call of a function, as another process could do it then."""
    function, acts = getattr(where, name), [act]

    def called(*given: object, **named: object) -> object:
        answer = function(*given, **named)
        if acts:
            acts.pop()()
        return answer

    monkeypatch.setattr(where, name, called)


def test_a_circle_is_told_as_a_way(store: Store) -> None:
    """A circle is told in the order of its needs, and which of them to take away."""
    append(store, "prd", {"id": "p", "title": "T"})
    append(store, "task_spec", spec("b", "c"), spec("a", "b"), spec("c", "a"))
    (one,) = check(store)
    assert one["message"] == "a needs b needs c needs a: none of them can ever be ready"
    assert "taskstore update task_spec c " in one["mend"]


def test_stamps_ahead_of_time(store: Store, clocks: Any) -> None:
    """A version over a minute ahead of the clock is told of, of any kind, deleted ones too, until time is there."""
    now = clocks.now_ms()
    append(store, "prd", {"id": "near", "title": "T", "updated_at": now + 50_000},
           {"id": "far", "title": "T", "updated_at": now + 3_600_000},
           {"id": "gone", "deleted": True, "updated_at": now + 3_600_000})
    append(store, "repo_state", {"repo_path": "/far", "last_synced_commit": "c", "updated_at": 2**53})
    wanted: list[Where] = [("future_stamp", "prds.jsonl", None, "far"), ("future_stamp", "prds.jsonl", None, "gone"),
                           ("future_stamp", "repo_state.jsonl", None, "/far")]
    assert found(store) == wanted
    assert "3599 s in the future" in check(store)[0]["message"]
    clocks.go_on(3_600_000)
    assert found(store) == wanted[2:]


# The cache

DRIFTS: dict[str, tuple[str, Where]] = {
    "a row that is gone": ("DELETE FROM prds_rows WHERE id = 'p'", ("cache_differs", "store.db", None, "prd")),
    "a row that is no record": ("INSERT INTO prds_rows(id, version, deleted, raw) VALUES('z', 1, 0, '{\"id\":\"z\"}')",
                                ("cache_differs", "store.db", None, "prd")),
    "another text": ("UPDATE workflows_rows SET raw = replace(raw, 'N', 'M')",
                     ("cache_differs", "store.db", None, "workflow")),
    "another version": ("UPDATE executions_rows SET version = version + 1 WHERE id = 'f'",
                        ("cache_differs", "store.db", None, "execution")),
    "another column": ("UPDATE task_specs_rows SET status = 'failed' WHERE id = 't'",
                       ("cache_differs", "store.db", None, "task_spec")),
    "a deletion taken back": ("UPDATE prds_rows SET deleted = 0 WHERE id = 'q'",
                              ("cache_differs", "store.db", None, "prd")),
    "a need that is gone": ("DELETE FROM needs", ("cache_differs", "store.db", None, "task_spec")),
    "a need that never was": ("INSERT INTO needs VALUES('s', 't')", ("cache_differs", "store.db", None, "task_spec")),
    "a need of nobody": ("INSERT INTO needs VALUES('nobody', 't')", ("cache_differs", "store.db", None, "task_spec")),
    "a dependency gone": ("DELETE FROM dependencies_rows", ("cache_differs", "store.db", None, "dependency")),
    "a repo state gone": ("DELETE FROM repo_state_rows", ("cache_differs", "store.db", None, "repo_state")),
}


@pytest.mark.parametrize("what", DRIFTS)
def test_a_cache_that_says_something_else(store: Store, other: Store, what: str) -> None:
    """Where somebody changed the cache with an SQL tool, that is told by kind and ids, and a fix makes it anew."""
    fill(store)
    statement, wanted = DRIFTS[what]
    other.find("prd")
    with contextlib.closing(apsw.Connection(store.paths.file("store.db"))) as db:
        db.execute(statement)
    assert found(store) == [wanted]
    (one,) = check(other)
    assert (one["severity"], one["fixable"], one["fixed"]) == ("error", True, False)
    (one,) = check(store, fix=True)
    assert one["fixed"]
    assert found(store) == found(other) == []
    assert json.loads(other.get("prd", "p"))["title"] == "T"


def test_what_is_not_read_yet_is_no_drift(store: Store, other: Store) -> None:
    """Lines that were appended, logs that were replaced, and lines that wait in the outbox are no drift."""
    fill(store)
    append(other, "prd", {"id": "new", "title": "T", "updated_at": 5})
    assert found(store) == []
    path = log(store)
    path.with_suffix(".new").write_bytes(path.read_bytes() + b'{"id":"newer","title":"T","updated_at":5}\n')
    path.with_suffix(".new").replace(path)
    assert found(store) == []
    with Lock(store.paths.local("lock")):
        outbox = Outbox(store.paths.local("outbox"))
        outbox.append([[(PRD.log, '{"id":"p","title":"waits","updated_at":1900000000000}')]])
        outbox.close()
    assert [one for one in found(other) if one[0] != "future_stamp"] == []
    assert json.loads(store.get("prd", "p"))["title"] == "waits"


# Files


@pytest.mark.parametrize("name", [*(kind.log for kind in KINDS.values()), ".gitignore"])
def test_a_file_that_is_missing(store: Store, name: str) -> None:
    """A missing log is told of, and a fix makes an empty one; repo_state is of this machine and may be missing."""
    fill(store)
    Path(store.paths.file(name)).unlink()
    wanted: list[Where] = [] if name == "repo_state.jsonl" else [("missing_file", name, None, None)]
    gone: list[Where] = [] if name == ".gitignore" else [("lost_lines", name, None, None)]
    assert [one for one in found(store) if one[0] != "orphan"] == wanted + gone
    before = {path: path.read_bytes() for path in Path(store.paths.directory).glob("*.jsonl")}
    fixed = [one["fixed"] for one in check(store, fix=True) if one["problem"] == "missing_file"]
    assert fixed == [True] * len(wanted)
    assert [one for one in found(store) if one[0] != "orphan"] == gone
    assert {path: path.read_bytes() for path in before} == before
    if wanted:
        content = Path(store.paths.file(name)).read_text(encoding="utf-8")
        assert content == ("".join(f"{pattern}\n" for pattern in layout.IGNORED) if name == ".gitignore" else "")


def test_a_missing_file_is_not_made_while_git_is_at_work(site: Any) -> None:
    """While a git command holds its index lock, a fix leaves a missing log to it, and says that it is not fixed."""
    with site.open() as store:
        (site.root / ".git" / "index.lock").touch()
        site.log().unlink()
        (one,) = check(store, fix=True)
        assert (one["problem"], one["fixed"]) == ("missing_file", False)
        assert not site.log().exists()
        (site.root / ".git" / "index.lock").unlink()
        assert [one["fixed"] for one in check(store, fix=True)] == [True]


@pytest.mark.parametrize(("content", "after"), [
    ("", "{all}"), ("mine\nstore.db\n", "mine\nstore.db\n{rest}"), ("mine", "mine\n{all}"),
    ("store.db\r\n  repo_state.jsonl \n", "store.db\r\n  repo_state.jsonl \nstore.db-*\n.local/\n.new-*\n"),
])
def test_what_git_is_to_leave_alone(store: Store, content: str, after: str) -> None:
    """A .gitignore that lacks patterns is told of, and a fix adds them behind what stands there."""
    path = Path(store.paths.file(".gitignore"))
    path.write_text(content, encoding="utf-8", newline="")
    assert found(store) == [("not_ignored", ".gitignore", None, None)]
    (one,) = check(store, fix=True)
    assert (one["severity"], one["fixable"], one["fixed"]) == ("warning", True, True)
    patterns = [f"{pattern}\n" for pattern in layout.IGNORED]
    assert path.read_bytes().decode() == after.format(all="".join(patterns), rest="".join(patterns[1:]))
    assert found(store, fix=True) == []


def _link(path: Path) -> None:
    elsewhere = path.with_suffix(".elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [_link, _folder, _pipe], ids=["link", "folder", "pipe"])
@pytest.mark.parametrize("name", ["prds.jsonl", ".gitignore", "leases.db"])
def test_what_is_no_file(store: Store, name: str, spoil: Callable[[Path], None]) -> None:
    """A link, folder or pipe in the place of a file is told of; of a log also that its store cannot be read."""
    fill(store)
    store.close()
    path = Path(store.paths.local(name) if name == "leases.db" else store.paths.file(name))
    spoil(path)
    code = """
        import json, sys
        from taskstore_core.methods import dispatch
        from taskstore_core.store import Store
        with Store.open(directory=sys.argv[1]) as store:
            print(json.dumps(dispatch(store, "store.check", {"fix": True})))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), store.paths.directory], capture_output=True,
                          text=True, check=True, timeout=PATIENCE_S)  # who opens a pipe waits for ever
    problems = json.loads(done.stdout)["problems"]
    first = problems[0]
    assert (first["problem"], first["severity"], first["fixed"]) == ("not_a_file", "error", False)
    assert first["file"] == (str(path) if name == "leases.db" else name)
    assert ("a symbolic link" if spoil is _link else "no regular file") in first["message"]
    if name == "prds.jsonl":
        assert [one["problem"] for one in problems] == ["not_a_file", "unreadable"]


MODES: dict[str, tuple[str, int, list[tuple[str, str]]]] = {
    "a log that cannot be written": ("prds.jsonl", 0o400, [("no_permission", "cannot be written")]),
    "a log that cannot be read": ("prds.jsonl", 0o200, [("no_permission", "cannot be read"), (
        "unreadable", "cannot read")]),
    "a .gitignore that cannot be written": (".gitignore", 0o400, [("no_permission", "cannot be written")]),
    "leases that cannot be written": (".local/leases.db", 0o400, [("no_permission", "cannot be written")]),
    "a lock that cannot be written": (".local/lock", 0o400, [("no_permission", "cannot be written")]),
    "a folder that cannot be written": (".", 0o500, [("no_permission", "the store is read-only")]),
    "a private folder that cannot be written": (".local", 0o500, [("no_permission", "the store is read-only")]),
}


@pytest.mark.parametrize("what", MODES)
def test_what_this_user_may_not_do(store: Store, obedient: list[str], what: str) -> None:
    """What cannot be read or written is told of with the command that mends it, and a fix does not stumble over it."""
    name, mode, wanted = MODES[what]
    fill(store)
    store.close()
    path = Path(store.paths.directory) / name
    if path.is_dir():
        Path(store.paths.file(".gitignore")).write_text("", encoding="utf-8")
        log(store, "workflow").unlink()
    before = path.stat().st_mode
    path.chmod(mode)
    code = """
        import json, sys
        from taskstore_core.methods import dispatch
        from taskstore_core.store import Store
        with Store.open(directory=sys.argv[1]) as store:
            for fix in False, True:
                print(json.dumps(dispatch(store, "store.check", {"fix": fix})))
    """
    done = subprocess.run([*obedient, sys.executable, "-c", textwrap.dedent(code), store.paths.directory],
                          capture_output=True, text=True, check=False)
    path.chmod(before)
    assert done.returncode == 0, done.stderr
    for answer in map(json.loads, done.stdout.splitlines()):
        problems = [one for one in answer["problems"] if one["problem"] not in {
            "missing_file", "not_ignored", "lost_lines"}]
        assert len(problems) == len(wanted)
        for one, (problem, words) in zip(problems, wanted, strict=True):
            assert one["problem"] == problem
            assert words in one["message"]
            if problem == "no_permission":
                assert one["mend"].startswith("chmod u+rw")
                assert os.path.realpath(path) in map(os.path.realpath, one["mend"].replace(",", "").split())
        assert answer["left"] == sum(one["severity"] != "note" and not one["fixed"] for one in answer["problems"])
    assert found(store, fix=True) == [] or path.is_dir()
    assert [one for one in found(store, fix=True) if one[0] != "lost_lines"] == []


def test_lines_that_wait_where_their_log_cannot_be_written(store: Store, obedient: list[str]) -> None:
    """A line that waits in the outbox, and that this user cannot put into its log, is no drift of the cache."""
    fill(store)
    store.close()
    with Lock(store.paths.local("lock")):
        outbox = Outbox(store.paths.local("outbox"))
        outbox.append([[(PRD.log, '{"id":"waits","title":"T","updated_at":5}')]])
        outbox.close()
    log(store).chmod(0o400)
    code = """
        import json, sys
        from taskstore_core.methods import dispatch
        from taskstore_core.store import Store
        with Store.open(directory=sys.argv[1]) as store:
            print(json.dumps([dispatch(store, "store.check", {}), dispatch(store, "record.get",
                                                                           {"kind": "prd", "id": "waits"})]))
    """
    done = subprocess.run([*obedient, sys.executable, "-c", textwrap.dedent(code), store.paths.directory],
                          capture_output=True, text=True, check=False)
    log(store).chmod(0o600)
    assert done.returncode == 0, done.stderr
    assert b"waits" not in log(store).read_bytes()
    answer, line = json.loads(done.stdout)
    assert json.loads(line)["id"] == "waits"
    assert {one["problem"] for one in answer["problems"]} == {"no_permission"}


def test_a_lock_that_is_let_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds the lock while it writes is nothing to tell of."""
    fill(store)
    lock = Lock(store.paths.local("lock"))
    lock.__enter__()
    monkeypatch.setattr("taskstore_core.check_files.time.sleep", lambda _: lock.__exit__(None, None, None))
    assert found(store) == []


def test_a_lock_that_is_held(store: Store) -> None:
    """That the lock is held is noted with by whom, counts as no problem, and keeps nothing else from being told."""
    fill(store)
    store.apply([Operation("import", PRD, {"id": "x", "title": "T", "updated_at": 2**53})])
    with Lock(store.paths.local("lock")):
        note, other = check(store)
        assert (note["problem"], note["severity"], note["file"]) == ("lock_held", "note", store.paths.local("lock"))
        assert f"by process {os.getpid()} " in note["message"]
        assert other["problem"] == "future_stamp"
    assert [one[0] for one in found(store)] == ["future_stamp"]


def test_everything_at_once(store: Store) -> None:
    """Problems of all sorts are told in one go: files, lines, records, cache."""
    fill(store)
    Path(store.paths.file("workflows.jsonl")).unlink()
    append(store, "prd", b"bad", {"id": "x", "title": 5})
    append(store, "task_spec", spec("a", "a"), spec("b", "none", prd_id="none"))
    store.sync()
    with contextlib.closing(apsw.Connection(store.paths.file("store.db"))) as db:
        db.execute("DELETE FROM executions_rows WHERE id = 'f'")
    assert [one[0] for one in found(store)] == [
        "missing_file", "bad_line", "circle", "missing_need", "orphan", "bad_value", "lost_lines", "cache_differs"]
    assert [one["problem"] for one in check(store, fix=True) if one["fixed"]] == ["missing_file", "cache_differs"]
    assert [one[0] for one in found(store)] == [
        "bad_line", "circle", "missing_need", "orphan", "bad_value", "lost_lines"]
