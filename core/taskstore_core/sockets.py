"""Where a store's daemon listens: one function for both ends, so that they cannot disagree.

A socket's path may have 107 bytes, so it is a hash of the store's real path, in a folder that only this user can
enter: the session's runtime folder, or one of our own under the temporary one.
"""

import os
import stat

from .errors import ReadOnlyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    class HasOptions(Protocol):
        """A socket, of whichever library."""

        def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
            """The value of an option."""

_MAX = 107


def socket_path(directory: str, environ: "Mapping[str, str]") -> str:
    """The socket of the store in `directory`, a real path; `environ` tells the runtime folder."""
    import xxhash  # not hashlib, which takes longer to import than a whole command may

    name = xxhash.xxh3_128_hexdigest(os.fsencode(directory)) + ".sock"
    for folder in _folders(environ):
        path = f"{folder}/{name}"
        if len(os.fsencode(path)) <= _MAX:
            return path
    raise ReadOnlyError("no folder for a socket has a path that is short enough", hint="set XDG_RUNTIME_DIR or TMPDIR")


def _folders(environ: "Mapping[str, str]") -> list[str]:
    own = f"taskstore-{os.geteuid()}"
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"  # a cron job's, too: it is not told
    folders = [f"{runtime}/taskstore"] if runtime.startswith("/") and os.path.isdir(runtime) else []
    temporary = environ.get("TMPDIR", "")
    return [*folders, *([f"{temporary}/{own}"] if temporary.startswith("/") else []), f"/tmp/{own}"]  # noqa: S108 - made 0700 and checked


def is_private(folder: str) -> bool:
    """Whether a folder is ours and nobody else may enter it; a symbolic link is not."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def make_private(folder: str) -> None:
    """Make the folder for sockets; raises ReadOnlyError where there is one that others could put theirs into."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ReadOnlyError(f"cannot make {folder}: {error.strerror}") from None
    if not is_private(folder):
        raise ReadOnlyError(f"{folder} is not a folder of this user's alone", hint=f"rm -r {folder}, or chmod 700 it")


def peer_uid(sock: "HasOptions") -> int:
    """The user at the other end of a Unix socket, as the kernel saw it connect."""
    import socket
    import struct

    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[1])
