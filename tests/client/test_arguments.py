"""The two parsers made from one table: the fast one must say what argparse says, or leave it to argparse."""

import contextlib
import functools
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskstore.cli import arguments, parser
from taskstore.cli.arguments import Arguments
from taskstore.cli.commands import COMMANDS, GLOBALS
from taskstore.cli.grammar import Argument, Command


@pytest.fixture(scope="module", autouse=True)
def _build_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser, "build_parser", functools.cache(parser.build_parser))
        yield


PLAIN = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda word: not word.startswith("-"))
"""What a shell may pass as a value; values that begin with "-" have a test of their own."""
NUMBER = st.integers(0, 10**18 - 1).map(str) | st.sampled_from(["0", "007"])


def value_of(argument: Argument) -> st.SearchStrategy[str]:
    if argument.choices:
        return st.sampled_from(argument.choices)
    return NUMBER if argument.shape == "number" else PLAIN


def count_of(argument: Argument) -> st.SearchStrategy[int]:
    return {"optional": st.integers(0, 1), "words": st.integers(0, 3)}.get(argument.shape, st.just(1))


@st.composite
def spelt(draw: st.DrawFn, argument: Argument) -> list[str]:
    """An option as its words: --x, --x v or --x=v."""
    if argument.shape == "flag":
        return [argument.name]
    value = draw(value_of(argument))
    return [f"{argument.name}={value}"] if draw(st.booleans()) else [argument.name, value]


@st.composite
def correct(draw: st.DrawFn) -> list[str]:
    """A correct command line: globals before the command, and options and positionals behind it in any order."""
    command: Command = draw(st.sampled_from(list(COMMANDS.values())))
    before = draw(st.lists(st.sampled_from(GLOBALS).flatmap(spelt), max_size=3))
    options = [argument for argument in (*GLOBALS, *command.arguments) if not argument.is_positional]
    required = [argument for argument in options if argument.required]
    chosen = [draw(spelt(argument)) for argument in (*required, *draw(st.lists(st.sampled_from(options), max_size=5)))]
    words = [[draw(value_of(argument))] for argument in command.arguments if argument.is_positional
             for _ in range(draw(count_of(argument)))]
    order = draw(st.permutations([False] * len(chosen) + [True] * len(words)))
    after = [words.pop(0) if is_word else chosen.pop() for is_word in order]
    return [word for part in (*before, [command.name], *after) for word in part]


def explained(argv: list[str]) -> Arguments | int:
    """What argparse makes of a command line: the arguments, or the status it ends with."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            return parser.explain(argv)
        except SystemExit as end:
            return int(end.code or 0)


@settings(max_examples=400, deadline=None)
@given(correct())
@example(["list", "prd", "--where", "a=b", "--where=c=d=e", "--limit", "007", "--order", ""])
@example(["--store=", "--json", "show", "--jsonl", "prd", "--store", "x", ""])
@example(["update", "prd", "--set", "a=b", "p1"])
@example(["watch", "--where", "a=b", "prd", "--json", "ts"])
@example(["import", "--kind", "prd", "x"])
@example(["import", "beads", "--json", "x"])
def test_both_parsers_agree_on_what_is_correct(argv: list[str]) -> None:
    """The fast parser reads every correct command line, to the arguments that argparse reads from it."""
    fast = arguments._read(argv)
    assert fast is not None
    assert fast == explained(argv)
    assert arguments.parse(argv) == fast


WORDS = st.sampled_from([
    *COMMANDS, *(argument.name for command in COMMANDS.values() for argument in command.arguments
                 if not argument.is_positional), *(argument.name for argument in GLOBALS),
    "prd", "beads", "x", "", "-", "--", "-x", "-1", "--nope", "--json=1", "--json=", "--store=d", "--set=a=b", "--set=",
    "--limit=5", "--limit=-1", "--limit=x", "--sto", "--sto=x", "--lim=5", "--help=1", "-hx", "a b", "-a b", "--a b",
    "²",
]) | PLAIN


@st.composite
def doubtful(draw: st.DrawFn) -> list[str]:
    """A correct command line of which a word or two were taken out, put in or replaced."""
    argv: list[str] = draw(correct())
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(argv)))
        argv[place:place + draw(st.integers(0, 1))] = draw(st.lists(WORDS, max_size=1))
    return argv


@settings(max_examples=1000, deadline=None)
@given(doubtful() | st.lists(WORDS, max_size=6))
@example(["--set", "a=b", "create", "prd"])
@example(["create", "prd", "--set"])
@example(["create", "prd", "--set", "--json"])
@example(["show", "--", "prd", "-x"])
@example(["list", "prd", "--limit=٣"])
@example(["import", "json", "x"])
@example(["show", "prd"])
@example(["show", "prd", "x", "y"])
@example(["-1", "stats"])
def test_the_fast_parser_reads_nothing_else(argv: list[str]) -> None:
    """Whatever argparse rejects the fast parser does not read, and what both read they read alike."""
    fast, slow = arguments._read(argv), explained(argv)
    assert fast is None or fast == slow
    if isinstance(slow, Arguments):
        assert arguments.parse(argv) == slow


@pytest.mark.parametrize("argv", [
    ["list", "prd", "--order", "-created_at"],
    ["list", "prd", "--order=-created_at"],
    ["create", "prd", "--file", "-"],
    ["create", "prd", "--set", "title=-x"],
    ["show", "prd", "--", "-x"],
    ["show", "--json", "--", "prd", "-x"],
], ids=" ".join)
def test_values_that_begin_with_a_dash(argv: list[str]) -> None:
    """A value that begins with "-" can be given, behind "=" or as the help says."""
    assert isinstance(explained(argv), Arguments)
    assert arguments.parse(argv) == explained(argv)


def test_the_values() -> None:
    """What was not given is None, False or [], and what was given has its type."""
    parsed = arguments.parse(["--store", "d", "list", "prd", "--where", "a=1", "--where=b=2", "--limit", "5"])
    assert parsed.command is COMMANDS["list"]
    assert parsed.text("KIND") == "prd"
    assert (parsed.option("store"), parsed.option("order"), parsed.option("cursor")) == ("d", None, None)
    assert (parsed.number("limit"), parsed.many("where")) == (5, ["a=1", "b=2"])
    assert (parsed.flag("json"), parsed.flag("jsonl")) == (False, False)
    bare = arguments.parse(["--json", "list", "prd"])
    assert (bare.number("limit"), bare.many("where"), bare.flag("json")) == (None, [], True)
    assert bare != parsed
    assert bare == arguments.parse(["list", "--json", "prd", "--json"])


@pytest.mark.parametrize("digits", [19, 20, 5000])
def test_a_number_that_is_too_long(digits: int) -> None:
    """A number that may not fit into 64 bits is wrong usage."""
    argv = ["list", "prd", "--limit", "9" * digits]
    assert arguments._read(argv) is None
    assert explained(argv) == 2


def test_the_table() -> None:
    """Every command names a function that is there, and no two arguments of one have the same name."""
    for name, command in COMMANDS.items():
        assert name == command.name
        assert callable(command.function())
        keys = [argument.key for argument in (*GLOBALS, *command.arguments)]
        assert len(set(keys)) == len(keys)
        assert command.summary == command.summary.strip().rstrip(".")
        assert all(argument.help for argument in command.arguments)


# As processes


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "PYTHONUNBUFFERED"}}
    return subprocess.run([sys.executable, "-m", "taskstore", *argv], capture_output=True, text=True, check=False,
                          env=environment, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("command", list(COMMANDS.values()), ids=list(COMMANDS))
def test_help_of_a_command(command: Command) -> None:
    """Each command's --help says what it is for and names each of its arguments, whatever else is wrong."""
    done = run(command.name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert text.startswith(f"usage: taskstore {command.name} ")
    assert (command.description or command.summary) in text or command.summary.capitalize() in text
    for argument in (*command.arguments, *GLOBALS):
        assert argument.name in text
        assert " ".join(argument.help.split()) in text
    assert explained([command.name, "--json", "-h", "too", "many", "words"]) == 0


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag: str) -> None:
    """The help names every command with its summary."""
    done = run(flag)
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    for command in COMMANDS.values():
        assert f"{command.name} {command.summary}" in text


WRONG = [
    [], ["nope"], ["--nope"], ["nope", "--help"], [""], ["-x", "stats"], ["stats", "x"], ["stats", "--nope"],
    ["stats", "--json=1"], ["show"], ["show", "prd"], ["show", "prd", "x", "y"], ["list", "prd", "--limit", "x"],
    ["list", "prd", "--limit", "-1"], ["list", "prd", "--limit="], ["list", "prd", "--limit", "1.5"],
    ["list", "prd", "--where"], ["create", "prd", "--set"], ["list-prds", "--sta", "x"], ["import", "json", "x"],
    ["import"], ["--store"], ["stats", "--store"], ["--set", "a=b", "create", "prd"], ["two\nlines"],
    ["list", "prd", "--limit", "two\nlines"], ["claim", "t1", "--by"], ["update", "prd", "p1", "--set"],
    ["watch", "prd", "--where"], ["update", "prd", "p1", "p2", "--set", "a=b"], ["claim", "a", "b", "--by", "c"],
]


@pytest.mark.parametrize("argv", WRONG, ids=" ".join)
def test_wrong_usage(argv: list[str]) -> None:
    """Wrong usage ends with status 2 and one line on standard error that names the command and its --help."""
    assert explained(argv) == 2
    done = run(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("taskstore")
    assert "--help" in done.stderr


@pytest.mark.parametrize("word", ["two\nlines", "\x1b[31mred", "\x9b31m", "\u202eover"])
def test_wrong_words_are_made_visible(word: str) -> None:
    """A word too many is repeated in one line, without what a terminal would act on."""
    done = run("stats", word)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.strip().isprintable()


def test_version() -> None:
    """--version prints the release on standard output."""
    done = run("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"taskstore \d+\.\d+\.\d+( \([0-9a-f]{7,}\))?\n", done.stdout)
    assert done.stderr == ""
