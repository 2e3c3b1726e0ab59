"""Where the tour happens: a copy of the example, and processes at work on it, all of it taken away in the end."""

import contextlib
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE_S = 60.0
_COMMAND = [sys.executable, "-m", "taskstore"]


class TourError(Exception):
    """Something is not as it should be."""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait: what has begun, such as starting a daemon, can be ended when it is whole."""
    caught: list[int] = []
    former = {number: signal.signal(number, lambda it, _: caught.append(it))
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    for interrupt in caught:
        signal.raise_signal(interrupt)


class Stage:
    """A store, and the processes at work on it.

    Each is in a session of its own: Ctrl-C is for the tour alone, which ends them.
    """

    def __init__(self, folder: str) -> None:
        self.directory = shutil.copytree(os.path.join(HERE, "webshop"), os.path.join(folder, "webshop"))
        self._environment = {**os.environ, "TASKSTORE_DIR": self.directory}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._lines: queue.Queue[tuple[str, subprocess.Popen[str], str]] = queue.Queue()

    def show(self, *words: str) -> None:
        """Run a command, shown as it would be typed."""
        print(f"$ taskstore {shlex.join(words)}", flush=True)
        if self._run(*words).returncode:
            raise TourError(f"taskstore {shlex.join(words)} failed")

    def status(self) -> dict[str, int]:
        """What the daemon says of itself."""
        done = self._run("daemon", "status", "--json", stdout=subprocess.PIPE)
        if done.returncode:
            raise TourError("no daemon answers")
        said: dict[str, int] = json.loads(done.stdout)
        return said

    def start(self, name: str, *words: str) -> None:
        """Start a Python program that `name` stands for; `next_line` tells what it prints."""
        with uninterrupted():
            process = subprocess.Popen([sys.executable, *words], env=self._environment, start_new_session=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
            self._processes[name] = process
        threading.Thread(target=self._read, args=(name, process), daemon=True).start()

    def say_go(self, *names: str) -> None:
        """Give programs the word that they wait for."""
        for name in names:
            stdin = self._processes[name].stdin
            if stdin is not None:
                stdin.write("go\n")
                stdin.flush()

    def next_line(self) -> tuple[str, str]:
        """What is printed next, and by whom; "" once that one has ended well."""
        while True:
            try:
                name, process, line = self._lines.get(timeout=PATIENCE_S)
            except queue.Empty:
                raise TourError(f"nothing happened for {PATIENCE_S:g} s") from None
            if self._processes.get(name) is not process:
                continue  # the last words of one that was ended
            if not line and process.wait(PATIENCE_S):
                raise TourError(f"{name} failed")
            return name, line.rstrip("\n")

    def end(self, *names: str) -> None:
        """End programs, whatever they are doing."""
        for name in names:
            process = self._processes.pop(name)
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def close(self) -> None:
        """End everything that runs."""
        with uninterrupted():
            self.end(*self._processes)
        self._run("daemon", "stop", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _run(self, *words: str, stdout: int | None = None,
             stderr: int | None = None) -> "subprocess.CompletedProcess[str]":
        with uninterrupted():
            return subprocess.run([*_COMMAND, *words], env=self._environment, check=False, stdout=stdout,
                                  stderr=stderr, encoding="utf-8", start_new_session=True, timeout=PATIENCE_S)

    def _read(self, name: str, process: "subprocess.Popen[str]") -> None:
        if process.stdout is not None:
            with process.stdout:
                for line in process.stdout:
                    self._lines.put((name, process, line))
        self._lines.put((name, process, ""))


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="taskstore-tour-") as folder:
        made = Stage(folder)
        try:
            yield made
        finally:
            made.close()
