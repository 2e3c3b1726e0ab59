"""SQLite's files failing under it, through a VFS that fails on purpose: cache and leases are only beside the log.

strace fails a system call; here it is the answer that SQLite is given: codes that no system call has (a file that is
locked for good, shared memory that cannot be had), and any number of them.
"""

from typing import Any

import pytest
from tests.conftest import Site

from taskstore_core.batch import Operation
from taskstore_core.kinds import KINDS

FAILING = """
import apsw

class File(apsw.VFSFile):
    def __init__(self, name, flags):
        super().__init__("unix", name, flags)
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else name

    def fail(self, call):
        global left
        if broken and call == fault and self.path.endswith(suffix) and left:
            left -= 1
            raise error("on purpose")

    def xRead(self, amount, offset):
        self.fail("read")
        return super().xRead(amount, offset)

    def xWrite(self, data, offset):
        self.fail("write")
        return super().xWrite(data, offset)

    def xSync(self, flags):
        self.fail("sync")
        return super().xSync(flags)

    def xLock(self, level):
        self.fail("lock")
        return super().xLock(level)

    def xTruncate(self, size):
        self.fail("truncate")
        return super().xTruncate(size)

    def xFileSize(self):
        self.fail("size")
        return super().xFileSize()

class Failing(apsw.VFS):
    def __init__(self):
        super().__init__("failing", "unix", makedefault=True)

    def xOpen(self, name, flags):
        global left
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if broken and fault == "open" and path and path.endswith(suffix) and left:
            left -= 1
            raise error("on purpose")
        return File(name, flags)

fault, suffix, error, left = arguments[0], arguments[1], getattr(apsw, arguments[2]), int(arguments[3])
broken = False
vfs = Failing()
"""
WORK = FAILING + """
from taskstore_core.methods import dispatch
from taskstore_core.plain import to_json

def tell(name, **parameters):
    try:
        answer = json.loads(to_json(dispatch(store, name, parameters)))
    except TaskStoreError as error:
        answer = {"error": error.kind, "applied": error.applied, "message": error.message}
    print(json.dumps(answer), flush=True)

def work(number):
    tell("record.create", kind="prd", record={"id": f"prd-{number}", "title": "t"})
    tell("record.update", kind="prd", id="prd-old", set={"title": f"changed-{number}"})
    tell("record.get", kind="prd", id="prd-old")
    tell("record.list", kind="prd")
    tell("task_spec.claim", by="ann", id=f"ts-{number}")

store = Store.open(directory=directory)
if arguments[4] == "open":
    store.sync()
    work(0)
broken = True
work(1)
broken = False
work(2)
store.close()
print(json.dumps(int(arguments[3]) - left))
"""
FAULTS = [("read", "store.db", "IOError"), ("write", "store.db-wal", "FullError"), ("write", "store.db-wal", "IOError"),
          ("sync", "store.db-wal", "IOError"), ("lock", "store.db", "IOError"),
          pytest.param("lock", "store.db", "BusyError", marks=pytest.mark.long),  # waits 5 s each time
          ("size", "store.db", "IOError"), ("open", "store.db", "CantOpenError"),
          ("open", "store.db-wal", "CantOpenError"), ("read", "leases.db", "IOError"),
          ("write", "leases.db-wal", "FullError"), ("write", "leases.db-wal", "IOError"),
          ("open", "leases.db", "CantOpenError"), ("lock", "leases.db", "IOError"), ("size", "leases.db", "IOError")]
FOREVER = 1 << 30
SHORT = [(1, "open"), (FOREVER, "new"), (FOREVER, "open")]
LONG = [(times, when) for times in (1, 2, 3, 5, FOREVER) for when in ("open", "new")]


@pytest.mark.parametrize(("call", "file", "error"), FAULTS)
def test_sqlite_fails(sites: Any, long: bool, call: str, file: str, error: str) -> None:
    """A cache that fails costs no write and no true answer; leases that fail refuse claims; both heal by themselves.

    It fails once, or some times, or for as long as it is asked, to a store that is open already or is just opened.
    """
    begin = seeded(sites())
    failed = 0
    for times, when in LONG if long else SHORT:
        site = sites.copy(begin)
        done = site.run(WORK, call, file, error, str(times), when)
        assert done.status == 0, (times, when, done.err)
        *said, count = done.said
        failed += count
        rounds = [said[place:place + 5] for place in range(0, len(said), 5)]
        first = 0 if when == "open" else 1
        for number, answers in enumerate(rounds, first):
            judge(number, answers, may_refuse=number == 1 and file.startswith("leases"))
        with site.open() as store:
            running = sum('"status":"running"' in line for line in store.find("task_spec")[0])
        claims: list[Any] = [answers[4] for answers in rounds]
        held, unsure = (sum(key in claim for claim in claims) for key in ("token", "error"))
        assert held <= running <= held + unsure
        site.assert_sound([f"prd-{number}" for number in range(first, 3)])
    assert failed


def seeded(site: Site) -> Site:
    """A store with a PRD to change and task specs to claim."""
    site.seed(1, id="prd-old")
    with site.open() as store:
        store.apply([Operation("create", KINDS["task_spec"], {"id": f"ts-{number}", "prd_id": "p", "phase_name": "n"})
                     for number in range(3)])
        assert store.flush(60)
    return site


def judge(number: int, answers: list[Any], *, may_refuse: bool) -> None:
    """Assert that one round of work went well, but for a claim that may be refused."""
    created, updated, got, listed, claimed = answers
    assert created.get("id") == f"prd-{number}", created
    assert updated.get("title") == got.get("title") == f"changed-{number}", (updated, got)
    assert f"prd-{number}" in {record["id"] for record in listed["items"]}
    if may_refuse and "error" in claimed:
        assert claimed["error"] in {"read_only", "busy"}
        assert "\n" not in claimed["message"]
    else:
        assert claimed.get("token"), claimed
