"""Creating files and folders so that they survive a crash and stay shared with whom the repository is shared."""

import os

from . import signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .signature import Signature


def share_like_folder(fd: int, path: str) -> None:
    """Give a file of ours the permission bits of its folder, but for execute; so a shared repository stays shared."""
    wanted = os.stat(os.path.dirname(path)).st_mode & 0o666 | 0o600  # a folder closed for a while takes nothing away
    status = os.fstat(fd)
    if status.st_mode & 0o666 != wanted and status.st_uid == os.geteuid():
        os.fchmod(fd, wanted)


def create_folder(path: str) -> None:
    """Create `path` and its parents where missing, with the nearest existing parent's mode, and sync the entry."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    create_folder(parent)
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    os.chmod(path, os.stat(parent).st_mode & 0o7777)  # what umask took away, a shared repository needs
    sync_folder(parent)


def create_file(path: str, content: bytes) -> bool:
    """Create `path` with `content`, whole or not at all, and sync it and its entry; False where it exists."""
    import tempfile

    folder = os.path.dirname(path)
    fd, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            share_like_folder(fd, path)
            file.write(content)
            file.flush()
            os.fsync(fd)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        os.unlink(temporary)
    sync_folder(folder)
    return True


def replace_file(path: str, content: bytes, expected: "Signature") -> bool:
    """Put a file with `content` in the place of `path`, whole or not at all, and sync both; False where it changed.

    `expected` is the signature of the file that the content was made from. Mode and owner's rights stay.
    """
    import tempfile

    folder = os.path.dirname(path)
    fd, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, os.stat(path).st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(fd)
        if signature.look(path) != expected:
            os.unlink(temporary)
            return False
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(folder)
    return True


def sync_folder(path: str) -> None:
    """Make the entries of a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes, offset: int | None = None) -> int:
    """Write all of `data`, at the end or at `offset`, going on after short writes; the count of bytes written.

    A disk that fills up gives a short write first and an error only then: the error carries `written`.
    """
    written = 0
    view = memoryview(data)
    while written < len(data):
        try:
            count = os.write(fd, view[written:]) if offset is None else os.pwrite(fd, view[written:], offset + written)
        except OSError as error:
            error.written = written  # type: ignore[attr-defined]
            raise
        written += count
    return written
