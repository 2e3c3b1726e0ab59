"""Telling subscribers what changed, whoever changed it: from the feed that every process writes into the cache."""

import logging
from collections.abc import Callable
from typing import TypeVar

import trio

from taskstore_core import feed
from taskstore_core.cache import Cache
from taskstore_core.errors import InvalidError, TaskStoreError
from taskstore_core.feed import Change, Changes, Cursor
from taskstore_core.interest import Interest

from .engine import Engine
from .head import Head
from .subscriptions import Subscription, write_cursor
from .waits import Waits
from .work import ALL

log = logging.getLogger(__name__)

T = TypeVar("T")

_AT_ONCE = 500
_PATIENCE_S = 1.0
_PAUSE_S = 0.005
_PACE_S = 0.01
"""Between two looks at the feed under steady writing: one a commit took as long again as a read, which had to wait."""
_SEQ_DIGITS = 18


class Publisher:
    """Reads the feed whenever something may have changed, and hands on what is new."""

    def __init__(self, engine: Engine, head: Head) -> None:
        self.subscriptions: set[Subscription] = set()
        self.waits = Waits()
        self._engine = engine
        self._head = head
        self._branch = head.branch()
        self._wake = trio.Event()
        self._cursor: Cursor | None = None
        self._count = 0
        self._next = 0.0
        self._turn = trio.Lock()
        engine.on_change = self.wake

    def wake(self) -> None:
        """Have a look soon, if there is anybody to tell."""
        if self.subscriptions or self.waits:
            self._wake.set()

    def look(self) -> None:
        """Have a look if another branch is checked out."""
        if self._head.branch() != self._branch:
            self.wake()

    async def run(self) -> None:
        """Publish for as long as the daemon lives."""
        while True:
            await self._wake.wait()
            await trio.sleep_until(self._next)
            self._wake = trio.Event()
            try:
                async with self._turn:
                    await self._publish()
            except TaskStoreError as error:  # no store on this branch, say: subscribers hear when it is back
                log.debug("nothing can be published now: %s", error.message)
            if self.subscriptions:
                self._next = trio.current_time() + _PACE_S

    def forget(self, subscription: Subscription) -> None:
        """Tell a subscriber nothing more."""
        self.subscriptions.discard(subscription)
        subscription.end()

    async def _publish(self) -> None:
        """Hand on everything that is new."""
        self._tell_branch()
        while self.subscriptions or self.waits:
            before = self._cursor
            await self._hand_on()
            if before is None or self._cursor is None or self._cursor[0] != before[0] or (
                    self._cursor[1] < before[1] + _AT_ONCE):
                return

    async def _await_git(self) -> None:
        """Give a git command the time to say which branch it has checked out: it does so last."""
        with trio.move_on_after(_PATIENCE_S):
            while self._head.is_busy():  # noqa: ASYNC110 - the event is another process's
                await trio.sleep(_PAUSE_S)

    def _tell_branch(self) -> None:
        branch = self._head.branch()
        if branch != self._branch:
            self._branch = branch
            for subscription in self.subscriptions:
                subscription.put_branch(branch, self._cursor or ("", 0))

    async def _hand_on(self) -> None:
        """Read on in the feed, and queue what is found for everybody."""
        subscriptions = list(self.subscriptions)

        def ask(cache: Cache) -> tuple[Changes, list[list[Change]]]:
            changes = feed.read(cache, self._cursor, _AT_ONCE)
            return changes, [one.interest.fitting(cache, changes.items) for one in subscriptions]

        changes, fitting = await self._ask(ask)
        if self._cursor is None:
            changes.fresh = True  # nobody has read anything yet, so nobody knows what they have missed
        self.waits.tell(changes)
        if subscriptions and (changes.items or changes.fresh):
            await self._await_git()  # after the look: what changed may be the beginning of a checkout
            self._tell_branch()
        self._cursor = changes.cursor  # no sooner: whoever is cancelled up to here has told nobody anything
        for subscription, those in zip(subscriptions, fitting, strict=True):
            if changes.fresh:
                subscription.resync(changes.cursor)
            else:
                subscription.put(those, changes.cursor)

    async def _ask(self, question: Callable[[Cache], T]) -> T:
        """Ask the cache, without waking ourselves if it has to be brought level for that."""
        return await self._engine.read(ALL, lambda store: store.ask(question), tell=False)

    async def subscribe(self, interest: Interest, since: str | None) -> tuple[Subscription, str, bool]:
        """A new subscription, with its cursor, and whether its reader must look at everything first.

        With `since` it begins with what changed after that. Raises InvalidError.
        """
        known = None if since is None else read_cursor(since)
        self._count += 1
        subscription = Subscription(self._count, interest, self._engine.metrics.resyncs)
        async with self._turn:
            await self._publish()  # so that the others and this one go on from the same place
            if not self.subscriptions and not self.waits:
                self._cursor = (await self._ask(lambda cache: feed.read(cache, None, 0))).cursor
            assert self._cursor is not None  # noqa: S101 - just read
            fresh = known is not None and await self._catch_up(subscription, known, self._cursor)
            self.subscriptions.add(subscription)
            start = known if known is not None and not fresh else self._cursor
            return subscription, write_cursor(start), fresh

    async def _catch_up(self, subscription: Subscription, since: Cursor, until: Cursor) -> bool:
        """Queue what changed between `since` and where the others are; whether that cannot be told any more."""
        while True:
            def ask(cache: Cache, since: Cursor = since) -> tuple[Changes, list[Change]]:
                changes = feed.read(cache, since, _AT_ONCE, until[1])
                return changes, subscription.interest.fitting(cache, changes.items)

            changes, fitting = await self._ask(ask)
            if changes.fresh or since[0] != until[0]:
                return True
            subscription.put(fitting, changes.cursor)
            if changes.cursor == since or changes.cursor[1] >= until[1]:
                return False
            since = changes.cursor


def read_cursor(text: str) -> Cursor:
    """A cursor from the wire; raises InvalidError."""
    epoch, colon, number = text.rpartition(":")
    if not colon or not number.isascii() or not number.isdigit() or len(number) > _SEQ_DIGITS:
        raise InvalidError("since: not a cursor that a subscription gave", field="since")
    return epoch, int(number)
