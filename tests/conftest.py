"""The `--long` option, and for the system tests: stores of their own, processes that work on them, and strace.

A system test runs scripts in processes of their own (`Site.run`) and looks afterwards at what the files say, never
at what the process knew.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from taskstore_core import frames
from taskstore_core.batch import Operation
from taskstore_core.files import create_folder
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store

PATIENCE_S = 60.0
_WITH_ID = tuple(kind.name for kind in KINDS.values() if kind.key == "id")
BOOT_ID = "/proc/sys/kernel/random/boot_id"

ALLOW_TRACING = "import ctypes; ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)"
"""PR_SET_PTRACER, so that strace may attach although it is no ancestor of the process."""

SCRIPT = f"{ALLOW_TRACING}\n" + """
import importlib, json, os, pkgutil, random, secrets, sys, tempfile
import taskstore_core.clock
if os.environ.get("TEST_BOOT_ID"):
    taskstore_core.clock.boot_id = lambda: os.environ["TEST_BOOT_ID"]
for module in pkgutil.iter_modules(taskstore_core.__path__, "taskstore_core."):
    importlib.import_module(module.name)  # now, so that a trace shows no imports
from taskstore_core.errors import TaskStoreError
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store
from taskstore_core.batch import Operation

directory, _file = sys.argv[1:3]
arguments = sys.argv[3:]
_descriptor = os.open(_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def acknowledge(*ids):
    os.write(_descriptor, "".join(f"{key}\\n" for key in ids).encode())


needed = {"prd": {"title": "a title"}, "task_spec": {"phase_name": "a phase", "description": "what to do"}}


def operation(verb, kind, **fields):
    return Operation(verb, KINDS[kind], {**needed.get(kind, {}), **fields} if verb == "create" else fields)


def apply(store, *operations):
    written = [one.key for one in store.apply(operations)]
    acknowledge(*written)
    return written


def create(store, kind="prd", **fields):
    return apply(store, operation("create", kind, **fields))[0]


def refused(store, *operations):
    # what the caller was told, as plain data
    try:
        return store.apply(operations)[0].key
    except TaskStoreError as error:
        return {"kind": error.kind, "applied": error.applied, "message": error.message}


def set_clock(ms_ago):
    # the time that stamps and frames are given from here on
    then = taskstore_core.clock.now_ms() - ms_ago
    for module in list(sys.modules.values()):
        if hasattr(module, "now_ms"):
            module.now_ms = lambda: then


def ready(word="ready"):
    # tell the test that we have come here, and wait for its word
    print(word, flush=True)
    sys.stdin.readline()
"""
"""What every script of a test begins with."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the campaigns too, which take minutes")
    parser.addoption("--seconds", type=float, default=300.0, help="how long agents work in their campaign, with --long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="a campaign that runs for minutes: choose it with --long"))


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether to try every point, not a sample."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def site(tmp_path: Path) -> "Site":
    """An empty store in a git repository."""
    return make_site(tmp_path / "site")


@pytest.fixture
def sites(tmp_path: Path) -> "SiteMaker":
    """What makes as many of them as a test needs."""
    return SiteMaker(tmp_path)


@pytest.fixture(scope="session")
def make_sites() -> "Callable[[Path], SiteMaker]":
    """What makes a SiteMaker for a folder; for fixtures that outlive a test."""
    return SiteMaker


@pytest.fixture(scope="session")
def strace() -> None:
    """Skips the test where processes cannot be traced."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with subprocess.Popen([sys.executable, "-c", f"{ALLOW_TRACING}; print('ready', flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        wait_for_line(process, "ready")
        with subprocess.Popen(["strace", "-p", str(process.pid)], stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            process.communicate("\n")
            tracer.communicate()
    if "attached" not in said:
        pytest.skip(f"strace may not attach to a process: {said.strip()}")


@pytest.fixture(scope="session")
def boots(tmp_path_factory: pytest.TempPathFactory) -> "list[Reboot]":
    """How to run a process as if the machine had been started anew, once or twice."""
    folder = tmp_path_factory.mktemp("boot")
    return [_reboot(folder / f"boot_id-{number}", f"0000000{number}-0000-4000-8000-000000000000") for number in (1, 2)]


def _reboot(file: Path, boot_id: str) -> "Reboot":
    file.write_text(f"{boot_id}\n")
    bind = 'mount --bind "$0" "$1"; shift; exec "$@"'
    for unshare in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        prefix = [*unshare, "sh", "-ec", bind, str(file), BOOT_ID]
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run([*prefix, "cat", BOOT_ID], capture_output=True, text=True, check=False)
            if done.stdout.strip() == boot_id:
                return Reboot(prefix, {})
    return Reboot([], {"TEST_BOOT_ID": boot_id})


@dataclasses.dataclass(frozen=True)
class Reboot:
    """`prefix` stands before a command that is to see another boot id, or else `environment` tells a script of it."""

    prefix: list[str]
    environment: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a process ended and what it said; `calls` are the traced system calls as (name, path of its file)."""

    status: int
    out: str
    err: str
    calls: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def killed(self) -> bool:
        """Whether it ended by SIGKILL."""
        return self.status == -signal.SIGKILL

    @property
    def said(self) -> list[object]:
        """The lines that it printed, which are JSON."""
        return [json.loads(line) for line in self.out.splitlines() if line != "ready"]


@pytest.fixture
def git(site: "Site") -> "Callable[..., str]":
    """Runs git on the store's repository, of which everything that is tracked has been committed on `main`."""
    def run(*words: str) -> str:
        done = subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main",
                               *words], cwd=site.root, check=True, capture_output=True, text=True,
                              env=site.environment)
        return done.stdout.strip()

    run("symbolic-ref", "HEAD", "refs/heads/main")
    run("add", ".")
    run("commit", "-qm", "the store")
    site.calm()
    return run


class SiteMaker:
    """Makes sites in one folder, anew or as copies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    def __call__(self, *, store: bool = True) -> "Site":
        return make_site(self._next(), store=store)

    def on(self, disk: Path, *, make: bool = True, store: bool = True) -> "Site":
        """The site on another file system; the files beside it stay here."""
        beside = self._next()
        beside.mkdir()
        return make_site(disk / "site", beside, store=store) if make else Site(disk / "site", beside)

    def copy(self, site: "Site") -> "Site":
        """Another site that begins with all files of `site`."""
        copy = Site(self._next())
        shutil.copytree(site.root, copy.root)
        if site.acknowledged_file.exists():
            shutil.copy(site.acknowledged_file, copy.acknowledged_file)
        return copy

    def _next(self) -> Path:
        self._made += 1
        return self._folder / f"site-{self._made}"


def make_site(root: Path, beside: Path | None = None, *, store: bool = True) -> "Site":
    root.mkdir()
    subprocess.run(["git", "init", "-q", "--template=", str(root)], check=True)
    site = Site(root, beside)
    if store:
        Store.create(str(root))[0].close()
    site.calm()
    return site


class Site:
    """One store, and the processes that work on it."""

    def __init__(self, root: Path, beside: Path | None = None) -> None:
        """The store in `root`; what is no part of it lies in the folder `beside`."""
        self.root = root
        beside = beside or root.parent
        self.directory = root / ".taskstore"
        self.private = root / ".git" / "taskstore"
        self.outbox = self.private / "outbox"
        self.cache = self.directory / "store.db"
        self.acknowledged_file = beside / f"{root.name}.acknowledged"
        self._trace = beside / f"{root.name}.trace"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKSTORE_")}

    def calm(self, *, forget: bool = True) -> None:
        """Have git's last work be long ago, and nobody know of it if it is to be forgotten."""
        create_folder(os.fspath(self.private))
        long_ago = time.time_ns() - 3600 * 10**9
        os.utime(self.root / ".git", ns=(long_ago, long_ago))
        if forget:
            (self.private / "busy").unlink(missing_ok=True)

    def age(self) -> None:
        """As if whatever was written had been written an hour ago."""
        data, aged = self.outbox.read_bytes(), b""
        for offset, end, frame in frames.scan(data, 0):
            match frame:
                case {"seq": int(seq), "boot": str(boot), "at": int(at), "entries": list(entries)}:
                    write = frames.Write(seq, boot, at - 3600 * 1000, [(name, line) for name, line in entries])
                    aged += write.encode()
                case _:
                    aged += data[offset:end]
        self.outbox.write_bytes(aged.ljust(len(data), b"\0"))

    # Files

    def log(self, kind: str = "prd") -> Path:
        return self.directory / KINDS[kind].log

    def logs(self) -> dict[str, bytes]:
        """The bytes of every log."""
        return {kind: self.log(kind).read_bytes() for kind in KINDS}

    def lines(self, kind: str = "prd") -> list[bytes]:
        """The complete lines of a log."""
        return self.log(kind).read_bytes().split(b"\n")[:-1]

    def frames(self) -> list[dict[str, object]]:
        """The frames of the outbox that are whole."""
        return [frame for _, _, frame in frames.scan(self.outbox.read_bytes(), 0) if frame is not None]

    def acknowledged(self) -> list[str]:
        """The ids that processes were told are written, in the order they were told."""
        return self.acknowledged_file.read_text().split() if self.acknowledged_file.exists() else []

    def lose_cache(self) -> None:
        """Delete the cache's files."""
        for path in self.directory.glob("store.db*"):
            path.unlink()

    # Work in this process

    def open(self) -> Store:
        return Store.open(str(self.root))

    def seed(self, count: int, **fields: object) -> list[str]:
        """Create PRDs and close the store; their ids."""
        with self.open() as store:
            written = store.apply([Operation("create", KINDS["prd"], {"title": f"seed {n}", **fields})
                                   for n in range(count)])
            assert store.flush(60)
        return [one.key for one in written]

    def ids(self, *kinds: str) -> list[str]:
        """The ids of the live records (PRDs if nothing else is said), read by a store that is opened for it."""
        with self.open() as store:
            return [json.loads(line)["id"] for kind in kinds or ("prd",) for line in store.find(kind)[0]]

    def rows(self) -> dict[str, list[tuple[object, ...]]]:
        """Everything the cache's file says of records and of bad lines."""
        db = apsw.Connection(str(self.cache), flags=apsw.SQLITE_OPEN_READONLY)
        with contextlib.closing(db):
            return {
                **{kind.plural: list(db.execute(f"SELECT * FROM {kind.plural}_rows ORDER BY id"))  # noqa: S608
                   for kind in KINDS.values()},
                "lines": list(db.execute("SELECT name, offset, lines FROM logs ORDER BY name")),
                "bad": list(db.execute("SELECT log, sum(bad) FROM chunks GROUP BY log ORDER BY log"))}

    @contextlib.contextmanager
    def replaced_all_the_time(self, kind: str = "prd") -> Iterator[None]:
        """Puts what a log holds now back into its place over and over, as a git command does once."""
        content = self.log(kind).read_bytes()
        done = threading.Event()

        def replace() -> None:
            temporary = self.root.parent / f"{self.root.name}.replacement"
            while not done.wait(0.005):
                temporary.write_bytes(content)
                temporary.replace(self.log(kind))

        thread = threading.Thread(target=replace)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    # Work in other processes

    @staticmethod
    def poll(seconds: float = PATIENCE_S) -> Iterator[None]:
        """Turns to look for something that another process does, until a deadline fails the test."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            yield
            time.sleep(0.002)
        raise AssertionError(f"it did not happen within {seconds:g} s")

    def cli(self, *words: str, **options: str) -> Outcome:
        """Run one command of the command line here."""
        done = subprocess.run([sys.executable, "-m", "taskstore", *words], cwd=self.root, capture_output=True,
                              text=True, env={**self.environment, **options}, check=False, timeout=PATIENCE_S)
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self, script: str, *arguments: str, boot: Reboot | None = None,
              acknowledged: Path | None = None) -> "subprocess.Popen[str]":
        """Start a process that runs `script` after SCRIPT."""
        boot = boot or Reboot([], {})
        return subprocess.Popen(
            [*boot.prefix, sys.executable, "-c", SCRIPT + script, str(self.directory),
             str(acknowledged or self.acknowledged_file), *arguments],
            cwd=self.root, env={**self.environment, **boot.environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def await_word(process: "subprocess.Popen[str]", word: str) -> None:
        """Read what a process prints up to the line `word`."""
        wait_for_line(process, word)

    @staticmethod
    def go_on(process: "subprocess.Popen[str]") -> None:
        """Give a process that says it is ready the word to go on."""
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    def run(self, script: str, *arguments: str, boot: Reboot | None = None) -> Outcome:
        """Run `script` to its end."""
        with self.start(script, *arguments, boot=boot) as process:
            out, err = process.communicate("\n", timeout=PATIENCE_S)
        return Outcome(process.returncode, out, err)

    def run_traced(self, script: str, *arguments: str, calls: str, inject: Sequence[str] = (),
                   paths: Sequence[Path] = (), boot: Reboot | None = None) -> Outcome:
        """Run `script`, under strace from where it says it is ready.

        `calls` are the system calls to look at, on `paths` only where there are any; `inject` what strace shall do
        to them ("fdatasync:signal=KILL:when=1").
        """
        with self.start(script, *arguments, boot=boot) as process:
            wait_for_line(process, "ready")
            with subprocess.Popen([*self._strace(calls, inject, paths), "-p", str(process.pid)],
                                  stderr=subprocess.PIPE, text=True) as tracer:
                assert tracer.stderr is not None
                said = tracer.stderr.readline()
                assert "attached" in said, said
                out, err = process.communicate("\n", timeout=PATIENCE_S)
                tracer.communicate(timeout=PATIENCE_S)
        return self._traced(process.returncode, out, err)

    def cli_traced(self, *words: str, calls: str, inject: Sequence[str] = (), paths: Sequence[Path] = ()) -> Outcome:
        """Run one command of the command line under strace from its start."""
        done = subprocess.run([*self._strace(calls, inject, paths), sys.executable, "-m", "taskstore", *words],
                              cwd=self.root, capture_output=True, text=True, env=self.environment, check=False,
                              timeout=PATIENCE_S)
        return self._traced(done.returncode, done.stdout, done.stderr)

    def _strace(self, calls: str, inject: Sequence[str], paths: Sequence[Path]) -> list[str]:
        self._trace.unlink(missing_ok=True)
        words = ["strace", "-f", "-y", "-o", str(self._trace), "-e", f"trace={calls}"]
        words += [word for what in inject for word in ("-e", f"inject={what}")]
        return words + [word for path in paths for word in ("-P", str(path))]

    def _traced(self, status: int, out: str, err: str) -> Outcome:
        return Outcome(status, out, err, parse_trace(self._trace.read_text(errors="replace")))

    # What must be true of it

    def assert_sound(self, acknowledged: Collection[str], *, together: Sequence[Collection[str]] = (),
                     discarded: Collection[str] = (), bad: Sequence[bytes] = (), write_first: bool = False) -> None:
        """Everything that a crash must leave true.

        Every id in `acknowledged` is there, once, of `together` all or none, of `discarded` none; the next append
        succeeds; every line but those in `bad` is a record; and the cache says what a fresh one would.
        """
        acknowledged = [key for key in acknowledged if key not in discarded]
        if not write_first:
            self._assert_readable(acknowledged, together)
        following = self.cli("create", "prd", "--set", "title=the next one")
        assert following.status == 0, following.err
        self._assert_readable([*acknowledged, following.out.strip()], together)
        for kind in KINDS:
            self._assert_lines(kind, bad)
        assert not set(self.ids(*_WITH_ID)) & set(discarded)
        self._assert_settled(discarded)
        before = self.rows()
        self.lose_cache()
        with self.open() as store:
            store.sync()
        assert self.rows() == before

    def _assert_readable(self, acknowledged: Collection[str], together: Sequence[Collection[str]]) -> None:
        there = self.ids(*_WITH_ID)
        assert len(there) == len(set(there))
        assert set(acknowledged) <= set(there)
        for group in together:
            assert set(group) <= set(there) or not set(group) & set(there)

    def _assert_settled(self, discarded: Collection[str]) -> None:
        writes = [frame for frame in self.frames() if "seq" in frame]
        assert len(writes) == len({frame["seq"] for frame in writes})
        aborted = {frame["abort"] for frame in self.frames() if "abort" in frame}
        lines = {kind.log: set(self.log(kind.name).read_bytes().split(b"\n")) for kind in KINDS.values()}
        for frame in writes:
            entries: Any = frame["entries"]
            assert frame["seq"] in aborted or all(
                line.encode() in lines[name] or json.loads(line)["id"] in discarded for name, line in entries)

    def _assert_lines(self, kind: str, bad: Sequence[bytes]) -> None:
        lines = [line for line in self.log(kind).read_bytes().split(b"\n") if line and line not in bad]
        versions = [(record[KINDS[kind].key], record.get("updated_at")) for record in map(json.loads, lines)]
        assert len(versions) == len(set(versions))


def wait_for_line(process: "subprocess.Popen[str]", wanted: str) -> None:
    """Read what a process prints up to the line `wanted`."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == wanted:
            return
    assert process.stderr is not None
    raise AssertionError(f"it ended without saying {wanted!r}: {process.stderr.read()}")


def parse_trace(text: str) -> list[tuple[str, str]]:
    """The calls in what strace wrote, as (name, path of the first file it names)."""
    calls = []
    for line in text.splitlines():
        name, parenthesis, rest = line.partition(" ")[2].strip().partition("(")
        if not parenthesis or not name.isidentifier():
            continue
        quoted = rest.partition('"')[2].partition('"')[0] if '"' in rest and name in _BY_PATH else ""
        calls.append((name, quoted or rest.partition("<")[2].partition(">")[0]))
    return calls


_BY_PATH = ("openat", "open", "rename", "unlink", "link", "mkdir", "chmod")

