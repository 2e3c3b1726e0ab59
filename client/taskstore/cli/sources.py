"""Records that a file or standard input holds as JSON objects, with the lines they stand in."""

import codecs
import json
import sys
from typing import NoReturn

from taskstore_core.errors import InvalidError, NotFoundError, TaskStoreError

from .arguments import Arguments
from .progress import Working

Fields = dict[str, object]


class Source:
    """Where records come from: `name` for messages, and `records` with the number of the line of each."""

    __slots__ = ("name", "records")

    def __init__(self, name: str, records: list[tuple[int, Fields]]) -> None:
        self.name = name
        self.records = records

    def locate(self, error: TaskStoreError) -> None:
        """Have an error about one of several operations say which line it is about."""
        if error.operation is not None:
            error.message = f"{self.name}, line {self.records[error.operation][0]}: {error.message}"


def source_of(arguments: Arguments) -> Source | None:
    """The source that --file or --stdin names; None where neither does. Raises InvalidError, NotFoundError."""
    path = arguments.option("file")
    if path is not None and arguments.flag("stdin"):
        raise InvalidError(f"{arguments.command.name}: --file and --stdin exclude each other", hint="use one of them")
    if path is None and not arguments.flag("stdin"):
        return None
    return open_source(None if arguments.flag("stdin") else path)


def open_source(path: str | None) -> Source:
    """The records of a file, or of standard input."""
    name = path or "standard input"
    return Source(name, _parse(_read(path), name))


def _read(path: str | None) -> bytes:
    if path is None:
        with Working("reading standard input") if not sys.stdin.isatty() else _Nothing():
            return sys.stdin.buffer.read()
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise NotFoundError(f"cannot read {path}: {error.strerror}") from None


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _parse(data: bytes, name: str) -> list[tuple[int, Fields]]:
    """The records in `data` with their lines: one JSON object, however it is laid out, or one a line."""
    try:
        whole = json.loads(data.decode("utf-8-sig"))
        return [(1, whole)] if isinstance(whole, dict) else refuse(name, 1, "not a JSON object")
    except (ValueError, RecursionError):
        pass
    records = []
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            return refuse(name, number, str(error))
        if not isinstance(record, dict):
            return refuse(name, number, "not a JSON object")
        records.append((number, record))
    return records


def refuse(name: str, line: int, reason: str) -> NoReturn:
    """Raise InvalidError for a line that is not what it should be."""
    raise InvalidError(f"{name}, line {line}: {reason}", hint="nothing was written")
