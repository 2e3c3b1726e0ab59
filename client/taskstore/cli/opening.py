"""Opening the store that a command line means."""

import os

from taskstore_core.errors import InvalidError
from taskstore_core.store import Store

from .arguments import Arguments


def directory_of(arguments: Arguments) -> str | None:
    """The store's folder named by --store or TASKSTORE_DIR; None for that of the repository we stand in."""
    named = arguments.option("store")
    if named == "":
        raise InvalidError("--store: names no folder", hint="is a shell variable empty?", field="store")
    return named or os.environ.get("TASKSTORE_DIR") or None


def open_store(arguments: Arguments) -> Store:
    """Open the store; raises NoStoreError, UnsupportedVersionError."""
    return Store.open(os.curdir, directory=directory_of(arguments))
