"""What a command pays for a daemon that is not there any more, against the same command where none ever was.

And what starting one takes, against importing what it is made of. Runs are interleaved; figures are medians.
"""

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from statistics import median

from measure import Row

from taskstore_core.paths import Paths, discover
from taskstore_core.presence import FAILED, holder, sockets
from taskstore_core.store import Store

BAR_MS = 300.0
"""What may be added."""
_ROUNDS = 9
_PROGRAM = os.path.join(sysconfig.get_path("scripts"), "taskstore")
_IMPORTS = [sys.executable, "-c", "import trio, pygit2, watchfiles, prometheus_client"]


def run() -> list[Row]:
    """Every case."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as root, \
            tempfile.TemporaryDirectory(prefix="run-") as runtime:
        Store.create(root)[0].close()
        place = _Place(root, runtime)
        try:
            rounds = [place.round() for _ in range(_ROUNDS + 1)][1:]  # the first warms up
        finally:
            place.kill()
    p50 = {name: median(one[name] for one in rounds) for name in rounds[0]}
    floor, imports, start = p50.pop("floor"), p50.pop("imports"), p50.pop("start")
    return [*(Row(f"stats, {name}", ms, "stats, no daemon ever", floor, round(1 + BAR_MS / floor, 1))
              for name, ms in p50.items()),
            Row("daemon start, until it is ready", start, "importing trio, pygit2 and others", imports, 2.0)]


class _Place:
    """A store, and what happens to its daemons."""

    def __init__(self, root: str, runtime: str) -> None:
        self._root = root
        self._blocked = Path(runtime, "taskstore")
        self._environment = {**os.environ, "XDG_RUNTIME_DIR": runtime}
        self._paths: Paths = discover(root)

    def round(self) -> dict[str, float]:
        """The time of a command in each case, in ms."""
        ms = {"floor": self._ms("--no-daemon", "stats"), "start": self._ms("daemon", "start"),
              "through a daemon": self._ms("stats")}
        self.kill()
        assert sockets(self._paths, self._environment)
        ms["after kill -9 of the daemon"] = self._ms("stats")
        self._kill_a_starter()
        ms["after kill -9 of a starter and its daemon"] = self._ms("stats")
        for path in self._blocked.iterdir():
            path.unlink()
        self._blocked.rmdir()
        self._blocked.touch()
        self._ms("--start", "stats")
        ms["--start, after a start that failed"] = self._ms("--start", "stats")
        self._blocked.unlink()
        os.unlink(self._paths.local(FAILED))
        began = time.perf_counter()
        subprocess.run(_IMPORTS, check=True)
        return {**ms, "imports": (time.perf_counter() - began) * 1000}

    def _ms(self, *words: str) -> float:
        began = time.perf_counter()
        subprocess.run([_PROGRAM, *words], cwd=self._root, env=self._environment, check=True, stdout=subprocess.DEVNULL)
        return (time.perf_counter() - began) * 1000

    def _kill_a_starter(self) -> None:
        """Kill a command while it starts a daemon, and the daemon as soon as it holds its lock."""
        with subprocess.Popen([_PROGRAM, "--start", "stats"], cwd=self._root, env=self._environment,
                              stdout=subprocess.DEVNULL) as process:
            while (found := holder(self._paths)) is None:
                time.sleep(0.001)
            process.kill()
            found.signal(signal.SIGKILL)
            found.has_ended(5)
            found.close()

    def kill(self) -> None:
        """Kill the daemon, and see it gone."""
        found = holder(self._paths)
        if found is not None:
            found.signal(signal.SIGKILL)
            found.has_ended(5)
            found.close()
