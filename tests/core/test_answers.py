"""The schemas of parameters and answers, against what a store really takes and answers."""

import copy
import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from taskstore_core import answers, errors
from taskstore_core.kinds import KINDS
from taskstore_core.methods import METHODS, dispatch
from taskstore_core.plain import to_json
from taskstore_core.store import Store

Fields = dict[str, Any]

RECORDS: dict[str, Fields] = {
    "prd": {"id": "p", "title": "P", "labels": ["unknown"]},
    "task_spec": {"id": "a", "prd_id": "p", "phase_name": "A"},
    "execution": {"id": "e", "ts_id": "a"},
    "dependency": {"id": "d", "from_exec_id": "e", "to_exec_id": "f", "dependency_type": "query"},
    "workflow": {"id": "w", "name": "W", "awl_code": "do"},
    "repo_state": {"repo_path": "/r", "last_synced_commit": "c0ffee"},
}


class Caller:
    """Calls methods, and holds parameters and answers to their schemas; `answers` has the last of each method."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.answers: Fields = {}

    def __call__(self, method: str, **parameters: object) -> Any:
        Draft202012Validator(answers.parameters_schema(method)).validate(parameters)
        answer = json.loads(to_json(dispatch(self.store, method, parameters)))
        Draft202012Validator(answers.answer_schema(method)).validate(answer)
        if answer is not None:
            self.answers[method] = answer
        return answer


@pytest.fixture
def call(store: Store) -> Caller:
    """A caller of a store that holds a record of each kind."""
    caller = Caller(store)
    for kind, record in RECORDS.items():
        caller("record.create", kind=kind, record=record)
    return caller


def call_all(call: Caller) -> None:
    """Call each method, those with several forms of an answer for each form."""
    for kind, record in RECORDS.items():
        key = record[KINDS[kind].key]
        call("record.get", kind=kind, id=key)
        call("record.list", kind=kind, limit=1, where=None)
        call("record.delete", kind=kind, id=key)
        call("record.restore", kind=kind, id=key)
        call("record.history", kind=kind, id=key)
        call("record.update", kind=kind, id=key, set={"note": "more"})
    call("store.apply", op="try-1", ops=[
        {"op": "create", "kind": "task_spec",
         "record": {"id": "b", "prd_id": "p", "phase_name": "B", "depends_on": ["a"]}},
        {"op": "create", "kind": "task_spec", "record": {"id": "c", "prd_id": "p", "phase_name": "C"}},
        {"op": "update", "kind": "ts", "id": "c", "set": {"phase_name": "CC"}, "if_updated_at": None},
        {"op": "delete", "kind": "execution", "id": "e"},
        {"op": "restore", "kind": "execution", "id": "e", "version": None},
        {"op": "import", "kind": "prd", "record": {"id": "q", "title": "Q", "updated_at": 5}},
        {"op": "import", "kind": "prd", "record": {"id": "r", "deleted": True, "updated_at": 5}}])
    call("task_spec.ready", prd_id="p", limit=5)
    held = {"id": "a", "by": "me", "token": call("task_spec.claim", by="me", id="a", op="try-2")["token"]}
    call("task_spec.heartbeat", **held, lease_ms=60_000)
    call("task_spec.complete", **held)
    for method in ("task_spec.release", "task_spec.fail"):
        call(method, id="c", by="me", token=call("task_spec.claim", by="me", id="c")["token"])
    assert call("task_spec.claim", by="me", prd_id="none") is None
    call("dependency.wait", id="d", timeout_ms=0)
    call("dependency.resolve", id="d", payload="here")
    call("dependency.wait", id="d")
    with open(call.store.paths.file("prds.jsonl"), "a", encoding="utf-8") as log:
        log.write("no record\n")
        log.write('<<<<<<< ours\n{"id":"k","title":"1","updated_at":5}\n=======\n'
                  '{"id":"k","title":"2","updated_at":5}\n>>>>>>> theirs\n')
    assert call("store.resolve_conflicts")["left"] == 1
    assert call("store.resolve_conflicts", take="newest", kind="prd", id="k")["conflicts"][0]["taken"] == "theirs"
    call("store.sync", full=True)
    call("store.stats")
    assert call("store.check")["left"]
    call("store.check", fix=True)
    assert call("store.compact", keep=1, older_than_ms=0, prune_tombstones=False, dry_run=True)["lines"]
    assert call("store.compact")["lines"]
    with open(call.store.paths.file("executions.jsonl"), "wb"):
        pass
    assert len(call("store.recover", all=None)["lines"]) == len(call("store.recover", ids=["e"])["lines"]) > 1
    assert call("store.recover", all=True) == {"lines": [], "left": 0}


def test_every_method_takes_and_answers_what_its_schemas_say(call: Caller) -> None:
    """What a store takes and answers with validates, for every method and every kind."""
    call_all(call)
    assert set(call.answers) == set(METHODS)


def test_a_broken_answer_does_not_validate(call: Caller) -> None:
    """An answer that lacks any one of its keys, or that is of another type, does not validate."""
    call_all(call)
    for method, answer in call.answers.items():
        validator = Draft202012Validator(answers.answer_schema(method))
        assert not validator.is_valid(7), method
        for broken in (broken for key in _needed(method, answer) for broken in _without(answer, key)):
            assert not validator.is_valid(broken), (method, broken)


def _needed(method: str, answer: Any) -> list[str]:
    """Keys that an answer, or each thing in it, must have."""
    return {"record": ["id"], "claim": ["id", "token"],
            "completed": ["id", "unblocked"], "page": ["items", "cursor"], "items": ["items"],
            "results": ["id"]}.get(METHODS[method].answer, list(answer))


def _without(answer: Any, key: str) -> list[Any]:
    if isinstance(answer, list):
        return [[{name: value for name, value in one.items() if name != key}] for one in answer]
    if key not in answer:
        return []
    return [{name: value for name, value in answer.items() if name != key}]


@pytest.mark.parametrize(("method", "spoil"), [
    ("record.get", lambda answer: answer.update(title=3)),
    ("record.list", lambda answer: answer.update(cursor=3)),
    ("record.list", lambda answer: answer["items"].append({})),
    ("record.delete", lambda answer: answer.update(more=1)),
    ("task_spec.claim", lambda answer: answer.update(status="running?")),
    ("task_spec.complete", lambda answer: answer.update(unblocked=[None])),
    ("store.sync", lambda answer: answer["kinds"].update(prds={})),
    ("store.stats", lambda answer: answer["kinds"]["prd"].update(records=-1)),
    ("store.check", lambda answer: answer.update(problems=[{"problem": "x"}])),
])
def test_a_wrong_value_does_not_validate(method: str, spoil: Callable[[Fields], object], store: Store) -> None:
    """A value outside its type, deep in an answer, does not validate."""
    call = Caller(store)
    call("record.create", kind="prd", record=RECORDS["prd"])
    call("record.create", kind="task_spec", record=RECORDS["task_spec"])
    answer = {
        "record.get": lambda: call("record.get", kind="prd", id="p"),
        "record.list": lambda: call("record.list", kind="prd"),
        "record.delete": lambda: call("record.delete", kind="prd", id="p"),
        "task_spec.claim": lambda: call("task_spec.claim", by="me"),
        "task_spec.complete": lambda: call("task_spec.complete", id="a", by="me",
                                           token=call("task_spec.claim", by="me")["token"]),
        "store.sync": lambda: call("store.sync"),
        "store.stats": lambda: call("store.stats"),
        "store.check": lambda: call("store.check"),
    }[method]()
    broken = copy.deepcopy(answer)
    spoil(broken)
    validator = Draft202012Validator(answers.answer_schema(method))
    assert validator.is_valid(answer)
    assert not validator.is_valid(broken)


@pytest.mark.parametrize("method", METHODS)
def test_schemas_are_schemas(method: str) -> None:
    """Each schema is one, refers to nothing that it lacks, and its parameters are those of the table, all described."""
    for schema in (answers.answer_schema(method), answers.parameters_schema(method)):
        Draft202012Validator.check_schema(schema)
        definitions = schema.get("$defs", {})
        assert isinstance(definitions, dict)
        assert _references(schema) <= {f"#/$defs/{name}" for name in definitions}
    properties = answers.parameters_schema(method)["properties"]
    assert isinstance(properties, dict)
    assert list(properties) == list(METHODS[method].parameters)
    assert all(answers.describe(method, name) for name in properties)


def _references(schema: object) -> set[str]:
    if isinstance(schema, list):
        return {found for one in schema for found in _references(one)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
    return own | {found for one in schema.values() for found in _references(one)}


@pytest.mark.parametrize(("method", "parameters"), [
    ("record.get", {"kind": "nope", "id": "p"}),
    ("record.get", {"kind": "prd"}),
    ("record.get", {"kind": "prd", "id": "p", "more": 1}),
    ("record.list", {"kind": "prd", "limit": 0}),
    ("task_spec.claim", {"by": ""}),
    ("task_spec.claim", {"by": "me", "lease_ms": 0}),
    ("store.apply", {"ops": [{"op": "move", "kind": "prd", "id": "p"}]}),
    ("store.apply", {"ops": [{"op": "update", "kind": "prd", "id": "p"}]}),
])
def test_parameters_that_a_store_refuses_do_not_validate(method: str, parameters: Fields, store: Store) -> None:
    """What a store refuses as invalid, the schema of the parameters refuses too."""
    assert not Draft202012Validator(answers.parameters_schema(method)).is_valid(parameters)
    with pytest.raises(errors.InvalidError):
        dispatch(store, method, parameters)


def test_a_version_below_zero(call: Caller) -> None:
    """The version of another tool's line may lie below 0, and schemas as well as the store take it for one."""
    with open(call.store.paths.file("prds.jsonl"), "a", encoding="utf-8") as log:
        log.write('{"id":"old","title":"O","updated_at":-5}\n')
    call("record.update", kind="prd", id="old", set={"title": "N"}, if_updated_at=-5)
    assert call("record.restore", kind="prd", id="old", version=-5)["title"] == "O"


def test_the_errors_carry_what_to_tell_of_them() -> None:
    """Every error has a kind, a code and an exit status, and no two have the same; those of others are not listed."""
    importlib.import_module("taskstore_hooks.git")
    importlib.import_module("taskstore.starting")
    rows = [(error.kind, error.code, error.exit_status) for error in answers.errors()]
    assert len({kind for kind, _, _ in rows}) == len({code for _, code, _ in rows}) == len(rows)
    assert all(status in {1, 2, 3} for _, _, status in rows)
