"""Whether every task spec had one holder at a time: what calls that were answered say for certain.

A hold is certain from when its claim was answered until its holder set about ending it, or else until a lease's time
after the last call that began it anew. Two certain holds of one task spec that overlap are two holders.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from tests.system.agents.history import Call, Interval

SETTLE = ("task_spec.complete", "task_spec.fail", "task_spec.release")
_ENDED = {"task_spec.complete": "completed", "task_spec.fail": "failed"}
PROVING = (*SETTLE, "task_spec.heartbeat")
_MS = 1_000_000
_SLACK = 2 * _MS  # leases count in whole ms
_NEVER = 1 << 62


@dataclasses.dataclass
class Hold:
    """What one token proves: certain from `start` to `end`; `renewals` are (when, until when at the latest).

    All in ns.
    """

    spec: str
    token: str
    by: str
    start: int
    end: int
    renewals: list[tuple[int, int]]
    settled: int = _NEVER
    settled_op: str = ""

    def __str__(self) -> str:
        return f"{self.by}'s hold of {self.spec} ({self.token})"

    def latest_before(self, call: Call) -> int:
        """Until when it can have lasted, as far as that was decided before this call."""
        return max(until for began, until in self.renewals if began < call.began)

    def covers(self, call: Call) -> bool:
        return call.ended is not None and self.start <= call.began and call.ended <= self.end


def holds_of(calls: Sequence[Call]) -> dict[str, Hold]:
    """Every hold that somebody was told of, by token."""
    holds = _granted(calls)
    by_spec = defaultdict(list)
    for hold in holds.values():
        by_spec[hold.spec].append(hold)
    for call in sorted(calls, key=lambda one: one.began):
        if call.name in PROVING and call.arguments["token"] in holds:
            _prove(holds[call.arguments["token"]], call)
        elif not call.is_refused:
            for spec in set_by_hand(call):
                for hold in by_spec[spec]:
                    if call.ended is None or call.ended > hold.start:
                        hold.end = min(hold.end, call.began)
    return holds


def _granted(calls: Sequence[Call]) -> dict[str, Hold]:
    asked: dict[str, int] = {}
    holds: dict[str, Hold] = {}
    for call in sorted((one for one in calls if one.name == "task_spec.claim"), key=lambda one: one.began):
        began = asked.setdefault(call.arguments["op"], call.began)  # it may have been granted when it was first asked
        if call.is_done and call.answer and call.ended is not None:
            lease, token = _lease(call), call.answer["token"]
            (spec,) = call.versions
            if token not in holds:
                holds[token] = Hold(spec, token, call.who, call.ended, began + lease - _SLACK,
                                    [(began, call.ended + lease)])
    return holds


def _prove(hold: Hold, call: Call) -> None:
    """Take in what a call with the hold's token did to it."""
    if call.is_refused:
        return
    if call.name in SETTLE:
        hold.end = min(hold.end, call.began)
        if call.is_done and call.ended is not None and call.ended < hold.settled:
            hold.settled, hold.settled_op = call.ended, call.arguments["op"]
    elif call.is_done and call.ended is not None:
        hold.end = call.began + _lease(call) - _SLACK
        hold.renewals.append((call.began, call.ended + _lease(call)))
    else:
        hold.end = min(hold.end, call.began + _lease(call) - _SLACK)
        hold.renewals.append((call.began, _NEVER))


def _lease(call: Call) -> int:
    return int(call.arguments["lease_ms"]) * _MS


def set_by_hand(call: Call) -> list[str]:
    """The task specs whose status a call sets."""
    if call.name == "record.update" and call.arguments["kind"] == "task_spec" and "status" in call.arguments["set"]:
        return [call.arguments["id"]]
    return []


def faults(calls: Sequence[Call], upsets: Iterable[Interval] = ()) -> list[str]:
    """What was not as promised. `upsets` are the times when a branch with other task specs was checked out."""
    upsets = list(upsets)
    holds = holds_of(calls)
    return [*_shared(calls), *_doubles(holds.values()), *_wrongly_taken(calls, holds),
            *_wrongly_refused(calls, upsets), *_early(calls), *_again(calls, upsets)]


def _shared(calls: Sequence[Call]) -> Iterator[str]:
    """Tokens that more than one claim was answered with: of two holds with one token, `holds_of` knows the first."""
    given: dict[str, tuple[str, ...]] = {}
    for call in calls:
        if call.name == "task_spec.claim" and call.is_done and call.answer:
            claim, token = (call.arguments["op"], *call.versions), call.answer["token"]
            if given.setdefault(token, claim) != claim:
                yield f"{call.who} was given one token, {token}, for {claim} and for {given[token]}"


def _doubles(holds: Iterable[Hold]) -> Iterator[str]:
    longest: dict[str, Hold] = {}
    for hold in sorted(holds, key=lambda one: one.start):
        if hold.end < hold.start:
            continue
        before = longest.get(hold.spec)
        if before is not None and hold.start < before.end:
            yield f"two holders: {hold} began while there was {before}"
        if before is None or hold.end > before.end:
            longest[hold.spec] = hold


def _wrongly_taken(calls: Sequence[Call], holds: dict[str, Hold]) -> Iterator[str]:
    """Calls that were answered although their token proved nothing (any more)."""
    by_spec = defaultdict(list)
    for known in holds.values():
        by_spec[known.spec].append(known)
    tried: dict[str, int] = {}
    for call in sorted((one for one in calls if one.name in PROVING), key=lambda one: one.began):
        op = call.arguments.get("op", "")
        repeated = bool(op) and tried.setdefault(op, call.began) < call.began
        if not call.is_done or repeated:
            continue
        hold = holds.get(call.arguments["token"])
        if hold is None:
            yield f"{call.who}'s {call.name} of {call.arguments['id']} was accepted with a token that nobody was given"
        elif (hold.spec, hold.by) != (call.arguments["id"], call.who):
            yield f"{call.who}'s {call.name} of {call.arguments['id']} was accepted with the token of {hold}"
        elif hold.settled < call.began:
            yield f"{call.who}'s {call.name} was accepted though {hold} was over"
        elif hold.latest_before(call) < call.began:
            yield f"{call.who}'s {call.name} was accepted though the lease of {hold} had ended"
        for other in by_spec[call.arguments["id"]]:
            if other is not hold and other.covers(call):
                yield f"{call.who}'s {call.name} was accepted though there was {other}"


def _wrongly_refused(calls: Sequence[Call], upsets: Sequence[Interval]) -> Iterator[str]:
    """Calls that were refused though they came from the holder."""
    holds = holds_of(calls)
    for call in calls:
        if call.name in PROVING and call.error in {"conflict", "not_found"} and not call.overlaps(upsets):
            hold = holds.get(call.arguments["token"])
            if hold is not None and hold.spec == call.arguments["id"] and hold.covers(call):
                yield f"{call.who}'s {call.name} was refused though it had {hold}"


def _early(calls: Sequence[Call]) -> Iterator[str]:
    """Claims of what needs something that nobody had set about completing."""
    needs = {record["id"]: record["depends_on"] for call in calls if call.name == "store.apply"
             for record in (one.get("record", {}) for one in call.arguments["ops"]) if record.get("depends_on")}
    completed: dict[str, int] = {}
    for call in calls:
        if call.name == "task_spec.complete" and not call.is_refused:
            key = call.arguments["id"]
            completed[key] = min(call.began, completed.get(key, _NEVER))
    for call in calls:
        if call.name == "task_spec.claim" and call.is_done and call.ended is not None:
            for spec in call.versions:
                for need in needs.get(spec, ()):
                    if completed.get(need, _NEVER) > call.ended:
                        yield f"{call.who} was given {spec} before {need} was complete"


def _ends(calls: Sequence[Call]) -> dict[str, list[Call]]:
    """The calls that ended a claim for good, by task spec; one that was sent again from when it was first sent."""
    ends: dict[str, list[Call]] = defaultdict(list)
    asked: dict[str, int] = {}
    for call in sorted(calls, key=lambda one: one.began):
        if call.name in _ENDED:
            began = asked.setdefault(call.arguments["op"], call.began)
            if call.is_done:
                ends[call.arguments["id"]].append(dataclasses.replace(call, began=began))
    return ends


def _again(calls: Sequence[Call], upsets: Sequence[Interval]) -> Iterator[str]:
    """Claims of what was complete or had failed, and had not been set to another status since."""
    ends = _ends(calls)
    by_hand: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if not call.is_refused:
            for spec in set_by_hand(call):
                by_hand[spec].append(call)
    for claim in calls:
        if claim.name != "task_spec.claim" or not claim.is_done:
            continue
        for spec in claim.versions:
            for end in ends[spec]:
                span = dataclasses.replace(claim, began=end.began)
                if (end.ended or _NEVER) < claim.began and not span.overlaps(upsets) and not any(
                        one.ended is None or one.ended > end.began for one in by_hand[spec]):
                    yield f"{claim.who} was given {spec}, which {end.who} had {_ENDED[end.name]}"
