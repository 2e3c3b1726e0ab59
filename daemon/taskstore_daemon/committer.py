"""Writes in groups: whatever waits when a commit begins shares one lock, one append a log and one fdatasync.

Nobody holds a task while a request waits: whoever asked is told by a function call, from the commit itself. What the
only writer asks is not even queued.
"""

import contextlib
import logging
import time
from collections.abc import Sequence

import trio

from taskstore_core.errors import BusyError, TaskStoreError
from taskstore_core.lock import Lock
from taskstore_core.passes import BehindError
from taskstore_core.reconcile import SwallowedError
from taskstore_core.request import Outcome, Request

from .engine import FEW, MANY, Engine
from .logs import fields
from .replies import LOG_HINT

log = logging.getLogger(__name__)

Outcomes = Sequence[Outcome | TaskStoreError]

GROUP = 512
"""Requests in one commit at the most, so that none waits for a very long one."""
_SMALL = 1 << 16
"""Bytes of requests that are written on the loop."""
_SLOW_S = 0.005
"""After a commit that took longer, the next is not made on the loop."""


class Waiting:
    """Requests that came together, of `size` bytes, since `began` (time.perf_counter)."""

    __slots__ = ("_outcomes", "began", "requests", "size")

    def __init__(self, requests: Sequence[Request], size: int, began: float) -> None:
        self.requests = requests
        self.size = size
        self.began = began
        self._outcomes: list[Outcome | TaskStoreError] = []

    def take(self, outcome: Outcome | TaskStoreError) -> None:
        """Take the outcome of the next request."""
        self._outcomes.append(outcome)
        if len(self._outcomes) == len(self.requests):
            self.tell(self._outcomes)

    def tell(self, outcomes: Outcomes) -> None:
        """Called with all of them, once whatever they wrote is durable."""
        raise NotImplementedError


class _Awaited(Waiting):
    """Requests that a task waits for."""

    __slots__ = ("done", "outcomes")

    def __init__(self, requests: Sequence[Request], size: int) -> None:
        super().__init__(requests, size, time.perf_counter())
        self.outcomes: Outcomes = []
        self.done = trio.Event()

    def tell(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes
        self.done.set()


class Committer:
    """What carries out writes, for all connections of the daemon."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store
        self._queue: list[tuple[Request, Waiting]] = []
        self._wake = trio.Event()
        self._closing = False
        self._took_s = 0.0
        self._synced_s = 0.0
        self._has_asked = False  # git, for what waits
        self._writer: object = None

    def put(self, waiting: Waiting, who: object = None) -> None:
        """Have requests carried out; they are told when what they wrote is durable.

        That is at once where `who` asks is the only one who writes.
        """
        requests = waiting.requests
        if not requests:
            waiting.tell([])
            return
        began = time.perf_counter()
        outcomes = self._at_once(requests, waiting.size, who)
        if outcomes is None:
            self._queue += [(request, waiting) for request in requests]
            self._wake.set()
            return
        seconds = time.perf_counter() - began
        for outcome in outcomes:
            waiting.take(outcome)
        self._note(len(requests), seconds)

    async def write(self, requests: Sequence[Request], size: int) -> Outcomes:
        """The outcomes of requests, once what they wrote is durable. Cancelling it changes nothing that was begun."""
        awaited = _Awaited(requests, size)
        self.put(awaited)
        await awaited.done.wait()
        return awaited.outcomes

    def oldest_waiting_s(self) -> float:
        """How long the oldest write that is not yet durable has waited, in seconds; 0 if there is none."""
        return time.perf_counter() - self._queue[0][1].began if self._queue else 0.0

    @property
    def waiting(self) -> int:
        """How many writes are not yet durable."""
        return len(self._queue)

    async def run(self) -> None:
        """Commit what waits, for as long as the daemon lives; ends after `finish` when nothing waits any more."""
        try:
            while self._queue or not self._closing:
                if not self._queue:
                    self._wake = trio.Event()
                    await self._wake.wait()
                    continue
                await self._commit_next()
                if self._store.lag > MANY:
                    await self._engine.catch_up()
                await trio.lowlevel.checkpoint()
        finally:
            self._closing = True
            self._answer(self._queue[:], [_leaving()] * len(self._queue))

    def finish(self) -> None:
        """End `run` once everything that waits is written."""
        self._closing = True
        self._wake.set()

    def _at_once(self, requests: Sequence[Request], size: int, who: object) -> Outcomes | None:
        """The outcomes of what need not wait for its turn."""
        if self._closing:
            return [_leaving()] * len(requests)
        is_alone = (who is not None and who is self._writer and not self._queue and self._store.lag <= MANY
                    and not self._engine.alone.locked())
        self._writer = who
        return self._write_now(requests) if is_alone and self._is_quick(len(requests), size) else None

    def _write_now(self, requests: Sequence[Request]) -> Outcomes | None:
        """The outcomes, or None where something is in the way."""
        try:
            return self._commit_now(requests, at_once=True)
        except (BehindError, BusyError):
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits hears of it
            return _failed(error, len(requests))

    def _commit_now(self, requests: Sequence[Request], *, at_once: bool = False) -> Outcomes:
        with self._store.lock(0):
            return self._commit_locked(requests, at_once=at_once)

    def _commit_locked(self, requests: Sequence[Request], *, at_once: bool = False) -> Outcomes:
        """Raises SwallowedError if git must be asked, once for a group: after that it goes on without the answer."""
        try:
            return self._store.commit_locked(requests, at_once=at_once)
        except SwallowedError:
            if not self._has_asked:
                raise
        self._store.do_without_git()
        return self._store.commit_locked(requests)

    async def _commit_next(self) -> None:
        """Commit what waits. Where git must be asked first, others use the store meanwhile."""
        try:
            if not await self._commit_if_free():
                await self._commit_when_free()
        except SwallowedError as error:
            self._has_asked = True
            try:
                await trio.to_thread.run_sync(self._store.ask_git, error)
            except TaskStoreError as failure:
                group = self._queue[:GROUP]
                self._answer(group, [failure] * len(group))

    async def _commit_if_free(self) -> bool:
        """Whether it could be done without waiting for another process."""
        try:
            self._engine.alone.acquire_nowait()  # `acquire` would let readers run first, who would find it taken
        except trio.WouldBlock:
            await self._engine.alone.acquire()
        try:
            await self._commit(self._queue[:GROUP])
        except BusyError:
            return False
        finally:
            self._engine.alone.release()
        return True

    async def _commit_when_free(self) -> None:
        """Wait until no other process has the lock, while others use the store, and commit then.

        Whoever uses the store by then may need the lock for that, and is let through; next it is our turn for both.
        """
        lock = await self._lock()
        if lock is None:
            return
        try:
            self._engine.alone.acquire_nowait()
        except trio.WouldBlock:
            lock.__exit__(None, None, None)
            await self._engine.alone.acquire()
            lock = await self._lock()
        try:
            if lock is not None:
                await self._commit(self._queue[:GROUP], locked=True)
        finally:
            self._engine.alone.release()
            if lock is not None:
                lock.__exit__(None, None, None)

    async def _lock(self) -> Lock | None:
        """The store's lock, once it is to be had; None if it is not, and then those who wait have been told."""
        lock = self._store.lock()
        try:
            await trio.to_thread.run_sync(lock.__enter__)
        except TaskStoreError as error:
            group = self._queue[:GROUP]
            self._answer(group, [error] * len(group))
            return None
        return lock

    async def _commit(self, group: list[tuple[Request, Waiting]], *, locked: bool = False) -> None:
        """Carry out requests and answer them.

        Raises BusyError if another process has the lock, SwallowedError if git must be asked first.
        """
        began = time.perf_counter()
        outcomes: Outcomes
        try:
            outcomes = await self._carry_out(group, locked=locked)
        except Exception as error:
            if isinstance(error, SwallowedError) or (isinstance(error, BusyError) and not locked):
                raise
            outcomes = _failed(error, len(group))
        seconds = time.perf_counter() - began
        self._has_asked = False
        self._answer(group, outcomes)
        self._note(len(group), seconds)

    async def _carry_out(self, group: list[tuple[Request, Waiting]], *, locked: bool) -> Outcomes:
        """A few small writes on the loop if nothing is in their way; otherwise in a thread."""
        requests = [request for request, _ in group]
        if locked:
            return await trio.to_thread.run_sync(self._commit_locked, requests)
        if self._is_quick(len(group), sum(waiting.size for _, waiting in group)):
            with contextlib.suppress(BehindError):
                return self._commit_now(requests, at_once=True)
        return await trio.to_thread.run_sync(self._commit_now, requests)

    def _is_quick(self, count: int, size: int) -> bool:
        """Whether so many requests of `size` bytes may be written on the loop."""
        return count <= FEW and size <= _SMALL and self._took_s < _SLOW_S

    def _answer(self, group: list[tuple[Request, Waiting]], outcomes: Outcomes) -> None:
        del self._queue[:len(group)]
        if group and group[0][1] is not group[-1][1]:
            self._writer = None  # whoever writes next is one of several
        for (_, waiting), outcome in zip(group, outcomes, strict=True):
            waiting.take(outcome)

    def _note(self, count: int, seconds: float) -> None:
        """Note a commit of `count` requests, once they are answered."""
        self._took_s = seconds
        self._engine.metrics.commit.observe(self._took_s)
        if self._synced_s != (synced_s := self._store.synced_s):
            self._engine.metrics.fsync.observe(synced_s - self._synced_s)
            self._synced_s = synced_s
        self._engine.metrics.group.observe(count)
        self._engine.wrote()


def _leaving() -> BusyError:
    return BusyError("the daemon is leaving")


def _failed(error: Exception, count: int) -> Outcomes:
    """The outcomes of requests that none was carried out of."""
    if not isinstance(error, TaskStoreError):
        log.error("a commit failed in a way that nobody thought of", exc_info=error, extra=fields("error"))
        error = TaskStoreError(f"internal error: {type(error).__name__}", hint=LOG_HINT, applied="unknown")
    return [error] * count
