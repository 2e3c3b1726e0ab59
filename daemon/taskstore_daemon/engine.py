"""The store under trio: reads at once where that is right, one user of the store at a time, and what is done later.

A read that finds the files as they were is answered on the loop: 10 µs, where a hop to a thread would cost 280. What
may take long (a sync after git's work, many writes) runs in a thread, and reads wait for it. Writes are the
committer's; what they put off is done here: the cache follows, lines that waited for git are appended, logs synced.
"""

import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import trio

from taskstore_core.errors import BusyError, TaskStoreError
from taskstore_core.kinds import Kind
from taskstore_core.reconcile import SwallowedError
from taskstore_core.store import Store

from . import memory
from .logs import fields
from .metrics import Metrics
from .work import ALL

if TYPE_CHECKING:
    from taskstore_core.leveling import Reports

log = logging.getLogger(__name__)

T = TypeVar("T")
Fresh = set[object]
"""The kinds that were found fresh since others last had their turn."""

_FLUSH_S = 1.0
FEW = 64
"""Requests that are written, and lines that the cache takes in, on the loop."""
MANY = 4096
"""Lines that the cache may lag behind."""
_LOOK_S = 0.02
"""Between two looks whether git is quiet."""
_PAUSE_S = 0.01
"""Without a write, after which the cache follows."""
_ASKS = 2
"""Times that git is asked about missing lines, before something is done without its answer."""
_LONG_S = 0.1
"""Work in a thread that takes longer may have needed much memory."""


class Engine:
    """A store, for all connections of the daemon. `on_change` is called after whatever may have changed it."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self.store = store
        self.metrics = metrics
        self.on_change: Callable[[], None] = lambda: None
        self.alone = trio.Lock()
        """Held by whoever uses the store, but for what takes no time."""
        self._long = trio.Lock()
        self._second: Store | None = None
        self._written = 0.0
        self._waiting = trio.Event()
        self._lagging = trio.Event()
        self._is_wasteful = False

    # Reading

    def look_up(self, kind: str, key: str, held: Fresh) -> str | None:
        """The line of a live record if that can be told at once; `held` are kinds whose logs were just looked at."""
        if self.alone.locked():
            return None
        line = self.store.look_up(kind, key, trusted=kind in held)
        if line is not None:
            held.add(kind)
        return line

    def is_fresh(self, kinds: Sequence[Kind], fresh: Fresh) -> bool:
        """Whether a read of `kinds` can be answered on the loop now; noted in `fresh`, and believed if it is there."""
        if kinds in fresh:
            return True
        if self.alone.locked() or not self._is_fresh(kinds):
            return False
        fresh.add(kinds)
        return True

    def _is_fresh(self, kinds: Sequence[Kind]) -> bool:
        """Whether `kinds` can be read at once, after taking in a few lines of our own if need be."""
        if self.store.is_fresh(kinds):
            return True
        return 0 < self.store.lag <= FEW and self.store.catch_up(at_once=True) and self.store.is_fresh(kinds)

    async def read(self, kinds: Sequence[Kind], work: Callable[[Store], T], *, tell: bool = True) -> T:
        """Read, when it is our turn: at once if the cache is level, else in a thread, which brings it there.

        Without `tell`, `on_change` is not called for that.
        """
        async def attempt() -> tuple[T, bool]:
            async with self.alone:
                if self._is_fresh(kinds):
                    return self.store.trusting(work), False
                with self._synced():
                    return await trio.to_thread.run_sync(work, self.store), True

        answer, is_news = await self._asking(attempt)
        if is_news and tell:
            self._changed()
        return answer

    async def _asking(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What comes of an attempt to use the store, made anew when git had to be asked, while others use it."""
        for tries in itertools.count():
            try:
                return await attempt()
            except SwallowedError as error:
                if tries < _ASKS:
                    await trio.to_thread.run_sync(self.store.ask_git, error)
                else:
                    self.store.do_without_git()
        raise AssertionError  # there is no end to count to

    async def at_length(self, work: Callable[[Store], T]) -> T:
        """Read much in a thread, with a store of its own, so that others go on meanwhile."""
        async with self._long:
            with contextlib.suppress(TaskStoreError):  # the work will say so, or is to find out what is wrong
                await self.refresh()
            if self.store.lag:
                await self.catch_up()
            answer = await trio.to_thread.run_sync(self._with_second, work)
            self._is_wasteful = True
        self._changed()
        return answer

    def _with_second(self, work: Callable[[Store], T]) -> T:
        if self._second is None:
            self._second = Store(self.store.paths)
            self._second.distance = self.store.distance  # type: ignore[method-assign]
        return work(self._second)

    async def refresh(self) -> None:
        """Take in what somebody else changed."""
        async def attempt() -> bool:
            async with self.alone:
                if self.store.holds(ALL) and not self.store.is_head_due:
                    return False
                with self._synced():
                    await trio.to_thread.run_sync(self.store.look, ALL)
            return True

        if await self._asking(attempt):
            self._changed()

    @contextlib.contextmanager
    def _synced(self) -> Iterator[None]:
        """Counts and logs what is done inside: reading what others changed in the logs."""
        began = time.perf_counter()
        before = self.store.reports
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self.metrics.sync.observe(seconds)
            self._is_wasteful = self._is_wasteful or seconds > _LONG_S
            if (found := self.store.reports) is not before:
                _log_sync(found, seconds)

    # After writes

    async def flush(self) -> bool:
        """Whether every line stands in its log, after waiting for git to be quiet, a second at the most."""
        with trio.move_on_after(_FLUSH_S):
            while self.store.is_waiting:
                await self._tidy()
                await trio.sleep(_LOOK_S)
            return True
        return False

    async def _in_thread(self, work: Callable[[Store], T]) -> T:
        async with self.alone:
            return await trio.to_thread.run_sync(work, self.store)

    async def tidy(self) -> None:
        """Do what was put off while git was at work, as soon as it is quiet."""
        while True:
            await self._waiting.wait()
            while self.store.is_waiting:
                await trio.sleep(_LOOK_S)
                try:
                    await self._tidy()
                except TaskStoreError as error:
                    log.debug("lines wait: %s", error.message)
                    await trio.sleep(1)
            self._waiting = trio.Event()
            self.on_change()

    async def _tidy(self) -> None:
        """Do what was put off, if git is quiet and nobody else is at it: writers do it by the way."""
        if self.alone.locked():
            return
        try:
            await self._in_thread(Store.tidy)
        except BusyError:
            return
        except SwallowedError as error:
            await trio.to_thread.run_sync(self.store.ask_git, error)

    async def follow(self) -> None:
        """Let the cache follow what was written, whenever nothing has been for a while."""
        while True:
            await self._lagging.wait()
            self._lagging = trio.Event()
            while self.store.lag:
                await trio.sleep(_PAUSE_S)
                if trio.current_time() >= self._written + _PAUSE_S:
                    await self.catch_up()

    def wrote(self) -> None:
        """Note that something was written."""
        self._written = trio.current_time()
        if self.store.lag:
            self._lagging.set()
        self._changed()

    def _changed(self) -> None:
        if self.store.is_waiting:
            self._waiting.set()
        self.on_change()

    async def catch_up(self) -> None:
        """Let the cache follow what was written."""
        async with self.alone:
            if self.store.lag > FEW:
                await trio.to_thread.run_sync(self.store.catch_up)
            elif self.store.lag:
                self.store.catch_up(at_once=True)

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()
        if self._second is not None:
            self._second.close()

    async def settle(self) -> None:
        """Fsync the logs that were written to, now and then, so that the outbox alone has little to answer for.

        And return memory that long work had needed, once its answer is sent.
        """
        while True:
            await trio.sleep(1)
            if self._is_wasteful:
                self._is_wasteful = False
                await trio.to_thread.run_sync(memory.give_back)
            if self.store.is_unsettled:
                await self._in_thread(Store.settle)


def _log_sync(reports: "Reports", seconds: float) -> None:
    """Log what others changed: appends, of which there may be thousands, for those alone who look for everything."""
    only_appends = all(report.mode == "tail" for report in reports.values())
    told = ", ".join(f"{name} {report.mode}" for name, report in reports.items())
    log.log(logging.DEBUG if only_appends else logging.INFO, "others changed the logs: %s", told, extra=fields(
        "sync", ms=round(seconds * 1000, 3), logs={
            name: {"mode": report.mode, "lines": report.parsed, "ids": report.changed, "bad_lines": report.bad_lines}
            for name, report in reports.items()}))
