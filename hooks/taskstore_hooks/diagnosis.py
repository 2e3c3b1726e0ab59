"""What `check` finds in a clone's git: driver, hooks, attributes, logs that git does not know; and mending it."""

import os

from taskstore_core.kinds import KINDS
from taskstore_core.problems import Problem, error, warning

from .git import GitError
from .install import SECTION, Report, block_in, hook_files, install, refusal
from .place import Place, Programs
from .scripts import DRIVER, is_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskstore_core.paths import Paths

_MEND = "taskstore install-hooks"


def check(paths: "Paths", programs: Programs, *, fix: bool, ci: bool) -> list[dict[str, object]]:
    """Every problem as plain data, after mending what `fix` may. `ci`: none that is of this clone alone."""
    if paths.worktree is None:
        return []
    try:
        place = Place(paths, os.curdir, programs)
        found = list(_look(place, ci=ci))
        if fix and any(problem.fixable for problem in found):
            install(place)
            left = {(problem.name, problem.file) for problem in _look(place, ci=ci)}
            for problem in found:
                problem.fixed = (problem.name, problem.file) not in left
    except GitError as refusal:
        found = [error("git_refuses", refusal.message, refusal.hint or "ask git: git status")]
    except OSError as failure:
        found = [error("no_permission", f"{failure.filename or paths.directory}: {failure.strerror}", _MEND)]
    return [problem.plain() for problem in found]


def _look(place: Place, *, ci: bool) -> "Iterator[Problem]":
    yield from _attributes(place)
    if not ci:
        yield from _driver(place)
        yield from _hooks(place)
        yield from _untracked(place)


def _attributes(place: Place) -> "Iterator[Problem]":
    log = f"{place.relative}/{next(iter(KINDS.values())).log}"
    if place.git.ask("check-attr", "-z", "merge", "--", log).split("\0")[2:3] != [DRIVER]:
        yield warning("no_attributes", ".gitattributes does not name the merge driver: git merges the logs as text",
                      _MEND, file=".gitattributes", fixable=True)


def _driver(place: Place) -> "Iterator[Problem]":
    status, command, _ = place.git.run("config", "--null", "--get", f"{SECTION}.driver")
    if status:
        yield warning("no_driver", "this clone has no merge driver: git merges the logs as text, and leaves conflict"
                      " markers in them", _MEND, fixable=True)
        return
    program = _program_of(command.partition(" %O")[0].replace("%%", "%"))
    if not is_program(program):
        yield warning("no_driver", f"the merge driver {program} is gone: the lines of both sides are kept, and none of"
                      " its rules applied", f"install taskstore anew, then {_MEND}",
                      fixable=is_program(place.programs.driver))


def _program_of(command: str) -> str:
    """The path of the last word of a shell's command line, which is a program."""
    import shlex
    import shutil

    try:
        program = shlex.split(command)[-1]
    except (ValueError, IndexError):
        return command
    return program if "/" in program else shutil.which(program) or program


def _hooks(place: Place) -> "Iterator[Problem]":
    """Hooks that do not run us. Only notes, as the next command that reads does what they would have done."""
    report = Report()
    for _, path in hook_files(place, report):
        body = block_in(path) or block_in(f"{path}.legacy")
        if body is not None and _runs(body):
            continue
        reason = refusal(path)
        if reason is None:
            why = "does not run taskstore" if body is None else "runs a taskstore that is gone"
            yield Problem("no_hook", "note", f"{path} {why}: the next command brings the cache level instead",
                          _MEND, file=path, fixable=True)
        else:
            report.left.append((path, reason))
    for path, reason in report.left:
        yield Problem("no_hook", "note", f"{path} does not run taskstore: {reason}",
                      "nothing: the next command brings the cache level instead", file=path)


def _runs(body: bytes) -> bool:
    """Whether the lines of a hook find a taskstore to run."""
    program = _program_of(os.fsdecode(body.partition(b"[ -x ")[2].partition(b" ]; then")[0]))
    return is_program(program) or is_program(_program_of("taskstore"))


def _untracked(place: Place) -> "Iterator[Problem]":
    """Logs with something in them that git has never been told of."""
    known = set(place.git.ask("ls-files", "-z", "--", place.relative).split("\0"))
    for kind in KINDS.values():
        path = place.paths.file(kind.log)
        if kind.log != "repo_state.jsonl" and f"{place.relative}/{kind.log}" not in known and _size(path):
            yield warning("untracked_log", f"{kind.log} was never added to git: `git clean` would delete it",
                          f"git add {place.relative} && git commit", file=kind.log)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
