"""The machine's rules for records: writes of every sort, also those that must be refused, and questions."""

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize
from tests.system.machine_base import Machine
from tests.system.machine_ground import KEYS, SHELL, clients, keys, kinds, resident, step
from tests.system.model import AHEAD_MS
from tests.system.model_log import Refused, started
from tests.system.model_writes import asked_for

from taskstore_core.clock import now_ms

STATUSES = {"prd": ["draft", "active", "cancelled"], "task_spec": ["pending", "pending", "running", "complete"],
            "execution": ["running", "paused", "complete", "failed"]}
TEXTS = {"prd": "title", "task_spec": "phase_name", "execution": "current_phase", "dependency": "payload",
         "workflow": "name"}
words = st.sampled_from(["one", "two", "three", "ünï ☃", 'a "quoted" \\ word', ""])
ops = st.sampled_from([None, None, None, "op-1", "op-2", "op-3"])


@st.composite
def changes(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Some fields of a kind with values that may be written."""
    fields: dict[str, Any] = {TEXTS[kind]: draw(words)}
    if kind in STATUSES and draw(st.booleans()):
        fields["status"] = draw(st.sampled_from(STATUSES[kind]))
    if kind == "task_spec" and draw(st.booleans()):
        fields["depends_on"] = draw(st.lists(keys, max_size=2, unique=True))
    if draw(st.integers(0, 3)) == 0:
        fields["x_field"] = draw(st.sampled_from([1, [1, {"two": None}], "three", None]))
    return fields


@st.composite
def records(draw: st.DrawFn, kind: str, *, partly: bool = False) -> dict[str, Any]:
    """A record that may be created, or one that lacks a field `partly`."""
    record = {"id": draw(keys), **draw(changes(kind))}
    needed = {"task_spec": ["prd_id"], "execution": ["ts_id"], "dependency": ["from_exec_id", "to_exec_id"]}
    for name in needed.get(kind, []):
        record[name] = draw(keys)
    if kind == "dependency":
        record["dependency_type"] = draw(st.sampled_from(["notify", "query", "share"]))
    if partly and draw(st.integers(0, 9)) == 0:
        record.pop({"prd": "title", "task_spec": "prd_id", "execution": "ts_id", "dependency": "to_exec_id",
                    "workflow": "name"}[kind])
    return record


@st.composite
def operations(draw: st.DrawFn, verbs: "tuple[str, ...]" = ("create", "update", "delete", "restore", "import"),
               ) -> dict[str, Any]:
    """One operation as `store.apply` takes it."""
    verb, kind = draw(st.sampled_from(verbs)), draw(kinds)
    if verb == "create":
        return {"op": verb, "kind": kind, "record": draw(records(kind))}
    if verb == "import":
        return {"op": verb, "kind": kind, "record": {**draw(records(kind)), **draw(stamps(kind))}}
    fields = {"set": draw(changes(kind))} if verb == "update" else {}
    return {"op": verb, "kind": kind, "id": draw(keys), **fields}


@st.composite
def stamps(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """The stamps of a line that comes from elsewhere: of long ago, or of a clock that runs ahead of ours."""
    began = draw(st.integers(1, 9))
    version = draw(st.sampled_from([10, 11, 4_000_000_000_000 + began]))
    status = {"status": draw(st.sampled_from(STATUSES[kind]))} if kind in STATUSES else {}
    return {started(kind): began, "updated_at": version, **status}


def _place(op: "dict[str, Any]") -> "tuple[str, str]":
    return op["kind"], op["record"]["id"]


class Records(Machine):
    """Writes and reads of records."""

    @initialize(who=resident, several=st.lists(operations(("create",)), min_size=6, max_size=12, unique_by=_place))
    def begin(self, who: str, several: "list[dict[str, Any]]") -> None:
        """Some records to begin with, and some of a clock that is far ahead of ours."""
        ahead = {"created_at": 1, "updated_at": 4_000_000_000_000}
        several = [*several, {"op": "import", "kind": "prd", "record": {"id": "ab", "title": "ahead", **ahead,
                                                                        "status": "draft"}},
                   {"op": "import", "kind": "task_spec", "record": {"id": "ab", "prd_id": "ab", "phase_name": "ahead",
                                                                    **ahead, "status": "pending"}}]
        self.write(who, "store.apply", several, ops=several)

    @step(who=clients, kind=kinds, data=st.data(), op=ops)
    def create(self, who: str, kind: str, data: st.DataObject, op: str | None) -> None:
        record = data.draw(records(kind, partly=True))
        self.once(who, "record.create", {"op": "create", "kind": kind, "record": record}, op, kind=kind, record=record)

    @step(who=clients, kind=kinds, key=keys, data=st.data(), op=ops,
          condition=st.sampled_from([None, None, "right", "wrong"]))
    def update(self, who: str, kind: str, key: str, data: st.DataObject,  # noqa: PLR0917 - what is drawn for it
               op: str | None, condition: str | None) -> None:
        key = self.likely(kind, key)
        if who == SHELL and self.model.known(kind, key) is None:
            who = "files one"  # a command takes the beginning of an id, which a method does not
        change, expected = data.draw(changes(kind)), self.condition(kind, key, condition)
        self.once(who, "record.update", {"op": "update", "kind": kind, "id": key, "set": change, **expected}, op,
                  kind=kind, id=key, set=change, **expected)

    @step(who=clients, kind=kinds, key=keys, op=ops, condition=st.sampled_from([None, None, "right", "wrong"]))
    def delete(self, who: str, kind: str, key: str, op: str | None, condition: str | None) -> None:
        key = self.likely(kind, key)
        expected = self.condition(kind, key, condition)
        self.once(who, "record.delete", {"op": "delete", "kind": kind, "id": key, **expected}, op, kind=kind, id=key,
                  **expected)

    @step(who=resident, kind=kinds, key=keys, data=st.data(), op=ops)
    def restore(self, who: str, kind: str, key: str, data: st.DataObject, op: str | None) -> None:
        there = [line.stamp for line in self.model.logs[kind].lines if line.key == key]
        version = data.draw(st.sampled_from([None, 5, *there]))
        wanted = {} if version is None else {"version": version}
        self.once(who, "record.restore", {"op": "restore", "kind": kind, "id": key, **wanted}, op, kind=kind, id=key,
                  **wanted)

    @step(who=resident, several=st.lists(operations(), min_size=2, max_size=4))
    def apply_several(self, who: str, several: "list[dict[str, Any]]") -> None:
        self.write(who, "store.apply", several, ops=several)

    @step(who=resident, several=st.lists(operations(("create", "update")), min_size=1, max_size=2),
          bad=st.sampled_from(["kind", "status", "id"]))
    def apply_with_a_bad_one(self, who: str, several: "list[dict[str, Any]]", bad: str) -> None:
        wrong = {"op": "create", "kind": "prd", "record": {"id": "bad", "title": "x"}}
        if bad == "id":
            wrong = {"op": "update", "kind": "prd", "id": "nobody's", "set": {"title": "x"}}
        else:
            (wrong if bad == "kind" else wrong["record"])[bad] = "nonsense"  # type: ignore[index]
        several = [*several, wrong, {"op": "create", "kind": "prd", "record": {"id": "after", "title": "x"}}]
        answer = self.call(who, "store.apply", ops=several)
        assert isinstance(answer, Refused)
        self.touched |= {(op["kind"], op.get("id") or op["record"]["id"]) for op in several if op is not wrong}

    @step(who=resident, kind=kinds, data=st.data())
    def bring_in(self, who: str, kind: str, data: st.DataObject) -> None:
        record = {**data.draw(records(kind)), **data.draw(stamps(kind))}
        one = {"op": "import", "kind": kind, "record": record}
        self.write(who, "store.apply", [one], ops=[one])

    @step(who=clients, kind=kinds, data=st.data())
    def ask(self, who: str, kind: str, data: st.DataObject) -> None:
        order = data.draw(st.sampled_from([None, started(kind), "-updated_at", TEXTS[kind], f"-{TEXTS[kind]}", "id"]))
        where: dict[str, Any] = data.draw(st.sampled_from([
            {}, {TEXTS[kind]: {"ne": "one"}}, {TEXTS[kind]: {"in": ["one", "two"]}}, {TEXTS[kind]: {"contains": "o"}},
            {"updated_at": {"ge": now_ms() - AHEAD_MS}}, {"x_field": {"eq": "three"}}, {"id": {"lt": "b"}}]))
        if who == SHELL:
            answer = self.call(who, "record.list", kind=kind, order=order)
            self.assert_lines(answer["items"], self.model.find(kind, None, order))
            return
        found, cursor = [], None
        while True:
            page = self.call(who, "record.list", kind=kind, where=where, order=order, limit=2, cursor=cursor)
            found += page["items"]
            cursor = page["cursor"]
            if cursor is None:
                break
            assert len(page["items"]) == 2
        self.assert_lines(found, self.model.find(kind, where, order))

    @step(who=clients, kind=kinds, key=st.sampled_from([*KEYS, "abc", "d"]))
    def get_by_prefix(self, who: str, kind: str, key: str) -> None:
        self.look_up(who, kind, key)

    def likely(self, kind: str, key: str) -> str:
        """A record that is there in most cases."""
        live = sorted(self.model.live(kind))
        return live[KEYS.index(key) % len(live)] if live and key != KEYS[-1] else key

    def condition(self, kind: str, key: str, wanted: str | None) -> "dict[str, Any]":
        """The version that a write is to find, which it will or will not."""
        known = self.model.known(kind, key)
        if wanted is None:
            return {}
        return {"if_updated_at": (known.stamp if known else 7) + (wanted == "wrong")}

    def once(self, who: str, method: str, one: "dict[str, Any]", op: str | None, **parameters: Any) -> None:
        """A write that happens once if it carries an `op`, as long as the line it wrote is in the log."""
        asked = asked_for(method, parameters)
        there = [] if op is None else self.model.of_op(op)
        if not there:
            answer = self.write(who, method, [one], op=op, **parameters)
            if op is not None and not isinstance(answer, Refused):
                self.model.asked[op, self.model.of_op(op)[0][1].says] = asked
            return
        assert op is not None
        answer = self.call(who, method, op=op, **parameters)
        if self.model.asked_with(op) != {asked}:
            self.refused(who, answer, Refused("invalid"))
        elif isinstance(answer, dict):
            assert answer in [{"id": line.key, "updated_at": line.stamp} for _, line in there if line.deleted]
        else:
            assert answer in [line.raw for _, line in there]

    @step(who=clients, op=st.sampled_from(["op-1", "op-2", "op-3"]))
    def send_again(self, who: str, op: str) -> None:
        known = [asked for (each, _), asked in self.model.asked.items() if each == op]
        if not known:
            return
        method, parameters = json.loads(known[-1])
        if not method.startswith("record.") or (who == SHELL and method == "record.restore"):
            return
        names = {"create": ("kind", "record"), "update": ("kind", "id", "set", "if_updated_at"),
                 "delete": ("kind", "id", "if_updated_at"), "restore": ("kind", "id", "version")}
        verb = method.partition(".")[2]
        one = {"op": verb, **{name: parameters[name] for name in names[verb] if name in parameters}}
        if who == SHELL and verb == "update" and self.model.known(one["kind"], one["id"]) is None:
            return
        self.once(who, method, one, op, **parameters)
