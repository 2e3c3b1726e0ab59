"""Who waits for which dependency: woken when the feed says that it changed, and by nothing else."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson
import trio

from taskstore_core.kinds import KINDS
from taskstore_core.request import check_number

if TYPE_CHECKING:
    from taskstore_core.feed import Changes

    from .engine import Engine

_DEPENDENCY = KINDS["dependency"]


class Waits:
    """Those who wait, by the id of what they wait for."""

    def __init__(self) -> None:
        self._those: dict[str, set[Waiter]] = {}

    def __bool__(self) -> bool:
        return bool(self._those)

    @contextmanager
    def of(self, key: str) -> "Iterator[Waiter]":
        """Somebody who waits for `key`."""
        waiter = Waiter()
        self._those.setdefault(key, set()).add(waiter)
        try:
            yield waiter
        finally:
            self._those[key].discard(waiter)
            if not self._those[key]:
                del self._those[key]

    def tell(self, changes: "Changes") -> None:
        """Wake those whose dependency changed; all, where it cannot be told what did."""
        keys = list(self._those) if changes.fresh else [
            change.key for change in changes.items if change.kind is _DEPENDENCY]
        for key in keys:
            for waiter in self._those.get(key, ()):
                waiter.event.set()


class Waiter:
    """One who waits."""

    def __init__(self) -> None:
        self.event = trio.Event()

    async def woken(self) -> None:
        """Wait for the next change."""
        await self.event.wait()
        self.event = trio.Event()


async def wait(engine: "Engine", waits: Waits, parameters: Mapping[str, object]) -> str:
    """`dependency.wait`: the dependency `id` once it is resolved, or as it is at `timeout_ms`; raises NotFoundError."""
    timeout_ms = parameters.get("timeout_ms")
    if timeout_ms is not None:
        check_number("timeout_ms", timeout_ms, 0)
    deadline = trio.current_time() + (float("inf") if timeout_ms is None else float(str(timeout_ms)) / 1000)
    line = await _get(engine, str(parameters["id"]))
    record = orjson.loads(line)
    key = str(record["id"])
    with waits.of(key) as waiter, trio.CancelScope(deadline=deadline):
        while True:
            line = await _get(engine, key)  # again: it may have been resolved before anybody would have told us
            if orjson.loads(line).get("resolved_at") is not None:
                return line
            await waiter.woken()
    return line


async def _get(engine: "Engine", key: str) -> str:
    return await engine.read((_DEPENDENCY,), lambda store: store.get(_DEPENDENCY, key))
