"""Starting a daemon on demand: one, whoever asks and whoever is killed; and nobody waits for what does not start."""

import contextlib
import fcntl
import json
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Outcome, Site
from tests.daemons import PATIENCE_S, daemons_of, end_daemons_of, poll, private_folder

from taskstore import connect
from taskstore.aio import connect_async
from taskstore.remote import reach
from taskstore.starting import AGAIN_S, StartError, last_failure, run, start
from taskstore_core.paths import Paths, discover
from taskstore_core.presence import FAILED, is_held


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own; whatever daemon is left at its end is killed."""
    monkeypatch.delenv("TASKSTORE_AUTOSTART", raising=False)
    with private_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)
        end_daemons_of(os.fspath(tmp_path))


@pytest.fixture
def paths(site: Site) -> Paths:
    return discover(os.fspath(site.root))


def serving(paths: Paths) -> int | None:
    """The process that answers, if any does."""
    remote = reach(paths)
    if remote is None:
        return None
    with contextlib.closing(remote):
        return int(remote.greeting["pid"])


def cli(site: Site, *words: str, **environment: str) -> Outcome:
    """A command, with the test's runtime folder."""
    done = subprocess.run([sys.executable, "-m", "taskstore", *words], cwd=site.root, capture_output=True, text=True,
                          env={**os.environ, **environment}, check=False, timeout=PATIENCE_S)
    return Outcome(done.returncode, done.stdout, done.stderr)


# When asked


def test_nobody_asked(site: Site, paths: Paths) -> None:
    """A command that was not asked to starts no daemon."""
    assert cli(site, "stats").status == 0
    assert serving(paths) is None
    assert not (site.private / "daemon.lock").exists()


@pytest.mark.parametrize(("words", "environment"), [
    (["--start", "create", "prd", "--set", "title=t"], {}),
    (["create", "prd", "--set", "title=t", "--start"], {}),
    (["create", "prd", "--set", "title=t"], {"TASKSTORE_AUTOSTART": "1"}),
], ids=["before", "behind", "environment"])
def test_a_command_starts_one(site: Site, paths: Paths, words: list[str], environment: dict[str, str]) -> None:
    """A command that is asked to starts a daemon and is served by it, and the next is served by the same."""
    assert cli(site, *words, **environment).status == 0
    pid = serving(paths)
    assert pid is not None
    assert cli(site, *words, **environment).status == 0
    assert serving(paths) == pid
    status = json.loads(cli(site, "daemon", "status", "--json").out)
    assert status["requests"] >= 4  # a greeting and a create each


@pytest.mark.parametrize(("words", "environment", "status"), [
    (["--no-daemon", "stats"], {"TASKSTORE_AUTOSTART": "1"}, 0),
    (["stats"], {"TASKSTORE_AUTOSTART": "0"}, 0),
    (["--no-daemon", "--start", "stats"], {}, 2),
], ids=["no daemon", "zero", "both"])
def test_no_means_no(site: Site, paths: Paths, words: list[str], environment: dict[str, str], status: int) -> None:
    """Whoever wants no daemon gets none, and whoever wants both hears that it makes no sense."""
    assert cli(site, *words, **environment).status == status
    assert serving(paths) is None


def test_the_library_starts_one(site: Site, paths: Paths) -> None:
    """`connect` starts a daemon when asked to, and so does a program in whose environment that stands."""
    with connect(os.fspath(site.root), start=True) as store:
        store.stats()
    assert serving(paths) is not None


async def test_the_asynchronous_library_starts_one(site: Site, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does the asynchronous client, asked by the environment."""
    monkeypatch.setenv("TASKSTORE_AUTOSTART", "1")
    async with connect_async(os.fspath(site.root)) as store:
        await store.stats()
    assert serving(paths) is not None


def test_no_child_is_left(site: Site, paths: Paths) -> None:
    """A daemon is no child of the program that started it, which need not wait for its end."""
    assert start(paths)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert site.root.exists()


# Failures


@pytest.fixture
def obstacle(runtime: Path) -> Path:
    """What keeps daemons from listening."""
    (runtime / "taskstore").touch()
    return runtime / "taskstore"


def test_a_failure_is_told_and_remembered(site: Site, paths: Paths, obstacle: Path) -> None:
    """A command goes on without a daemon that does not start; the next does not try, `daemon start` does."""
    assert cli(site, "--start", "create", "prd", "--set", "id=p1", "--set", "title=t").out == "p1\n"
    assert f"{obstacle} is not a folder" in (last_failure(paths) or "")
    assert f"{obstacle} is not a folder" in cli(site, "daemon", "status").out
    log = (site.private / "daemon.log").read_text()
    obstacle.unlink()
    assert cli(site, "--start", "show", "prd", "p1").status == 0
    assert serving(paths) is None
    assert (site.private / "daemon.log").read_text() == log
    assert cli(site, "daemon", "start").status == 0
    assert serving(paths) is not None
    assert last_failure(paths) is None


def test_start_says_why_it_fails(site: Site, obstacle: Path) -> None:
    """`daemon start` says in one line why there is no daemon, and exits with 3."""
    failed = cli(site, "daemon", "start")
    assert (failed.status, failed.out, failed.err.count("\n")) == (3, "", 1)
    assert f"the daemon does not start: {obstacle} is not a folder of this user's alone" in failed.err


def forget_failure(site: Site) -> None:
    """Let the time pass for which a failure is believed."""
    long_ago = time.time() - AGAIN_S - 1
    os.utime(site.private / FAILED, (long_ago, long_ago))


def test_a_failure_is_forgotten(paths: Paths, site: Site, obstacle: Path) -> None:
    """After half a minute a command tries again."""
    assert not start(paths)
    obstacle.unlink()
    assert not start(paths)
    forget_failure(site)
    assert start(paths)


def test_a_daemon_that_is_never_ready(site: Site, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs on its way is ended, and what it left is in nobody's way."""
    monkeypatch.setattr("taskstore.starting.READY_S", 3.0)
    version = site.directory / ".version"
    version.unlink()
    os.mkfifo(version)  # opening it hangs
    with pytest.raises(StartError, match="it was not ready after 3 s"):
        run(paths)
    for _ in poll():
        if not daemons_of(os.fspath(site.directory)):
            break
    version.unlink()
    version.write_text("1\n")
    assert run(paths)
    assert serving(paths) is not None


def test_a_start_that_does_not_end(paths: Paths, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds another process starting a daemon waits a moment for it and goes on without."""
    monkeypatch.setattr("taskstore.starting._TURN_S", 0.1)
    site.private.mkdir(exist_ok=True)
    with (site.private / "daemon.start").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not start(paths)
    assert start(paths)


def test_the_start_lock_is_not_inherited(paths: Paths, site: Site) -> None:
    """The daemon does not hold the lock under which it was started."""
    assert start(paths)
    with (site.private / "daemon.start").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_no_place_for_a_daemon(site: Site, paths: Paths) -> None:
    """Where nothing can be written beside the store a command does without a daemon."""
    (site.private / "daemon.start").mkdir(parents=True)
    assert not start(paths)
    assert cli(site, "--start", "stats").status == 0


def test_a_runtime_folder_that_cannot_be_written(site: Site, paths: Paths) -> None:
    """In a sandbox where the runtime folder is read-only a command does without a daemon."""
    sandbox = ["unshare", "--mount", "sh", "-ec", 'mount --bind "$0" "$0"; mount -o remount,ro,bind "$0"; exec "$@"',
               os.environ["XDG_RUNTIME_DIR"]]
    if subprocess.run([*sandbox, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace")
    done = subprocess.run([*sandbox, sys.executable, "-m", "taskstore", "--start", "create", "prd", "--set",
                           "title=t"], cwd=site.root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("prd-")
    assert "Read-only file system" in (last_failure(paths) or "")


# Many at once


STARTER = {
    "starter opens its lock": ("openat", "daemon.start"),
    "starter takes its lock": ("flock", "daemon.start"),
    "starter opens the log": ("openat", "daemon.log"),
    "starter makes a pipe": ("pipe2", ""),
}
DAEMON = {
    "daemon leaves its starter": ("setsid", ""),
    "daemon opens its lock": ("openat", "daemon.lock"),
    "daemon takes its lock": ("flock", "daemon.lock"),
    "daemon binds its socket": ("bind", ""),
    "daemon listens": ("listen", ""),
    "daemon notes its socket": ("rename", "daemon.socket.new"),
    "daemon opens the store": ("openat", "outbox"),
}
"""System calls on the way to a daemon, with the file they are about: whoever makes it first is killed at it."""

PYTHON = """#!/bin/sh
if mkdir '{mark}' 2>/dev/null; then exec {strace} '{python}' "$@"; fi
exec '{python}' "$@"
"""
CLIENT = """
import sys
sys.executable = sys.argv.pop(1) or sys.executable
from taskstore.cli import main
sys.exit(main())
"""


class Campaign:
    """Rounds in which many commands want a daemon at once, and somebody may be killed on the way to it."""

    def __init__(self, site: Site, paths: Paths) -> None:
        self.site = site
        self.paths = paths
        self.created: list[str] = []
        self._trace = site.root.parent / "trace"
        self._rounds = 0

    def round(self, count: int, kill: str | float | None = None) -> float:
        """So many commands, all of which must be served, and one daemon; the seconds that it took.

        `kill` names the step at which a starter is killed before them, or the first daemon among them; or the seconds
        after which all daemons are killed, wherever they are, counted from when there is one.
        """
        end_daemons_of(os.fspath(self.site.directory))
        (self.site.private / FAILED).unlink(missing_ok=True)
        self._trace.unlink(missing_ok=True)
        self._rounds += 1
        began = time.monotonic()
        if isinstance(kill, float):
            with killer(self.site, kill):
                self._create(count)
            self._go_on()
        else:
            if kill in STARTER:
                self._kill_a_starter(STARTER[kill])
            self._create(count, self._python(DAEMON[kill]) if kill in DAEMON else "")
        seconds = time.monotonic() - began
        assert kill not in {*STARTER, *DAEMON} or "killed by SIGKILL" in self._trace.read_text()
        assert_one_daemon(self.site, self.paths, kill)
        return seconds

    def _go_on(self) -> None:
        """Have another daemon where nobody was left to start one: at once, or half a minute after two in a row died."""
        if is_held(self.paths):
            return
        if (reason := last_failure(self.paths)) is not None:
            assert reason == "it ended without a word"
            forget_failure(self.site)
        self._create(1)

    def _create(self, count: int, python: str = "") -> None:
        started = [subprocess.Popen([sys.executable, "-c", CLIENT, python, "--start", "create", "prd", "--set",
                                     "title=t"],
                                    cwd=self.site.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                   for _ in range(count)]
        for process in started:
            out, err = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, err
            self.created.append(out.strip())

    def _strace(self, step: tuple[str, str]) -> list[str]:
        calls, name = step
        return ["strace", "-f", "-qq", "-o", os.fspath(self._trace), "-e", f"trace={calls}", "-e",
                f"inject={calls}:signal=KILL:when=1", *(["-P", os.fspath(self.site.private / name)] if name else [])]

    def _kill_a_starter(self, step: tuple[str, str]) -> None:
        subprocess.run([*self._strace(step), sys.executable, "-m", "taskstore", "--start", "stats"],
                       cwd=self.site.root, capture_output=True, check=False, timeout=PATIENCE_S)

    def _python(self, step: tuple[str, str]) -> str:
        """An interpreter that is killed at a step the first time that it is called."""
        path = self.site.root.parent / f"python-{self._rounds}"
        path.write_text(PYTHON.format(mark=f"{path}.mark", strace=shlex.join(self._strace(step)),
                                      python=sys.executable))
        path.chmod(0o700)
        return os.fspath(path)

    def assert_complete(self) -> None:
        """That what the commands said they created is there, and nothing else."""
        assert len(self.created) == len(set(self.created))
        assert set(self.created) == set(self.site.ids())


def assert_one_daemon(site: Site, paths: Paths, kill: str | float | None) -> None:
    """That of all daemons which were started one is left, which answers; others may still be on their way out."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        pids = daemons_of(os.fspath(site.directory))
        if len(pids) == 1 and serving(paths) == pids[0]:
            return
        time.sleep(0.005)
    pytest.fail(f"killed {kill}: daemons {pids}, of which {serving(paths)} serves; failure: {last_failure(paths)}")


@contextlib.contextmanager
def killer(site: Site, after_s: float) -> Iterator[None]:
    """Kills every daemon of the store, wherever it is on its way, so many seconds after there is one."""
    script = ("import sys, time; sys.path.insert(0, sys.argv[3]); from tests.daemons import *;"
              "any(daemons_of(sys.argv[1]) for _ in poll());"
              "time.sleep(float(sys.argv[2])); end_daemons_of(sys.argv[1])")
    top = os.fspath(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", script, os.fspath(site.directory), str(after_s), top]) as process:
        yield
        assert process.wait(PATIENCE_S) == 0


@pytest.fixture
def campaign(site: Site, paths: Paths) -> Campaign:
    """What makes rounds."""
    return Campaign(site, paths)


def test_many_at_once(campaign: Campaign) -> None:
    """Of many commands that want a daemon at once one starts it, and all are served."""
    campaign.round(10)
    campaign.assert_complete()


@pytest.mark.parametrize("step", ["starter takes its lock", "starter makes a pipe", "daemon opens its lock",
                                  "daemon listens"])
@pytest.mark.usefixtures("strace")
def test_killed_on_the_way(campaign: Campaign, step: str) -> None:
    """Whoever is killed on the way to a daemon, there is one in the end, and all are served."""
    campaign.round(4, step)
    campaign.assert_complete()


@pytest.mark.long
@pytest.mark.usefixtures("strace")
def test_fifty_at_once(campaign: Campaign, capsys: pytest.CaptureFixture[str]) -> None:
    """Fifty commands at once, twenty times, with a kill at each step of the start or in the midst of it."""
    randomness = random.Random(1)
    kills = [None, *STARTER, *DAEMON, *(randomness.uniform(0.0, 1.5) for _ in range(8))]
    took = [campaign.round(50, kill) for kill in kills]
    with capsys.disabled():
        sys.stdout.write("\n")
        for kill, seconds in zip(kills, took, strict=True):
            name = f"all killed after {kill:.2f} s" if isinstance(kill, float) else kill or "nobody killed"
            sys.stdout.write(f"{name:<28} 50 commands served, one daemon, {seconds:.2f} s\n")
    campaign.assert_complete()
