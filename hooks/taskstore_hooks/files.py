"""Files that are not ours: read whole, and replaced whole, with the mode and the owner they have.

A symbolic link stays one: what it leads to is replaced. Whoever keeps hooks elsewhere goes on editing them there, and
an own copy in the link's place would be cut off from that.
"""

import os
import stat
import tempfile


def read(path: str) -> bytes | None:
    """The content of a file; None where there is none. Raises OSError, also for what is no regular file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "it is no regular file", path)
        return file.read()


def replace(path: str, content: bytes, *, executable: bool = False) -> None:
    """Give a file another content, at once and durably; raises OSError. A new one takes its mode from its folder."""
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    fd, temporary = tempfile.mkstemp(prefix=".taskstore-", dir=folder)
    try:
        with open(fd, "wb") as file:
            _make_alike(fd, path, executable=executable)
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _make_alike(fd: int, path: str, *, executable: bool) -> None:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        os.fchmod(fd, os.stat(os.path.dirname(path)).st_mode & (0o777 if executable else 0o666))
        return
    ours = os.fstat(fd)
    if (there.st_uid, there.st_gid) != (ours.st_uid, ours.st_gid):
        os.fchown(fd, there.st_uid, there.st_gid)
    os.fchmod(fd, stat.S_IMODE(there.st_mode))


def remove_folder(path: str) -> None:
    """Remove a folder if nothing is in it."""
    try:
        os.rmdir(path)
    except OSError:
        return
