"""Logs as the model has them: lines, each a version of a record, and what follows from them by docs/format.md."""

import dataclasses
import json
from collections import Counter
from typing import Any

FIELDS = {
    "prd": "id title description created_at updated_at status review_passes content",
    "task_spec": "id prd_id phase_name description created_at updated_at status workflow_name assigned_to content"
                 " depends_on",
    "execution": "id ts_id worktree_path branch_name status started_at updated_at completed_at current_phase"
                 " iteration_count error_message",
    "dependency": "id from_exec_id to_exec_id dependency_type created_at resolved_at payload updated_at",
    "workflow": "id name description awl_code created_at updated_at",
}
"""The fields of a kind in their order."""
LOGS = {"prd": "prds.jsonl", "task_spec": "task_specs.jsonl", "execution": "executions.jsonl",
        "dependency": "dependencies.jsonl", "workflow": "workflows.jsonl"}
MARKS = ("base_at", "op", "op_sum")


class Refused(Exception):  # noqa: N818 - what a caller would hear, as an outcome
    """The store says no; `kind` is the error's."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def started(kind: str) -> str:
    """The field that says when a record began, by which lists are ordered."""
    return "started_at" if kind == "execution" else "created_at"


def canonical(record: dict[str, Any]) -> str:
    """What a line says, the marks of the write that made it aside, in one way of writing it."""
    return json.dumps({name: value for name, value in record.items() if name not in MARKS}, sort_keys=True)


def parsed(text: str) -> Any:
    """JSON, with fractions kept as they are written."""
    return json.loads(text, parse_float=lambda digits: f"the number {digits}")


@dataclasses.dataclass
class Line:
    """One version of a record; `raw` is its text where the model has been told."""

    key: str
    stamp: int
    record: dict[str, Any]
    raw: str | None = None

    @property
    def deleted(self) -> bool:
        return self.record.get("deleted") is True

    @property
    def says(self) -> str:
        return canonical(self.record)

    @property
    def op(self) -> str | None:
        return self.record.get("op")

    @property
    def number(self) -> int:
        """Which operation of several under its `op` made it."""
        return int(self.record.get("op_sum", "").partition(".")[2] or 0)


def version_of(record: dict[str, Any]) -> int:
    """`updated_at`, else the largest of the other stamps."""
    if record.get("updated_at") is not None:
        return int(record["updated_at"])
    return max(0, *(record.get(name) or 0 for name in ("resolved_at", "created_at", "started_at")))


def line_of(text: str) -> Line | None:
    """A line of a log; None for one that is no record."""
    text = text.strip(" \t\r\ufeff")
    try:
        record = parsed(text)
        return Line(record["id"], version_of(record), record, text) if isinstance(record["id"], str) else None
    except (ValueError, TypeError, KeyError):
        return None


class Log:
    """The lines of one kind in the order of their file, those that wait for it last; what is no record; a torn end."""

    def __init__(self, data: bytes = b"") -> None:
        self.lines: list[Line] = []
        self.bad: list[bytes] = []
        self.closing: list[bytes] = []  # torn, until a line of ours comes behind it, which may wait for git yet
        *whole, end = data.split(b"\n")
        for each in whole:
            line = line_of(each.decode())
            if line is not None:
                self.lines.append(line)
            elif each:
                self.bad.append(each)
        whole_end = line_of(end.decode())
        self.lines += [whole_end] if whole_end is not None else []
        self.torn = b"" if whole_end is not None else end

    def append(self, line: Line) -> None:
        """A line more; what was torn before it is a line of its own from then on, and a bad one.

        Unless it is how this line begins: that is taken for what a crash has left of it.
        """
        if self.torn and not '{"id":'.startswith(self.torn.decode()):
            self.closing.append(self.torn)
        self.torn = b""
        self.lines.append(line)

    def close(self) -> None:
        """Somebody else has ended the torn line."""
        if self.torn:
            self.bad.append(self.torn)
        self.torn = b""

    def state(self) -> dict[str, Line]:
        """The newest version of each id; of equal ones the later line."""
        newest: dict[str, Line] = {}
        for line in self.lines:
            if line.key not in newest or line.stamp >= newest[line.key].stamp:
                newest[line.key] = line
        return newest

    def content(self) -> "tuple[Counter[str], Counter[bytes], bytes]":
        """What a file must have to be this log, whatever the order of its lines."""
        return Counter(line.says for line in self.lines), Counter(self.bad + self.closing), self.torn
