"""Writes that a store has yet to put into its cache: they stand in their logs, and here for whoever builds on them.

Taking a line into the cache costs several times what writing it does, and many at once cost little more than one.
So a daemon answers a write when it is durable, and lets its cache follow when somebody reads or nothing else is to
be done. To other processes that cache is behind its logs, as after any change by git, and they bring it level.
"""

from .kinds import LOGS, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .drain import Sealed
    from .view import View


class Lag:
    """What the cache lacks. `view` is what is true over it; `lines` how many lines that is."""

    def __init__(self, view: "View") -> None:
        self.view = view
        self.sealed: Sealed = {}
        self.lines = 0

    def take(self, view: "View", sealed: "Sealed") -> None:
        """Add what was written under `view`, a view above this one, whose leases are stored already."""
        self.view.absorb(view)
        self.view.leases.clear()
        self.view.noticed.clear()
        self.lines += len(view.written)
        self.sealed = joined(self.sealed, sealed)

    def touches(self, kinds: "Iterable[Kind]") -> bool:
        """Whether the cache lacks a line of these kinds."""
        return not set(self.kinds()).isdisjoint(kinds)

    def kinds(self) -> list[Kind]:
        """The kinds whose lines the cache lacks."""
        return [LOGS[log] for log in self.sealed]


def joined(first: "Sealed", second: "Sealed") -> "Sealed":
    """The signatures around appends that followed one another; those of the last where somebody else came between."""
    return {**first, **{log: (first[log][0], after) if log in first and first[log][1] == before else (before, after)
                        for log, (before, after) in second.items()}}
