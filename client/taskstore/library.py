"""The typed library: calls carried out one after the other, each waited for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar

from .calls import Call
from .changes import Changes as PlainChanges
from .connection import Connection
from .events import BranchChanged, Changed, Resync, typed
from .interface import Interface

T = TypeVar("T")


class Changes:
    """An iterator over `Changed`, `Resync` and `BranchChanged`; `cursor` is where it is."""

    def __init__(self, changes: PlainChanges) -> None:
        self._changes = changes

    @property
    def cursor(self) -> str:
        """Given as `since` later, another goes on from here, and misses nothing.

        Changes that were made together are told together, in one go: until the last of them has been taken, the cursor
        is before all of them.
        """
        return self._changes.cursor

    def __iter__(self) -> Iterator[Changed | Resync | BranchChanged]:
        return map(typed, self._changes)


class Store(Interface):
    """A store of typed records. One thread at a time; any number of processes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: str = ".", *, directory: str | None = None) -> Self:
        """Open the store of the repository that `path` lies in, or the one in `directory`, by its files.

        Raises NoStoreError where there is none, UnsupportedVersionError for one of a newer release.
        """
        return cls(Connection.open(path, directory=directory, daemon=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        self._connection.close()

    def run(self, call: Call[T]) -> T:
        """Carry out a call."""
        return call.decode(self._connection.call(call.method, call.parameters))

    @contextmanager
    def changes(self, *, kinds: Sequence[str] | None = None, where: Mapping[str, object] | None = None,
                since: str | None = None) -> "Iterator[Changes]":
        """What changes from now on, or after the cursor `since`: an endless iterator.

        `kinds` and `where` (as in `list`) say what to hear of. Raises InvalidError.
        """
        with PlainChanges(self._connection, kinds, None if where is None else dict(where), since) as changes:
            yield Changes(changes)


def connect(path: str = ".", *, directory: str | None = None, daemon: bool = True, start: bool = False) -> Store:
    """The store of the repository that `path` lies in, or the one in `directory`.

    Through its daemon where one answers, unless `daemon` is False, else by its files: that changes the speed, and
    nothing else. `start` (or TASKSTORE_AUTOSTART=1 in the environment) starts a daemon where none runs.
    Raises NoStoreError where there is none, UnsupportedVersionError for one of a newer release.
    """
    return Store(Connection.open(path, directory=directory, daemon=daemon, start=start))
