"""The units, under a real user manager of systemd, in namespaces of its own: the machine's is none of our business."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PATIENCE_S
from tests.daemons import poll

from taskstore.cli.service import escape
from taskstore_core.store import Store

SET_UP = """
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1"
echo $$ > "/sys/fs/cgroup/$1/cgroup.procs"
exec >"$2" 2>&1
cd /
systemd --user --unit=basic.target &
wait
"""
CLEAN_UP = """
mount -t cgroup2 none /sys/fs/cgroup
while ! find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.05; done
"""
"""As soon as the last process is gone."""
QUICK = "[Service]\nWatchdogSec=1\nTimeoutAbortSec=1\n"
"""In place of half a minute."""


class Manager:
    """A user manager with a home of its own. What runs in it sees no other processes, and another /run."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.home = folder / "home"
        self.runtime = f"/run/user/{os.geteuid()}"
        self._log = folder / "systemd.log"
        self._unshare = process
        (self._init,) = _children(process.pid)

    def run(self, *words: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command inside, as a login shell of the user would."""
        enter = ["nsenter", f"--target={self._init}", "--mount", "--pid", f"--wdns={cwd or self.home}"]
        return subprocess.run([*enter, *words],
                              env=environment(self.home, self.runtime), capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=PATIENCE_S)

    def output(self, *words: str | Path, cwd: Path | None = None) -> str:
        """What a command that must succeed prints."""
        done = self.run(*words, cwd=cwd)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self._log.read_text()}"
        return done.stdout

    def files(self) -> set[str]:
        """Every file and folder that units may have left."""
        found = self.output("find", self.home, self.runtime, "-not", "-path", "*/systemd/*").splitlines()
        return set(found) | set(self.output("find", self.home).splitlines())


def environment(home: Path, runtime: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.fspath(home), "XDG_RUNTIME_DIR": runtime, "LC_ALL": "C.UTF-8"}


def _children(pid: int) -> list[int]:
    for _ in poll():
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return [int(one) for one in found]
    return []


@pytest.fixture(scope="module")
def manager() -> Iterator[Manager]:
    """A user manager that is up; skips, with the reason, where there can be none."""
    for program in ("systemd", "systemctl", "systemd-analyze", "unshare", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*unshare, "sh", "-c", "mount -t tmpfs tmpfs /run && mount -t cgroup2 none /sys/fs/cgroup"],
                           capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    with tempfile.TemporaryDirectory(prefix="systemd-") as name:
        folder = Path(name)
        (folder / "home" / ".config").mkdir(parents=True)
        cgroup = folder.name
        with subprocess.Popen([*unshare, "bash", "-ec", SET_UP, "bash", cgroup, folder / "systemd.log"],
                              env=environment(folder / "home", f"/run/user/{os.geteuid()}")) as process:
            try:
                made = Manager(folder, process)
                for _ in poll():
                    if made.run("systemctl", "--user", "is-system-running", cwd=folder).stdout.strip() == "running":
                        break
                drop_in = f"{made.runtime}/systemd/user/taskstore@.service.d"
                made.output("sh", "-ec", 'mkdir -p "$0"; printf "%s" "$1" > "$0/quick.conf"', drop_in, QUICK)
                yield made
            finally:
                process.kill()
                process.wait()
                subprocess.run([*unshare, "sh", "-c", CLEAN_UP, "sh", cgroup], check=False)


class Serviced:
    """A store, and what is to be asked of its units."""

    def __init__(self, manager: Manager, root: Path) -> None:
        self.manager = manager
        self.root = root
        self.unit = f"taskstore@{escape(os.fspath(root))}"

    def cli(self, *words: str) -> str:
        """What a command of ours prints."""
        return self.manager.output(sys.executable, "-m", "taskstore", *words, cwd=self.root)

    def show(self, name: str, kind: str = "service") -> str:
        """A property of a unit."""
        return self.manager.output("systemctl", "--user", "show", f"--property={name}", "--value",
                                   f"{self.unit}.{kind}").strip()

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself."""
        answer: dict[str, Any] = json.loads(self.cli("daemon", "status", "--json"))
        return answer

    def main_pid(self) -> int:
        """The daemon's process, as seen from outside."""
        cgroup = self.show("ControlGroup")
        inside = self.show("MainPID")
        for pid in _pids():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                group = Path(f"/proc/{pid}/cgroup").read_text()
                spaces = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if len(spaces) == 3 and spaces[2] == inside and cgroup.rpartition("/")[2] in group:
                    return pid
        raise AssertionError(f"no process {inside} in {cgroup}")


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


@pytest.fixture
def serviced(manager: Manager, tmp_path: Path) -> Iterator[Serviced]:
    """A store whose units are installed, and uninstalled in the end."""
    root = tmp_path / "a shop's repo-1 (ü) 50%"
    root.mkdir()
    subprocess.run(["git", "init", "-q", "--template=", root], check=True)
    Store.create(os.fspath(root))[0].close()
    made = Serviced(manager, root)
    before = manager.files()
    made.cli("service", "install")
    yield made
    made.cli("service", "uninstall")
    assert manager.files() - before == set()


def test_the_first_call_starts_the_daemon(serviced: Serviced) -> None:
    """With units installed no daemon runs until a command wants one; systemd hears that it is ready."""
    assert (serviced.show("ActiveState"), serviced.show("ActiveState", "socket")) == ("inactive", "active")
    assert serviced.cli("create", "prd", "--set", "id=p1", "--set", "title=t") == "p1\n"
    status = serviced.status()
    assert status["requests"] >= 2
    assert (serviced.show("ActiveState"), serviced.show("SubState")) == ("active", "running")
    assert serviced.show("StatusText") == f"Serving {serviced.root}/.taskstore"
    assert int(serviced.show("MainPID")) == status["pid"]
    assert serviced.cli("service", "status").splitlines() == [f"{serviced.unit}.socket: active",
                                                             f"{serviced.unit}.service: active"]


def test_kill_9(serviced: Serviced) -> None:
    """A daemon that is killed is started anew by systemd, with no client asking."""
    serviced.cli("stats")
    os.kill(serviced.main_pid(), signal.SIGKILL)
    for _ in poll():
        if serviced.show("NRestarts") == "1" and serviced.show("ActiveState") == "active":
            break
    assert serviced.status()["problem"] is None


def test_the_watchdog(serviced: Serviced) -> None:
    """A daemon that hangs is ended and started anew."""
    serviced.cli("stats")
    pid = serviced.main_pid()
    os.kill(pid, signal.SIGSTOP)
    for _ in poll():
        if serviced.show("NRestarts") == "1" and serviced.show("ActiveState") == "active":
            break
    assert serviced.status()["problem"] is None
    assert pid not in _pids()


def test_the_watchdog_is_content(serviced: Serviced) -> None:
    """A daemon that is well outlives the time in which systemd wants to hear from it."""
    serviced.cli("stats")
    for _ in poll():
        if serviced.status()["uptime_s"] > 2.5:
            break
    assert serviced.show("NRestarts") == "0"


def test_stopped_by_hand(serviced: Serviced) -> None:
    """`daemon stop` ends the daemon, the socket stays, and the next command has systemd start another."""
    serviced.cli("stats")
    serviced.cli("daemon", "stop")
    told = serviced.manager.run(sys.executable, "-m", "taskstore", "daemon", "status", cwd=serviced.root)
    assert (told.returncode, told.stdout) == (
        1, "no daemon runs for this store; systemd starts one with the next command\n")
    for _ in poll():
        if serviced.show("ActiveState") == "inactive":
            break
    assert serviced.show("Result") == "success"
    serviced.cli("stats")
    assert serviced.status()["problem"] is None


def test_start_by_hand_uses_systemd_s_socket(serviced: Serviced) -> None:
    """`daemon start` and `--start` leave the socket to systemd, whose daemon answers."""
    serviced.cli("daemon", "start")
    assert int(serviced.show("MainPID")) == serviced.status()["pid"]


def test_verify(serviced: Serviced) -> None:
    """`systemd-analyze verify` has nothing to say about the units."""
    done = serviced.manager.run("systemd-analyze", "--user", "verify", f"{serviced.unit}.service",
                                f"{serviced.unit}.socket")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    shown = serviced.manager.output("systemctl", "--user", "cat", f"{serviced.unit}.service")
    assert "WatchdogSec=30" in shown.splitlines()  # which the other tests shorten


def test_it_cannot_gain_privileges(serviced: Serviced) -> None:
    """The daemon runs with no new privileges and a filter of system calls, and serves all the same."""
    serviced.cli("stats")
    status = Path(f"/proc/{serviced.main_pid()}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert serviced.cli("create", "prd", "--set", "id=p1", "--set", "title=t") == "p1\n"
    assert serviced.cli("sync", "--full").startswith("prds.jsonl: ")


def test_two_stores(serviced: Serviced, tmp_path: Path) -> None:
    """Uninstalling one store's units leaves another's as they are."""
    (tmp_path / "second").mkdir()
    Store.create(os.fspath(tmp_path / "second"))[0].close()
    second = Serviced(serviced.manager, tmp_path / "second")
    second.cli("service", "install")
    second.cli("service", "uninstall")
    assert serviced.cli("service", "status").startswith(f"{serviced.unit}.socket: active")
    serviced.cli("stats")
    assert serviced.status()["problem"] is None


def test_installing_twice(serviced: Serviced) -> None:
    """Installing what is installed changes nothing."""
    before = serviced.manager.files()
    serviced.cli("service", "install")
    assert serviced.manager.files() == before
    serviced.cli("stats")
    assert serviced.status()["problem"] is None


def test_installing_takes_over_from_a_daemon_that_runs(manager: Manager, tmp_path: Path) -> None:
    """A daemon that was started by hand is stopped when systemd takes over."""
    Store.create(os.fspath(tmp_path))[0].close()
    made = Serviced(manager, tmp_path)
    made.cli("daemon", "start")
    by_hand = made.status()["pid"]
    made.cli("service", "install")
    made.cli("stats")
    assert made.status()["pid"] == int(made.show("MainPID")) != by_hand
    made.cli("service", "uninstall")


def test_without_a_manager(tmp_path: Path) -> None:
    """Where no user manager runs nothing is installed, and the error says so."""
    for name in ("project", "home"):
        (tmp_path / name).mkdir()
    Store.create(os.fspath(tmp_path / "project"))[0].close()
    done = subprocess.run([sys.executable, "-m", "taskstore", "service", "install"], cwd=tmp_path / "project",
                          env=environment(tmp_path / "home", os.fspath(tmp_path)), text=True, capture_output=True,
                          check=False)
    assert done.returncode == 3
    assert "nothing was installed" in done.stderr
    assert list((tmp_path / "home").rglob("*taskstore*")) == []
    assert list((tmp_path / "home").rglob("systemd")) == []


@pytest.mark.parametrize("path", ["/", "/a", "/a/b-c", "/.hidden/x", "/a b/ü%", "//a//b/", "/x.y:z_1", "/a\\b\n"])
def test_escaping(path: str) -> None:
    """A path becomes what systemd's own tool makes of it."""
    if shutil.which("systemd-escape") is None:
        pytest.skip("systemd-escape is not installed")
    wanted = subprocess.run(["systemd-escape", "--path", path], capture_output=True, text=True, check=True).stdout
    assert escape(path) == wanted.rstrip("\n")
