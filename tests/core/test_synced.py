"""The commit at which the logs were last read: noted after whatever moves HEAD, and in nobody's way."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskstore_core import git as git_module
from taskstore_core import signature, synced
from taskstore_core.batch import Operation
from taskstore_core.check import check
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store

PRD = KINDS["prd"]
PATIENCE_S = 30
LATER_NS = 10**9
Git = Callable[..., str]


@pytest.fixture(params=["files", "packed", "sha256"])
def root(request: pytest.FixtureRequest, empty: str, tmp_path: Path) -> Path:
    """A repository with a store, and the two branches `main` and `other`, whose logs differ."""
    folder = tmp_path / "repo"
    folder.mkdir()
    run = in_folder(folder)
    run("init", "-q", "-b", "main", *(["--object-format=sha256"] if request.param == "sha256" else []), ".")
    shutil.copytree(empty, folder / ".taskstore")
    with Store.open(os.fspath(folder)) as store:
        store.apply([Operation("create", PRD, {"id": "p", "title": "t"})])
        assert store.flush(PATIENCE_S)
    run("add", "-A")
    run("commit", "-qm", "main")
    run("checkout", "-qb", "other")
    with Store.open(os.fspath(folder)) as store:
        store.apply([Operation("create", PRD, {"id": "q", "title": "t"})])
        assert store.flush(PATIENCE_S)
    run("commit", "-qam", "other")
    if request.param == "packed":
        run("pack-refs", "--all")
    wait_for_quiet(folder)
    return folder


def in_folder(folder: Path) -> Git:
    def run(*words: str) -> str:
        done = subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@x", "-c", "core.hooksPath=/dev/null",
                               *words], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    return run


def wait_for_quiet(folder: Path) -> None:
    """Make what git did last long ago."""
    os.utime(folder / ".git" / "index", (1, 1))
    os.utime(folder / ".git", (1, 1))


@pytest.fixture(name="git")
def fixture_git(root: Path) -> Git:
    return in_folder(root)


@pytest.fixture
def opened(root: Path) -> Iterator[Store]:
    with Store.open(os.fspath(root)) as store:
        yield store


def noted(store: Store) -> tuple[object, object]:
    """(commit, branch) in the record of this clone."""
    line = json.loads(store.get("repo_state", os.path.dirname(store.paths.directory)))
    return line["last_synced_commit"], line.get("branch")


MOVES: dict[str, list[list[str]]] = {
    "checkout": [["checkout", "-q", "main"]],
    "detach": [["checkout", "-q", "--detach", "main"]],
    "reset": [["reset", "-q", "--hard", "main"]],
    "merge": [["checkout", "-q", "main"], ["merge", "-q", "--no-edit", "other"]],
    "rebase": [["checkout", "-qb", "third", "main"], ["commit", "-q", "--allow-empty", "-m", "third"],
               ["rebase", "-q", "other"]],
}


@pytest.mark.parametrize("move", MOVES)
def test_whatever_moves_head_is_noted(opened: Store, git: Git, root: Path, move: str) -> None:
    """After a checkout, reset, merge or rebase that changed logs, the next read notes branch and commit."""
    opened.sync()
    assert noted(opened) == (git("rev-parse", "HEAD"), "other")
    for words in MOVES[move]:
        git(*words)
    wait_for_quiet(root)
    opened.find("prd")
    assert noted(opened) == (git("rev-parse", "HEAD"), git("branch", "--show-current") or None)
    assert git("status", "--short") == ""


def test_a_read_notes_it_by_itself(opened: Store, git: Git, root: Path) -> None:
    """A read that finds the logs of another branch notes its commit, for all; the read after it adds nothing."""
    opened.sync()
    git("checkout", "-q", "main")
    wait_for_quiet(root)
    assert [json.loads(line)["id"] for line in opened.find("prd")[0]] == ["p"]
    size = os.stat(opened.paths.file("repo_state.jsonl")).st_size
    with Store.open(os.fspath(root)) as second:
        assert noted(second) == (git("rev-parse", "main"), "main")
        second.find("prd")
    assert os.stat(opened.paths.file("repo_state.jsonl")).st_size == size


def test_a_commit_leaves_head_ahead(opened: Store, git: Git) -> None:
    """Commits that touch no log move HEAD ahead of what was synced; `sync` catches up; a reset leaves it behind."""
    opened.sync()
    first = git("rev-parse", "HEAD")
    for _ in range(2):
        git("commit", "-q", "--allow-empty", "-m", "more")
    opened.find("prd")
    place: Any = opened.repository()
    assert (place["commit"], place["branch"]) == (git("rev-parse", "HEAD"), "other")
    assert (place["last_synced"]["commit"], place["last_synced"]["branch"]) == (first, "other")
    assert (place["ahead"], place["behind"]) == (2, 0)
    opened.sync()
    assert noted(opened)[0] == git("rev-parse", "HEAD")
    git("reset", "-q", "--soft", "HEAD~1")
    place = opened.repository()
    assert (place["ahead"], place["behind"]) == (0, 1)


def test_a_commit_that_is_gone_is_said_to_be_unknown(opened: Store) -> None:
    """Where git does not know the noted commit any more, no distance is told."""
    opened.apply([Operation("update", synced.KIND, {
        "repo_path": os.path.dirname(opened.paths.directory), "last_synced_commit": "ab" * 20})])
    place: Any = opened.repository()
    assert (place["ahead"], place["behind"]) == (None, None)


def test_while_git_is_at_work_nothing_is_noted_and_later_it_is(
    opened: Store, git: Git, root: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is read while git holds its lock is noted when git is done, without another change of a log."""
    # A read finds the cache level, and does not look again.
    monkeypatch.setattr(signature, "stamping_ns", lambda: time.time_ns() + LATER_NS)
    opened.sync()
    before = noted(opened)
    git("checkout", "-q", "main")
    (root / ".git" / "index.lock").touch()
    opened.find("prd")
    assert noted(opened) == before
    assert opened.is_head_due
    (root / ".git" / "index.lock").unlink()
    wait_for_quiet(root)
    opened.look(KINDS.values())
    assert noted(opened) == (git("rev-parse", "main"), "main")
    assert not opened.is_head_due


def test_a_process_that_ends_looks_once_more(root: Path, git: Git) -> None:
    """A command that read between the files and HEAD notes at its end where HEAD came to."""
    with Store.open(os.fspath(root)) as store:
        store.sync()
        git("checkout", "-q", "main")
        head = (root / ".git" / "HEAD").read_text()
        (root / ".git" / "HEAD").write_text("ref: refs/heads/other\n")
        os.utime(root / ".git" / "index")
        store.find("prd")
        (root / ".git" / "HEAD").write_text(head)
    with Store.open(os.fspath(root)) as store:
        assert noted(store) == (git("rev-parse", "main"), "main")


def test_a_tracked_file_is_read_and_not_written(opened: Store, git: Git, root: Path) -> None:
    """Where the original tool's repo_state.jsonl is tracked, it is read, the tree stays clean, and `check` says so."""
    line = {"repo_path": "/elsewhere", "last_synced_commit": "c0ffee", "updated_at": 1}
    (root / ".taskstore" / "repo_state.jsonl").write_text(json.dumps(line) + "\n")
    git("add", "-f", ".taskstore/repo_state.jsonl")
    git("commit", "-qm", "as the original tool has it")
    git("checkout", "-q", "main")
    wait_for_quiet(root)
    opened.find("prd")
    opened.sync()
    git("checkout", "-q", "other")
    wait_for_quiet(root)
    opened.find("prd")
    opened.sync()
    assert git("status", "--short") == ""
    assert json.loads(opened.get("repo_state", "/elsewhere")) == line
    place: Any = opened.repository()
    assert place["last_synced"] is None
    problems: Any = check(opened)["problems"]
    assert "tracked_state" in [problem["problem"] for problem in problems]
    git("rm", "-q", "--cached", ".taskstore/repo_state.jsonl")
    opened.sync()
    assert noted(opened) == (git("rev-parse", "HEAD"), "other")


def test_what_others_put_into_the_record_stays(opened: Store, root: Path) -> None:
    """Fields that nobody here knows survive, byte for byte."""
    path = os.path.dirname(opened.paths.directory)
    (root / ".taskstore" / "repo_state.jsonl").write_text(
        f'{{"repo_path":{json.dumps(path)},"last_synced_commit":"c0ffee","updated_at":1,"more":[1.50,  "x"]}}\n')
    opened.sync()
    assert '"more":[1.50,  "x"]' in opened.get("repo_state", path)
    assert noted(opened)[0] != "c0ffee"


def test_no_git_command_runs_where_the_files_say_it(
    opened: Store, git: Git, root: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HEAD is read from its files; a read with nothing new looks at none; an unchanged HEAD starts no process."""
    opened.sync()
    asked: list[object] = []
    real = git_module.run

    def run(*words: str, given: bytes = b"") -> bytes | None:
        asked.append(words)
        return real(*words, given=given)

    monkeypatch.setattr(git_module, "run", run)
    opened.sync()
    assert git_module.head(os.fspath(root / ".git")).commit == git("rev-parse", "HEAD")
    heads: list[str] = []
    real_head = git_module.head

    def head(git_dir: str) -> git_module.Head:
        heads.append(git_dir)
        return real_head(git_dir)

    monkeypatch.setattr(git_module, "head", head)
    opened.find("prd")
    opened.apply([Operation("update", PRD, {"id": "q", "title": "u"})])
    opened.find("prd")
    assert (asked, heads) == ([], [])


def test_git_is_asked_where_files_do_not_say_it(root: Path, git: Git) -> None:
    """With references in tables, or a symbolic one, git says where HEAD is."""
    git("symbolic-ref", "refs/heads/alias", "refs/heads/main")
    git("symbolic-ref", "HEAD", "refs/heads/alias")
    found = git_module.head(os.fspath(root / ".git"))
    assert (found.branch, found.commit) == ("main", git("rev-parse", "main"))
    (root / ".git" / "reftable").mkdir()
    git("symbolic-ref", "HEAD", "refs/heads/main")
    found = git_module.head(os.fspath(root / ".git"))
    assert (found.branch, found.commit) == ("main", git("rev-parse", "main"))


def test_the_variables_of_a_hook_do_not_mislead(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that git sets for its hooks, of another index or folder, change no answer."""
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", "nowhere")
    path = os.fspath(root / ".taskstore" / "prds.jsonl")
    assert git_module.is_tracked(path, os.fspath(root / ".git"))
    versions = git_module.versions_elsewhere(path)
    assert versions is not None
    assert len(list(versions)) == 2


def test_before_the_first_commit_there_is_nothing_to_tell(tmp_path: Path) -> None:
    """Without a commit nothing is noted and nothing told; outside git neither."""
    in_folder(tmp_path)("init", "-q", ".")
    store, _ = Store.create(os.fspath(tmp_path))
    with store:
        store.sync()
        assert store.repository() is None
        assert store.find("repo_state")[0] == []
