"""The argparse parser made from the table of commands: it prints help, and says what is wrong with a command line."""

import argparse
import shutil
import textwrap
from typing import NoReturn

from .arguments import Arguments, find, is_number, may_be_value
from .commands import COMMANDS, GLOBALS, GROUPS
from .grammar import Argument, Command
from .text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ABOUT = "State for many agents working on one repository, kept in git."
_STATUSES = ("Exit status: 0 done; 1 a negative answer (not found, exists already, conflict, nothing to claim, check"
             " found something); 2 wrong usage or an invalid value; 3 the store cannot be used.")
_REPEATED = {"optional": "?", "words": "*"}


def explain(argv: "Sequence[str]") -> Arguments:
    """What argparse makes of `argv`: help, or one line that says what is wrong, and exit."""
    parsed = vars(build_parser().parse_args(in_order(argv)))
    command = COMMANDS[parsed.pop("command")]
    return Arguments(command, {key: value for key, value in parsed.items() if value is not None})


def in_order(argv: "Sequence[str]") -> list[str]:
    """`argv` with the options that a command knows in front of its other words, each joined with its value by "=".

    Argparse gives a positional that may be left out its place before it has seen the words behind an option, and
    takes "--order -x" for two options. An option that lacks its value goes last, or the word behind would be it.
    """
    command: Command | None = None
    before: list[str] = []
    options: list[str] = []
    words: list[str] = []
    lacking: list[str] = []
    pending = list(reversed(argv))
    while pending and pending[-1] != "--":
        word = pending.pop()
        name, equals, _ = word.partition("=")
        argument = find(name, command)
        if argument is not None and argument.takes_value and not equals:
            if pending and may_be_value(pending[-1]):
                (options if command else before).append(f"{word}={pending.pop()}")
            else:
                lacking.append(word)
        elif argument is not None or word in {"-h", "--help"}:
            (options if command else before).append(word)
        elif command is None:
            before.append(word)
            command = COMMANDS.get(word)
        else:
            words.append(word)
    return [*before, *options, *words, *lacking, *reversed(pending)]


class Parser(argparse.ArgumentParser):
    """Argparse with errors in one line, and text that stands as it is given."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(prog=prog, description=_filled(description), epilog=epilog, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        self.exit(2, visible(f"{self.prog}: {message}; see {self.prog} --help") + "\n")


class _Main(Parser):
    """The parser of the whole: its help lists the commands by what they are for."""

    shown: "list[argparse.Action]"

    def format_help(self) -> str:
        """The help."""
        formatter = argparse.HelpFormatter(self.prog, max_help_position=24)
        formatter.add_usage("taskstore [OPTION …] COMMAND …", [], [])
        formatter.add_text(_ABOUT)
        for title, commands in GROUPS:
            formatter.start_section(title)
            formatter.add_arguments(
                argparse.Action([], each.name, metavar=each.name, help=each.summary.replace("%", "%%"))
                for each in commands)
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments(self.shown)
        formatter.end_section()
        formatter.add_text(_STATUSES)
        formatter.add_text("taskstore COMMAND --help says more, with examples.")
        return formatter.format_help()


def build_parser() -> argparse.ArgumentParser:
    """The argparse parser made from the table; also what completions and the reference page are made from."""
    parser = _Main("taskstore", _ABOUT)
    version = parser.add_argument("--version", action=_Version)
    parser.shown = [version, *(_add(parser, argument) for argument in GLOBALS)]
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS.values():
        child = commands.add_parser(command.name, help=command.summary, prog=f"taskstore {command.name}",
                                    description=command.description or command.summary.capitalize() + ".",
                                    epilog=_examples(command))
        for argument in (*command.arguments, *GLOBALS):
            _add(child, argument)
    return parser


def _examples(command: Command) -> str:
    lines = [f"  taskstore {example}" for example in command.examples]
    return "\n".join(["examples:", *lines]) if lines else ""


def _filled(text: str) -> str:
    return textwrap.fill(text, max(20, shutil.get_terminal_size().columns - 2), break_on_hyphens=False)


def _add(parser: argparse.ArgumentParser, argument: Argument) -> argparse.Action:
    help_ = argument.help.replace("%", "%%")
    if argument.is_positional:
        return parser.add_argument(argument.key, metavar=argument.metavar, help=help_,
                                   choices=argument.choices or None, nargs=_REPEATED.get(argument.shape))
    if argument.shape == "flag":
        return parser.add_argument(argument.name, dest=argument.key, action="store_true", help=help_,
                                   default=argparse.SUPPRESS)
    return parser.add_argument(argument.name, dest=argument.key, metavar=argument.metavar, help=help_,
                               action="append" if argument.shape == "many" else "store", required=argument.required,
                               type=_number if argument.shape == "number" else str, default=argparse.SUPPRESS)


def _number(word: str) -> int:
    if not is_number(word):
        raise argparse.ArgumentTypeError(f"not a whole number: {word!r}")
    return int(word)


class _Version(argparse.Action):
    def __init__(self, option_strings: "Sequence[str]", dest: str, **_: object) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the release, and in a checkout the commit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from .release import release

        print(f"taskstore {release()}")  # noqa: T201 - `exit` would write to standard error
        parser.exit()
