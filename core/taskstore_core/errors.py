"""Every error TaskStore raises on purpose: whose fault it is, what to do, and how each shell reports it.

A class carries what the command line (`exit_status`) and JSON-RPC (`code`, `kind`, `retryable`) answer with, so
that neither keeps a table of its own. A message is one line and names the thing it is about.
"""


class TaskStoreError(Exception):
    """Base of all errors of TaskStore.

    `applied` tells what became of a write: "no", "yes" or "unknown". `hint` says what to do, where there is
    something to do. `field` names the offending field of a record or parameter, `operation` which of several
    operations failed, counted from 0.
    """

    kind = "internal"
    code = -32603
    exit_status = 3
    retryable = False

    def __init__(self, message: str, *, hint: str = "", field: str | None = None, applied: str = "no") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field
        self.applied = applied
        self.operation: int | None = None


class NotFoundError(TaskStoreError):
    """No live record has this id, or an id prefix fits several."""

    kind = "not_found"
    code = 4004
    exit_status = 1


class ExistsError(TaskStoreError):
    """A record with this id is there already."""

    kind = "exists"
    code = 4009
    exit_status = 1


class ConflictError(TaskStoreError):
    """The record is not in the state the caller expected (`if_updated_at`, a lease's token)."""

    kind = "conflict"
    code = 4010
    exit_status = 1


class InvalidError(TaskStoreError):
    """A value outside its type, or an unknown kind, field or parameter; `field` names it."""

    kind = "invalid"
    code = 4000
    exit_status = 2


class NoStoreError(TaskStoreError):
    """There is no store where one was looked for."""

    kind = "no_store"
    code = 4040


class ReadOnlyError(TaskStoreError):
    """The store can be read but not written: no permission, disk full, or an I/O error."""

    kind = "read_only"
    code = 5003


class BusyError(TaskStoreError):
    """Another process kept the store's lock, or git its files, for longer than we wait."""

    kind = "busy"
    code = 5001
    retryable = True


class UnsupportedVersionError(TaskStoreError):
    """The files are of a format this release does not know."""

    kind = "unsupported_version"
    code = 5005


def check_text(name: str, text: str) -> None:
    """Raise InvalidError, naming the field, for text that neither UTF-8 nor SQLite can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = name.encode("ascii", "backslashreplace").decode()
        raise InvalidError(f"{shown}: half of a surrogate pair, which UTF-8 cannot hold", field=shown) from None
