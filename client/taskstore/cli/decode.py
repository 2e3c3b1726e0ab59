"""The fields of a record's line, read with SQLite's JSON functions.

Every command that reads has SQLite loaded; Python's json would add a third to the time it takes to start.
"""

import apsw

_TYPES = {"true": True, "false": False}


class Nested(str):
    """The JSON text of a list or an object."""

    __slots__ = ()


def decoder() -> "apsw.Connection":
    """A connection for `fields`; one serves any number of lines."""
    return apsw.Connection(":memory:")


def fields(connection: "apsw.Connection", line: str) -> dict[str, object]:
    """The fields of a record by name, in the order of the line; lists and objects as `Nested` text."""
    return {key: _TYPES.get(type_, Nested(value) if type_ in {"array", "object"} else value)
            for key, value, type_ in connection.execute("SELECT key, value, type FROM json_each(?)", (line,))}
