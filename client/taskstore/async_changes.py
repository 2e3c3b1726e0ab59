"""Changes as they happen, for asynchronous programs: what `Changes` is, awaited."""

from typing import Self

import anyio

from taskstore_core import layout
from taskstore_core.errors import BusyError, NoStoreError

from .async_connection import AsyncConnection
from .changes import PAUSE_S
from .events import BranchChanged, Changed, Resync, Tracker, typed
from .link import Link
from .lookout import Lookout
from .remote import LostError


class AsyncChanges:
    """An asynchronous iterator over `Changed`, `Resync` and `BranchChanged` that reconnects and goes on."""

    def __init__(self, connection: AsyncConnection, tracker: Tracker) -> None:
        self._connection = connection
        self._tracker = tracker
        self._lookout = Lookout(connection.paths)
        self._link: Link | None = None

    @property
    def cursor(self) -> str:
        """Where it is; given as `since` later, another goes on from there; what came together may be told again."""
        return self._tracker.cursor or ""

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._drop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changed | Resync | BranchChanged:
        """The next event; cancelled, nothing of it is lost."""
        while not self._tracker.waiting:
            await self._wait()
        return typed(self._tracker.hand_out())

    async def _begin(self) -> None:
        self._link = await self._subscribe()
        if self._link is None:
            await self._connection.look(self._tracker.look)

    async def _subscribe(self) -> Link | None:
        """A connection on which the daemon tells what changes; None where none answers."""
        if not self._connection.uses_daemon or not self._lookout.is_due():
            return None
        link = await self._connection.reach(self._lookout)
        if link is None:
            return None
        try:
            self._tracker.begin(await link.call("changes.subscribe", self._tracker.wanted()))
        except LostError:
            link.close()
            return None
        except BaseException:
            link.close()
            raise
        return link

    async def _wait(self) -> None:
        """Wait for something to tell."""
        if self._link is not None:
            try:
                self._tracker.take(*await self._link.notifications.receive())
            except anyio.EndOfStream:
                self._drop()
                self._lookout.hurry()
            return
        await anyio.sleep(PAUSE_S)  # also for a daemon that is being started anew
        try:
            await self._begin()
        except BusyError:
            pass  # as in `Changes`
        except NoStoreError:  # a branch without the store: another time
            if not layout.is_elsewhere(self._connection.paths):
                raise

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
