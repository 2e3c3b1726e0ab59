"""A connection to a store that works with a daemon and without: whoever calls cannot tell, but for speed.

A write that goes to a daemon carries an `op`, so that it can be sent again when the connection breaks, to a daemon
or to the files, and still happens once.
"""

import os

from taskstore_core.errors import UnsupportedVersionError
from taskstore_core.methods import METHODS
from taskstore_core.paths import Paths, discover, named
from taskstore_core.presence import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import Any, Self

    from .direct import Direct
    from .remote import Remote

_TRIES = 3
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
        self._start = start
        self._remote: Remote | None = None
        self._direct: Direct | None = None
        self._looked = False

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
        if self._remote is None and self._daemon and not self._looked:
            self._looked = True
            self._remote = self._reach()
        return self._remote

    def _reach(self) -> "Remote | None":
        sock = self._knock()
        if sock is None and self._start:
            from .starting import start

            sock = self._knock() if start(self.paths) else None
        if sock is None:
            return None
        from .remote import greet

        try:
            return greet(sock, self.paths.directory)
        except UnsupportedVersionError:
            return None  # another release's: the files are the same, and so is what we do with them

    def _knock(self) -> "socket | None":
        found = sockets(self.paths, os.environ)
        if not found:
            return None  # what a socket takes need not even be imported
        from .remote import knock

        return knock(found)

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
        if self.remote is None or (method == "store.apply" and _is_large(parameters)):  # no frame bounds the files
            return self.direct.call(method, parameters)
        row = METHODS.get(method)
        writes = row is not None and row.request is not None
        return self._call(method, prepared(method, parameters), flush=writes and self.flush)

    def _call(self, method: str, parameters: "dict[str, object]", *, flush: bool) -> "Any":  # noqa: ANN401
        from .remote import LostError, UnsendableError

        for _ in range(_TRIES):
            remote = self.remote
            if remote is None:
                break
            try:
                return remote.call(method, {**parameters, "flush": True} if flush else parameters)
            except LostError:
                remote.close()
                self._remote, self._looked = None, False
            except UnsendableError:
                break
        return self.direct.call(method, parameters)


def prepared(method: str, parameters: "dict[str, object]") -> "dict[str, object]":
    """Parameters for a daemon: a write gets an `op` if it has none, so that it can be sent again."""
    row = METHODS.get(method)
    if row is None or row.request is None or "op" not in row.parameters or parameters.get("op") is not None:
        return parameters
    return {**parameters, "op": os.urandom(9).hex()}


def _is_large(parameters: "dict[str, object]") -> bool:
    from taskstore_core.plain import to_json

    return len(to_json(parameters)) > _MAX_REQUEST
