"""What a store of a million records costs: the daemon's memory, and the calls that should not know how many there are.

Memory is the daemon's resident size (Rss: all of it, what it shares with others too), two seconds after it has built
the cache itself, listed everything, and answered gets, creates and `ready`. The calls of a large store and of a small
one take turns.
"""

import contextlib
import os
import random
import time

from daemon import Line, request, server
from measure import Row, interleaved, resident_mb, scratch
from sync import KIND, line

from taskstore_core.sockets import socket_path
from taskstore_core.store import Store

IDLE_MB = 60.0
RECORD_KB = 0.2
BAR = 1.5
SMALL, MIDDLE, LARGE = 10_000, 100_000, 1_000_000
_ROUNDS = 1000
_REST_S = 2.0


class _Daemon:
    """A daemon over a store of so many task specs, which it reads itself."""

    def __init__(self, stack: contextlib.ExitStack, count: int) -> None:
        folder = stack.enter_context(scratch())
        store, _ = Store.create(directory=os.path.join(folder, ".taskstore"))
        with open(store.paths.file(KIND.log), "w", encoding="utf-8") as log:
            log.writelines(f"{line(number)}\n" for number in range(count))
        directory = store.paths.directory
        store.close()
        self.count = count
        self.pid = stack.enter_context(server("-m", "taskstore_daemon", "--store", directory, "--log-level", "error",
                                              "--ready-fd")).pid
        self._line = Line(socket_path(directory, os.environ))
        self._random = random.Random(1)
        self.ask("store.stats")

    def ask(self, method: str, **parameters: object) -> None:
        """A call, which must succeed."""
        answer = self._line.ask(request(method, **parameters))
        assert b'"result"' in answer[:100], answer

    def get(self) -> None:
        """Read one record, anywhere."""
        self.ask("record.get", kind=KIND.name, id=f"ts-{self._random.randrange(self.count):08x}")

    def create(self) -> None:
        """Create one more."""
        self.ask("record.create", kind=KIND.name, record={"prd_id": "prd-000001", "phase_name": "One more"})

    def used_mb(self) -> float:
        """Its memory once it has done a little of everything."""
        for _ in range(100):
            self.get()
            self.create()
        self.ask("record.list", kind=KIND.name)
        self.ask("task_spec.ready", limit=100)
        time.sleep(_REST_S)
        return resident_mb(self.pid)


def run() -> list[Row]:
    """Memory at rest and by record, and get and create among few and among many."""
    with contextlib.ExitStack() as stack:
        empty = _Daemon(stack, 0)
        empty.ask("record.create", kind="prd", record={"title": "Search"})
        time.sleep(_REST_S)
        idle_mb = resident_mb(empty.pid)
    with contextlib.ExitStack() as stack:
        memory = [_memory(_Daemon(stack, MIDDLE), idle_mb)]
    with contextlib.ExitStack() as stack:
        small, large = _Daemon(stack, SMALL), _Daemon(stack, LARGE)
        memory.append(_memory(large, idle_mb))
        return [Row("idle daemon, resident", idle_mb, f"{IDLE_MB:g} MB", IDLE_MB, 1.0, unit="MB"), *memory,
                *_calls(small, large)]


def _memory(daemon: _Daemon, idle_mb: float) -> Row:
    return Row(f"daemon of {daemon.count} records, above idle", daemon.used_mb() - idle_mb,
               f"{RECORD_KB:g} KB a record", RECORD_KB * daemon.count / 1024, 1.0, unit="MB")


def _calls(small: _Daemon, large: _Daemon) -> list[Row]:
    rows = []
    for name in ("get", "create"):
        times = interleaved({"small": getattr(small, name), "large": getattr(large, name)}, _ROUNDS)
        rows.append(Row(f"{name} of {LARGE} records", times["large"], f"{name} of {SMALL}", times["small"], BAR))
    return rows
