"""When to look for a daemon, and where. It opens no socket.

Whoever found none goes on with the files and looks again: once a second at the most, and never again at one that let it
wait in vain (it is stopped, or stuck), unless another took its place.
"""

import os
import time

from taskstore_core.presence import PLACE, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from taskstore_core.paths import Paths

EVERY_S = 1.0
SLOW_S = 1.0
"""Whoever takes so long to say nothing would cost each look as much."""


class Lookout:
    """The looks of one who would rather be served by a daemon."""

    def __init__(self, paths: "Paths", clock: "Callable[[], float]" = time.monotonic) -> None:
        self._paths = paths
        self._clock = clock
        self._due = self._asked = clock()
        self._seen: list[tuple[int, ...]] = []
        self._passed_by: list[tuple[int, ...]] = []

    def is_due(self) -> bool:
        """Whether it is time to look; the next time is a second later."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + EVERY_S
        return True

    def hurry(self) -> None:
        """Let it be time: a daemon that served just now has gone, and another may be there."""
        self._due = self._clock()

    def places(self) -> list[str]:
        """The sockets to try, the likeliest first; call `failed` if nobody greets there."""
        found = sockets(self._paths, os.environ)
        self._seen = [_identity(path) for path in (*found, self._paths.local(PLACE))] if found else []
        self._asked = self._clock()
        return [] if self._seen == self._passed_by else found

    def failed(self) -> None:
        """Nobody greeted at `places`."""
        if self._clock() - self._asked >= SLOW_S:
            self._passed_by = self._seen


def _identity(path: str) -> tuple[int, ...]:
    """What differs when another daemon takes over: it binds its socket anew, or at the least notes where it is."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_ctime_ns
