"""The checker of the agents' campaign, on histories made by hand: it passes good ones, and sees each kind of fault."""

from typing import Any

import pytest
from tests.system.agents import feeds, freshness, holding, ledger
from tests.system.agents.feeds import Batch, Stream
from tests.system.agents.history import Call
from tests.system.agents.ledger import Line

MS = 1_000_000
S = 1000 * MS


def call(name: str, at: float, *, who: str = "ann", takes: float = 0.1, cut_off: bool = False, error: str = "",
         answer: dict[str, Any] | None = None, **arguments: Any) -> Call:
    """A call that began `at` seconds."""
    ended = None if cut_off else int((at + takes) * S)
    return Call(who, name, arguments, int(at * S), ended, answer, error)


def claim(at: float, token: str, *, who: str = "ann", spec: str = "t", version: int = 1, **more: Any) -> Call:
    arguments = {"by": who, "lease_ms": 1000, "op": f"claim-{token}", **more}
    return call("task_spec.claim", at, who=who, answer={"versions": {spec: version}, "token": token}, **arguments)


def prove(name: str, at: float, token: str, *, who: str = "ann", spec: str = "t", **more: Any) -> Call:
    needed: dict[str, Any] = {"lease_ms": 1000} if name == "heartbeat" else {
        "op": f"{name}-{token}", "answer": {"versions": {spec: 9}}}
    return call(f"task_spec.{name}", at, who=who, **{"id": spec, "token": token, **needed, **more})


def by_hand(at: float, **more: Any) -> Call:
    return call("record.update", at, kind="task_spec", id="t", set={"status": "pending"}, op="by-hand", **more)


BEGUN = claim(0, "A")


@pytest.mark.parametrize("calls", [
    [BEGUN, prove("complete", 0.5, "A")],
    [BEGUN, prove("release", 0.5, "A"), claim(0.7, "B", who="bob")],
    [BEGUN, prove("release", 0.5, "A"), claim(0.55, "B", who="bob")],  # they overlap: the release came first
    [BEGUN, claim(1.0, "B", who="bob")],  # granted at 1.05, say
    [BEGUN, prove("heartbeat", 0.9, "A"), claim(1.95, "B", who="bob")],
    [BEGUN, prove("heartbeat", 0.9, "A", cut_off=True), claim(1.2, "B", who="bob")],
    [BEGUN, prove("complete", 0.5, "A", cut_off=True), claim(0.6, "B", who="bob")],
    [BEGUN, by_hand(0.4), claim(0.6, "B", who="bob")],
    [BEGUN, prove("complete", 1.2, "A", error="conflict"), claim(1.3, "B", who="bob")],
    [BEGUN, prove("release", 0.5, "A"), prove("release", 0.9, "A")],  # sent again
    [BEGUN, prove("heartbeat", 0.9, "A"), prove("complete", 1.5, "A")],
    [BEGUN, prove("complete", 0.5, "A"), by_hand(0.7), claim(0.9, "B", who="bob")],
    [BEGUN, prove("fail", 0.5, "A"), by_hand(0.7), prove("fail", 0.8, "A"), claim(0.95, "B", who="bob")],
    [BEGUN, claim(0.5, "A", version=2)],  # sent again
])
def test_good_holding(calls: list[Call]) -> None:
    """Turns, takeovers when a lease is over, and whatever a call that was cut off may have done, are no faults."""
    assert holding.faults(calls) == []


@pytest.mark.parametrize(("calls", "fault"), [
    ([BEGUN, claim(0.5, "B", who="bob")], "two holders"),
    ([BEGUN, claim(0.05, "B", who="bob")], "two holders"),
    ([BEGUN, prove("heartbeat", 0.9, "A"), claim(1.5, "B", who="bob")], "two holders"),
    ([BEGUN, prove("complete", 0.5, "A", error="conflict"), claim(0.7, "B", who="bob")], "two holders"),
    ([BEGUN, by_hand(0.4, error="conflict"), claim(0.6, "B", who="bob")], "two holders"),
    ([BEGUN, claim(1.2, "B", who="bob"), prove("complete", 1.5, "A")], "though there was bob's hold"),
    ([BEGUN, prove("complete", 1.2, "A")], "lease of ann's hold of t (A) had ended"),
    ([BEGUN, prove("heartbeat", 1.2, "A")], "lease of ann's hold of t (A) had ended"),
    ([BEGUN, prove("complete", 0.5, "A"), prove("heartbeat", 0.7, "A")], "(A) was over"),
    ([BEGUN, prove("complete", 0.5, "A"), prove("release", 0.7, "A")], "(A) was over"),
    ([BEGUN, prove("complete", 0.5, "forged")], "nobody was given"),
    ([BEGUN, prove("heartbeat", 0.5, "A", error="conflict")], "was refused though it had"),
    ([BEGUN, prove("complete", 0.5, "A", error="conflict")], "was refused though it had"),
    ([BEGUN, prove("complete", 0.5, "A"), claim(0.9, "B", who="bob")], "which ann had completed"),
    ([BEGUN, prove("fail", 0.5, "A"), claim(0.9, "B", who="bob")], "which ann had failed"),
    ([BEGUN, claim(0.5, "A", who="bob", op="another")], "one token"),
    ([BEGUN, prove("complete", 0.5, "A", who="bob")], "accepted with the token of ann's hold of t"),
    ([BEGUN, prove("complete", 0.5, "A", spec="s")], "ann's task_spec.complete of s was accepted with the token"),
    ([call("store.apply", 0, op="plan", ops=[{"record": {"id": "t", "depends_on": ["s"]}}]), BEGUN],
     "before s was complete"),
])
def test_bad_holding(calls: list[Call], fault: str) -> None:
    """Two holders, tokens taken that should not be, or not taken that should, and claims of what is not ready."""
    assert any(fault in found for found in holding.faults(calls))
    unrelated = [claim(one.began / S, f"other-{number}", spec=f"other-{number}") for number, one in enumerate(calls)]
    assert len(holding.faults([*unrelated, *calls])) == len(holding.faults(calls))


def test_holding_on_another_branch() -> None:
    """There, what was complete may be pending, and what was held unknown; two holders there are not."""
    again = [BEGUN, prove("complete", 0.5, "A"), claim(0.9, "B", who="bob")]
    assert holding.faults(again, [(int(0.7 * S), int(0.8 * S))]) == []
    assert holding.faults([BEGUN, claim(0.5, "B", who="bob")], [(0, S)]) != []


def get(at: float, version: int | None, *, key: str = "x", **more: Any) -> Call:
    return call("record.get", at, kind="prd", id=key, **({"error": "not_found"} if version is None else {
        "answer": {"versions": {key: version}}}), **more)


def update(at: float, version: int, *, op: str = "", **more: Any) -> Call:
    return call("record.update", at, kind="prd", id="x", set={}, op=op or f"op-{at}", **{
        "answer": {"versions": {"x": version}}, **more})


def delete(at: float, **more: Any) -> Call:
    return call("record.delete", at, kind="prd", id="x", op="delete", **{"answer": {"versions": {"x": 9}}, **more})


def plan_list(at: float, *keys: str) -> Call:
    return call("record.list", at, kind="task_spec", where={"prd_id": "p"}, answer={"versions": dict.fromkeys(keys, 1)})


def expecting(version: int, *, seen: int, at: float) -> Call:
    return update(at, version, if_updated_at=seen)


def resolve(at: float, op: str) -> Call:
    return call("dependency.resolve", at, id="d", op=op, answer={"versions": {"d": int(at * 10)}})


PLAN = call("store.apply", 0, op="plan", ops=[{"record": {"id": key}} for key in ("p", "p.0", "p.1")],
            answer={"versions": {"p": 1, "p.0": 1, "p.1": 1}})


@pytest.mark.parametrize("calls", [
    [update(0, 1), get(0.2, 1)],
    [update(0, 1), update(0.2, 2), get(0.25, 1)],  # the write was not acknowledged yet
    [update(0, 1), update(0.2, 2), get(0.25, 2), get(0.3, 2)],
    [update(0, 1), get(0.2, 2)],  # somebody whose answer never came
    [update(0, 1), update(0.2, 2, cut_off=True), get(0.5, 1)],
    [update(0, 1), delete(0.2), get(0.25, None), get(0.5, None)],
    [update(0, 1), delete(0.2, cut_off=True, answer=None), get(0.5, None)],
    [update(0, 1, op="a"), update(0.2, 2), update(0.4, 1, op="a")],  # sent again
    [update(0, 1, op="a", cut_off=True), get(0.2, 1), update(0.4, 1, op="a")],
    [PLAN, plan_list(0.05), plan_list(0.05, "p.0", "p.1"), plan_list(0.5, "p.0", "p.1")],
    [update(0, 1), expecting(2, seen=1, at=0.2), expecting(3, seen=2, at=0.4)],
    [resolve(0.1, "a"), resolve(0.3, "a"), call("dependency.resolve", 0.5, id="d", op="b", error="conflict")],
    [call("dependency.wait", 0, id="d", timeout_ms=10), call("dependency.wait", 0, id="d", error="not_found")],
    [call("dependency.wait", 0, id="d", answer={"versions": {"d": 1}, "resolved_at": 1})],
])
def test_good_reads(calls: list[Call]) -> None:
    """What was not acknowledged yet may be read or not, and what was deleted be gone."""
    assert freshness.faults(calls) == []


@pytest.mark.parametrize(("calls", "fault"), [
    ([update(0, 1), update(0.2, 2), get(0.5, 1)], "read x as of 1, when 2 was known"),
    ([update(0, 1), update(0.2, 2), get(0.22, 2, takes=0.01), get(0.25, 1, who="bob")], "read x as of 1"),
    ([update(0, 1), get(0.2, None)], "did not find x"),
    ([update(0, 1), delete(0.2), get(0.5, 1)], "read x as of 1, when 9 was known"),
    ([update(0, 1), delete(0.2, error="conflict", answer=None), get(0.5, None)], "did not find x"),
    ([update(0, 5), update(0.2, 5)], "wrote x as of 5, when 5 was known"),
    ([PLAN, plan_list(0.5)], "did not find p.0"),
    ([PLAN, plan_list(0.05, "p.0")], "is without ['p.1'], but not without the others"),
    ([update(0, 1), expecting(2, seen=1, at=0.2), expecting(3, seen=1, at=0.4)], "expected 1, and was accepted after"),
    ([resolve(0.1, "a"), resolve(0.3, "b")], "ann resolved d, which ann had resolved"),
])
def test_bad_reads(calls: list[Call], fault: str) -> None:
    """Reads older than what was acknowledged or read before, by anybody, and halves of what was written together."""
    assert any(fault in found for found in freshness.faults(calls))
    assert freshness.faults(calls, [(0, S)]) == []


def test_a_wait_that_ends_too_soon() -> None:
    """What waits without a limit is answered with what is resolved, whichever branch is checked out."""
    answered = call("dependency.wait", 0, id="d", answer={"versions": {"d": 1}})
    assert freshness.faults([answered]) == ["ann's dependency.wait of d ended before it was resolved"]


WRITTEN = update(0, 1, op="a")
CUT_OFF = call("store.apply", 0, op="plan", cut_off=True, ops=PLAN.arguments["ops"])


@pytest.mark.parametrize(("calls", "lines"), [
    ([WRITTEN], [Line("x", 1, "a")]),
    ([WRITTEN, update(1, 1, op="a")], [Line("x", 1, "a")]),
    ([update(0, 0, op="a", cut_off=True, answer=None)], [Line("x", 1, "a")]),
    ([update(0, 0, op="a", cut_off=True, answer=None)], []),
    ([update(0, 0, op="a", error="conflict", answer=None)], []),
    ([update(0, 0, op="a", error="busy", answer=None), update(1, 1, op="a")], [Line("x", 1, "a")]),
    ([delete(0)], [Line("x", 9, "delete", deleted=True), Line("x", 10, "", deleted=True)]),
    ([claim(0, "A", version=1), claim(1, "A", version=2)], [Line("t", 1, "claim-A"), Line("t", 2, "")][:1]),
    ([WRITTEN, get(0.5, 1)], [Line("x", 1, "a"), Line("chaff-workflow", 1, "")]),
    ([CUT_OFF], [Line(key, 1, "plan") for key in ("p", "p.0", "p.1")]),
    ([CUT_OFF], []),
])
def test_good_ledgers(calls: list[Call], lines: list[Line]) -> None:
    """What was cut off may be written or not; what was acknowledged is, once."""
    assert ledger.faults(calls, lines) == []


@pytest.mark.parametrize(("calls", "lines", "fault"), [
    ([WRITTEN], [], "lost"),
    ([WRITTEN], [Line("x", 2, "a")], "lost"),
    ([claim(0, "A")], [], "lost"),
    ([WRITTEN], [Line("x", 1, "a"), Line("x", 2, "a")], "a was written 2 times"),
    ([WRITTEN], [Line("x", 1, "a"), Line("x", 1, "a")], "2 lines of version 1"),
    ([WRITTEN], [Line("x", 1, "a"), Line("y", 1, "")], "nobody wrote version 1 of y"),
    ([WRITTEN], [Line("x", 1, "a"), Line("y", 1, "b")], "nobody asked for b"),
    ([update(0, 0, op="a", error="conflict", answer=None)], [Line("x", 1, "a")], "a was refused, and is on a line"),
    ([WRITTEN, update(1, 2, op="a")], [Line("x", 1, "a")], "a was answered with"),
    ([get(0, 1, error="internal")], [], "internal"),
    ([WRITTEN, get(0.5, 2)], [Line("x", 1, "a")], "read x as of 2, which no log has"),
    ([CUT_OFF], [Line("p", 1, "plan"), Line("p.1", 1, "plan")], "plan is there without ['p.0']"),
])
def test_bad_ledgers(calls: list[Call], lines: list[Line], fault: str) -> None:
    """What is lost, there twice, or nobody's, and answers that differ from try to try."""
    assert any(fault in found for found in ledger.faults(calls, lines))


@pytest.mark.parametrize(("calls", "lines"), [
    ([WRITTEN, update(1, 2, op="a")], [Line("x", 1, "a"), Line("x", 2, "a")]),
    ([update(0, 0, op="a", error="conflict", answer=None)], [Line("x", 1, "a")]),
])
def test_ledgers_of_two_branches(calls: list[Call], lines: list[Line]) -> None:
    """What was sent again while another branch was checked out may be there twice, or refused; else not."""
    assert ledger.faults(calls, lines, [(0, S)]) == []
    assert ledger.faults(calls, lines, [(2 * S, 3 * S)])
    assert "x has 2 lines of version 1" in ledger.faults(calls, lines[:1] * 2, [(0, S)])


FEED = {"e": {1: ("prd", "a"), 2: ("prd", "b"), 3: ("prd", "a"), 4: ("prd", "c"), 5: ("prd", "b")}}
STATE = {"a": 3, "b": 5, "c": None}
A, B, C = ("prd", "a", 3), ("prd", "b", 5), ("prd", "c", None)


def stream(*parts: list[Batch]) -> Stream:
    return Stream("f", list(parts))


@pytest.mark.parametrize("heard", [
    stream([Batch("e:0", "e:3", [("prd", "b", 2), A]), Batch("e:3", "e:5", [C, B])]),
    stream([Batch("e:0", "e:5", [A, C, B])]),
    stream([Batch("e:1", "e:2", [("prd", "b", 2)])], [Batch("e:3", "e:4", [C]), Batch("e:4", "e:5", [B])]),
])
def test_good_feeds(heard: Stream) -> None:
    """Each change once, in order; of what changed again by then, the last."""
    assert feeds.faults([heard], FEED, STATE) == ([], 0)


@pytest.mark.parametrize(("heard", "fault"), [
    (stream([Batch("e:0", "e:5", [A, B])]), "where there is ['a', 'c', 'b']"),
    (stream([Batch("e:0", "e:5", [A, B, C])]), "where there is ['a', 'c', 'b']"),
    (stream([Batch("e:3", "e:4", [A, C])]), "where there is ['c']"),
    (stream([Batch("e:3", "e:4", [C, C])]), "where there is ['c']"),
    (stream([Batch("e:1", "e:2", [("prd", "b", 2)])]), "last told of b as 2, which is 5"),
    (stream([Batch("e:3", "e:4", [("prd", "c", 4)])]), "last told of c as 4, which is None"),
])
def test_bad_feeds(heard: Stream, fault: str) -> None:
    """Gaps, doubles, another order, and an end that is not the state."""
    assert any(fault in found for found in feeds.faults([heard], FEED, STATE)[0])


def test_feeds_that_are_not_known() -> None:
    """Batches of another epoch, or older than what the feed keeps, are counted."""
    heard = stream([Batch("d:1", "d:2", [A]), Batch("d:2", "e:3", [A]), Batch("e:0", "e:9", [A])])
    assert feeds.faults([heard], FEED, STATE) == ([], 3)


WROTE = update(0.5, 3, who="agent-1")


@pytest.mark.parametrize("heard", [
    stream([Batch("e:0", "e:1", [("prd", "x", 3)])]), Stream("f", rest=[("prd", "x", 3)]),
    Stream("f", [[Batch("e:0", "e:1", [("prd", "x", 3)])], []], at=int(0.6 * S)),
])
def test_what_was_told_of(heard: Stream) -> None:
    """Whoever followed when a write was made heard of it, be it in a batch that did not end."""
    assert feeds.untold([heard], [WROTE]) == []


@pytest.mark.parametrize("heard", [
    stream([Batch("e:0", "e:1", [A])]), Stream("f", [[Batch("e:0", "e:1", [("prd", "x", 3)])], []], at=int(0.4 * S))])
def test_what_was_never_told(heard: Stream) -> None:
    """What the feed left out nobody hears of, and the feed alone would not show it."""
    assert feeds.untold([heard], [WROTE]) == ["f never heard of x, which agent-1 wrote"]
    again = update(0.7, 3, who="agent-1", op=WROTE.arguments["op"])
    assert feeds.untold([heard], [update(0, 3, who="bob", op=again.arguments["op"]), again]) == []
