"""A connection's turn: what is answered before the others have theirs, and what is known meanwhile.

Answers are sent when the turn is over, all in one go: after some milliseconds, a full buffer or very many writes.
"""

import time

from taskstore_core import rpc

from .work import Work

_TURN_S = 0.002
_TURN_BYTES = 1 << 16


class Turn:
    """What was answered since others had their turn, and the writes behind it."""

    def __init__(self) -> None:
        self.writes: list[Work] = []
        self.fresh: set[object] = set()
        self.held: set[object] = set()
        self._answers: list[bytes] = []
        self.begin()

    def begin(self) -> None:
        """Count anew; whatever was known of the files is old."""
        self.fresh.clear()
        self.held.clear()
        self._size = 0
        self._began = time.perf_counter()

    def add(self, answer: bytes) -> None:
        """Take an answer."""
        self._answers.append(answer)
        self._size += len(answer)

    def is_over(self) -> bool:
        """Whether the others have waited long enough."""
        return (len(self.writes) >= rpc.IN_FLIGHT or self._size > _TURN_BYTES
                or time.perf_counter() - self._began > _TURN_S)

    def end(self) -> tuple[bytes, list[Work]]:
        """What was collected, which is forgotten."""
        answers, writes = b"".join(self._answers), self.writes
        self._answers, self.writes = [], []
        return answers, writes
