"""Git in a loop against writers: nothing acknowledged is lost, and git is not in their way nor they in its.

With `--long` for minutes each, and what is printed (`-s`) is the table of docs/benchmarks.md.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.conftest import Site
from tests.daemons import running_daemon

from taskstore_core.batch import Operation
from taskstore_core.check import check
from taskstore_core.kinds import KINDS

LOG = ".taskstore/task_specs.jsonl"


class Repository:
    """The store's repository with a second branch, and what git did not want to do."""

    def __init__(self, site: Site) -> None:
        self.root = site.root
        self.commands = self.done = 0
        self.refused: list[str] = []
        self._environment = site.environment
        (site.directory / ".gitattributes").write_text("*.jsonl merge=union\n")
        for words in (["symbolic-ref", "HEAD", "refs/heads/main"], ["add", "-A"], ["commit", "-qm", "store"],
                      ["branch", "other"]):
            self.run(*words)
        self.commit_beside("other")

    def run(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        self.commands += 1
        return subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@x", *words], cwd=self.root, check=False,
                              input=given, capture_output=True, text=True, env=self._environment)

    def try_to(self, *words: str) -> bool:
        """Whether git did something that it can always do, were it not for changed files."""
        done = self.run(*words)
        self.done += 1
        if done.returncode:
            self.refused.append(f"{' '.join(words)}: {done.stderr[-200:]}")
        return not done.returncode

    def commit_beside(self, branch: str) -> None:
        """A commit on another branch that touches no file of ours, and no work tree."""
        tree = self.run("rev-parse", f"{branch}^{{tree}}").stdout.strip()
        commit = self.run("commit-tree", tree, "-p", branch, "-m", "beside").stdout.strip()
        self.run("update-ref", f"refs/heads/{branch}", commit)

    def commit_now_and_then(self, turn: int) -> None:
        """Commit what was written, as people do: what takes it all away and brings it back costs by the line."""
        if turn % 25 == 0:
            self.run("commit", "-qam", "lines")

    def held(self) -> set[str]:
        """The ids in every version of the log that git has, stashes and what only a reflog knows too."""
        commits = self.run("log", "--all", "--reflog", "--format=%H").stdout.split()
        given = "".join(f"{commit}:{LOG}\n" for commit in commits)
        listed = self.run("cat-file", "--batch-check=%(objectname)", given=given).stdout.splitlines()
        blobs = {words[0] for line in listed if len(words := line.split()) == 1}
        return {json.loads(line)["id"] for blob in blobs
                for line in self.run("cat-file", "blob", blob).stdout.splitlines() if line.endswith("}")}


def checkout(git: Repository, turn: int) -> None:
    git.try_to("checkout", "-q", "main" if turn % 2 else "other")


def merge(git: Repository, _: int) -> None:
    git.run("commit", "-qam", "lines")
    git.commit_beside("other")
    git.try_to("merge", "-q", "-m", "merge", "other")


def stash(git: Repository, turn: int) -> None:
    git.commit_now_and_then(turn)
    if "No local changes" not in git.run("stash").stdout:
        git.try_to("stash", "pop")


def rebase(git: Repository, turn: int) -> None:
    git.commit_now_and_then(turn)
    git.run("commit", "-qm", "mine", "--allow-empty")
    git.commit_beside("other")
    if not git.try_to("rebase", "-q", "--autostash", "other"):
        git.run("rebase", "--abort")  # which brings back what was put aside
    git.run("update-ref", "refs/heads/other", "HEAD")  # or each turn would have one commit more to replay


def refused_merge(git: Repository, _: int) -> None:
    git.run("merge", "-q", "nonsense")
    git.run("status")
    git.done += 1


def worktrees(git: Repository, turn: int) -> None:
    git.try_to("worktree", "add", "-q", "--detach", os.fspath(git.root.parent / f"tree-{turn}"))
    git.try_to("worktree", "remove", "--force", os.fspath(git.root.parent / f"tree-{turn}"))


KINDS_OF_WORK = [checkout, merge, stash, rebase, refused_merge, worktrees]


WRITER = """
import contextlib, select, sys, time
from taskstore.connection import Connection
from taskstore_core.errors import TaskStoreError

root, name, use_daemon = sys.argv[1:]
number = 0
with Connection.open(root, daemon=use_daemon == "True") as connection:
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        number += 1
        key = f"{name}-{number}"
        began = time.perf_counter()
        with contextlib.suppress(TaskStoreError):
            connection.call("record.create", {"kind": "task_spec", "record": {
                "id": key, "prd_id": "p", "phase_name": name}})
            print(key, time.perf_counter() - began)
"""


READER = """
import select, sys
from taskstore.connection import Connection
from taskstore_core.errors import BusyError, NotFoundError

root, name, use_daemon = sys.argv[1:]
with Connection.open(root, daemon=use_daemon == "True") as connection:
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        try:
            connection.call("record.get", {"kind": "prd", "id": "the last"})
        except NotFoundError as error:
            print(error.message)
        except BusyError:
            pass  # which is no wrong answer: others had the lock for 5 s, where the machine stood still in between
"""


STANDSTILL = """
import contextlib, os, random, select, signal, sys, time

def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])

def descendants(root):
    parents = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            parents[pid] = parent(pid)
    found = [root]
    for of in found:
        found += [pid for pid, its in parents.items() if its == of and pid != os.getpid()]
    return found[1:]

count = 0
while not select.select([sys.stdin], [], [], random.uniform(0.05, 0.3))[0]:
    stopped = descendants(os.getppid())
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in stopped:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(0.6)
    count += 1
print(count)
"""


@contextlib.contextmanager
def standstills(site: Site) -> "Iterator[None]":
    """Everything that this test has started, git too, stands still again and again, as a suspended machine does."""
    with processes(site, STANDSTILL, [False]) as stop:
        yield
        print(f"the machine stood still {int(*stop())} times")  # noqa: T201 - as in the tests


@contextlib.contextmanager
def processes(site: Site, program: str, through: "Sequence[bool]") -> "Iterator[Callable[[], list[str]]]":
    """Processes that use the store, each through the daemon or not; what stops them gives the lines they printed."""
    running = [subprocess.Popen(
        [sys.executable, "-c", program, os.fspath(site.root), f"w{number}", str(use_daemon)], env=site.environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for number, use_daemon in enumerate(through)]

    def stop() -> list[str]:
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
        found: list[str] = []
        for process in running:
            assert process.stdout is not None
            found += process.stdout.read().splitlines()
            assert process.wait() == 0
        return found

    try:
        yield stop
    finally:
        for process in running:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


@contextlib.contextmanager
def writers(site: Site) -> "Iterator[Callable[[], dict[str, float]]]":
    """Four that write through a daemon and two on the files; what stops them gives what was acknowledged.

    That is ids and how long each took, in seconds.
    """
    with processes(site, WRITER, [True] * 4 + [False] * 2) as stop:
        yield lambda: {key: float(seconds) for key, seconds in map(str.split, stop())}


@pytest.fixture(name="turns")
def fixture_turns(request: pytest.FixtureRequest) -> int:
    return 350 if request.config.getoption("--long") else 12


@pytest.mark.parametrize("kind", KINDS_OF_WORK)
def test_git_in_a_loop(site: Site, kind: Callable[[Repository, int], None], turns: int) -> None:
    """Four writers through a daemon and two on the files, while git works: no acknowledged record is lost.

    None but those that git has taken charge of is out of the log, no line is malformed or there twice, the cache is
    what a fresh one would be, and git is refused nothing worth mentioning.
    """
    git = Repository(site)
    pauses = random.Random(1)
    with running_daemon(os.fspath(site.directory)), writers(site) as stop:
        for turn in range(turns):
            kind(git, turn)
            time.sleep(pauses.random() * 0.3)
        acknowledged = stop()
    gone = assert_nothing_lost(site, git, acknowledged)
    ms = sorted(seconds * 1000 for seconds in acknowledged.values())
    print(f"{kind.__name__}: {len(ms)} writes, {gone} of them in git's charge, 0 lost;"  # noqa: T201 - for the table
          f" p50 {ms[len(ms) // 2]:.1f} ms, p99.9 {ms[int(len(ms) * 0.999)]:.0f} ms;"
          f" git refused {len(git.refused)} of {git.done}, and ran {git.commands} commands")
    assert len(git.refused) <= max(1, git.done // 20), git.refused


@pytest.mark.parametrize("stands_still", [False, pytest.param(True, marks=pytest.mark.long)])
def test_what_is_on_both_branches_is_always_read(site: Site, turns: int, *, stands_still: bool) -> None:
    """Git writes a log of megabytes bit by bit: who reads meanwhile has it as it was or as it is to be."""
    log = site.log()
    ids = [*(f"p{number}" for number in range(20_000)), "the last"]
    with site.open() as store:
        store.apply([Operation("create", KINDS["prd"], {"id": key, "title": key}) for key in ids])
    git = Repository(site)
    git.run("checkout", "-q", "other")
    log.write_bytes(log.read_bytes().replace(b'"title":"p0"', b'"title":"another"', 1))
    git.run("commit", "-qam", "another")
    with running_daemon(os.fspath(site.directory)), processes(site, READER, [True, True, False, False]) as stop:
        with standstills(site) if stands_still else contextlib.nullcontext():
            for turn in range(turns * 3):
                checkout(git, turn + 1)
        assert not stop()
    assert not git.refused
    print(f"beside readers: git ran {git.commands} commands")  # noqa: T201 - as above


def test_a_killed_daemon_while_git_works(site: Site, turns: int) -> None:
    """The same with a daemon that is killed again and again, with lines waiting."""
    git = Repository(site)
    pauses = random.Random(2)
    with writers(site) as stop:
        for turn in range(turns // 3):
            with running_daemon(os.fspath(site.directory)) as daemon:
                for kind in (checkout, stash, rebase):
                    kind(git, turn)
                    time.sleep(pauses.random() * 0.1)
                daemon.kill()
                daemon.wait()
        acknowledged = stop()
    assert_nothing_lost(site, git, acknowledged)
    print(f"killed daemons: {len(acknowledged)} writes, 0 lost; git ran {git.commands} commands")  # noqa: T201 - as above


def assert_nothing_lost(site: Site, git: Repository, acknowledged: "Iterable[str]") -> int:
    """Assert that state and git between them have everything; how many of it only git has."""
    assert acknowledged
    git.run("checkout", "-q", "main")
    with site.open() as store:
        assert store.flush(60)
        there = set(site.ids("task_spec"))
        gone = [key for key in acknowledged if key not in there]
        assert not gone or set(gone) <= git.held()
        found = check(store)
    lines = Path(git.root, LOG).read_bytes().split(b"\n")[:-1]
    assert len(lines) == len(set(lines))
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert not [one for one in found["problems"] if one["problem"] in {"cache_differs", "bad_line"}]  # type: ignore[attr-defined]
    return len(gone)
