"""`sync --hook NAME`: what git's hooks run. It brings the cache level, and never fails, delays or follows git.

A child does the work, with no descriptor of whoever ran git, and the parent waits for it no longer than a second: a
held lock, a stopped daemon or a hanging disk keep nobody. What was not done is done by the next command that reads.
The parent imports nothing for it, and touches no file.
"""

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from taskstore_core.paths import Paths

BOUND_S = 0.8
"""From here on; the rest of the second is for the interpreter to start and end."""
GREETING_S = 0.3
"""How long a daemon may take to greet before the files are used."""
_MAX_LINE = 500
_KILL = 9  # importing `signal` takes 8 ms


def run(name: str, directory: str | None) -> int:
    """Bring the store level that the hook `name` finds, or the one in `directory`; always 0."""
    deadline = time.monotonic() + BOUND_S
    try:
        ours, theirs = os.pipe()
        pid = os.fork()
    except OSError:
        return 0
    if not pid:
        _be_child(theirs, directory)
    os.close(theirs)
    said = _listen(ours, deadline)
    if said is None:
        os.kill(pid, _KILL)
        said = "not in sync within a second: the next command does it"
    else:
        os.waitpid(pid, 0)
    if said:
        _say(f"taskstore: {name}: {said}")
    return 0


def _listen(pipe: int, deadline: float) -> str | None:
    """What comes through the pipe until its other end is closed; None if that is not in time."""
    said = b""
    while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data = os.read(pipe, 4096)
        if not data:
            return said.decode(errors="replace")
        said += data
    return None


def _say(line: str) -> None:
    """One line on standard error, if it can be written at once."""
    from taskstore.cli.text import visible

    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, visible(line)[:_MAX_LINE].encode(errors="replace") + b"\n")
    except (OSError, ValueError):
        return


def _be_child(pipe: int, directory: str | None) -> "NoReturn":
    """Do the work and end; what went wrong goes through the pipe."""
    try:
        _let_go(pipe)
        os.write(pipe, _outcome(directory).replace("\n", " ").encode(errors="replace")[:_MAX_LINE])
    finally:
        os._exit(0)


def _outcome(directory: str | None) -> str:
    """Bring the store level; what went wrong."""
    try:
        _level(directory)
    except OSError as error:
        return f"{error.filename or 'the store'}: {error.strerror or error}"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is no reason for git to stop
        return getattr(error, "message", None) or f"{type(error).__name__}: {error}"
    return ""


def _let_go(keep: int) -> None:
    """Keep none of the descriptors we were given."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for word in os.listdir("/proc/self/fd"):
        if (number := int(word)) > 2 and number != keep:  # noqa: PLR2004 - the standard streams
            try:
                os.close(number)
            except OSError:
                continue  # that of the listing itself


def _level(directory: str | None) -> None:
    """Bring the cache level: by a look if it is so already, by the daemon if there is one, else here."""
    from taskstore_core.errors import NoStoreError
    from taskstore_core.paths import discover, named
    from taskstore_core.store import Store

    try:
        store = Store(named(directory) if directory else discover(os.curdir))
    except NoStoreError:
        return  # none on this branch, or none at all: no hook makes one
    with store:
        if not store.is_level() and not _nudge(store.paths):
            store.sync()


def _nudge(paths: "Paths") -> bool:
    """Have the daemon bring it level; whether it did."""
    from taskstore_core.errors import TaskStoreError
    from taskstore_core.presence import sockets

    found = sockets(paths, os.environ)
    if not found:
        return False
    from taskstore.remote import LostError, greet, knock

    sock = knock(found, GREETING_S)
    remote = None
    try:
        remote = greet(sock, paths.directory, GREETING_S) if sock is not None else None
        if remote is not None:
            remote.call("store.sync", {})
    except (LostError, TaskStoreError):
        return False
    finally:
        if remote is not None:
            remote.close()
    return remote is not None
