"""The socket: made by us with nobody else allowed in, or handed to us by systemd."""

import contextlib
import os
import socket
import stat
from collections.abc import MutableMapping

import trio

from taskstore_core.errors import ReadOnlyError
from taskstore_core.sockets import make_private

_BACKLOG = 256
_FIRST_FD = 3


def inherited(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The listening socket that systemd hands over (sd_listen_fds(3)); the variables are taken away."""
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if not count.isdigit() or int(count) < 1 or pid != str(os.getpid()):
        return None
    for extra in range(_FIRST_FD + 1, _FIRST_FD + int(count)):
        os.close(extra)
    os.set_inheritable(_FIRST_FD, False)
    sock = socket.socket(fileno=_FIRST_FD)
    if sock.family != socket.AF_UNIX or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ReadOnlyError("what systemd handed over is no listening Unix socket", hint="taskstore service install")
    return sock


def is_listening(path: str) -> bool:
    """Whether anybody listens at `path`: a daemon, or systemd for one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            return True  # and has many waiting
        except OSError:
            return False
    return True


def listen(path: str) -> socket.socket:
    """A socket that listens at `path`, in place of a dead one. Whoever calls holds the daemon's lock.

    Raises ReadOnlyError for a folder that others may enter, OSError where none can be made.
    """
    make_private(os.path.dirname(path))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a daemon that was killed: ours is the lock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def identity(path: str) -> tuple[int, int] | None:
    """What tells our socket in the file system from another one at its path."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def as_trio(sock: socket.socket) -> trio.socket.SocketType:
    """The same socket, for trio."""
    return trio.socket.from_stdlib_socket(sock)
