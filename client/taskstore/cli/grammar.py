"""What a row of the table of commands is made of: commands and their arguments. It imports nothing."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ("word", "optional", "words", "value", "many", "number", "flag")
POSITIONAL = ("word", "optional", "words")


class Argument:
    """An argument.

    A positional is of the shape "word" (it must be given), "optional" (it may be) or "words" (any number of them);
    an option takes a "value", "many" (a value each time it is given) or a "number", or is a "flag".
    """

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

    @property
    def is_positional(self) -> bool:
        """Whether it is told by its place."""
        return self.shape in POSITIONAL

    @property
    def takes_value(self) -> bool:
        """Whether it is an option with a value behind it."""
        return self.shape in {"value", "many", "number"}


class Command:
    """A command: `home` is the module, of this package unless it has a dot, and the function that carry it out.

    `description` says more than the one line of `summary`; `examples` are command lines without the first word.
    """

    __slots__ = ("arguments", "description", "examples", "home", "name", "summary")

    def __init__(self, name: str, home: str, summary: str, *arguments: Argument, description: str = "",
                 examples: tuple[str, ...] = ()) -> None:
        self.name = name
        self.home = home
        self.summary = summary
        self.arguments = arguments
        self.description = description
        self.examples = examples

    def function(self) -> "Callable[..., int]":
        """Import and return what carries the command out."""
        module, _, name = self.home.partition(":")
        scope: dict[str, object] = {}
        exec(f"from {module if '.' in module else f'taskstore.cli.{module}'} import {name}", scope)  # noqa: S102 - importlib costs a millisecond
        function: Callable[..., int] = scope[name]  # type: ignore[assignment]
        return function
