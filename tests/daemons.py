"""Daemons as processes, for tests of what talks to one."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

PATIENCE_S = 60.0


@contextlib.contextmanager
def running_daemon(directory: str, *options: str, prefix: Sequence[str] = ()) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon that serves the store in `directory`, ready for connections, and ended afterwards.

    `prefix` are words before the command, of a program that becomes it.
    """
    ours, theirs = os.pipe()
    command = [*prefix, sys.executable, "-m", "taskstore_daemon", "--store", directory, "--ready-fd", str(theirs),
               *options]
    with subprocess.Popen(command, pass_fds=[theirs], stdin=subprocess.DEVNULL) as daemon:
        os.close(theirs)
        with open(ours, "rb") as ready:
            assert ready.readline() == b"ready\n"
        try:
            yield daemon
        finally:
            daemon.terminate()
            daemon.send_signal(signal.SIGCONT)  # a test may have stopped it
            daemon.wait()


@contextlib.contextmanager
def private_folder() -> Iterator[str]:
    """A runtime folder with a short name: a socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        yield folder


def daemons_of(directory: str) -> list[int]:
    """The processes, ready or not, that were started to serve the store in `directory`, or any below it."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                words = os.fsdecode(file.read()).split("\0")
                if "taskstore_daemon" in words and any(f"{word}/".startswith(f"{directory}/") for word in words):
                    found.append(int(name))
    return found


def end_daemons_of(directory: str) -> None:
    """Kill them, and see them gone, with everything that they had open."""
    killed: set[int] = set()
    for _ in poll():
        pids = daemons_of(directory)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= set(pids)
        if not pids and not any(map(_is_alive, killed)):
            return


def _is_alive(pid: int) -> bool:
    """Whether a process still has files open: it loses its command line before."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def poll(seconds: float = PATIENCE_S) -> Iterator[None]:
    """Turns to look for something that another process does, until a deadline fails the test."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.005)
    raise AssertionError(f"it did not happen within {seconds:g} s")
