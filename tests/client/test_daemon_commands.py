"""`daemon run|start|stop|status|logs`: what people and programs are told, and what becomes of the process."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Outcome, Site
from tests.daemons import PATIENCE_S, end_daemons_of, poll, private_folder, running_daemon

from taskstore_core.paths import discover
from taskstore_core.presence import is_held
from taskstore_core.sockets import socket_path

COMMAND = [sys.executable, "-m", "taskstore"]

OTHER = """
import fcntl, json, os, signal, socket, sys
lock, path, obeys = sys.argv[1], sys.argv[2], sys.argv[3] == "obeys"
os.makedirs(os.path.dirname(lock), exist_ok=True)
os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
fcntl.flock(os.open(lock, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    for line in connection.makefile("rb"):
        request = json.loads(line)
        if request["method"] == "daemon.shutdown" and obeys:
            sys.exit(7)
        error = {"code": 5005, "message": "this daemon speaks protocol 9, the client 1 to 1",
                 "data": {"kind": "unsupported_version", "retryable": False, "applied": "no"}}
        answer = {"jsonrpc": "2.0", "id": request["id"], "error": error}
        connection.sendall(json.dumps(answer, separators=(",", ":")).encode() + b"\\n")
"""
"""A daemon of a later release, which speaks another protocol; it obeys a shutdown or refuses that, too."""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own; whatever daemon is left at its end is killed."""
    with private_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)
        end_daemons_of(os.fspath(tmp_path))


def cli(site: Site, *words: str) -> Outcome:
    """A command, with the test's runtime folder."""
    done = subprocess.run([*COMMAND, *words], cwd=site.root, capture_output=True, text=True, check=False,
                          timeout=PATIENCE_S)
    return Outcome(done.returncode, done.stdout, done.stderr)


def told(site: Site, *words: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    answer: dict[str, Any] = json.loads(cli(site, *words, "--json").out)
    return answer


@contextlib.contextmanager
def process(site: Site, *words: str | Path, stdin: int = subprocess.DEVNULL, stderr: int | None = None,
            ) -> Iterator["subprocess.Popen[str]"]:
    """A process that is killed in the end, if it still runs."""
    with subprocess.Popen(words, cwd=site.root, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True) as made:
        try:
            yield made
        finally:
            made.kill()


def line(process: "subprocess.Popen[str]") -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


@contextlib.contextmanager
def other_release(site: Site, *, obeys: bool) -> Iterator["subprocess.Popen[str]"]:
    """A daemon of another protocol."""
    path = socket_path(os.fspath(site.directory), os.environ)
    with process(site, sys.executable, "-c", OTHER, site.private / "daemon.lock", path,
                 "obeys" if obeys else "refuses") as other:
        assert line(other) == "ready\n"
        yield other


# start, status, stop


def test_from_start_to_stop(site: Site) -> None:
    """A daemon is started, seen and stopped; each says so to people, with the process."""
    started = cli(site, "daemon", "start")
    assert (started.status, started.err) == (0, "")
    pid = int(re.fullmatch(r"started: process (\d+)\n", started.out)[1])  # type: ignore[index]
    assert cli(site, "daemon", "start").out == f"runs already: process {pid}\n"
    seen = cli(site, "daemon", "status")
    assert seen.status == 0
    assert seen.out.startswith(f"running as process {pid} for ")
    assert f"store: {site.directory}\n" in seen.out
    assert f"socket: {os.environ['XDG_RUNTIME_DIR']}/taskstore/" in seen.out
    stopped = cli(site, "daemon", "stop")
    assert (stopped.status, stopped.out) == (0, f"stopped: it was process {pid}\n")
    assert not is_held(discover(os.fspath(site.root)))
    assert cli(site, "daemon", "stop") == Outcome(0, "no daemon runs for this store\n", "")


def test_status_for_programs(site: Site) -> None:
    """`status --json` has the same keys that matter whether or not one runs, and its status tells."""
    absent = cli(site, "daemon", "status", "--json")
    assert absent.status == 1
    assert json.loads(absent.out) == {
        "running": False, "pid": None, "socket": socket_path(os.fspath(site.directory), os.environ), "version": None,
        "uptime_s": None, "store": os.fspath(site.directory), "problem": "no daemon runs for this store"}
    started = told(site, "daemon", "start")
    there = told(site, "daemon", "status")
    assert set(json.loads(absent.out)) < set(there)
    assert {name: there[name] for name in ("running", "pid", "socket", "problem")} == {
        "running": True, "pid": started["pid"], "socket": started["socket"], "problem": None}
    assert there["uptime_s"] >= started["uptime_s"] > 0
    assert told(site, "daemon", "stop") == {"stopped": True, "pid": started["pid"]}
    assert told(site, "daemon", "stop") == {"stopped": False, "pid": None}


def test_starting_into_a_pipe(site: Site) -> None:
    """`daemon start | cat` ends when the daemon is ready: it holds none of the caller's descriptors."""
    done = subprocess.run(["sh", "-c", '"$0" -m taskstore daemon start 2>&1 | cat', sys.executable], cwd=site.root,
                          capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout.startswith("started: process ")
    assert cli(site, "daemon", "status").status == 0


def test_options_reach_the_daemon(site: Site) -> None:
    """`start --idle-s` makes a daemon that leaves when idle, and --log-level says what it logs."""
    assert cli(site, "daemon", "start", "--idle-s", "1", "--log-level=debug").status == 0
    for _ in poll():
        if not is_held(discover(os.fspath(site.root))):
            break
    assert "idle for 1 s" in cli(site, "daemon", "logs").out


@pytest.mark.parametrize("words", [
    ["status", "--idle-s", "1"], ["stop", "--follow"], ["logs", "--log-level", "info"],
    ["start", "--log-level", "loud"], ["start", "--idle-s", "soon"], ["restart"], [],
], ids=" ".join)
def test_wrong_words(site: Site, words: list[str]) -> None:
    """An option that an action does not take, or a value that it has not, is refused before anything happens."""
    refused = cli(site, "daemon", *words)
    assert (refused.status, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert not site.private.joinpath("daemon.lock").exists()


@pytest.mark.parametrize("action", ["run", "start"])
def test_no_store(tmp_path: Path, action: str) -> None:
    """Where there is no store none is served, and the error says what to do."""
    done = subprocess.run([*COMMAND, "daemon", action], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "taskstore init" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_stopping_on_a_branch_without_the_store(site: Site) -> None:
    """A daemon can be seen and stopped while its store is not there."""
    cli(site, "daemon", "start")
    site.directory.rename(site.root / "aside")
    assert cli(site, "daemon", "status").status == 0
    assert cli(site, "daemon", "stop").out.startswith("stopped: ")


def test_run(site: Site) -> None:
    """`run` serves in the foreground: the same process, the log on standard error, and Ctrl-C ends it with success."""
    with process(site, *COMMAND, "daemon", "run", stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        assert f"as process {running.pid}" in json.loads(running.stderr.readline())["message"]
        assert told(site, "daemon", "status")["pid"] == running.pid
        running.send_signal(signal.SIGINT)
        assert "leaving: SIGINT" in running.stderr.read()
        assert running.wait(PATIENCE_S) == 0


# A daemon that is not as it should be


def test_another_protocol(site: Site) -> None:
    """With a daemon of another release commands use the files, and `status` names what ends it, which does."""
    with other_release(site, obeys=True) as other:
        assert cli(site, "create", "prd", "--set", "id=p1", "--set", "title=t") == Outcome(0, "p1\n", "")
        seen = cli(site, "daemon", "status")
        assert seen.status == 1
        assert f"a daemon (process {other.pid}) of another release runs" in seen.out
        assert "taskstore daemon stop ends it" in seen.out
        assert told(site, "daemon", "status")["running"]
        assert cli(site, "--start", "stats").status == 0
        assert cli(site, "daemon", "stop").out == f"stopped: it was process {other.pid}\n"
        assert other.wait(PATIENCE_S) == 7
    assert cli(site, "daemon", "start").status == 0


def test_one_that_refuses_to_leave(site: Site) -> None:
    """A daemon that does not understand the shutdown gets SIGTERM: the process that holds the lock, and no other."""
    with other_release(site, obeys=False) as other:
        assert cli(site, "daemon", "stop").out == f"stopped: it was process {other.pid}\n"
        assert other.wait(PATIENCE_S) == -signal.SIGTERM


def test_one_that_is_stopped(site: Site) -> None:
    """`status` says that a stopped daemon does not answer, with its process; `stop` ends it with success."""
    with running_daemon(os.fspath(site.directory)) as daemon:
        daemon.send_signal(signal.SIGSTOP)
        seen = cli(site, "daemon", "status")
        assert seen.status == 1
        assert f"a daemon (process {daemon.pid}) holds this store, but does not answer" in seen.out
        assert "taskstore daemon stop" in seen.out
        assert cli(site, "daemon", "stop").out == f"stopped: it was process {daemon.pid}\n"
        assert daemon.wait(PATIENCE_S) == 0


def test_a_lock_s_file_that_others_have_open(site: Site) -> None:
    """Nobody who merely has the lock's file open is taken for the daemon."""
    site.private.mkdir(exist_ok=True)
    with (site.private / "daemon.lock").open("w") as lock, \
            process(site, "sleep", "600", stdin=lock.fileno()) as bystander:
        assert cli(site, "daemon", "stop").out == "no daemon runs for this store\n"
        with running_daemon(os.fspath(site.directory)) as daemon:
            assert cli(site, "daemon", "stop").out == f"stopped: it was process {daemon.pid}\n"
        assert bystander.poll() is None


# The log


def test_the_log(site: Site) -> None:
    """`logs` prints what was logged, laid out for people and as it is for programs; before, that there is nothing."""
    assert cli(site, "daemon", "logs").status == 1
    cli(site, "daemon", "start")
    cli(site, "daemon", "stop")
    lines = cli(site, "daemon", "logs", "--json").out.splitlines()
    assert [json.loads(line)["message"].partition(" ")[0] for line in lines] == ["taskstore", "leaving:"]
    assert re.search(r"^\S+Z info +leaving: asked to by a client$", cli(site, "daemon", "logs").out, re.MULTILINE)


def test_what_is_no_json_in_the_log(site: Site) -> None:
    """A traceback or any other text in the log is printed as it is, with nothing that a terminal would act on."""
    site.private.mkdir(exist_ok=True)
    site.private.joinpath("daemon.log").write_text('Traceback\x1b[31m\n{"time": 1}\n[]\nlast')
    assert cli(site, "daemon", "logs").out == 'Traceback\\x1b[31m\n{"time": 1}\n[]\nlast\n'


def test_following_the_log(site: Site) -> None:
    """`logs --follow` prints what comes, from one daemon to the next and into a new file, until interrupted."""
    log = site.private / "daemon.log"
    with process(site, *COMMAND, "daemon", "logs", "--follow", "--json") as follower:
        cli(site, "daemon", "start")
        assert " serves " in line(follower)
        cli(site, "daemon", "stop")
        assert "leaving" in line(follower)
        log.rename(site.private / "old")
        cli(site, "daemon", "start")
        assert " serves " in line(follower)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(PATIENCE_S) == 130


def test_a_large_log_is_put_aside(site: Site) -> None:
    """A daemon that finds a log of more than a megabyte begins a new one and keeps the old one."""
    site.private.mkdir(exist_ok=True)
    log = site.private / "daemon.log"
    for size, count in ((1 << 19, 2), ((1 << 20) + 1, 1)):
        log.write_text("x" * size + "\n")
        with running_daemon(os.fspath(site.directory)):
            assert len(log.read_text().splitlines()) == count
    assert (site.private / "daemon.log.1").stat().st_size == (1 << 20) + 2


def test_what_a_detached_daemon_says_of_itself_is_in_the_log(site: Site) -> None:
    """What kills the interpreter of a detached daemon stands in its log, with where it was; in the new one's file."""
    site.private.mkdir(exist_ok=True)
    site.private.joinpath("daemon.log").write_text("x" * ((1 << 20) + 1) + "\n")
    pid = told(site, "daemon", "start")["pid"]
    os.kill(pid, signal.SIGABRT)
    for _ in poll():
        if not is_held(discover(os.fspath(site.root))):
            break
    assert "Fatal Python error: Aborted" in cli(site, "daemon", "logs").out
