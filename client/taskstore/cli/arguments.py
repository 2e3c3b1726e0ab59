"""Arguments: from the words of a command line to values, by the table of commands.

`_read` understands every correct command line and nothing else. For help, and to say what is wrong with any other,
argparse is built from the same table; importing it would double the time of a `show`. A test holds the two to the
same answers.
"""

from .commands import COMMANDS, GLOBALS, Argument, Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import NoReturn


_DIGITS = 18  # of a number: what fits into 64 bits


class Arguments:
    """A parsed command line: `command`, and the values of its arguments by name (None, False or [] if not given)."""

    def __init__(self, command: Command, values: dict[str, object]) -> None:
        self.command = command
        self._values = {argument.key: _absent(argument) for argument in (*GLOBALS, *command.arguments)} | values

    def text(self, name: str) -> str:
        """The value of a positional."""
        return str(self._values[name])

    def option(self, name: str) -> str | None:
        """The value of an option."""
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
        """The values of an option that may be repeated."""
        value = self._values[name]
        return list(value) if isinstance(value, list) else []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arguments) and (self.command, self._values) == (other.command, other._values)

    __hash__ = None  # type: ignore[assignment]


def parse(argv: "Sequence[str]") -> Arguments:
    """The arguments in `argv`; exits with status 2 and one line where they are wrong, 0 for --help and --version."""
    return _read(argv) or explain(argv)


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
            argument = _find(name, command)
            if argument is None or (argument.shape == "flag" and equals):
                return None
            if argument.shape != "flag" and not equals:
                if not pending or pending[-1].startswith("--") or pending[-1] == "-h":
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


def _find(name: str, command: Command | None) -> Argument | None:
    for argument in (*GLOBALS, *(command.arguments if command else ())):
        if argument.name == name:
            return argument
    return None


def _values(command: Command, words: list[str], given: list[tuple[str, str | None]]) -> Arguments | None:
    positionals = [argument for argument in command.arguments if argument.shape == "word"]
    if len(words) != len(positionals):
        return None
    values: dict[str, object] = {}
    for argument, word in zip(positionals, words, strict=True):
        if argument.choices and word not in argument.choices:
            return None
        values[argument.key] = word
    for name, value in given:
        argument = _find(name, command) or GLOBALS[0]
        if argument.shape == "flag":
            values[argument.key] = True
        elif argument.shape == "many":
            values[argument.key] = [*_list(values.get(argument.key)), value]
        elif argument.shape == "number":
            if value is None or not _is_number(value):
                return None
            values[argument.key] = int(value)
        else:
            values[argument.key] = value
    if any(argument.required and argument.key not in values for argument in command.arguments):
        return None
    return Arguments(command, values)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= _DIGITS


def _absent(argument: Argument) -> object:
    return {"flag": False, "many": []}.get(argument.shape)


def explain(argv: "Sequence[str]") -> Arguments:
    """What argparse makes of `argv`: help, or one line that says what is wrong, and exit."""
    parsed = vars(build_parser().parse_args(_joined(argv)))
    command = COMMANDS[parsed.pop("command")]
    return Arguments(command, {key: value for key, value in parsed.items() if value is not None})


def _joined(argv: "Sequence[str]") -> list[str]:
    """`argv` with "--order -x" written as "--order=-x", which argparse would take for two options."""
    takers = {argument.name for command in COMMANDS.values() for argument in (*GLOBALS, *command.arguments)
              if argument.shape not in {"word", "flag"}}
    words: list[str] = []
    for word in argv:
        if words and words[-1] in takers and word.startswith("-") and not word.startswith("--") and word != "-h":
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def build_parser() -> "argparse.ArgumentParser":
    """The argparse parser made from the table; also what the reference page is made from."""
    import argparse

    from .text import visible

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> "NoReturn":
            self.exit(2, visible(f"{self.prog}: {message}; see {self.prog} --help") + "\n")

    parser = Parser(prog="taskstore", allow_abbrev=False,
                    description="State for many agents working on one repository, kept in git.")
    parser.add_argument("--version", action=_version_action())
    for argument in GLOBALS:
        _add(parser, argument)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS.values():
        child = commands.add_parser(command.name, help=command.summary, allow_abbrev=False,
                                    description=command.description or command.summary.capitalize() + ".")
        for argument in (*command.arguments, *GLOBALS):
            _add(child, argument)
    return parser


def _add(parser: "argparse.ArgumentParser", argument: Argument) -> None:
    import argparse

    help_ = argument.help.replace("%", "%%")
    if argument.shape == "word":
        parser.add_argument(argument.key, metavar=argument.metavar, help=help_, choices=argument.choices or None)
    elif argument.shape == "flag":
        parser.add_argument(argument.name, dest=argument.key, action="store_true", help=help_,
                            default=argparse.SUPPRESS)
    else:
        parser.add_argument(argument.name, dest=argument.key, metavar=argument.metavar, help=help_,
                            action="append" if argument.shape == "many" else "store", required=argument.required,
                            type=_number if argument.shape == "number" else str, default=argparse.SUPPRESS)


def _number(word: str) -> int:
    import argparse

    if not _is_number(word):
        raise argparse.ArgumentTypeError(f"not a whole number: {word!r}")
    return int(word)


def _version_action() -> "type[argparse.Action]":
    import argparse

    class Version(argparse.Action):
        def __init__(self, option_strings: "Sequence[str]", dest: str, **_: object) -> None:
            super().__init__(option_strings, dest, nargs=0, help="print the release, and in a checkout the commit")

        def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
            from .release import release

            print(f"taskstore {release()}")  # noqa: T201 - `exit` would write to standard error
            parser.exit()

    return Version
