"""The order of the versions of one id: whoever reads a log, syncs or merges it asks here which line is its state.

The newest version is the state of its id; of equal versions, the later line in the file. (SQLite decides the same for a
whole log at once: `schema.upsert_statement`.)
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .jsonl import Row


def supersedes(row: "Row", known: "Row") -> bool:
    """Whether `row` is the state of its id where `known`, which stands before it in the file, was."""
    return row[1] >= known[1]


def newest(rows: "Iterable[Row]") -> "dict[str, Row]":
    """The state of each id, tombstones included, of rows in the order of their file."""
    states: dict[str, Row] = {}
    for row in rows:
        known = states.get(row[0])
        if known is None or supersedes(row, known):
            states[row[0]] = row
    return states


def rank(row: "Row") -> "tuple[int, str, str]":
    """What sorts rows that stand in no common file: version, id, text. Unequal for unequal lines."""
    return row[1], row[0], row[3]
