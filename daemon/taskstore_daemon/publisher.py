"""Telling subscribers what changed, whoever changed it: from the feed that every process writes into the cache."""

from typing import TYPE_CHECKING

import trio

from taskstore_core import feed
from taskstore_core.cache import Cache
from taskstore_core.errors import InvalidError, TaskStoreError
from taskstore_core.feed import Changes
from taskstore_core.store import Store

from .engine import Engine
from .head import Head
from .subscriptions import Subscription

if TYPE_CHECKING:
    from .session import Session

_AT_ONCE = 1000


class Publisher:
    """Reads the feed whenever something may have changed, and hands on what is new."""

    def __init__(self, engine: Engine, head: Head) -> None:
        self.subscriptions: set[Subscription] = set()
        self._engine = engine
        self._head = head
        self._branch = head.branch()
        self._wake = trio.Event()
        self.cursor: feed.Cursor | None = None
        self._count = 0
        self._turn = trio.Lock()
        engine.on_change = self.wake

    def wake(self) -> None:
        """Have a look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Publish for as long as the daemon lives."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self.publish()
            except TaskStoreError:  # no store on this branch, say: subscribers hear when it is back
                await trio.lowlevel.checkpoint()

    async def publish(self) -> None:
        """Hand on what is new in the feed."""
        async with self._turn:
            self._tell_branch()
            while self.subscriptions:
                changes = await self._read(self.cursor)
                if self._deliver(changes):
                    break
        self._engine.tell_waiters()

    def _deliver(self, changes: Changes) -> bool:
        """Queue changes for everybody; whether that was all."""
        self.cursor = changes.cursor
        cursor = write_cursor(changes.cursor)
        for subscription in self.subscriptions:
            if changes.fresh:
                subscription.resync(cursor)
            elif fitting := subscription.fitting(self._cache, changes.items):
                subscription.put(cursor, fitting)
        return len(changes.items) < _AT_ONCE

    def _tell_branch(self) -> None:
        branch = self._head.branch()
        if branch != self._branch:
            self._branch = branch
            for subscription in self.subscriptions:
                subscription.put_branch(branch)

    async def _read(self, since: "feed.Cursor | None", until: int | None = None) -> Changes:
        def ask(cache: Cache) -> Changes:
            self._cache = cache
            return feed.read(cache, since, _AT_ONCE, until)

        def read(store: Store) -> Changes:
            return store.ask(ask)

        if self._engine.is_fresh():
            return read(self._engine.store)
        return await self._engine.in_thread(read)

    async def subscribe(self, session: "Session", kinds: list[str] | None, where: dict[str, object] | None,
                        since: str | None) -> tuple[Subscription, str, bool]:
        """A new subscription, with its cursor, and whether its reader must look at everything first.

        With `since` it begins with what changed after that. Raises InvalidError.
        """
        known = None if since is None else read_cursor(since)
        self._count += 1
        subscription = Subscription(self._count, kinds, where)
        async with self._turn:
            while self.subscriptions:  # so that the others and this one go on from the same place
                if self._deliver(await self._read(self.cursor)):
                    break
            if not self.subscriptions:
                self.cursor = (await self._read(None)).cursor
            assert self.cursor is not None  # noqa: S101 - set above
            fresh = await self._catch_up(subscription, known) if known is not None else False
            subscription.cursor = write_cursor(self.cursor)
            self.subscriptions.add(subscription)
            session.subscriptions[subscription.number] = subscription
            session.start(subscription)
            return subscription, since if known is not None and not fresh and since else subscription.cursor, fresh

    async def _catch_up(self, subscription: Subscription, since: feed.Cursor) -> bool:
        """Queue what changed between `since` and where the others are; whether that cannot be told any more."""
        assert self.cursor is not None  # noqa: S101 - set by `subscribe`
        until = self.cursor[1]
        while True:
            changes = await self._read(since, until)
            if changes.fresh:
                return True
            if fitting := subscription.fitting(self._cache, changes.items):
                subscription.put(write_cursor(changes.cursor), fitting)
            if changes.cursor == since or changes.cursor[1] >= until:
                return False
            since = changes.cursor


def write_cursor(cursor: feed.Cursor) -> str:
    """A cursor as it goes over the wire."""
    return f"{cursor[0]}:{cursor[1]}"


def read_cursor(text: str) -> feed.Cursor:
    """And back; raises InvalidError."""
    epoch, colon, number = text.rpartition(":")
    if not colon or not number.isascii() or not number.isdigit() or len(number) > 18:  # noqa: PLR2004 - 63 bits
        raise InvalidError("since: not a cursor that a subscription gave", field="since")
    return epoch, int(number)
