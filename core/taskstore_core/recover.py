"""Bringing back lines that were acknowledged and thrown away: by `git checkout -- FILE`, `git reset --hard`, an editor.

What a branch, the index or a stash has is not among them: git brings that back. A line comes back as it was, byte for
byte and with its own version. So where its record has a newer one by now, it comes back into the history alone.
"""

import time

from . import git_objects, lost
from .errors import BusyError, InvalidError, NotFoundError
from .jsonl import parse_object
from .kinds import KINDS
from .quiet import Quiet
from .request import Request
from .view import SPEC, Written, needs_of, refuse_cycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .lost import Lost
    from .paths import Paths
    from .request import Result
    from .store import Store
    from .view import View

_WAIT_S = 1.0
_LOOK_S = 0.01


def recover(store: "Store", ids: "Sequence[object] | None" = None, *, everything: bool = False) -> dict[str, object]:
    """The lines that can be brought back, as plain data, after doing so for those of the records `ids`, or all.

    Raises InvalidError, NotFoundError for an id of which there is none, BusyError while git is at work, ReadOnlyError.
    """
    if ids and everything:
        raise InvalidError("ids: name them, or take all", field="ids")
    _await_quiet(store)
    found = _find(store)
    chosen = found if everything else _chosen(found, ids or ())
    if chosen:
        store.run(Recovery(store.paths, chosen))
        store.flush(_WAIT_S)
        for one in chosen:
            one.recovered = True
    return {"lines": [one.plain() for one in found], "left": len(found) - len(chosen)}


class Recovery(Request):
    """Lines that are to stand in their logs again, in their order; those that do already are left alone."""

    name = "recover"

    def __init__(self, paths: "Paths", lines: "Sequence[Lost]") -> None:
        super().__init__()
        self._paths = paths
        self._lines = lines

    def decide(self, view: "View") -> "Result":
        """Have the lines written. Raises InvalidError where task specs would wait for one another in a circle."""
        there = lost.standing(self._paths, self._lines)
        for one in self._lines:
            if one in there:
                continue
            known = view.get(one.kind, one.key)
            if known is None or one.row[1] >= known[0]:
                view.put(one.kind, one.row)
            else:
                view.written.append(Written(one.kind, one.row))
        for name, spec in view.rows:
            if name == SPEC.name:
                _follow_up(view, spec)
        return None


def _follow_up(view: "View", spec: str) -> None:
    """What the state of a task spec means for others, as after a `restore`."""
    known = view.get(SPEC, spec)
    assert known is not None  # noqa: S101 - it was written just now
    refuse_cycle(view, spec, needs_of(known))
    if known[1] or parse_object(known[2]).get("status") != "running":
        view.end_lease(spec)


def _await_quiet(store: "Store") -> None:
    """Wait for git, which may be about to put a log into its place; raises BusyError."""
    quiet = Quiet(store.paths)
    end = time.monotonic() + _WAIT_S
    while quiet.is_busy():
        if time.monotonic() > end:
            raise BusyError("git is at work where the store lies", hint="try again when it is done")
        time.sleep(_LOOK_S)


def _find(store: "Store") -> "list[Lost]":
    store.look(KINDS.values())  # which brings back by itself what git swallowed a moment ago
    absent = lost.absent(store)
    there = lost.among(store.paths, absent, git_objects.reachable)
    found = [one for one in absent if one not in there]
    for one in lost.among(store.paths, found, git_objects.held):
        one.held = True
    return found


def _chosen(found: "Sequence[Lost]", ids: "Sequence[object]") -> "list[Lost]":
    """The lines of these records, which may be named by the beginning of their ids, in the order they were written."""
    wanted = {key for word in ids for key in _keys(found, word)}
    return [one for one in found if one.key in wanted]


def _keys(found: "Sequence[Lost]", word: object) -> set[str]:
    if not isinstance(word, str) or not word:
        raise InvalidError("ids: each is text", field="ids")
    keys = {one.key for one in found}
    fitting = {word} & keys or {key for key in keys if key.startswith(word)}
    if len(fitting) != 1:
        raise NotFoundError(f"the lost lines of several records begin with {word}" if fitting else
                            f"no line of {word} can be brought back", hint="taskstore recover lists those that can")
    return fitting
