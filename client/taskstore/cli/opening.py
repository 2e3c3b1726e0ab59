"""Opening the store that a command line means: the one place that decides how it is reached."""

import os

from taskstore.connection import Connection
from taskstore_core.errors import InvalidError

from .arguments import Arguments, directory_of

Opened = Connection
"""What carries out calls of methods."""


def connect(arguments: Arguments) -> Opened:
    """The store, through its daemon where one answers; raises NoStoreError, UnsupportedVersionError.

    What is written stands in the tracked files when a command ends, so that a `git commit` behind it takes it in.
    """
    daemon, start = not arguments.flag("no_daemon"), arguments.flag("start")
    if start and not daemon:
        raise InvalidError("--start and --no-daemon exclude each other", hint="use one of them")
    return Connection.open(os.curdir, directory=directory_of(arguments), daemon=daemon, flush=True, start=start)
