"""Which connections have something to read: one epoll of our own for all of them, and trio waits for that.

trio tells the kernel anew what a task waits for each time it does, and has a task run for whatever comes. With many
connections that ask in turn that was a fifth of what a short request costs.
"""

import select
import socket
from collections.abc import Callable

import outcome
import trio


class Poller:
    """Sockets that are watched from the first wait until they are forgotten. `run` wakes who waits."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._waiting: dict[int, tuple[trio.lowlevel.Task, Callable[[], bytes | None]]] = {}

    async def wait(self, sock: socket.socket, take: Callable[[], bytes | None]) -> bytes:
        """What `take` gives, which is called when a socket can be read, until it gives something.

        Raises ClosedResourceError if the socket is closed or forgotten, BusyResourceError if a task waits for it
        already, and whatever `take` does.
        """
        fd = sock.fileno()
        if fd < 0:
            raise trio.ClosedResourceError
        if fd in self._waiting:
            raise trio.BusyResourceError
        if fd not in self._watched:
            self._epoll.register(fd, select.EPOLLIN)
            self._watched.add(fd)
        self._waiting[fd] = trio.lowlevel.current_task(), take

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._waiting[fd]
            return trio.lowlevel.Abort.SUCCEEDED

        data: bytes = await trio.lowlevel.wait_task_rescheduled(abort)
        return data

    def forget(self, sock: socket.socket) -> None:
        """Let go of a socket that is about to be closed; who waits for it is woken."""
        fd = sock.fileno()
        self._unwatch(fd)
        self._wake(fd, outcome.Error(trio.ClosedResourceError()))

    async def run(self) -> None:
        """Have what comes taken, for ever."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll)
            for fd, _ in self._epoll.poll(0):
                self._arrived(fd)
            await trio.lowlevel.checkpoint()  # who was woken reads first, else the same would be told of once more

    def close(self) -> None:
        """Let go of everything."""
        self._epoll.close()

    def _arrived(self, fd: int) -> None:
        if fd not in self._waiting:
            self._unwatch(fd)  # nobody reads it now, and it would be told of again and again
            return
        try:
            data = self._waiting[fd][1]()
            if data is not None:
                self._wake(fd, outcome.Value(data))
        except Exception as error:  # noqa: BLE001 - it is for whoever waits, and nobody else
            self._wake(fd, outcome.Error(error))

    def _wake(self, fd: int, result: "outcome.Outcome[bytes]") -> None:
        if found := self._waiting.pop(fd, None):  # unless what was called has forgotten it
            trio.lowlevel.reschedule(found[0], result)

    def _unwatch(self, fd: int) -> None:
        if fd in self._watched:
            self._watched.remove(fd)
            self._epoll.unregister(fd)
