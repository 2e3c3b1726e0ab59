"""What goes into `Store.apply`, and what comes out of `page`, `history` and `claim`."""

import json
from typing import Any, Generic

from taskstore_core.jsonl import version_of
from taskstore_core.kinds import KINDS
from taskstore_core.records import Record, RecordT, TaskSpec, from_line, to_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Operation:
    """One of several that happen together; see its kinds below."""

    __slots__ = ("_parameters", "_verb", "type")

    def __init__(self, verb: str, type_: type[Record], parameters: "Mapping[str, object]") -> None:
        self.type = type_
        self._verb = verb
        self._parameters = parameters

    def plain(self) -> dict[str, object]:
        """As it goes over the wire."""
        given = {name: value for name, value in self._parameters.items() if value is not None}
        return {"op": self._verb, "kind": self.type.kind, **given}


class Create(Operation):
    """Create a record."""

    __slots__ = ()

    def __init__(self, record: Record) -> None:
        super().__init__("create", type(record), {"record": to_fields(record)})


class Update(Operation):
    """Change fields of a record."""

    __slots__ = ()

    def __init__(self, type_: type[Record], id: str, /, *, if_updated_at: int | None = None,  # noqa: A002
                 **changes: object) -> None:
        super().__init__("update", type_, {"id": id, "set": changes, "if_updated_at": if_updated_at})


class Delete(Operation):
    """Delete a record."""

    __slots__ = ()

    def __init__(self, type_: type[Record], id: str, *, if_updated_at: int | None = None) -> None:  # noqa: A002
        super().__init__("delete", type_, {"id": id, "if_updated_at": if_updated_at})


class Restore(Operation):
    """Bring back an earlier version of a record."""

    __slots__ = ()

    def __init__(self, type_: type[Record], id: str, *, version: int | None = None) -> None:  # noqa: A002
        super().__init__("restore", type_, {"id": id, "version": version})


class Import(Operation):
    """Take in a line from elsewhere under its own stamps, unless its version or a newer one is here."""

    __slots__ = ()

    def __init__(self, type_: type[Record], line: "Mapping[str, object]") -> None:
        super().__init__("import", type_, {"record": dict(line)})


class Page(Generic[RecordT]):
    """A part of a list. `cursor` is what the next call goes on from, None at the end."""

    __slots__ = ("cursor", "items")

    def __init__(self, items: list[RecordT], cursor: str | None) -> None:
        self.items = items
        self.cursor = cursor


class Version(Generic[RecordT]):
    """One version of a record: `record` is None for a deletion; `updated_at` is what `restore` takes.

    `lost` tells that it lost to another whose writer had not seen it.
    """

    __slots__ = ("lost", "record", "updated_at")

    def __init__(self, record: RecordT | None, updated_at: int, *, lost: bool = False) -> None:
        self.record = record
        self.updated_at = updated_at
        self.lost = lost

    @classmethod
    def read(cls, type_: type[RecordT], line: str, *, lost: bool = False) -> "Version[RecordT]":
        """From a line of the log."""
        fields = json.loads(line)
        record = None if fields.get("deleted") is True else from_line(type_, line)
        return cls(record, version_of(KINDS[type_.kind], fields), lost=lost)


class Claim:
    """A claimed task spec: `spec` as it was then, `by` whom, and the `token` that proves it."""

    __slots__ = ("by", "spec", "token")

    def __init__(self, spec: TaskSpec, by: str, token: str) -> None:
        self.spec = spec
        self.by = by
        self.token = token

    @classmethod
    def read(cls, line: str, by: str) -> "Claim":
        """From the answer of a claim: the record with its token."""
        token = str(json.loads(line)["token"])
        spec = from_line(TaskSpec, line)
        spec.extra.pop("token", None)
        return cls(spec, by, token)

    @property
    def id(self) -> str:
        """The id of the task spec."""
        return self.spec.id

    def proof(self) -> dict[str, Any]:
        """What a holder shows."""
        return {"id": self.spec.id, "by": self.by, "token": self.token}

    def __repr__(self) -> str:
        return f"Claim({self.id!r}, by={self.by!r})"
