"""Records of a beads issue log, made into lines of our logs; pure.

It knows what a beads record looks like and what of it has a counterpart here: epics are PRDs, all others are
task specs, `parent-child` edges say under which PRD, `blocks` edges are `depends_on`. What has none stays on
the line as an unknown field; what cannot be a record is listed with the reason. It does not know files, the
store or what is already in it, and it has no clock: the same bytes give the same lines.
"""

import json
import re
from datetime import UTC, datetime, timedelta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Line = dict[str, object]
    Edge = tuple[str, str, str, str]
    """Type, the child or the one that waits, the parent or what it waits for, the record that lists it."""

STATUSES = {  # of a PRD, of a task spec
    "open": ("ready", "pending"), "in_progress": ("active", "running"), "hooked": ("active", "running"),
    "blocked": ("active", "pending"), "closed": ("complete", "complete"),
}
UNKNOWN_STATUS = ("draft", "pending")
UNMARKED = (None, "", "open", "in_progress", "closed")
"""Statuses that ours give back (none at all means open); any other stays on the line as `beads_status`."""
RESERVED = ("deleted", "depends_on", "base_at", "op", "op_sum")
"""Keys that mean something to us on any line, so that a beads field of that name must get another."""
MAX_DEPTH = 64
MAX_BYTES = 4 * 1024 * 1024 - 4096
"""The limit of a line, less what the fields that we add can take up."""

_BLANK = b" \t\r\n\xef\xbb\xbf"
_ID = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
                   r"([Zz]|[+-][0-9]{2}:[0-5][0-9])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Conversion:
    """What became of every line of a beads log.

    `records` are (kind, line) in the order to append them; `skipped` are (line number from 1, id or "", why);
    `notes` are (id, what its unknown fields keep that has no counterpart); `sources` maps an imported id to
    the number of its lines: one, or two if it is deleted. PRDs of our own making have no source.
    """

    __slots__ = ("notes", "records", "skipped", "sources")

    def __init__(self) -> None:
        self.records: list[tuple[str, Line]] = []
        self.skipped: list[tuple[int, str, str]] = []
        self.notes: list[tuple[str, str]] = []
        self.sources: dict[str, int] = {}


class _Issue:
    """A usable record; `stamp` is the version of the last line made of it."""

    __slots__ = ("created", "dead", "epic", "id", "number", "raw", "stamp", "status", "type", "updated")

    def __init__(self, number: int, key: str, raw: "Line", created: int, updated: int) -> None:
        self.number, self.id, self.raw, self.created, self.updated = number, key, raw, created, updated
        self.status = "open" if raw.get("status") in (None, "") else _text(raw, "status")
        self.dead = self.status == "tombstone"
        self.type = (self.dead and _text(raw, "original_type")) or _text(raw, "issue_type") or "task"
        self.epic = self.type == "epic"
        self.stamp = max(updated + 1, parse_time(raw.get("deleted_at")) or 0) if self.dead else updated


def convert(lines: "Iterable[bytes]") -> Conversion:
    """The lines of a beads log as lines of ours; it raises for nothing that stands in them."""
    result = Conversion()
    issues = _read(lines, result.skipped)
    edges = _edges(issues, result.notes)
    homes = _homes(issues, edges)
    waits = _map_edges(edges, issues, homes, result.notes)
    result.notes.sort(key=lambda note: issues[note[0]].number)
    groups = [_group(key, [issues[member] for member, home in homes.items() if home == key])
              for key in sorted({*homes.values()} - {*issues})]
    for issue in (*groups, *sorted(issues.values(), key=lambda each: not each.epic)):
        kind = "prd" if issue.epic else "task_spec"
        result.records.append((kind, _line(issue, homes, waits)))
        if issue.dead:  # Two lines, so that its history can bring it back.
            result.records.append((kind, {"id": issue.id, "deleted": True, "updated_at": issue.stamp}))
        if issue.id in issues:
            result.sources[issue.id] = 1 + issue.dead
    return result


def parse_time(value: object) -> int | None:
    """An RFC 3339 time in Unix ms, cut off; None for anything else and before 1970 (Go's year 1: no time)."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return None
    try:
        stamp = (datetime.fromisoformat(value.upper()) - _EPOCH) // timedelta(milliseconds=1)
    except ValueError:
        return None
    return stamp if stamp >= 0 else None


def _read(lines: "Iterable[bytes]", skipped: list[tuple[int, str, str]]) -> dict[str, _Issue]:
    """The usable records by id, in the order of the file: of one id the newest, of equals the last."""
    issues: dict[str, _Issue] = {}
    for number, line in enumerate(lines, 1):
        issue = _read_line(number, line) if line.strip(_BLANK) else None
        if isinstance(issue, tuple):
            skipped.append((number, *issue))
        elif issue is not None:
            other = issues.get(issue.id, issue)
            loser, winner = sorted((other, issue), key=lambda each: (each.updated, each.number))
            issues[issue.id] = winner
            if loser is not winner:
                skipped.append((loser.number, loser.id, f"line {winner.number} has the same id and wins"))
    skipped.sort()
    return {issue.id: issue for issue in sorted(issues.values(), key=lambda each: each.number)}


def _read_line(number: int, line: bytes) -> _Issue | tuple[str, str]:
    """The record, or its id as far as known and the reason why it cannot be one of ours."""
    try:
        raw = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return "", f"not JSON: {error}"
    if not isinstance(raw, dict):
        return "", "not a JSON object"
    key = raw.get("id")
    if not isinstance(key, str) or not _ID.fullmatch(key):
        return "", "no id of 1 to 256 characters without control characters"
    if why := _unstorable(raw):
        return key, why
    created, updated = parse_time(raw.get("created_at")), parse_time(raw.get("updated_at"))
    first, last = (updated if created is None else created), (created if updated is None else updated)
    if first is None or last is None:
        return key, "neither created_at nor updated_at is a time"
    return _Issue(number, key, raw, first, last)


def _unstorable(raw: "Line") -> str:
    """Why our own logs would refuse the record, which must not stop an import; empty if they would not."""
    if not _fits(raw, MAX_DEPTH):
        return f"nested deeper than {MAX_DEPTH}, or an integer beyond 64 bits"
    try:
        # Dependencies count twice: each may come out in depends_on as well.
        size = sum(len(json.dumps(part, ensure_ascii=False, allow_nan=False).encode())
                   for part in (raw, raw.get("dependencies")))
    except ValueError as error:
        return "half of a surrogate pair" if isinstance(error, UnicodeError) else "NaN or an infinite number"
    return "more than 4 MiB" if size > MAX_BYTES else ""


def _fits(value: object, room: int) -> bool:
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return room > 0 and all(_fits(part, room - 1) for part in parts)
    return not isinstance(value, int) or -(2**63) <= value < 2**64


def _edges(issues: dict[str, _Issue], notes: list[tuple[str, str]]) -> "list[Edge]":
    edges: list[Edge] = []
    for issue in issues.values():
        listed = issue.raw.get("dependencies") or []
        for entry in listed if isinstance(listed, list) else [listed]:
            ends = {"issue_id": issue.id, **entry} if isinstance(entry, dict) else {}
            kind, child, target = (_text(ends, name) for name in ("type", "issue_id", "depends_on_id"))
            if kind and child and target:
                edges.append((kind, child, target, issue.id))
            else:
                notes.append((issue.id, "an entry that is no edge kept in `dependencies`"))
    return edges


def _homes(issues: dict[str, _Issue], edges: "Sequence[Edge]") -> dict[str, str]:
    """The PRD's id of each task spec; an id that is not among `issues` is that of a PRD to be made."""
    parents: dict[str, list[str]] = {}
    for kind, child, target, _ in edges:
        if kind == "parent-child":
            parents.setdefault(child, []).append(target)
    epics = {issue.id for issue in issues.values() if issue.epic and not issue.dead}
    return {issue.id: next((above for above in _walk(issue.id, parents) if above in epics), None)
            or _group_id(issue.type, issues) for issue in issues.values() if not issue.epic}


def _walk(start: str, ways: "Mapping[str, Sequence[str]]") -> "Iterator[str]":
    """All that can be reached from `start`, itself first, then the nearest, each once."""
    queue, seen = [start], {start}
    for node in queue:
        yield node
        for each in ways.get(node, ()):
            if each not in seen:
                seen.add(each)
                queue.append(each)


def _group_id(issue_type: str, issues: dict[str, _Issue]) -> str:
    slug = re.sub(r"[^\w.]+", "-", issue_type.lower())[:64].strip("-") or "untyped"
    key = f"beads-{slug}"
    while key in issues:
        key += "-"
    return key


def _map_edges(
    edges: "Sequence[Edge]", issues: dict[str, _Issue], homes: dict[str, str], notes: list[tuple[str, str]],
) -> dict[str, list[str]]:
    """What each task spec depends on; an edge that becomes neither that nor a `prd_id` gets a note."""
    unfit = {issue.id: "deleted" if issue.dead else "an epic"
             for issue in issues.values() if issue.dead or issue.epic}
    waits: dict[str, list[str]] = {}
    awaited: set[str] = set()  # Only these can close a cycle, which spares a walk down every long chain.
    for kind, child, target, holder in edges:
        why = "it has no counterpart"
        if kind == "parent-child":
            why = "" if homes.get(child) == target else f"{child} is under {homes.get(child, 'no PRD')}"
        elif kind == "blocks":
            why = next((f"{end} is {unfit.get(end, 'not imported')}" for end in (child, target)
                        if end in unfit or end not in issues), "")
            if not why and (child == target or (child in awaited and child in _walk(target, waits))):
                why = "it would close a cycle"
            if not why and target not in waits.setdefault(child, []):
                waits[child].append(target)
                awaited.add(target)
        if why:
            notes.append((holder, f"{kind} edge to {target} kept in `dependencies`: {why}"))
    return waits


def _group(key: str, members: "Sequence[_Issue]") -> _Issue:
    """A PRD of our own, as new as its newest member, so that a later import brings its status up to date."""
    done = all(issue.status == "closed" for issue in members if not issue.dead)
    name = key.removeprefix("beads-").rstrip("-")
    raw: Line = {"title": f"Imported from beads: {name} records without an epic",
                 "status": "closed" if done else "in_progress"}
    created, updated = min(issue.created for issue in members), max(issue.stamp for issue in members)
    group = _Issue(0, key, raw, created, updated)
    group.epic = True
    return group


def _line(issue: _Issue, homes: dict[str, str], waits: dict[str, list[str]]) -> "Line":
    """A record's line: our fields, then every beads field that they do not hold or could make no use of."""
    raw, key, created, updated = issue.raw, issue.id, issue.created, issue.updated
    title, description = _text(raw, "title"), _text(raw, "description")
    prd_status, spec_status = STATUSES.get(issue.status, UNKNOWN_STATUS)
    line: Line = {
        "id": key, "title": title, "description": description, "created_at": created, "updated_at": updated,
        "status": prd_status, "review_passes": 0, "content": "",
    } if issue.epic else {
        "id": key, "prd_id": homes[key], "phase_name": title, "description": description,
        "created_at": created, "updated_at": updated, "status": spec_status, "workflow_name": None,
        "assigned_to": _text(raw, "assignee") or None, "content": "",
    }
    if key in waits:
        line["depends_on"] = waits[key]
    for name in [name for name in raw if not _held(name, raw[name], issue.epic)]:
        free = name
        while free in line or free in RESERVED:
            free = f"beads_{free}"
        line[free] = raw[name]
    return line


def _held(name: str, value: object, epic: bool) -> bool:
    """Whether a line's own fields say all that this beads field does."""
    if name in ("created_at", "updated_at"):
        return value is None or parse_time(value) is not None
    if name in ("title", "description") or (name == "assignee" and not epic):
        return isinstance(value, str | None)
    return name == "id" or (name == "status" and value in UNMARKED)


def _text(raw: "Line", name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""
