"""Disks that fail and fill up: what is refused is not there, what was acknowledged is, and nothing is ever half.

strace makes single system calls on the store's files fail; a limit on the size of files makes a write end short; a
small tmpfs is really full.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.daemons import running_daemon

CALLS = "write,pwrite64,fdatasync,fsync,ftruncate"
OPEN = """
store = Store.open(directory=directory)
store.sync()
def attempt(*operations):
    print(json.dumps(refused(store, *operations)))
def both():
    return operation("create", "prd", id="prd-both"), operation("create", "task_spec", id="ts-both", prd_id="prd-both")
"""
CREATE = OPEN + """
ready()
attempt(operation("create", "prd", id="prd-refused"))
attempt(operation("create", "prd", id="prd-after"))
"""
CREATE_BOTH = OPEN + """
ready()
attempt(*both())
attempt(operation("create", "prd", id="prd-after"))
"""
LIMIT = """
import resource
def limit(log, more):
    # a write that goes beyond ends short there, and the next one fails: what a disk does that fills up
    size = os.stat(f"{directory}/{log}").st_size + more
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def lift():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
NO = {"kind": "read_only", "applied": "no"}
UNKNOWN = {"kind": "read_only", "applied": "unknown"}


def told(answer: Any) -> Any:
    """What a caller was told, without the words, which must be one line."""
    if isinstance(answer, dict):
        assert "\n" not in answer["message"]
        return {"kind": answer["kind"], "applied": answer["applied"]}
    return answer


def aborted(site: Any) -> list[Any]:
    return [frame["abort"] for frame in site.frames() if "abort" in frame]


def lengthen(site: Any, kind: str) -> None:
    """Give a log a history that makes it longer than the store's other files."""
    line = {"id": "old", "prd_id": "prd-none", "title": "old", "phase_name": "old", "description": "old " * 100}
    with site.log(kind).open("ab") as log:
        log.writelines(json.dumps({**line, "updated_at": n}).encode() + b"\n" for n in range(2000))


# The outbox


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(("fault", "answer"), [
    ("fdatasync:error=EIO:when=1", NO), ("fdatasync:error=EIO:when=1+", UNKNOWN),
    ("pwrite64:error=EIO:when=1", UNKNOWN)])
def test_after_an_outbox_failed_a_process_writes_nothing_more(site, fault, answer):
    """A write that the outbox fails is refused and so is all that follows in that process; another process goes on."""
    ids = site.seed(2)
    before = site.logs()
    done = site.run_traced(OPEN + """
def files():
    return [open(path, "rb").read() for path in arguments]
ready()
attempt(operation("create", "prd", id="prd-refused"))
left = files()
attempt(operation("create", "prd", id="prd-after"))
print(len(store.find("prd")[0]))
store.close()
print(json.dumps(files() == left))
""", str(site.outbox), str(site.log()), calls=CALLS, inject=[fault], paths=[site.outbox, site.log()])
    assert list(map(told, done.said)) == [answer, NO, 2, True], done.err
    assert site.logs() == before
    site.assert_sound(ids, discarded=["prd-refused", "prd-after"])


@pytest.mark.usefixtures("strace")
def test_a_mark_that_cannot_be_written_costs_no_write(site):
    """A write whose line stands in its log is acknowledged, though the outbox could not note that; no other follows."""
    done = site.run_traced(CREATE, calls=CALLS, inject=["pwrite64:error=EIO:when=2"], paths=[site.outbox])
    assert list(map(told, done.said)) == ["prd-refused", NO], done.err
    site.assert_sound(["prd-refused"], discarded=["prd-after"])


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("fault", [
    ["pwrite64:error=ENOSPC:when=1"], ["fsync:error=EIO:when=1"],
    ["pwrite64:error=ENOSPC:when=1", "ftruncate:error=EIO:when=1"]])
def test_an_outbox_that_cannot_grow_refuses_the_write(site, fault):
    """A write for which the outbox would have to grow on a full disk is refused; one that fits is still written."""
    ids = [site.seed(1, content="much " * 60_000)[0] for _ in range(3)]
    before, frames = site.logs(), site.frames()
    done = site.run_traced(OPEN + """
ready()
attempt(operation("create", "prd", id="prd-refused", content="much " * 60_000))
print(os.path.getsize(arguments[0]))
attempt(operation("create", "prd", id="prd-after"))
""", str(site.outbox), calls=CALLS, inject=fault, paths=[site.outbox])
    assert list(map(told, done.said)) == [NO, 1 << 20, "prd-after"], done.err
    assert site.frames()[:len(frames)] == frames
    assert site.log().read_bytes().startswith(before["prd"])
    site.assert_sound([*ids, "prd-after"], discarded=["prd-refused"])


def test_an_outbox_that_grew_half_shrinks_again(site):
    """An outbox that the disk had no room for has its old size afterwards, and the store works once there is room."""
    ids = [site.seed(1, content="much " * 60_000)[0] for _ in range(3)]
    done = site.run(LIMIT + OPEN + """
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(arguments[0]) + 5000, resource.RLIM_INFINITY))
attempt(operation("create", "prd", id="prd-refused", content="much " * 60_000))
print(os.path.getsize(arguments[0]))
lift()
attempt(operation("create", "prd", id="prd-after", content="much " * 60_000))
""", str(site.outbox))
    assert list(map(told, done.said)) == [NO, 1 << 20, "prd-after"], done.err
    site.assert_sound([*ids, "prd-after"], discarded=["prd-refused"])


@pytest.mark.usefixtures("strace")
def test_an_outbox_that_cannot_be_cleared_of_old_frames_costs_no_write(site):
    """Retiring old frames is housekeeping: where there is no room for it, writes and closing go on as before."""
    old = site.run("set_clock(100 * 24 * 3600 * 1000)\n" + OPEN + 'create(store, id="prd-old")\nstore.close()')
    assert old.status == 0, old.err
    unsynced = site.run("set_clock(2000)\n" + OPEN + 'create(store, id="prd-unsynced")\nos._exit(0)')
    assert unsynced.status == 0, unsynced.err
    done = site.run_traced(OPEN + """
ready()
attempt(operation("create", "prd", id="prd-written"))
attempt(operation("create", "prd", id="prd-after"))
store.close()
""", calls="write,pwrite64", inject=["write:error=ENOSPC:when=1+"], paths=[site.private / "outbox.new"])
    assert done.calls
    assert done.said == ["prd-written", "prd-after"], done.err
    assert done.status == 0, done.err
    site.assert_sound(["prd-old", "prd-unsynced", "prd-written", "prd-after"])


@pytest.mark.usefixtures("strace")
def test_an_outbox_cleared_of_old_frames_still_knows_what_was_taken_back(site):
    """A frame that was taken back is dropped with its abort or kept with it: without, it would say it was written."""
    old = site.run("set_clock(100 * 24 * 3600 * 1000)\n" + OPEN + 'create(store, id="prd-old")\nstore.close()')
    assert old.status == 0, old.err
    done = site.run_traced(CREATE + "store.close()", calls=CALLS, inject=["write:error=ENOSPC:when=1"],
                           paths=[site.log()])
    assert list(map(told, done.said)) == [NO, "prd-after"], done.err
    writes: list[Any] = [frame for frame in site.frames() if "seq" in frame and frame["seq"] not in aborted(site)]
    ids = [json.loads(line)["id"] for frame in writes for _, line in frame["entries"]]
    assert ids == ["prd-after"]


# The logs


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EDQUOT"])
def test_a_log_that_cannot_be_written_takes_the_write_back(site, error):
    """A write that is durable in the outbox and fails in its log is taken back; the process may go on."""
    ids = site.seed(2)
    before = site.log().read_bytes()
    done = site.run_traced(CREATE, calls=CALLS, inject=[f"write:error={error}:when=1"], paths=[site.log(), site.outbox])
    assert list(map(told, done.said)) == [NO, "prd-after"], done.err
    written, abort = ["pwrite64", "fdatasync", "write"], ["pwrite64", "fdatasync"]
    assert [name for name, _ in done.calls][:5] == written + abort
    assert len(aborted(site)) == 1
    after = site.log().read_bytes()
    assert after.startswith(before)
    assert [json.loads(line)["id"] for line in after[len(before):].splitlines()] == ["prd-after"]
    site.assert_sound([*ids, "prd-after"], discarded=["prd-refused"])


@pytest.mark.usefixtures("strace")
def test_what_was_taken_back_does_not_come_with_a_power_loss(site, boots):
    """Whoever reads the outbox on the next boot restores what was acknowledged, and not what was refused."""
    done = site.run_traced(CREATE + "os._exit(0)", calls=CALLS, inject=["write:error=ENOSPC:when=1"],
                           paths=[site.log()])
    assert list(map(told, done.said)) == [NO, "prd-after"], done.err
    site.log().write_bytes(b"")
    restored = site.run('print(len(Store.open(directory=directory).find("prd")[0]))', boot=boots[0])
    assert restored.said == [1], restored.err
    site.assert_sound(["prd-after"], discarded=["prd-refused"])


@pytest.mark.usefixtures("strace")
def test_writes_over_two_logs_are_taken_back_from_both(site):
    """When the second log of one request cannot be written, the first one too is as it was, byte for byte."""
    before = site.logs()
    done = site.run_traced(CREATE_BOTH.replace("attempt(operation", "os._exit(0)\nattempt(operation"), calls=CALLS,
                           inject=["write:error=ENOSPC:when=1"], paths=[site.log("task_spec")])
    assert done.status == 0, done.err
    assert site.logs() == before
    site.assert_sound([], discarded=["prd-both", "ts-both"])


@pytest.mark.parametrize("more", [0, 1, 60])
@pytest.mark.parametrize("kind", ["prd", "task_spec"])
def test_a_write_that_ends_short_is_taken_back(site, kind, more):
    """What a disk that fills up took of a line, or of the lines of one request, is cut off again, byte for byte."""
    lengthen(site, kind)
    before = site.logs()
    done = site.run(LIMIT + OPEN + f"""
limit("{kind}s.jsonl", {more})
attempt(*both())
lift()
print(json.dumps([len(open(path, "rb").read()) for path in arguments]))
attempt(operation("create", "prd", id="prd-after"))
""", str(site.log("prd")), str(site.log("task_spec")))
    assert list(map(told, done.said)) == [NO, [len(before["prd"]), len(before["task_spec"])], "prd-after"], done.err
    assert all(site.log(kind).read_bytes().startswith(before[kind]) for kind in before)
    site.assert_sound(["prd-after"], discarded=["prd-both", "ts-both"])


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("who", ["the same process", "another process"])
@pytest.mark.parametrize("kind", ["prd", "task_spec"])
def test_what_could_not_be_cut_off_is_completed(site, kind, who):
    """Where a torn line cannot be cut off, the answer is "unknown", and whoever writes next completes the request."""
    lengthen(site, kind)
    done = site.run_traced(LIMIT + OPEN + f"""
limit("{kind}s.jsonl", 60)
ready()
attempt(*both())
lift()
{'attempt(operation("create", "prd", id="prd-after"))' if who == "the same process" else ""}
""", calls=CALLS, inject=["ftruncate:error=EIO:when=1+"], paths=[site.log("prd"), site.log("task_spec")])
    assert list(map(told, done.said)) == [UNKNOWN, "prd-after"][:1 + (who == "the same process")], done.err
    site.assert_sound(["prd-both", "ts-both", *done.said[1:]], together=[("prd-both", "ts-both")], write_first=True)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(("fault", "following"), [
    ("fdatasync:error=EIO:when=2", NO), ("pwrite64:error=EIO:when=2", NO)])
def test_a_write_that_cannot_be_taken_back_for_sure_is_unknown(site, fault, following):
    """Where the abort cannot be made durable, the answer is "unknown" and the process writes nothing more."""
    ids = site.seed(2)
    done = site.run_traced(CREATE, calls=CALLS, inject=["write:error=ENOSPC:when=1", fault],
                           paths=[site.log(), site.outbox])
    assert list(map(told, done.said)) == [UNKNOWN, following], done.err
    site.assert_sound(ids, together=[("prd-refused",)], discarded=["prd-after"])


@pytest.mark.usefixtures("strace")
def test_a_log_that_cannot_be_synced_is_made_good_from_the_outbox(site, boots):
    """A failed sync at close costs nothing that was acknowledged: what a power loss then takes is restored."""
    done = site.run_traced(OPEN + """
ready()
create(store, id="prd-written")
store.close()
""", calls=CALLS, inject=["fdatasync,fsync:error=EIO:when=1+"], paths=[site.log()])
    assert done.status == 0, done.err
    assert not [frame for frame in site.frames() if "synced" in frame]
    site.log().write_bytes(b"")
    restored = site.run('print(len(Store.open(directory=directory).find("prd")[0]))', boot=boots[0])
    assert restored.said == [1], restored.err
    site.assert_sound(["prd-written"])


@pytest.mark.usefixtures("strace")
def test_a_later_sync_does_not_vouch_for_one_that_failed(site, boots):
    """After a failed sync the kernel forgets what it did not write, so that another process's sync proves nothing."""
    failed = site.run_traced(OPEN + """
ready()
create(store, id="prd-written")
store.close()
""", calls=CALLS, inject=["fdatasync,fsync:error=EIO:when=1"], paths=[site.log()])
    assert failed.status == 0, failed.err
    later = site.run(OPEN + 'create(store, id="prd-later")\nstore.close()')
    assert later.status == 0, later.err
    site.log().write_bytes(site.lines()[1] + b"\n")
    restored = site.run('print(len(Store.open(directory=directory).find("prd")[0]))', boot=boots[0])
    assert restored.said == [2], restored.err


def test_a_write_is_acknowledged_though_another_log_cannot_be_synced(site):
    """A log that git is just replacing delays its own sync; it does not turn a durable write into an error."""
    written = site.run("""
set_clock(2000)
create(Store.open(directory=directory), "task_spec", id="ts-unsynced", prd_id="prd-none")
os._exit(0)
""")
    assert written.status == 0, written.err
    kept = site.log("task_spec").read_bytes()
    site.log("task_spec").unlink()
    lock = site.root / ".git" / "index.lock"
    lock.touch()
    done = site.run(OPEN + 'attempt(operation("create", "prd", id="prd-written"))\nstore.close()')
    assert done.said == ["prd-written"], done.err
    lock.unlink()
    site.log("task_spec").write_bytes(kept)
    site.assert_sound(["ts-unsynced", "prd-written"])


@pytest.mark.usefixtures("strace")
def test_a_store_closes_quietly_though_its_disk_became_read_only(site):
    """What was acknowledged needs nothing more of the disk: a store that cannot be locked any more is just closed."""
    done = site.run_traced("ready()\n" + OPEN + """
create(store, id="prd-written")
store.close()
""", calls="openat", inject=["openat:error=EROFS:when=3+"], paths=[site.private / "lock"])
    assert done.calls.count(("openat", str(site.private / "lock"))) == 3
    assert done.status == 0, done.err
    site.assert_sound(["prd-written"])


# The cache


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize(("name", "warm"), [("store.db", False), ("store.db-wal", False), ("store.db-wal", True)])
def test_a_cache_that_cannot_be_written_costs_no_write(site, name, warm, error):
    """A write is acknowledged where only the cache fails, and the next read, here and elsewhere, sees it."""
    if name == "store.db-wal":
        site.seed(1, id="prd-before")
    begin = OPEN + 'create(store, id="prd-warm")\nready()\n' if warm else "ready()\n" + OPEN
    done = site.run_traced(begin + """
create(store, id="prd-written")
attempt(operation("update", "prd", id="prd-written", title="another"))
print(json.dumps(json.loads(store.get("prd", "prd-written"))["title"]))
store.close()
""", calls=CALLS, inject=[f"pwrite64:error={error}:when=1+"], paths=[site.directory / name])
    assert done.said == ["prd-written", "another"], done.err
    assert any(path.endswith(name) for _, path in done.calls)
    assert "prd-written" in site.ids()
    site.assert_sound(site.acknowledged())


# A file system that is full


@pytest.fixture
def small(tmp_path, sites):
    """A store on a file system of 3 MiB."""
    with tmpfs(tmp_path / "small") as folder:
        yield sites.on(folder)


@contextlib.contextmanager
def tmpfs(folder: Path, size: str = "3M") -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("mounting a tmpfs needs root")
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(site: Any) -> Path:
    """Use up the last byte of the file system that a site lies on; the file to delete for room."""
    filler: Path = site.root.parent / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def create(site: Any, *, size: int) -> str | None:
    """The id that `taskstore create` printed; None where it refused, with status 3 and one clear line."""
    done = site.cli("create", "prd", "--set", "title=a title", "--set", f"content={'x' * size}")
    if done.status == 0:
        return str(done.out.strip())
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert "No space left on device" in done.err
    return None


def test_a_full_disk_refuses_writes_in_one_line_and_recovers_by_itself(small):
    """On a full disk a create ends with status 3 and one line, nothing is half-written; with room again it works."""
    ids = small.seed(5)
    filler = fill(small)
    before = small.logs()
    for size in (5000, 10_000, 20_000, 5000):
        assert create(small, size=size) is None
        assert small.logs() == before
    written = [create(small, size=200) for _ in range(40)]
    assert None in written
    ids += [key for key in written if key]
    assert sorted(small.ids()) == sorted(ids)
    filler.unlink()
    small.assert_sound(ids, write_first=True)


@pytest.mark.parametrize("through", ["files", "daemon"])
def test_a_disk_that_is_full_again_and_again(small, long, through):
    """However often a disk fills up and is freed: what was refused is nowhere, and the next write simply works.

    Nor does the cache fill it up: what SQLite has put off is done once there is room.
    """
    put_off = small.directory / "store.db-wal"
    ids, refused = small.seed(5), 0
    with running_daemon(str(small.directory)) if through == "daemon" else contextlib.nullcontext():
        for _ in range(100 if long else 8):
            filler = fill(small)
            written = [create(small, size=size) for size in (5000, 200)]
            filler.unlink()
            refused += written.count(None)
            written.append(create(small, size=200))
            assert written[0] is None
            assert written[-1] is not None
            ids += filter(None, written)
            assert sorted(small.ids()) == sorted(ids)
            assert not put_off.exists() or put_off.stat().st_size < 1 << 18
    assert refused
    small.assert_sound(ids)


def test_a_disk_that_is_full_before_the_first_write_refuses_it(small):
    """Where there is no room even for the outbox, the first create leaves nothing behind, and later simply works."""
    filler = fill(small)
    before = small.logs()
    for _ in range(2):
        assert create(small, size=10) is None
    assert small.logs() == before
    assert small.ids() == []
    filler.unlink()
    small.assert_sound([])


def test_init_on_a_full_disk_can_be_repeated(tmp_path, sites):
    """`init` without room for a store says so in one line, and completes the store once there is room."""
    with tmpfs(tmp_path / "small") as folder:
        site = sites.on(folder, store=False)
        filler = fill(site)
        refused = site.cli("init")
        assert (refused.status, refused.out, refused.err.count("\n")) == (3, "", 1)
        assert "No space left on device" in refused.err
        filler.unlink()
        assert site.cli("init").status == 0
        site.assert_sound([])


def test_a_read_only_file_system_can_be_read(small):
    """A store on a file system that was mounted read-only is read as before, and a write says what is wrong."""
    ids = small.seed(3)
    crashed = small.run('create(Store.open(directory=directory), id="prd-unsynced")\nos._exit(0)')
    assert crashed.status == 0, crashed.err
    remount = ["mount", "-o", "remount,{}", str(small.root.parent)]
    subprocess.run([word.format("ro") for word in remount], check=True)
    assert sorted(small.ids()) == sorted([*ids, "prd-unsynced"])
    refused = small.cli("create", "prd", "--set", "title=a title")
    subprocess.run([word.format("rw") for word in remount], check=True)
    assert (refused.status, refused.out, refused.err.count("\n")) == (3, "", 1)
    assert "Read-only file system" in refused.err
    small.assert_sound([*ids, "prd-unsynced"])
