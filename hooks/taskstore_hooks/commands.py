"""The commands that touch git: `init`, `install-hooks`, `uninstall-hooks`, `sync --hook` and `check`.

What they do to the store itself is the client's; each command imports what it needs, as git waits for `sync --hook`.
"""

import os
import sys

from taskstore.cli.arguments import Arguments, directory_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from taskstore_core.paths import Paths

    from .install import Report
    from .place import Place, Programs


def sync(arguments: Arguments) -> int:
    """Bring the cache level; for a hook within a second and without ever failing."""
    hook = arguments.option("hook")
    if hook is not None:
        from .entry import run

        directory = arguments.option("store") or os.environ.get("TASKSTORE_DIR") or None
        os._exit(run(hook, directory))  # nothing is to be cleaned up, and the interpreter would take 4 ms for it
    from taskstore.cli import upkeep

    return upkeep.sync(arguments)


def init(arguments: Arguments) -> int:
    """Make a store, and inside git what ties it to git."""
    from taskstore.cli import upkeep
    from taskstore.cli.text import visible, write_json
    from taskstore_core.plain import to_json

    if directory_of(arguments) is None:
        from .place import settle_home

        settle_home(os.curdir)
    paths = _paths(arguments)
    place = None if arguments.flag("no_hooks") or paths.worktree is None else _place(paths)  # before anything is made
    made = upkeep.make(arguments)
    report = _install(place) if place is not None else None
    if arguments.json:
        git = None if report is None else report.plain()
        write_json(to_json({"store": paths.directory, "created": made, "git": git}))
        return 0
    store = visible(paths.directory)
    sys.stdout.write(f"made a store in {store}\n" if made else f"there is a store in {store} already\n")
    if report is not None:
        _tell(report, "installed", "")
    return 0


def install_hooks(arguments: Arguments) -> int:
    """Install what is missing."""
    return _report(arguments, _install(_place(_paths(arguments))), "installed", "everything is installed already")


def uninstall_hooks(arguments: Arguments) -> int:
    """Take out what is there."""
    from .install import uninstall

    return _report(arguments, uninstall(_place(_paths(arguments))), "taken out", "nothing is installed")


def check(arguments: Arguments) -> int:
    """Say what is wrong, in the store and in the clone that holds it."""
    from taskstore.cli.check import look, report
    from taskstore_core.errors import InvalidError

    from .diagnosis import check as check_clone

    fix, ci = arguments.flag("fix"), arguments.flag("ci")
    if fix and ci:
        raise InvalidError("--fix and --ci exclude each other", hint="mend it in a clone")
    paths, problems = look(arguments)
    return report(arguments, [*problems, *check_clone(paths, _programs(), fix=fix, ci=ci)])


def _paths(arguments: Arguments) -> "Paths":
    from taskstore_core.paths import discover, named

    directory = directory_of(arguments)
    return named(directory) if directory is not None else discover(os.curdir)


def _programs() -> "Programs":
    from .place import Programs

    return Programs(sys.argv[0], sys.executable)


def _place(paths: "Paths") -> "Place":
    from .place import Place

    return Place(paths, os.curdir, _programs())


def _install(place: "Place") -> "Report":
    from .install import install

    return install(place)


def _report(arguments: Arguments, report: "Report", done: str, nothing: str) -> int:
    from taskstore.cli.text import write_json
    from taskstore_core.plain import to_json

    if arguments.json:
        write_json(to_json(report.plain()))
    else:
        _tell(report, done, nothing)
    return 0


def _tell(report: "Report", done: str, nothing: str) -> None:
    from taskstore.cli.text import visible

    words = [f"{word} (after a rebase: git has no post-rebase)" if word == "post-rewrite" else word
             for word in report.changed]
    if words:
        sys.stdout.write(f"{done}: {', '.join(words)}\n")
        sys.stdout.writelines(f"git looks for hooks in {visible(folder)}\n" for folder in report.folders)
    elif nothing:
        sys.stdout.write(f"{nothing}\n")
    for path, reason in report.left:
        sys.stderr.write(visible(f"taskstore: left alone: {path}: {reason}") + "\n")
