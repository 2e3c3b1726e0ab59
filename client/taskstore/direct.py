"""Method calls carried out in this process, on the files."""

from taskstore_core.methods import dispatch
from taskstore_core.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self


class Direct:
    """A connection that needs no daemon."""

    def __init__(self, engine: Store) -> None:
        self.engine = engine

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, parameters: dict[str, object]) -> "Any":  # noqa: ANN401 - plain data, as JSON has it
        """The answer of a method as plain data, records as the JSON text they have; raises its error."""
        return dispatch(self.engine, method, parameters)

    def close(self) -> None:
        """Let go of the store."""
        self.engine.close()
