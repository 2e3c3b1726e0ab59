"""The typed library: the method table with types on it."""

import json
from typing import Any, Self

from taskstore_core.methods import dispatch
from taskstore_core.plain import Json
from taskstore_core.records import Record, RecordT, from_line, to_fields
from taskstore_core.store import Store as Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Store:
    """A store of typed records. One thread at a time; any number of processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, path: str = ".", *, directory: str | None = None) -> Self:
        """Open the store of the repository that `path` lies in, or the one in `directory`.

        Raises NoStoreError where there is none, UnsupportedVersionError for one of a newer release.
        """
        return cls(Engine.open(path, directory=directory))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        self._engine.close()

    def create(self, record: RecordT) -> RecordT:
        """Create a record and return it as stored: with an id if it had none, and its stamps.

        Raises ExistsError, InvalidError, ReadOnlyError, BusyError.
        """
        return self._one(type(record), "record.create", kind=record.kind, record=to_fields(record))

    def get(self, type_: type[RecordT], id: str) -> RecordT:  # noqa: A002 - the field's name
        """The live record with this id, or with the only id that begins so; raises NotFoundError."""
        return self._one(type_, "record.get", kind=type_.kind, id=id)

    def update(self, type_: type[RecordT], id: str, /, *, if_updated_at: int | None = None,  # noqa: A002
               **changes: object) -> RecordT:
        """Change fields of a record and return its next version; fields no one here knows may be set too.

        Raises NotFoundError, ConflictError if its version is not `if_updated_at`, InvalidError, ReadOnlyError,
        BusyError.
        """
        return self._one(type_, "record.update", kind=type_.kind, id=id, set=changes, if_updated_at=if_updated_at)

    def delete(self, type_: type[Record], id: str, *, if_updated_at: int | None = None) -> None:  # noqa: A002
        """Delete a record; raises NotFoundError, ConflictError, ReadOnlyError, BusyError."""
        dispatch(self._engine, "record.delete", {"kind": type_.kind, "id": id, "if_updated_at": if_updated_at})

    def list(self, type_: type[RecordT], where: "Mapping[str, object] | None" = None, /, *, order: str | None = None,
             **equal: object) -> list[RecordT]:
        """The live records for which every field in `equal` and every condition in `where` holds.

        `where` is {field: {operator: value}} with eq, ne, gt, ge, lt, le, in, contains; `order` a field, with a
        leading "-" for descending. Raises InvalidError.
        """
        answer: Any = dispatch(self._engine, "record.list", {
            "kind": type_.kind, "where": {**(where or {}), **equal}, "order": order})
        return [from_line(type_, line) for line in answer["items"]]

    def sync(self, *, full: bool = False) -> dict[str, Any]:
        """Bring the cache level with the logs; what was read and changed. Reading does so by itself."""
        answer: Any = dispatch(self._engine, "store.sync", {"full": full})
        return dict(answer)

    def stats(self) -> dict[str, Any]:
        """Counts by kind and status."""
        answer: Any = dispatch(self._engine, "store.stats", {})
        return dict(answer["kinds"])

    def _one(self, type_: type[RecordT], method: str, **parameters: object) -> RecordT:
        answer = dispatch(self._engine, method, parameters)
        return from_line(type_, answer if isinstance(answer, Json) else json.dumps(answer))
