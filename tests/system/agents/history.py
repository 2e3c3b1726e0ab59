"""What agents did, as they wrote it down themselves: a line of JSON before each call and one after it.

Times are of CLOCK_MONOTONIC in ns, which all processes of a machine share. A call without a line after it was cut off
with its process: nobody knows what became of it.
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from taskstore.connection import Connection
from taskstore_core.errors import TaskStoreError
from taskstore_core.jsonl import version_of
from taskstore_core.kinds import KINDS
from taskstore_core.plain import to_json

Interval = tuple[int, int]
_KEPT = ("status", "token", "expires_at", "resolved_at")


@dataclasses.dataclass(frozen=True)
class Call:
    """One call. `answer` is its gist, see `gist`; `error` the kind of the error; `ended` None where it was cut off.

    `through` is "daemon" or "files".
    """

    who: str
    name: str
    arguments: dict[str, Any]
    began: int
    ended: int | None
    answer: dict[str, Any] | None = None
    error: str = ""
    applied: str = "no"
    through: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it was answered, and not refused."""
        return self.ended is not None and not self.error

    @property
    def is_refused(self) -> bool:
        """Whether it is known to have written nothing."""
        return bool(self.error) and self.applied == "no"

    @property
    def versions(self) -> dict[str, int]:
        """The version of each record that it was answered with."""
        return {} if self.answer is None else self.answer.get("versions", {})

    def overlaps(self, intervals: Iterable[Interval]) -> bool:
        """Whether any of these was not over when it began, and had begun when it ended."""
        return any(began <= (self.ended or began) and self.began <= ended for began, ended in intervals)


def gist(name: str, arguments: Mapping[str, Any], answer: Any) -> dict[str, Any] | None:
    """What is kept of an answer: {"versions": {id: version}}, and of one record status and token."""
    if answer is None:
        return None
    if name == "store.apply":
        return {"versions": {one["id"]: version_of(KINDS[operation["kind"]], one)
                             for one, operation in zip(answer, arguments["ops"], strict=True)}}
    if "items" in answer:
        kind = KINDS[arguments.get("kind", "task_spec")]
        return {"versions": {one["id"]: version_of(kind, one) for one in answer["items"]}}
    if name == "task_spec.heartbeat":
        return {"expires_at": answer["expires_at"]}
    if "id" not in answer:
        return {}
    kind = KINDS[arguments.get("kind", name.split(".", maxsplit=1)[0])]
    return {"versions": {answer["id"]: version_of(kind, answer)},
            **{key: answer[key] for key in _KEPT if answer.get(key) is not None}}


class Recorder:
    """Makes calls, and writes them down."""

    def __init__(self, path: Path, who: str) -> None:
        self.who = who
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._fd, b"\n")  # whoever was killed may have left half a line

    def close(self) -> None:
        os.close(self._fd)

    def note(self, **fields: object) -> None:
        os.write(self._fd, json.dumps(fields).encode() + b"\n")

    def call(self, connection: Connection, name: str, **arguments: Any) -> Any:
        """The answer as plain data; None where it was refused."""
        self.note(name=name, arguments=arguments, began=time.monotonic_ns())
        try:
            answer = json.loads(to_json(connection.call(name, arguments)))
        except TaskStoreError as error:
            self.note(ended=time.monotonic_ns(), error=error.kind, applied=error.applied, message=error.message,
                      through=_way(connection))
            return None
        ended = time.monotonic_ns()
        self.note(ended=ended, answer=gist(name, arguments, answer), through=_way(connection))
        return answer


def _way(connection: Connection) -> str:
    """How the last call was made; asked of what is open, so as not to look for a daemon."""
    return "files" if connection._remote is None else "daemon"


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file."""
    for line in path.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:
            continue


def calls(path: Path) -> Iterator[Call]:
    """The calls in a file, in order."""
    begun: dict[str, Any] | None = None
    for line in lines(path):
        if "began" in line:
            if begun is not None:
                yield _call(path, begun, {})
            begun = line
        elif begun is not None and "ended" in line:
            yield _call(path, begun, line)
            begun = None
    if begun is not None:
        yield _call(path, begun, {})


def _call(path: Path, begun: dict[str, Any], ended: dict[str, Any]) -> Call:
    return Call(path.stem, begun["name"], begun["arguments"], begun["began"], ended.get("ended"), ended.get("answer"),
                ended.get("error", ""), ended.get("applied", "no"), ended.get("through", ""))
