"""The method table: every operation by its name, what it takes, what it refuses, and what it answers with."""

import json
from pathlib import Path
from typing import Any

import pytest

from taskstore_core.batch import Operation
from taskstore_core.errors import ExistsError, InvalidError, NotFoundError, TaskStoreError
from taskstore_core.kinds import KINDS
from taskstore_core.methods import METHODS, dispatch, look_up
from taskstore_core.plain import Json, to_json, with_keys
from taskstore_core.store import Store

Fields = dict[str, Any]


def call(store: Store, method: str, parameters: Fields) -> Any:
    """The answer of a method as a client gets it."""
    return json.loads(to_json(dispatch(store, method, parameters)))


def fill(store: Store) -> Fields:
    """What the examples are about; the token of a claim."""
    store.apply([
        Operation("create", KINDS["prd"], {"id": "p", "title": "T"}),
        Operation("create", KINDS["prd"], {"id": "gone", "title": "T"}),
        Operation("delete", KINDS["prd"], {"id": "gone"}),
        Operation("create", KINDS["dependency"], {"id": "d", "from_exec_id": "e", "to_exec_id": "f",
                                                  "dependency_type": "share"}),
        *(Operation("create", KINDS["task_spec"], {"id": key, "prd_id": "p", "phase_name": "N"}) for key in "st")])
    return {"id": "s", "by": "me", "token": call(store, "task_spec.claim", {"by": "me", "id": "s"})["token"]}


EXAMPLES: dict[str, Fields] = {
    "record.create": {"kind": "prd", "record": {"title": "T"}},
    "record.get": {"kind": "prd", "id": "p"},
    "record.update": {"kind": "prd", "id": "p", "set": {"title": "U"}},
    "record.delete": {"kind": "prd", "id": "p"},
    "record.list": {"kind": "prd"},
    "record.history": {"kind": "prd", "id": "gone"},
    "record.restore": {"kind": "prd", "id": "gone"},
    "store.apply": {"ops": []},
    "store.sync": {}, "store.stats": {}, "store.check": {}, "store.resolve_conflicts": {},
    "store.recover": {"all": True}, "store.compact": {"dry_run": True},
    "task_spec.ready": {}, "task_spec.claim": {"by": "me"},
    "task_spec.heartbeat": {}, "task_spec.complete": {}, "task_spec.fail": {}, "task_spec.release": {},
    "dependency.resolve": {"id": "d"}, "dependency.wait": {"id": "d", "timeout_ms": 0},
}
WITH_TOKEN = {"task_spec.heartbeat", "task_spec.complete", "task_spec.fail", "task_spec.release"}
ANSWERS: dict[str, set[str]] = {
    "record.create": {*KINDS["prd"].fields}, "record.get": {*KINDS["prd"].fields},
    "record.update": {*KINDS["prd"].fields, "base_at"}, "record.delete": {"id", "updated_at"},
    "record.list": {"items", "cursor"},
    "record.history": {"items", "lost"}, "record.restore": {*KINDS["prd"].fields, "base_at"}, "store.apply": set(),
    "store.sync": {"kinds", "parsed", "changed", "flushed", "took_ms"}, "store.stats": {"store", "repository", "kinds"},
    "store.check": {"problems", "left"}, "store.resolve_conflicts": {"conflicts", "logs", "left"},
    "store.recover": {"lines", "left"}, "store.compact": {"kinds", "lines", "bytes", "dry_run", "took_ms"},
    "task_spec.ready": {"items"},
    "task_spec.claim": {*KINDS["task_spec"].fields, "base_at", "token"},
    "task_spec.heartbeat": {"id", "by", "expires_at"},
    "task_spec.complete": {*KINDS["task_spec"].fields, "base_at", "unblocked"},
    "task_spec.fail": {*KINDS["task_spec"].fields, "base_at"},
    "task_spec.release": {*KINDS["task_spec"].fields, "base_at"},
    "dependency.resolve": {*KINDS["dependency"].fields, "updated_at", "base_at"},
    "dependency.wait": {*KINDS["dependency"].fields},
}
OF_TYPE: Fields = {"string": "x", "integer": 1, "boolean": True, "object": {"a": 1}, "array": [1]}
NOT_OF_TYPE: Fields = {
    "string": [1, True, None, ["x"], {"x": 1}], "integer": ["1", 1.5, True, [1]], "boolean": [1, 0, "true", []],
    "object": ["{}", [], 1, None], "array": [{}, "[]", 1, None],
}


def example(store: Store, name: str) -> Fields:
    held = fill(store)
    return {**EXAMPLES[name], **(held if name in WITH_TOKEN else {})}


def test_the_examples_are_of_all_methods() -> None:
    """There is an example of every method of the table, so that none goes untried."""
    assert EXAMPLES.keys() == ANSWERS.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_an_answer(store: Store, name: str) -> None:
    """Every method answers with the keys it should, and optional parameters may be null."""
    parameters = example(store, name)
    method = METHODS[name]
    optional = {one.name: None for one in method.parameters.values() if not one.required}
    answer = call(store, name, {**optional, **parameters})
    assert set(answer) == ANSWERS[name]
    assert method.summary.endswith(".")
    assert (method.request is None) != (method.function is None)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_refuses(store: Store, name: str) -> None:
    """A parameter that is unknown, missing or of another type is refused by its name, and nothing is written."""
    parameters = example(store, name)
    method = METHODS[name]
    logs = [Path(store.paths.file(kind.log)) for kind in KINDS.values()]
    before = [path.read_bytes() for path in logs]
    wrong: list[tuple[Fields, str, str]] = [
        ({**parameters, unknown: 1}, unknown, f"{name} has no parameter {unknown!r}") for unknown in ("nonsense", "")]
    for one in method.parameters.values():
        wrong += [({**parameters, one.name: value}, one.name, f"{one.name}: must be {one.type}")
                  for value in NOT_OF_TYPE[one.type] if value is not None or one.required]
        if one.required:
            without = {key: value for key, value in parameters.items() if key != one.name}
            wrong.append((without, one.name, f"{name} needs {one.name!r}"))
    for given, field, message in wrong:
        with pytest.raises(InvalidError) as caught:
            dispatch(store, name, given)
        assert (caught.value.field, caught.value.message) == (field, message), given
    assert [path.read_bytes() for path in logs] == before


@pytest.mark.parametrize(("name", "hint"), [
    ("record.creat", "record.create"), ("task_spec.compete", "task_spec.complete"), ("", ""), ("zzz", ""),
    ("__init__", ""),
])
def test_a_method_that_is_none(store: Store, name: str, hint: str) -> None:
    """A method that does not exist is refused, with the one that may have been meant."""
    with pytest.raises(InvalidError, match="there is no method") as caught:
        dispatch(store, name, {})
    assert caught.value.field == "method"
    assert hint in caught.value.hint
    assert bool(hint) == bool(caught.value.hint)


def test_what_writes_takes_an_op() -> None:
    """Whatever writes to a log takes an op, and nothing else does."""
    writes = {name for name, method in METHODS.items() if method.request is not None}
    takes = {name for name, method in METHODS.items() if "op" in method.parameters}
    assert takes == writes - {"task_spec.heartbeat"}
    assert {name for name, method in METHODS.items() if method.waits} == {"dependency.wait"}


def test_looking_up_leaves_nulls_out() -> None:
    """What is given as null is as if it were not given."""
    method, given = look_up("task_spec.claim", {"by": "me", "id": None, "op": None, "lease_ms": 5})
    assert (method.name, given) == ("task_spec.claim", {"by": "me", "lease_ms": 5})


@pytest.mark.parametrize("kind", ["prds", "", "PRD", "task_specs", "none"])
def test_a_kind_that_is_none(store: Store, kind: str) -> None:
    """A kind that does not exist is refused as that, by every method that takes one."""
    for name, method in METHODS.items():
        if "kind" in method.parameters:
            with pytest.raises(InvalidError) as caught:
                dispatch(store, name, {**EXAMPLES[name], "kind": kind})
            assert caught.value.field == "kind"
    with pytest.raises(InvalidError) as caught:
        dispatch(store, "store.apply", {"ops": [{"op": "delete", "kind": kind, "id": "x"}]})
    assert caught.value.field == "kind"


@pytest.mark.parametrize("alias", ["ts", "task-spec"])
def test_an_alias_of_a_kind(store: Store, alias: str) -> None:
    """A kind may be called by its other names."""
    made = call(store, "record.create", {"kind": alias, "record": {"prd_id": "p", "phase_name": "N"}})
    assert call(store, "record.get", {"kind": "task_spec", "id": made["id"]}) == made


def test_an_id_cannot_be_changed(store: Store) -> None:
    """An update whose `set` names another id is refused; the same id is no change."""
    fill(store)
    for name in ("record.update", "store.apply"):
        one: Fields = {"kind": "prd", "id": "p", "set": {"id": "q"}}
        with pytest.raises(InvalidError) as caught:
            dispatch(store, name, one if name == "record.update" else {"ops": [{"op": "update", **one}]})
        assert caught.value.field == "id"
    assert call(store, "record.update", {"kind": "prd", "id": "p", "set": {"id": "p", "z": 1}})["z"] == 1
    repo = {"repo_path": "/r", "last_synced_commit": "c"}
    call(store, "record.create", {"kind": "repo_state", "record": repo})
    assert call(store, "record.update", {"kind": "repo_state", "id": "/r", "set": {"z": 1}})["z"] == 1


# store.apply

GOOD: Fields = {"op": "create", "kind": "prd", "record": {"id": "n", "title": "T"}}
BAD: list[tuple[object, type[TaskStoreError], str | None]] = [
    (1, InvalidError, "ops"), (None, InvalidError, "ops"), ([], InvalidError, "ops"), ("create", InvalidError, "ops"),
    ({}, InvalidError, "ops"), ({**GOOD, "op": "burn"}, InvalidError, "ops"), ({**GOOD, "op": 5}, InvalidError, "ops"),
    ({**GOOD, "op": ["create"]}, InvalidError, "ops"), ({**GOOD, "op": None}, InvalidError, "ops"),
    ({**GOOD, "id": "x"}, InvalidError, "id"), ({**GOOD, "if_updated_at": 1}, InvalidError, "if_updated_at"),
    ({"op": "create", "record": {"title": "T"}}, InvalidError, "kind"), ({**GOOD, "kind": 5}, InvalidError, "kind"),
    ({**GOOD, "kind": "nope"}, InvalidError, "kind"), ({"op": "create", "kind": "prd"}, InvalidError, "record"),
    ({**GOOD, "record": {}}, InvalidError, "record"), ({**GOOD, "record": []}, InvalidError, "record"),
    ({**GOOD, "record": None}, InvalidError, "record"), ({**GOOD, "record": {"id": "x"}}, InvalidError, "title"),
    ({**GOOD, "record": {"id": "p", "title": "T"}}, ExistsError, None),
    ({"op": "update", "kind": "prd", "id": "p"}, InvalidError, "set"),
    ({"op": "update", "kind": "prd", "id": "p", "set": {}}, InvalidError, "set"),
    ({"op": "update", "kind": "prd", "id": "p", "record": {"z": 1}}, InvalidError, "record"),
    ({"op": "update", "kind": "prd", "set": {"z": 1}}, InvalidError, "id"),
    ({"op": "update", "kind": "prd", "id": 5, "set": {"z": 1}}, InvalidError, "id"),
    ({"op": "update", "kind": "prd", "id": "none", "set": {"z": 1}}, NotFoundError, None),
    ({"op": "update", "kind": "prd", "id": "p", "set": {"status": "nope"}}, InvalidError, "status"),
    ({"op": "update", "kind": "prd", "id": "p", "set": {"z": 1}, "if_updated_at": "1"}, InvalidError, "if_updated_at"),
    ({"op": "delete", "kind": "prd"}, InvalidError, "id"),
    ({"op": "delete", "kind": "prd", "id": []}, InvalidError, "id"),
    ({"op": "delete", "kind": "prd", "id": "p", "if_updated_at": True}, InvalidError, "if_updated_at"),
    ({"op": "restore", "kind": "prd", "id": "gone", "version": "1"}, InvalidError, "version"),
    ({"op": "restore", "kind": "prd", "id": "gone", "version": [1]}, InvalidError, "version"),
    ({"op": "import", "kind": "prd", "record": {"title": "T", "updated_at": 1}}, InvalidError, "id"),
]


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize(("bad", "error", "field"), BAD, ids=range(len(BAD)))
def test_an_operation_that_cannot_be(store: Store, place: int, bad: object, error: type[TaskStoreError],
                                     field: str | None) -> None:
    """What is wrong with one of the operations is told by its number and field, and none of them happens."""
    fill(store)
    before = Path(store.paths.file("prds.jsonl")).read_bytes()
    ops: list[object] = [GOOD, {**GOOD, "record": {"title": "T"}}]
    ops.insert(place, bad)
    with pytest.raises(error) as caught:
        dispatch(store, "store.apply", {"ops": ops})
    assert (caught.value.operation, caught.value.field) == (place, field)
    assert Path(store.paths.file("prds.jsonl")).read_bytes() == before


def test_every_operation(store: Store) -> None:
    """An apply answers for each operation: records, ids with versions for deletions, what imports changed."""
    fill(store)
    version = json.loads(store.get("prd", "p"))["updated_at"]
    made, changed, gone, back, imported, again = call(store, "store.apply", {"ops": [
        GOOD, {"op": "update", "kind": "prd", "id": "p", "set": {"z": 1}, "if_updated_at": version},
        {"op": "delete", "kind": "prd", "id": "n"}, {"op": "restore", "kind": "prd", "id": "gone"},
        *[{"op": "import", "kind": "prd", "record": {"id": "i", "title": "I", "updated_at": 7}}] * 2]})
    assert (made["id"], changed["z"], back["id"]) == ("n", 1, "gone")
    assert gone.keys() == {"id", "updated_at"}
    assert imported == {"id": "i", "updated_at": 7, "deleted": False, "changed": True}
    assert again == {**imported, "changed": False}
    with pytest.raises(NotFoundError):
        store.get("prd", "n")


# Plain data


@pytest.mark.parametrize("line", ['{"a":1}', '{"a":1} ', '{"a":"}"}', '{ "a": {"b": "}"} }', '{"a":"ü\\u0041"}'])
def test_keys_at_the_end_of_a_record(line: str) -> None:
    """What is added to a record stands at its end, and what the line says stays as it was written."""
    added = with_keys(line.strip(), token='t"ü', unblocked=["a"])  # noqa: S106 - a word
    assert json.loads(added) == {**json.loads(line), "token": 't"ü', "unblocked": ["a"]}
    assert added.startswith(line.strip()[:-1].rstrip())


@pytest.mark.parametrize("value", [None, True, 1, 1.5, 'ü\u2028"', [], {}, [Json('{"a":1}'), "x"], {"k": Json("[1]")},
                                   (1, [2, {"b": None}])], ids=repr)
def test_plain_data_as_text(value: object) -> None:
    """Plain data becomes JSON, and what is JSON already is handed on as it stands."""
    def plain(one: object) -> object:
        if isinstance(one, Json):
            return json.loads(one)
        if isinstance(one, dict):
            return {key: plain(item) for key, item in one.items()}
        return [plain(item) for item in one] if isinstance(one, list | tuple) else one

    assert json.loads(to_json(value)) == plain(value)
    with pytest.raises(ValueError, match="JSON"):
        to_json([value, float("nan")])
