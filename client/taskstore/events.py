"""What happened: events of a store, and how far one has got in hearing of them. No sockets here, and no waiting."""

from taskstore_core.feed import Cursor, read
from taskstore_core.interest import Interest
from taskstore_core.plain import Json, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from taskstore_core.records import Record
    from taskstore_core.store import Store as Engine

    Event = "Changed | Resync | BranchChanged"

_AT_ONCE = 1000


class Changed:
    """A record came ("create"), changed ("update") or went ("delete"); `record` as it is now, None if it is gone."""

    __slots__ = ("id", "kind", "op", "record")

    def __init__(self, kind: str, key: str, op: str, record: "Record | None") -> None:
        self.kind = kind
        self.id = key
        self.op = op
        self.record = record

    def __repr__(self) -> str:
        return f"Changed({self.kind!r}, {self.id!r}, {self.op!r})"


class Resync:
    """Some events may have been missed: look at everything anew."""

    __slots__ = ()


class BranchChanged:
    """Another branch is checked out where the store lies; its changes follow."""

    __slots__ = ("branch",)

    def __init__(self, branch: str) -> None:
        self.branch = branch


def typed(event: "dict[str, Any]") -> "Changed | Resync | BranchChanged":
    """An event with types; raises InvalidError for a record whose values are outside their types."""
    from taskstore_core.records import TYPES, from_line

    if "resync" in event:
        return Resync()
    if "branch" in event:
        return BranchChanged(event["branch"])
    record = event["record"]
    return Changed(event["kind"], event["id"], event["op"],
                   None if record is None else from_line(TYPES[event["kind"]], record))


class Tracker:
    """How far somebody has got: `cursor`, and the events that are `waiting` to be handed out, as plain data.

    Each is {"kind", "id", "op", "record"} with `record` as JSON text or None, {"resync": True} or {"branch": name}.
    A daemon tells several changes together, with one cursor behind them: whoever has been handed some of them is still
    before it, and goes on with all of them.
    """

    def __init__(self, kinds: "Sequence[str] | None", where: "dict[str, object] | None", since: str | None) -> None:
        """Raises InvalidError for a kind or a filter that makes no sense."""
        self.cursor = since
        self.waiting: list[dict[str, Any]] = []
        self._reached = since
        self._interest = Interest(kinds, where)

    def hand_out(self) -> "dict[str, Any]":
        """The next of the events that wait."""
        event = self.waiting.pop(0)
        self._reach(self._reached)
        return event

    def _reach(self, cursor: str | None) -> None:
        """Note where its holder is once everything that waits has been handed out."""
        self._reached = cursor
        if not self.waiting:
            self.cursor = cursor

    def wanted(self) -> dict[str, object]:
        """The parameters of `changes.subscribe` that go on from here."""
        given: dict[str, object] = {"kinds": self._interest.kinds, "where": self._interest.where, "since": self.cursor}
        return {name: value for name, value in given.items() if value is not None}

    def begin(self, answer: "dict[str, Any]") -> None:
        """Take the answer of `changes.subscribe`."""
        if answer["fresh"]:
            self.waiting.append({"resync": True})
        self._reach(answer["cursor"])

    def take(self, method: str, parameters: "dict[str, Any]") -> None:
        """Take a notification of a daemon."""
        if method == "changes.event":
            for change in parameters["changes"]:
                record = change["record"]
                self.waiting.append({**change, "record": None if record is None else Json(to_json(record))})
            self._reach(parameters["cursor"])
        elif method == "changes.branch_changed":
            self.waiting.append({"branch": parameters["branch"]})
        elif method == "changes.resync":
            self.waiting.append({"resync": True})
            self._reach(parameters["cursor"])

    def look(self, engine: "Engine") -> None:
        """Take what the files say."""
        since = _parse(self.cursor)
        found, fitting = engine.ask(
            lambda cache: (changes := read(cache, since, _AT_ONCE), self._interest.fitting(cache, changes.items)))
        if found.fresh:
            self.waiting.append({"resync": True})
        self.waiting += [{"kind": change.kind.name, "id": change.key, "op": change.op,
                          "record": None if change.raw is None else Json(change.raw)} for change in fitting]
        self._reach(f"{found.cursor[0]}:{found.cursor[1]}")


def _parse(text: str | None) -> "Cursor | None":
    if text is None:
        return None
    epoch, _, number = text.rpartition(":")
    return epoch, int(number) if number.isascii() and number.isdigit() else -1
