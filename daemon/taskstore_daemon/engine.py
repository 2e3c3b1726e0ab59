"""The store under trio: reads at once where that is right, writes in groups, one user of the store at a time.

A read that finds the files as they were is answered on the loop: 10 µs, where a hop to a thread would cost 280. What
may take long (a sync after git's work, several writes) runs in a thread, and reads wait for it. Everything that is
waiting to be written when a commit begins shares it: one lock, one append a log, one fdatasync, one transaction.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from taskstore_core.errors import BusyError, TaskStoreError
from taskstore_core.keeper import BehindError
from taskstore_core.kinds import Kind
from taskstore_core.lock import WAIT_S
from taskstore_core.request import Outcome, Request
from taskstore_core.store import Store

from .metrics import Metrics
from .replies import LOG_HINT
from .work import ALL

log = logging.getLogger(__name__)

T = TypeVar("T")
Fresh = set[object]
"""The kinds that were found fresh since others last had their turn."""

_FLUSH_S = 1.0
GROUP = 512
"""Requests in one commit at the most, so that none waits for a very long one."""
_SMALL = 1 << 16
"""Bytes of requests that are written on the loop."""
_FEW = 64
"""Requests that are written, and lines that the cache takes in, on the loop."""
_MANY = 4096
"""Lines that the cache may lag behind."""
_PAUSE_S = 0.01
"""Without a write, after which the cache follows."""
_SLOW_S = 0.005
"""After a commit that took longer, the next is not made on the loop."""


class _Waiting:
    """A request in the queue, and its outcome once there is one."""

    __slots__ = ("done", "outcome", "request", "since", "size")

    def __init__(self, request: Request, size: int) -> None:
        self.request = request
        self.size = size
        self.since = trio.current_time()
        self.done = trio.Event()
        self.outcome: Outcome | TaskStoreError | None = None


class Engine:
    """A store, for all connections of the daemon. `on_change` is called after whatever may have changed it."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self.store = store
        self.metrics = metrics
        self.on_change: Callable[[], None] = lambda: None
        self._alone = trio.Lock()
        self._long = trio.Lock()
        self._second: Store | None = None
        self._queue: list[_Waiting] = []
        self._wake = trio.Event()
        self._closing = False
        self._took_s = 0.0
        self._written = 0.0
        self._writer: object = None
        self._lagging = trio.Event()

    # Reading

    def look_up(self, kind: str, key: str, held: Fresh) -> str | None:
        """The line of a live record if that can be told at once; `held` are kinds whose logs were just looked at."""
        if self._alone.locked():
            return None
        line = self.store.look_up(kind, key, trusted=kind in held)
        if line is not None:
            held.add(kind)
        return line

    def is_fresh(self, kinds: Sequence[Kind], fresh: Fresh) -> bool:
        """Whether a read of `kinds` can be answered on the loop now; noted in `fresh`, and believed if it is there."""
        if kinds in fresh:
            return True
        if self._alone.locked() or not self._is_fresh(kinds):
            return False
        fresh.add(kinds)
        return True

    def _is_fresh(self, kinds: Sequence[Kind]) -> bool:
        """Whether `kinds` can be read at once, after taking in a few lines of our own if need be."""
        if self.store.is_fresh(kinds):
            return True
        return (0 < self.store.lag <= _FEW and self.store.holds(ALL) and self._catch_up(wait_s=0)
                and self.store.is_fresh(kinds))

    def _catch_up(self, wait_s: float = WAIT_S) -> bool:
        """Whether the cache has followed what was written."""
        try:
            return self.store.catch_up(wait_s=wait_s)
        except TaskStoreError:  # no store on this branch, say: whoever reads hears of it
            return False

    async def read(self, kinds: Sequence[Kind], work: Callable[[Store], T], *, tell: bool = True) -> T:
        """Read, when it is our turn: at once if the cache is level, else in a thread, which brings it there.

        Without `tell`, `on_change` is not called for that.
        """
        async with self._alone:
            if self._is_fresh(kinds):
                return self.store.trusting(work)
            with self.metrics.sync.time():
                answer = await trio.to_thread.run_sync(work, self.store)
        if tell:
            self.on_change()
        return answer

    async def at_length(self, work: Callable[[Store], T]) -> T:
        """Read much in a thread, with a store of its own, so that others go on meanwhile."""
        async with self._long:
            if self.store.lag:
                await self._follow()
            answer = await trio.to_thread.run_sync(self._with_second, work)
        self.on_change()
        return answer

    def _with_second(self, work: Callable[[Store], T]) -> T:
        if self._second is None:
            self._second = Store(self.store.paths)
        return work(self._second)

    async def refresh(self) -> None:
        """Take in what somebody else changed."""
        if not self._alone.locked() and self.store.holds(ALL):
            return
        await self.read(ALL, lambda store: store.look(ALL))

    # Writing

    async def write(self, requests: Sequence[Request], size: int, who: object) -> Sequence[Outcome | TaskStoreError]:
        """The outcomes of requests, of `size` bytes together, once what they wrote is durable.

        Cancelling it changes nothing that was begun. What the only one `who` writes now asks is not queued.
        """
        if self._closing:
            return [BusyError("the daemon is leaving")] * len(requests)
        is_alone = who is self._writer and not self._queue and not self._alone.locked()
        self._writer = who
        if is_alone and self._is_quick(len(requests), size) and (outcomes := self._write_now(requests)):
            return outcomes
        waiting = [_Waiting(request, size) for request in requests]
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
            while await self._in_thread(lambda store: any(store.pending(kind) for kind in ALL)):
                await trio.sleep(0.02)
                await self._in_thread(Store.sync)
            return True
        return False

    async def _in_thread(self, work: Callable[[Store], T]) -> T:
        async with self._alone:
            return await trio.to_thread.run_sync(work, self.store)

    async def run(self) -> None:
        """Commit what waits, for as long as the daemon lives; ends after `finish` when nothing waits any more."""
        try:
            while self._queue or not self._closing:
                if not self._queue:
                    self._wake = trio.Event()
                    await self._wake.wait()
                    continue
                await self._commit_next()
                if self.store.lag > _MANY:
                    await self._follow()
                await trio.lowlevel.checkpoint()
        finally:
            self._closing = True
            self._answer(self._queue[:], [BusyError("the daemon is leaving")] * len(self._queue))

    async def follow(self) -> None:
        """Let the cache follow what was written, whenever nothing has been for a while."""
        while True:
            await self._lagging.wait()
            self._lagging = trio.Event()
            while trio.current_time() < self._written + _PAUSE_S:  # noqa: ASYNC110 - the event is that nothing happens
                await trio.sleep(_PAUSE_S)
            await self._follow()

    async def _follow(self) -> None:
        """Let the cache follow what was written."""
        async with self._alone:
            if self.store.lag > _FEW:
                await trio.to_thread.run_sync(self._catch_up)
            elif self.store.lag:
                self._catch_up(wait_s=0)

    async def _commit_next(self) -> None:
        """Commit what waits. Where another process has the lock, wait for it while others use the store."""
        try:
            self._alone.acquire_nowait()  # `acquire` would let readers run first, who would find it taken
        except trio.WouldBlock:
            await self._alone.acquire()
        group = self._queue[:GROUP]
        try:
            await self._commit(group)
        except BusyError:
            pass
        else:
            return
        finally:
            self._alone.release()
        lock = self.store.lock()
        try:
            await trio.to_thread.run_sync(lock.__enter__)
        except TaskStoreError as error:
            self._answer(group, [error] * len(group))
            return
        try:
            await self._commit_locked()
        finally:
            lock.__exit__(None, None, None)

    async def _commit_locked(self) -> None:
        try:
            self._alone.acquire_nowait()
        except trio.WouldBlock:
            return  # whoever uses the store may need the lock for that, so both begin anew
        try:
            await self._commit(self._queue[:GROUP], locked=True)
        finally:
            self._alone.release()

    def finish(self) -> None:
        """End `run` once everything that waits is written."""
        self._closing = True
        self._wake.set()

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()
        if self._second is not None:
            self._second.close()

    async def _commit(self, group: list[_Waiting], *, locked: bool = False) -> None:
        """Carry out requests and answer them; raises BusyError if somebody else has the lock."""
        began = time.perf_counter()
        outcomes: Sequence[Outcome | TaskStoreError]
        try:
            outcomes = await self._carry_out(group, locked=locked)
        except Exception as error:
            if isinstance(error, BusyError) and not locked:
                raise
            outcomes = _failed(error, len(group))
        self._answer(group, outcomes)
        self._note(len(group), began)

    def _write_now(self, requests: Sequence[Request]) -> Sequence[Outcome | TaskStoreError] | None:
        """The outcomes, or None where something is in the way."""
        began = time.perf_counter()
        outcomes: Sequence[Outcome | TaskStoreError]
        try:
            outcomes = self.store.commit(requests, wait_s=0, may_lag=True, at_once=True)
        except (BehindError, BusyError):
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits hears of it
            outcomes = _failed(error, len(requests))
        self._note(len(requests), began)
        return outcomes

    def _note(self, count: int, began: float) -> None:
        """Note a commit of `count` requests."""
        self._took_s = time.perf_counter() - began
        self.metrics.commit.observe(self._took_s)
        self.metrics.group.observe(count)
        self._written = trio.current_time()
        if self.store.lag:
            self._lagging.set()
        self.on_change()

    def _answer(self, group: "list[_Waiting]", outcomes: Sequence[Outcome | TaskStoreError]) -> None:
        del self._queue[:len(group)]
        for one, outcome in zip(group, outcomes, strict=True):
            one.outcome = outcome
            one.done.set()

    async def _carry_out(self, group: list[_Waiting], *, locked: bool) -> Sequence[Outcome | TaskStoreError]:
        """One small write on the loop if nothing is in its way; otherwise in a thread."""
        requests = [one.request for one in group]
        if locked:
            return await trio.to_thread.run_sync(partial(self.store.commit_locked, requests, may_lag=True))
        if self._is_quick(len(group), sum(one.size for one in group)):
            with contextlib.suppress(BehindError):
                return self.store.commit(requests, wait_s=0, may_lag=True, at_once=True)
        return await trio.to_thread.run_sync(partial(self.store.commit, requests, wait_s=0, may_lag=True))

    def _is_quick(self, count: int, size: int) -> bool:
        """Whether so many requests of `size` bytes may be written on the loop."""
        return count <= _FEW and size <= _SMALL and self._took_s < _SLOW_S

    async def settle(self) -> None:
        """Fsync the logs that were written to, now and then, so that the outbox alone has little to answer for."""
        while True:
            await trio.sleep(1)
            if self.store.is_unsettled:
                await self._in_thread(Store.settle)


def _failed(error: Exception, count: int) -> list[Outcome | TaskStoreError]:
    """The outcomes of requests that none was carried out of."""
    if not isinstance(error, TaskStoreError):
        log.error("a commit failed in a way that nobody thought of", exc_info=error)
        error = TaskStoreError(f"internal error: {type(error).__name__}", hint=LOG_HINT, applied="unknown")
    return [error] * count
