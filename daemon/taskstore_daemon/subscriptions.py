"""A subscription: what a client wants to hear of, and what waits to be sent to it. It never blocks a writer."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import trio
from prometheus_client import Counter

from taskstore_core import rpc
from taskstore_core.feed import Change, Cursor
from taskstore_core.interest import Interest
from taskstore_core.plain import Json, to_json

Send = Callable[[bytes], Awaitable[None]]

_EVENT_BYTES = 1 << 18
"""About how much is told in one event."""


class Subscription:
    """What one client is told. A queue that grows too long is dropped for one `changes.resync`."""

    def __init__(self, number: int, interest: Interest, resyncs: Counter) -> None:
        self.number = number
        self.interest = interest
        self._resyncs = resyncs
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._wake = trio.Event()
        self._is_over = False

    def put(self, changes: Sequence[Change], cursor: Cursor) -> None:
        """Queue changes; `cursor` is where its reader has got with the last of them."""
        items: list[str] = []
        size = 0
        for number, change in enumerate(changes):
            items.append(_item(change))
            size += len(items[-1])
            if size > _EVENT_BYTES and number + 1 < len(changes):
                self._put((cursor[0], change.seq), items)
                items, size = [], 0
        if items:
            self._put(cursor, items)

    def _put(self, cursor: Cursor, items: list[str]) -> None:
        self._say("changes.event", cursor=write_cursor(cursor), changes=[Json(item) for item in items], at=cursor)

    def put_branch(self, branch: str, cursor: Cursor) -> None:
        """Queue the news that another branch is checked out."""
        self._say("changes.branch_changed", branch=branch, at=cursor)

    def resync(self, cursor: Cursor) -> None:
        """Drop what waits: its reader must look at everything anew."""
        self._resyncs.inc()
        self._queue.clear()
        self._size = 0
        self._say("changes.resync", cursor=write_cursor(cursor), at=cursor)

    def _say(self, method: str, *, at: Cursor, **parameters: object) -> None:
        frame = rpc.notification(method, {"subscription": self.number, **parameters})
        if len(frame) > rpc.FRAME_BYTES or (self._queue and self._size + len(frame) > rpc.QUEUED_BYTES):
            self.resync(at)
            return
        self._queue.append(frame)
        self._size += len(frame)
        self._wake.set()

    async def run(self, send: Send) -> None:
        """Send what is queued until `end`, whole frames only."""
        while not self._is_over:
            if not self._queue:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            frame = self._queue.popleft()
            self._size -= len(frame)
            await send(frame)

    def end(self) -> None:
        """Send no more. What is being sent is not cut off: that would garble what follows on the connection."""
        self._is_over = True
        self._queue.clear()
        self._wake.set()


def _item(change: Change) -> str:
    return (f'{{"kind":"{change.kind.name}","id":{to_json(change.key)},"op":"{change.op}",'
            f'"record":{"null" if change.raw is None else change.raw}}}')


def write_cursor(cursor: Cursor) -> str:
    """A cursor as it goes over the wire."""
    return f"{cursor[0]}:{cursor[1]}"
