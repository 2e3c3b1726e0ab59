"""A connection to a store for asynchronous programs: what `Connection` is, shared by tasks.

Their calls go over one socket and are answered as they come. Without a daemon the files are used, in a thread, one call
at a time.
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from taskstore_core import rpc
from taskstore_core.errors import BusyError, ReadOnlyError, UnsupportedVersionError
from taskstore_core.methods import METHODS, look_up
from taskstore_core.paths import Paths
from taskstore_core.request import check_number
from taskstore_core.sockets import is_private, peer_uid
from taskstore_core.store import Store as Engine

from .changes import PAUSE_S
from .connection import TRIES, is_too_large, prepared
from .direct import Direct
from .link import Link
from .lookout import Lookout
from .remote import GREETING_S, LostError, UnsendableError

T = TypeVar("T")


class AsyncConnection:
    """A store, through the daemon where one answers, else by its files."""

    def __init__(self, paths: Paths, tasks: TaskGroup, *, daemon: bool = True, start: bool = False) -> None:
        """As for `Connection`; `tasks` is where its sockets are read."""
        self.paths = paths
        self.uses_daemon = daemon
        self._tasks = tasks
        self._start = self._may_start = start
        self._lookout = Lookout(paths)
        self._link: Link | None = None
        self._direct: Direct | None = None
        self._linking = anyio.Lock()
        self._alone = anyio.Lock()

    async def close(self) -> None:
        """Let go of everything."""
        if self._link is not None:
            self._link.close()
        if self._direct is not None:
            await anyio.to_thread.run_sync(self._direct.close)

    async def call(self, method: str, parameters: dict[str, object]) -> Any:  # noqa: ANN401 - plain data
        """The answer of a method; raises its error."""
        if is_too_large(method, parameters):
            return await self._call_directly(method, parameters)
        parameters = prepared(method, parameters)
        is_lost = False
        try:
            for _ in range(TRIES):
                link = await self.link()
                if link is None:
                    break
                try:
                    return await link.call(method, parameters)
                except LostError:
                    is_lost = True
                except UnsendableError:
                    break
            return await self._call_directly(method, parameters)
        except (BusyError, ReadOnlyError) as error:
            if is_lost:
                error.applied = "unknown"  # as in `Connection`
            raise

    # By a daemon

    async def link(self) -> Link | None:
        """The connection to the daemon, if one answers."""
        if not self.uses_daemon or (self._link is not None and not self._link.is_lost):
            return self._link
        async with self._linking:
            if self._link is not None and self._link.is_lost:
                self._link.close()
                self._link = None
                self._lookout.hurry()
                self._may_start = self._start
            if self._link is None and self._lookout.is_due():
                self._link = await self._reach_or_start()
            return self._link

    async def _reach_or_start(self) -> Link | None:
        link = await self.reach(self._lookout)
        if link is None and self._may_start:
            from .starting import start

            self._may_start = False
            if await anyio.to_thread.run_sync(start, self.paths):
                link = await self.reach(self._lookout)
        return link

    async def reach(self, lookout: Lookout) -> Link | None:
        """A connection of one's own to the daemon; None where none answers."""
        stream = await _knock(lookout.places())
        if stream is None:
            return None
        link = Link(stream)
        self._tasks.start_soon(link.run)
        if not await self._is_greeted(link):
            lookout.failed()
            return None
        return link

    async def _is_greeted(self, link: Link) -> bool:
        """Whether the daemon of this store is at the other end; if not, the connection ends."""
        is_ours = False
        try:
            with anyio.fail_after(GREETING_S):
                greeting = await link.call("hello", {"protocol": [rpc.PROTOCOL, rpc.PROTOCOL],
                                                     "client": "taskstore for Python"})
            is_ours = greeting.get("store") == self.paths.directory
        except (TimeoutError, LostError, UnsupportedVersionError):
            pass
        finally:
            if not is_ours:
                link.close()
        return is_ours

    # By the files

    async def look(self, work: "Callable[[Engine], T]") -> T:
        """Do something with the files, in a thread, when nobody else does."""
        async with self._alone:
            return await anyio.to_thread.run_sync(lambda: work(self._opened().engine))

    async def _call_directly(self, method: str, parameters: dict[str, object]) -> Any:  # noqa: ANN401 - plain data
        row = METHODS.get(method)
        if row is not None and row.waits:
            return await self._wait(method, parameters)
        async with self._alone:
            return await anyio.to_thread.run_sync(lambda: self._opened().call(method, parameters))

    async def _wait(self, method: str, parameters: dict[str, object]) -> Any:  # noqa: ANN401 - plain data
        """Wait for a dependency without keeping others from the files."""
        _, given = look_up(method, parameters)
        timeout = given.pop("timeout_ms", None)
        if timeout is not None:
            check_number("timeout_ms", timeout, 0)
        deadline = anyio.current_time() + timeout / 1000 if isinstance(timeout, int) else None
        while True:
            answer = await self.look(lambda _: self._opened().call(method, {**given, "timeout_ms": 0}))
            left = PAUSE_S if deadline is None else min(PAUSE_S, deadline - anyio.current_time())
            if left <= 0 or json.loads(answer).get("resolved_at") is not None:
                return answer
            await anyio.sleep(left)

    def _opened(self) -> Direct:
        if self._direct is None:
            self._direct = Direct(Engine(self.paths))
        return self._direct


async def _knock(places: Sequence[str]) -> SocketStream | None:
    """A stream to the first who listens at one of `places`, if it is this user, in a folder of this user's alone."""
    for path in places:
        if not is_private(os.path.dirname(path)):
            continue
        try:
            stream = await anyio.connect_unix(path)
        except OSError:
            continue
        if peer_uid(stream.extra(SocketAttribute.raw_socket)) == os.geteuid():  # noqa: S610 - anyio's, not Django's
            return stream
        await stream.aclose()
    return None
