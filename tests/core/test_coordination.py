"""What may be claimed, who gets it, for how long, and what ends a claim: one holder of a task spec at a time."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskstore_core.batch import Batch, Operation
from taskstore_core.cache import MEMORY_MS, Cache
from taskstore_core.claims import Claim, Heartbeat, Settle
from taskstore_core.errors import ConflictError, InvalidError, NotFoundError, TaskStoreError
from taskstore_core.kinds import KINDS
from taskstore_core.leases import DEFAULT_MS
from taskstore_core.methods import dispatch
from taskstore_core.plain import to_json
from taskstore_core.request import Outcome, Request
from taskstore_core.store import Store

Fields = dict[str, Any]
PRD, SPEC = KINDS["prd"], KINDS["task_spec"]
HOUR = 3600 * 1000


def call(store: Store, method: str, **parameters: object) -> Any:
    """The answer of a method as a client gets it."""
    return json.loads(to_json(dispatch(store, method, parameters)))


def claim(store: Store, by: str = "me", **parameters: object) -> Any:
    return call(store, "task_spec.claim", by=by, **parameters)


def settle(store: Store, how: str, claimed: Fields, **parameters: object) -> Any:
    """End a claim, or prolong it, as its holder."""
    return call(store, f"task_spec.{how}", **{"id": claimed["id"], "by": claimed["assigned_to"],
                                             "token": claimed["token"], **parameters})


def spec(key: str, **fields: object) -> Operation:
    return Operation("create", SPEC, {"id": key, "prd_id": "p", "phase_name": "N", **fields})


def prd(key: str, **fields: object) -> Operation:
    return Operation("create", PRD, {"id": key, "title": "T", **fields})


def update(key: str, kind: Any = SPEC, **fields: object) -> Operation:
    return Operation("update", kind, {"id": key, **fields})


def delete(key: str, kind: Any = SPEC) -> Operation:
    return Operation("delete", kind, {"id": key})


def ready(store: Store, **parameters: object) -> list[str]:
    return [item["id"] for item in call(store, "task_spec.ready", **parameters)["items"]]


def state(store: Store, key: str) -> tuple[str, str | None]:
    record = json.loads(store.get(SPEC, key))
    return record["status"], record["assigned_to"]


def logs(store: Store) -> list[bytes]:
    return [Path(store.paths.file(kind.log)).read_bytes() for kind in KINDS.values()]


def leases_path(store: Store) -> Path:
    return Path(store.paths.local("leases.db"))


def sql(store: Store, statement: str, *values: object) -> list[Any]:
    """Do something to the leases with SQL, as nobody else does."""
    with contextlib.closing(apsw.Connection(str(leases_path(store)))) as db:
        return list(db.execute(statement, values))


def rewrite(store: Store, change: Callable[[bytes], bytes]) -> None:
    """Put another file in the place of the log of task specs, as git does."""
    path = Path(store.paths.file(SPEC.log))
    path.with_suffix(".new").write_bytes(change(path.read_bytes()))
    path.with_suffix(".new").replace(path)


def first_lines(log: bytes) -> bytes:
    """A log as it was when it had two lines."""
    return b"".join(log.splitlines(keepends=True)[:2])


def append(store: Store, **fields: object) -> None:
    """A line that somebody else writes."""
    with open(store.paths.file(SPEC.log), "a", encoding="utf-8") as file:
        file.write(json.dumps({"prd_id": "p", "phase_name": "N", "created_at": 1, **fields}) + "\n")


# What is ready

RULES: dict[str, tuple[list[Operation], bool]] = {
    "pending": ([spec("x")], True),
    "complete": ([spec("x", status="complete")], False),
    "failed": ([spec("x", status="failed")], False),
    "running, under no lease": ([spec("x", status="running")], False),
    "deleted": ([spec("x"), delete("x")], False),
    "created again": ([spec("x"), delete("x"), spec("x")], True),
    "assigned to somebody and pending": ([spec("x", assigned_to="you")], True),
    "its PRD is active": ([prd("p", status="active"), spec("x")], True),
    "its PRD is complete": ([prd("p", status="complete"), spec("x")], True),
    "its PRD is cancelled": ([prd("p", status="cancelled"), spec("x")], False),
    "its PRD was cancelled and deleted": ([prd("p", status="cancelled"), delete("p", PRD), spec("x")], True),
    "another PRD is cancelled": ([prd("q", status="cancelled"), spec("x")], True),
    "its need is complete": ([spec("n", status="complete"), spec("x", depends_on=["n"])], True),
    "its need is failed": ([spec("n", status="failed"), spec("x", depends_on=["n"])], False),
    "its need runs": ([spec("n", status="running"), spec("x", depends_on=["n"])], False),
    "its need is not there": ([spec("x", depends_on=["n"])], False),
    "its need was deleted": ([spec("n", status="complete"), delete("n"), spec("x", depends_on=["n"])], False),
    "one of its needs is complete": (
        [spec("n", status="complete"), spec("m", status="failed"), spec("x", depends_on=["n", "m"])], False),
    "all of its needs are complete": (
        [spec("n", status="complete"), spec("m", status="complete"), spec("x", depends_on=["n", "m"])], True),
    "it needs nothing any more": ([spec("x", depends_on=["n"]), update("x", depends_on=[])], True),
}


@pytest.mark.parametrize("together", [False, True], ids=["before", "in the same group"])
@pytest.mark.parametrize("rule", RULES)
def test_what_is_ready(store: Store, rule: str, *, together: bool) -> None:
    """Ready is what is pending, with every need complete and a PRD that is not cancelled; only that can be claimed."""
    operations, is_ready = RULES[rule]
    by_id = Claim("me", id="x")
    if together:
        *_, outcome = store.commit([Batch([operation]) for operation in operations] + [by_id])
    else:
        store.apply(operations)
        assert ("x" in ready(store)) == is_ready
        (outcome,) = store.commit([by_id])
    assert isinstance(outcome, Outcome) == is_ready, outcome
    assert isinstance(outcome, Outcome | ConflictError | NotFoundError)
    assert (state(store, "x") == ("running", "me")) == is_ready if rule != "deleted" else True


def test_a_tombstone_with_fields_is_a_tombstone(store: Store) -> None:
    """What a deletion that somebody else wrote says of a status counts for nothing: a need is not complete by it."""
    store.apply([spec("x", depends_on=["n"]), spec("y", prd_id="off")])
    append(store, id="n", deleted=True, status="complete", updated_at=1)
    with open(store.paths.file(PRD.log), "a", encoding="utf-8") as file:
        file.write('{"id":"off","deleted":true,"status":"cancelled","updated_at":1}\n')
    assert ready(store) == ["y"]
    with pytest.raises(ConflictError, match=r"it needs n$"):
        claim(store, id="x")
    assert claim(store)["id"] == "y"


def test_ready_is_in_the_order_of_age(store: Store, clocks: Any) -> None:
    """Oldest first, by when it was created and then by id, what a claim left behind in its place among the others."""
    store.apply([spec("c", created_at=5), spec("b", created_at=5), spec("z", created_at=1), spec("a", created_at=9),
                 spec("old", created_at=0)])
    assert ready(store) == ["old", "z", "b", "c", "a"]
    assert claim(store, lease_ms=1000)["id"] == "old"
    assert claim(store, id="b", lease_ms=1000)["id"] == "b"
    assert ready(store) == ["z", "c", "a"]
    clocks.go_on(1000)
    assert ready(store) == ["old", "z", "b", "c", "a"]
    assert [claim(store)["id"] for _ in range(5)] == ["old", "z", "b", "c", "a"]
    assert claim(store) is None
    assert ready(store) == []


def test_ready_of_one_prd_and_only_some(store: Store) -> None:
    """`prd_id` and `limit` narrow what is ready, and a claim by PRD takes the oldest of it."""
    store.apply([spec(f"s{n}", prd_id="pq"[n % 2], created_at=n) for n in range(6)])
    assert ready(store, prd_id="q") == ["s1", "s3", "s5"]
    assert ready(store, prd_id="q", limit=2) == ["s1", "s3"]
    assert ready(store, limit=4) == ["s0", "s1", "s2", "s3"]
    assert ready(store, prd_id="none") == []
    assert claim(store, prd_id="q")["id"] == "s1"
    assert claim(store, prd_id="none") is None
    assert ready(store, limit=2) == ["s0", "s2"]
    call(store, "record.update", kind="task_spec", id="s0", set={"status": "failed"})
    assert ready(store, limit=2) == ["s2", "s3"]


@pytest.mark.parametrize(("method", "parameters", "field"), [
    ("task_spec.ready", {"limit": 0}, "limit"), ("task_spec.ready", {"limit": -1}, "limit"),
    ("task_spec.ready", {"limit": 2**64}, "limit"), ("task_spec.ready", {"prd_id": "\ud800"}, "prd_id"),
    ("task_spec.claim", {"by": ""}, "by"), ("task_spec.claim", {"by": "a\nb"}, "by"),
    ("task_spec.claim", {"by": "\ud800"}, "by"), ("task_spec.claim", {"by": "x" * 257}, "by"),
    ("task_spec.claim", {"by": "me", "id": "\ud800"}, "id"),
    ("task_spec.claim", {"by": "me", "lease_ms": 0}, "lease_ms"),
    ("task_spec.claim", {"by": "me", "prd_id": "\ud800"}, "prd_id"),
    ("task_spec.claim", {"by": "me", "lease_ms": 2**53 + 1}, "lease_ms"),
    ("task_spec.heartbeat", {"id": "x", "by": "me", "token": "t", "lease_ms": 0}, "lease_ms"),
    *((f"task_spec.{name}", {"id": "x", "by": "me", "token": "t", wrong: "\ud800"}, wrong)
      for name in ("heartbeat", "complete", "fail", "release") for wrong in ("id", "by", "token")),
    ("dependency.resolve", {"id": "\ud800"}, "id"), ("dependency.resolve", {"id": "d", "payload": "\ud800"}, "payload"),
    ("dependency.wait", {"id": "\ud800"}, "id"), ("dependency.wait", {"id": "d", "timeout_ms": -1}, "timeout_ms"),
])
def test_what_makes_no_sense(store: Store, method: str, parameters: Fields, field: str) -> None:
    """A name, number or id that can be none is refused by the parameter, and nothing is written."""
    store.apply([spec("x"), Operation("create", KINDS["dependency"], {
        "id": "d", "from_exec_id": "e", "to_exec_id": "f", "dependency_type": "notify"})])
    before = logs(store)
    with pytest.raises(InvalidError) as caught:
        call(store, method, **parameters)
    assert caught.value.field == field
    assert logs(store) == before


def test_ready_needs_no_sorting(store: Store) -> None:
    """What is ready is read in the order of the index, so that the first costs the same however many wait."""
    store.apply([spec(f"s{n}", prd_id=f"p{n % 3}", depends_on=["none"]) for n in range(50)] + [spec("x"), spec("y")])
    claim(store, id="y")
    asked: list[str] = []

    def listen(cursor: Any, statement: str, _: object) -> bool:
        if "ORDER BY" in statement and "task_specs_rows" in statement and not cursor.is_explain:
            asked.append(statement)
        return True

    def look(cache: Cache) -> list[tuple[str, list[str]]]:
        cache.db.exec_trace = listen
        for parameters in ({}, {"prd_id": "p1"}):
            ready(store, **parameters)
        cache.db.exec_trace = None
        return [(statement, [row[3] for row in cache.db.execute(
            f"EXPLAIN QUERY PLAN {statement}", ["p1"] * statement.count("?"))]) for statement in asked]

    plans = store.ask(look)
    assert sum("'pending'" in statement for statement, _ in plans) == 2
    assert sum("'running'" in statement for statement, _ in plans) == 2
    for statement, plan in plans:
        assert any("USING INDEX task_specs_status (status=?" in step for step in plan), (statement, plan)
        assert not any("TEMP B-TREE" in step or step.startswith("SCAN") for step in plan), (statement, plan)


# Claiming


def test_a_claim(store: Store, other: Store) -> None:
    """A claim answers with the spec as it now runs and a token; the log has the one and not the other."""
    store.apply([spec("x", content="what to do", z=[1])])
    claimed = claim(store, "agent-7")
    token = claimed.pop("token")
    assert (claimed["status"], claimed["assigned_to"]) == ("running", "agent-7")
    assert claimed == json.loads(store.get(SPEC, "x")) == json.loads(other.get(SPEC, "x"))
    assert len(token) >= 16
    assert token.encode() not in b"".join(logs(store))
    assert claim(other) is None
    assert ready(other) == []
    with pytest.raises(ConflictError, match="agent-7 holds it for 900 s more"):
        claim(other, id="x")


@pytest.mark.parametrize(("operations", "error", "words"), [
    ([], NotFoundError, "there is no task spec x"),
    ([spec("x"), delete("x")], NotFoundError, "the task spec x was deleted"),
    ([spec("xyz")], NotFoundError, "there is no task spec x"),
    ([spec("x", status="complete")], ConflictError, "its status is complete"),
    ([spec("x", status="failed")], ConflictError, "its status is failed"),
    ([spec("x", status="running")], ConflictError, "nobody has claimed it here, and is free in 900 s"),
    ([spec("x", depends_on=["a", "b"])], ConflictError, "it needs a, b$"),
    ([spec("x", depends_on=["a", "b", "c", "d"])], ConflictError, "it needs a, b, c …$"),
    ([spec("a", status="complete"), spec("x", depends_on=["a", "b"])], ConflictError, "it needs b$"),
    ([prd("p", status="cancelled"), spec("x")], ConflictError, "its PRD p is cancelled"),
], ids=range(10))
def test_why_one_cannot_be_claimed(store: Store, operations: list[Operation], error: type[TaskStoreError],
                                   words: str) -> None:
    """A claim of one task spec that cannot be had says why, and writes nothing."""
    store.apply(operations)
    before = logs(store)
    with pytest.raises(error, match=words):
        claim(store, id="x")
    assert logs(store) == before


def test_nothing_to_claim_writes_nothing(store: Store) -> None:
    """Where nothing is ready a claim answers null, writes nothing, and is not remembered by its op."""
    store.apply([spec("x", depends_on=["none"])])
    before = logs(store)
    for _ in range(2):
        assert claim(store, op="once") is None
    assert logs(store) == before
    store.apply([spec("y")])
    assert claim(store, op="once")["id"] == "y"


HELD: dict[str, Callable[[Store, Any], object]] = {
    "at once": lambda _store, _clocks: None,
    "after reopening": lambda store, _: store.close(),
    "after a rebuild": lambda store, _: store.sync(full=True),
    "after most of the lease": lambda _, clocks: clocks.go_on(DEFAULT_MS - 1000),
    "when the clock was set": lambda _, clocks: setattr(clocks, "now_ms", lambda: 10**12),
    "with other fields changed": lambda store, _: store.apply([update("x", content="new", status="running")]),
    "when its line is gone with a branch": lambda store, _: rewrite(store, first_lines),
}


@pytest.mark.parametrize("between", HELD)
def test_a_repeated_claim_gets_the_same(store: Store, other: Store, clocks: Any, between: str) -> None:
    """A claim with an op, sent again while it holds, gets the same spec and token, and takes no other."""
    store.apply([spec("x"), spec("y")])
    claimed = claim(store, op="once")
    HELD[between](store, clocks)
    before = logs(store)
    for opened in (store, other, store):
        again = claim(opened, op="once", lease_ms=5)
        assert (again["id"], again["token"]) == ("x", claimed["token"])
    assert logs(store) == before
    assert state(store, "y") == ("pending", None)
    assert settle(other, "complete", claimed)["status"] == "complete"


def test_a_claim_is_remembered_for_as_long_as_it_holds(store: Store, clocks: Any) -> None:
    """Heartbeats keep a claim's op known beyond the day for which others are."""
    store.apply([spec("x"), spec("y")])
    claimed = claim(store, op="once", lease_ms=2 * MEMORY_MS)
    clocks.go_on(MEMORY_MS + HOUR)
    settle(store, "heartbeat", claimed)
    assert claim(store, op="once")["token"] == claimed["token"]


def _reclaim(store: Store, clocks: Any, _: Fields) -> None:
    clocks.go_on(DEFAULT_MS)
    assert claim(store, "you", id="x")["assigned_to"] == "you"


ENDED: dict[str, Callable[[Store, Any, Fields], object]] = {
    "complete": lambda store, _, claimed: settle(store, "complete", claimed),
    "fail": lambda store, _, claimed: settle(store, "fail", claimed),
    "release": lambda store, _, claimed: settle(store, "release", claimed),
    "release and reclaim": lambda store, _, claimed: (settle(store, "release", claimed), claim(store, "you", id="x")),
    "the end of the lease": lambda _, clocks, __: clocks.go_on(DEFAULT_MS),
    "a claim after the lease": _reclaim,
    "a reboot": lambda _, clocks, __: clocks.reboot(),
    "status set to pending": lambda store, _, __: store.apply([update("x", status="pending")]),
    "status set to failed": lambda store, _, __: store.apply([update("x", status="failed")]),
    "deletion": lambda store, _, __: store.apply([delete("x")]),
    "restoring": lambda store, _, __: call(store, "record.restore", kind="task_spec", id="x", version=json.loads(
        store.history(SPEC, "x")[0])["updated_at"]),
}


@pytest.mark.parametrize("how", ENDED)
def test_what_ends_a_claim(store: Store, other: Store, clocks: Any, how: str) -> None:
    """Once a claim has ended, its token and its op are refused by everything, and it takes nothing else instead."""
    store.apply([spec("x"), spec("y")])
    claimed = claim(store, op="once")
    ENDED[how](store, clocks, claimed)
    before = logs(store)
    for opened in (other, store):
        for method in ("heartbeat", "complete", "fail", "release"):
            with pytest.raises(ConflictError) as caught:
                settle(opened, method, claimed)
            assert caught.value.hint
        with pytest.raises(ConflictError, match="no longer held") as caught:
            claim(opened, op="once")
        assert caught.value.hint
        assert caught.value.applied == "yes"  # the claim was made
    assert logs(store) == before
    if how not in {"complete", "fail", "status set to failed", "deletion", "release and reclaim",
                   "a claim after the lease"}:
        again = claim(store, op="another")
        assert again["id"] == "x"
        assert again["token"] != claimed["token"]


def test_other_changes_do_not_end_a_claim(store: Store) -> None:
    """A change of other fields, or to the status it has, leaves a claim as it is."""
    store.apply([spec("x")])
    claimed = claim(store)
    store.apply([update("x", content="new"), update("x", status="running"), update("x", depends_on=["later"])])
    assert ready(store) == []
    assert settle(store, "complete", claimed)["content"] == "new"


def test_a_claim_op_belongs_to_one_claim(store: Store) -> None:
    """The op of a claim, sent by another or for something else, is refused as that of another write."""
    store.apply([spec("x"), spec("y")])
    claimed = claim(store, op="once")
    for attempt in ({"by": "you"}, {"id": "y"}, {"prd_id": "p"}):
        with pytest.raises(InvalidError, match="another write") as caught:
            claim(store, **{"by": "me", "op": "once", **attempt})
        assert caught.value.field == "op"
    rewrite(store, first_lines)  # its line gone, only the lease knows
    with pytest.raises(InvalidError) as caught:
        claim(store, "you", op="once")
    assert caught.value.field == "op"
    assert claim(store, op="once")["token"] == claimed["token"]


# Holding


def test_heartbeats(store: Store, clocks: Any) -> None:
    """A heartbeat holds from now for as long as it says, however often, and writes nothing to any log."""
    store.apply([spec("x")])
    claimed = claim(store, lease_ms=1000)
    before = logs(store)
    for _ in range(5):
        clocks.go_on(900)
        said = settle(store, "heartbeat", claimed, lease_ms=1000)
        assert said == {"id": "x", "by": "me", "expires_at": said["expires_at"]}
        assert abs(said["expires_at"] - clocks.now_ms() - 1000) < 500
    assert logs(store) == before
    settle(store, "heartbeat", claimed)
    clocks.go_on(DEFAULT_MS - 1000)
    assert ready(store) == []
    settle(store, "heartbeat", claimed, lease_ms=10)
    clocks.go_on(10)
    assert ready(store) == ["x"]
    with pytest.raises(ConflictError, match="the lease of me on the task spec x has ended"):
        settle(store, "heartbeat", claimed)


@pytest.mark.parametrize("method", ["heartbeat", "complete", "fail", "release"])
@pytest.mark.parametrize(("wrong", "words"), [
    ({"token": "0" * 16}, "another claim of the same name holds it"), ({"token": ""}, "another claim of the same name"),
    ({"by": "you"}, "is not held by you with this token: me holds it"), ({"id": "y"}, "nobody holds it"),
    ({"id": "none"}, "nobody holds it"), ({"id": "r", "by": "", "token": ""}, "with this token"),
], ids=range(6))
def test_only_the_holder(store: Store, method: str, wrong: Fields, words: str) -> None:
    """Without the name, the token and the spec of a live claim, nothing can be done in its place."""
    store.apply([spec("x"), spec("y"), spec("r", status="running")])
    claimed = claim(store)
    ready(store)  # from here on the running one counts as held, by nobody
    before = logs(store)
    with pytest.raises(ConflictError, match=words):
        settle(store, method, claimed, **wrong)
    assert logs(store) == before
    assert state(store, "x") == ("running", "me")


def test_releasing_and_failing(store: Store) -> None:
    """A released spec is pending and nobody's again; a failed one stays with whom it failed, and is not ready."""
    store.apply([spec("x"), spec("y", depends_on=["x"])])
    assert settle(store, "release", claim(store))["assigned_to"] is None
    assert state(store, "x") == ("pending", None)
    assert ready(store) == ["x"]
    settle(store, "fail", claim(store))
    assert state(store, "x") == ("failed", "me")
    assert ready(store) == []
    assert claim(store) is None


def test_completing_tells_what_it_unblocked(store: Store) -> None:
    """A completed spec answers with what may be claimed because of it: not what needs more, runs, or is cancelled."""
    store.apply([prd("off", status="cancelled"), spec("a"), spec("b"), spec("free"),
                 spec("z1", depends_on=["a"]), spec("m2", depends_on=["a"]), spec("both", depends_on=["a", "b"]),
                 spec("cancelled", depends_on=["a"], prd_id="off"), spec("runs", depends_on=["a"], status="running"),
                 spec("done", depends_on=["a"], status="complete"), spec("gone", depends_on=["a"]), delete("gone"),
                 spec("none", depends_on=["a", "missing"])])
    a, b = claim(store, id="a"), claim(store, id="b")
    done = settle(store, "complete", a)
    assert done["unblocked"] == ["m2", "z1"]
    assert {**done, "unblocked": None} == {**json.loads(store.get(SPEC, "a")), "unblocked": None}
    assert settle(store, "complete", b)["unblocked"] == ["both"]
    assert b"unblocked" not in b"".join(logs(store))


@pytest.mark.parametrize("how", ["complete", "fail", "release"])
def test_a_spec_that_is_gone_cannot_be_settled(store: Store, how: str) -> None:
    """A held spec that git took away cannot be settled: there is none."""
    store.apply([spec("x")])
    claimed = claim(store)
    rewrite(store, lambda _: b"")
    with pytest.raises(NotFoundError, match="there is no task spec x"):
        settle(store, how, claimed)
    assert settle(store, "heartbeat", claimed)["by"] == "me"


# What runs although nobody has claimed it here


def _by_id(store: Store) -> None:
    with pytest.raises(ConflictError):
        claim(store, id="x")


LOOKS: dict[str, Callable[[Store], object]] = {
    "ready": ready, "ready of another PRD": lambda store: ready(store, prd_id="other"),
    "a claim of the oldest": lambda store: claim(store, prd_id="none"), "a claim by id": _by_id,
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_running_spec_counts_as_held_from_when_it_is_first_seen(store: Store, other: Store, clocks: Any,
                                                                  look: str) -> None:
    """A spec that runs though nobody claimed it here is free the default time after somebody first looked."""
    append(store, id="x", status="running", updated_at=2)
    store.sync()
    clocks.go_on(10 * HOUR)  # nobody looked, so nothing began
    LOOKS[look](store)
    clocks.go_on(DEFAULT_MS - 2000)
    assert ready(other) == []
    _by_id(other)
    LOOKS[look](store)  # later looks begin nothing anew
    clocks.go_on(2000)
    assert ready(other) == ["x"]
    assert claim(other)["id"] == "x"


def test_what_was_noticed_stays_noticed_though_its_request_fails(store: Store, clocks: Any) -> None:
    """In a group in which all fails, what was seen running is still noted."""
    store.apply([spec("x", status="running"), spec("y", status="running")])
    before = logs(store)
    outcomes = store.commit([Claim("me", id="x"), Claim("me", id="none"), Claim("you", id="y")])
    assert [type(outcome) for outcome in outcomes] == [ConflictError, NotFoundError, ConflictError]
    assert logs(store) == before
    clocks.go_on(DEFAULT_MS)
    assert sorted(ready(store)) == ["x", "y"]


def test_a_spec_that_a_person_set_running_is_held(store: Store, clocks: Any) -> None:
    """A status of running that a person sets keeps others off for the default time, and setting it back frees it."""
    store.apply([spec("x"), update("x", status="running")])
    assert ready(store) == []
    store.apply([update("x", status="pending")])
    assert ready(store) == ["x"]
    store.apply([update("x", status="running")])
    assert claim(store) is None
    clocks.go_on(DEFAULT_MS)
    assert claim(store)["id"] == "x"


def test_what_git_brings_back_as_pending_is_free(store: Store, other: Store) -> None:
    """Seen running under no lease on one branch, pending on the next: nobody holds it, and it can be claimed."""
    append(store, id="x", status="running", updated_at=2)
    assert ready(store) == []
    append(store, id="x", status="pending", updated_at=3)  # as a merge or another branch would
    assert ready(other) == ["x"]
    claimed = claim(other, id="x")
    assert ready(store) == []
    assert claim(store) is None
    assert settle(store, "heartbeat", claimed)["by"] == "me"


def test_another_run_is_held_anew(store: Store, other: Store, clocks: Any) -> None:
    """What another clone sets running again, after it was pending, is held the default time from then on."""
    for version, status in enumerate(["running", "pending", "running"], 2):
        append(store, id="x", status=status, updated_at=version)
        assert (ready(store) == ["x"]) is (status == "pending")
        clocks.go_on(DEFAULT_MS - 1000)
    assert ready(other) == []
    _by_id(other)
    clocks.go_on(1000)
    assert ready(other) == ["x"]


# The file of leases


def test_leases_hold_whatever_is_checked_out(store: Store) -> None:
    """A claim holds on a branch on which its spec is pending, and can be settled there."""
    store.apply([spec("x"), spec("y")])
    claimed = claim(store)
    rewrite(store, first_lines)
    assert state(store, "x") == ("pending", None)
    assert ready(store) == ["y"]
    with pytest.raises(ConflictError, match="me holds it"):
        claim(store, "you", id="x")
    assert settle(store, "complete", claimed)["status"] == "complete"


@pytest.mark.parametrize("opened", [True, False], ids=["while it is open", "between two openings"])
def test_leases_that_are_deleted(store: Store, other: Store, clocks: Any, *, opened: bool) -> None:
    """Without the file of leases what runs counts as held from then on, old tokens are refused, an op claims anew."""
    store.apply([spec("x"), spec("y"), spec("z")])
    first, second = claim(store, op="once"), claim(other, "you")
    if not opened:
        store.close()
        other.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{leases_path(store)}{suffix}").unlink(missing_ok=True)
    assert ready(store) == ["z"]
    for claimed in (first, second):
        for method in ("heartbeat", "complete"):
            with pytest.raises(ConflictError):
                settle(other, method, claimed)
    again = claim(store, op="once")
    assert again["id"] == "x"
    assert settle(other, "complete", again)["status"] == "complete"
    clocks.go_on(DEFAULT_MS)
    assert ready(store) == ["y", "z"]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda _: b"no database\n" * 500, "empty": lambda _: b"", "zeros": lambda data: bytes(len(data)),
    "a short header": lambda data: data[:100], "half": lambda data: data[:len(data) // 2],
    "noise": lambda data: os.urandom(len(data)), "all but the first page": lambda data: data[:4096] + bytes(
        len(data) - 4096), "another database": lambda _: _foreign(),
}


def _foreign() -> bytes:
    with contextlib.closing(apsw.Connection(":memory:")) as db:
        db.execute("CREATE TABLE leases(x)")
        return db.serialize("main")


@pytest.mark.parametrize("damage", DAMAGES)
def test_leases_that_are_damaged(store: Store, clocks: Any, damage: str) -> None:
    """A damaged file of leases stops nothing: what ran counts as held, and claims, heartbeats and all go on."""
    store.apply([spec(f"s{n:02}") for n in range(60)])
    held = [claim(store, f"agent-{n}") for n in range(40)]
    store.close()
    sql(store, "PRAGMA wal_checkpoint(TRUNCATE)")
    leases_path(store).write_bytes(DAMAGES[damage](leases_path(store).read_bytes()))
    ids = {claimed["id"] for claimed in held}
    assert not ids & set(ready(store))
    more = [claim(store, f"more-{n}") for n in range(10)]
    assert len({claimed["id"] for claimed in more} - ids) == 10
    for claimed in more:
        settle(store, "heartbeat", claimed)
    assert settle(store, "complete", more[0])["status"] == "complete"
    clocks.go_on(DEFAULT_MS)
    assert len(ready(store)) == 59
    assert sql(store, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("what", ["folder", "directory"])
def test_leases_that_cannot_be_written(store: Store, obedient: list[str], what: str) -> None:
    """Where leases cannot be written, what is ready can be read, a claim is refused as a whole, and no log changes."""
    store.apply([spec("x"), spec("y"), spec("r", status="running")])
    if what == "folder":
        claim(store, "you", id="y")
    store.close()
    if what == "directory":
        leases_path(store).mkdir()
    else:
        leases_path(store).parent.chmod(0o500)
    before = logs(store)
    code = """
        import json, sys
        from taskstore_core.errors import TaskStoreError
        from taskstore_core.methods import dispatch
        from taskstore_core.store import Store
        with Store.open(directory=sys.argv[1]) as store:
            print(json.dumps([json.loads(item)["id"] for item in dispatch(store, "task_spec.ready", {})["items"]]))
            for parameters in {"by": "me"}, {"by": "me", "id": "x"}, {"by": "me", "op": "once"}:
                try:
                    dispatch(store, "task_spec.claim", parameters)
                except TaskStoreError as error:
                    print(json.dumps([error.kind, error.applied]))
    """
    done = subprocess.run([*obedient, sys.executable, "-c", textwrap.dedent(code), store.paths.directory],
                          capture_output=True, text=True, check=False)
    leases_path(store).parent.chmod(0o700)
    assert done.returncode == 0, done.stderr
    found, *refused = map(json.loads, done.stdout.splitlines())
    assert set(found) == ({"x"} if what == "folder" else {"x", "y"})
    assert refused == [["read_only", "no"]] * 3
    assert logs(store) == before


def test_two_leases_are_made_of_one_folder(store: Store, other: Store) -> None:
    """Both openings of a store see a lease at once, also when the one that made the file was another."""
    store.apply([spec("x"), spec("y")])
    assert ready(other) == ["x", "y"]
    claimed = claim(store)
    assert ready(other) == ["y"]
    settle(other, "release", claimed)
    assert ready(store) == ["x", "y"]


# What a kill between the log and the lease leaves


def test_a_claim_that_was_killed_before_its_lease(store: Store, clocks: Any) -> None:
    """A claim whose line was written and whose lease was not: with its op it is had, without it comes free in time."""
    store.apply([spec("x"), spec("y")])
    lost = claim(store, op="once")
    sql(store, "DELETE FROM leases")
    assert ready(store) == ["y"]
    again = claim(store, op="once")
    assert again["id"] == "x"
    assert again["token"] != lost["token"]
    assert claim(store, op="once")["token"] == again["token"]
    sql(store, "DELETE FROM leases")
    assert ready(store) == ["y"]
    clocks.go_on(DEFAULT_MS)
    assert claim(store, "you")["id"] == "x"
    with pytest.raises(ConflictError, match="no longer held"):
        claim(store, op="once")


@pytest.mark.parametrize("how", ["complete", "fail", "release"])
def test_a_settlement_that_was_killed_before_its_lease(store: Store, how: str) -> None:
    """Sent again, what was written before a kill is answered, and the lease that was left behind is ended."""
    store.apply([spec("x")])
    claimed = claim(store)
    rows = sql(store, "SELECT * FROM leases")
    first = settle(store, how, claimed, op="once")
    sql(store, "INSERT INTO leases VALUES (?,?,?,?,?,?,?)", *rows[0])
    assert ready(store) == []
    assert settle(store, how, claimed, op="once") == first
    assert ready(store) == (["x"] if how == "release" else [])
    with pytest.raises(ConflictError):
        settle(store, "heartbeat", claimed)


def test_a_settlement_repeated_late_leaves_others_alone(store: Store) -> None:
    """A release that is sent again after somebody else claimed the spec does not end that claim."""
    store.apply([spec("x")])
    first = claim(store)
    settle(store, "release", first, op="once")
    second = claim(store, "you")
    settle(store, "release", first, op="once")
    assert settle(store, "complete", second)["assigned_to"] == "you"


# Groups


def results(outcomes: Sequence[Outcome | TaskStoreError]) -> list[Any]:
    """The answers of a group as plain data, errors as their classes."""
    return [json.loads(to_json(one.result)) if isinstance(one, Outcome) else type(one) for one in outcomes]


def test_claims_of_one_group_get_different_specs(store: Store) -> None:
    """However many claims share a commit, none gets what another got, and those for whom nothing is left get null."""
    store.apply([spec(f"s{n}") for n in range(5)])
    got = results(store.commit([Claim(f"agent-{n}") for n in range(8)]))
    assert [one and one["id"] for one in got] == ["s0", "s1", "s2", "s3", "s4", None, None, None]
    assert len({one["token"] for one in got if one}) == 5
    for one in filter(None, got):
        assert settle(store, "complete", one)["assigned_to"] == one["assigned_to"]


def test_claims_of_one_spec_in_one_group(store: Store) -> None:
    """Of several claims of one spec in a group the first gets it and the others hear who holds it."""
    store.apply([spec("x")])
    got = results(store.commit([Claim("a", id="x"), Claim("b", id="x"), Claim("c"), Claim("a", id="x", op="o")]))
    assert got[0]["assigned_to"] == "a"
    assert got[1:] == [ConflictError, None, ConflictError]
    same = results(store.commit([Settle("release", "x", "a", got[0]["token"]), Claim("d", op="once"),
                                 Claim("d", op="once"), Claim("e", op="once")]))
    assert same[1] == same[2]
    assert same[3] is InvalidError
    assert same[1]["assigned_to"] == "d"


def test_completing_and_claiming_in_one_group(store: Store) -> None:
    """A claim gets what a request before it in its group has made free: completed, released, created, uncancelled."""
    store.apply([spec("a"), spec("b", depends_on=["a"]), spec("c", prd_id="off"), prd("off", status="cancelled")])
    a = claim(store)
    done, b, none, _, c, d, d2 = results(store.commit([
        Settle("complete", "a", "me", a["token"]), Claim("you"), Claim("you"),
        Batch([update("off", PRD, status="active")]), Claim("you"),
        Batch([spec("d", depends_on=["a"]), spec("e", depends_on=["d"])]), Claim("you")]))
    assert done["unblocked"] == ["b"]
    assert (b["id"], none, c["id"], d[0]["id"], d2["id"]) == ("b", None, "c", "d", "d")
    _, released, e = results(store.commit([
        Batch([spec("late", depends_on=["d"]), spec("freed", depends_on=["d"]), update("freed", depends_on=[])]),
        Settle("complete", "d", "you", d2["token"]), Claim("me", id="e")]))
    assert released["unblocked"] == ["e", "late"]
    assert e["id"] == "e"


def test_a_claim_in_a_group_does_not_get_what_was_taken_away(store: Store) -> None:
    """A claim does not get what a request before it in its group has cancelled, blocked, failed or deleted."""
    store.apply([prd("q"), spec("a", prd_id="q"), spec("b"), spec("c"), spec("d"), spec("n", status="complete"),
                 spec("e", depends_on=["n"])])
    got = results(store.commit([
        Batch([update("q", PRD, status="cancelled"), update("b", depends_on=["none"]), update("c", status="failed"),
               delete("d"), update("n", status="failed")]), Claim("me"), Claim("me", id="a"), Claim("me", id="e")]))
    assert got[1:] == [None, ConflictError, ConflictError]


def test_a_request_that_fails_gives_no_lease(store: Store) -> None:
    """In one group, what was claimed and released by a batch that then fails stays as it was."""
    store.apply([spec("x"), spec("y")])
    claimed = claim(store)
    got = results(store.commit([Batch([update("x", status="pending"), update("none")]), Claim("you"),
                                Heartbeat("x", "me", claimed["token"])]))
    assert got[0] is NotFoundError
    assert got[1]["id"] == "y"
    assert got[2]["id"] == "x"


KEYS = "abcd"
VARYING = ("updated_at", "base_at", "created_at", "token", "op", "op_sum")  # from run to run
Step = tuple[str, str, str, str]


def _changing(verb: str, kind: Any, key: str, **fields: object) -> Request:
    return Batch([Operation(verb, kind, {"id": key, **fields})])


REQUESTS: dict[str, Callable[[str, str, str, dict[str, str], int], Request]] = {
    "create": lambda key, need, of, _, __: Batch([spec(
        key, prd_id=of, created_at=KEYS.index(need), depends_on=[need] if need > key else [])]),
    **{status: lambda key, _, __, ___, ____, status=status: _changing("update", SPEC, key, status=status)  # type: ignore[misc]
       for status in ("running", "pending", "complete")},
    "needs": lambda key, need, _, __, ___: _changing("update", SPEC, key, depends_on=[need]),
    "delete": lambda key, _, __, ___, ____: _changing("delete", SPEC, key),
    "restore": lambda key, _, __, ___, ____: _changing("restore", SPEC, key),
    "cancel": lambda _, __, of, ___, ____: _changing("update", PRD, of, status="cancelled"),
    "uncancel": lambda _, __, of, ___, ____: _changing("update", PRD, of, status="active"),
    "drop prd": lambda _, __, of, ___, ____: _changing("delete", PRD, of),
    "claim": lambda _, __, ___, ____, _____: Claim("me"),
    "claim it": lambda key, _, __, ___, number: Claim("me", id=key, op=f"op{number % 3}"),
    "claim of prd": lambda _, __, of, ___, ____: Claim("me", prd_id=of),
    "done": lambda key, _, __, tokens, ___: Settle("complete", key, "me", tokens.get(key, "")),
    "give back": lambda key, _, __, tokens, ___: Settle("release", key, "me", tokens.get(key, "")),
}
STEPS = st.lists(st.tuples(st.sampled_from([*REQUESTS, "claim", "claim"]), st.sampled_from(KEYS),
                           st.sampled_from(KEYS), st.sampled_from("pq")), min_size=1, max_size=14)


def _plain(outcome: Outcome | TaskStoreError) -> object:
    """An outcome without what differs from run to run."""
    if isinstance(outcome, TaskStoreError):
        return type(outcome), outcome.field
    text = to_json(outcome.result)
    said = json.loads(text)
    for one in said if isinstance(said, list) else [said]:
        if one is not None:
            for name in VARYING:
                one.pop(name, None)
    return said


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["pending", "running", "complete"]),
                          st.sampled_from("pq"), st.sampled_from(["", *KEYS])), max_size=4), STEPS)
def test_a_group_is_as_its_requests_one_by_one(empty: str, tmp_path_factory: pytest.TempPathFactory,
                                               begin: list[tuple[str, str, str, str]], steps: list[Step]) -> None:
    """Requests that share a commit come to what they come to one after the other, whatever they are."""
    folder = tmp_path_factory.mktemp("group")
    answers, records = [], []
    for way in ("one by one", "together"):
        directory = os.fspath(shutil.copytree(empty, folder / way / ".taskstore"))
        with Store.open(directory=directory) as store:
            store.apply([prd("p"), prd("q")])
            tokens = {}
            for number, (key, status, of, need) in enumerate(begin):
                store.commit([Batch([spec(key, prd_id=of, status=status, created_at=number,
                                          depends_on=[need] if need > key else [])])])
            for key in KEYS[:2]:
                (claimed,) = store.commit([Claim("me", id=key)])
                if isinstance(claimed, Outcome):
                    tokens[key] = json.loads(to_json(claimed.result))["token"]
            requests = [REQUESTS[verb](key, need, of, tokens, number)
                        for number, (verb, key, need, of) in enumerate(steps)]
            outcomes = (store.commit(requests) if way == "together"
                        else [outcome for request in requests for outcome in store.commit([request])])
            answers.append([_plain(outcome) for outcome in outcomes])
            lines = [json.loads(line) for line in store.find(SPEC)[0]]
            records.append([{name: one[name] for name in one if name not in VARYING} for one in lines])
            records[-1].append({"ready": ready(store)})
    assert answers[0] == answers[1]
    assert records[0] == records[1]


# Against a plain rendering of the rules


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(
    st.sampled_from(["pending", "pending", "running", "complete", "failed", "deleted"]), st.integers(0, 3),
    st.lists(st.integers(0, 7), max_size=3), st.sampled_from(["p", "off", "gone", "missing"])), max_size=7),
    st.sets(st.integers(0, 6)))
def test_ready_is_what_the_rules_say(empty: str, tmp_path_factory: pytest.TempPathFactory,
                                     specs: list[tuple[str, int, list[int], str]], dead: set[int]) -> None:
    """Over any specs, needs and PRDs, ready is what the rules say in plain words, and claims take it in that order."""
    directory = os.fspath(shutil.copytree(empty, tmp_path_factory.mktemp("rules") / ".taskstore"))
    with Store.open(directory=directory) as store:
        store.apply([prd("p"), prd("off", status="cancelled"), prd("gone", status="cancelled"), delete("gone", PRD)])
        rows = []
        for number, (status, created_at, needs, of) in enumerate(specs):
            line = {"id": f"s{number}", "prd_id": of, "phase_name": "N", "created_at": created_at, "updated_at": 10,
                    "status": status, "depends_on": [f"s{need}" for need in needs]}
            rows.append({"id": f"s{number}", "deleted": True, "updated_at": 10} if status == "deleted" else line)
        with open(store.paths.file(SPEC.log), "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        ready(store)
        for number in dead if leases_path(store).exists() else ():
            sql(store, "UPDATE leases SET until = 0 WHERE spec = ?", f"s{number}")
        statuses = {f"s{number}": row[0] for number, row in enumerate(specs)}
        expected = sorted((created_at, f"s{number}") for number, (status, created_at, needs, of) in enumerate(specs)
                          if (status == "pending" or (status == "running" and number in dead)) and of != "off"
                          and all(statuses.get(f"s{need}") == "complete" for need in needs))
        assert ready(store) == [key for _, key in expected]
        taken = [claim(store)["id"] for _ in expected]
        assert taken == [key for _, key in expected]
        assert claim(store) is None


# Dependencies of executions


def dependency(store: Store) -> None:
    store.apply([Operation("create", KINDS["dependency"], {
        "id": "d", "from_exec_id": "e", "to_exec_id": "f", "dependency_type": "query", "payload": "asked"})])


def test_resolving(store: Store, other: Store) -> None:
    """A dependency is resolved once, with a payload or with what it had, and a second time is a conflict."""
    dependency(store)
    first = call(store, "dependency.resolve", id="d")
    assert (first["payload"], first["resolved_at"] > 0) == ("asked", True)
    for opened in (store, other):
        with pytest.raises(ConflictError, match="is resolved already"):
            call(opened, "dependency.resolve", id="d", payload="late")
    store.apply([update("d", KINDS["dependency"], resolved_at=None)])
    assert call(other, "dependency.resolve", id="d", payload="")["payload"] == ""
    with pytest.raises(NotFoundError):
        call(store, "dependency.resolve", id="none")


def test_waiting_for_a_dependency(store: Store, other: Store) -> None:
    """Waiting answers with the dependency once it is resolved, or as it is when the time is up; who waits sees it."""
    dependency(store)
    for timeout in (0, 1):
        assert call(store, "dependency.wait", id="d", timeout_ms=timeout)["resolved_at"] is None
    with pytest.raises(NotFoundError):
        call(store, "dependency.wait", id="none", timeout_ms=0)
    resolver = threading.Thread(target=lambda: call(other, "dependency.resolve", id="d", payload="answer"))
    resolver.start()
    try:
        assert call(store, "dependency.wait", id="d")["payload"] == "answer"
    finally:
        resolver.join()
    assert call(store, "dependency.wait", id="d", timeout_ms=10**9)["payload"] == "answer"


@pytest.mark.parametrize("rest", [f'"n":{"9" * 5000}', '"n":1e400', '"depends_on":5', '"depends_on":null',
                                  '"depends_on":[null,7]', '"token":"mine"', '"unblocked":1'], ids=lambda x: x[:20])
def test_lines_of_others_can_be_claimed(store: Store, rest: str) -> None:
    """Whatever else stands in somebody's line, the spec can be listed, claimed by its id, held and completed."""
    with open(store.paths.file(SPEC.log), "a", encoding="utf-8") as file:
        file.write(f'{{"id":"x","prd_id":"p","phase_name":"N","status":"pending","updated_at":1,{rest}}}\n')

    def plain(answer: object) -> Any:
        return json.loads(to_json(answer), parse_int=float)

    assert [one["id"] for one in plain(dispatch(store, "task_spec.ready", {}))["items"]] == ["x"]
    claimed = plain(dispatch(store, "task_spec.claim", {"by": "me", "id": "x"}))
    parameters = {"id": "x", "by": "me", "token": claimed["token"]}
    dispatch(store, "task_spec.heartbeat", parameters)
    assert plain(dispatch(store, "task_spec.complete", parameters))["unblocked"] == []
