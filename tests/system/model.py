"""The store as the documents describe it, in dictionaries and rules: what it holds, finds and would hand out.

Nothing here is the product's code. A log is a list of lines; whatever else there is to know follows from it. What a
write makes of it stands in `model_writes`, what a merge does in `model_merge`.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.system.model_log import LOGS, Line, Log, Refused, started

AHEAD_MS = 60_000
"""Stamps that are further ahead than this, in ms, are told of."""


@dataclasses.dataclass
class Lease:
    """Who holds a task spec; nobody, and so without a token, what runs without having been claimed."""

    by: str = ""
    token: str = ""
    op: str | None = None
    asked: str = ""
    live: bool = True


class Model:
    """One store."""

    def __init__(self) -> None:
        self.logs = {kind: Log() for kind in LOGS}
        self.leases: dict[str, Lease] = {}
        self.asked: dict[tuple[str, str], str] = {}  # an `op` and what its line says -> what was asked for with it

    def copy(self) -> "Model":
        return copy.deepcopy(self)

    def known(self, kind: str, key: str) -> Line | None:
        """The newest version of an id, tombstones too."""
        return self.logs[kind].state().get(key)

    def live(self, kind: str) -> dict[str, Line]:
        return {key: line for key, line in self.logs[kind].state().items() if not line.deleted}

    def get(self, kind: str, key: str) -> Line:
        """The record of this id, or of the one id that begins so."""
        known = self.known(kind, key)
        if known is None:
            found = [line for each, line in self.live(kind).items() if each.startswith(key)]
            known = found[0] if len(found) == 1 else None
        if known is None or known.deleted:
            raise Refused("not_found")
        return known

    def find(self, kind: str, where: "dict[str, dict[str, Any]] | None" = None, order: str | None = None) -> list[Line]:
        """The live records for which every condition holds, in order."""
        order = order or started(kind)
        field = order.removeprefix("-")
        lines = [line for line in self.live(kind).values()
                 if all(_holds(line.record.get(name), test) for name, test in (where or {}).items())]
        there = [line for line in lines if line.record.get(field) is not None]
        without = [line for line in lines if line.record.get(field) is None]
        return [*sorted(there, key=lambda line: (line.record[field], line.key), reverse=order != field),
                *sorted(without, key=lambda line: line.key, reverse=order != field)]

    def history(self, kind: str, key: str) -> list[Line]:
        found = sorted((line for line in self.logs[kind].lines if line.key == key), key=lambda line: line.stamp)
        if not found:
            raise Refused("not_found")
        return found

    def of_op(self, op: str) -> "list[tuple[str, Line]]":
        """The lines that carry an `op`, with their kinds."""
        return [(kind, line) for kind, log in self.logs.items() for line in log.lines if line.op == op]

    def asked_with(self, op: str) -> set[str]:
        """What was asked for with an `op`, as far as lines that carry it are there."""
        return {self.asked[op, line.says] for _, line in self.of_op(op)}

    # Task specs

    def needs(self, key: str) -> list[str]:
        known = self.known("task_spec", key)
        return [] if known is None or known.deleted else known.record.get("depends_on") or []

    def circle_through(self, key: str, needs: Iterable[str]) -> bool:
        """Whether `key` would wait for itself, had it these needs."""
        seen: set[str] = set()
        waiting = list(needs)
        while waiting:
            need = waiting.pop()
            if need == key:
                return True
            if need not in seen:
                seen.add(need)
                waiting += self.needs(need)
        return False

    def has_circle(self) -> bool:
        return any(self.circle_through(key, self.needs(key)) for key in self.live("task_spec"))

    def notice(self) -> None:
        """Whoever looks for work sees what runs under no lease: from then on it counts as held, by nobody."""
        for key, line in self.live("task_spec").items():
            if line.record["status"] == "running":
                self.leases.setdefault(key, Lease())

    def is_free(self, key: str) -> bool:
        """Whether a task spec may be claimed."""
        spec = self.live("task_spec").get(key)
        if spec is None or spec.record["status"] not in {"pending", "running"}:
            return False
        lease = self.leases.get(key, Lease())
        if lease.live and (lease.token or spec.record["status"] == "running"):
            return False
        prd = self.live("prd").get(spec.record.get("prd_id", ""))
        specs = self.live("task_spec")
        return (prd is None or prd.record["status"] != "cancelled") and all(
            need in specs and specs[need].record["status"] == "complete" for need in self.needs(key))

    def ready(self, prd_id: str | None = None) -> list[Line]:
        return [line for line in self.find("task_spec") if self.is_free(line.key)
                and (prd_id is None or line.record.get("prd_id") == prd_id)]

    # What `check` may say

    def problems(self, now: int) -> set[str]:
        """The names of the problems that there are, but for notes."""
        return set(self._problems(now))

    def _problems(self, now: int) -> Iterator[str]:
        if any(log.bad for log in self.logs.values()):
            yield "bad_line"
        if any(line.stamp > now + AHEAD_MS for log in self.logs.values() for line in log.state().values()):
            yield "future_stamp"
        specs = self.live("task_spec")
        if any(need not in specs for key, line in specs.items() if line.record["status"] in {"pending", "running"}
               for need in self.needs(key)):
            yield "missing_need"
        if self.has_circle():
            yield "circle"


def _holds(value: Any, test: "dict[str, Any]") -> bool:
    (operator, wanted), = test.items()
    return bool(_TESTS[operator](value, wanted))


def _contains(value: Any, wanted: Any) -> bool:
    return isinstance(value, str | list) and wanted in value


_TESTS: "dict[str, Callable[[Any, Any], object]]" = {
    "eq": lambda value, wanted: value == wanted,
    "ne": lambda value, wanted: value != wanted,
    "ge": lambda value, wanted: value is not None and value >= wanted,
    "lt": lambda value, wanted: value is not None and value < wanted,
    "in": lambda value, wanted: value in wanted,
    "contains": _contains,
}
