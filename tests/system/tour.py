"""A way through the machine's rules on which each hazard is met once, for runs too short to meet it by chance."""

from typing import Any

from tests.system.machine_ground import SHELL

_SPEC = {"prd_id": "a", "phase_name": "one", "status": "pending"}


def _create(kind: str, **record: Any) -> dict[str, Any]:
    return {"op": "create", "kind": kind, "record": record}


def _update(who: str, key: str, change: dict[str, Any], kind: str = "prd",
            condition: str | None = None) -> tuple[str, dict[str, Any]]:
    return "update", {"who": who, "kind": kind, "key": key, "condition": condition, "op": None, "data": [change]}


def _edit(when: str, *, deleted: bool = False, key: str = "a") -> tuple[str, dict[str, Any]]:
    record = {"id": key, "title": when}
    return "edit_log", {"kind": "prd", "when": when, "deleted": deleted, "end": "\n", "data": [record]}


def _claim(who: str, key: str | None = None, op: str | None = None, by: str = "ann") -> tuple[str, dict[str, Any]]:
    return "claim", {"who": who, "by": by, "key": key, "prd_id": None, "op": op}


def _end(who: str, outcome: str, number: int, wrong: str | None = None) -> tuple[str, dict[str, Any]]:
    """`number` counts the claims that were made, from the last."""
    return "end_claim", {"who": who, "outcome": outcome, "op": None, "data": [number, wrong]}


def _delete(who: str, key: str, kind: str = "prd") -> tuple[str, dict[str, Any]]:
    return "delete", {"who": who, "kind": kind, "key": key, "op": None, "condition": None}


def _restore(who: str, key: str) -> tuple[str, dict[str, Any]]:
    return "restore", {"who": who, "kind": "prd", "key": key, "op": None, "data": [None]}


_COMMIT: tuple[str, dict[str, Any]] = ("commit", {"data": [True]})

RECORDS = [
    _update("files two", "ab", {"title": "of a clock ahead"}),
    _update("daemon two", "ab", {"title": "once more"}, condition="right"),
    _update("files one", "a", {"title": "refused"}, condition="wrong"),
    ("create", {"who": "daemon one", "kind": "prd", "op": None, "data": [{"id": "a", "title": "taken"}]}),
    _edit("now"), _update("daemon one", "a", {"title": "with fields of others"}), _edit("tie"), _edit("earlier"),
    ("tear_line", {"kind": "prd", "text": '{"id":"a","x":[1,'}), _update("files one", "a", {"title": "after it"}),
    ("write_garbage", {"kind": "prd", "text": "[1]"}),
    ("create", {"who": SHELL, "kind": "prd", "op": "op-1", "data": [{"id": "c", "title": "once"}]}),
    ("send_again", {"who": "daemon one", "op": "op-1"}), ("kill_daemon", {"again": False}),
    ("send_again", {"who": "files one", "op": "op-1"}),
    ("apply_with_a_bad_one", {"who": "files two", "bad": "id", "several": [_create("prd", id="b", title="x")]}),
    _delete("daemon two", "c"), ("lose_cache", {}), _restore("files one", "c"),
    ("compact", {"who": "files one", "keep": 1}), ("clean_log", {"kind": "prd"}), _COMMIT,
]
WORK = [
    _claim("files one", "b"), _claim("daemon one", op="take-1"), _claim("files two", op="take-1"),
    _end("daemon two", "complete", 1, "token"), _end("files one", "complete", 1, "by"),
    _end("files two", "complete", 1),
    _claim("daemon two", "a"), _update("files one", "a", {"phase_name": "set aside", "status": "pending"}, "task_spec"),
    _end("files two", "complete", 1), _claim("files one", "a", by="bob"), _end("daemon one", "complete", 1),
    _claim("files two", "b"), _end(SHELL, "release", 1),
    ("claim_for_a_moment", {"who": "daemon one", "by": "bob", "op": None}), _claim("files two", by="ann"),
    ("resolve_dependency", {"who": "daemon two", "key": "a", "payload": "here"}),
]
GIT = [
    ("begin_git", {}), _update("daemon one", "a", {"title": "waits"}), _update("files one", "ab", {"title": "waits"}),
    _delete("files two", "c"), _update("daemon two", "a", {"title": "waits too"}), ("end_git", {}),
    ("sync", {"who": "files two", "full": False}), ("stash", {}), ("sync", {"who": "daemon two", "full": False}),
    _update("files one", "ab", {"title": "beside a stash"}), _COMMIT, ("pop_stash", {}), _COMMIT,
    ("checkout", {}), ("merge", {}), _delete("files two", "a"),
    _COMMIT, ("checkout", {}), _update("daemon one", "a", {"title": "after it was deleted"}), ("merge", {}),
    ("checkout", {}), ("merge", {}), _update("files two", "b", {"title": "below"}), _COMMIT,
    ("checkout", {}), _update("daemon two", "b", {"title": "to be rebased"}), _COMMIT, ("rebase", {}),
    ("checkout", {}), ("merge", {}), _update("files one", "ab", {"title": "one stamp"}), _COMMIT,
    ("checkout", {}), _update("files one", "ab", {"title": "the same stamp"}), ("merge", {}),
    ("open_in_worktree", {"name": "files one"}),
    ("rewrite_log", {"kind": "prd", "in_place": False}), _update("files one", "ab", {"title": "thrown away"}),
    ("reset", {"back": 0}), ("reset", {"back": 1}), ("reset_at_once", {"who": "daemon one", "title": "x"}),
    ("sync", {"who": "files one", "full": True}),
]
BEGIN = [_create("prd", id="a", title="one"), _create("prd", id="b", title="two"),
         _create("task_spec", id="a", **_SPEC),
         _create("task_spec", id="b", **_SPEC, depends_on=["a"]), _create("execution", id="a", ts_id="a"),
         _create("dependency", id="a", from_exec_id="a", to_exec_id="a", dependency_type="query")]
