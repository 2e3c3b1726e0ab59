"""A connection to a store that works with a daemon and without: whoever calls cannot tell, but for speed.

A write that goes to a daemon carries an `op`, so that it can be sent again when the connection breaks, to a daemon
or to the files, and still happens once. Each call goes to one or the other as a whole, so that between two calls a
daemon may come, and is used from then on.
"""

import os

from taskstore_core.errors import BusyError, ReadOnlyError, UnsupportedVersionError
from taskstore_core.methods import METHODS
from taskstore_core.paths import Paths, discover, named

from .lookout import Lookout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from .direct import Direct
    from .remote import Remote

TRIES = 3
FLUSH_MS = 1000
"""How long whoever wants a line in its log waits for git to be quiet."""
_MAX_REQUEST = 4 << 20  # characters


class Connection:
    """A store, through the daemon where one answers, else by its files."""

    def __init__(self, paths: Paths, *, daemon: bool = True, flush: bool = False, start: bool = False) -> None:
        """`daemon` False never asks one, `start` starts one where none runs.

        With `flush` a write returns once its line is in the tracked file.
        """
        self.paths = paths
        self.flush = flush
        self._daemon = daemon
        self._start = self._may_start = start
        self._lookout = Lookout(paths)
        self._remote: Remote | None = None
        self._direct: Direct | None = None

    @classmethod
    def open(cls, path: str = ".", *, directory: str | None = None, daemon: bool = True,
             flush: bool = False, start: bool = False) -> "Self":
        """The store of the repository that `path` lies in, or the one in `directory`; raises NoStoreError.

        TASKSTORE_AUTOSTART=1 in the environment is as good as `start`.
        """
        from taskstore_core import layout

        paths = named(directory) if directory is not None else discover(path)
        layout.read_version(paths)
        return cls(paths, daemon=daemon, flush=flush, start=start or os.environ.get("TASKSTORE_AUTOSTART") == "1")

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None
        if self._direct is not None:
            self._direct.close()
            self._direct = None

    @property
    def uses_daemon(self) -> bool:
        """Whether a daemon is asked where one answers."""
        return self._daemon

    @property
    def remote(self) -> "Remote | None":
        """The connection to the daemon, if one answers."""
        if self._remote is None and self._daemon and self._lookout.is_due():
            self._remote = self._reach_or_start()
        return self._remote

    def _reach_or_start(self) -> "Remote | None":
        remote = self.reach(self._lookout)
        if remote is None and self._may_start:
            from .starting import start

            self._may_start = False
            if start(self.paths):
                remote = self.reach(self._lookout)
        return remote

    def reach(self, lookout: Lookout) -> "Remote | None":
        """A connection of one's own to the daemon; None where none answers."""
        places = lookout.places()
        if not places:
            return None  # what a socket takes need not even be imported
        from .remote import greet, knock

        sock = knock(places)
        if sock is None:
            return None
        try:
            remote = greet(sock, self.paths.directory)
        except UnsupportedVersionError:
            remote = None  # another release's: the files are the same, and so is what we do with them
        if remote is None:
            lookout.failed()
        return remote

    @property
    def direct(self) -> "Direct":
        """Access by the files."""
        if self._direct is None:
            from taskstore_core.store import Store

            from .direct import Direct

            self._direct = Direct(Store(self.paths))
        return self._direct

    def call(self, method: str, parameters: "dict[str, object]") -> "Any":  # noqa: ANN401 - plain data, as JSON has it
        """The answer of a method; raises its error."""
        row = METHODS.get(method)
        flush = self.flush and row is not None and row.request is not None
        if self.remote is None or is_too_large(method, parameters):
            return self._call_directly(method, parameters, flush=flush)
        return self._call(method, prepared(method, parameters), flush=flush)

    def _call_directly(self, method: str, parameters: "dict[str, object]", *, flush: bool) -> "Any":  # noqa: ANN401
        answer = self.direct.call(method, parameters)
        if flush:
            self.direct.engine.flush(FLUSH_MS / 1000)
        return answer

    def _call(self, method: str, parameters: "dict[str, object]", *, flush: bool) -> "Any":  # noqa: ANN401
        from .remote import LostError, UnsendableError

        is_lost = False
        try:
            for _ in range(TRIES):
                remote = self.remote
                if remote is None:
                    break
                try:
                    return remote.call(method, {**parameters, "flush": True} if flush else parameters)
                except LostError:
                    self._lose(remote)
                    is_lost = True
                except UnsendableError:
                    break
            return self._call_directly(method, parameters, flush=flush)
        except (BusyError, ReadOnlyError) as error:
            if is_lost:
                error.applied = "unknown"  # this try did nothing, but what became of those before nobody has said
            raise

    def _lose(self, remote: "Remote") -> None:
        """Let go of a daemon that went away, and look at once whether there is another."""
        remote.close()
        self._remote, self._may_start = None, self._start
        self._lookout.hurry()


def prepared(method: str, parameters: "dict[str, object]") -> "dict[str, object]":
    """Parameters for a daemon: a write gets an `op` if it has none, so that it can be sent again."""
    row = METHODS.get(method)
    if row is None or row.request is None or "op" not in row.parameters or parameters.get("op") is not None:
        return parameters
    return {**parameters, "op": os.urandom(9).hex()}


def is_too_large(method: str, parameters: "dict[str, object]") -> bool:
    """Whether it is for the files, which no frame bounds."""
    from taskstore_core.plain import to_json

    return method == "store.apply" and len(to_json(parameters)) > _MAX_REQUEST
