"""Each system call on each of the store's files, failing in each way: no false answer, no crash, and it heals.

strace says which calls a process that opens, writes, reads, claims and closes makes, and lets it make them again with
one of them failing: once, or from then on. With `--long` all of them.
"""

import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Outcome, Site

CALLS = ("openat,read,pread64,write,pwrite64,fdatasync,fsync,ftruncate,fstat,newfstatat,stat,lstat,flock,fcntl,lseek,"
         "mmap,utimensat,mkdir,mkdirat,rename,renameat2,unlink,unlinkat,getdents64,chmod,fchmod,link,linkat,access,"
         "faccessat2")
_TRACED = ",".join(f"?{name}" for name in CALLS.split(","))
ERRORS = ["EIO", "ENOSPC", "EROFS", "EACCES", "EINTR"]
WORK = """
from taskstore_core.methods import dispatch
from taskstore_core.plain import to_json

def tell(step, name, **parameters):
    try:
        answer = json.loads(to_json(dispatch(store, name, parameters)))
    except TaskStoreError as error:
        answer = {"error": error.kind, "applied": error.applied}
        assert error.kind != "internal" and "\\n" not in error.message, error.message
    print(json.dumps([step, answer]), flush=True)
    return answer

def create(kind, key, **fields):
    return {"op": "create", "kind": kind, "record": {"id": key, **fields}}

ready()
try:
    store = Store.open(directory=directory)
except TaskStoreError as error:
    print(json.dumps(["open", {"error": error.kind}]))
    sys.exit(0)
tell("create", "record.create", kind="prd", record={"id": "prd-new", "title": "new"})
tell("update", "record.update", kind="prd", id="prd-old", set={"title": "changed"})
tell("get", "record.get", kind="prd", id="prd-old")
tell("both", "store.apply", ops=[create("prd", "prd-both", title="b"), create("task_spec", "ts-both", prd_id="prd-both",
                                                                               phase_name="n")])
tell("list", "record.list", kind="prd")
claimed = tell("claim", "task_spec.claim", by="ann", id="ts-old")
if claimed.get("token"):
    tell("complete", "task_spec.complete", id="ts-old", by="ann", token=claimed["token"])
store.close()
"""


def seeded(site: Site, *, cold: bool) -> Site:
    """A store with a little in it; `cold` without a cache."""
    site.seed(1, id="prd-old")
    with site.open() as store:
        from taskstore_core.batch import Operation
        from taskstore_core.kinds import KINDS

        store.apply([Operation("create", KINDS["task_spec"], {"id": "ts-old", "prd_id": "prd-old", "phase_name": "n"})])
        assert store.flush(60)
    if cold:
        site.lose_cache()
    site.calm()
    return site


def points(calls: list[tuple[str, str]], site: Site) -> list[tuple[str, str, int]]:
    """(file, call, number of the call on that file) of what happens to the store's own files."""
    ours = {str(site.directory), str(site.private)}
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for name, path in calls:
        if path in ours or str(Path(path).parent) in ours:
            counts[path, name] += 1
            found.append((path, name, counts[path, name]))
    return found


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(("cold", "error"), [
    pytest.param(cold, error, id=f"{('warm', 'cold')[cold]}-{error}")
    for cold in (False, True) for error in ERRORS])
def test_each_call_fails(sites: Any, long: bool, error: str, cold: bool) -> None:
    """Whichever call fails: answers are true or errors, what was acknowledged is there, what was refused is not."""
    begin = seeded(sites(), cold=cold)
    traced = sites.copy(begin)
    done = traced.run_traced(WORK, calls=_TRACED)
    assert done.status == 0, done.err
    every = points(done.calls, traced)
    assert len(every) > 50
    chosen = every if long else sorted(every, key=lambda point: zlib.crc32(repr((point[1:], error)).encode()))[:6]
    faults = []
    for path, name, number in chosen:
        lasting = "" if error == "EINTR" else "+"  # for ever is how often Python tries again
        for more in {"", lasting} if long else (lasting if number % 2 else "",):
            site = sites.copy(begin)
            here = path.replace(str(traced.root), str(site.root), 1)
            done = site.run_traced(WORK, calls=_TRACED, inject=[f"{name}:error={error}:when={number}{more}"],
                                   paths=[Path(here)])
            try:
                judge(site, done)
            except AssertionError as fault:
                faults.append(f"{name} of {Path(path).name}, {number}{more}: {fault}; {done.err[-1500:]}")
    print(f"{error}: {len(chosen)} of {len(every)} calls, {len(faults)} faults")  # noqa: T201 - what the campaign shows
    assert not faults, "\n".join(faults)


def judge(site: Site, done: Outcome) -> None:
    """Assert that what a process was told is true, and that its store is sound."""
    assert done.status == 0
    answers: dict[str, Any] = dict(done.said)  # type: ignore[arg-type]
    writes = {"create": ["prd-new"], "both": ["prd-both", "ts-both"]}
    acknowledged, refused, together = ["prd-old", "ts-old"], [], []
    for step, keys in writes.items():
        answer = answers.get(step, {"error": "", "applied": "no"})
        if not isinstance(answer, dict) or "error" not in answer:
            acknowledged += keys
        elif answer["applied"] == "no":
            refused += keys
        together.append(keys)
    reads(answers)
    site.assert_sound(acknowledged, together=together, discarded=refused)
    with site.open() as store:
        title = json.loads(store.get("prd", "prd-old"))["title"]
        status = json.loads(store.get("task_spec", "ts-old"))["status"]
    for step, seen, after, before in (("update", title, "changed", "seed 0"), ("complete", status, "complete", None)):
        answer = answers.get(step, {"error": "", "applied": "no"})
        if "error" not in answer:
            assert seen == after
        elif before is not None and answer["applied"] == "no":
            assert seen == before


def reads(answers: dict[str, Any]) -> None:
    """Assert that no read was older than what was acknowledged before it."""
    changed, got, listed = (answers.get(step, {"error": ""}) for step in ("update", "get", "list"))
    if "error" not in changed and "error" not in got:
        assert got["title"] == "changed"
    if "error" not in listed:
        there = {record["id"] for record in listed["items"]}
        for step, key in (("create", "prd-new"), ("both", "prd-both")):
            answer = answers[step]
            if isinstance(answer, dict) and "error" in answer:
                assert answer["applied"] != "no" or key not in there
            else:
                assert key in there
