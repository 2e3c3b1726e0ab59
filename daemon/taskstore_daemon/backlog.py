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
    """What one connection has not been answered yet, in order.

    First come writes that are on their way to the disk, whose answers nobody waits for here, then the entries, which
    stay until they are answered.
    """

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._size = 0
        self._flying = 0
        self._changed: trio.Event | None = None

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def is_busy(self) -> bool:
        """Whether anything is not answered yet, so that a read must wait for its turn."""
        return self._flying > 0 or bool(self._entries)

    def take_off(self, size: int, count: int = 1) -> None:
        """Note so many writes, of `size` bytes together, that are on their way."""
        self._flying += count
        self._size += size

    def land(self, size: int, count: int = 1) -> None:
        """Note that they are answered."""
        self._flying -= count
        self._size -= size
        self._tell()

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
        self._tell()

    def find(self, id_: str) -> Entry | None:
        """The call with an id."""
        return next((found for entry in self._entries if (found := entry.find(id_))), None)

    async def room(self) -> None:
        """Wait until more may be read."""
        while len(self._entries) + self._flying > rpc.IN_FLIGHT or self._size > rpc.FRAME_BYTES:
            await self._change()

    async def landed(self) -> None:
        """Wait until no writes are on their way."""
        while self._flying:
            await self._change()

    async def empty(self) -> None:
        """Wait until everything is answered."""
        while self.is_busy:
            await self._change()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
