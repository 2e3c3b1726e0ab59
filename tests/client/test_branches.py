"""Another branch in the worktree that holds the store: what agents see of it, by the files and through a daemon."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from tests.client.test_cli import assert_refused, run
from tests.conftest import Site
from tests.daemons import poll, running_daemon

from taskstore import Changed, NoStoreError, Prd, Store, connect, connect_async
from taskstore.events import BranchChanged
from taskstore_core import layout
from taskstore_core.paths import Paths

PATIENCE_S = 60
EVERY = [["list", "prd"], ["show", "prd", "m1"], ["create", "prd", "--set", "title=t"], ["update", "prd", "m1", "--set",
         "title=t"], ["delete", "prd", "m1"], ["history", "prd", "m1"], ["restore", "prd", "m1"], ["stats"], ["ready"],
         ["claim", "--by", "me"], ["sync"], ["sync", "--full"], ["check"], ["check", "--fix"], ["recover"],
         ["recover", "--all"], ["export"], ["resolve-conflicts"], ["watch"], ["daemon", "start"], ["list-prds"]]


def git(site: Site, *words: str) -> str:
    return subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@x", *words], cwd=site.root, check=True,
                          capture_output=True, text=True, env=site.environment).stdout.strip()


@pytest.fixture(name="shared", params=["by the files", "through a daemon"])
def fixture_shared(site: Site, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A repository on `main`, with `other`, whose store holds another record, and `bare`, which has no store."""
    (site.root / "README").write_text("what it is")
    (site.root / ".git" / "info").mkdir(exist_ok=True)
    (site.root / ".git" / "info" / "exclude").write_text("/.taskstore/store.db*\n/.taskstore/repo_state.jsonl\n")
    git(site, "symbolic-ref", "HEAD", "refs/heads/bare")
    git(site, "add", "README")
    git(site, "commit", "-qm", "no store")
    git(site, "checkout", "-qb", "main")
    git(site, "add", ".")
    git(site, "commit", "-qm", "the store")
    git(site, "branch", "other")
    for branch, key in (("other", "o1"), ("main", "m1")):
        git(site, "checkout", "-q", branch)
        site.seed(1, id=key)
        git(site, "commit", "-qam", key)
    if request.param == "by the files":
        yield site
    else:
        with running_daemon(os.fspath(site.directory)) as daemon:
            yield site
            assert daemon.poll() is None, "the daemon has gone"


def ids(store: Store) -> list[str]:
    return [prd.id for prd in store.list(Prd)]


def tree(site: Site) -> dict[str, bytes]:
    """The files of the worktree, but for the cache's."""
    return {os.fspath(path.relative_to(site.root)): path.read_bytes() for path in site.root.rglob("*")
            if path.is_file() and ".git/" not in os.fspath(path) and not path.name.startswith("store.db")}


def test_each_branch_has_its_state(shared: Site) -> None:
    """Whoever holds a store open sees what the branch says that is checked out, at once, and writes to that."""
    with connect(os.fspath(shared.root)) as store:
        for _ in range(3):
            assert ids(store) == ["m1"]
            git(shared, "checkout", "-q", "other")
            assert ids(store) == ["o1"]
            git(shared, "checkout", "-q", "main")
        git(shared, "checkout", "-q", "other")
        store.create(Prd(id="o2", title="t"))
    assert run(shared.root, "sync").status == 0
    git(shared, "commit", "-qam", "o2")
    git(shared, "checkout", "-q", "main")
    assert [json.loads(line)["id"] for line in run(shared.root, "export", "prd").out.splitlines()] == ["m1"]


def test_no_command_works_on_a_branch_without_the_store(shared: Site) -> None:
    """Each says which branch it is, makes and deletes nothing, and when the branch is back everything is there."""
    git(shared, "checkout", "-q", "bare")
    before = tree(shared)
    assert not shared.log().exists()
    for words in EVERY:
        assert_refused(run(shared.root, *words), 3, "there is no store in", "bare, which is checked out there",
                       "check out the branch that has it")
    assert tree(shared) == before
    assert git(shared, "status", "--porcelain") == ""
    git(shared, "checkout", "-q", "--detach", "bare")
    assert_refused(run(shared.root, "stats"), 3, git(shared, "rev-parse", "HEAD"))
    git(shared, "checkout", "-q", "main")
    assert [json.loads(line)["id"] for line in run(shared.root, "export", "prd").out.splitlines()] == ["m1"]
    assert json.loads(run(shared.root, "check", "--json").out)["problems"] == [
        one for one in json.loads(run(shared.root, "check", "--json").out)["problems"] if one["problem"] in {
            "no_hook", "no_driver", "no_attributes"}]


def test_what_is_open_lives_on(shared: Site) -> None:
    """A store that is open refuses reads and writes on such a branch, and goes on when the branch is back."""
    with connect(os.fspath(shared.root)) as store:
        assert ids(store) == ["m1"]
        git(shared, "checkout", "-q", "bare")
        before = tree(shared)
        for _ in range(2):
            with pytest.raises(NoStoreError, match="bare, which is checked out"):
                store.list(Prd)
            with pytest.raises(NoStoreError, match="bare, which is checked out"):
                store.get(Prd, "m1")
            with pytest.raises(NoStoreError, match="bare, which is checked out"):
                store.create(Prd(id="never", title="t"))
        assert tree(shared) == before
        git(shared, "checkout", "-q", "main")
        assert ids(store) == ["m1"]
        store.create(Prd(id="m2", title="t"))
    assert sorted(shared.ids()) == ["m1", "m2"]


def test_lines_that_wait_are_there_when_the_branch_is_back(shared: Site) -> None:
    """What was written while git was at work, and never came into its log, waits for a branch that has one."""
    lock = shared.root / ".git" / "index.lock"
    with connect(os.fspath(shared.root)) as store:
        lock.touch()
        store.create(Prd(id="m2", title="t"))
        assert set(ids(store)) == {"m1", "m2"}
        lock.unlink()
        git(shared, "checkout", "-qf", "bare")
        before = tree(shared)
        shared.calm()
        with pytest.raises(NoStoreError):
            store.list(Prd)
        assert run(shared.root, "sync").status == 3
        assert tree(shared) == before
        git(shared, "checkout", "-q", "main")
        assert set(ids(store)) == {"m1", "m2"}
    assert run(shared.root, "sync").status == 0
    assert [json.loads(line)["id"] for line in shared.lines()] == ["m1", "m2"]


def test_a_worktree_beside_it(shared: Site, tmp_path: Path) -> None:
    """Agents in linked worktrees hear the same: which branch the main one is on."""
    git(shared, "worktree", "add", "-q", os.fspath(tmp_path / "beside"), "-b", "mine", "main")
    assert json.loads(run(tmp_path / "beside", "show", "prd", "m1", "--json").out)["id"] == "m1"
    git(shared, "checkout", "-q", "bare")
    assert_refused(run(tmp_path / "beside", "list", "prd"), 3, os.fspath(shared.root), "bare, which is checked out")


class Looks:
    """Tells when somebody in this process has looked for the store in vain."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.vain = threading.Event()
        real = layout.is_elsewhere

        def is_elsewhere(paths: Paths) -> bool:
            if real(paths):
                self.vain.set()
            return real(paths)

        monkeypatch.setattr(layout, "is_elsewhere", is_elsewhere)


@pytest.fixture(name="looks")
def fixture_looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def follow(root: Path, seen: list[object], begun: threading.Event) -> None:
    with connect(os.fspath(root)) as store, store.changes(kinds=["prd"]) as changes:
        begun.set()
        for event in changes:
            seen.append(event)
            if isinstance(event, Changed) and event.id == "m2":
                return


def follow_async(root: Path, seen: list[object], begun: threading.Event) -> None:
    async def run_it() -> None:
        async with connect_async(os.fspath(root)) as store, store.changes(kinds=["prd"]) as changes:
            begun.set()
            async for event in changes:
                seen.append(event)
                if isinstance(event, Changed) and event.id == "m2":
                    return

    anyio.run(run_it)


@pytest.mark.parametrize("follower", [follow, follow_async])
def test_who_follows_the_changes(shared: Site, looks: Looks, follower: Callable[..., None]) -> None:
    """A subscriber outlives a branch without the store, hears of it from a daemon, and misses and repeats nothing."""
    seen: list[object] = []
    begun = threading.Event()
    thread = threading.Thread(target=follower, args=(shared.root, seen, begun))
    thread.start()
    assert begun.wait(PATIENCE_S)
    git(shared, "checkout", "-q", "bare")
    for _ in poll():
        if looks.vain.is_set() or any(isinstance(one, BranchChanged) for one in seen):
            break
    git(shared, "checkout", "-q", "main")
    with connect(os.fspath(shared.root)) as store:
        store.create(Prd(id="m2", title="t"))
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    told = [one.branch for one in seen if isinstance(one, BranchChanged)]
    assert told == ([] if looks.vain.is_set() else ["bare", "main"])
    assert [(one.id, one.op) for one in seen if isinstance(one, Changed)] == [("m2", "create")]


def test_who_follows_a_store_that_is_gone(site: Site) -> None:
    """A repository that is deleted is no branch: whoever follows it is told."""
    site.seed(1)
    with connect(os.fspath(site.root)) as store, store.changes() as changes:
        site.directory.rename(site.root / "old")
        site.private.rename(site.root / "older")
        with pytest.raises(NoStoreError):
            next(iter(changes))


def test_init_makes_one_there_when_it_is_asked_to(shared: Site) -> None:
    """`init` begins a store on such a branch: it is a person's word."""
    git(shared, "checkout", "-q", "bare")
    done = run(shared.root, "init", "--no-hooks")
    assert (done.status, "made a store" in done.out) == (0, True)
    assert run(shared.root, "list", "prd").status == 0


def test_a_store_that_a_sparse_checkout_keeps_out(shared: Site) -> None:
    """It is there, and not to be made anew, which would have the next commit delete all its lines."""
    git(shared, "sparse-checkout", "set", "no-such-folder")
    before = tree(shared)
    assert not shared.log().exists()
    for words in (["list", "prd"], ["init"], ["sync"]):
        assert_refused(run(shared.root, *words), 3, "git sparse-checkout add .taskstore")
    assert tree(shared) == before
    git(shared, "sparse-checkout", "add", ".taskstore")
    assert [json.loads(line)["id"] for line in run(shared.root, "export", "prd").out.splitlines()] == ["m1"]
