"""The store under trio: reads at once where that is right, writes in groups, one user of the store at a time.

A read that finds the files as they were is answered on the loop: 10 µs, where a hop to a thread would cost 280. What
may take long (a sync after git's work, several writes) runs in a thread, and reads wait for it. Everything that is
waiting to be written when a commit begins shares it: one lock, one append a log, one fdatasync, one transaction.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from taskstore_core.errors import BusyError, TaskStoreError
from taskstore_core.kinds import KINDS, Kind
from taskstore_core.request import Outcome, Request
from taskstore_core.store import Store

from .metrics import Metrics

T = TypeVar("T")

_FLUSH_S = 1.0
GROUP = 512
"""Requests in one commit at the most, so that none waits for a very long one."""
ALL = tuple(KINDS.values())


class _Waiting:
    """A request in the queue, and its outcome once there is one."""

    __slots__ = ("done", "outcome", "request", "since")

    def __init__(self, request: Request, since: float) -> None:
        self.request = request
        self.since = since
        self.done = trio.Event()
        self.outcome: Outcome | TaskStoreError | None = None


class Engine:
    """A store, for all connections of the daemon. `on_change` is called after whatever may have changed it."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self.store = store
        self.metrics = metrics
        self.on_change: Callable[[], None] = lambda: None
        self.changed = trio.Event()
        self._alone = trio.Lock()
        self._long = trio.Lock()
        self._second: Store | None = None
        self._queue: list[_Waiting] = []
        self._wake = trio.Event()
        self._closing = False

    # Reading

    def is_fresh(self, kinds: Sequence[Kind] = ALL) -> bool:
        """Whether a read of `kinds` can be answered on the loop now."""
        return not self._alone.locked() and self.store.is_fresh(kinds)

    async def in_thread(self, work: Callable[[Store], T]) -> T:
        """Do something with the store in a thread; nobody else uses it meanwhile."""
        async with self._alone:
            answer = await trio.to_thread.run_sync(work, self.store)
        self.on_change()
        return answer

    async def at_length(self, work: Callable[[Store], T]) -> T:
        """Read much in a thread, with a store of its own, so that others go on meanwhile."""
        async with self._long:
            return await trio.to_thread.run_sync(self._with_second, work)

    def _with_second(self, work: Callable[[Store], T]) -> T:
        if self._second is None:
            self._second = Store(self.store.paths)
        return work(self._second)

    async def refresh(self) -> bool:
        """Take in what somebody else changed; whether there was anything."""
        if self.is_fresh():
            return False
        with self.metrics.sync.time():
            await self.in_thread(lambda store: store.look(ALL))
        return True

    def tell_waiters(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = trio.Event()

    # Writing

    async def write(self, requests: Sequence[Request]) -> list[Outcome | TaskStoreError]:
        """The outcomes of requests once what they wrote is durable. Cancelling it changes nothing that was begun."""
        waiting = [_Waiting(request, trio.current_time()) for request in requests]
        self._queue += waiting
        self._wake.set()
        for one in waiting:
            await one.done.wait()
        return [one.outcome for one in waiting if one.outcome is not None]

    def oldest_waiting_s(self) -> float:
        """How long the oldest write that is not yet durable has waited, in seconds; 0 if there is none."""
        return max((trio.current_time() - one.since for one in self._queue), default=0.0)

    @property
    def waiting(self) -> int:
        """How many writes are not yet durable."""
        return len(self._queue)

    async def flush(self) -> bool:
        """Whether every line stands in its log, after trying for a second."""
        with trio.move_on_after(_FLUSH_S):
            while await self.in_thread(lambda store: any(store.pending(kind) for kind in ALL)):
                await trio.sleep(0.02)
                await self.in_thread(lambda store: store.sync())
            return True
        return False

    async def run(self) -> None:
        """Commit what waits, for as long as the daemon lives; ends after `finish` when nothing waits any more."""
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake = trio.Event()
                await self._wake.wait()
            async with self._alone:
                await self._commit(self._queue[:GROUP])

    def finish(self) -> None:
        """End `run` once everything that waits is written."""
        self._closing = True
        self._wake.set()

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()
        if self._second is not None:
            self._second.close()

    async def _commit(self, group: list[_Waiting]) -> None:
        requests = [one.request for one in group]
        outcomes: Sequence[Outcome | TaskStoreError]
        with self.metrics.commit.time():
            try:
                outcomes = await self._carry_out(requests)
            except TaskStoreError as error:
                outcomes = [error] * len(group)
        self.metrics.group.observe(len(group))
        del self._queue[:len(group)]
        for one, outcome in zip(group, outcomes, strict=True):
            one.outcome = outcome
            one.done.set()
        self.on_change()

    async def _carry_out(self, requests: list[Request]) -> Sequence[Outcome | TaskStoreError]:
        """One write on the loop if nothing is in its way; otherwise in a thread."""
        if len(requests) == 1 and self.store.is_fresh(ALL):
            try:
                return self.store.commit(requests, wait_s=0)
            except BusyError:
                pass  # somebody else holds the lock: wait for it where nobody else has to
        return await trio.to_thread.run_sync(self.store.commit, requests)

    async def settle(self) -> None:
        """Fsync the logs that were written to, now and then, so that the outbox alone has little to answer for."""
        while True:
            await trio.sleep(1)
            if self.store.is_unsettled:
                async with self._alone:
                    await trio.to_thread.run_sync(self.store.settle)
