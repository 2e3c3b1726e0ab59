"""Putting the daemon together, and its exit status."""

import argparse
import os
import sys
from collections.abc import Sequence

import trio

from taskstore_core import layout
from taskstore_core.errors import TaskStoreError
from taskstore_core.paths import Paths, discover, named
from taskstore_core.sockets import socket_path

from . import lifetime, listener, logs
from .lifetime import Lifetime, RunningError
from .notify import Notifier
from .server import Server


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one store until told to stop: 0 then, and where another daemon does; 3 where the store cannot be used."""
    parser = argparse.ArgumentParser(prog="taskstore daemon run", description="Serve a store in the foreground.")
    parser.add_argument("--store", help="the store's folder; else that of the repository", default=None)
    parser.add_argument("--idle-s", type=float, help="leave when nobody was connected for so many seconds")
    parser.add_argument("--ready-fd", type=int, help="write a line to this descriptor once connections are taken")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--no-inotify", action="store_true", help="look at the files now and then instead")
    arguments = parser.parse_args(argv)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]  # set by whichever hook or command of git started us, and about its work, not ours
    logs.set_up(arguments.log_level)
    notifier = Notifier(os.environ)  # type: ignore[arg-type]  # a mapping that can be popped from
    try:
        paths = named(arguments.store) if arguments.store else discover(os.curdir)
        layout.read_version(paths)
        return trio.run(_serve, paths, arguments, notifier)
    except RunningError:
        sys.stderr.write("taskstore: a daemon serves this store already\n")
        return 0
    except TaskStoreError as error:
        sys.stderr.write(f"taskstore: {error.message}{'; ' if error.hint else ''}{error.hint}\n")
        return error.exit_status


async def _serve(paths: Paths, arguments: argparse.Namespace, notifier: Notifier) -> int:
    handed = listener.inherited(os.environ)  # type: ignore[arg-type]  # a mapping that can be popped from
    life = Lifetime(paths)
    try:
        path = str(handed.getsockname()) if handed is not None else socket_path(paths.directory, os.environ)
        server = Server(paths, path, use_inotify=not arguments.no_inotify)
        sock = listener.as_trio(handed if handed is not None else listener.listen(path))
        async with trio.open_nursery() as nursery:
            await nursery.start(lifetime.heed_signals, server)
            await nursery.start(server.run, sock)
            life.note(server)
            _tell_ready(arguments.ready_fd, notifier)
            nursery.start_soon(lifetime.keep_alive, notifier)
            nursery.start_soon(_watch_over, server, life, arguments.idle_s, handed is None)
            await server.stopped.wait()
            nursery.cancel_scope.cancel()
        if handed is None:
            _unlink(path)
    finally:
        notifier.say("STOPPING=1")
        life.close()
    return 0


async def _watch_over(server: Server, life: Lifetime, idle_s: float | None, own_socket: bool) -> None:
    await lifetime.watch_over(server, life, idle_s=idle_s, own_socket=own_socket)


def _tell_ready(descriptor: int | None, notifier: Notifier) -> None:
    notifier.say("READY=1")
    if descriptor is not None:
        try:
            os.write(descriptor, b"ready\n")
        except OSError:
            return  # whoever started us did not wait
        finally:
            os.close(descriptor)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
