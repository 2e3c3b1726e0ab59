"""Progress: what takes more than a second says on a terminal that it is still at it."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from typing import Self

_PATIENCE_S = 1.0


class Working:
    """While it is entered, a line on standard error that tells what is being done and for how long; then it is gone.

    The work itself is one call that nobody can look into, so no share of it is told: that would be a guess.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Self":
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            import threading

            self._done = threading.Event()
            self._thread = threading.Thread(target=self._tell, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._done.set()
            self._thread.join()

    def _tell(self) -> None:
        seconds = 0
        while not self._done.wait(_PATIENCE_S):
            seconds += 1
            self._write(f"\r\x1b[K{self._what} … {seconds} s")
        if seconds:
            self._write("\r\x1b[K")

    @staticmethod
    def _write(text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            pass  # nobody looks any more; the work goes on
