"""`daemon run|start|stop|status|logs`: the store's daemon as a process."""

import os
import sys

from taskstore.remote import LostError, knock, reach
from taskstore.starting import AGAIN_S, READY_S, command, last_failure, run
from taskstore_core import layout, rpc
from taskstore_core.errors import InvalidError, ReadOnlyError, TaskStoreError, UnsupportedVersionError
from taskstore_core.paths import Paths, discover, named
from taskstore_core.plain import to_json
from taskstore_core.presence import LOG, Holder, holder, is_held, sockets
from taskstore_core.sockets import socket_path

from .arguments import Arguments, directory_of
from .text import visible, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LEAVE_S = 10.0
"""How long a daemon may take to finish what is in flight; it gives connections five seconds."""
_LOOK_S = 0.05
_ACCEPTS = 0x10000  # __SO_ACCEPTCON of the kernel's include/linux/net.h
_OPTIONS = {"idle_s": ("run", "start"), "log_level": ("run", "start"), "follow": ("logs",)}
_LEVELS = ("debug", "info", "warning", "error")


def daemon(arguments: Arguments) -> int:
    """Carry out the action."""
    action = arguments.text("ACTION")
    for name, fitting in _OPTIONS.items():
        if action not in fitting and arguments.option(name) not in {None, "False"}:
            raise InvalidError(f"daemon {action} takes no --{name.replace('_', '-')}",
                               hint=f"it goes with: {', '.join(fitting)}", field=name)
    return {"run": _run, "start": _start, "stop": _stop, "status": _status, "logs": _logs}[action](arguments)


def paths_of(arguments: Arguments, *, must_exist: bool) -> Paths:
    """The store that is meant; raises NoStoreError, UnsupportedVersionError.

    Its daemon can be stopped, and its units removed, also when it is not there any more.
    """
    directory = directory_of(arguments)
    paths = named(directory) if directory is not None else discover(os.curdir)
    if must_exist:
        layout.read_version(paths)
    return paths


def _options(arguments: Arguments) -> list[str]:
    level = arguments.option("log_level")
    if level is not None and level not in _LEVELS:
        raise InvalidError(f"--log-level: one of {', '.join(_LEVELS)}, not {level!r}", field="log_level")
    seconds = arguments.number("idle_s")
    return [*([] if seconds is None else [f"--idle-s={seconds}"]), *([] if level is None else [f"--log-level={level}"])]


def _run(arguments: Arguments) -> int:
    words = command(paths_of(arguments, must_exist=True), *_options(arguments))
    sys.stdout.flush()
    os.execv(words[0], words)  # noqa: S606 - the interpreter that runs us


def _start(arguments: Arguments) -> int:
    paths, options = paths_of(arguments, must_exist=True), _options(arguments)
    started = run(paths, options)
    report = _look_until_there(paths)
    if arguments.json:
        write_json(to_json(report))
    elif report["problem"] is None:
        sys.stdout.write(f"{'started' if started else 'runs already'}: process {report['pid']}\n")
    else:
        sys.stderr.write(visible(f"taskstore: {report['problem']}") + "\n")
    return 0 if report["problem"] is None else 1


def _look_until_there(paths: Paths) -> "dict[str, Any]":
    """What the daemon says of itself, as soon as it does: one that systemd starts may still be on its way."""
    import time

    deadline = time.monotonic() + READY_S
    while True:
        report = _look(paths)
        if report["running"] or time.monotonic() > deadline:
            return report
        time.sleep(_LOOK_S)


# Status

def _status(arguments: Arguments) -> int:
    paths = paths_of(arguments, must_exist=False)
    report = _look(paths)
    if arguments.json:
        write_json(to_json(report))
    elif report["problem"] is None:
        sys.stdout.writelines(f"{visible(line)}\n" for line in _told(report))
    else:
        sys.stdout.write(visible(str(report["problem"])) + "\n")
    return 0 if report["problem"] is None else 1


def _look(paths: Paths) -> "dict[str, Any]":
    """What the daemon says of itself, with `problem` None; or who it is and why it says nothing."""
    report: dict[str, Any] = {"running": False, "pid": None, "socket": _socket(paths), "version": None,
                              "uptime_s": None, "store": paths.directory}
    if not is_held(paths):
        return {**report, "problem": _absence(paths)}
    found = holder(paths)
    if found is not None:
        report["pid"] = found.pid
        found.close()
    who = "a daemon" if found is None else f"a daemon (process {found.pid})"
    try:
        remote = reach(paths)
        if remote is not None:
            return {**report, **remote.call("daemon.status", {}), "problem": None}
        problem = f"{who} holds this store, but does not answer; taskstore daemon stop ends it"
    except LostError:
        problem = f"{who} holds this store, but is leaving"
    except UnsupportedVersionError as error:
        problem = (f"{who} of another release runs: {error.message}; the files are used directly."
                   " taskstore daemon stop ends it")
    return {**report, "running": True, "problem": problem}


def _socket(paths: Paths) -> str | None:
    found = sockets(paths, os.environ)
    try:
        return found[0] if found else socket_path(paths.directory, os.environ)
    except ReadOnlyError:
        return None


def _absence(paths: Paths) -> str:
    if any(_is_listening(path) for path in sockets(paths, os.environ)):
        return "no daemon runs for this store; systemd starts one with the next command"
    reason = last_failure(paths)
    failed = f"; a start failed less than {AGAIN_S:g} s ago: {reason}" if reason else ""
    return f"no daemon runs for this store{failed}"


def _is_listening(path: str) -> bool:
    """Whether somebody listens at a socket, without connecting: systemd would start a daemon for that."""
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.rstrip("\n").split(maxsplit=7) for line in file]
    except OSError:
        return False
    return any(len(row) > 7 and row[7] == path and int(row[3], 16) & _ACCEPTS for row in rows[1:])  # noqa: PLR2004


def _told(report: "dict[str, Any]") -> "Iterator[str]":
    yield f"running as process {report['pid']} for {_duration(report['uptime_s'])}, taskstore {report['version']}"
    yield f"store: {report['store']}"
    yield f"socket: {report['socket']}"
    yield (f"connections: {report['connections']}, subscribers: {report['subscribers']},"
           f" requests so far: {report['requests']}")
    waiting = f"{report['writes_waiting']} writes wait, the oldest for {report['oldest_write_ms']:.0f} ms"
    yield f"behind: {waiting if report['writes_waiting'] else 'nothing'}"
    if report["change_lag_ms"]:
        yield f"last change of a file: read {report['change_lag_ms']:.0f} ms after it was made"
    if report["read_only"]:
        yield f"read-only: {report['read_only']}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# Stopping

def _stop(arguments: Arguments) -> int:
    pid = stop(paths_of(arguments, must_exist=False))
    if arguments.json:
        write_json(to_json({"stopped": pid is not None, "pid": pid or None}))
    elif pid is None:
        sys.stdout.write("no daemon runs for this store\n")
    else:
        sys.stdout.write(f"stopped{f': it was process {pid}' if pid else ''}\n")
    return 0


def stop(paths: Paths) -> int | None:
    """Have the daemon leave: its pid, 0 if that cannot be seen from here, None if there was none.

    Raises TaskStoreError for one that does not.
    """
    if not is_held(paths):
        return None
    found = holder(paths)
    if found is None:
        if not _ask_to_leave(paths) or not _is_free(paths):
            raise TaskStoreError("the daemon of this store is a process that cannot be seen from here, and does not"
                                 " leave", hint="stop it where it was started")
        return 0
    try:
        if not _ask_to_leave(paths) or not found.has_ended(_LEAVE_S):
            _end(found)
    finally:
        found.close()
    return found.pid


def _ask_to_leave(paths: Paths) -> bool:
    """Ask for a shutdown, whatever protocol is spoken; whether it will."""
    sock = knock(sockets(paths, os.environ))
    if sock is None:
        return False
    with sock:
        try:
            sock.sendall(rpc.request(1, "daemon.shutdown", {}))
            answer = sock.recv(1 << 16)
        except OSError:  # it took longer than a greeting may
            return False
    return not answer or b'"result"' in answer


def _is_free(paths: Paths) -> bool:
    import time

    deadline = time.monotonic() + _LEAVE_S
    while is_held(paths):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def _end(found: Holder) -> None:
    import signal

    found.signal(signal.SIGTERM, signal.SIGCONT)
    if not found.has_ended(_LEAVE_S):
        raise TaskStoreError(f"process {found.pid} does not leave", hint=f"kill -9 {found.pid}: nothing that was"
                                                                         " acknowledged is lost")


# Its log

def _logs(arguments: Arguments) -> int:
    paths = paths_of(arguments, must_exist=False)
    path = paths.local(LOG)
    if not os.path.exists(path) and not arguments.flag("follow"):
        raise _no_log(path)
    for line in _lines(path, follow=arguments.flag("follow")):
        write_json(line) if arguments.json else sys.stdout.write(_readable(line) + "\n")
        if arguments.flag("follow"):
            sys.stdout.flush()
    return 0


def _no_log(path: str) -> TaskStoreError:
    from taskstore_core.errors import NotFoundError

    return NotFoundError(f"there is no {path}: no daemon has served this store")


def _lines(path: str, *, follow: bool) -> "Iterator[str]":
    """The lines of the log; with `follow` also those to come, of a new file as well."""
    import time

    rest = b""
    file = None
    try:
        while True:
            if file is None and os.path.exists(path):
                file = open(path, "rb")  # noqa: SIM115 - closed below
            *lines, rest = (rest + (file.read() if file is not None else b"")).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            if not follow:
                if rest:
                    yield rest.decode(errors="replace")
                return
            if file is not None and not _is_at(file.fileno(), path):
                file.close()
                file = None
            elif not lines:
                time.sleep(_LOOK_S)
    finally:
        if file is not None:
            file.close()


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def _readable(line: str) -> str:
    """A line for people: time, level and message; what is no JSON as it is."""
    import json

    try:
        fields = json.loads(line)
        text = f"{fields['time']} {fields['level']:<7} {fields['message']}"
        traceback = fields.get("traceback", "")
    except (ValueError, TypeError, KeyError):
        return visible(line)
    return "\n".join([visible(text), *(f"    {visible(each)}" for each in str(traceback).splitlines())])
