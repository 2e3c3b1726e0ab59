"""Whether the logs hold what was acknowledged, each write once, and nothing that nobody wrote.

What a branch has not, a store does not know there: a write that is sent again while another branch is checked out
(`upsets`) may be done once more, or refused, and both lines are there when the branches meet.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tests.system.agents.freshness import WRITES
from tests.system.agents.history import Call, Interval

CHAFF = {"workflow": "chaff-workflow", "task_spec": "chaff-task-spec"}
"""Records by kind of which lines may be dropped: nobody reads them, and what writes them has no `op` to be known by."""
EXPECTED = {"conflict", "not_found", "busy", "exists"}
"""What agents must be prepared for; anything else should not have happened."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a log."""

    key: str
    version: int
    op: str
    deleted: bool = False


def faults(calls: Sequence[Call], lines: Iterable[Line], upsets: Iterable[Interval] = ()) -> list[str]:
    """What was not as promised."""
    lines = list(lines)
    tries = _tries(calls)
    upset = _upset(tries, list(upsets))
    return [*_lost(calls, lines), *_doubled(lines, upset), *_unasked(tries, lines, upset),
            *_changed_answers(calls, upset), *_halves(calls, lines), *_unwritten(calls, lines),
            *(f"{call.who}'s {call.name}: {call.error}" for call in calls if call.error and call.error not in EXPECTED)]


def _tries(calls: Sequence[Call]) -> dict[str, list[Call]]:
    """The calls that asked for a write, by its op, in order."""
    tries = defaultdict(list)
    for call in sorted(calls, key=lambda one: one.began):
        if call.name in WRITES:
            tries[call.arguments["op"]].append(call)
    return tries


def _upset(tries: Mapping[str, Sequence[Call]], upsets: Sequence[Interval]) -> set[str]:
    """The ops that were asked for, from the first time to the end of the last, while another branch was there."""
    return {op for op, calls in tries.items() if dataclasses.replace(calls[-1], began=calls[0].began).overlaps(upsets)}


def _lost(calls: Sequence[Call], lines: Sequence[Line]) -> Iterator[str]:
    there = {(line.key, line.version, line.op) for line in lines}
    claimed = {(line.key, line.op) for line in lines}
    for call in calls:
        if call.name in WRITES and call.is_done:
            for key, version in call.versions.items():
                op = call.arguments["op"]
                # a claim that is sent again is answered with what has become of its task spec since
                if (key, op) not in claimed if call.name == "task_spec.claim" else (key, version, op) not in there:
                    yield f"lost: {call.who}'s {call.name} of {key}, version {version}"


def _doubled(lines: Sequence[Line], upset: Collection[str]) -> Iterator[str]:
    for (key, op), count in Counter((line.key, line.op) for line in lines if line.op).items():
        if count > 1 and op not in upset:
            yield f"{op} was written {count} times to {key}"
    for (key, version), count in Counter((line.key, line.version) for line in lines).items():
        if count > 1:
            yield f"{key} has {count} lines of version {version}"


def _unasked(tries: Mapping[str, Sequence[Call]], lines: Sequence[Line], upset: Collection[str]) -> Iterator[str]:
    for line in lines:
        if not line.op:
            # with a deletion a merge ends an edit that did not know of it
            if not line.deleted and line.key not in CHAFF.values():
                yield f"nobody wrote version {line.version} of {line.key}"
        elif line.op not in tries:
            yield f"nobody asked for {line.op}, which is on a line of {line.key}"
        elif line.op not in upset and all(call.is_refused for call in tries[line.op]):
            yield f"{line.op} was refused, and is on a line of {line.key}"


def _changed_answers(calls: Sequence[Call], upset: Collection[str]) -> Iterator[str]:
    first: dict[str, Call] = {}
    for call in calls:
        if call.name in WRITES and call.is_done and call.versions and call.arguments["op"] not in upset:
            before = first.setdefault(call.arguments["op"], call)
            same = dict if call.name != "task_spec.claim" else set[str]
            if same(before.versions) != same(call.versions):
                yield f"{call.arguments['op']} was answered with {before.versions}, then with {call.versions}"


def _halves(calls: Sequence[Call], lines: Sequence[Line]) -> Iterator[str]:
    """Of writes of several records, also of those that nobody was told the end of, all lines are there or none."""
    there = defaultdict(set)
    for line in lines:
        there[line.op].add(line.key)
    for call in calls:
        if call.name == "store.apply" and there[call.arguments["op"]]:
            wanted = {operation["record"]["id"] for operation in call.arguments["ops"]}
            if missing := sorted(wanted - there[call.arguments["op"]]):
                yield f"{call.arguments['op']} is there without {missing}"


def _unwritten(calls: Sequence[Call], lines: Sequence[Line]) -> Iterator[str]:
    """Versions that somebody read and that no log has: of a write that was refused, or lost after it was read."""
    there = {(line.key, line.version) for line in lines}
    for call in calls:
        if call.name not in WRITES and call.is_done:
            for key, version in call.versions.items():
                if (key, version) not in there:
                    yield f"{call.who}'s {call.name} read {key} as of {version}, which no log has"
