"""Starting a store's daemon: one of any number of callers does it, the others wait for that, nobody waits for long.

It is done under a lock of its own. The daemon runs detached, inherits nothing but the end of a pipe, and says through
that when it is ready or why it is not. A failure is remembered, so that the commands that follow lose no time.
Standard library alone.
"""

import os

from taskstore_core.errors import TaskStoreError
from taskstore_core.files import create_folder, share_like_folder
from taskstore_core.presence import FAILED, LOG, is_held, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskstore_core.paths import Paths

LOCK = "daemon.start"
AGAIN_S = 30.0
"""How long a failure is believed."""
IDLE_S = 3600
"""After so long without anybody connected, a daemon that nobody started by hand leaves."""
READY_S = 10.0
"""How long a daemon may take to be ready; measured: 0.4 s."""
_TURN_S = 5.0
_LISTEN_S = 0.25
_PAUSE_S = 0.005
_PAUSES_S = 0.05  # at the most: fifty who look all the time would keep the daemon from its processor
_ATTEMPTS = 2


class StartError(TaskStoreError):
    """The daemon did not start."""

    kind = "no_daemon"


def command(paths: "Paths", *options: str) -> list[str]:
    """The command line of a daemon. `-P`: nothing in the folder that somebody stands in is imported."""
    import sys

    return [sys.executable, "-P", "-m", "taskstore_daemon", "--store", paths.directory, *options]


def start(paths: "Paths") -> bool:
    """Have a daemon run, for a command that can do without: whether there is one now, and to be reached."""
    if last_failure(paths) is not None:
        return False
    try:
        run(paths, (f"--idle-s={IDLE_S}",), patience_s=_TURN_S, again=False)
    except (StartError, OSError):
        return False
    return True


def last_failure(paths: "Paths") -> str | None:
    """Why the last start failed, if that is not long ago."""
    import time

    path = paths.local(FAILED)
    try:
        if abs(time.time() - os.stat(path).st_mtime) > AGAIN_S:
            return None
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def run(paths: "Paths", options: "Sequence[str]" = (), *, patience_s: float = READY_S, again: bool = True) -> bool:
    """Have a daemon run; whether this call started it.

    Waits for others that start one for `patience_s`, and unless `again` believes a failure of theirs. Raises
    StartError with the reason, OSError where the private folder cannot be written.
    """
    fd = _lock(paths, patience_s)
    try:
        if not again and (reason := last_failure(paths)) is not None:
            raise StartError(reason)
        if is_held(paths):
            _await_socket(paths)
            return False
        _start(paths, options)
    finally:
        os.close(fd)
    return True


def _lock(paths: "Paths", patience_s: float) -> int:
    """The start lock's descriptor; the kernel lets go of it when its process dies, and no child inherits it."""
    import fcntl
    import time

    create_folder(paths.private)
    path = paths.local(LOCK)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        share_like_folder(fd, path)
        deadline, pause = time.monotonic() + patience_s, _PAUSE_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StartError("another process is starting it, and has not come to an end") from None
                time.sleep(pause)
                pause = min(2 * pause, _PAUSES_S)
            else:
                return fd
    except BaseException:
        os.close(fd)
        raise


def _await_socket(paths: "Paths") -> None:
    """Give a daemon that somebody else just started a moment to listen."""
    import time

    deadline = time.monotonic() + _LISTEN_S
    while not sockets(paths, os.environ) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)


def _start(paths: "Paths", options: "Sequence[str]") -> None:
    """Start one, and remember it if that fails; one that ends without a word (it was killed) gets a second try."""
    for _ in range(_ATTEMPTS):
        said = _spawn(paths, options)
        if said:
            break
    word, _, reason = said.partition(" ")
    if word == "ready":
        _forget(paths)
    elif word == "running":
        _await_socket(paths)
    else:
        reason = reason or "it ended without a word"
        _remember(paths, reason)
        raise StartError(f"the daemon does not start: {reason}", hint="taskstore daemon logs tells more")


def _spawn(paths: "Paths", options: "Sequence[str]") -> str:
    """Start a daemon; what it says: "ready", "running" (another one), "failed …", or "" if it ended without a word."""
    import subprocess

    ours, theirs = os.pipe()
    try:
        log = os.open(paths.local(LOG), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            process = subprocess.Popen(command(paths, "--detach", f"--ready-fd={theirs}", *options),
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs])
        finally:
            os.close(log)
            os.close(theirs)
        said = _listen(ours)
        if said.startswith("failed"):
            process.kill()  # it has gone into the background long ago, or hangs on its way there
        process.wait()
    finally:
        os.close(ours)
    return said


def _listen(pipe: int) -> str:
    """The last line that comes through the pipe in time; a daemon that says nothing more is ended."""
    import select
    import time

    deadline = time.monotonic() + READY_S
    text = b""
    pid = 0
    while True:
        line, newline, rest = text.partition(b"\n")
        if line.startswith(b"pid ") and newline:
            pid, text = int(line[4:]), rest
        elif newline:
            return line.decode(errors="replace")
        elif not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if pid:  # it holds the pipe's other end, so it lives and this is its number
                os.kill(pid, 9)
            return f"failed it was not ready after {READY_S:g} s"
        elif data := os.read(pipe, 4096):
            text += data
        else:
            return ""


def _remember(paths: "Paths", reason: str) -> None:
    path = paths.local(FAILED)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8", errors="replace") as file:
            share_like_folder(fd, path)
            file.write(reason)
            file.flush()
            os.utime(fd)
    except OSError:
        return


def _forget(paths: "Paths") -> None:
    try:
        os.unlink(paths.local(FAILED))
    except OSError:
        return
