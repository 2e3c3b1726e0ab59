"""Daemons as processes, for tests of what talks to one."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def running_daemon(directory: str, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon that serves the store in `directory`, ready for connections, and ended afterwards."""
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "taskstore_daemon", "--store", directory, "--ready-fd", str(theirs), *options]
    with subprocess.Popen(command, pass_fds=[theirs], stdin=subprocess.DEVNULL) as daemon:
        os.close(theirs)
        with open(ours, "rb") as ready:
            assert ready.readline() == b"ready\n"
        try:
            yield daemon
        finally:
            daemon.terminate()
            daemon.wait()
