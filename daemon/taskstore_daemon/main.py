"""Putting the daemon together, and its exit status."""

import argparse
import faulthandler
import gc
import logging
import os
import socket
import sys
from collections.abc import Sequence

import trio

from taskstore_core import layout
from taskstore_core.errors import TaskStoreError
from taskstore_core.paths import STORE, Paths, discover, named
from taskstore_core.presence import LOG
from taskstore_core.sockets import socket_path

from . import lifetime, listener, logs, memory, surroundings
from .lifetime import Lifetime, RunningError
from .notify import Notifier, Starter
from .release import release
from .server import Server

log = logging.getLogger(__name__)

_UNUSABLE = 3
_GC = (20_000, 20, 20)
"""Objects between two looks for cycles: of those there are few, and a look takes as long as some requests."""
_PATIENCE_S = 0.3
"""For the lock: whoever looks whether it is held keeps it for a moment."""
_TAKE_OVER_S = 5.0
"""For the lock, when systemd took the socket from a daemon that was started by hand: it leaves when it notices."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one store until told to stop: 0 then, and where another daemon does; 3 where the store cannot be used."""
    arguments = _parse(argv)
    faulthandler.enable()  # what a watchdog ends says where it hung
    surroundings.scrub()
    memory.keep_one_heap()
    starter, notifier = Starter(arguments.ready_fd), Notifier(os.environ)
    if arguments.detach:
        starter.say(f"pid {os.getpid()}")
    try:
        _run(arguments, starter, notifier)
    except RunningError:
        starter.say_last("running")
        sys.stderr.write("taskstore: a daemon serves this store already\n")
    except TaskStoreError as error:
        return _fail(starter, f"{error.message}{'; ' if error.hint else ''}{error.hint}")
    except OSError as error:
        return _fail(starter, f"{error.filename or 'the daemon'}: {error.strerror}")
    except Exception as error:
        log.exception("the daemon failed", extra=logs.fields("error"))
        return _fail(starter, f"{type(error).__name__}: {error}")
    return 0


def _fail(starter: Starter, reason: str) -> int:
    starter.say_last(f"failed {reason}")
    sys.stderr.write(f"taskstore: {reason}\n")
    return _UNUSABLE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="taskstore daemon run", description="Serve a store in the foreground.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--store", help="the store's folder; else that of the repository")
    where.add_argument("--at", help="the folder that holds the store's, or is it")
    parser.add_argument("--idle-s", type=float, help="leave when nobody was connected for so many seconds")
    parser.add_argument("--ready-fd", type=int, help="write a line to this descriptor once connections are taken")
    parser.add_argument("--detach", action="store_true", help="run in the background")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--no-inotify", action="store_true", help="look at the files now and then instead")
    return parser.parse_args(argv)


def _paths(arguments: argparse.Namespace) -> Paths:
    if arguments.at is not None:
        return named(arguments.at if os.path.exists(f"{arguments.at}/.version") else f"{arguments.at}/{STORE}")
    return named(arguments.store) if arguments.store is not None else discover(os.curdir)


def _run(arguments: argparse.Namespace, starter: Starter, notifier: Notifier) -> None:
    paths = _paths(arguments)
    layout.read_version(paths)
    handed = listener.inherited(os.environ)
    path = str(handed.getsockname()) if handed is not None else socket_path(paths.directory, os.environ)
    if handed is None and listener.is_listening(path):  # a daemon; or systemd, from whom it is not to be taken
        raise RunningError
    with Lifetime(paths, patience_s=_PATIENCE_S if handed is None else _TAKE_OVER_S) as life:
        logs.set_up(arguments.log_level, paths.local(LOG), only_there=arguments.detach)
        if arguments.detach:
            os.chdir("/")
        sock = handed if handed is not None else listener.listen(path)
        gc.freeze()  # what is loaded stays
        gc.set_threshold(*_GC)
        life.note(path)
        try:
            trio.run(_serve, Server(paths, path, use_inotify=not arguments.no_inotify), sock, life, arguments, starter,
                     notifier)
        finally:
            notifier.say("STOPPING=1")
            life.forget(unlink=handed is None)


async def _serve(server: Server, sock: socket.socket, life: Lifetime, arguments: argparse.Namespace,  # noqa: PLR0917
                 starter: Starter, notifier: Notifier) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(lifetime.heed_signals, server)
        await nursery.start(server.run, listener.as_trio(sock))
        log.info("taskstore %s serves %s as process %d", release(), server.paths.directory, server.pid,
                 extra=logs.fields("start", version=release(), store=server.paths.directory, pid=server.pid,
                                   socket=server.socket_path))
        notifier.say("READY=1", f"STATUS=Serving {server.paths.directory}")
        starter.say_last("ready")
        nursery.start_soon(lifetime.keep_alive, notifier)
        nursery.start_soon(lifetime.watch_over, server, life, arguments.idle_s)
        await server.stopped.wait()
        nursery.cancel_scope.cancel()
