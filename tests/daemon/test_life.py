"""One daemon for a store, for as long as the store is its own; and what it leaves behind."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Site, SiteMaker
from tests.daemons import PATIENCE_S, daemons_of, end_daemons_of, poll, private_folder, running_daemon

from taskstore.remote import reach
from taskstore_core.paths import Paths, discover
from taskstore_core.presence import _confirmed, holder, is_held, sockets
from taskstore_core.sockets import socket_path
from taskstore_core.store import Store

Process = subprocess.Popen[bytes]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own; whatever daemon is left at its end is killed."""
    with private_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)
        end_daemons_of(os.fspath(tmp_path))


@pytest.fixture
def daemon(site: Site) -> Iterator[Process]:
    """A daemon of the site's store."""
    with running_daemon(os.fspath(site.directory)) as process:
        yield process


def paths_of(site: Site) -> Paths:
    return discover(os.fspath(site.root))


def socket_of(site: Site) -> Path:
    return Path(socket_path(os.fspath(site.directory), os.environ))


def run_daemon(site: Site, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a daemon that is expected to leave by itself."""
    return subprocess.run([sys.executable, "-m", "taskstore_daemon", "--store", str(site.directory), *options],
                          env={**os.environ, **environment}, capture_output=True, text=True, check=False,
                          timeout=PATIENCE_S)


def ask(paths: Paths, method: str, **parameters: object) -> Any:
    """What the daemon, which must be there, answers."""
    remote = reach(paths)
    assert remote is not None
    with contextlib.closing(remote):
        return remote.call(method, parameters)


def pid_of(site: Site) -> int:
    """The process that serves the site's store."""
    pid = ask(paths_of(site), "daemon.status")["pid"]
    assert isinstance(pid, int)
    return pid


def serves(paths: Paths) -> bool:
    """Whether the daemon answers."""
    remote = reach(paths)
    if remote is not None:
        remote.close()
    return remote is not None


# One daemon


def test_a_second_one_leaves(site: Site, daemon: Process) -> None:
    """A daemon that finds another one leaves at once, says so, and the other goes on."""
    second = run_daemon(site)
    assert (second.returncode, second.stderr) == (0, "taskstore: a daemon serves this store already\n")
    assert pid_of(site) == daemon.pid


def test_the_lock_alone_keeps_a_second_one_out(site: Site, daemon: Process) -> None:
    """Also when it finds nobody at the socket, a daemon leaves another's store alone."""
    daemon.send_signal(signal.SIGSTOP)  # or it would notice
    socket_of(site).unlink()
    assert run_daemon(site).stderr == "taskstore: a daemon serves this store already\n"
    assert is_held(paths_of(site))
    daemon.send_signal(signal.SIGCONT)


def test_what_listens_already_is_not_pushed_aside(site: Site, runtime: Path) -> None:
    """A socket at which somebody else listens for the store, as systemd may, stays theirs."""
    (runtime / "taskstore").mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(socket_of(site)))
        other.listen()
        before = socket_of(site).stat()
        assert run_daemon(site).stderr == "taskstore: a daemon serves this store already\n"
        assert os.path.samestat(before, socket_of(site).stat())


def test_a_socket_of_a_killed_one_is_in_nobodys_way(site: Site) -> None:
    """After kill -9 the next daemon takes the dead one's socket and lock over."""
    with running_daemon(os.fspath(site.directory)) as first:
        first.kill()
        first.wait()
    assert socket_of(site).is_socket()
    assert not is_held(paths_of(site))
    with running_daemon(os.fspath(site.directory)) as second:
        assert pid_of(site) == second.pid


def test_what_a_daemon_leaves_behind(site: Site) -> None:
    """A daemon that leaves takes its socket away, keeps the lock's file, and lets go of the lock."""
    with running_daemon(os.fspath(site.directory)):
        assert (site.private / "daemon.socket").read_text() == os.fspath(socket_of(site))
        lock = (site.private / "daemon.lock").stat()
    assert not socket_of(site).exists()
    assert not (site.private / "daemon.socket").exists()
    assert os.path.samestat(lock, (site.private / "daemon.lock").stat())
    assert not is_held(paths_of(site))


def test_the_holder_of_the_lock(site: Site, daemon: Process) -> None:
    """The process that holds the lock is known by the lock, whatever other processes have its file open."""
    with (site.private / "daemon.lock").open() as other:
        found = holder(paths_of(site))
        assert found is not None
        assert found.pid == daemon.pid
        found.close()
        daemon.kill()
        daemon.wait()
        assert holder(paths_of(site)) is None
        fcntl.flock(other, fcntl.LOCK_EX)
        found = holder(paths_of(site))
        assert found is not None
        assert found.pid == os.getpid()
        found.close()


def test_the_holder_is_confirmed(tmp_path: Path) -> None:
    """A process is taken for the daemon only if it has the lock's file open: inode numbers are no names."""
    (tmp_path / "lock").touch()
    status = (tmp_path / "lock").stat()
    with (tmp_path / "lock").open():
        found = _confirmed(os.getpid(), (status.st_dev, status.st_ino))
        assert found is not None
        found.close()
        assert _confirmed(os.getpid(), (status.st_dev + 1, status.st_ino)) is None
    assert _confirmed(os.getpid(), (status.st_dev, status.st_ino)) is None
    assert _confirmed(0, (status.st_dev, status.st_ino)) is None


# Leaving


def _delete_repository(site: Site) -> None:
    shutil.rmtree(site.root)


def _move_repository(site: Site) -> None:
    site.root.rename(site.root.parent / "elsewhere")


def _delete_lock(site: Site) -> None:
    (site.private / "daemon.lock").unlink()


def _replace_lock(site: Site) -> None:
    (site.private / "new").touch()
    (site.private / "new").replace(site.private / "daemon.lock")


def _delete_private_folder(site: Site) -> None:
    shutil.rmtree(site.private)


def _delete_socket(site: Site) -> None:
    socket_of(site).unlink()


def _replace_socket(site: Site) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(socket_of(site)) + ".new")
    Path(os.fspath(socket_of(site)) + ".new").replace(socket_of(site))


@pytest.mark.parametrize("change", [
    _delete_repository, _move_repository, _delete_lock, _replace_lock, _delete_private_folder, _delete_socket,
    _replace_socket,
])
def test_leaving_when_something_is_no_longer_its_own(site: Site, daemon: Process,
                                                     change: Callable[[Site], None]) -> None:
    """A daemon whose repository, lock or socket is gone or another's leaves by itself, with success."""
    change(site)
    assert daemon.wait(PATIENCE_S) == 0


def test_a_daemon_that_lost_its_lock_leaves_its_successor_alone(site: Site, daemon: Process) -> None:
    """When the lock's file was replaced the old daemon leaves, and takes nothing from the one that came after."""
    _replace_lock(site)
    daemon.send_signal(signal.SIGSTOP)
    socket_of(site).unlink()
    with running_daemon(os.fspath(site.directory)) as successor:
        daemon.send_signal(signal.SIGCONT)
        assert daemon.wait(PATIENCE_S) == 0
        assert pid_of(site) == successor.pid
        assert (site.private / "daemon.socket").read_text() == os.fspath(socket_of(site))


def test_what_replaced_the_socket_stays(site: Site, daemon: Process) -> None:
    """A daemon that leaves because its socket was replaced does not delete what stands there now."""
    _replace_socket(site)
    replacement = socket_of(site).stat()
    assert daemon.wait(PATIENCE_S) == 0
    assert os.path.samestat(replacement, socket_of(site).stat())


def test_a_branch_without_a_store_is_no_reason_to_leave(site: Site, daemon: Process) -> None:
    """While the store's folder is gone with a branch the daemon stays, and serves it when it is back."""
    site.directory.rename(site.root / "aside")
    began = ask(paths_of(site), "daemon.status")["uptime_s"]
    for _ in poll():
        if ask(paths_of(site), "daemon.status")["uptime_s"] > began + 1.2:  # two looks at what is its own
            break
    (site.root / "aside").rename(site.directory)
    assert daemon.poll() is None
    assert ask(paths_of(site), "store.stats")["store"] == os.fspath(site.directory)


def test_idle(site: Site) -> None:
    """A daemon that is to leave when idle stays while somebody is connected, and then leaves."""
    with running_daemon(os.fspath(site.directory), "--idle-s=0.5") as daemon:
        remote = reach(paths_of(site))
        assert remote is not None
        for _ in poll():
            if remote.call("daemon.status", {})["uptime_s"] > 1.5:
                break
        assert daemon.poll() is None
        remote.close()
        assert daemon.wait(PATIENCE_S) == 0
    assert "idle for 0.5 s" in (site.private / "daemon.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_signals(site: Site, daemon: Process, number: signal.Signals) -> None:
    """A daemon that is told to leave does so with success, and logs why."""
    daemon.send_signal(number)
    assert daemon.wait(PATIENCE_S) == 0
    assert f"leaving: {number.name}" in (site.private / "daemon.log").read_text()


class Writer(threading.Thread):
    """A client that sends creates, several ahead of their answers, until the daemon hangs up."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.fspath(path))
        self.sock.settimeout(PATIENCE_S)
        self.number = number
        self.acknowledged: list[str] = []
        self.refused: list[Any] = []
        self.sent = 0
        self.rest = b""

    def run(self) -> None:
        with self.sock, contextlib.suppress(ConnectionResetError):
            while True:
                with contextlib.suppress(BrokenPipeError):  # it takes nothing more, but may have answers for us
                    while self.sent - len(self.acknowledged) - len(self.refused) < 8:
                        self.sent += 1
                        self.sock.sendall(self.request())
                data = self.sock.recv(65536)
                if not data:
                    return
                *lines, self.rest = (self.rest + data).split(b"\n")
                for answer in map(json.loads, lines):
                    if "result" in answer:
                        self.acknowledged.append(answer["result"]["id"])
                    else:
                        self.refused.append(answer["error"])

    def request(self) -> bytes:
        record = {"id": f"w{self.number}-{self.sent}", "title": "t"}
        return json.dumps({"jsonrpc": "2.0", "id": self.sent, "method": "record.create",
                           "params": {"kind": "prd", "record": record}}).encode() + b"\n"


def test_sigterm_under_load(site: Site, daemon: Process) -> None:
    """On SIGTERM what was taken is answered in whole frames; what was acknowledged stands, once, and no half line."""
    writers = [Writer(socket_of(site), number) for number in range(8)]
    for writer in writers:
        writer.start()
    for _ in poll():
        if all(len(writer.acknowledged) > 20 for writer in writers):
            break
    daemon.terminate()
    assert daemon.wait(PATIENCE_S) == 0
    for writer in writers:
        writer.join()
    assert [writer.rest for writer in writers] == [b""] * 8
    assert [error for writer in writers for error in writer.refused if error["data"]["applied"] != "no"] == []
    acknowledged = [key for writer in writers for key in writer.acknowledged]
    there = [json.loads(line)["id"] for line in site.lines()]
    assert len(there) == len(set(there))
    assert set(acknowledged) <= set(there)
    assert set(acknowledged) == set(there)  # what was written was answered, too
    site.assert_sound(acknowledged)


# Nothing inherited


INHERIT = """
import os, signal, sys
from taskstore.starting import run
from taskstore_core.paths import discover
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
signal.signal(signal.SIGHUP, signal.SIG_IGN)
read, write = os.pipe()
os.set_inheritable(write, True)
os.chdir(sys.argv[1])
run(discover("."))
print("started", flush=True)
"""


@pytest.fixture
def heir(site: Site) -> int:
    """A daemon that was started by a process with all kinds of things to inherit."""
    with subprocess.Popen([sys.executable, "-c", INHERIT, str(site.root)], stdout=subprocess.PIPE,
                          env={**os.environ, "GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/nowhere"}) as starter:
        assert starter.communicate(timeout=PATIENCE_S)[0] == b"started\n"  # which ends when all have hung up
    (pid,) = daemons_of(os.fspath(site.directory))
    return pid


def test_no_descriptor_is_inherited(site: Site, heir: int) -> None:
    """A detached daemon has its log, /dev/null, and nothing that its starter had open."""
    places = {name: os.readlink(f"/proc/{heir}/fd/{name}") for name in os.listdir(f"/proc/{heir}/fd")}
    log = os.fspath(site.private / "daemon.log")
    assert [places[name] for name in "012"] == ["/dev/null", log, log]
    assert {place for place in places.values() if place.startswith("pipe:")} == set()
    assert {place for place in places.values() if place.startswith("/")} <= {
        "/dev/null", log, os.fspath(site.private / "daemon.lock"), os.fspath(site.private / "lock"),
        os.fspath(site.private / "outbox"), os.fspath(site.directory), *map(os.fspath, site.directory.iterdir())}


def test_no_signal_is_inherited(site: Site, heir: int) -> None:
    """A daemon whose starter blocked and ignored signals heeds them all the same."""
    status = dict(line.split(":\t") for line in Path(f"/proc/{heir}/status").read_text().splitlines())
    assert int(status["SigBlk"], 16) == 0
    os.kill(heir, signal.SIGTERM)
    for _ in poll():
        if not is_held(paths_of(site)):
            break


def test_a_daemon_has_no_terminal_and_no_folder(heir: int) -> None:
    """A detached daemon is in a session that it does not lead, nobody's child, and in no folder that somebody needs."""
    fields = Path(f"/proc/{heir}/stat").read_text().rpartition(")")[2].split()
    assert fields[4] == "0"  # tty_nr
    assert int(fields[3]) not in {heir, os.getsid(0)}
    assert os.readlink(f"/proc/{heir}/cwd") == "/"


def test_variables_of_git_are_dropped() -> None:
    """No variable of git's reaches what the daemon runs."""
    script = "import os; from taskstore_daemon.surroundings import scrub; scrub(); os.execvp('env', ['env'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env={**os.environ, "GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "x", "OTHER": "kept"})
    assert "GIT_" not in done.stdout
    assert "OTHER=kept" in done.stdout


def test_variables_of_git_lead_nowhere(site: Site) -> None:
    """A daemon that a hook starts serves its own repository, whatever repository git named in the environment."""
    done = subprocess.run([sys.executable, "-m", "taskstore", "--start", "stats", "--json"], cwd=site.root, text=True,
                          env={**os.environ, "GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/nowhere"},
                          capture_output=True, check=True)
    assert json.loads(done.stdout)["store"] == os.fspath(site.directory)
    assert serves(paths_of(site))


def test_nothing_is_imported_from_where_one_stands(site: Site) -> None:
    """A module in the folder that a command is called in is never imported by the daemon that it starts."""
    for name in ("taskstore_daemon", "trio", "json", "argparse"):
        (site.root / f"{name}.py").write_text("open('imported', 'w')\n")
    command = [os.path.join(os.path.dirname(sys.executable), "taskstore"), "daemon", "start"]
    subprocess.run(command, cwd=site.root, check=True, capture_output=True)
    assert serves(paths_of(site))
    assert not (site.root / "imported").exists()


# Where it listens, and who may


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_permissions(site: Site, runtime: Path, mask: int) -> None:
    """Folder and socket are this user's alone, whatever the umask."""
    before = os.umask(mask)
    try:
        with running_daemon(os.fspath(site.directory)):
            assert (runtime / "taskstore").stat().st_mode & 0o7777 == 0o700
            assert socket_of(site).stat().st_mode & 0o7777 == 0o600
            assert serves(paths_of(site))
    finally:
        os.umask(before)


def test_a_folder_that_others_may_enter_is_not_used(site: Site, runtime: Path) -> None:
    """A daemon makes no socket where another user could put theirs, and says what to do."""
    (runtime / "taskstore").mkdir(0o700)
    (runtime / "taskstore").chmod(0o777)
    refused = run_daemon(site)
    assert refused.returncode == 3
    assert f"{runtime}/taskstore is not a folder of this user's alone" in refused.stderr
    assert "chmod 700" in refused.stderr
    assert not is_held(paths_of(site))


def test_a_symbolic_link_is_no_folder(site: Site, runtime: Path, tmp_path: Path) -> None:
    """A folder for sockets that is a symbolic link is not used."""
    (tmp_path / "other").mkdir(0o700)
    (runtime / "taskstore").symlink_to(tmp_path / "other")
    assert run_daemon(site).returncode == 3


@pytest.mark.parametrize("environment", [
    {"XDG_RUNTIME_DIR": None}, {"XDG_RUNTIME_DIR": "/nowhere"},
    {"XDG_RUNTIME_DIR": None, "TMPDIR": "/var/tmp"}, {"XDG_RUNTIME_DIR": "/tmp"},
], ids=str)
def test_another_environment_leads_to_the_same_daemon(site: Site, daemon: Process, monkeypatch: pytest.MonkeyPatch,
                                                      environment: dict[str, str | None]) -> None:
    """A client finds the daemon also where it is told of other folders for temporary files than the daemon was."""
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    assert pid_of(site) == daemon.pid


def test_a_dead_socket_does_not_hide_a_living_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a killed daemon left its socket, a client finds the one that runs elsewhere."""
    with running_daemon(os.fspath(site.directory)) as first:
        first.kill()
        first.wait()
    here = os.environ["XDG_RUNTIME_DIR"]
    with private_folder() as elsewhere:
        monkeypatch.setenv("XDG_RUNTIME_DIR", elsewhere)
        with running_daemon(os.fspath(site.directory)) as second:
            monkeypatch.setenv("XDG_RUNTIME_DIR", here)
            assert len(sockets(paths_of(site), os.environ)) == 2
            assert pid_of(site) == second.pid


def test_a_copied_repository_is_not_served_by_the_original_s(sites: SiteMaker) -> None:
    """A copy brings along where the socket is, and its clients do not go there."""
    original = sites()
    with running_daemon(os.fspath(original.directory)):
        copy = sites.copy(original)
        assert (copy.private / "daemon.socket").read_text() == os.fspath(socket_of(original))
        assert sockets(paths_of(copy), os.environ) == []
        assert reach(paths_of(copy)) is None
        assert serves(paths_of(original))


@pytest.mark.parametrize(("name", "in_git"), [
    ("with spaces", True), ("ünï-cödé ☃", False), ("l" * 200 + "/" + "o" * 200 + "/" + "ng" * 100, True),
    ("new\nline", False), ("50% $HOME", True),
], ids=["spaces", "other letters", "long", "line", "signs"])
def test_paths(tmp_path: Path, name: str, *, in_git: bool) -> None:
    """A store is served wherever it lies, in git or not."""
    root = tmp_path / name
    root.mkdir(parents=True)
    if in_git:
        subprocess.run(["git", "init", "-q", "--template=", root], check=True)
    Store.create(os.fspath(root))[0].close()
    done = subprocess.run([sys.executable, "-m", "taskstore", "daemon", "start", "--json"], cwd=root, check=True,
                          capture_output=True, text=True)
    assert json.loads(done.stdout)["store"] == os.fspath(root / ".taskstore")
    paths = discover(os.fspath(root))
    assert paths.private == os.fspath(root / (".git/taskstore" if in_git else ".taskstore/.local"))
    assert ask(paths, "daemon.status")["pid"] == json.loads(done.stdout)["pid"]


def test_a_linked_worktree_has_the_main_one_s_daemon(site: Site, daemon: Process, tmp_path: Path) -> None:
    """In a linked worktree commands reach the daemon of the main worktree's store, and start no other."""
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "commit", "-qm", "m", "--allow-empty"], cwd=site.root, check=True)
    subprocess.run([*git, "worktree", "add", "-q", tmp_path / "linked"], cwd=site.root, check=True)
    done = subprocess.run([sys.executable, "-m", "taskstore", "daemon", "status", "--json"], cwd=tmp_path / "linked",
                          check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["pid"] == daemon.pid
    started = subprocess.run([sys.executable, "-m", "taskstore", "daemon", "start"], cwd=tmp_path / "linked",
                             check=True, capture_output=True, text=True)
    assert started.stdout == f"runs already: process {daemon.pid}\n"


@pytest.mark.parametrize("content", [None, b"99\n", b"no number\n"])
def test_no_store_no_daemon(site: Site, content: bytes | None) -> None:
    """Without a store of a format that it knows a daemon does not run, says why, and touches nothing."""
    if content is None:
        (site.directory / ".version").unlink()
    else:
        (site.directory / ".version").write_bytes(content)
    refused = run_daemon(site)
    assert refused.returncode == 3
    assert refused.stderr.startswith("taskstore: ")
    assert not (site.private / "daemon.lock").exists()


# What clients do without one


def test_a_stopped_daemon_is_passed_by(site: Site, daemon: Process) -> None:
    """While the daemon is stopped a command works on the files, and a daemon that goes on knows what it did."""
    daemon.send_signal(signal.SIGSTOP)
    created = site.cli("create", "prd", "--set", "id=p1", "--set", "title=t")
    assert (created.status, created.out) == (0, "p1\n")
    daemon.send_signal(signal.SIGCONT)
    assert json.loads(ask(paths_of(site), "record.get", kind="prd", id="p1"))["title"] == "t"


def test_another_socket_of_the_hash_is_no_daemon_of_this_store(sites: SiteMaker) -> None:
    """A daemon that says it serves another store is passed by, were it at our socket's path."""
    ours, theirs = sites(), sites()
    with running_daemon(os.fspath(theirs.directory)):
        socket_of(theirs).rename(socket_of(ours))
        assert reach(paths_of(ours)) is None

