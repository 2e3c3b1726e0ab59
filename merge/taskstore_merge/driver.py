"""`taskstore-merge %O %A %B [%L [%P]]`: what git runs for a log that both sides of a merge have changed.

Reads base, ours and theirs, and replaces ours by the merged log. Exit status: 0 merged, 1 conflicts (in blocks at the
end of the file), 2 error, and then the file is as it was. It is replaced by rename, so that a driver that is killed at
whichever step leaves it whole, old or new.
"""

import os
import sys

from taskstore_core.kinds import LOGS, Kind

from .merge import Merged, merge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE = ("usage: taskstore-merge BASE OURS THEIRS [MARKER_SIZE [PATH]], which git calls as"
          " taskstore-merge %O %A %B %L %P")
_MERGED, _CONFLICTS, _ERROR = 0, 1, 2
_ARGUMENTS = range(3, 6)
_SIZE_DIGITS = 4


def main(argv: "Sequence[str] | None" = None) -> int:
    """Merge; the exit status. Every error ends here, as one line."""
    arguments = sys.argv[1:] if argv is None else argv
    size = arguments[3] if len(arguments) > _ARGUMENTS.start else "7"
    if len(arguments) not in _ARGUMENTS or not (size.isascii() and size.isdigit()) or len(size) > _SIZE_DIGITS:
        return _fail(_USAGE)
    name = arguments[4] if len(arguments) == _ARGUMENTS.stop - 1 else ""
    try:
        merged = _merge_files(arguments[0], arguments[1], arguments[2], max(1, int(size)), name)
    except OSError as error:
        return _fail(f"{error.filename or arguments[1]}: {error.strerror or error}; nothing was merged")
    except Exception as error:  # noqa: BLE001 - a fault of ours: git keeps the file, and must hear that it is not merged
        return _fail(f"{type(error).__name__}: {error}; nothing was merged")
    if merged.conflicts:
        _say(f"{name or 'the log'}: {len(merged.conflicts)} in conflict ({', '.join(merged.conflicts[:3])}"
             f"{' …' if len(merged.conflicts) > 3 else ''}); taskstore resolve-conflicts settles it")  # noqa: PLR2004 - a few
        return _CONFLICTS
    return _MERGED


def _merge_files(base: str, ours: str, theirs: str, marker_size: int, name: str) -> Merged:
    before = _read(ours)
    parts = _read(base), before, _read(theirs)
    merged = merge(_kind_of(name, parts), *parts, marker_size)
    if merged.data != before:
        _replace(ours, merged.data)
    return merged


def _kind_of(name: str, parts: "Sequence[bytes]") -> Kind:
    """The kind by the name of the log; for another name, or none, one that fits every line with that key."""
    kind = LOGS.get(os.path.basename(name))
    if kind is not None:
        return kind
    keyed_by_path = any(b'"repo_path"' in part[:part.find(b"\n") + 1] for part in parts)
    return LOGS["repo_state.jsonl"] if keyed_by_path else Kind(
        "record", "records", "", "id created_at started_at resolved_at updated_at", title="record")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _replace(path: str, data: bytes) -> None:
    """Put a file with `data` in the place of `path`, with its mode.

    Without a name until it is whole, where the file system can: what is left of a killed driver would lie in the work
    tree, for `git add` to find.
    """
    temporary = f"{path}.new-{os.getpid()}"
    mode = os.stat(path).st_mode & 0o7777
    fd = _open_nameless(os.path.dirname(path) or os.curdir)
    nameless = fd is not None
    if fd is None:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            if nameless:  # only with a folder's descriptor does Python call linkat, which follows the link
                os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, follow_symlinks=True)
        os.rename(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def _open_nameless(folder: str) -> int | None:
    """A file in `folder` that has no name yet; None where there are none such."""
    if not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _fail(message: str) -> int:
    _say(message)
    return _ERROR


def _say(message: str) -> None:
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in message)
    sys.stderr.write(f"taskstore-merge: {shown}\n")
