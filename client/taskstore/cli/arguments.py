"""Arguments: from the words of a command line to values, by the table of commands.

`_read` understands every correct command line and nothing else. For help, and to say what is wrong with any other,
`parser` builds argparse from the same table; importing that would double the time of a `show`. A test holds the two
to the same answers.
"""

import os

from .commands import COMMANDS, GLOBALS
from .grammar import Argument, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


_DIGITS = 18  # of a number: what fits into 64 bits


class Arguments:
    """A parsed command line: `command`, and the values of its arguments by name (None, False or [] if not given)."""

    def __init__(self, command: Command, values: dict[str, object]) -> None:
        self.command = command
        self._values = {argument.key: _absent(argument) for argument in (*GLOBALS, *command.arguments)} | values

    def text(self, name: str) -> str:
        """The value of a positional that must be given."""
        return str(self._values[name])

    def option(self, name: str) -> str | None:
        """The value of an option, or of a positional that may be left out."""
        value = self._values[name]
        return None if value is None else str(value)

    def number(self, name: str) -> int | None:
        """The value of an option that is a number."""
        value = self._values[name]
        return value if isinstance(value, int) else None

    def flag(self, name: str) -> bool:
        """Whether a flag was given."""
        return bool(self._values[name])

    @property
    def json(self) -> bool:
        """Whether the output is to be JSON, of whichever kind."""
        return self.flag("json") or self.flag("jsonl")

    def many(self, name: str) -> list[str]:
        """The values of an argument that may be repeated."""
        value = self._values[name]
        return list(value) if isinstance(value, list) else []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arguments) and (self.command, self._values) == (other.command, other._values)

    __hash__ = None  # type: ignore[assignment]


def directory_of(arguments: Arguments) -> str | None:
    """The store's folder named by --store or TASKSTORE_DIR; None for that of the repository we stand in."""
    named = arguments.option("store")
    if named == "":
        from taskstore_core.errors import InvalidError

        raise InvalidError("--store: names no folder", hint="is a shell variable empty?", field="store")
    return named or os.environ.get("TASKSTORE_DIR") or None


def parse(argv: "Sequence[str]") -> Arguments:
    """The arguments in `argv`; exits with status 2 and one line where they are wrong, 0 for --help and --version."""
    arguments = _read(argv)
    if arguments is None:
        from .parser import explain

        arguments = explain(argv)
    return arguments


def _read(argv: "Sequence[str]") -> Arguments | None:
    command: Command | None = None
    words: list[str] = []
    given: list[tuple[str, str | None]] = []
    pending = list(reversed(argv))
    while pending:
        word = pending.pop()
        if word == "--" or (word.startswith("-") and not word.startswith("--") and word != "-"):
            return None
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            argument = find(name, command)
            if argument is None or (argument.shape == "flag" and equals):
                return None
            if argument.shape != "flag" and not equals:
                if not pending or not may_be_value(pending[-1]):
                    return None
                value = pending.pop()
            given.append((name, None if argument.shape == "flag" else value))
        elif command is None:
            command = COMMANDS.get(word)
            if command is None:
                return None
        else:
            words.append(word)
    return _values(command, words, given) if command else None


def find(name: str, command: Command | None) -> Argument | None:
    """The option of this name that a command takes; before there is one, that all take."""
    for argument in (*GLOBALS, *(command.arguments if command else ())):
        if argument.name == name and not argument.is_positional:
            return argument
    return None


def may_be_value(word: str) -> bool:
    """Whether a word behind an option is its value. "--x" is only as "--option=--x"."""
    return not word.startswith("--") and word != "-h"


def _values(command: Command, words: list[str], given: list[tuple[str, str | None]]) -> Arguments | None:
    values = _placed(command, words)
    if values is None:
        return None
    for name, value in given:
        argument = find(name, command) or GLOBALS[0]
        if argument.shape == "flag":
            values[argument.key] = True
        elif argument.shape == "many":
            values[argument.key] = [*_list(values.get(argument.key)), value]
        elif argument.shape == "number":
            if value is None or not is_number(value):
                return None
            values[argument.key] = int(value)
        else:
            values[argument.key] = value
    if any(argument.required and argument.key not in values for argument in command.arguments):
        return None
    return Arguments(command, values)


def _placed(command: Command, words: list[str]) -> dict[str, object] | None:
    """The positionals: what must be given has its word, and each of the others, in order, what is left over."""
    positionals = [argument for argument in command.arguments if argument.is_positional]
    spare = len(words) - sum(argument.required for argument in positionals)
    values: dict[str, object] = {}
    pending = iter(words)
    for argument in positionals:
        count = 1 if argument.required else min(spare, 1) if argument.shape == "optional" else spare
        if spare < 0:
            return None
        taken = [next(pending) for _ in range(count)]
        if argument.choices and any(word not in argument.choices for word in taken):
            return None
        if taken:
            values[argument.key] = taken if argument.shape == "words" else taken[0]
        spare -= 0 if argument.required else count
    return values if spare == 0 else None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def is_number(word: str) -> bool:
    """Whether a word is a whole number that fits into 64 bits."""
    return word.isascii() and word.isdigit() and len(word) <= _DIGITS


def _absent(argument: Argument) -> object:
    return {"flag": False, "many": [], "words": []}.get(argument.shape)
