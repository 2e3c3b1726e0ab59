"""Tables: aligned columns, cut to the terminal's width by rich, whole and plain in a pipe."""

import sys

from .text import is_terminal, visible, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_WHOLE = 24  # cells up to which a column is never cut, but for the last
_LEAST = 8  # that the last keeps
_STYLES = {"complete": "green", "active": "cyan", "running": "cyan", "failed": "red", "cancelled": "dim",
           "stopped": "red", "paused": "yellow", "ready": "yellow"}


def print_table(headings: "Sequence[str]", rows: "Sequence[Sequence[str]]", *, right: "Sequence[str]" = ()) -> None:
    """Print rows under their headings, those of the columns named in `right` aligned to the right."""
    cells = [[visible(cell) for cell in row] for row in rows]
    if is_terminal():
        _print_rich(headings, cells, right)
        return
    widths = [max(map(width, column)) for column in zip(headings, *cells, strict=True)]
    for row in (headings, *cells):
        parts = []
        for heading, cell, wide in zip(headings, row, widths, strict=True):
            space = " " * (wide - width(cell))
            parts.append(space + cell if heading in right else cell + space)
        sys.stdout.write("  ".join(parts).rstrip() + "\n")


def _print_rich(headings: "Sequence[str]", rows: "Sequence[Sequence[str]]", right: "Sequence[str]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    columns = list(zip(headings, *rows, strict=True))
    whole = [min(_WHOLE, max(map(width, column))) for column in columns[:-1]]
    room = max(_LEAST, console.width - sum(whole) - 2 * len(whole))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column, least in zip(columns, [*whole, _LEAST], strict=True):
        table.add_column(column[0], justify="right" if column[0] in right else "left", no_wrap=True,
                         overflow="ellipsis", min_width=least, max_width=room if column is columns[-1] else None)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.print(table)
