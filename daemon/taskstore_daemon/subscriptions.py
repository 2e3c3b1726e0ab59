"""A subscription: what a client wants to hear of, and what waits to be sent to it. It never blocks a writer."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import trio

from taskstore_core import query, rpc
from taskstore_core.feed import Change
from taskstore_core.kinds import KINDS
from taskstore_core.plain import Json

if TYPE_CHECKING:
    from taskstore_core.cache import Cache

Send = Callable[[bytes], Awaitable[None]]


class Subscription:
    """What one client is told. A queue that grows too long is dropped for one `changes.resync`."""

    def __init__(self, number: int, kinds: list[str] | None, where: dict[str, object] | None) -> None:
        """Raises InvalidError for a `where` that makes no sense for one of the kinds."""
        self.number = number
        self.kinds = kinds
        self.where = where
        for name in kinds or (KINDS if where else ()):
            query.build(KINDS[name], where)
        self.cursor = ""
        self.resyncs = 0
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._wake = trio.Event()
        self._scope = trio.CancelScope()

    def fitting(self, cache: "Cache", changes: Iterable[Change]) -> list[Change]:
        """Those of the changes that it is to hear of: of its kinds, gone or fitting `where` now."""
        wanted = [change for change in changes if self.kinds is None or change.kind.name in self.kinds]
        if not self.where:
            return wanted
        live: dict[str, list[str]] = {}
        for change in wanted:
            if change.raw is not None:
                live.setdefault(change.kind.name, []).append(change.key)
        fits = {(name, key) for name, keys in live.items() for key in _those_that_fit(cache, name, keys, self.where)}
        return [change for change in wanted if change.raw is None or (change.kind.name, change.key) in fits]

    def put(self, cursor: str, changes: list[Change]) -> None:
        """Queue an event."""
        self.cursor = cursor
        items = [{"kind": change.kind.name, "id": change.key, "op": change.op,
                  "record": None if change.raw is None else Json(change.raw)} for change in changes]
        self._push(rpc.notification("changes.event", {"subscription": self.number, "cursor": cursor,
                                                      "changes": items}))

    def put_branch(self, branch: str) -> None:
        """Queue the news that another branch is checked out."""
        self._push(rpc.notification("changes.branch_changed", {"subscription": self.number, "branch": branch}))

    def resync(self, cursor: str) -> None:
        """Drop what waits: its reader must look at everything anew."""
        self.cursor = cursor
        self.resyncs += 1
        self._queue.clear()
        self._size = 0
        self._push(rpc.notification("changes.resync", {"subscription": self.number, "cursor": cursor}))

    def _push(self, frame: bytes) -> None:
        if self._size + len(frame) > rpc.QUEUED_BYTES and self._queue:
            self.resync(self.cursor)
            return
        self._queue.append(frame)
        self._size += len(frame)
        self._wake.set()

    async def run(self, send: Send) -> None:
        """Send what is queued until `end`."""
        with self._scope:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._queue:
                    frame = self._queue.popleft()
                    self._size -= len(frame)
                    await send(frame)

    def end(self) -> None:
        """Send no more."""
        self._scope.cancel()


def _those_that_fit(cache: "Cache", name: str, keys: list[str], where: dict[str, object]) -> list[str]:
    kind = KINDS[name]
    among: dict[str, object] = {"in": list(keys)}
    given = where.get(kind.key)
    tests = {**where, kind.key: [among] if given is None else [among, given if isinstance(given, dict) else
                                                              {"eq": given}]}
    wanted = query.build(kind, tests)
    return [str(row[0]) for row in cache.db.execute(wanted.sql, wanted.parameters)]
