"""Which record a word of the command line names: an id, or the beginning of just one.

An id that is there, or was and is deleted, is always meant itself and never as the beginning of a longer one.
"""

from taskstore_core.errors import ConflictError, NotFoundError
from taskstore_core.kinds import KINDS, Kind

from .decode import decoder, fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from taskstore_core.plain import Json

    from .opening import Opened


def find_record(store: "Opened", kind: Kind, word: str) -> "tuple[str, Json]":
    """The id and the line of the live record that a word names; raises NotFoundError."""
    line = store.call("record.get", {"kind": kind.name, "id": word})
    return str(fields(decoder(), line)[kind.key]), line


def prd_of(store: "Opened", word: str) -> str:
    """The id of a PRD: also one that is not in the store, if task specs name it. Raises NotFoundError."""
    named = store.call("record.list", {"kind": "task_spec", "where": {"prd_id": word}, "limit": 1})
    return word if named["items"] else find_record(store, KINDS["prd"], word)[0]


def call_of(store: "Opened", method: str, kind: Kind, word: str,
            parameters: "dict[str, object]") -> "Any":  # noqa: ANN401 - plain data, as JSON has it
    """The answer of a method about the record that a word names: the word itself first, so that it costs one call."""
    try:
        return store.call(method, {"id": word, **parameters})
    except (NotFoundError, ConflictError) as error:
        key = find_record(store, kind, word)[0]
        if key == word:
            raise error from None
    return store.call(method, {"id": key, **parameters})


def history_of(store: "Opened", kind: Kind, word: str) -> "tuple[str, dict[str, Any]]":
    """The id of a record, live or deleted, and what record.history answers about it; raises NotFoundError."""
    try:
        return word, store.call("record.history", {"kind": kind.name, "id": word})
    except NotFoundError:
        key = find_record(store, kind, word)[0]
    return key, store.call("record.history", {"kind": kind.name, "id": key})
