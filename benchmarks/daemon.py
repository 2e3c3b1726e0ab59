"""What a call through the daemon costs, against a server of the same kind that only echoes lines.

Clients are plain sockets in this process, so that both servers are asked in the same way.
"""

import contextlib
import itertools
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median

from measure import Row, scratch

from taskstore_core.sockets import socket_path
from taskstore_core.store import Store

ECHO = """
import os, socket, sys, trio

async def serve(sock):
    with sock:
        rest = b""
        try:
            while data := await sock.recv(65536):
                lines = (rest + data).split(b"\\n")
                rest = lines.pop()
                await sock.send(b"".join(line + b"\\n" for line in lines))
        except OSError:
            pass

async def main():
    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(sys.argv[1])
    listener.listen(256)
    os.write(int(sys.argv[2]), b"ready\\n")
    async with trio.open_nursery() as nursery:
        while True:
            sock, _ = await listener.accept()
            nursery.start_soon(serve, sock)

trio.run(main)
"""
CLIENTS = 32
_ROUNDS = 30
_RECORDS = 1000
_PIPELINED = 100
_SECONDS = 0.5
_TURNS = 8


class Line:
    """A connection that asks one line and waits for one."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self._file = self.sock.makefile("rb")

    def ask(self, line: bytes) -> bytes:
        """The line that answers."""
        self.sock.sendall(line)
        return self._file.readline()

    def ask_all(self, lines: list[bytes]) -> None:
        """Send many in one go, and wait for all answers."""
        self.sock.sendall(b"".join(lines))
        for _ in lines:
            self._file.readline()

    def close(self) -> None:
        """End it."""
        self._file.close()
        self.sock.close()


@contextlib.contextmanager
def server(*command: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A server process that says when it is ready on the descriptor whose number ends its command."""
    ours, theirs = os.pipe()
    with subprocess.Popen([sys.executable, *command, str(theirs)], pass_fds=[theirs]) as process:
        os.close(theirs)
        with open(ours, "rb") as ready:
            ready.readline()
        try:
            yield process
        finally:
            process.terminate()


def request(method: str, **parameters: object) -> bytes:
    """The frame of a call."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode() + b"\n"


def synced_ms(sync: Callable[[], object], echo: Callable[[], object]) -> float:
    """Median time of a sync that follows other work, as a daemon's do: right after another it is quicker."""
    p50 = p50s_ms({"echo": (echo, 20), "sync": (lambda: (echo(), sync()), 20)}, 1)
    return p50["sync"] - p50["echo"]


def p50s_ms(functions: Mapping[str, tuple[Callable[[], object], int]], rounds: int = _ROUNDS) -> dict[str, float]:
    """Median time of a call of each function, called so many times a round; one round warms up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, (function, count) in functions.items():
            for _ in range(count):
                began = time.perf_counter()
                function()
                if turn:
                    times[name].append((time.perf_counter() - began) * 1000)
    return {name: median(all_) for name, all_ in times.items()}


class Crowd:
    """Many clients of one server, each asking again as soon as it is answered."""

    def __init__(self, path: str, line: bytes) -> None:
        self._line = line
        self._socks = [socket.socket(socket.AF_UNIX) for _ in range(CLIENTS)]
        for sock in self._socks:
            sock.connect(path)

    def per_second(self) -> float:
        """Answers a second that they get together; all have theirs at the end."""
        with selectors.DefaultSelector() as selector:
            for sock in self._socks:
                selector.register(sock, selectors.EVENT_READ)
                sock.sendall(self._line)
            count, began = 0, time.perf_counter()
            end = began + _SECONDS
            while selector.get_map():
                for key, _ in selector.select():
                    asked = key.fileobj
                    assert isinstance(asked, socket.socket)
                    if asked.recv(65536).endswith(b"\n"):
                        count += 1
                        if time.perf_counter() < end:
                            asked.sendall(self._line)
                        else:
                            selector.unregister(asked)
        return count / (time.perf_counter() - began)

    def close(self) -> None:
        """End them."""
        for sock in self._socks:
            sock.close()


def pushed_ms(path: str, log: str, rounds: int = 200) -> float:
    """Median time from an append by somebody else to a subscriber hearing of it."""
    line = Line(path)
    line.ask(request("changes.subscribe"))
    times = []
    for number in range(rounds):
        record = json.dumps({"id": f"pushed-{number}", "title": "T", "description": "", "created_at": 1,
                             "updated_at": int(time.time() * 1000), "status": "draft", "review_passes": 0,
                             "content": ""})
        time.sleep(0.03)
        began = time.perf_counter()
        with open(log, "a", encoding="utf-8") as file:
            file.write(record + "\n")
        line._file.readline()  # noqa: SLF001 - its own helper
        times.append(time.perf_counter() - began)
    line.close()
    return median(times) * 1000


def durable(folder: str) -> Callable[[], None]:
    """The floor of a durable write: one append with fdatasync."""
    fd = os.open(f"{folder}/plain", os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def call() -> None:
        os.write(fd, b"x" * 300 + b"\n")
        os.fdatasync(fd)

    return call


def crowd_row(echo: str, path: str, create: bytes, sync_ms: Callable[[], float]) -> Row:
    """How fast many clients create, against the lower of what the disk and what the echo would allow.

    All three are measured in turn, as their speeds drift.
    """
    echoed, creating = Crowd(echo, create), Crowd(path, create)
    echo_rates, create_rates, syncs_ms = [], [], []
    for _ in range(_TURNS):
        echo_rates.append(echoed.per_second())
        create_rates.append(creating.per_second())
        syncs_ms.append(sync_ms())
    echoed.close()
    creating.close()
    wanted = min(2.5 * 1000 / median(syncs_ms), median(echo_rates) / 2)
    return Row(f"create, {CLIENTS} clients, ms a create", 1000 / median(create_rates),
               "2.5 / fdatasync, or half of what echo gives", 1000 / wanted, 1.0)


def run() -> list[Row]:
    """Every figure of the daemon against its floor."""
    with scratch() as folder, \
            tempfile.TemporaryDirectory() as short:
        store, _ = Store.create(directory=os.path.join(folder, ".taskstore"))
        directory = store.paths.directory
        log = store.paths.file("prds.jsonl")
        store.close()
        echo = f"{short}/echo.sock"
        with server("-c", ECHO, echo), server("-m", "taskstore_daemon", "--store", directory, "--log-level", "error",
                                              "--ready-fd"):
            return _rows(folder, echo, socket_path(directory, os.environ), log)


def _rows(folder: str, echo: str, path: str, log: str) -> list[Row]:
    create = request("record.create", kind="prd", record={"title": "Search"})
    echoed, line = Line(echo), Line(path)
    keys = [json.loads(line.ask(create))["result"]["id"] for _ in range(_RECORDS)]
    gets = [request("record.get", kind="prd", id=key) for key in keys]
    turn = itertools.cycle(gets)
    sync = durable(folder)
    p50 = p50s_ms({
        "echo": (lambda: echoed.ask(next(turn)), 200),
        "get": (lambda: line.ask(next(turn)), 200),
        "gets": (lambda: line.ask_all(gets[:_PIPELINED]), 10),
        "sync": (lambda: (sync(), echoed.ask(create)), 50),
        "create": (lambda: line.ask(create), 50),
    })
    pushed = pushed_ms(path, log)
    crowd = crowd_row(echo, path, create, lambda: synced_ms(sync, lambda: echoed.ask(create)))
    echoed.close()
    line.close()
    return [
        Row("get", p50["get"], "bare trio line echo", p50["echo"], 1.5),
        Row("get, pipelined, each", p50["gets"] / _PIPELINED, "get, one by one", p50["get"], 1 / 6),
        Row("create, durable, one client", p50["create"], "fdatasync + echo", p50["sync"], 2.0),
        crowd,
        Row(f"append to {_RECORDS} records → subscriber told", pushed, "15 ms", 15.0, 1.0),
    ]
