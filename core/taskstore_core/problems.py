"""Problems that `check` finds, each with what it means and what mends it."""


class Problem:
    """One thing that is wrong. `name` is for programs; `severity` is "error", "warning" or "note".

    `file` and `line` say where, `id` about which record; `message` what it is and means, `mend` what helps.
    `fixable` problems are those that `check --fix` mends; `fixed` is True once it has.
    """

    __slots__ = ("file", "fixable", "fixed", "id", "line", "mend", "message", "name", "severity")

    def __init__(self, name: str, severity: str, message: str, mend: str, *, file: str | None = None,
                 line: int | None = None, key: str | None = None, fixable: bool = False) -> None:
        self.name = name
        self.severity = severity
        self.message = message
        self.mend = mend
        self.file = file
        self.line = line
        self.id = key
        self.fixable = fixable
        self.fixed = False

    def plain(self) -> dict[str, object]:
        """As plain data."""
        return {"problem": self.name, "severity": self.severity, "message": self.message, "mend": self.mend,
                "file": self.file, "line": self.line, "id": self.id, "fixable": self.fixable, "fixed": self.fixed}


def error(name: str, message: str, mend: str, **where: "str | int | bool | None") -> Problem:
    """Something is broken: state may be wrong, or cannot be written."""
    return Problem(name, "error", message, mend, **where)  # type: ignore[arg-type]  # keywords of Problem


def warning(name: str, message: str, mend: str, **where: "str | int | bool | None") -> Problem:
    """Something works, and will surprise somebody."""
    return Problem(name, "warning", message, mend, **where)  # type: ignore[arg-type]  # keywords of Problem
