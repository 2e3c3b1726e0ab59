"""The command line: one row of `commands.COMMANDS` and one function in a module here for each command."""

import io
import os
import sys

from taskstore_core.errors import TaskStoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run one command; its exit status. Every error ends here, as one line that says what to do."""
    from .arguments import parse

    _prepare_streams()
    try:
        try:
            arguments = parse(sys.argv[1:] if argv is None else argv)
            return arguments.command.function()(arguments)
        finally:
            sys.stdout.flush()
    except TaskStoreError as error:
        return _report(error.message, error.hint, error.exit_status)
    except BrokenPipeError:  # whoever read us has seen enough
        _drop_output()
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return _report(f"{_culprit(error)}: {error.strerror or error}", "", 3)


def _culprit(error: OSError) -> str:
    """What an error of the system is about: the file it names, the output if that still fails, else the store."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
        return "standard output"
    return str(error.filename or "the store")


def _prepare_streams() -> None:
    """Open what our caller closed, so that no file of ours gets its number; and never fail for want of a character."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - lives as long as we do
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send what is still to be written nowhere, or Python would try again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _report(message: str, hint: str, status: int) -> int:
    from .text import visible

    try:
        sys.stderr.write(visible(f"taskstore: {message}{'; ' if hint else ''}{hint}") + "\n")
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nowhere to say it: the status still tells
    return status
