"""Changes as they happen, from a daemon or from the files: an iterator that reconnects and goes on where it was.

From a daemon they are pushed. Without one the files are looked at, some twenty times a second, at the cost of a few
stats, also while a branch without the store is checked out; whether a daemon has come meanwhile is looked at once a
second (see `Lookout`).
"""

import time

from taskstore_core import layout
from taskstore_core.errors import BusyError, NoStoreError

from .events import Tracker
from .lookout import Lookout
from .remote import LostError, Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Self

    from .connection import Connection

PAUSE_S = 0.05


class Changes:
    """An iterator over events as plain data (see `Tracker`). It begins when it is made, not when it is first asked."""

    def __init__(self, connection: "Connection", kinds: "Sequence[str] | None" = None,
                 where: "dict[str, object] | None" = None, since: str | None = None) -> None:
        """Raises InvalidError, and BusyError where another process holds the lock for long: nothing has begun then."""
        self._tracker = Tracker(kinds, where, since)
        self._connection = connection
        self._remote: Remote | None = None
        self._lookout = Lookout(connection.paths)
        self._begin()

    @property
    def cursor(self) -> str:
        """Where it is; given as `since` later, another goes on from there; what came together may be told again."""
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
                yield self._tracker.hand_out()
            self._wait()

    def _begin(self) -> None:
        self._remote = self._subscribe()
        if self._remote is None:
            self._tracker.look(self._connection.direct.engine)
        else:
            self._notifications = self._remote.notifications()

    def _subscribe(self) -> "Remote | None":
        """A connection on which the daemon tells what changes; None where none answers."""
        if not self._connection.uses_daemon or not self._lookout.is_due():
            return None
        remote = self._connection.reach(self._lookout)
        if remote is None:
            return None
        try:
            self._tracker.begin(remote.call("changes.subscribe", self._tracker.wanted()))
        except LostError:
            remote.close()
            return None
        except BaseException:
            remote.close()
            raise
        return remote

    def _wait(self) -> None:
        """Wait for something to tell."""
        if self._remote is not None:
            try:
                self._tracker.take(*next(self._notifications))
            except LostError:
                self.close()
                self._lookout.hurry()
            return
        time.sleep(PAUSE_S)  # also for a daemon that is being started anew
        try:
            self._begin()
        except BusyError:
            pass  # somebody is long at it: nothing can be told now, and what there is then is told next time
        except NoStoreError:
            if not layout.is_elsewhere(self._connection.paths):
                raise
