"""What git's hooks run: it brings the cache level, and neither fails git, nor keeps it waiting, nor anything of it."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemons import running_daemon
from tests.hooks.conftest import HOOKS, PROGRAM, Clone, files_of, record
from tests.hooks.test_install import level

from taskstore_core.outbox import Outbox
from taskstore_core.store import Store
from taskstore_hooks import entry

LIMIT_S = 20.0
"""What would otherwise hang for ever is ended by then; how long it takes, the benchmark says."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """The store's lock, held by another process than the one that is tried."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def hook(clone: Clone, name: str = "pre-commit", at: Path | None = None) -> str:
    """Run what a hook runs; it exits with 0 and prints nothing. What it said on standard error."""
    done = clone.run("sync", "--hook", name, at=at)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) <= 1
    return done.stderr


# Its work


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_brings_the_cache_level(tied: Clone, name: str) -> None:
    """After whatever git command a hook belongs to, the cache says what the logs say."""
    tied.git("init", "-q", "--bare", str(tied.top.parent / "remote.git"))
    tied.git("branch", "side")
    tied.write("prds.jsonl", record("p1"))
    tied.git("add", ".taskstore")
    if name == "pre-commit":
        tied.commit()
    elif name == "pre-push":
        tied.git("push", "-q", str(tied.top.parent / "remote.git"), "HEAD")
    elif name == "post-checkout":
        tied.git("checkout", "-q", "-b", "other")
    else:
        tied.git("-c", "core.hooksPath=/dev/null", "commit", "-qm", "a record")
        tied.git("-c", "core.hooksPath=/dev/null", "checkout", "-q", "side")
        (tied.top / "beside").write_text("")
        tied.git("add", "beside")
        tied.git("-c", "core.hooksPath=/dev/null", "commit", "-qm", "side")
        hook(tied)
        for other in {"post-checkout", "post-merge", "post-rewrite"} - {name}:
            (tied.hooks / other).unlink()
        tied.git(*({"post-merge": ["merge", "-q", "--no-edit"], "post-rewrite": ["rebase", "-q"]}[name]), "main")
        assert record("p1") in (tied.store / "prds.jsonl").read_text()
    assert level(tied)


def test_through_a_daemon(tied: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a daemon runs it is the one that brings the cache level, unless it has done so by itself already."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", tied.environment["XDG_RUNTIME_DIR"])
    monkeypatch.setenv("TMPDIR", tied.environment["TMPDIR"])
    with running_daemon(str(tied.store)):
        tied.write("prds.jsonl", *(record(f"p{n}") for n in range(3)))
        assert hook(tied) == ""
        assert level(tied)
        first, second = requests(tied), requests(tied)  # asking is a request, too
        tied.write("prds.jsonl", record("p4"))
        monkeypatch.setattr(Store, "is_level", lambda _: False)  # as before the daemon has looked by itself
        monkeypatch.setattr(Store, "sync", None)
        entry._level(str(tied.store))
        assert level(tied)
        assert requests(tied) - second > second - first


def requests(clone: Clone) -> int:
    """How often the daemon was asked anything."""
    import json

    return int(json.loads(clone.run("daemon", "status", "--json").stdout)["requests"])


def test_a_daemon_that_is_stopped(tied: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not greet is passed by, and the cache brought level without it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", tied.environment["XDG_RUNTIME_DIR"])
    monkeypatch.setenv("TMPDIR", tied.environment["TMPDIR"])
    with running_daemon(str(tied.store)) as daemon:
        daemon.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, daemon.pid, os.WSTOPPED | os.WNOWAIT)
        tied.write("prds.jsonl", record("p1"))
        done = tied.commit()
        assert done.stderr == ""
        assert level(tied)


def test_what_waits_in_the_outbox_outlives_a_commit(tied: Clone) -> None:
    """A line that was acknowledged and not yet appended stands in its log, once, as soon as git is done."""
    tied.run("create", "prd", "--set", "id=p1", "--set", "title=T")
    with Store.open(str(tied.top)) as store, store.lock():
        outbox = Outbox(store.paths.local("outbox"))
        outbox.append([[("prds.jsonl", record("p2"))]])  # and no more: as a crash before the append leaves it
        outbox.close()
    assert level(tied)
    tied.commit()
    tied.run("sync")
    assert (tied.store / "prds.jsonl").read_text().splitlines()[1:] == [record("p2")]
    assert level(tied)


# Its manners


def test_a_held_lock(tied: Clone) -> None:
    """A lock that somebody keeps holds up neither the commit nor anybody after it: one line says so."""
    tied.write("prds.jsonl", record("p1"))
    with held(tied.top / ".git" / "taskstore" / "lock"):
        said = tied.commit().stderr
    assert said == "taskstore: pre-commit: not in sync within a second: the next command does it\n"
    assert not level(tied)
    assert hook(tied) == ""
    assert level(tied)


def test_nothing_is_left_running(tied: Clone) -> None:
    """A hook that was cut short leaves no process behind, which would hold git's output open."""
    tied.write("prds.jsonl", record("p1"))
    with held(tied.top / ".git" / "taskstore" / "lock"):
        done = subprocess.run(f"git commit -q --allow-empty -m x 2>&1 | cat", shell=True, cwd=tied.top,  # noqa: S602, F541
                              env=tied.environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert "not in sync" in done.stdout
        assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and _works_in(pid, tied.top)]


def _works_in(pid: str, folder: Path) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            is_dead = file.read().rpartition(")")[2].split()[0] in "ZX"
        return not is_dead and os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False


def test_no_descriptor_is_kept(tied: Clone) -> None:
    """What works holds none of the descriptors that whoever ran git left open, and nothing of its output."""
    tied.write("prds.jsonl", record("p1"))
    ours, theirs = os.pipe()
    with held(tied.top / ".git" / "taskstore" / "lock"), subprocess.Popen(
            [PROGRAM, "sync", "--hook", "x"], cwd=tied.top, env=tied.environment, pass_fds=[theirs],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        seen = None
        while process.poll() is None:
            for child in _children(process.pid):
                targets = _descriptors(child)
                if any(target.endswith("taskstore/lock") for target in targets):  # it has come to its work
                    seen = targets
        assert process.returncode == 0
    os.close(ours)
    os.close(theirs)
    assert seen is not None
    allowed = {os.devnull, *(target for target in seen if str(tied.top) in target)}
    assert len(set(seen) - allowed) == 1, seen  # the pipe to its parent


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _descriptors(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def test_no_store_is_made(clone: Clone) -> None:
    """In a repository without a store, on a branch without it, and outside git, a hook makes nothing and is silent."""
    plain = clone.top.parent / "plain"
    plain.mkdir()
    before = files_of(clone.top, plain)
    for place in (clone.top, plain):
        assert hook(clone, at=place) == ""
    assert files_of(clone.top, plain) == before
    clone.run("init")
    clone.git("checkout", "-q", "--orphan", "empty")
    (clone.store / ".version").unlink()
    assert hook(clone) == ""
    assert not (clone.store / ".version").exists()


@pytest.mark.parametrize("what", ["newer", "nonsense", "no folder", "outbox"])
def test_whatever_is_wrong_is_one_line(tied: Clone, what: str) -> None:
    """A store that cannot be used is told in one line, and git goes on."""
    if what == "newer":
        (tied.store / ".version").write_text("99\n")
    elif what == "nonsense":
        (tied.store / ".version").write_bytes(b"\xff\x1b[31m\n")
    elif what == "no folder":
        shutil.rmtree(tied.store)
        tied.store.write_text("a file")
    else:
        shutil.rmtree(tied.top / ".git" / "taskstore")
        (tied.top / ".git" / "taskstore").write_text("a file")
        tied.write("prds.jsonl", record("p1"))
    done = tied.commit()
    assert len(done.stderr.splitlines()) <= 1
    assert done.stderr.startswith("taskstore: pre-commit: ") or what in {"outbox", "no folder"}
    assert "\x1b" not in done.stderr


def test_an_error_of_ours_is_no_error_of_gits(tied: Clone, monkeypatch: pytest.MonkeyPatch,
                                              capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever is raised within, of whichever kind, is one line and status 0; the process that waits never does it."""
    def fail(_: object) -> None:
        raise SystemExit("some\nreason\x1b[31m")

    monkeypatch.setattr(entry, "_level", fail)
    assert entry.run("post-merge", str(tied.store)) == 0
    assert capfd.readouterr().err == "taskstore: post-merge: SystemExit: some reason\\x1b[31m\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr", "stdin"])
def test_closed_streams(tied: Clone, stream: str) -> None:
    """A caller that closed a standard stream changes nothing."""
    tied.write("prds.jsonl", record("p1"))
    number = {"stdin": "0<&-", "stdout": "1>&-", "stderr": "2>&-"}[stream]
    done = subprocess.run(["sh", "-c", f'"$0" sync --hook x {number}', PROGRAM], cwd=tied.top, env=tied.environment,
                          capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert level(tied)


# Odd surroundings


@pytest.mark.parametrize("variables", [
    {"PATH": ""}, {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere"}, {"HOME": "", "LC_ALL": "POSIX"},
    {"GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere", "GIT_WORK_TREE": "/"}], ids=" ".join)
def test_odd_environments(tied: Clone, variables: dict[str, str]) -> None:
    """A hook does its work with no PATH, with variables for another Python, and with git's own."""
    tied.write("prds.jsonl", record("p1"))
    done = subprocess.run([str(tied.hooks / "pre-commit")], cwd=tied.top, env={**tied.environment, **variables},
                          capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert level(tied)


def test_with_nothing_at_all(tied: Clone) -> None:
    """The same with an empty environment."""
    tied.write("prds.jsonl", record("p1"))
    done = subprocess.run([str(tied.hooks / "pre-commit")], cwd=tied.top, env={}, capture_output=True, text=True,
                          check=False, timeout=LIMIT_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert level(tied)


def test_modules_in_the_repository_are_not_ours(tied: Clone) -> None:
    """A file of the project that is called like a module of Python's or ours is not imported."""
    for name in ("json", "select", "taskstore", "taskstore_core", "apsw", "re"):
        (tied.top / f"{name}.py").write_text("raise SystemExit('imported')\n")
    tied.write("prds.jsonl", record("p1"))
    assert hook(tied) == ""
    assert level(tied)


def test_commit_with_another_index(tied: Clone) -> None:
    """`git commit FILE` works on an index of its own, which git names to hooks."""
    tied.write("prds.jsonl", record("p1"))
    (tied.top / "file").write_text("y\n")
    tied.git("commit", "-qm", "x", "file")
    assert level(tied)
    assert tied.git("show", "--stat", "--format=", "HEAD").stdout.split()[0] == "file"


def test_nothing_but_a_light_start(tied: Clone) -> None:
    """Where the cache is level a hook imports nothing that only a write, a daemon or a person needs."""
    tied.run("sync")  # waits until git has been quiet for a moment, and does what that put off
    script = ("import sys; from taskstore_hooks import entry; from taskstore.cli import arguments;"
              " entry._level(None); print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", script], cwd=tied.top, env=tied.environment, capture_output=True,
                          text=True, check=True)
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert not modules & {"argparse", "json", "socket", "subprocess", "tempfile", "msgspec", "orjson", "trio", "signal",
                          "enum", "typing", "xxhash", "pathlib", "contextlib"}
    assert "apsw" in modules
