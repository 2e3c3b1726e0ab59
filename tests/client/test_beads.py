"""The converter for beads logs: each rule as a table, then a real log, read anew without the converter."""

import json
import os
import re
from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from taskstore.beads import Conversion, convert, parse_time

Line = dict[str, Any]
Real = tuple[bytes, dict[str, Line], Conversion]

T1 = "2025-11-02T22:23:49.475356-08:00"
T1_MS = 1762151029475
T2 = "2025-11-03T10:00:00Z"
T2_MS = 1762164000000

PRD_KEYS = ["id", "title", "description", "created_at", "updated_at", "status", "review_passes", "content"]
SPEC_KEYS = ["id", "prd_id", "phase_name", "description", "created_at", "updated_at", "status",
             "workflow_name", "assigned_to", "content"]
PRD_WORDS = {"draft", "ready", "active", "complete", "cancelled"}
SPEC_WORDS = {"pending", "running", "complete", "failed"}
REAL_LOG = os.path.join(os.path.dirname(__file__), "..", "..", "..", "shared", "data", "beads-issues.jsonl")


def issue(
    key: str, issue_type: object = "task", status: object = "open", *edges: tuple[str, str], **fields: object,
) -> Line:
    """A beads record; each edge is (type, target)."""
    record: Line = {"id": key, "title": f"T {key}", "status": status, "priority": 1, "issue_type": issue_type,
              "created_at": T1, "updated_at": T2, **fields}
    if edges:
        record["dependencies"] = [{"issue_id": key, "depends_on_id": target, "type": kind, "created_at": T1}
                                  for kind, target in edges]
    return record


def run(*records: Line) -> Conversion:
    return convert([json.dumps(record).encode() for record in records])


def everything(result: Conversion) -> tuple[object, ...]:
    return result.records, result.skipped, result.notes, result.sources


def lines_of(result: Conversion, key: str) -> list[Line]:
    return [line for _, line in result.records if line["id"] == key]


def line_of(result: Conversion, key: str) -> Line:
    return lines_of(result, key)[0]


def test_an_epic_becomes_a_prd() -> None:
    """An epic's line is a PRD's: known keys in the format's order, then the beads fields as they were."""
    result = run(issue("bd-e", "epic", description="D", labels=["x"], assignee="me"))
    assert result.records == [("prd", {
        "id": "bd-e", "title": "T bd-e", "description": "D", "created_at": T1_MS, "updated_at": T2_MS,
        "status": "ready", "review_passes": 0, "content": "", "priority": 1, "issue_type": "epic",
        "labels": ["x"], "assignee": "me"})]
    assert list(result.records[0][1])[:8] == PRD_KEYS
    assert (result.sources, result.skipped, result.notes) == ({"bd-e": 1}, [], [])


def test_anything_else_becomes_a_task_spec() -> None:
    """A task's line is a task spec's: known keys in order, depends_on, then the beads fields as they were."""
    result = run(issue("bd-e", "epic"), issue("bd-b"),
                 issue("bd-a", "task", "closed", ("parent-child", "bd-e"), ("blocks", "bd-b"),
                       assignee="ann", closed_at=T2, comments=[{"id": 1}]))
    line = line_of(result, "bd-a")
    edges = line["dependencies"]
    assert line == {
        "id": "bd-a", "prd_id": "bd-e", "phase_name": "T bd-a", "description": "", "created_at": T1_MS,
        "updated_at": T2_MS, "status": "complete", "workflow_name": None, "assigned_to": "ann", "content": "",
        "depends_on": ["bd-b"], "priority": 1, "issue_type": "task", "closed_at": T2, "comments": [{"id": 1}],
        "dependencies": edges}
    assert list(line)[:11] == [*SPEC_KEYS, "depends_on"]
    assert [edge["type"] for edge in edges] == ["parent-child", "blocks"]


@pytest.mark.parametrize(("status", "prd", "spec", "kept"), [
    ("open", "ready", "pending", None),
    ("in_progress", "active", "running", None),
    ("hooked", "active", "running", "hooked"),
    ("blocked", "active", "pending", "blocked"),
    ("closed", "complete", "complete", None),
    ("deferred", "draft", "pending", "deferred"),
    ("OPEN", "draft", "pending", "OPEN"),
    ("", "ready", "pending", None),
    (None, "ready", "pending", None),
    (7, "draft", "pending", 7),
    (["open"], "draft", "pending", ["open"]),
    (False, "draft", "pending", False),
])
def test_statuses(status: object, prd: str, spec: str, kept: object) -> None:
    """A status maps by the table, and stays as beads_status exactly where ours cannot give it back."""
    result = run(issue("bd-e", "epic", status), issue("bd-t", "task", status))
    for key, mapped in (("bd-e", prd), ("bd-t", spec)):
        line = line_of(result, key)
        assert line["status"] == mapped
        assert line.get("beads_status") == kept
        assert ("beads_status" in line) == (kept is not None)


def test_no_status_and_no_type() -> None:
    """A record without status and type is an open task, which is what newer beads leaves out."""
    record = issue("bd-t")
    del record["status"], record["issue_type"]
    result = run(record)
    assert line_of(result, "bd-t")["status"] == "pending"
    assert line_of(result, "bd-t")["prd_id"] == "beads-task"
    assert "beads_status" not in line_of(result, "bd-t")


@pytest.mark.parametrize(("issue_type", "prd_id"), [
    ("bug", "beads-bug"),
    ("merge-request", "beads-merge-request"),
    ("Epic", "beads-epic"),
    ("a b/c\n", "beads-a-b-c"),
    ("x_y.z", "beads-x_y.z"),
    ("größe", "beads-größe"),
    ("///", "beads-untyped"),
    ("", "beads-task"),
    (None, "beads-task"),
    (["epic"], "beads-task"),
    ("t" * 500, "beads-" + "t" * 64),
])
def test_types_without_an_epic(issue_type: object, prd_id: str) -> None:
    """A task spec of any type, known or not, without an epic stands under a PRD of its type."""
    result = run(issue("bd-t", issue_type))
    assert [(kind, line["id"]) for kind, line in result.records] == [("prd", prd_id), ("task_spec", "bd-t")]
    assert line_of(result, "bd-t")["prd_id"] == prd_id
    assert line_of(result, "bd-t")["issue_type"] == issue_type
    assert result.sources == {"bd-t": 1}


def test_a_made_prd() -> None:
    """A PRD of our own has all known fields, the oldest creation and the newest version among its members."""
    result = run(issue("bd-1", "bug", "closed", created_at=T2), issue("bd-2", "bug", "closed", updated_at=T1),
                 issue("bd-3", "task"))
    made = line_of(result, "beads-bug")
    assert made == {
        "id": "beads-bug", "title": "Imported from beads: bug records without an epic", "description": "",
        "created_at": T1_MS, "updated_at": T2_MS, "status": "complete", "review_passes": 0, "content": ""}
    assert list(made) == PRD_KEYS
    assert line_of(result, "beads-task")["status"] == "active"


@pytest.mark.parametrize(("statuses", "expected"), [
    (("closed", "closed"), "complete"),
    (("closed", "open"), "active"),
    (("closed", "tombstone"), "complete"),
    (("tombstone", "tombstone"), "complete"),
    (("open", "tombstone"), "active"),
    (("someday",), "active"),
])
def test_the_status_of_a_made_prd(statuses: tuple[str, ...], expected: str) -> None:
    """A PRD of our own is complete when no living member is left to do."""
    result = run(*(issue(f"bd-{n}", "bug", status) for n, status in enumerate(statuses)))
    assert line_of(result, "beads-bug")["status"] == expected


def test_a_made_prd_is_as_new_as_a_deletion() -> None:
    """A member's deletion moves the made PRD's version, for it may change its status."""
    result = run(issue("bd-1", "bug", "tombstone", deleted_at="2025-12-01T00:00:00Z"))
    assert lines_of(result, "bd-1")[1]["updated_at"] == 1764547200000
    assert line_of(result, "beads-bug")["updated_at"] == 1764547200000


def test_a_made_prd_takes_no_id() -> None:
    """A PRD of our own gets another id where a record has the one it would have."""
    result = run(issue("beads-bug", "epic"), issue("beads-bug-"), issue("bd-1", "bug"))
    assert line_of(result, "bd-1")["prd_id"] == "beads-bug--"
    assert line_of(result, "beads-bug--")["title"] == "Imported from beads: bug records without an epic"
    assert len({line["id"] for _, line in result.records}) == len(result.records)


def test_the_order_of_records() -> None:
    """Every PRD comes before the task specs, and otherwise the file's order holds."""
    result = run(issue("bd-1"), issue("bd-9", "epic"), issue("bd-0", "bug"), issue("bd-2", "epic"))
    assert [line["id"] for _, line in result.records] == [
        "beads-bug", "beads-task", "bd-9", "bd-2", "bd-1", "bd-0"]


E1, E2, DEAD = issue("e1", "epic"), issue("e2", "epic"), issue("dead", "epic", "tombstone")


@pytest.mark.parametrize(("records", "prd_id"), [
    pytest.param([E1, issue("t", "task", "open", ("parent-child", "e1"))], "e1", id="direct"),
    pytest.param([issue("t", "task", "open", ("parent-child", "e1")), E1], "e1", id="epic later in the file"),
    pytest.param([E1, issue("f", "feature", "open", ("parent-child", "e1")),
                  issue("t", "task", "open", ("parent-child", "f"))], "e1", id="through a feature"),
    pytest.param([E1, E2, issue("t", "task", "open", ("parent-child", "e2"), ("parent-child", "e1"))], "e2",
                 id="the first of two"),
    pytest.param([E1, E2, issue("f", "feature", "open", ("parent-child", "e1")),
                  issue("t", "task", "open", ("parent-child", "f"), ("parent-child", "e2"))], "e2",
                 id="the nearest of two"),
    pytest.param([DEAD, issue("t", "task", "open", ("parent-child", "dead"))], "beads-task",
                 id="deleted epic"),
    pytest.param([E1, issue("d", "epic", "tombstone", ("parent-child", "e1")),
                  issue("t", "task", "open", ("parent-child", "d"))], "e1", id="above a deleted epic"),
    pytest.param([E1, issue("d", "bug", "tombstone", ("parent-child", "e1")),
                  issue("t", "task", "open", ("parent-child", "d"))], "e1", id="through a deleted record"),
    pytest.param([issue("t", "task", "open", ("parent-child", "gone"))], "beads-task", id="missing"),
    pytest.param([issue("t", "task", "open", ("parent-child", "t"))], "beads-task", id="its own parent"),
    pytest.param([issue("u", "bug", "open", ("parent-child", "t")),
                  issue("t", "task", "open", ("parent-child", "u"))], "beads-task", id="a loop"),
    pytest.param([E1, issue("u", "bug", "open", ("parent-child", "t"), ("parent-child", "e1")),
                  issue("t", "task", "open", ("parent-child", "u"))], "e1", id="a loop with a way out"),
    pytest.param([E1, issue("t", "task", "open", ("blocks", "e1"), ("related", "e1"))], "beads-task",
                 id="other edges lead nowhere"),
    pytest.param([issue("e1", "epic", "open", dependencies=[
        {"issue_id": "t", "depends_on_id": "e1", "type": "parent-child"}]), issue("t")], "e1",
                 id="listed by another record"),
    pytest.param([E1, issue("t", dependencies=[{"depends_on_id": "e1", "type": "parent-child"}])], "e1",
                 id="issue_id left out"),
])
def test_parents(records: list[Line], prd_id: str) -> None:
    """A task spec's PRD is the nearest living epic up the parent-child edges, else one of its type."""
    result = run(*records)
    assert line_of(result, "t")["prd_id"] == prd_id
    assert prd_id in {line["id"] for kind, line in result.records if kind == "prd"}


@pytest.mark.parametrize(("records", "why"), [
    ([E1, issue("t", "task", "open", ("parent-child", "e1"))], None),
    ([E1, E2, issue("t", "task", "open", ("parent-child", "e1"), ("parent-child", "e2"))],
     "e2: t is under e1"),
    ([E1, issue("t", "epic", "open", ("parent-child", "e1"))], "e1: t is under no PRD"),
    ([DEAD, issue("t", "task", "open", ("parent-child", "dead"))], "dead: t is under beads-task"),
    ([issue("f"), issue("t", "task", "open", ("parent-child", "f"))], "f: t is under beads-task"),
])
def test_notes_on_parents(records: list[Line], why: str | None) -> None:
    """A parent-child edge that does not come out as prd_id is noted."""
    target, _, reason = (why or "").partition(": ")
    expected = [("t", f"parent-child edge to {target} kept in `dependencies`: {reason}")] if why else []
    assert run(*records).notes == expected


@pytest.mark.parametrize(("other", "why"), [
    (issue("b"), None),
    (issue("b", "bug", "closed"), None),
    (issue("b", "epic"), "b is an epic"),
    (issue("b", "bug", "tombstone"), "b is deleted"),
    (issue("b", "epic", "tombstone"), "b is deleted"),
    (issue("c"), "b is not imported"),
    (issue("b", created_at=None, updated_at=None), "b is not imported"),
])
def test_blocks_edges(other: Line, why: str | None) -> None:
    """A blocks edge is a depends_on between two living task specs of the file, else it is noted."""
    result = run(issue("a", "task", "open", ("blocks", "b")), other)
    line = line_of(result, "a")
    assert line.get("depends_on") == (None if why else ["b"])
    assert line["dependencies"][0]["depends_on_id"] == "b"
    assert result.notes == ([("a", f"blocks edge to b kept in `dependencies`: {why}")] if why else [])


@pytest.mark.parametrize(("record", "why"), [
    (issue("a", "epic", "open", ("blocks", "b")), "a is an epic"),
    (issue("a", "task", "tombstone", ("blocks", "b")), "a is deleted"),
])
def test_who_cannot_wait(record: Line, why: str | None) -> None:
    """Neither an epic nor a deleted record gets a depends_on."""
    result = run(record, issue("b"))
    assert all("depends_on" not in line for _, line in result.records)
    assert result.notes == [("a", f"blocks edge to b kept in `dependencies`: {why}")]


@pytest.mark.parametrize("kind", ["related", "discovered-from", "conditional-blocks", "Blocks"])
def test_other_edges(kind: str) -> None:
    """An edge of any other type is kept and noted."""
    result = run(issue("a", "task", "open", (kind, "b")), issue("b"))
    assert "depends_on" not in line_of(result, "a")
    assert result.notes == [("a", f"{kind} edge to b kept in `dependencies`: it has no counterpart")]


def test_one_edge_listed_twice() -> None:
    """The same blocks edge twice is one dependency."""
    result = run(issue("a", "task", "open", ("blocks", "b"), ("blocks", "b")), issue("b"))
    assert line_of(result, "a")["depends_on"] == ["b"]
    assert result.notes == []


@pytest.mark.parametrize(("edges", "expected"), [
    ([("a", "a")], {}),
    ([("a", "b"), ("b", "a")], {"a": ["b"]}),
    ([("a", "b"), ("b", "c"), ("c", "a")], {"a": ["b"], "b": ["c"]}),
    ([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")], {"a": ["b"], "b": ["c"], "c": ["d"]}),
    ([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], {"a": ["b", "c"], "b": ["d"], "c": ["d"]}),
])
def test_cycles(edges: list[tuple[str, str]], expected: dict[str, list[str]]) -> None:
    """The edge that would close a cycle is left out and noted, all others stay."""
    result = run(*(issue(key, "task", "open", *[("blocks", to) for source, to in edges if source == key])
                   for key in "abcd"))
    got = {line["id"]: line["depends_on"] for _, line in result.records if "depends_on" in line}
    assert got == expected
    left_out = [note for _, note in result.notes if note.endswith("it would close a cycle")]
    assert len(left_out) == len(result.notes) == len(edges) - sum(map(len, expected.values()))


@pytest.mark.parametrize("listed", [
    ["b"], [None], [{}], [{"type": "blocks"}], [{"type": 1, "depends_on_id": "b"}], "b", {"b": 1},
    [{"type": "blocks", "depends_on_id": "b", "issue_id": 5}],
])
def test_what_is_no_edge(listed: object) -> None:
    """Whatever else stands in `dependencies` stays there and is noted."""
    result = run(issue("a", dependencies=listed), issue("b"))
    assert line_of(result, "a")["dependencies"] == listed
    assert result.notes == [("a", "an entry that is no edge kept in `dependencies`")]


@pytest.mark.parametrize("listed", [None, []])
def test_no_edges(listed: object) -> None:
    """No list of dependencies and an empty one are nothing to note."""
    result = run(issue("a", dependencies=listed))
    assert line_of(result, "a")["dependencies"] == listed
    assert result.notes == []


def test_the_order_of_notes() -> None:
    """Notes stand in the order of the records that they are about."""
    result = run(issue("b", "task", "open", ("related", "a")), issue("a", dependencies=[1]))
    assert [key for key, _ in result.notes] == ["b", "a"]


def test_a_long_chain() -> None:
    """A chain longer than the interpreter's stack is deep is a chain like any other."""
    result = run(E1, issue("t0", "bug", "open", ("parent-child", "e1")), *(
        issue(f"t{n}", "bug", "open", ("parent-child", f"t{n - 1}"), ("blocks", f"t{n - 1}"))
        for n in range(1, 1200)))
    assert line_of(result, "t1199")["prd_id"] == "e1"
    assert line_of(result, "t1199")["depends_on"] == ["t1198"]


@pytest.mark.parametrize(("fields", "stamp"), [
    ({}, T2_MS + 1),
    ({"deleted_at": T2}, T2_MS + 1),
    ({"deleted_at": T1}, T2_MS + 1),
    ({"deleted_at": "2025-11-03T10:00:00.001Z"}, T2_MS + 1),
    ({"deleted_at": "2025-11-03T10:00:05Z"}, T2_MS + 5000),
    ({"deleted_at": "soon"}, T2_MS + 1),
])
def test_tombstones(fields: Line, stamp: int) -> None:
    """A deleted record is an ordinary line with all it says, then a tombstone that is newer."""
    result = run(issue("bd-t", "bug", "tombstone", deleted_by="ann", original_type="bug", **fields))
    line, tombstone = lines_of(result, "bd-t")
    assert tombstone == {"id": "bd-t", "deleted": True, "updated_at": stamp}
    assert list(tombstone) == ["id", "deleted", "updated_at"]
    assert (line["status"], line["beads_status"], line["updated_at"]) == ("pending", "tombstone", T2_MS)
    assert line["deleted_by"] == "ann"
    assert line.get("deleted_at") == fields.get("deleted_at")
    assert result.sources == {"bd-t": 2}


@pytest.mark.parametrize(("issue_type", "original", "kind"), [
    ("epic", None, "prd"), ("epic", "epic", "prd"), ("task", "epic", "prd"), ("epic", "task", "task_spec"),
    ("bug", "", "task_spec"), ("epic", "", "prd"), ("epic", 3, "prd"),
])
def test_the_type_of_a_tombstone(issue_type: object, original: object, kind: str) -> None:
    """A deleted record is of its original type, if it names one."""
    result = run(issue("bd-t", issue_type, "tombstone", original_type=original))
    assert [each for each, line in result.records if line["id"] == "bd-t"] == [kind, kind]


def test_the_original_type_of_the_living() -> None:
    """Only a tombstone's original_type counts."""
    result = run(issue("bd-t", "epic", original_type="task"))
    assert [(kind, line["id"]) for kind, line in result.records] == [("prd", "bd-t")]


@pytest.mark.parametrize(("text", "expected"), [
    ("1970-01-01T00:00:00Z", 0),
    ("1970-01-01T00:00:00.001Z", 1),
    ("2026-01-12T02:16:51Z", 1768184211000),
    ("2026-01-12t02:16:51z", 1768184211000),
    ("2026-01-12 02:16:51Z", 1768184211000),
    ("2026-01-11T18:16:51-08:00", 1768184211000),
    ("2026-01-12T07:46:51+05:30", 1768184211000),
    ("2026-01-12T02:16:51.9Z", 1768184211900),
    ("2026-01-12T02:16:51.98Z", 1768184211980),
    ("2026-01-12T02:16:51.987Z", 1768184211987),
    ("2026-01-12T02:16:51.9876Z", 1768184211987),
    ("2026-01-12T02:16:51.98765Z", 1768184211987),
    ("2026-01-12T02:16:51.987654Z", 1768184211987),
    ("2026-01-12T02:16:51.9876543Z", 1768184211987),
    ("2026-01-12T02:16:51.98765432Z", 1768184211987),
    ("2026-01-12T02:16:51.987999999Z", 1768184211987),
    ("2026-01-12T02:16:51.999999999Z", 1768184211999),
    ("2024-02-29T00:00:00Z", 1709164800000),
    ("9999-12-31T23:59:59.999-23:59", 253402387139999),
    ("2023-02-29T00:00:00Z", None),
    ("2026-13-01T00:00:00Z", None),
    ("2026-01-12T24:00:00Z", None),
    ("2026-01-12T02:60:00Z", None),
    ("2026-01-12T02:16:61Z", None),
    ("2026-01-12T02:16:51", None),
    ("2026-01-12T02:16:51.Z", None),
    ("2026-01-12T02:16:51+25:00", None),
    ("2026-01-12T02:16:51+05:75", None),
    ("2026-01-12T02:16:51Z\n", None),
    ("2026-W03-1T02:16:51Z", None),
    ("٢٠٢٦-01-12T02:16:51Z", None),
    ("0001-01-01T00:00:00Z", None),
    ("0001-01-01T00:00:00+14:00", None),
    ("1969-12-31T23:59:59Z", None),
    ("", None), ("yesterday", None), (None, None), (1768184211000, None), (True, None), ([], None),
])
def test_times(text: object, expected: object) -> None:
    """An RFC 3339 time is cut off to Unix milliseconds; anything else, or from before 1970, is no time."""
    assert parse_time(text) == expected


@pytest.mark.parametrize(("created", "updated", "expected", "kept"), [
    (T1, T2, (T1_MS, T2_MS), {}),
    (T2, T1, (T2_MS, T1_MS), {}),
    (None, T2, (T2_MS, T2_MS), {}),
    (T1, None, (T1_MS, T1_MS), {}),
    ("x", T2, (T2_MS, T2_MS), {"beads_created_at": "x"}),
    (T1, 12, (T1_MS, T1_MS), {"beads_updated_at": 12}),
    ("1970-01-01T00:00:00Z", T2, (0, T2_MS), {}),
])
def test_a_missing_time(created: object, updated: object, expected: object, kept: object) -> None:
    """A missing or unusable time is the other one; what could not be used is kept."""
    line = line_of(run(issue("bd-t", created_at=created, updated_at=updated)), "bd-t")
    assert (line["created_at"], line["updated_at"]) == expected
    assert {name: value for name, value in line.items() if name.startswith("beads_")} == kept


@pytest.mark.parametrize(("fields", "expected"), [
    ({"content": "C", "op": "o", "deleted": True, "depends_on": ["x"]},
     {"beads_content": "C", "beads_op": "o", "beads_deleted": True, "beads_depends_on": ["x"],
      "content": ""}),
    ({"prd_id": 1, "workflow_name": "w", "assigned_to": "z", "phase_name": "p"},
     {"beads_prd_id": 1, "beads_workflow_name": "w", "beads_assigned_to": "z", "beads_phase_name": "p",
      "assigned_to": None, "workflow_name": None}),
    ({"content": "C", "beads_content": "D"}, {"beads_content": "C", "beads_beads_content": "D"}),
    ({"title": 5, "description": ["d"], "assignee": {"a": 1}},
     {"title": 5, "phase_name": "", "beads_description": ["d"], "description": "", "assignee": {"a": 1},
      "assigned_to": None}),
    ({"assignee": ""}, {"assigned_to": None}),
    ({"external_ref": None, "estimate": 1.5, "tags": {"a": [1]}},
     {"external_ref": None, "estimate": 1.5, "tags": {"a": [1]}}),
])
def test_fields_without_a_counterpart(fields: Line, expected: Line) -> None:
    """A field we do not map is kept as it is, and under beads_NAME where the name is one of ours."""
    line = line_of(run(issue("bd-t", **fields)), "bd-t")
    assert {name: line.get(name, "missing") for name in expected} == expected
    assert list(line)[:len(SPEC_KEYS)] == SPEC_KEYS
    assert not {"op", "deleted", "depends_on"} & line.keys()


def test_a_prd_keeps_what_only_task_specs_have() -> None:
    """On a PRD, names of a task spec's fields are free, and its own are not."""
    record = issue("bd-e", "epic", assignee="ann", prd_id="p", review_passes=9, title=None)
    line = line_of(run(record), "bd-e")
    assert (line["assignee"], line["prd_id"], line["beads_review_passes"]) == ("ann", "p", 9)
    assert (line["title"], line["review_passes"]) == ("", 0)
    assert "beads_title" not in line


@pytest.mark.parametrize(("line", "key", "reason"), [
    (b"{", "", "not JSON"),
    (b"<<<<<<< ours", "", "not JSON"),
    (b'{"id": "bd-1"', "", "not JSON"),
    (b'\xff{"id": "bd-1"}', "", "not JSON"),
    (b"[" * 100_000, "", "not JSON"),
    (b"9" * 5000, "", "not JSON"),
    (b"[]", "", "not a JSON object"),
    (b"null", "", "not a JSON object"),
    (b'"bd-1"', "", "not a JSON object"),
    (b"NaN", "", "not a JSON object"),
    (b"{}", "", "no id"),
    (b'{"id": null}', "", "no id"),
    (b'{"id": 7}', "", "no id"),
    (b'{"id": ""}', "", "no id"),
    (b'{"id": "a\\nb"}', "", "no id"),
    (b'{"id": "a\\u0000"}', "", "no id"),
    (b'{"id": "\\u0085"}', "", "no id"),
    (b'{"id": "bd\\ud800"}', "", "no id"),
    (b'{"id": "' + b"x" * 257 + b'"}', "", "no id"),
    (b'{"id": "bd-1", "x": "\\ud800"}', "bd-1", "half of a surrogate pair"),
    (b'{"id": "bd-1", "\\udfff": 1}', "bd-1", "half of a surrogate pair"),
    (b'{"id": "bd-1", "x": [NaN]}', "bd-1", "NaN"),
    (b'{"id": "bd-1", "x": -Infinity}', "bd-1", "NaN"),
    (b'{"id": "bd-1", "x": 1e999}', "bd-1", "NaN"),
    (b'{"id": "bd-1", "x": 18446744073709551616}', "bd-1", "nested deeper than 64, or an integer"),
    (b'{"id": "bd-1", "x": -9223372036854775809}', "bd-1", "nested deeper than 64, or an integer"),
    (b'{"id": "bd-1", "x": ' + b"[" * 64 + b"]" * 64 + b"}", "bd-1", "nested deeper than 64"),
    (b'{"id": "bd-1", "x": "' + b"x" * (4 << 20) + b'"}', "bd-1", "more than 4 MiB"),
    (b'{"id": "bd-1"}', "bd-1", "neither created_at nor updated_at"),
    (b'{"id": "bd-1", "created_at": "0001-01-01T00:00:00Z", "updated_at": 5}', "bd-1", "neither"),
])
def test_skipped_lines(line: bytes, key: str, reason: str) -> None:
    """A line that cannot be imported is listed with its number and the reason, and harms no other."""
    result = convert([b"\n", line, json.dumps(issue("bd-2")).encode()])
    [(number, skipped, why)] = result.skipped
    assert (number, skipped) == (2, key)
    assert why.startswith(reason)
    assert result.sources == {"bd-2": 1}


def test_what_is_just_within_bounds() -> None:
    """Ids of 256 characters, 64 levels, 64 bits, and characters that only look like trouble are imported."""
    deep: object = 1
    for _ in range(63):
        deep = [deep]
    key = "ü\u2028\U0001f600" + "x" * 253
    result = run(issue(key, deep=deep, low=-2**63, high=2**64 - 1))
    assert result.skipped == []
    assert line_of(result, key)["deep"] == deep


@pytest.mark.parametrize("blank", [b"", b"\n", b"\r\n", b"  \t\n", b"\xef\xbb\xbf\n"])
def test_blank_lines(blank: bytes) -> None:
    """Blank lines are neither imported nor listed, but count as lines."""
    result = convert([blank, b"x", blank])
    assert [number for number, _, _ in result.skipped] == [2]
    assert result.records == []


def test_line_ends_and_bom() -> None:
    """A byte order mark, CRLF and spaces around a record do not matter."""
    plain = json.dumps(issue("bd-1")).encode()
    assert everything(convert([b"\xef\xbb\xbf " + plain + b" \r\n"])) == everything(convert([plain]))


@pytest.mark.parametrize(("stamps", "winner", "losers"), [
    ((T1, T2), 2, [1]),
    ((T2, T1), 1, [2]),
    ((T1, T1), 2, [1]),
    ((T1, T2, T1), 2, [1, 3]),
    ((T2, T1, T2), 3, [1, 2]),
])
def test_one_id_twice(stamps: tuple[str, ...], winner: int, losers: list[int]) -> None:
    """Of several records with one id the newest wins, of equals the last; the others are listed."""
    result = run(*(issue("bd-1", updated_at=stamp, n=number) for number, stamp in enumerate(stamps, 1)))
    assert line_of(result, "bd-1")["n"] == winner
    assert [(number, key) for number, key, _ in result.skipped] == [(number, "bd-1") for number in losers]
    assert all("has the same id and wins" in why for _, _, why in result.skipped)
    assert result.sources == {"bd-1": 1}


def test_a_loser_leaves_no_edges() -> None:
    """The edges of a record that lost to a newer one of its id do not count."""
    result = run(issue("a", "task", "open", ("blocks", "b"), updated_at=T1), issue("b"), issue("a"))
    assert "depends_on" not in line_of(result, "a")
    assert [line["id"] for kind, line in result.records if kind == "task_spec"] == ["b", "a"]


def test_nothing() -> None:
    """An empty file gives an empty conversion."""
    assert everything(convert([])) == ([], [], [], {})


def test_the_same_bytes_give_the_same_lines() -> None:
    """A conversion is a function of the input, down to the order of keys."""
    records = [E1, DEAD, issue("t", "bug", "hooked", ("parent-child", "e1"), ("blocks", "u")),
               issue("u", "task", "open", ("blocks", "t"), ("related", "x"))]
    assert json.dumps(everything(run(*records))) == json.dumps(everything(run(*records)))


@pytest.fixture(scope="module")
def real() -> Real:
    """The bytes of a real log, its records, and what became of them."""
    if not os.path.exists(REAL_LOG):
        pytest.skip(f"the real log is not here: {os.path.normpath(REAL_LOG)}")
    with open(REAL_LOG, "rb") as file:
        data = file.read()
    issues = {record["id"]: record for record in map(json.loads, data.decode().split("\n")[:-1])}
    return data, issues, convert(data.split(b"\n"))


def exact_ms(text: str) -> int:
    """The stamp of a time by another road than the converter's: whole seconds, then the digits as text."""
    match = re.fullmatch(r"(.{19})(?:\.(\d+))?(Z|[+-].*)", text)
    assert match
    seconds, fraction, zone = match.groups()
    moment = datetime.strptime(seconds + zone, "%Y-%m-%dT%H:%M:%S%z")
    return round(moment.timestamp()) * 1000 + int((fraction or "0").ljust(3, "0")[:3])


def is_live_spec(record: Line | None) -> bool:
    return record is not None and record["status"] != "tombstone" and record["issue_type"] != "epic"


def test_real_log_is_accounted_for(real: Real) -> None:
    """Every id of the real log is imported, under its kind, with a second line where it is deleted."""
    _, issues, result = real
    assert len(issues) == 2404
    assert result.skipped == []
    assert result.sources == {key: 1 + (each["status"] == "tombstone") for key, each in issues.items()}
    lines = Counter((kind, line["id"], "deleted" in line) for kind, line in result.records)
    assert set(lines.values()) == {1}
    own = {key for kind, key, _ in lines if key not in issues}
    orphan_types = {issues[str(line["id"])]["issue_type"] for kind, line in result.records
                    if kind == "task_spec" and line.get("prd_id") in own}
    assert own == {f"beads-{name}" for name in orphan_types}
    expected = {("prd" if each["issue_type"] == "epic" else "task_spec", key, dead)
                for key, each in issues.items() for dead in {False, each["status"] == "tombstone"}}
    assert set(lines) == expected | {("prd", key, False) for key in own}


def test_real_log_statuses(real: Real) -> None:
    """The counts by type and status of the real log come out as those of its lines."""
    _, issues, result = real
    words = {("epic", "open"): "ready", ("epic", "closed"): "complete", ("epic", "tombstone"): "draft",
             ("spec", "open"): "pending", ("spec", "closed"): "complete", ("spec", "tombstone"): "pending",
             ("spec", "in_progress"): "running", ("spec", "hooked"): "running"}
    expected = Counter((each["issue_type"], each["status"],
                        words["epic" if each["issue_type"] == "epic" else "spec", each["status"]])
                       for each in issues.values())
    live = [(line, issues[key]["status"]) for _, line in result.records
            if (key := str(line["id"])) in issues and "deleted" not in line]
    assert expected == Counter((line["issue_type"], status, line["status"]) for line, status in live)
    for line, status in live:
        assert line.get("beads_status") == (status if status in {"hooked", "tombstone"} else None)
    for kind, line in result.records:
        if "deleted" not in line:
            keys, known = (PRD_KEYS, PRD_WORDS) if kind == "prd" else (SPEC_KEYS, SPEC_WORDS)
            assert list(line)[:len(keys)] == keys
            assert line["status"] in known


def test_real_log_times(real: Real) -> None:
    """Times of the real log are kept to the millisecond, and a tombstone is newer than what it deletes."""
    _, issues, result = real
    for _, line in result.records:
        each = issues.get(str(line["id"]))
        if each is not None and "deleted" in line:
            assert line["updated_at"] == max(exact_ms(each["deleted_at"]), exact_ms(each["updated_at"]) + 1)
        elif each is not None:
            assert (line["created_at"], line["updated_at"]) == (
                exact_ms(each["created_at"]), exact_ms(each["updated_at"]))


def test_real_log_fields(real: Real) -> None:
    """No field of the real log is lost: each is mapped, or stands on the line under its own name."""
    _, issues, result = real
    for kind, line in result.records:
        if line["id"] not in issues or "deleted" in line:
            continue
        each = issues[line["id"]]
        assert line["title" if kind == "prd" else "phase_name"] == each["title"]
        assert line["description"] == each.get("description", "")
        if kind == "task_spec":
            assert line["assigned_to"] == each.get("assignee")
        mapped = {"title", "description", "status", "created_at", "updated_at", *(
            ["assignee"] if kind == "task_spec" else [])}
        rest = {name: value for name, value in each.items() if name not in mapped}
        assert {name: line[name] for name in rest} == rest


def test_real_log_parents(real: Real) -> None:
    """In the real log a task spec with a living epic right above it is under it, and every PRD exists."""
    _, issues, result = real
    prds = {line["id"] for kind, line in result.records if kind == "prd"}
    dead = {line["id"] for _, line in result.records if "deleted" in line}
    for kind, line in result.records:
        if kind == "task_spec" and "deleted" not in line:
            assert line["prd_id"] in prds - dead
            edges = issues[str(line["id"])].get("dependencies", ())
            above = [edge["depends_on_id"] for edge in edges if edge["type"] == "parent-child"]
            epics = [key for key in above if issues[key]["issue_type"] == "epic" and key not in dead]
            assert line["prd_id"] == epics[0] if epics else line["prd_id"] not in above


def test_real_log_dependencies(real: Real) -> None:
    """In the real log depends_on holds every blocks edge between living task specs, and has no cycle."""
    _, issues, result = real
    lines: list[Line] = [line for _, line in result.records]
    waits = {line["id"]: set(line["depends_on"]) for line in lines if "depends_on" in line}
    edges = {(edge["issue_id"], edge["depends_on_id"], edge["type"])
             for each in issues.values() for edge in each.get("dependencies", ())}
    wanted = {(child, target) for child, target, kind in edges if kind == "blocks"
              and is_live_spec(issues.get(child)) and is_live_spec(issues.get(target))}
    got = {(child, target) for child, targets in waits.items() for target in targets}
    cut = sum(note.endswith("it would close a cycle") for _, note in result.notes)
    assert got <= wanted
    assert len(got) + cut == len(wanted)
    mapped = got | {(line["id"], line["prd_id"]) for line in lines if "prd_id" in line}
    unmapped = [edge for edge in edges if edge[2] not in {"blocks", "parent-child"} or edge[:2] not in mapped]
    assert len(result.notes) == len(unmapped)
    # Taking away whatever waits for nothing that is left must take away everything.
    while ready := {key for key, targets in waits.items() if not targets & waits.keys()}:
        waits = {key: targets for key, targets in waits.items() if key not in ready}
    assert waits == {}


def test_real_log_twice(real: Real) -> None:
    """A second conversion of the real log gives the same bytes, with and without line ends."""
    data, _, result = real
    first = json.dumps(everything(result))
    assert json.dumps(everything(convert(data.split(b"\n")))) == first
    assert json.dumps(everything(convert(data.splitlines(keepends=True)))) == first
