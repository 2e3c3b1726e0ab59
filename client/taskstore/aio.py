"""The asynchronous client, on anyio: the same calls as `Store`, awaited, under trio and asyncio.

    async with connect_async(".") as store:
        claim = await store.claim(by="agent-1")

Any number of tasks may share one. A call that is cancelled may have happened all the same; under an `op` of yours it
can be made again.
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio

from taskstore_core import layout
from taskstore_core.paths import discover, named

from .async_changes import AsyncChanges
from .async_connection import AsyncConnection
from .calls import Call
from .events import Tracker
from .interface import Interface

T = TypeVar("T")


class AsyncStore(Interface):
    """A store of typed records for asynchronous programs; made by `connect_async`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def run(self, call: Call[T]) -> T:
        """Carry out a call."""
        return call.decode(await self._connection.call(call.method, call.parameters))

    def changes(self, *, kinds: Sequence[str] | None = None, where: Mapping[str, object] | None = None,
                since: str | None = None) -> AsyncChanges:
        """What changes from now on, or after the cursor `since`: `async with` it, then `async for`.

        `kinds` and `where` (as in `list`) say what to hear of. Raises InvalidError.
        """
        return AsyncChanges(self._connection, Tracker(kinds, None if where is None else dict(where), since))


@asynccontextmanager
async def connect_async(path: str = ".", *, directory: str | None = None,
                        daemon: bool = True, start: bool = False) -> AsyncIterator[AsyncStore]:
    """A store for asynchronous programs, through the daemon where one answers, else by its files.

    `start` (or TASKSTORE_AUTOSTART=1 in the environment) starts a daemon where none runs.
    Raises NoStoreError where there is none, UnsupportedVersionError for one of a newer release.
    """
    paths = named(directory) if directory is not None else discover(path)
    layout.read_version(paths)
    raised: Exception | None = None
    async with anyio.create_task_group() as tasks:
        connection = AsyncConnection(paths, tasks, daemon=daemon,
                                     start=start or os.environ.get("TASKSTORE_AUTOSTART") == "1")
        try:
            yield AsyncStore(connection)
        except Exception as error:  # noqa: BLE001 - the caller's own: through a task group it would come out in a group
            raised = error
        finally:
            with anyio.CancelScope(shield=True):
                await connection.close()
            tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised
