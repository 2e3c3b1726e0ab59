"""Many agents as processes on one store without a daemon: one holder each, whoever dies, and whatever git does."""

import json
import signal
import subprocess
from collections import Counter
from typing import Any

import pytest

CHANGING = ("write", "pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "unlink", "utimensat")
TRACED = ",".join(f"?{name}" for name in CHANGING)

CALL = """
from taskstore_core.methods import dispatch
from taskstore_core.plain import to_json

def call(name, **parameters):
    try:
        return json.loads(to_json(dispatch(store, name, parameters)))
    except TaskStoreError as error:
        return {"error": error.kind}

store = Store.open(directory=directory)
"""
AGENT = CALL + """
name, = arguments
ready()

def patiently(name, **parameters):
    while (said := call(name, **parameters)) == {"error": "busy"}:
        pass  # nothing happened, and it may be tried again
    return said

while (claimed := patiently("task_spec.claim", by=name)) is not None:
    print(json.dumps([claimed["id"], claimed["token"]]))
    if random.random() < 0.5:
        assert "error" not in patiently("task_spec.complete", id=claimed["id"], by=name, token=claimed["token"])
store.close()
"""
CLAIM = CALL + """
ready()
print(json.dumps(call("task_spec.claim", by=arguments[0], **({"op": arguments[1]} if len(arguments) > 1 else {}),
                      lease_ms=int(arguments[2]) if len(arguments) > 2 else 900_000)))
store.close()
"""
HOLD = CALL + """
print(json.dumps(call("task_spec.claim", by=arguments[0], op="op-1", lease_ms=1)), flush=True)
sys.stdin.readline()
"""
SETTLE = CALL + """
ready()
print(json.dumps(call("task_spec.complete", id=arguments[0], by=arguments[1], token=arguments[2])))
store.close()
"""
RELEASE = CALL + """
store.sync()
ready()
print(json.dumps(call("task_spec.release", id="t0", by="ann", token=arguments[0], op="op-2")))
store.close()
"""
MANY = CALL + """
store.sync()
ready()
call("store.apply", ops=[{"op": "create", "kind": "prd", "record": {"title": "T"}} for _ in range(1000)])
store.close()
"""


def specs(site: Any, count: int) -> list[str]:
    """Ready task specs, and their ids."""
    lines = "".join(json.dumps({"id": f"t{n}", "prd_id": "p", "phase_name": "N"}) + "\n" for n in range(count))
    (site.root / "specs.jsonl").write_text(lines)
    done = site.cli("create", "task_spec", "--file", "specs.jsonl")
    assert done.status == 0, done.err
    (site.root / "specs.jsonl").unlink()
    return [f"t{n}" for n in range(count)]


def claim(site: Any, *arguments: str) -> Any:
    """What a process that claims is answered."""
    done = site.run(CLAIM, *arguments)
    assert done.status == 0, done.err
    return done.said[0]


def test_every_task_spec_has_one_holder(site: Any, long: bool) -> None:
    """Processes that claim at once get every ready task spec, each of them once, and none is left."""
    processes, count = (32, 1000) if long else (8, 120)
    wanted = specs(site, count)
    agents = [site.start(AGENT, f"agent-{n}") for n in range(processes)]
    for agent in agents:
        site.await_word(agent, "ready")
    for agent in agents:
        site.go_on(agent)
    claimed = []
    for agent in agents:
        with agent:
            out, err = agent.communicate(timeout=300)
        assert agent.returncode == 0, err
        claimed += [json.loads(line) for line in out.splitlines()]
    assert Counter(key for key, _ in claimed) == Counter(wanted)
    assert len({token for _, token in claimed}) == count
    assert claim(site, "late") is None
    site.assert_sound([])


def test_a_repeated_op_is_one_claim(site: Any) -> None:
    """Sent again by another process, a claim's op gives the same task spec and token while it is held."""
    specs(site, 2)
    first = claim(site, "ann", "op-1")
    assert claim(site, "ann", "op-1") == first
    assert claim(site, "bob")["id"] != first["id"]
    assert claim(site, "eve") is None
    assert "error" not in site.run(SETTLE, first["id"], "ann", first["token"]).said[0]
    assert claim(site, "ann", "op-1") == {"error": "conflict"}


def test_a_killed_holder_loses_it_with_its_lease(site: Any) -> None:
    """What a killed process held is claimed by another once the lease is over, and its old token is refused."""
    specs(site, 1)
    with site.start(HOLD, "ann") as holder:
        assert holder.stdout is not None
        first = json.loads(holder.stdout.readline())
        holder.kill()
    assert holder.returncode == -signal.SIGKILL
    for _ in site.poll():
        second = claim(site, "bob")
        if second is not None:
            break
    assert (second["id"], second["assigned_to"]) == (first["id"], "bob")
    assert site.run(SETTLE, first["id"], "ann", first["token"]).said == [{"error": "conflict"}]
    assert "error" not in site.run(SETTLE, second["id"], "bob", second["token"]).said[0]


def test_a_claim_holds_on_every_branch(site: Any) -> None:
    """After a checkout of a branch on which the task spec is pending, and back, its holder holds it still."""
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=site.root, check=True,
                       capture_output=True)

    specs(site, 1)
    git("add", ".taskstore")
    git("commit", "-qm", "pending")
    git("branch", "other")
    first = claim(site, "ann", "op-1")
    git("commit", "-qam", "running")
    git("checkout", "-q", "other")
    assert json.loads(site.cli("show", "ts", "t0", "--json").out)["status"] == "pending"
    assert claim(site, "bob") is None
    assert claim(site, "ann", "op-1")["token"] == first["token"]
    git("checkout", "-q", "-")
    assert claim(site, "bob") is None
    assert "error" not in site.run(SETTLE, first["id"], "ann", first["token"]).said[0]


def points(calls: list[tuple[str, str]], long: bool, sample: int) -> list[str]:
    """What strace is told, to kill at each of these calls, or at some of them."""
    counts: Counter[str] = Counter()
    found = []
    for name, _ in calls:
        if name in CHANGING:
            counts[name] += 1
            found.append(f"{name}:signal=KILL:when={counts[name]}")
    step = 1 if long else max(1, len(found) // sample)
    return found[::step]


@pytest.mark.usefixtures("strace")
def test_a_killed_apply_is_whole_or_absent(site: Any, sites: Any, long: bool) -> None:
    """Killed at any system call that changes a file, an apply of 1,000 operations is there whole or not at all."""
    whole = sites.copy(site)
    traced = whole.run_traced(MANY, calls=TRACED)
    assert traced.status == 0, traced.err
    assert len(whole.ids()) == 1000
    seen: Counter[int] = Counter()
    for point in points(traced.calls, long, 5):
        copy = sites.copy(site)
        assert copy.run_traced(MANY, calls=TRACED, inject=[point]).killed, point
        seen[len(copy.ids())] += 1
    assert seen.keys() == {0, 1000}, seen


def test_a_bad_operation_among_many_writes_nothing(site: Any) -> None:
    """An apply of 1,000 operations with one bad one in the middle leaves every file as it was."""
    before = site.logs()
    lines = [json.dumps({"title": "T"}) for _ in range(1000)]
    lines[500] = json.dumps({"title": "T", "status": "nope"})
    (site.root / "many.jsonl").write_text("\n".join(lines))
    done = site.cli("create", "prd", "--file", "many.jsonl")
    assert done.status == 2
    assert "line 501" in done.err
    assert site.logs() == before
    assert site.ids() == []


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("first", ["ann", "bob"])
def test_a_killed_claim_never_has_two_holders(site: Any, sites: Any, long: bool, first: str) -> None:
    """Killed at any system call that changes a file, a claim tried again holds, unless somebody else was first."""
    specs(site, 1)
    traced = sites.copy(site).run_traced(CLAIM, "ann", "op-1", calls=TRACED)
    assert traced.status == 0, traced.err
    for point in points(traced.calls, long, 5):
        copy = sites.copy(site)
        assert copy.run_traced(CLAIM, "ann", "op-1", calls=TRACED, inject=[point]).killed, point
        if first == "ann":
            assert claim(copy, "ann", "op-1")["assigned_to"] == "ann", point
            assert claim(copy, "bob") is None, point
        else:
            taken = claim(copy, "bob")
            retried = claim(copy, "ann", "op-1")
            holders = [one for one in (taken, retried) if one is not None and "error" not in one]
            assert len(holders) == 1, (point, taken, retried)


@pytest.mark.usefixtures("strace")
def test_a_killed_release_can_be_repeated(site: Any, sites: Any, long: bool) -> None:
    """Killed at any system call that changes a file, a release sent again frees its task spec, and for one alone."""
    specs(site, 1)
    token = claim(site, "ann", "op-1")["token"]
    traced = sites.copy(site).run_traced(RELEASE, token, calls=TRACED)
    assert traced.status == 0, traced.err
    for point in points(traced.calls, long, 5):
        copy = sites.copy(site)
        assert copy.run_traced(RELEASE, token, calls=TRACED, inject=[point]).killed, point
        again = copy.run(RELEASE, token)
        assert again.said[0].get("status") == "pending", (point, again)
        assert claim(copy, "bob")["assigned_to"] == "bob", point
        assert claim(copy, "eve") is None, point
