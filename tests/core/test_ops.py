"""`op`, the caller's id for a write: sent again within a day, the write does not happen again, whoever asks whom."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskstore_core import frames
from taskstore_core.batch import Batch, Operation
from taskstore_core.cache import MEMORY_MS
from taskstore_core.errors import ConflictError, ExistsError, InvalidError, NotFoundError, TaskStoreError
from taskstore_core.jsonl import MAX_READ_DEPTH
from taskstore_core.kinds import KINDS
from taskstore_core.methods import dispatch, look_up
from taskstore_core.plain import to_json
from taskstore_core.request import Outcome
from taskstore_core.store import Store

Fields = dict[str, Any]
PRD = KINDS["prd"]


def call(store: Store, method: str, **parameters: object) -> Any:
    """The answer of a method as a client gets it."""
    return json.loads(to_json(dispatch(store, method, parameters)))


def attempt(store: Store, method: str, **parameters: object) -> Any:
    """The answer of a method, or its error."""
    try:
        return call(store, method, **parameters)
    except TaskStoreError as error:
        return error


def scene(store: Store) -> Fields:
    """What there is before a write is sent twice; the parameters that only now are known."""
    call(store, "store.apply", ops=[
        {"op": "create", "kind": "prd", "record": {"id": "p", "title": "P", "z": 1}},
        {"op": "create", "kind": "prd", "record": {"id": "gone", "title": "G"}},
        {"op": "delete", "kind": "prd", "id": "gone"},
        *({"op": "create", "kind": "task_spec",
           "record": {"id": key, "prd_id": "p", "phase_name": "N", "depends_on": needs}}
          for key, needs in {"a": [], "b": ["a"]}.items()),
        {"op": "create", "kind": "dependency", "record": {
            "id": "d", "from_exec_id": "e", "to_exec_id": "f", "dependency_type": "notify"}}])
    held = {"id": "a", "by": "me", "token": call(store, "task_spec.claim", by="me", id="a")["token"]}
    version = json.loads(store.get("prd", "p"))["updated_at"]
    return {"held": held, "version": version}


Make = Callable[[Fields], Fields]
WRITES: dict[str, tuple[str, Make, Make]] = {
    "create": ("record.create", lambda _: {"kind": "prd", "record": {"id": "n", "title": "T", "y": [1]}},
               lambda _: {"kind": "prd", "record": {"id": "n", "title": "T", "y": [2]}}),
    "create without an id": ("record.create", lambda _: {"kind": "prd", "record": {"title": "T"}},
                             lambda _: {"kind": "workflow", "record": {"name": "T"}}),
    "update": ("record.update", lambda _: {"kind": "prd", "id": "p", "set": {"title": "U", "z": 2}},
               lambda _: {"kind": "prd", "id": "p", "set": {"title": "U"}}),
    "update of a version": (
        "record.update", lambda it: {"kind": "prd", "id": "p", "set": {"z": 2}, "if_updated_at": it["version"]},
        lambda _: {"kind": "prd", "id": "p", "set": {"z": 2}}),
    "delete": ("record.delete", lambda _: {"kind": "prd", "id": "p"}, lambda _: {"kind": "prd", "id": "gone"}),
    "restore": ("record.restore", lambda _: {"kind": "prd", "id": "gone"},
                lambda it: {"kind": "prd", "id": "p", "version": it["version"]}),
    "apply": ("store.apply", lambda _: {"ops": [
        {"op": "create", "kind": "prd", "record": {"id": "n", "title": "T"}},
        {"op": "update", "kind": "prd", "id": "n", "set": {"title": "U"}},
        {"op": "create", "kind": "workflow", "record": {"name": "N"}},
        {"op": "delete", "kind": "prd", "id": "p"},
        {"op": "restore", "kind": "prd", "id": "gone"}]},
        lambda _: {"ops": [{"op": "create", "kind": "prd", "record": {"id": "n", "title": "T"}}]}),
    "complete": ("task_spec.complete", lambda it: it["held"], lambda it: {**it["held"], "by": "you"}),
    "fail": ("task_spec.fail", lambda it: it["held"], lambda it: {**it["held"], "id": "b"}),
    "release": ("task_spec.release", lambda it: it["held"], lambda it: {**it["held"], "token": "another"}),
    "resolve": ("dependency.resolve", lambda _: {"id": "d", "payload": "here"}, lambda _: {"id": "d"}),
}


def written(store: Store) -> tuple[dict[str, bytes], list[object]]:
    """The bytes of every log, and the frames of the outbox that carry lines."""
    with open(store.paths.local("outbox"), "rb") as file:
        sealed = [frame for _, _, frame in frames.scan(file.read(), 0) if frame and "seq" in frame]
    return {kind.log: Path(store.paths.file(kind.log)).read_bytes() for kind in KINDS.values()}, list(sealed)


def lose_cache(store: Store) -> None:
    store.close()
    for suffix in ("", "-wal", "-shm"):
        Path(store.paths.file(f"store.db{suffix}")).unlink(missing_ok=True)


BETWEEN: dict[str, Callable[[Store], object]] = {
    "at once": lambda _: None, "after reopening": Store.close, "without a cache": lose_cache,
    "after a rebuild": lambda store: store.sync(full=True),
    "after a day": lambda _: None,
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("name", WRITES)
def test_a_repetition_gets_the_first_answer_and_writes_nothing(store: Store, other: Store, clocks: Any, name: str,
                                                               between: str) -> None:
    """Whatever was written with an op: sent again, it is answered as it was and leaves every log as it is."""
    it = scene(store)
    method, make, _ = WRITES[name]
    first = call(store, method, op="once", **make(it))
    before = written(store)
    if between == "after a day":
        clocks.go_on(MEMORY_MS - 60_000)
    BETWEEN[between](store)
    for opened in (store, other, store):
        assert call(opened, method, op="once", **make(it)) == first
    assert written(store) == before


@pytest.mark.parametrize("name", WRITES)
def test_another_write_with_the_same_op_is_refused(store: Store, other: Store, name: str) -> None:
    """An op belongs to one write: another one with it is told so, by the field, and writes nothing."""
    it = scene(store)
    method, make, differently = WRITES[name]
    call(store, method, op="once", **make(it))
    before = written(store)
    for opened in (store, other):
        for attempt in ((method, differently(it)), ("record.create", {"kind": "prd", "record": {"title": "else"}})):
            with pytest.raises(InvalidError, match="another write") as caught:
                call(opened, attempt[0], op="once", **attempt[1])
            assert caught.value.field == "op"
    assert written(store) == before


@pytest.mark.parametrize("name", WRITES)
def test_a_repetition_in_the_same_group(store: Store, name: str) -> None:
    """A write that stands twice in one group happens once, and another with its op in that group is refused."""
    it = scene(store)
    method, make, differently = WRITES[name]
    count = sum(map(len, written(store)[0].values()))

    def request(parameters: Fields) -> Any:
        found, given = look_up(method, {**parameters, "op": "once"})
        assert found.request is not None
        return found.request(**given)

    first, again, refused = store.commit([request(make(it)), request(make(it)), request(differently(it))])
    assert isinstance(first, Outcome)
    assert isinstance(again, Outcome)
    assert to_json(first.result) == to_json(again.result)
    assert [one.raw for one in again.written if one.changed] == []
    assert isinstance(refused, InvalidError)
    assert refused.field == "op"
    lines = [one.raw for one in first.written if one.changed]
    assert sum(map(len, written(store)[0].values())) == count + sum(len(line.encode()) + 1 for line in lines)


def test_other_processes_know_an_op(store: Store) -> None:
    """A process that was started after a write with an op knows it for a repetition."""
    it = scene(store)
    firsts = {}
    for name, (method, make, _) in WRITES.items():
        if name in {"create", "create without an id", "complete", "resolve", "restore"}:
            firsts[name] = call(store, method, op=f"op {name}", **make(it))
    before = written(store)
    code = """
        import json, sys
        from taskstore_core.methods import dispatch
        from taskstore_core.plain import to_json
        from taskstore_core.store import Store
        with Store.open(directory=sys.argv[1]) as store:
            print(to_json({name: dispatch(store, method, parameters)
                           for name, (method, parameters) in json.loads(sys.argv[2]).items()}))
    """
    calls = {name: (WRITES[name][0], {**WRITES[name][1](it), "op": f"op {name}"}) for name in firsts}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), store.paths.directory, json.dumps(calls)],
                          capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == firsts
    assert written(store) == before


# How long, and how far


def test_after_a_day_an_op_is_forgotten(store: Store, clocks: Any) -> None:
    """A day later an op stands for whatever write it is sent with."""
    call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once")
    clocks.go_on(MEMORY_MS + 1)
    with pytest.raises(ExistsError):
        call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once")
    changed = call(store, "record.update", kind="prd", id="x", set={"title": "U"}, op="once")
    assert changed["title"] == "U"
    assert call(store, "record.update", kind="prd", id="x", set={"title": "U"}, op="once") == changed


def test_a_rebuild_after_a_day_does_not_know_an_op_either(store: Store, clocks: Any) -> None:
    """What an op meant more than a day ago is not read from the log again."""
    call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once")
    clocks.go_on(MEMORY_MS + 1)
    store.sync(full=True)
    assert store.ask(lambda cache: cache.op_lines("once")) == []
    call(store, "record.delete", kind="prd", id="x", op="once")


def test_a_write_that_failed_is_not_remembered(store: Store) -> None:
    """A write that was refused may be sent again with its op, and then happens."""
    for _ in range(2):
        with pytest.raises(NotFoundError):
            call(store, "record.update", kind="prd", id="x", set={"title": "U"}, op="once")
    call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="other")
    assert call(store, "record.update", kind="prd", id="x", set={"title": "U"}, op="once")["title"] == "U"


def test_an_op_belongs_to_its_line_alone(store: Store) -> None:
    """No later version of a record carries the op of an earlier one, whatever made it."""
    call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="first")
    for method, parameters in (
        ("record.update", {"set": {"title": "U"}}), ("record.delete", {}), ("record.restore", {}),
    ):
        call(store, method, kind="prd", id="x", **parameters)
    call(store, "record.create", kind="task_spec", record={"id": "s", "prd_id": "x", "phase_name": "N"}, op="second")
    token = call(store, "task_spec.claim", by="me")["token"]
    call(store, "task_spec.release", id="s", by="me", token=token)
    for kind, key, op in (("prd", "x", "first"), ("task_spec", "s", "second")):
        lines = [json.loads(line) for line in store.history(kind, key)]
        assert [line.get("op") for line in lines] == [op, *[None] * (len(lines) - 1)]
        assert ["op_sum" in line for line in lines] == [True, *[False] * (len(lines) - 1)]


def test_an_import_brings_no_op(store: Store) -> None:
    """An imported line loses the op it had elsewhere, and with an op of its own an import is simply repeated."""
    record = {"id": "x", "title": "T", "updated_at": 5, "op": "theirs", "op_sum": "abc", "z": 1}
    for _ in range(2):
        call(store, "store.apply", ops=[{"op": "import", "kind": "prd", "record": record}], op="mine")
    assert [json.loads(line) for line in store.history("prd", "x")] == [
        {"id": "x", "title": "T", "updated_at": 5, "z": 1}]
    assert call(store, "record.update", kind="prd", id="x", set={"z": 2}, op="theirs")["z"] == 2


def test_an_apply_with_imports_is_repeated(store: Store) -> None:
    """Of an apply that is sent again, what was written is answered as it was, and an import finds itself there."""
    ops = [{"op": "import", "kind": "prd", "record": {"id": "i", "title": "I", "updated_at": 7}},
           {"op": "create", "kind": "prd", "record": {"title": "T"}}]
    imported, made = call(store, "store.apply", ops=ops, op="once")
    assert imported == {"id": "i", "updated_at": 7, "deleted": False, "changed": True}
    before = written(store)
    assert call(store, "store.apply", ops=ops, op="once") == [{**imported, "changed": False}, made]
    assert written(store) == before


@pytest.mark.parametrize("name", ["op", "op_sum"])
def test_an_op_is_no_field(store: Store, name: str) -> None:
    """An op is given beside a record, not in it."""
    call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="mine")
    for method, parameters in (
        ("record.create", {"record": {"title": "T", name: "x"}}), ("record.update", {"id": "x", "set": {name: "x"}}),
    ):
        with pytest.raises(InvalidError) as caught:
            call(store, method, kind="prd", **parameters)
        assert caught.value.field == name


@pytest.mark.parametrize("op", ["", "x" * 257, "a\nb", "\x00", "\x7f", "\x9f", "\ud800"], ids=ascii)
def test_ops_that_are_none(store: Store, op: str) -> None:
    """What cannot be an op is refused by the field, by everything that writes, and nothing is written."""
    it = scene(store)
    before = written(store)
    for method, make, _ in WRITES.values():
        with pytest.raises(InvalidError) as caught:
            call(store, method, op=op, **make(it))
        assert caught.value.field == "op"
    with pytest.raises(InvalidError) as caught:
        call(store, "task_spec.claim", by="me", op=op)
    assert caught.value.field == "op"
    assert written(store) == before


@pytest.mark.parametrize("op", ["x" * 256, "ü ✓ 'quoted\"", "%", " ", "op"])
def test_ops_of_any_sort(store: Store, op: str) -> None:
    """Any short text is an op, also after a rebuild."""
    made = call(store, "record.create", kind="prd", record={"title": "T"}, op=op)
    store.sync(full=True)
    assert call(store, "record.create", kind="prd", record={"title": "T"}, op=op) == made


def _circular() -> object:
    one: list[object] = []
    one.append(one)
    return one


def _deep() -> object:
    value: object = 1
    for _ in range(5000):
        value = [value]
    return value


@pytest.mark.parametrize("value", [_deep(), _circular(), {1: 2, "a": 3}, float("nan"), {1, 2}, object()],
                         ids=["deep", "circular", "keys", "nan", "set", "object"])
def test_what_is_no_json_is_refused_with_an_op_too(store: Store, value: object) -> None:
    """A value that cannot be written is refused by its field, op or no op, and does not stop its group."""
    for op in (None, "once"):
        bad = Batch([Operation("create", PRD, {"id": "x", "title": "T", "z": value})], op)
        refused, made = store.commit([bad, Batch([Operation("create", PRD, {"title": "T"})])])
        assert isinstance(refused, InvalidError)
        assert refused.field == "z"
        assert isinstance(made, Outcome)


# Logs that others rewrite


def rewrite(store: Store, log: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Put another file in the place of a log, as git does."""
    path = Path(store.paths.file(log))
    lines = change(path.read_bytes().splitlines(keepends=True))
    path.with_suffix(".new").write_bytes(b"".join(lines))
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("kept", [0, 3, 2000], ids=["rebuilt", "few lines", "many lines"])
def test_an_op_whose_line_is_gone_is_unknown(store: Store, other: Store, kept: int) -> None:
    """When git takes the line of a write away, its op is free again: the write, sent once more, happens."""
    store.apply([Operation("create", PRD, {"title": f"T{n}", "z": "z" * 100}) for n in range(kept)])
    other.find("prd")
    made = call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once")
    stays = call(store, "record.create", kind="prd", record={"id": "y", "title": "T"}, op="stays")
    rewrite(store, PRD.log, lambda lines: [line for line in lines if b'"id":"x"' not in line])
    for opened in (store, other):
        assert [line.id for line in opened.ask(lambda cache: cache.op_lines("once"))] == []
        assert call(opened, "record.create", kind="prd", record={"id": "y", "title": "T"}, op="stays") == stays
    again = call(other, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once")
    assert again["updated_at"] >= made["updated_at"]
    assert len(store.history("prd", "x")) == 1


def test_a_log_that_is_another_altogether(store: Store) -> None:
    """When git puts quite another log in the place of one, so that it is read anew, only the ops of that are known."""
    store.apply([Operation("create", PRD, {"title": f"T{n}"}) for n in range(200)])
    call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once")
    rewrite(store, PRD.log, lambda _: [b'{"id":"p%d","title":"T","updated_at":1}\n' % n for n in range(200)])
    assert store.sync()["prd"].mode == "rebuilt"
    assert store.ask(lambda cache: cache.op_lines("once")) == []
    call(store, "record.update", kind="prd", id="p7", set={"z": 1}, op="once")


def test_an_op_that_comes_back_with_its_line(store: Store) -> None:
    """A branch that is checked out again brings back the ops of its lines."""
    made = call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once")
    log = Path(store.paths.file(PRD.log)).read_bytes()
    rewrite(store, PRD.log, lambda _: [])
    assert store.find("prd") == ([], None)
    rewrite(store, PRD.log, lambda _: [log])
    assert call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once") == made


def test_a_change_of_other_lines_keeps_an_op(store: Store) -> None:
    """Lines edited around it, also later versions of the same record, leave an op known."""
    store.apply([Operation("create", PRD, {"id": f"p{n}", "title": "T"}) for n in range(200)])
    made = call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once")
    call(store, "record.update", kind="prd", id="x", set={"title": "U"})
    rewrite(store, PRD.log, lambda lines: [line.replace(b'"title":"U"', b'"title":"V"').replace(b'"p7"', b'"q7"')
                                           for line in lines])
    assert json.loads(store.get("prd", "x"))["title"] == "V"
    assert call(store, "record.create", kind="prd", record={"id": "x", "title": "T"}, op="once") == made


def test_a_part_of_what_an_op_wrote(store: Store) -> None:
    """An apply of which git took a part away is neither repeated nor taken for done: it is a conflict."""
    ops = [{"op": "create", "kind": "prd", "record": {"id": "x", "title": "T"}},
           {"op": "create", "kind": "workflow", "record": {"id": "w", "name": "N"}}]
    call(store, "store.apply", ops=ops, op="once")
    rewrite(store, "workflows.jsonl", lambda _: [])
    before = written(store)
    with pytest.raises(ConflictError, match="only a part") as caught:
        call(store, "store.apply", ops=ops, op="once")
    assert caught.value.hint
    assert written(store) == before


STRANGE = [
    '"op":"once"', '"op":"once","op_sum":5', '"op":"once","op_sum":"abc.%s"' % ("9" * 5000), '"op":"once","op_sum":[]',
    '"op":"once","op_sum":"abc.x.y"', '"op":"once","n":%s' % ("9" * 5000), '"op":"once","n":1e400',
    f'"op":"once","n":{"[" * (MAX_READ_DEPTH - 1)}{"]" * (MAX_READ_DEPTH - 1)}', '"op":"once","op":"once"',
]
UNOPENED = ['"op":5', '"op":null', '"op":["once"]', '"op":""', '"op":"\\u0000"', '"op":{"op":"once"}',
            '"x":{"op":"once"}']


@pytest.mark.parametrize("size", [0, 300_000], ids=["one by one", "in bulk"])
@pytest.mark.parametrize("fields", [*STRANGE, *UNOPENED], ids=lambda fields: str(fields)[:30])
def test_ops_that_others_wrote(store: Store, fields: str, size: int) -> None:
    """Whatever stands as an op in somebody's line, it is a record, and its op at most that of another write."""
    now = call(store, "record.create", kind="prd", record={"id": "now", "title": "T"})["updated_at"]
    with open(store.paths.file(PRD.log), "a", encoding="utf-8") as file:
        file.write(f'{{"id":"x","title":"T","content":"{"c" * size}","updated_at":{now},{fields}}}\n')
    assert json.loads(store.get("prd", "x"), parse_int=str)["title"] == "T"
    for _ in range(2):
        answer = attempt(store, "record.update", kind="prd", id="now", set={"z": 1}, op="once")
        assert (getattr(answer, "field", None) == "op") == (fields in STRANGE)
        store.sync(full=True)


# In any order

STEPS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["create", "update", "delete", "rebuild", "reopen"]),
                           st.sampled_from("ab"), st.integers(0, 3)), max_size=20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_order_of_writes_and_repetitions(empty: str, tmp_path_factory: pytest.TempPathFactory,
                                             steps: list[tuple[int, str, str, int]]) -> None:
    """Two stores that send writes and repetitions in any order do each write once, as a dictionary says."""
    directory = os.fspath(shutil.copytree(empty, tmp_path_factory.mktemp("model") / ".taskstore"))
    stores = [Store.open(directory=directory) for _ in range(2)]
    model: dict[str, int] = {}
    done: dict[str, tuple[tuple[str, str, int], Any]] = {}
    lines = 0
    try:
        for which, verb, key, value in steps:
            if verb == "reopen":
                stores[which].close()
            elif verb == "rebuild":
                stores[which].sync(full=True)
            else:
                op, write = f"op{value}", (verb, key, value)
                answer = _send(stores[which], verb, key, value, op)
                if op in done:
                    assert done[op] == (write, answer) or (done[op][0] != write and isinstance(answer, InvalidError))
                    continue
                assert isinstance(answer, TaskStoreError) == ((verb == "create") == (key in model))
                if isinstance(answer, TaskStoreError):
                    continue
                done[op] = (write, answer)
                lines += 1
                model = {**model, key: value} if verb != "delete" else {k: v for k, v in model.items() if k != key}
        found = {record["id"]: record["z"] for record in map(json.loads, stores[0].find("prd")[0])}
        assert found == model
        assert Path(stores[0].paths.file(PRD.log)).read_bytes().count(b"\n") == lines
    finally:
        for opened in stores:
            opened.close()


def _send(store: Store, verb: str, key: str, value: int, op: str) -> Any:
    match verb:
        case "create":
            return attempt(store, "record.create", kind="prd", record={"id": key, "title": "T", "z": value}, op=op)
        case "update":
            return attempt(store, "record.update", kind="prd", id=key, set={"z": value}, op=op)
    return attempt(store, "record.delete", kind="prd", id=key, op=op)
