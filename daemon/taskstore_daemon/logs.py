"""The daemon's log: one JSON object a line, in the private folder, and on standard error where somebody looks."""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping

from taskstore_core.files import share_like_folder

_MAX = 1 << 20
"""Bytes beyond which a new daemon begins a new file, and keeps one old one."""


def fields(event: str, **values: object) -> Mapping[str, object]:
    """What a call of a logger takes as `extra`, to log an `event` with values that programs can read."""
    return {"fields": {"event": event, **values}}


class JsonLines(logging.Formatter):
    """Records as JSON: time, level, logger, message, the fields of an event, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(), "logger": record.name.removeprefix("taskstore_daemon."),
            "message": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(level: str, path: str, *, only_there: bool) -> None:
    """Send everything from `level` on to the file at `path`. Needs the daemon's lock.

    With `only_there` nobody looks at standard output and error: what goes there ends up in the file too.
    """
    fd = _open(path)
    handlers = [_handler(fd)]
    if only_there:
        os.dup2(fd, 1)
        os.dup2(fd, 2)
    else:
        handlers.append(_handler(2))
    logging.raiseExceptions = False  # a full disk or a closed terminal is no reason to say so there
    logging.basicConfig(level=level.upper(), handlers=handlers)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)


def _handler(fd: int) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr if fd == 2 else  # noqa: PLR2004 - standard error
                                    open(fd, "a", buffering=1, encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115 - lives as long as we do
    handler.setFormatter(JsonLines())
    return handler


def _open(path: str) -> int:
    """The log's descriptor, of a new file where the old one has grown large."""
    try:
        if os.lstat(path).st_size > _MAX:
            os.replace(path, f"{path}.1")
    except FileNotFoundError:
        pass
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    share_like_folder(fd, path)
    return fd
