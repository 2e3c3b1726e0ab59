"""The machine's rules for task specs: claims, by whom they are held, how they end; and for dependencies."""

import json
from typing import Any

from hypothesis import strategies as st
from tests.system.machine_base import Machine
from tests.system.machine_ground import SHELL, clients, keys, resident, step
from tests.system.model import Lease
from tests.system.model_log import Line, Refused, line_of
from tests.system.model_writes import OUTCOMES, asked_for, claim_again, held, settle, to_claim, unblocked

from taskstore_core.clock import now_ms, uptime_ms

agents = st.sampled_from(["ann", "bob"])


def asked_to_claim(parameters: "dict[str, Any]") -> str:
    return asked_for("task_spec.claim", {name: value for name, value in parameters.items() if name != "lease_ms"})


class Work(Machine):
    """Claims and what becomes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[tuple[str, str, str]] = [("a", "ann", "no token")]  # task spec, holder, token, ended ones too

    @step(who=clients, by=agents, key=st.none() | keys, prd_id=st.none() | st.none() | keys,
          op=st.sampled_from([None, "take-1", "take-2"]))
    def claim(self, who: str, by: str, key: str | None, prd_id: str | None, op: str | None) -> None:
        if who == SHELL:
            key = prd_id = None
        self.take(who, op, {"by": by, "id": key, "prd_id": prd_id})

    @step(who=resident, by=agents, op=st.sampled_from([None, "take-1"]))
    def claim_for_a_moment(self, who: str, by: str, op: str | None) -> None:
        spec = self.take(who, op, {"by": by, "lease_ms": 1})
        if spec is not None:
            end = uptime_ms() + 1
            while uptime_ms() <= end:
                pass  # a lease is of this machine's clock, which nobody may set
            self.model.leases[spec].live = False

    def take(self, who: str, op: str | None, parameters: "dict[str, Any]") -> str | None:
        """Claim, and hold what was got to the model: the task spec, if the claim is a new one."""
        parameters = {name: value for name, value in parameters.items() if value is not None}
        if op is not None and len(self.model.of_op(op)) > 1:
            return None  # written once on each of two branches: which of them is told of is nobody's business
        before, asked, again = now_ms(), asked_to_claim(parameters), None
        answer = self.call(who, "task_spec.claim", op=op, **parameters)
        try:
            if op is not None:
                again = claim_again(self.model, op, asked)
            spec = again or to_claim(self.model, parameters.get("id"), parameters.get("prd_id"))
        except Refused as refused:
            self.refused(who, answer, refused)
            return None
        if spec is None:
            assert answer is None
            return None
        assert isinstance(answer, str), answer
        record = json.loads(answer)
        token = record.pop("token")
        text = answer.removesuffix(f',"token":"{token}"}}') + "}"
        if again is not None:
            self.held_still(spec, text, token, Lease(parameters["by"], token, op, asked))
            return None
        change = {"op": "update", "kind": "task_spec", "id": spec,
                  "set": {"status": "running", "assigned_to": parameters["by"]}}
        self.take_in([change], [text], before, op)
        assert token not in {claim[2] for claim in self.claims}
        self.model.leases[spec] = Lease(parameters["by"], token, op, asked)
        self.claims.append((spec, parameters["by"], token))
        if op is not None:
            self.model.asked[op, self.model.of_op(op)[0][1].says] = asked
        return spec

    def held_still(self, spec: str, text: str, token: str, lease: Lease) -> None:
        """A repeated claim tells of the record as it is, under the token that it has."""
        self.assert_lines([text], [self.model.get("task_spec", spec)])
        if spec in self.model.leases and self.model.leases[spec].token:
            assert token == self.model.leases[spec].token
        else:  # what was claimed is there as it was written, and the lease is not: as after a kill between the two
            self.model.leases[spec] = lease
            self.claims.append((spec, lease.by, token))

    @step(who=resident, data=st.data(), lease_ms=st.sampled_from([None, 60_000]))
    def heartbeat(self, who: str, data: st.DataObject, lease_ms: int | None) -> None:
        spec, by, token = self.choose(data)
        answer = self.call(who, "task_spec.heartbeat", id=spec, by=by, token=token, lease_ms=lease_ms)
        try:
            held(self.model, spec, by, token)
        except Refused as refused:
            self.refused(who, answer, refused)
        else:
            assert answer["id"] == spec
            assert abs(answer["expires_at"] - now_ms() - (lease_ms or 900_000)) < 60_000

    @step(who=clients, data=st.data(), outcome=st.sampled_from(["complete", "complete", "fail", "release"]),
          op=st.sampled_from([None, None, "end-1", "end-2"]))
    def end_claim(self, who: str, data: st.DataObject, outcome: str, op: str | None) -> None:
        spec, by, token = self.choose(data)
        parameters, before = {"id": spec, "by": by, "token": token}, now_ms()
        if who == SHELL and self.model.known("task_spec", spec) is None:
            return  # a command takes the beginning of an id, which a method does not
        asked, there = asked_for(outcome, parameters), [] if op is None else self.model.of_op(op)
        answer = self.call(who, f"task_spec.{outcome}", op=op, **parameters)
        if there and op is not None:
            self.ended_again(who, outcome, answer, there[0][1], self.model.asked_with(op) == {asked})
            return
        try:
            settle(self.model.copy(), outcome, spec, (by, token), before)
        except Refused as refused:
            self.refused(who, answer, refused)
            return
        assert isinstance(answer, str), answer
        change = {"op": "update", "kind": "task_spec", "id": spec, "set": OUTCOMES[outcome]}
        self.take_in([change], [self.without_unblocked(answer, outcome)], before, op)
        self.model.leases.pop(spec, None)
        if outcome == "complete":
            assert json.loads(answer)["unblocked"] == unblocked(self.model, spec)
        if op is not None:
            self.model.asked[op, self.model.of_op(op)[0][1].says] = asked

    def ended_again(self, who: str, outcome: str, answer: Any, line: Line, is_same: bool) -> None:
        if not is_same:
            self.refused(who, answer, Refused("invalid"))
            return
        text = self.without_unblocked(answer, outcome)
        assert text in [each.raw for _, each in self.model.of_op(line.op or "")]
        lease = self.model.leases.get(line.key)
        spec, _, token = next(claim for claim in self.claims if claim[2] == json.loads(
            self.model.asked[line.op or "", line.says])[1]["token"])
        if lease is not None and lease.token == token:
            self.model.leases.pop(spec)
        if outcome == "complete":
            assert json.loads(answer)["unblocked"] == unblocked(self.model, line.key)

    @staticmethod
    def without_unblocked(answer: str, outcome: str) -> str:
        """The record in the answer, as the text that it has."""
        return answer[:answer.rindex(',"unblocked":')] + "}" if outcome == "complete" else answer

    def choose(self, data: st.DataObject) -> "tuple[str, str, str]":
        """A claim that was made, or one with something wrong in it."""
        spec, by, token = data.draw(st.sampled_from(self.claims[-4:]))
        wrong = data.draw(st.sampled_from([None, None, None, "by", "token", "spec"]))
        return (data.draw(keys) if wrong == "spec" else spec, "eve" if wrong == "by" else by,
                "0" * 16 if wrong == "token" else token)

    @step(who=resident, key=keys, payload=st.sampled_from([None, "what was asked for"]))
    def resolve_dependency(self, who: str, key: str, payload: str | None) -> None:
        before, known = now_ms(), self.model.live("dependency").get(key)
        answer = self.call(who, "dependency.resolve", id=key, payload=payload)
        if known is None or known.record.get("resolved_at") is not None:
            self.refused(who, answer, Refused("conflict" if known else "not_found"))
            return
        line = line_of(answer)
        assert line is not None
        assert before <= line.record["resolved_at"] <= now_ms()
        change = {"resolved_at": line.record["resolved_at"], **({} if payload is None else {"payload": payload})}
        self.take_in([{"op": "update", "kind": "dependency", "id": key, "set": change}], [answer], before, None)

