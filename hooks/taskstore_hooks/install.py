"""Installing what ties a store to git, and taking it out again: both do what is not done yet, and say what that was."""

import os
from functools import partial

from taskstore_core.files import create_folder

from . import blocks, files
from .place import Place
from .scripts import (
    ATTRIBUTES,
    DRIVER,
    DRIVER_TITLE,
    HOOKS,
    SHEBANG,
    NoShellError,
    driver_command,
    entrance,
    hook_body,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECTION = f"merge.{DRIVER}"


class Report:
    """What was changed, as words for people; `left` are files that were left alone, with the reason."""

    def __init__(self, folders: "Sequence[str]" = ()) -> None:
        """`folders` are those that hooks are in."""
        self.folders = folders
        self.changed: list[str] = []
        self.left: list[tuple[str, str]] = []

    def plain(self) -> dict[str, object]:
        """As plain data."""
        left = [{"file": path, "reason": reason} for path, reason in self.left]
        return {"folders": self.folders, "changed": self.changed, "left": left}


def install(place: Place) -> Report:
    """Install whatever is missing; raises GitError, OSError."""
    report = Report(place.hook_folders)
    if not place.hook_folders:
        report.left.append((place.paths.directory, "hooks are for the store at the top of the repository"))
    for name, path in hook_files(place, report):
        _note(report, path, name, partial(_install_hook, place, name, path))
    named = place.git.set(f"{SECTION}.name", DRIVER_TITLE)
    if place.git.set(f"{SECTION}.driver", driver_command(place.programs.driver)) or named:
        report.changed.append("merge driver")
    if _install_attributes(place.attributes):
        report.changed.append("attributes")
    if place.patterns and _install_patterns(place.exclude, place.patterns):
        report.changed.append("ignore patterns")
    return report


def uninstall(place: Place) -> Report:
    """Take out whatever is there; raises GitError, OSError."""
    report = Report(place.hook_folders)
    for name, path in hook_files(place, report):
        for each in (path, f"{path}.legacy"):
            _note(report, each, name, partial(_take_block, each, SHEBANG))
    for folder in place.hook_folders:
        if folder == os.path.normpath(f"{os.path.dirname(place.exclude)}/../hooks"):
            files.remove_folder(folder)  # git's own, and only if it is empty
    if place.git.setting(f"{SECTION}.driver") is not None:
        place.git.drop(SECTION)
        report.changed.append("merge driver")
    _uninstall_attributes(place, report)
    if _take_block(place.exclude, b""):
        report.changed.append("ignore patterns")
        files.remove_folder(os.path.dirname(place.exclude))
    return report


def hook_files(place: Place, report: Report) -> "Iterator[tuple[str, str]]":
    """Name and path of each hook; of several names that lead to one file the first."""
    seen = set()
    for folder in place.hook_folders:
        if os.path.lexists(folder) and not os.path.isdir(folder):
            report.left.append((folder, "core.hooksPath names no folder, so git runs no hooks"))
            continue
        for name in HOOKS:
            path = f"{folder}/{name}"
            if os.path.realpath(path) not in seen:
                seen.add(os.path.realpath(path))
                yield name, path


def _note(report: Report, path: str, name: str, work: "Callable[[], bool]") -> None:
    """Do it, and note what came of it: one hook that cannot be written keeps nobody from the others."""
    try:
        if work():
            report.changed.append(name)
    except (NoShellError, OSError) as error:
        report.left.append((path, getattr(error, "strerror", None) or str(error)))


# Hooks

def _install_hook(place: Place, name: str, path: str) -> bool:
    content = files.read(path)
    new = _with_block(path, content, hook_body(name, place.programs.taskstore, place.programs.interpreter))
    if new == content:
        return False
    create_folder(os.path.dirname(path))
    files.replace(path, new, executable=True)
    return True


def _with_block(path: str, content: bytes | None, body: bytes) -> bytes:
    """What a hook file is to hold; raises NoShellError for one that is left alone."""
    if content is None:
        if os.path.islink(path):
            raise NoShellError("it is a symbolic link that leads nowhere")
        return blocks.put(SHEBANG, body, len(SHEBANG), frozenset({blocks.MADE}))
    if blocks.find(content):
        return blocks.renew(content, body)
    if block_in(f"{path}.legacy"):  # the pre-commit framework has moved it there, and runs it first
        return content
    if not os.access(path, os.X_OK):
        raise NoShellError("it is not executable, so git does not run it")
    return blocks.put(content, body, entrance(content))


def refusal(path: str) -> str | None:
    """Why a hook file is left alone; None for one that takes our lines."""
    try:
        _with_block(path, files.read(path), b"")
    except (NoShellError, OSError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def block_in(path: str) -> bytes | None:
    """The lines of our block in a file; None where it has none."""
    try:
        block = blocks.find(files.read(path) or b"")
    except OSError:
        return None
    return None if block is None else block.body


def _take_block(path: str, made: bytes) -> bool:
    """Take our block out of a file, and the file away if we made it and nothing but `made` is left."""
    content = files.read(path)
    rest, notes = blocks.take(content or b"")
    if content is None or rest == content:
        return False
    if blocks.MADE in notes and rest == made:
        os.unlink(path)
    else:
        files.replace(path, rest)
    return True


# Attributes and patterns

def _install_attributes(path: str) -> bool:
    content = files.read(path)
    if content is not None and any(line.split() == ATTRIBUTES.split() for line in content.split(b"\n")):
        return False
    create_folder(os.path.dirname(path))
    files.replace(path, ATTRIBUTES if content is None else blocks.put(content, ATTRIBUTES, len(content)))
    return True


def _uninstall_attributes(place: Place, report: Report) -> None:
    """Take our line out, unless git has it: then it is the project's, and every other clone's."""
    content = files.read(place.attributes)
    status, tracked, _ = place.git.run("show", f":{place.relative}/.gitattributes")
    if content is None or ATTRIBUTES not in content:
        return
    if not status and ATTRIBUTES in os.fsencode(tracked):
        report.left.append((place.attributes, "git tracks it: other clones need it, too"))
    elif content == ATTRIBUTES:
        os.unlink(place.attributes)
        report.changed.append("attributes")
        files.remove_folder(place.paths.directory)
    elif _take_block(place.attributes, b""):
        report.changed.append("attributes")


def _install_patterns(path: str, patterns: bytes) -> bool:
    content = files.read(path)
    if content is not None and blocks.find(content):
        new = blocks.renew(content, patterns)
    else:
        made = frozenset({blocks.MADE}) if content is None else frozenset()
        new = blocks.put(content or b"", patterns, len(content or b""), made)
    if new == content:
        return False
    create_folder(os.path.dirname(path))
    files.replace(path, new)
    return True
