"""Writes, held to the model with their answers; and what is held to it after each step, whatever the step was."""

import os
import time
from typing import Any

from hypothesis.stateful import invariant
from tests.system.machine_ground import CLIENTS, KINDS, Ground
from tests.system.model_log import FIELDS, Line, Refused, canonical, line_of, parsed, version_of
from tests.system.model_writes import apply

from taskstore_core.clock import now_ms

WAIT_S = 30
"""Lines that have waited for longer than this are told of."""


class Machine(Ground):
    """A store and its model. What may be done to it stands in the classes made from this one."""

    # Writes

    def write(self, who: str, method: str, made_of: "list[dict[str, Any]]", **parameters: Any) -> Any:
        """Make a write that is none but these operations, and hold it and its answer to the model."""
        before = now_ms()
        expected: Refused | None = None
        try:
            apply(self.model.copy(), made_of, before)
        except Refused as refused:
            expected = refused
        answer = self.call(who, method, **parameters)
        if expected is not None:
            self.refused(who, answer, expected)
            return answer
        assert not isinstance(answer, Refused), answer.kind
        self.take_in(made_of, answer if method == "store.apply" else [answer], before, parameters.get("op"))
        return answer

    def take_in(self, ops: "list[dict[str, Any]]", answers: "list[Any]", before: int, op: str | None) -> None:
        """Have the model do what was answered, where it is what it may be."""
        told = [line_of(one) if isinstance(one, str) else None for one in answers]
        stamps = [line.stamp if line is not None else one["updated_at"]
                  for line, one in zip(told, answers, strict=True)]
        model = self.model.copy()
        lines = apply(model, ops, before, stamps)
        after, scratch = now_ms(), self.model.copy()
        for number, (one, line, said) in enumerate(zip(ops, lines, told, strict=True)):
            known = scratch.known(one["kind"], line.key)
            self.touched.add((one["kind"], line.key))
            if one["op"] == "import":
                is_news = known is None or known.stamp < version_of(one["record"])
                assert answers[number] == {"id": line.key, "updated_at": line.stamp, "deleted": line.deleted,
                                           "changed": is_news}
                if not is_news:
                    continue
            else:
                self.assert_stamp(line, known, before, after)
            if said is not None:
                assert said.says == line.says, (said.says, line.says)
                self.assert_order(one["kind"], said)
                line.record, line.raw = said.record, said.raw
            elif op is not None:
                line.record = {**line.record, "op": op, "op_sum": f".{number}"}
            scratch.logs[one["kind"]].append(line)
        self.model = model

    @staticmethod
    def assert_order(kind: str, line: Line) -> None:
        """The fields of a kind stand in their order, and what nobody knows behind them."""
        order = FIELDS[kind].split()
        assert list(line.record) == sorted(line.record, key=lambda name: (order.index(name) if name in order else 99))

    @staticmethod
    def assert_stamp(line: Line, known: Line | None, before: int, after: int) -> None:
        """A stamp is the time, but never older than what it follows."""
        assert known is None or line.stamp > known.stamp
        assert before <= line.stamp <= after or (known is not None and line.stamp == known.stamp + 1)

    # What holds after each step

    @invariant()
    def state_is_the_model(self) -> None:
        """Through every client, whatever is open."""
        self.since_git += 1
        if self.is_locked:
            os.utime(self.git.lock)  # git is at work yet
            assert self.files() == self.left_alone
        for who in CLIENTS:
            for kind in KINDS:
                self.assert_lines(self.call(who, "record.list", kind=kind)["items"], self.model.find(kind))
        self.model.notice()
        self.assert_touched(self.next())
        self.assert_check(self.next())
        for who in CLIENTS:
            self.assert_lines(self.call(who, "task_spec.ready")["items"], self.model.ready())

    def assert_lines(self, texts: "list[str]", lines: "list[Line]") -> None:
        """What was answered are these lines, to the byte where their bytes are known."""
        said, expected = [canonical(parsed(text)) for text in texts], [line.says for line in lines]
        assert said == expected, (said, expected)
        for text, line in zip(texts, lines, strict=True):
            assert line.raw in {text, None}, (text, line.raw)

    def assert_touched(self, who: str) -> None:
        """What the step was about: its versions, and that what is deleted is not found."""
        for kind, key in self.touched:
            self.look_up(who, kind, key)
            answer = self.call(who, "record.history", kind=kind, id=key)
            if any(line.key == key for line in self.model.logs[kind].lines):
                self.assert_lines(answer["items"], self.model.history(kind, key))
            else:
                self.refused(who, answer, Refused("not_found"))
        self.touched.clear()

    def look_up(self, who: str, kind: str, key: str) -> None:
        answer = self.call(who, "record.get", kind=kind, id=key)
        try:
            expected = self.model.get(kind, key)
        except Refused as refused:
            self.refused(who, answer, refused)
        else:
            assert not isinstance(answer, Refused), answer.kind
            self.assert_lines([answer], [expected])

    def assert_check(self, who: str) -> None:
        """`check` finds what the model knows of, and nothing else that is wrong."""
        problems = self.call(who, "store.check")["problems"]
        wrong = {one["problem"] for one in problems if one["severity"] != "note"}
        expected = self.model.problems(now_ms())
        either = {"bad_line"} if any(log.closing for log in self.model.logs.values()) else set()
        if self.locked_at is not None and time.monotonic() - self.locked_at > WAIT_S:
            either.add("pending_lines")  # if any was written right after git began
        assert wrong - either == expected - either, (problems, expected)
        notes = {one["problem"] for one in problems if one["severity"] == "note"}
        assert notes <= {"orphan", "lock_held", *(["lost_lines"] if self.was_thrown else [])}, problems

    def teardown(self) -> None:
        """In the end the files are the model's, and the cache that everybody used is what a fresh one would be."""
        with self.close:
            if self.is_locked:
                self.git.lock.unlink(missing_ok=True)
            self.settle()
            self.end_daemon()
            with self.site.open() as store:
                store.sync()
            before = self.site.rows()
            self.site.lose_cache()
            with self.site.open() as store:
                store.sync()
                assert store.flush(0)
            assert self.site.rows() == before
