"""`watch`: changes as they happen, a line each."""

import sys
import time

from taskstore_core.errors import InvalidError
from taskstore_core.kinds import KINDS, find_kind
from taskstore_core.plain import to_json

from .arguments import Arguments
from .decode import decoder, fields
from .lists import COLUMNS, where_of
from .opening import connect
from .text import coloured, visible, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import apsw

    Event = dict[str, object]

_DONE = {"create": "created", "update": "updated", "delete": "deleted"}
_ANEW = "look anew: the cache was rebuilt, and changes may have been missed"


def watch(arguments: Arguments) -> int:
    """Print changes until interrupted, or until nobody reads them any more."""
    from taskstore.changes import Changes

    kinds = [find_kind(word) for word in arguments.many("KIND")]
    if arguments.many("where") and len(kinds) != 1:
        raise InvalidError("watch: --where needs one KIND whose fields it is about", field="where")
    where = where_of(kinds[0], arguments) if arguments.many("where") else None
    write = _write_as_json if arguments.json else _Lines().write
    names = [kind.name for kind in kinds] or None
    try:
        with connect(arguments) as store, Changes(store, names, where) as changes:
            _leave_with_reader()
            if sys.stderr.isatty():
                sys.stderr.write("watching; Ctrl-C ends it\n")
                sys.stderr.flush()
            for event in changes:
                write(event)
                sys.stdout.flush()
    except KeyboardInterrupt:  # how one ends a watch: no failure
        pass
    return 0


def _leave_with_reader() -> None:
    """End as soon as whoever reads standard output has gone, and not only with the next change."""
    import os
    import select
    import signal
    import threading

    def wait() -> None:
        poll = select.poll()
        poll.register(1, 0)  # nothing but errors: the other end of a pipe closed, a terminal hung up
        poll.poll()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def _write_as_json(event: "Event") -> None:
    write_json(to_json(event))
    sys.stdout.buffer.flush()


class _Lines:
    """Events as lines for people: when, what, which, and what it is now."""

    def __init__(self) -> None:
        self._connection: apsw.Connection = decoder()

    def write(self, event: "Event") -> None:
        clock = time.strftime("%H:%M:%S")
        sys.stdout.write(f"{clock}  {self._words(event)}".rstrip() + "\n")

    def _words(self, event: "Event") -> str:
        if "resync" in event:
            return _ANEW
        if "branch" in event:
            return f"branch {visible(str(event['branch']))} is checked out"
        kind = KINDS[str(event["kind"])]
        record = fields(self._connection, str(event["record"])) if event["record"] is not None else {}
        more = [visible(str(record[name])) for name in ("status", COLUMNS[kind.name][-1])
                if isinstance(record.get(name), str)]
        words = "  ".join(coloured(word, word) for word in more)
        return f"{_DONE[str(event['op'])]}  {kind.title:<10}  {visible(str(event['id'])):<12}  {words}"
