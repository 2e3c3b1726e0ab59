"""What a connection was asked and has not answered yet, in order; each can be taken back."""

from collections import deque
from collections.abc import Iterable, Iterator

import trio

from taskstore_core import rpc

from .work import Work


class Entry:
    """A call to be carried out, an answer that is known already, or the entries of a batch. `size` are its bytes."""

    __slots__ = ("item", "scope", "size")

    def __init__(self, item: "Work | bytes | list[Entry]", size: int) -> None:
        self.item = item
        self.size = size
        self.scope = trio.CancelScope()

    def writes(self) -> bool:
        """Whether it may share a commit with its neighbours."""
        return isinstance(self.item, Work) and self.item.writes

    def find(self, id_: str) -> "Entry | None":
        """The call with an id, here or in the batch."""
        if isinstance(self.item, list):
            return next((found for entry in self.item if (found := entry.find(id_))), None)
        return self if isinstance(self.item, Work) and self.item.call.id == id_ else None


def runs(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries in order, with neighbouring writes together."""
    writes: list[Entry] = []
    for entry in entries:
        if entry.writes():
            writes.append(entry)
            continue
        if writes:
            yield writes
            writes = []
        yield [entry]
    if writes:
        yield writes


class Backlog:
    """The entries of one connection. Those that are being answered stay in it until they are."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._size = 0
        self._changed = trio.Event()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def put(self, entry: Entry) -> None:
        """Add one at the end."""
        self._entries.append(entry)
        self._size += entry.size

    def first(self) -> list[Entry]:
        """What to answer next: one, or several writes."""
        return next(runs(self._entries))

    def drop(self, count: int) -> None:
        """Be done with the first ones."""
        for _ in range(count):
            self._size -= self._entries.popleft().size
        self._changed.set()
        self._changed = trio.Event()

    def find(self, id_: str) -> Entry | None:
        """The call with an id."""
        return next((found for entry in self._entries if (found := entry.find(id_))), None)

    async def room(self) -> None:
        """Wait until more may be read."""
        while len(self._entries) > rpc.IN_FLIGHT or self._size > rpc.FRAME_BYTES:
            await self._changed.wait()

    async def empty(self) -> None:
        """Wait until everything is answered."""
        while self._entries:
            await self._changed.wait()
