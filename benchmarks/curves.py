"""How costs grow from 1,000 to 1,000,000 records: `python benchmarks/curves.py [--most N] [--draw FOLDER]`.

Each figure stands beside its floor, measured in the same process minutes apart at the most; where the floor grows too,
what counts is that the two lines stay parallel. `--draw` needs matplotlib (`pip install -e '.[benchmarks]'`) and writes
one picture a figure. What is measured is kept in a JSON file beside the pictures, so that they can be drawn anew.
"""

import argparse
import compileall
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from daemon import ECHO, Line, request, server
from measure import resident_mb, scratch
from merge import floor as merge_floor
from merge import versions
from sync import KIND, line
from sync import floor as rebuild_floor

import taskstore
import taskstore_core
from taskstore_core.sockets import socket_path
from taskstore_core.store import Store
from taskstore_merge.driver import main as merge

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
_CALLS = 300
_REST_S = 2.0


class Point(NamedTuple):
    """One figure for a store of `records`: `is_` and its floor, in `unit`."""

    figure: str
    records: int
    is_: float
    floor: float
    floor_name: str
    unit: str = "ms"


def median_ms(function: Callable[[], object], rounds: int) -> float:
    """Median wall time of a call, after one that is not counted."""
    times = []
    for turn in range(rounds + 1):
        began = time.perf_counter()
        function()
        if turn:
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def measure(count: int) -> Iterator[Point]:
    """Every figure for a store of so many task specs."""
    rounds = 3 if count >= SIZES[-2] else 7
    with scratch() as folder:
        store, _ = Store.create(directory=os.path.join(folder, ".taskstore"))
        lines = [line(number) for number in range(count)]
        with open(store.paths.file(KIND.log), "w", encoding="utf-8") as log:
            log.writelines(f"{text}\n" for text in lines)
        yield from _syncs(store, lines, folder, rounds)
        directory = store.paths.directory
        store.close()
        yield from _commands(directory, count)
        yield from _calls(directory, folder, count)
    with scratch() as folder:
        yield from _merge(folder, count, rounds)


def _syncs(store: Store, lines: list[str], folder: str, rounds: int) -> Iterator[Point]:
    count = len(lines)
    least = median_ms(lambda: rebuild_floor(lines, f"{folder}/floor.db"), rounds)
    yield Point("rebuild", count, median_ms(lambda: store.sync(full=True), rounds), least, "decode and insert")
    path, number = store.paths.file(KIND.log), count

    def appended() -> None:
        nonlocal number
        number += 1
        with open(path, "a", encoding="utf-8") as file:
            file.write(line(number) + "\n")
        store.sync()

    yield Point("line appended by another", count, median_ms(appended, 20), _read_ms(path), "reading the file")


def _read_ms(path: str) -> float:
    def read() -> None:
        with open(path, "rb") as file:
            file.read()

    return median_ms(read, 5)


def _commands(directory: str, count: int) -> Iterator[Point]:
    def run(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    show = run("-m", "taskstore", "show", "task_spec", f"ts-{count // 2:08x}", "--store", directory)
    yield Point("show, as a process", count, median_ms(show, 10), median_ms(run("-c", "pass"), 10), "interpreter start")


def _calls(directory: str, folder: str, count: int) -> Iterator[Point]:
    with contextlib.ExitStack() as stack:
        echo = f"{folder}/echo.sock"
        stack.enter_context(server("-c", ECHO, echo))
        pid = stack.enter_context(server("-m", "taskstore_daemon", "--store", directory, "--log-level", "error",
                                         "--ready-fd")).pid
        echoed, asked = Line(echo), Line(socket_path(directory, os.environ))
        get = request("record.get", kind=KIND.name, id=f"ts-{count // 3:08x}")
        page = request("record.list", kind=KIND.name, where={"status": "running"}, order="created_at", limit=100)
        create = request("record.create", kind=KIND.name, record={"prd_id": "prd-000001", "phase_name": "More"})
        answer = asked.ask(page)
        least = median_ms(lambda: echoed.ask(get), _CALLS)
        yield Point("get", count, median_ms(lambda: asked.ask(get), _CALLS), least, "socket echo")
        yield Point("list, 100 of a status", count, median_ms(lambda: asked.ask(page), _CALLS // 3),
                    median_ms(lambda: echoed.ask(answer), _CALLS // 3), "echo of as long a line")
        yield Point("create", count, median_ms(lambda: asked.ask(create), _CALLS), _durable_ms(folder, echoed, get),
                    "fdatasync and echo")
        time.sleep(_REST_S)
        yield Point("memory of the daemon", count, resident_mb(pid), 60 + 0.2 * count / 1024,
                    "60 MB and 0.2 KB a record", "MB")


def _durable_ms(folder: str, echoed: Line, frame: bytes) -> float:
    fd = os.open(f"{folder}/plain", os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def call() -> None:
        os.write(fd, b"x" * 300 + b"\n")
        os.fdatasync(fd)
        echoed.ask(frame)

    try:
        return median_ms(call, _CALLS)
    finally:
        os.close(fd)


def _merge(folder: str, count: int, rounds: int) -> Iterator[Point]:
    paths = versions(folder, count, "appended")
    target = os.path.join(folder, "target")

    def merged() -> None:
        if os.path.exists(target):
            os.unlink(target)
        os.link(paths[1], target)
        assert merge([paths[0], target, paths[2], "7", KIND.log]) == 0

    least = median_ms(lambda: merge_floor(paths, f"{folder}/floor"), rounds)
    yield Point("merge, 1 % changed on each side", count, median_ms(merged, rounds), least, "read and split three")


def machine() -> str:
    """What the figures were measured on."""
    return (f"{os.cpu_count()} cores, {platform.python_implementation()} {platform.python_version()},"
            f" Linux {platform.release().partition('-')[0]}")


def table(points: Sequence[Point]) -> str:
    """The figures as a table in Markdown: a row a figure, a column a size, with the ratio to the floor in brackets."""
    sizes = sorted({point.records for point in points})
    rows = ["| | " + " | ".join(f"{size:,}" for size in sizes) + " | floor |", "|---" * (len(sizes) + 2) + "|"]
    for name in dict.fromkeys(point.figure for point in points):
        those = {point.records: point for point in points if point.figure == name}
        cells = [f"{those[size].is_:.3g} ({those[size].is_ / those[size].floor:.2f})" if size in those else ""
                 for size in sizes]
        one = next(iter(those.values()))
        rows.append(f"| {name}, {one.unit} | {' | '.join(cells)} | {one.floor_name} |")
    return "\n".join(rows)


def draw(points: Sequence[Point], folder: str) -> None:
    """A picture a figure, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "taskstore"  # the same figures give the same file
    for name in dict.fromkeys(point.figure for point in points):
        those = [point for point in points if point.figure == name]
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.add_subplot(xscale="log", yscale="log", xlabel="records", ylabel=those[0].unit, title=name)
        axes.plot([one.records for one in those], [one.is_ for one in those], marker="o", label="TaskStore")
        axes.plot([one.records for one in those], [one.floor for one in those], marker=".", linestyle="--",
                  color="grey", label=those[0].floor_name)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        words = "".join(char if char.isalnum() else " " for char in name).split()
        figure.savefig(os.path.join(folder, f"{'-'.join(words)}.svg"), metadata={"Date": None})


def main() -> None:
    """Measure, print the table, and draw."""
    parser = argparse.ArgumentParser(description="How costs grow with the store.")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the largest store, in records")
    parser.add_argument("--draw", metavar="FOLDER", help="write what was measured, and a picture a figure, there")
    for package in (taskstore, taskstore_core):  # else each start would compile them
        compileall.compile_dir(os.path.dirname(str(package.__file__)), quiet=1)
    parser.add_argument("--again", action="store_true", help="draw what is there, and measure nothing")
    arguments = parser.parse_args()
    kept = os.path.join(arguments.draw or os.curdir, "curves.json")
    if arguments.again:
        with open(kept, encoding="utf-8") as file:
            points = [Point(*one) for one in json.load(file)["points"]]
    else:
        points = [point for size in SIZES if size <= arguments.most for point in measure(size)]
    print(machine(), table(points), sep="\n\n")
    if arguments.draw:
        os.makedirs(arguments.draw, exist_ok=True)
        draw(points, arguments.draw)
        if not arguments.again:
            with open(kept, "w", encoding="utf-8") as file:
                json.dump({"machine": machine(), "points": points}, file, indent=1)


if __name__ == "__main__":
    main()
