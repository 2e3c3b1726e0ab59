"""The fields of a record's line, read with SQLite's JSON functions.

Every command that reads has SQLite loaded; Python's json would add a third to the time it takes to start.
"""

import apsw

_TYPES = {"true": True, "false": False}


class Nested(str):
    """The JSON text of a value."""

    __slots__ = ()


def decoder() -> "apsw.Connection":
    """A connection for `fields`; one serves any number of lines."""
    return apsw.Connection(":memory:")


def fields(connection: "apsw.Connection", line: str) -> dict[str, object]:
    """The fields of a record by name, in the order of the line.

    Lists, objects and numbers that SQLite cannot hold exactly come as the `Nested` text they have there.
    """
    rows = connection.execute("SELECT key, value, type, ?1 -> fullkey FROM json_each(?1)", (line,))
    return {key: _TYPES.get(type_, Nested(text) if type_ in {"array", "object"} or isinstance(value, float) else value)
            for key, value, type_, text in rows}
