"""Timing: medians of interleaved runs, so that a machine whose speed drifts slows floor and product alike."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the report: a figure, the floor it is held against, and the bar their ratio should stay under.

    Both are in ms, or in `unit`.
    """

    name: str
    ms: float
    floor_name: str
    floor_ms: float
    bar: float | None = None
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        """The figure as a multiple of its floor."""
        return self.ms / self.floor_ms


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder to work in, on the disk that is to be measured. Stores in it are named, lest they be a repository's."""
    return tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR") or None)


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median wall time in ms of each function, all called in turn, `rounds` times after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if turn:
                times[name].append((time.perf_counter() - began) * 1000)
    return {name: median(values) for name, values in times.items()}


def processes(commands: Mapping[str, Sequence[str]], rounds: int, **environment: str) -> dict[str, float]:
    """Median wall time in ms of each command as a process."""
    env = {**os.environ, **environment}

    def runner(command: Sequence[str]) -> Callable[[], object]:
        return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)

    return interleaved({name: runner(command) for name, command in commands.items()}, rounds)


def resident_mb(pid: int) -> float:
    """What a process has in memory now, in MB of 2^20 bytes: all of it, also what it shares with others (Rss)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith("Rss:")]
    return int(line.split()[1]) / 1024


def print_rows(rows: Sequence[Row]) -> None:
    """The report as a table; a ratio over its bar is marked."""
    print(f"{'what':<44} {'is':>9} {'':<2}  {'floor':<36} {'is':>9} {'':<2} {'ratio':>6} {'bar':>5}")
    for row in rows:
        bar = "" if row.bar is None else f"{row.bar:g}"
        over = "  OVER" if row.bar is not None and row.ratio > row.bar else ""
        figures = f"{row.floor_name:<36} {row.floor_ms:>9.3f} {row.unit} {row.ratio:>6.2f} {bar:>5}{over}"
        print(f"{row.name:<44} {row.ms:>9.3f} {row.unit}  {figures}")
