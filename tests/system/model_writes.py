"""What writes make of the model: creates, updates, deletes, imports, restores, and what holders of task specs do.

Each is tried on a copy of the model, first with stamps as they might be, to say whether the store may refuse; then with
the stamps that the store gave, to say what the lines must be. (`stamps` are those, in the order of the operations.)
"""

import json
from typing import TYPE_CHECKING, Any

from tests.system.model import Model
from tests.system.model_log import Line, Log, Refused, started, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUIRED = {"prd": ["title"], "task_spec": ["prd_id", "phase_name"], "execution": ["ts_id"],
            "dependency": ["from_exec_id", "to_exec_id", "dependency_type"], "workflow": ["name"]}
DEFAULTS: "dict[str, dict[str, Any]]" = {
    "prd": {"description": "", "status": "draft", "review_passes": 0, "content": ""},
    "task_spec": {"description": "", "status": "pending", "workflow_name": None, "assigned_to": None, "content": ""},
    "execution": {"worktree_path": "", "branch_name": "", "status": "running", "completed_at": None,
                  "current_phase": None, "iteration_count": 0, "error_message": None},
    "dependency": {"resolved_at": None, "payload": None},
    "workflow": {"description": "", "awl_code": ""},
}
ENDED = {"complete", "failed", "stopped"}
OUTCOMES: "dict[str, dict[str, Any]]" = {
    "complete": {"status": "complete"}, "fail": {"status": "failed"},
    "release": {"status": "pending", "assigned_to": None}}


def apply(model: Model, ops: "Sequence[dict[str, Any]]", now: int, stamps: "Sequence[int] | None" = None) -> list[Line]:
    """Carry out operations in their order; the line of each, which for an import that changes nothing is the known one.

    Raises Refused; the model is then half-way and to be thrown away.
    """
    lines = []
    for number, op in enumerate(ops):
        kind, verb = op["kind"], op["op"]
        record = op.get("record") or {}
        key = op.get("id") or record["id"]
        known = model.known(kind, key)
        stamp = stamps[number] if stamps is not None else max(now, known.stamp + 1 if known else 0)
        line = _made(model, op, key, known, stamp)
        lines.append(line)
        if line is known:
            continue
        if kind == "task_spec":
            _follow_up(model, verb, line, op.get("set") or record)
        model.logs[kind].append(line)
    return lines


def _made(model: Model, op: "dict[str, Any]", key: str, known: Line | None, stamp: int) -> Line:
    kind = op["kind"]
    match op["op"]:
        case "create":
            return Line(key, stamp, _created(kind, dict(op["record"]), known, stamp))
        case "import":
            version = version_of(op["record"])
            return known if known and known.stamp >= version else Line(key, version, dict(op["record"]))
        case "update":
            return Line(key, stamp, _updated(kind, _expected(op, known), op["set"], stamp))
        case "delete":
            _expected(op, known)
            return Line(key, stamp, {"id": key, "deleted": True, "updated_at": stamp})
    return Line(key, stamp, {**_earlier(model.logs[kind], known, key, op.get("version")), "updated_at": stamp})


def _created(kind: str, fields: "dict[str, Any]", known: Line | None, stamp: int) -> "dict[str, Any]":
    if known is not None and not known.deleted:
        raise Refused("exists")
    if any(name not in fields for name in REQUIRED[kind]):
        raise Refused("invalid")
    record = {**DEFAULTS[kind], started(kind): stamp, **fields}
    record.pop("updated_at", None)
    if kind != "dependency" or known is not None:
        record["updated_at"] = stamp
    if kind == "execution" and record["status"] in ENDED and record["completed_at"] is None:
        record["completed_at"] = stamp
    return _without_empty(record, fields)


def _updated(kind: str, known: Line, changes: "dict[str, Any]", stamp: int) -> "dict[str, Any]":
    if kind == "execution" and "status" in changes and "completed_at" not in changes:
        changes = {**changes, "completed_at": stamp if changes["status"] in ENDED else None}
    return _without_empty({**_unmarked(known), **changes, "updated_at": stamp}, changes)


def _without_empty(record: "dict[str, Any]", given: "dict[str, Any]") -> "dict[str, Any]":
    """No needs are not written; but where another tool has written so, they stay."""
    return {name: value for name, value in record.items()
            if value or name != "depends_on" or name not in given}


def _unmarked(line: Line) -> "dict[str, Any]":
    return {name: value for name, value in line.record.items() if name not in {"base_at", "op", "op_sum", "deleted"}}


def _expected(op: "dict[str, Any]", known: Line | None) -> Line:
    if known is None or known.deleted:
        raise Refused("not_found")
    if op.get("if_updated_at") not in {None, known.stamp}:
        raise Refused("conflict")
    return known


def _earlier(log: Log, known: Line | None, key: str, version: int | None) -> "dict[str, Any]":
    """The version to be restored."""
    if known is None:
        raise Refused("not_found")
    if version is None and not known.deleted:
        raise Refused("invalid")
    lines = sorted((line for line in log.lines if line.key == key and not line.deleted
                    and version in {None, line.stamp}), key=lambda line: line.stamp)
    if not lines:
        raise Refused("not_found")
    return _unmarked(lines[-1])


def _follow_up(model: Model, verb: str, line: Line, fields: "dict[str, Any]") -> None:
    """No circle of needs, and no lease on what somebody set aside."""
    are_new = verb in {"create", "restore"} or (verb == "update" and "depends_on" in fields)
    if are_new and model.circle_through(line.key, line.record.get("depends_on") or []):
        raise Refused("invalid")
    is_running = (line.record if verb == "restore" else fields).get("status", "running") == "running"
    if verb == "delete" or (verb in {"update", "restore"} and not is_running):
        model.leases.pop(line.key, None)


# Task specs


def to_claim(model: Model, key: str | None, prd_id: str | None) -> str | None:
    """The task spec that a claim gets."""
    if key is None:
        model.notice()
        return next((line.key for line in model.ready(prd_id)), None)
    if key not in model.live("task_spec"):
        raise Refused("not_found")
    if not model.is_free(key):
        raise Refused("conflict")
    return key


def claim_again(model: Model, op: str, asked: str) -> str | None:
    """The task spec that a repeated claim gets; None where nothing is left of the first."""
    lines = model.of_op(op)
    spec = next((spec for spec, lease in model.leases.items() if lease.op == op), None)
    if not lines and spec is None:
        return None
    if model.asked_with(op) - {asked} or (spec is not None and model.leases[spec].asked != asked):
        raise Refused("invalid")
    if spec is not None:
        if not model.leases[spec].live:
            raise Refused("conflict")
        if spec not in model.live("task_spec"):
            raise Refused("not_found")
        return spec
    (_, line), = lines
    lease = model.leases.get(line.key)
    known = model.known("task_spec", line.key)
    if known is None or known.stamp != line.stamp or (lease is not None and lease.token):
        raise Refused("conflict")
    return line.key


def held(model: Model, key: str, by: str, token: str) -> None:
    """Raise Refused unless this token holds the task spec now."""
    lease = model.leases.get(key)
    if lease is None or not lease.token or (lease.by, lease.token) != (by, token) or not lease.live:
        raise Refused("conflict")


def settle(model: Model, outcome: str, key: str, claim: "tuple[str, str]", now: int) -> None:
    """End a claim of (holder, token)."""
    held(model, key, *claim)
    if key not in model.live("task_spec"):
        raise Refused("not_found")
    change = {"op": "update", "kind": "task_spec", "id": key, "set": OUTCOMES[outcome]}
    apply(model, [change], now)
    model.leases.pop(key, None)


def unblocked(model: Model, key: str) -> list[str]:
    """The pending task specs that needed this one and may be claimed now."""
    return sorted(spec for spec, line in model.live("task_spec").items()
                  if key in model.needs(spec) and line.record["status"] == "pending" and model.is_free(spec))


def asked_for(method: str, parameters: "dict[str, Any]") -> str:
    """What a repetition must say again."""
    return json.dumps([method, parameters], sort_keys=True)


