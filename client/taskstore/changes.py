"""Changes as they happen, from a daemon or from the files: an iterator that reconnects and goes on where it was.

From a daemon they are pushed. Without one the files are looked at, some twenty times a second, at the cost of a few
stats; whether a daemon has come meanwhile is looked at once a second.
"""

import time

from taskstore_core.errors import UnsupportedVersionError

from .events import Tracker
from .remote import LostError, Remote, reach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Self

    from .connection import Connection

PAUSE_S = 0.05
REACH_EVERY = 20
"""Looks without a daemon between two attempts to reach one."""


class Changes:
    """An iterator over events as plain data (see `Tracker`). It begins when it is made, not when it is first asked."""

    def __init__(self, connection: "Connection", kinds: "Sequence[str] | None" = None,
                 where: "dict[str, object] | None" = None, since: str | None = None) -> None:
        """Raises InvalidError."""
        self._tracker = Tracker(kinds, where, since)
        self._connection = connection
        self._remote: Remote | None = None
        self._looks = 0
        self._begin()

    @property
    def cursor(self) -> str:
        """Where it is; given as `since` later, another goes on from there."""
        return self._tracker.cursor or ""

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None

    def __iter__(self) -> "Iterator[dict[str, Any]]":
        while True:
            while self._tracker.waiting:
                yield self._tracker.waiting.pop(0)
            self._wait()

    def _begin(self) -> None:
        try:
            self._remote = reach(self._connection.paths) if self._connection.uses_daemon else None
        except UnsupportedVersionError:
            self._remote = None
        if self._remote is None:
            self._tracker.look(self._connection.direct.engine)
            return
        try:
            self._tracker.begin(self._remote.call("changes.subscribe", self._tracker.wanted()))
        except LostError:
            self._lose()
            return
        self._notifications = self._remote.notifications()

    def _lose(self) -> None:
        self.close()
        time.sleep(PAUSE_S)  # a daemon that is being started anew needs a moment
        self._begin()

    def _wait(self) -> None:
        """Wait for something to tell."""
        if self._remote is not None:
            try:
                self._tracker.take(*next(self._notifications))
            except LostError:
                self._lose()
            return
        time.sleep(PAUSE_S)
        self._looks += 1
        if self._looks % REACH_EVERY == 0:
            self._begin()
        else:
            self._tracker.look(self._connection.direct.engine)
