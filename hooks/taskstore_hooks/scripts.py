"""The lines that git runs for us, and which hook files can take them; pure but for looking for our programs.

A line ends in "#": a carriage return that an editor adds then belongs to a comment, and not to the word `fi`.
"""

import os

HOOKS = ("pre-commit", "post-merge", "post-rewrite", "pre-push", "post-checkout")
"""Git has no post-rebase: it runs post-rewrite after a rebase."""
DRIVER = "taskstore-merge"
SHEBANG = b"#!/bin/sh\n"
ATTRIBUTES = b"*.jsonl merge=" + DRIVER.encode() + b" -text\n"
DRIVER_TITLE = "TaskStore: three-way merge of the lines of its logs"

_MAIN = "from taskstore.cli import main"
_SHELLS = {b"sh", b"bash", b"dash", b"ash", b"ksh", b"mksh", b"zsh"}


def hook_body(name: str, program: str, interpreter: str = "") -> bytes:
    """The lines of the block in a hook: `program`, else the one on PATH, else nothing; it never fails.

    With `interpreter`, that of the script which `program` is, the script's work is done without it: the one that pip 23
    makes imports `re`, a fifth of all that a hook costs. A variable for Python that some other program set for its own
    would keep ours from starting. Standard input stays for the rest of the hook: git tells pre-push and post-rewrite
    there what they are about.
    """
    run = f"sync --hook {name} </dev/null || :"
    clean = "PYTHONHOME='' PYTHONPATH=''"
    path = quoted(program)
    start = f"{quoted(interpreter)} -EPc '{_MAIN}; main()'" if interpreter else f"{clean} {path}"
    return os.fsencode(
        "# `taskstore uninstall-hooks` takes these lines out; `taskstore install-hooks` renews them.\n"
        f"if [ -x {path} ]; then {start} {run};"
        f" elif command -v taskstore >/dev/null 2>&1; then {clean} taskstore {run}; fi #\n")


def driver_command(program: str) -> str:
    """What git runs to merge a log.

    Git takes any failure of a driver for "ours", with no marker, and `git add` then loses the other side. So whatever
    ends with anything but 0 (merged) or 1 (conflicts, marked) is made up for by a merge as text that keeps the lines
    of both, from a copy of ours, as a driver that died may have left half of it.
    """
    path = quoted(program).replace("%", "%%")
    return (f"cp %A %A.ours; {path} %O %A %B %L %P; s=$?;"
            " case $s in 0|1) ;; *) [ ! -s %A.ours ] || cp %A.ours %A; git merge-file --union %A %O %B; s=$?;; esac;"
            " rm -f %A.ours; exit $s")


def quoted(word: str) -> str:
    """A word for a POSIX shell."""
    return "'" + word.replace("'", "'\\''") + "'"


def find_program(name: str, argv0: str, interpreter: str) -> str:
    """The absolute path of a program of ours: beside the one that runs, else beside its interpreter, else on PATH.

    Where there is none, the place beside the interpreter, at which an installation would put it.
    """
    places = [os.path.dirname(os.path.abspath(argv0))] if os.path.basename(argv0) == "taskstore" else []
    places.append(os.path.dirname(os.path.abspath(interpreter)))
    for folder in (*places, *filter(os.path.isabs, os.environ.get("PATH", "").split(os.pathsep))):
        if is_program(f"{folder}/{name}"):
            return f"{folder}/{name}"
    return f"{places[-1]}/{name}"


def interpreter_of(program: str, interpreter: str) -> str:
    """`interpreter` if `program` is the plain script that an installer makes for it, else ""."""
    try:
        with open(program, "rb") as file:
            first, *lines = file.read(4096).split(b"\n")
    except OSError:
        return ""
    return interpreter if first == b"#!" + os.fsencode(interpreter) and _MAIN.encode() in lines else ""


def is_program(path: str) -> bool:
    """Whether a path is a file that this user may run."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


class NoShellError(ValueError):
    """A hook file cannot take our lines; the message says why."""


def entrance(content: bytes) -> int:
    """The offset in a hook file at which a shell begins to read commands; raises NoShellError."""
    if b"\0" in content:
        raise NoShellError("it is no shell script")
    first, newline, rest = content.partition(b"\n")
    if not first.startswith(b"#!"):  # git has `sh` run it
        first, newline, rest = b"", b"", content
    elif first.endswith(b"\r"):
        raise NoShellError("it cannot be run: its first line ends in a carriage return")
    elif not _is_shell(first[2:].split()):
        raise NoShellError("it is no shell script")
    if _is_other_language(rest):
        raise NoShellError("it is a program in another language, which a shell only starts")
    return len(first) + len(newline)


def _is_shell(words: list[bytes]) -> bool:
    """Whether the words of a "#!" line run a POSIX shell, by itself, through env or through busybox."""
    for word in words:
        name = word.rpartition(b"/")[2]
        if name not in {b"env", b"busybox"} and not word.startswith(b"-") and b"=" not in word:
            return name in _SHELLS
    return False


def _is_other_language(rest: bytes) -> bool:
    """Whether the first command is a quoted word, as where a Python script begins with '''exec' python …."""
    for line in rest.splitlines():
        if line.strip() and not line.lstrip().startswith(b"#"):
            return line.lstrip()[:1] in {b"'", b'"'}
    return False
