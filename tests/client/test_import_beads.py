"""`import beads` of a real log, and every answer recomputed from that log without the converter."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from taskstore import Prd, Store, TaskSpec, TaskSpecStatus

Issue = dict[str, Any]

LOG = Path(__file__).parents[3] / "shared" / "data" / "beads-issues.jsonl"
PRD_STATUS = {"open": "ready", "in_progress": "active", "hooked": "active", "closed": "complete"}
SPEC_STATUS = {"open": "pending", "in_progress": "running", "hooked": "running", "closed": "complete"}


class Real:
    """The log, what should become of it, and the repository it was imported into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        issues = [json.loads(line) for line in LOG.read_text(encoding="utf-8").split("\n") if line]
        self.issues: dict[str, Issue] = {issue["id"]: issue for issue in issues}
        assert len(self.issues) == len(issues)
        self.dead = {key for key, issue in self.issues.items() if issue["status"] == "tombstone"}
        self.epics = {key for key, issue in self.issues.items() if type_of(issue) == "epic"}
        self.specs = self.issues.keys() - self.epics
        self.homes = {key: self._home(key) for key in self.specs}
        self.made = {home for home in self.homes.values() if home not in self.issues}

    def _home(self, key: str) -> str:
        """The nearest living epic upwards, else a PRD named after the type."""
        queue, seen = deque([key]), {key}
        while queue:
            here = queue.popleft()
            if here in self.epics - self.dead:
                return here
            for edge in self.issues.get(here, {}).get("dependencies", ()):
                if edge["type"] == "parent-child" and edge["depends_on_id"] not in seen:
                    seen.add(edge["depends_on_id"])
                    queue.append(edge["depends_on_id"])
        return f"beads-{type_of(self.issues[key])}"

    def members(self, home: str) -> set[str]:
        """The living task specs of a PRD."""
        return {key for key, where in self.homes.items() if where == home} - self.dead

    def run(self, *argv: str, folder: Path | None = None) -> str:
        done = subprocess.run([sys.executable, "-m", "taskstore", *argv], cwd=folder or self.folder,
                              capture_output=True, text=True, check=False, env=environment())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def items(self, *argv: str) -> dict[str, dict[str, Any]]:
        """The records of a list, by id."""
        items = json.loads(self.run(*argv, "--json"))["items"]
        found = {item["id"]: item for item in items}
        assert len(found) == len(items)
        return found


def logs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / ".taskstore").glob("*.jsonl")}


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TASKSTORE_")} | {
        "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def type_of(issue: Issue) -> str:
    return str(issue["original_type"] if issue["status"] == "tombstone" else issue["issue_type"])


def ms(stamp: str) -> int:
    """Whole milliseconds of an RFC 3339 time, its fraction cut off."""
    fraction = re.search(r"\.(\d+)", stamp)
    whole = datetime.fromisoformat(re.sub(r"\.\d+", "", stamp)).astimezone(UTC)
    return int(whole.timestamp()) * 1000 + int(((fraction[1] if fraction else "") + "000")[:3])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    if not LOG.exists():
        pytest.skip(f"there is no {LOG}")
    made = Real(tmp_path_factory.mktemp("beads"))
    subprocess.run(["git", "init", "-q", "--template=", os.fspath(made.folder)], check=True)
    made.run("init")
    answer = json.loads(made.run("import", "beads", os.fspath(LOG), "--json"))
    dead_epics = len(made.epics & made.dead)
    dead_specs = len(made.specs & made.dead)
    assert answer["skipped"] == []
    assert answer["lines"] == {
        "prd": {"imported": len(made.epics) + len(made.made), "deleted": dead_epics, "unchanged": 0},
        "task_spec": {"imported": len(made.specs), "deleted": dead_specs, "unchanged": 0}}
    return made


def test_stats(real: Real) -> None:
    """Stats count what the log holds: living and deleted records of each kind, by their mapped status."""
    kinds = json.loads(real.run("stats", "--json"))["kinds"]
    specs = Counter(SPEC_STATUS[real.issues[key]["status"]] for key in real.specs - real.dead)
    prds = Counter(PRD_STATUS[real.issues[key]["status"]] for key in real.epics - real.dead)
    for home in real.made:
        done = all(real.issues[key]["status"] == "closed" for key in real.members(home))
        prds["complete" if done else "active"] += 1
    dead_epics, dead_specs = real.epics & real.dead, real.specs & real.dead
    assert kinds["task_spec"] == {
        "records": len(real.specs) - len(dead_specs), "deleted": len(dead_specs), "status": dict(specs),
        "lines": len(real.specs) + len(dead_specs), "bad_lines": 0}
    assert kinds["prd"] == {
        "records": len(real.epics) - len(dead_epics) + len(real.made), "deleted": len(dead_epics),
        "status": dict(prds), "lines": len(real.epics) + len(dead_epics) + len(real.made), "bad_lines": 0}
    assert {name: kinds[name]["lines"] for name in kinds if name not in {"prd", "task_spec"}} == dict.fromkeys(
        ("execution", "dependency", "workflow", "repo_state"), 0)
    table = re.findall(r"^(prds|task specs) +(\d+) +(\d+) +(\d+)", real.run("stats"), re.MULTILINE)
    assert table == [(words, *(str(kinds[name][column]) for column in ("records", "deleted", "lines")))
                     for words, name in (("prds", "prd"), ("task specs", "task_spec"))]


def test_list_prds(real: Real) -> None:
    """PRDs are the living epics, with title, text, times and status, and one for each type without an epic."""
    found = real.items("list-prds")
    assert found.keys() == (real.epics - real.dead) | real.made
    for key in real.epics - real.dead:
        issue, prd = real.issues[key], found[key]
        assert (prd["title"], prd["description"]) == (issue["title"], issue.get("description", ""))
        assert (prd["created_at"], prd["updated_at"]) == (ms(issue["created_at"]), ms(issue["updated_at"]))
        assert prd["status"] == PRD_STATUS[issue["status"]]
    for status in ("ready", "active", "complete"):
        expected = {key for key, prd in found.items() if prd["status"] == status}
        assert real.items("list-prds", "--status", status).keys() == expected
    lines = real.run("list-prds").splitlines()
    assert len(lines) == len(found) + 1
    assert {line.split()[0] for line in lines[1:]} == found.keys()


def test_task_specs(real: Real) -> None:
    """Task specs are all other living records, none of their fields lost, each under its nearest living epic."""
    found = real.items("list", "ts")
    assert found.keys() == real.specs - real.dead
    for key, spec in found.items():
        issue = real.issues[key]
        assert spec["prd_id"] == real.homes[key]
        assert (spec["phase_name"], spec["description"]) == (issue["title"], issue.get("description", ""))
        assert (spec["created_at"], spec["updated_at"]) == (ms(issue["created_at"]), ms(issue["updated_at"]))
        assert (spec["status"], spec["assigned_to"]) == (SPEC_STATUS[issue["status"]], issue.get("assignee"))
        mapped = {"title", "description", "status", "created_at", "updated_at", "assignee"}
        assert {name: spec[name] for name in issue.keys() - mapped} == {
            name: issue[name] for name in issue.keys() - mapped}
    created = [spec["created_at"] for spec in found.values()]
    assert created == sorted(created)


def test_list_task_specs(real: Real) -> None:
    """A PRD's task specs are its own: of the largest epic, of a made PRD, of one without any."""
    sizes = Counter(home for key, home in real.homes.items() if key not in real.dead)
    largest = max(real.epics - real.dead, key=lambda key: (sizes[key], key))
    empty = min(key for key in real.epics - real.dead if not sizes[key])
    for home in (largest, "beads-bug", empty):
        assert real.items("list-task-specs", home).keys() == real.members(home)
    done = {key for key in real.members(largest) if real.issues[key]["status"] == "closed"}
    assert real.items("list-task-specs", largest, "--status", "complete").keys() == done


def test_dependencies(real: Real) -> None:
    """A living task spec depends on those that block it, unless that would close a cycle."""
    found = real.items("list", "ts")
    living = real.specs - real.dead
    wanted = {(edge["issue_id"], edge["depends_on_id"]) for issue in real.issues.values()
              for edge in issue.get("dependencies", ()) if edge["type"] == "blocks"}
    wanted = {(child, target) for child, target in wanted if child in living and target in living}
    got = {(key, target) for key, spec in found.items() for target in spec.get("depends_on", ())}
    assert got <= wanted
    waits = {key: set(spec.get("depends_on", ())) for key, spec in found.items()}
    for child, target in wanted - got:  # each would close one: its target comes round to it
        reached: set[str] = set()
        front = {target}
        while front:
            reached |= front
            front = set().union(*(waits[key] for key in front)) - reached
        assert child in reached


def test_show(real: Real) -> None:
    """A record is shown, by its id or enough of it, with title, times and unknown fields; a deleted one is not."""
    spec = max(real.specs - real.dead, key=lambda key: (len(real.issues[key].get("dependencies", ())), key))
    issue = real.issues[spec]
    shown = dict(line.split(None, 1) for line in real.run("show", "ts", spec).splitlines() if len(line.split()) > 1)
    assert shown["task"] == f"spec {spec}"
    assert shown["phase_name"] == issue["title"]
    assert shown["prd_id"] == real.homes[spec]
    clock = datetime.fromtimestamp(ms(issue["created_at"]) // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert shown["created_at"].startswith(f"{clock} (")
    assert json.loads(shown["dependencies"]) == issue["dependencies"]
    living = sorted(real.specs - real.dead)
    prefix = next(spec[:size] for size in range(1, len(spec) + 1)
                  if sum(key.startswith(spec[:size]) for key in living) == 1 or spec[:size] == spec)
    assert real.run("show", "ts", prefix, "--json") == real.run("show", "ts", spec, "--json")
    dead = min(real.specs & real.dead)
    done = subprocess.run([sys.executable, "-m", "taskstore", "show", "ts", dead], cwd=real.folder, env=environment(),
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_importing_again(real: Real) -> None:
    """A second import changes no byte of the logs, nor does a third after the cache was lost."""
    before = logs(real.folder)
    for lose in (False, True):
        if lose:
            for path in (real.folder / ".taskstore").glob("store.db*"):
                path.unlink()
        answer = json.loads(real.run("import", "beads", os.fspath(LOG), "--json"))
        assert {name: (count["imported"], count["deleted"]) for name, count in answer["lines"].items()} == {
            "prd": (0, 0), "task_spec": (0, 0)}
        assert sum(count["unchanged"] for count in answer["lines"].values()) == sum(
            data.count(b"\n") for data in before.values())
        assert logs(real.folder) == before


def test_importing_over_changes(real: Real, tmp_path: Path) -> None:
    """What was changed or deleted here since stays so when the same log is imported again."""
    folder = shutil.copytree(real.folder, tmp_path / "copy")
    living = sorted(real.specs - real.dead)
    with Store.open(os.fspath(folder)) as store:
        assert len(store.list(Prd)) == len(real.epics - real.dead) + len(real.made)
        changed = store.update(TaskSpec, living[0], status=TaskSpecStatus.FAILED)
        store.delete(TaskSpec, living[1])
    before = logs(folder)
    real.run("import", "beads", os.fspath(LOG), folder=folder)
    assert logs(folder) == before
    with Store.open(os.fspath(folder)) as store:
        assert store.get(TaskSpec, living[0]) == changed
        assert living[1] not in {spec.id for spec in store.list(TaskSpec)}
