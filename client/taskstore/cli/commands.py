"""The table of commands: names, arguments and where each is carried out. Data; read by both parsers in `arguments`."""

from taskstore_core.kinds import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Argument:
    """An argument. `shape` is "word" (a positional), "value", "many" (a repeated value), "number" or "flag"."""

    __slots__ = ("choices", "help", "metavar", "name", "required", "shape")

    def __init__(self, name: str, shape: str, help_: str, *, metavar: str = "", choices: tuple[str, ...] = (),
                 required: bool = False) -> None:
        self.name = name  # as typed: "--set", or the name of a positional
        self.shape = shape
        self.help = help_
        self.metavar = metavar or name.lstrip("-").upper()
        self.choices = choices
        self.required = required or shape == "word"

    @property
    def key(self) -> str:
        """Its name among the parsed arguments."""
        return self.name.lstrip("-").replace("-", "_")


class Command:
    """A command: `home` is the module of this package, and the function in it, that carries it out."""

    __slots__ = ("arguments", "description", "home", "name", "summary")

    def __init__(self, name: str, home: str, summary: str, *arguments: Argument, description: str = "") -> None:
        self.name = name
        self.home = home
        self.summary = summary
        self.arguments = arguments
        self.description = description

    def function(self) -> "Callable[..., int]":
        """Import and return what carries the command out."""
        module, _, name = self.home.partition(":")
        scope: dict[str, object] = {}
        exec(f"from taskstore.cli.{module} import {name}", scope)  # noqa: S102 - importlib costs a millisecond
        function: Callable[..., int] = scope[name]  # type: ignore[assignment]
        return function


GLOBALS = (
    Argument("--store", "value", "use the store in DIR instead of the repository's", metavar="DIR"),
    Argument("--json", "flag", 'print JSON: the record, or {"items": […]}'),
    Argument("--jsonl", "flag", "print one JSON record a line"),
)

_KIND = Argument("KIND", "word", f"one of {', '.join(KINDS)}")
_LIST = (
    Argument("--where", "many", "only records whose field fits: name=value, !=, <, <=, >, >=, or ~ (contains)",
             metavar="TEST"),
    Argument("--order", "value", "sort by a field, descending with a leading '-'", metavar="FIELD"),
    Argument("--limit", "number", "print at most N records", metavar="N"),
    Argument("--cursor", "value", "go on behind a page that --limit cut", metavar="CURSOR"),
)
_STATUS = Argument("--status", "value", "only those with this status")

COMMANDS: dict[str, Command] = {command.name: command for command in (
    Command("init", "upkeep:init", "make a store in this repository"),
    Command("create", "write:create", "create records",
            _KIND,
            Argument("--set", "many", "give a field its value; 'null' leaves an option empty", metavar="FIELD=VALUE"),
            Argument("--allow-unknown", "flag", "let --set give fields that no kind has"),
            Argument("--file", "value", "read records from a file of JSON objects, one a line", metavar="FILE"),
            Argument("--stdin", "flag", "read them from standard input"),
            description="Creates one record from --set, or many from --file or --stdin: all of them or none."
                        " Prints the ids, which are made where none is given."),
    Command("show", "show:show", "show one record in full",
            _KIND, Argument("ID", "word", "its id, or enough of its beginning")),
    Command("list", "lists:list_records", "list records of a kind", _KIND, *_LIST),
    Command("list-prds", "lists:list_prds", "list PRDs", _STATUS),
    Command("list-task-specs", "lists:list_task_specs", "list the task specs of a PRD",
            Argument("PRD_ID", "word", "the PRD's id"), _STATUS),
    Command("list-executions", "lists:list_executions", "list executions", _STATUS),
    Command("stats", "upkeep:stats", "count records by kind and status"),
    Command("sync", "upkeep:sync", "bring the cache level with the files; makes a store where there is none",
            Argument("--full", "flag", "forget the cache and build it anew")),
    Command("schema", "upkeep:schema", "print the JSON Schema of a kind", _KIND),
    Command("import", "imports:import_", "bring in records of another tool",
            Argument("FORMAT", "word", "beads: a log of the beads issue tracker", choices=("beads",)),
            Argument("FILE", "word", "the file to read"),
            description="Imports each record under its own id and times. Importing twice changes nothing."),
)}
