"""The command line: one row of `commands.COMMANDS` and one function in a module here for each command."""

import os
import sys

from taskstore_core.errors import TaskStoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run one command; its exit status. Every error ends here, as one line that says what to do."""
    from .arguments import parse

    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        status = arguments.command.function()(arguments)
        sys.stdout.flush()
    except TaskStoreError as error:
        return _report(error.message, error.hint, error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has seen enough
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return _report(f"{error.filename or 'the store'}: {error.strerror or error}", "", 3)
    return status


def _report(message: str, hint: str, status: int) -> int:
    from .text import visible

    sys.stderr.write(visible(f"taskstore: {message}{'; ' if hint else ''}{hint}") + "\n")
    return status
