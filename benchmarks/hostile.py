"""What one well-behaved client pays for clients that behave badly, against the same client when it is alone.

Each attack is a process of its own, so that it takes nothing from the client but what the daemon gives it. Quiet
times and attacks take turns, and what counts is the median of all turns.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from daemon import Line, request, server
from measure import Row, resident_mb, scratch

from taskstore_core.sockets import socket_path
from taskstore_core.store import Store

BAR = 2.0
MEMORY_MB = 100.0
"""What the daemon may have in memory under all attacks at once: 256 connections with a queue or a frame each."""
TURNS = 5
_CALLS = 200
_SETTLE_S = 0.2

ATTACKER = """
import itertools, resource, select, socket, sys, time
path, attack = sys.argv[1], sys.argv[2]
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def connected():
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


def ready():
    print("ready", flush=True)


def deaf():
    sock = connected()
    sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"changes.subscribe"}\\n')
    sock.recv(65536)  # the answer; what it is told then it never reads
    ready()
    time.sleep(3600)


def trickle():
    sock = connected()
    for number in itertools.count():
        if select.select([sock], [], [], 0)[0]:
            sock = connected()  # hung up on for having taken more than ten seconds
        sock.sendall(b"{")
        if not number:
            ready()
        time.sleep(1)


def flood():
    block = b"x" * (1 << 20)
    for number in itertools.count():
        sock = connected()
        try:
            for _ in range(2 << 10):  # 2 GiB, if it could
                sock.sendall(block)
        except OSError:
            pass
        sock.close()
        if not number:
            ready()


def depth():
    frame = b"[" * 100_000 + b"]" * 100_000 + b"\\n"
    sock = connected()
    for number in itertools.count():
        sock.sendall(frame)
        assert b"error" in sock.recv(65536)
        if not number:
            ready()


def crowd():
    socks = [connected() for _ in range(300)]  # of which those over the limit are told so
    for sock in socks[:200]:
        sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"hello"}\\n')
        sock.recv(65536)
    ready()
    time.sleep(3600)


globals()[attack]()
"""
ATTACKS = {
    "a subscriber that does not read": "deaf", "one byte a second": "trickle", "frames of 2 GiB": "flood",
    "JSON 100,000 deep": "depth", "300 connections": "crowd",
}


@contextlib.contextmanager
def attacked(path: str, attacks: "list[str]") -> Iterator[None]:
    """While each of these goes on."""
    started = []
    try:
        for name in attacks:
            process = subprocess.Popen([sys.executable, "-c", ATTACKER, path, name], stdout=subprocess.PIPE)
            started.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", name
        yield
        assert [process.poll() for process in started] == [None] * len(started), "an attacker gave up"
    finally:
        for process in started:
            process.kill()
            process.communicate()


class _Client:
    """The one that behaves well: it reads and writes in turn."""

    def __init__(self, path: str) -> None:
        self._line = Line(path)
        self._create = request("record.create", kind="prd", record={"title": "Search", "content": "c" * 2000})
        key = self._ask(self._create).partition(b'"id":"')[2].partition(b'"')[0].decode()
        self._get = request("record.get", kind="prd", id=key)

    def _ask(self, line: bytes) -> bytes:
        answer = self._line.ask(line)
        assert b'"result"' in answer, answer
        return answer

    def turn(self) -> tuple[list[float], list[float]]:
        """Times of gets and of creates, in ms."""
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(_CALLS):
            for line, into in ((self._get, times[0]), (self._create, times[1])):
                began = time.perf_counter()
                self._ask(line)
                into.append((time.perf_counter() - began) * 1000)
        return times


def run() -> list[Row]:
    """Each attack by itself, and all of them at once."""
    with scratch() as folder:
        store, _ = Store.create(directory=os.path.join(folder, ".taskstore"))
        directory = store.paths.directory
        store.close()
        with server("-m", "taskstore_daemon", "--store", directory, "--log-level", "error", "--ready-fd") as process:
            return _rows(socket_path(directory, os.environ), process.pid)


def _rows(path: str, pid: int) -> list[Row]:
    client = _Client(path)  # before the crowd, which leaves no place
    cases: dict[str, list[str]] = {"quiet": [], **{name: [attack] for name, attack in ATTACKS.items()},
                                   "all at once": list(ATTACKS.values())}
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in cases}
    client.turn()  # warms up
    quiet_mb = peak_mb = resident_mb(pid)
    for _ in range(TURNS):
        for name, attacks in cases.items():
            time.sleep(_SETTLE_S)  # until those of the turn before are gone
            with attacked(path, attacks):
                for known, new in zip(times[name], client.turn(), strict=True):
                    known.extend(new)
                peak_mb = max(peak_mb, resident_mb(pid))
    quiet = times.pop("quiet")
    rows = [Row(f"{call}, {name}", median(mine), f"{call}, alone", median(floor), BAR)
            for name, both in times.items()
            for call, mine, floor in zip(("get", "create"), both, quiet, strict=True)]
    return [*rows, Row("daemon under attack, resident", peak_mb, f"{MEMORY_MB:g} MB", MEMORY_MB, 1.0, unit="MB"),
            Row("daemon before it, resident", quiet_mb, f"{MEMORY_MB:g} MB", MEMORY_MB, unit="MB")]
