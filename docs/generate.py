"""Write docs/reference/ and the completion scripts, from the tables that the program itself runs on.

`python docs/generate.py` writes them; with `--check` it says which are stale, and exits with 1 if any is.
"""

import os
import sys
from collections.abc import Sequence

import shtab

from taskstore.cli.commands import GLOBALS, GROUPS
from taskstore.cli.grammar import Argument, Command
from taskstore.cli.parser import build_parser
from taskstore_core import answers
from taskstore_core.kinds import KINDS, Kind
from taskstore_core.methods import METHODS, Method
from taskstore_core.records import FIELDS, json_schema

HERE = os.path.dirname(os.path.abspath(__file__))
COMPLETIONS = os.path.join(HERE, "..", "client", "taskstore", "cli", "completions")
_NOTE = "<!-- made by docs/generate.py: change the table it is made from -->\n"


def pages() -> dict[str, str]:
    """Every file by its path, with what it should hold."""
    made = {os.path.join(HERE, "reference", f"{name}.md"): f"{_NOTE}{text}" for name, text in (
        ("methods", methods()), ("commands", commands()), ("kinds", kinds()), ("errors", errors()))}
    for shell in ("bash", "zsh"):
        made[os.path.join(COMPLETIONS, f"taskstore.{shell}")] = shtab.complete(build_parser(), shell=shell) + "\n"
    return {os.path.normpath(path): text for path, text in made.items()}


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def methods() -> str:
    """The method table."""
    begin = ("# Methods\n\nWhat a store can be asked for, by the names that the socket and `dispatch` know."
             " `taskstore schema METHOD` prints the JSON Schema of an answer.\n")
    return "\n".join([begin, *map(_method, METHODS.values())])


def _method(method: Method) -> str:
    rows = [(f"`{parameter.name}`", parameter.type, "yes" if parameter.required else "",
             answers.describe(method.name, parameter.name)) for parameter in method.parameters.values()]
    how = " Writes." if method.request else ""
    text = f"## {method.name}\n\n{method.summary}{how} Answer: *{method.answer}*.\n"
    return text + ("\n" + table(("parameter", "type", "required", ""), rows) if rows else "")


def commands() -> str:
    """The commands, as they are grouped in the help."""
    parts = ["# Commands\n\n`taskstore [OPTION …] COMMAND …`; options may stand before or after the command.\n",
             table(("option", ""), [(f"`{_spelt(argument)}`", argument.help) for argument in GLOBALS])]
    for title, group in GROUPS:
        parts.append(f"## {title[:1].upper()}{title[1:]}\n")
        parts += map(_command, group)
    return "\n".join(parts)


def _command(command: Command) -> str:
    words = " ".join(_positional(argument) for argument in command.arguments if argument.is_positional)
    text = f"### `taskstore {command.name}{' ' if words else ''}{words}`\n\n"
    text += (command.description or f"{command.summary[:1].upper()}{command.summary[1:]}.") + "\n"
    if command.arguments:
        text += "\n" + table(("argument", ""), [(f"`{_spelt(argument)}`", argument.help + (
            " (must be given)" if argument.required and not argument.is_positional else ""))
            for argument in command.arguments])
    if command.examples:
        text += "\n```sh\n" + "".join(f"taskstore {example}\n" for example in command.examples) + "```\n"
    return text


def _positional(argument: Argument) -> str:
    return {"optional": f"[{argument.metavar}]", "words": f"[{argument.metavar} …]"}.get(argument.shape,
                                                                                        argument.metavar)


def _spelt(argument: Argument) -> str:
    if argument.is_positional:
        return _positional(argument)
    return f"{argument.name} {argument.metavar}" if argument.takes_value else argument.name


def kinds() -> str:
    """The kinds and their fields."""
    begin = ("# Kinds\n\nThe six kinds of record and their fields. Fields that are not named here are kept as they are."
             " `taskstore schema KIND` prints the JSON Schema of a line.\n")
    return "\n".join([begin, *map(_kind, KINDS.values())])


def _kind(kind: Kind) -> str:
    names = ", ".join(f"`{name}`" for name in (kind.name, *kind.aliases))
    properties = json_schema(kind)["properties"]
    assert isinstance(properties, dict)  # noqa: S101 - what a schema holds
    rows = []
    for name in (*kind.fields, *kind.optional_keys):
        field = FIELDS[kind.name][name]
        default = "required" if field.required else "" if name.endswith("_at") or name == kind.key else repr(
            field.default.value if hasattr(field.default, "value") else field.default)
        rows.append((f"`{name}`", _type(kind, name, properties[name]), default.replace("None", "null")))
    return f"## {kind.title}\n\n{names}; in `{kind.log}`.\n\n" + table(("field", "type", "default"), rows)


def _type(kind: Kind, name: str, schema: dict[str, object]) -> str:
    if name in kind.enums:
        return " or ".join(kind.enums[name])
    if name.endswith("_at"):
        return "Unix ms"
    if name in kind.numbers:
        return f"whole number to {schema['maximum']}"
    return "list of ids" if name == "depends_on" else "text"


def errors() -> str:
    """The errors."""
    rows = [(f"`{each.kind}`", f"`{each.__name__}`", str(each.code), str(each.exit_status),
             "yes" if each.retryable else "", (each.__doc__ or "").partition("\n")[0]) for each in answers.errors()]
    return ("# Errors\n\nEach says whose fault it is and what to do. `applied` tells what became of a write: no, yes or"
            " unknown.\n\n" + table(("kind", "in Python", "JSON-RPC code", "exit status", "retry", ""), rows))


def main(arguments: list[str]) -> int:
    """Write what is stale, or only say so."""
    stale = []
    for path, text in pages().items():
        try:
            with open(path, encoding="utf-8") as file:
                current = file.read()
        except FileNotFoundError:
            current = ""
        if current != text:
            stale.append(path)
            if "--check" not in arguments:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
    for path in stale:
        print(f"{'stale' if '--check' in arguments else 'written'}: {os.path.relpath(path)}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
