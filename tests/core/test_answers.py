"""The schemas of answers and parameters hold what the methods really take and give."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from taskstore_core import answers
from taskstore_core.errors import TaskStoreError
from taskstore_core.kinds import KINDS
from taskstore_core.methods import METHODS, dispatch
from taskstore_core.plain import to_json
from taskstore_core.store import Store

LEAST: dict[str, dict[str, Any]] = {
    "prd": {"title": "T"}, "task_spec": {"prd_id": "p", "phase_name": "N"}, "execution": {"ts_id": "t"},
    "dependency": {"from_exec_id": "a", "to_exec_id": "b", "dependency_type": "share"}, "workflow": {"name": "N"},
    "repo_state": {"repo_path": "/r", "last_synced_commit": ""},
}


def calls() -> list[tuple[str, dict[str, Any]]]:
    """A call of every method, in an order in which each has something to answer."""
    made: list[tuple[str, dict[str, Any]]] = [
        ("record.create", {"kind": kind, "record": {**fields, **({"id": f"{kind}-1"} if kind != "repo_state" else {})},
                           "op": f"op-{kind}"}) for kind, fields in LEAST.items()]
    return [
        *made,
        ("record.create", {"kind": "task_spec", "record": {**LEAST["task_spec"], "id": "t2",
                                                           "depends_on": ["task_spec-1"]}}),
        *((name, {"kind": kind, "id": "/r" if kind == "repo_state" else f"{kind}-1"})
          for kind in KINDS for name in ("record.get", "record.history")),
        ("record.update", {"kind": "prd", "id": "prd-1", "set": {"title": "U", "odd": [1]}}),
        ("record.list", {"kind": "prd", "limit": 1}),
        ("record.list", {"kind": "task_spec", "where": {"id": {"ne": "x"}}, "limit": 1}),
        ("task_spec.ready", {}),
        ("task_spec.claim", {"by": "ann", "lease_ms": 60_000}),
        ("task_spec.claim", {"by": "bob"}),
        ("task_spec.heartbeat", {"id": "task_spec-1", "by": "ann", "token": "?"}),
        ("task_spec.complete", {"id": "task_spec-1", "by": "ann", "token": "?"}),
        ("task_spec.claim", {"by": "ann"}),
        ("task_spec.release", {"id": "t2", "by": "ann", "token": "?"}),
        ("task_spec.claim", {"by": "ann", "id": "t2"}),
        ("task_spec.fail", {"id": "t2", "by": "ann", "token": "?"}),
        ("dependency.resolve", {"id": "dependency-1", "payload": "x"}),
        ("dependency.wait", {"id": "dependency-1", "timeout_ms": 0}),
        ("record.delete", {"kind": "prd", "id": "prd-1"}),
        ("record.history", {"kind": "prd", "id": "prd-1"}),
        ("record.restore", {"kind": "prd", "id": "prd-1"}),
        ("store.apply", {"ops": [
            {"op": "create", "kind": "prd", "record": {"title": "T"}},
            {"op": "update", "kind": "prd", "id": "prd-1", "set": {"title": "V"}},
            {"op": "delete", "kind": "prd", "id": "prd-1"}, {"op": "restore", "kind": "prd", "id": "prd-1"},
            {"op": "import", "kind": "prd", "record": {"id": "far", "title": "T", "updated_at": 5}}]}),
        ("store.sync", {"full": True}), ("store.stats", {}), ("store.check", {}),
    ]


def test_every_answer_fits_its_schema(tmp_path: Path) -> None:
    """What every method takes and answers on a real store fits the schemas that are published for it."""
    store, _ = Store.create(str(tmp_path))
    tokens: dict[str, str] = {}
    with store:
        for method, given in calls():
            parameters = {**given, "token": tokens[given["id"]]} if "token" in given else given
            validate(answers.parameters_schema(method), parameters)
            answer = json.loads(to_json(dispatch(store, method, parameters)))
            validate(answers.answer_schema(method), answer)
            if method == "task_spec.claim" and answer:
                tokens[answer["id"]] = answer["token"]
    assert {method for method, _ in calls()} == METHODS.keys()


BROKEN: list[tuple[str, Any]] = [
    ("record.get", None), ("record.get", {"id": 5}), ("record.list", {"items": [], "cursor": 5}),
    ("record.list", {"items": [{"id": "x"}], "cursor": None}), ("record.history", {"items": [{"deleted": False}]}),
    ("record.delete", {"id": "x"}), ("store.apply", [5]), ("store.stats", {"store": "x"}),
    ("store.sync", {"kinds": {"nope": {}}, "parsed": 0, "changed": 0, "took_ms": 1}),
    ("store.check", {"problems": [{"problem": "x"}], "left": 0}), ("task_spec.claim", {"id": "x", "token": "y"}),
    ("task_spec.complete", {"id": "x"}), ("task_spec.heartbeat", {"id": "x", "by": "y"}),
]


@pytest.mark.parametrize(("method", "answer"), BROKEN, ids=[f"{row[0]}-{n}" for n, row in enumerate(BROKEN)])
def test_a_broken_answer_does_not(method: str, answer: Any) -> None:
    """An answer that lacks something or holds another type fits no schema."""
    with pytest.raises(jsonschema.ValidationError):
        validate(answers.answer_schema(method), answer)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_those_of_the_table(method: str) -> None:
    """Each method's parameters are described, and wrong ones fit no schema."""
    schema = answers.parameters_schema(method)
    assert list(schema["properties"]) == list(METHODS[method].parameters)  # type: ignore[call-overload]
    for name in METHODS[method].parameters:
        assert answers.describe(method, name).endswith((".", "!"))
    with pytest.raises(jsonschema.ValidationError):
        validate(schema, {"nobody knows this": 1})


def test_errors_are_all_of_ours() -> None:
    """Every error of ours is in the table, each with a kind and a code of its own."""
    classes = answers.errors()
    assert len({each.kind for each in classes}) == len({each.code for each in classes}) == len(classes)
    assert all(issubclass(each, TaskStoreError) and each.exit_status in {1, 2, 3} for each in classes)


def validate(schema: Any, value: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(value)
