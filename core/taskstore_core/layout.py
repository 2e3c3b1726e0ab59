"""The store's own files in the work tree: creating them, and the version of their format."""

import os

from .errors import NoStoreError, UnsupportedVersionError
from .files import create_file, create_folder
from .kinds import LOGS
from .paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = 1
_DIGITS = 9
MIGRATIONS: "dict[int, Callable[[Paths], None]]" = {}
"""Format version → what turns a store of it into one of the next. Under the lock, before anything else is read."""

IGNORED = ("store.db", "store.db-*", "repo_state.jsonl", ".local/", ".new-*")


def create(paths: Paths) -> list[str]:
    """Make whatever of a store is missing; the names of the files made. What is there stays as it is.

    Raises OSError where the folder cannot be written.
    """
    create_folder(paths.directory)
    made = []
    ignored = "".join(f"{pattern}\n" for pattern in IGNORED).encode()
    for name, content in ((".gitignore", ignored), *((log, b"") for log in LOGS), (".version", b"%d\n" % FORMAT)):
        if create_file(paths.file(name), content):
            made.append(name)
    return made


def missing_ignored(paths: Paths) -> list[str]:
    """The patterns that the store's .gitignore lacks."""
    try:
        with open(paths.file(".gitignore"), "rb") as file:
            there = file.read().split(b"\n")
    except OSError:
        return list(IGNORED)
    return [pattern for pattern in IGNORED if pattern.encode() not in (line.strip() for line in there)]


def complete_ignored(paths: Paths) -> None:
    """Append the patterns that the store's .gitignore lacks. Needs the lock."""
    with open(paths.file(".gitignore"), "ab+") as file:
        file.seek(0)
        content = file.read()
        begin = b"\n" if content and not content.endswith(b"\n") else b""
        file.write(begin + b"".join(f"{pattern}\n".encode() for pattern in missing_ignored(paths)))


def read_version(paths: Paths) -> int:
    """The format version of a store.

    Raises NoStoreError where there is none, UnsupportedVersionError for a newer one or one that makes no sense.
    """
    path = paths.file(".version")
    try:
        with open(path, "rb") as file:
            content = file.read(4096)
    except FileNotFoundError:
        raise _absence(paths) from None
    except OSError as error:
        raise NoStoreError(f"cannot read {path}: {error.strerror}") from None
    digits = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    end = next((n for n in range(len(digits)) if not digits[n:n + 1].isdigit()), len(digits))
    if not 0 < end <= _DIGITS:
        raise UnsupportedVersionError(f"{path} does not begin with a number",
                                      hint=f"restore it from git, or write {FORMAT} into it")
    version = int(digits[:end])
    if version > FORMAT:
        raise UnsupportedVersionError(f"{paths.directory} has format {version}, this release knows up to {FORMAT}",
                                      hint="install a newer taskstore; nothing was touched")
    return version


def is_elsewhere(paths: Paths) -> bool:
    """Whether a store that is not there was, and is sure to be on another branch: this machine has its outbox."""
    return (paths.git_dir is not None and not os.path.exists(paths.file(".version"))
            and os.path.exists(paths.local("outbox")))


def refuse_kept_out(paths: Paths) -> None:
    """Raise NoStoreError where a sparse checkout keeps the store out of the worktree: none may be made there."""
    from .git import is_kept_out

    if paths.git_dir is not None and is_kept_out(paths.file(".version"), paths.git_dir):
        raise NoStoreError(f"a sparse checkout keeps {paths.directory} out of the worktree",
                           hint=f"git sparse-checkout add {os.path.basename(paths.directory)}")


def _absence(paths: Paths) -> NoStoreError:
    """What whoever looked for a store in vain is told."""
    refuse_kept_out(paths)
    if paths.git_dir is not None and is_elsewhere(paths):
        from .git import head

        there = head(paths.git_dir)
        return NoStoreError(f"there is no store in {paths.directory}: {there.branch or there.commit}, which is checked"
                            " out there, has none",
                            hint="check out the branch that has it, and all is as it was; taskstore init"
                            " makes a store on this one")
    return NoStoreError(f"there is no store in {paths.directory}",
                        hint="taskstore init makes one, --store DIR names another")


def migrate(paths: Paths, version: int) -> None:
    """Bring a store of an older format up to date, one step at a time. Needs the lock."""
    while version < FORMAT:
        step = MIGRATIONS.get(version)
        if step is None:
            raise UnsupportedVersionError(f"{paths.directory} has format {version}, which this release cannot bring"
                                          f" up to {FORMAT}", hint="nothing was touched")
        step(paths)
        version += 1
        temporary = paths.file(".new-version")
        with open(temporary, "wb") as file:
            file.write(b"%d\n" % version)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, paths.file(".version"))
