"""Whether reads were as new as promised: no older than what was acknowledged, or read by anybody, before they began.

What was read while a branch with other records was checked out (`upsets`) is that branch's, and held against nothing.
"""

import dataclasses
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tests.system.agents.history import Call, Interval

WRITES = ("record.create", "record.update", "record.delete", "store.apply", "task_spec.claim", "task_spec.complete",
          "task_spec.fail", "task_spec.release", "dependency.resolve")


def faults(calls: Sequence[Call], upsets: Iterable[Interval] = ()) -> list[str]:
    """What was not as promised."""
    upsets = list(upsets)
    known = _known(calls)
    deleted = _deletions(calls)
    plans = _plans(calls)
    looks = [call for call in calls if call.ended is not None and not call.overlaps(upsets)]
    found = [*_repeated(calls, upsets, known), *_overtaken(calls, upsets), *_resolved_twice(calls, upsets)]
    for call in looks:
        found += _old(call, known)
        found += _missing(call, known, deleted, plans)
        found += _halves(call, plans)
        found += _unresolved(call)
    return found


class _Known:
    """The newest version of a record that anybody knew of, by when."""

    def __init__(self, seen: list[tuple[int, int]]) -> None:
        self._times, self._versions, newest = [], [], -1
        for ended, version in sorted(seen):
            newest = max(newest, version)
            self._times.append(ended)
            self._versions.append(newest)

    def before(self, time: int) -> int:
        """-1 if nobody had heard of the record."""
        place = bisect_left(self._times, time)
        return self._versions[place - 1] if place else -1


def _known(calls: Sequence[Call]) -> dict[str, _Known]:
    seen = defaultdict(list)
    for call in calls:
        if call.is_done and call.ended is not None:
            for key, version in call.versions.items():
                seen[key].append((call.ended, version))
    return defaultdict(lambda: _Known([]), {key: _Known(all_) for key, all_ in seen.items()})


def _deletions(calls: Sequence[Call]) -> dict[str, int]:
    """When somebody first set about deleting a record."""
    began: dict[str, int] = {}
    for call in calls:
        if call.name == "record.delete" and not call.is_refused:
            began[call.arguments["id"]] = min(call.began, began.get(call.arguments["id"], call.began))
    return began


def _plans(calls: Sequence[Call]) -> dict[str, set[str]]:
    """The task specs that were created together with their PRD."""
    plans = {}
    for call in calls:
        if call.name == "store.apply":
            prd, *specs = (operation["record"]["id"] for operation in call.arguments["ops"])
            plans[prd] = set(specs)
    return plans


def _old(call: Call, known: dict[str, _Known]) -> Iterator[str]:
    if call.name in WRITES:
        return
    for key, version in call.versions.items():
        newest = known[key].before(call.began)
        if version < newest:
            yield f"{call.who}'s {call.name} read {key} as of {version}, when {newest} was known"


def _repeated(calls: Sequence[Call], upsets: Sequence[Interval], known: dict[str, _Known]) -> Iterator[str]:
    """Writes that are not newer than what was known before; those sent again are answered as the first time."""
    tried: dict[str, int] = {}
    for call in sorted(calls, key=lambda one: one.began):
        if call.name not in WRITES or tried.setdefault(call.arguments["op"], call.began) < call.began:
            continue
        if call.overlaps(upsets):
            continue
        for key, version in call.versions.items():
            newest = known[key].before(call.began)
            if version <= newest:
                yield f"{call.who}'s {call.name} wrote {key} as of {version}, when {newest} was known"


def _overtaken(calls: Sequence[Call], upsets: Sequence[Interval]) -> Iterator[str]:
    """Updates that were accepted though their record had another version than they were to find."""
    written = defaultdict(set)
    for call in calls:
        if call.name in WRITES and call.is_done:
            for key, version in call.versions.items():
                written[key].add(version)
    for call in calls:
        if call.name == "record.update" and call.is_done and not call.overlaps(upsets):
            for key, version in call.versions.items():
                seen = call.arguments.get("if_updated_at", version)
                if between := sorted(one for one in written[key] if seen < one < version):
                    yield f"{call.who}'s {call.name} of {key} expected {seen}, and was accepted after {between}"


def _resolved_twice(calls: Sequence[Call], upsets: Sequence[Interval]) -> Iterator[str]:
    """Dependencies that two resolved, of whom the second was to hear of a conflict."""
    first: dict[str, Call] = {}
    for call in sorted(calls, key=lambda one: one.began):
        if call.name == "dependency.resolve" and call.is_done:
            before = first.setdefault(call.arguments["id"], call)
            if before.arguments["op"] != call.arguments["op"] and not dataclasses.replace(
                    call, began=before.began).overlaps(upsets):
                yield f"{call.who} resolved {call.arguments['id']}, which {before.who} had resolved"


def _missing(call: Call, known: dict[str, _Known], deleted: dict[str, int],
             plans: dict[str, set[str]]) -> Iterator[str]:
    """Records that were there for certain, and that somebody was told were not."""
    absent: Iterable[str] = ()
    if call.error == "not_found" and "id" in call.arguments:
        absent = [call.arguments["id"]]
    elif _lists_a_plan(call):
        absent = plans.get(call.arguments["where"]["prd_id"], set()) - call.versions.keys()
    for key in absent:
        if known[key].before(call.began) >= 0 and not deleted.get(key, call.ended or 0) < (call.ended or 0):
            yield f"{call.who}'s {call.name} did not find {key}"


def _halves(call: Call, plans: dict[str, set[str]]) -> Iterator[str]:
    """Lists of a plan's task specs that have some of them: they were created together."""
    if _lists_a_plan(call):
        plan = plans.get(call.arguments["where"]["prd_id"], set())
        if call.versions and (missing := sorted(plan - call.versions.keys())):
            yield f"{call.who}'s {call.name} is without {missing}, but not without the others"


def _unresolved(call: Call) -> Iterator[str]:
    """Waits without a limit that ended before what they waited for was resolved."""
    if (call.name == "dependency.wait" and call.is_done and "timeout_ms" not in call.arguments
            and not (call.answer or {}).get("resolved_at")):
        yield f"{call.who}'s {call.name} of {call.arguments['id']} ended before it was resolved"


def _lists_a_plan(call: Call) -> bool:
    return call.name == "record.list" and call.is_done and "prd_id" in call.arguments.get("where", {})
