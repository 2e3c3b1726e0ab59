"""Power loss: what was acknowledged was on the disk by then, or can be restored from what was.

The real thing on an ext4 image: a copy of the image, taken while the writer stands still in whatever it was doing,
holds just what had been handed to the disk. And the same by hand where that needs no root: lines that were never
synced are taken out of the log. Either way another boot id tells the store that it happened.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WRITER = """
store = Store.open(directory=directory)
for n in range(1_000_000):
    create(store, content="some " * random.randrange(400))
    apply(store, operation("create", "prd", id=f"prd-{n}"),
          operation("create", "task_spec", id=f"ts-{n}", prd_id=f"prd-{n}"))
"""
# No log may be synced on the way, however slow the machine: what a sync has reached no power loss takes.
UNSYNCED = """
import taskstore_core.keeper
taskstore_core.keeper._SETTLE_MS = 1 << 40
"""
REOPEN = UNSYNCED + """
store = Store.open(directory=directory)
print(json.dumps([json.loads(line)["id"] for kind in ("prd", "task_spec") for line in store.find(kind)[0]]))
create(store)
store.close()
"""
CREATE_FIVE = UNSYNCED + """
store = Store.open(directory=directory)
for n in range(4):
    create(store, id=f"prd-{n}", content=f"some {n} " * 20)
apply(store, operation("create", "prd", id="prd-4"), operation("create", "task_spec", id="ts-4", prd_id="prd-4"))
"""
CRASH = CREATE_FIVE + "os._exit(0)"
TEAR = UNSYNCED + """
apply(Store.open(directory=directory), operation("create", "prd", id="prd-torn"),
      operation("create", "task_spec", id="ts-torn", prd_id="prd-torn", content="torn " * 2000))
os._exit(0)
"""
CLOSE = CREATE_FIVE + "store.close()"


# On a disk


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """The file system in `image`, at `folder`."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def make_image(path: Path) -> Path:
    """An empty ext4 file system in a file."""
    with path.open("xb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(path)], check=True)
    return path


@pytest.fixture
def loop_device(tmp_path):
    """Skips the test where a disk image cannot be mounted."""
    if os.geteuid():
        pytest.skip("mounting a disk image needs root")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    try:
        with mounted(make_image(tmp_path / "trial.img"), tmp_path / "trial"):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a disk image cannot be mounted here: {error}")


@pytest.mark.usefixtures("loop_device")
def test_what_was_acknowledged_before_the_power_failed_is_there_after_it(sites, boots, long, tmp_path):
    """Every record acknowledged before the disk was copied is in the store on the copy, whose next append succeeds."""
    for number in range(25 if long else 1):
        image = make_image(tmp_path / f"disk-{number}.img")  # of its own: a loop device may still know the last one
        with mounted(image, tmp_path / "disk") as disk:
            site = sites.on(disk)
            subprocess.run(["sync", "--file-system", str(disk)], check=True)  # git's own files are not what is tried
            with site.start(WRITER) as writer:
                try:
                    for after_sync in (0, 1):
                        await_writes(site, writer, 20 + 31 * number % 101, after_sync)
                        with stopped(site, writer):
                            acknowledged = site.acknowledged()
                            copy = Path(shutil.copy(image, tmp_path / f"copy-{number}-{after_sync}.img"))
                            look_at(copy, acknowledged, sites, boots[0], tmp_path)
                finally:
                    writer.kill()
        image.unlink()


def await_writes(site: Any, writer: "subprocess.Popen[str]", count: int, syncs: int) -> None:
    """Wait until so many more records were acknowledged, and the logs synced so many times more."""
    wanted = len(site.acknowledged()) + count
    synced = len(marks(site)) + syncs
    for _ in site.poll():
        assert writer.poll() is None, writer.communicate()[1]
        if len(site.acknowledged()) >= wanted and len(marks(site)) >= synced:
            break


def marks(site: Any) -> list[Any]:
    return [frame for frame in site.frames() if "synced" in frame] if site.outbox.exists() else []


@contextlib.contextmanager
def stopped(site: Any, process: "subprocess.Popen[str]") -> Iterator[None]:
    """Stops a process wherever it is, but for a system call, which it ends."""
    process.send_signal(signal.SIGSTOP)
    for _ in site.poll():
        if Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T":
            break
    yield
    process.send_signal(signal.SIGCONT)


def look_at(copy: Path, acknowledged: list[str], sites: Any, boot: Any, folder: Path) -> None:
    with mounted(copy, folder / "after") as disk:
        site = sites.on(disk, make=False)
        reopened = site.run(REOPEN, boot=boot)
        assert reopened.status == 0, reopened.err
        (ids,) = reopened.said
        assert not set(acknowledged) - set(ids)
        site.assert_sound(acknowledged, together=[(f"prd-{n}", f"ts-{n}") for n in range(len(acknowledged))])
    copy.unlink()


# By hand


def cut_to_nothing(data: bytes) -> bytes:
    return data[:0]


def cut_last_line(data: bytes) -> bytes:
    return data[:data[:-1].rfind(b"\n") + 1]


def cut_within_a_line(data: bytes) -> bytes:
    return data[:len(data) * 6 // 10]


def cut_before_the_line_end(data: bytes) -> bytes:
    return data[:-1]


def leave_zeros(data: bytes) -> bytes:
    """As where the size reached the disk and the data did not."""
    kept = len(data) * 4 // 10
    return data[:kept] + bytes(len(data) - kept)


LOSSES: list[Callable[[bytes], bytes]] = [
    cut_to_nothing, cut_last_line, cut_within_a_line, cut_before_the_line_end, leave_zeros]


@pytest.mark.parametrize("cache", ["kept", "lost"])
@pytest.mark.parametrize("lose", LOSSES)
def test_lines_that_were_not_synced_are_restored_after_a_power_loss(site, boots, lose, cache):
    """What the logs lost of records acknowledged before the machine went down is restored, each line once."""
    assert site.run(CRASH).status == 0
    bad = []
    for kind in ("prd", "task_spec"):
        left = lose(site.log(kind).read_bytes())
        site.log(kind).write_bytes(left)
        bad.append(left.rpartition(b"\n")[2])
    if cache == "lost":
        site.lose_cache()
    acknowledged = site.acknowledged()
    reopened = site.run(REOPEN, boot=boots[0])
    assert reopened.status == 0, reopened.err
    assert reopened.said == [acknowledged]
    site.assert_sound(site.acknowledged(), bad=bad)


@pytest.mark.parametrize("cache", ["kept", "lost"])
def test_lines_that_a_person_discards_stay_discarded(site, cache):
    """What `git checkout -- FILE` took out of a log, on the machine that wrote it, does not come back by itself."""
    site.seed(1, id="prd-committed")
    git(site, "add", "--all")
    git(site, "commit", "--message", "one record")
    assert site.run(CRASH).status == 0
    site.age()
    git(site, "checkout", "--", ".taskstore")
    if cache == "lost":
        site.lose_cache()
    assert site.ids("prd", "task_spec") == ["prd-committed"]
    site.assert_sound(["prd-committed"], discarded=site.acknowledged())


def test_lines_that_were_synced_are_not_restored_after_a_power_loss(site, boots):
    """Once a writer has closed its store, a line missing from a log is somebody's will, on the next boot too."""
    assert site.run(CLOSE).status == 0
    discarded = [key for key in site.acknowledged() if key != "ts-4"]
    site.age()
    site.log().write_bytes(b"")
    reopened = site.run(REOPEN, boot=boots[0])
    assert reopened.said == [["ts-4"]], reopened.err
    site.assert_sound(site.acknowledged(), discarded=discarded)


def test_only_what_follows_the_last_sync_is_restored(site, boots):
    """Of two missing lines, that of the writer which closed its store stays away and that of the other comes back."""
    site.seed(1, id="prd-synced")
    assert site.run(CRASH).status == 0
    site.age()
    for kind in ("prd", "task_spec"):
        site.log(kind).write_bytes(b"")
    reopened = site.run(REOPEN, boot=boots[0])
    assert reopened.said == [["prd-0", "prd-1", "prd-2", "prd-3", "prd-4", "ts-4"]], reopened.err
    site.assert_sound(site.acknowledged(), discarded=["prd-synced"])


def test_a_restored_line_is_not_restored_again(site, boots):
    """What was restored and synced after a power loss can be discarded like any other line."""
    assert site.run(CRASH).status == 0
    site.log().write_bytes(b"")
    assert site.run(REOPEN, boot=boots[0]).status == 0
    site.age()
    site.log().write_bytes(b"")
    reopened = site.run(REOPEN, boot=boots[0])
    assert reopened.said == [["ts-4"]], reopened.err


def test_lines_are_restored_by_a_process_that_could_only_read_at_first(tmp_path, sites, boots):
    """A process that came to a read-only disk after the power loss restores the lines once the disk can be written."""
    look = 'print(json.dumps([json.loads(line)["id"] for line in store.find("prd")[0]]))\n'
    with tmpfs(tmp_path / "disk") as disk:
        site = sites.on(disk)
        assert site.run(CRASH).status == 0
        before = [key for key in site.acknowledged() if key.startswith("prd-")]
        site.log().write_bytes(b"")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = site.run(f"""
import subprocess
store = Store.open(directory=directory)
{look}
subprocess.run(["mount", "-o", "remount,rw", arguments[0]], check=True)
create(store, id="prd-after")
{look}
store.close()
""", str(disk), boot=boots[0])
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert done.said == [before, [*before, "prd-after"]], done.err
        site.assert_sound(site.acknowledged())


def test_lines_that_git_swallowed_are_restored_once(site, boots):
    """A line that was written anew, as git had swallowed it, stands in the outbox twice, and comes back once."""
    assert site.run(CRASH).status == 0
    site.log().write_bytes(b"")
    assert site.run("Store.open(directory=directory).sync()\nos._exit(0)").status == 0
    assert len(site.lines()) == 5
    site.age()
    site.log().write_bytes(b"")
    assert site.run(REOPEN, boot=boots[0]).status == 0
    site.assert_sound(site.acknowledged())


def test_a_log_that_was_away_is_not_vouched_for(site, boots):
    """Lines of a log that was not there when the others were synced are restored if the power loss took them."""
    assert site.run(CRASH).status == 0
    site.age()
    site.log().unlink()
    assert site.run("store = Store.open(directory=directory)\nstore.sync()\nstore.close()").status == 0
    site.log().write_bytes(b"")  # back, as with its branch
    reopened = site.run(REOPEN, boot=boots[0])
    assert reopened.said == [["prd-0", "prd-1", "prd-2", "prd-3", "prd-4", "ts-4"]], reopened.err


@pytest.mark.usefixtures("strace")
def test_lines_are_restored_by_a_later_process_where_the_first_could_not(site, boots):
    """Where one log is replaced under whoever restores lines after a power loss, the next process restores its lines.

    However old they are: nobody takes them for what git has just swallowed.
    """
    assert site.run(CRASH).status == 0
    site.age()
    site.log().write_bytes(b"")
    with site.replaced_all_the_time():
        tried = site.run_traced("""
ready()
Store.open(directory=directory).sync()
os._exit(0)
""", calls="newfstatat", inject=["newfstatat:delay_enter=50000"], paths=[site.log()], boot=boots[0])
    assert tried.status == 0, tried.err
    assert site.log().read_bytes() == b""
    reopened = site.run(REOPEN, boot=boots[0])
    assert reopened.said == [["prd-0", "prd-1", "prd-2", "prd-3", "prd-4", "ts-4"]], reopened.err
    site.assert_sound(site.acknowledged())


@contextlib.contextmanager
def tmpfs(folder: Path) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("mounting a tmpfs needs root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def half(frame: bytes) -> bytes:
    return frame[:len(frame) // 2]


def hole(frame: bytes) -> bytes:
    """As where the second page of a frame reached the disk and the first did not."""
    return bytes(4096) + frame[4096:]


def flipped(frame: bytes) -> bytes:
    return frame.replace(b"torn", b"t\xffrn", 1)


def tear_last(site: Any, tear: Callable[[bytes], bytes]) -> None:
    """Write one request of two lines more, of which only what `tear` leaves reached the disk."""
    before = bytearray(site.outbox.read_bytes())
    assert site.run(TEAR).status == 0
    end = before.index(b"\0")
    frame = site.outbox.read_bytes()[end:].partition(b'{"applied"')[0]
    before[end:end + len(frame)] = tear(frame)
    site.outbox.write_bytes(before)
    for kind in ("prd", "task_spec"):
        site.log(kind).write_bytes(b"")
    site.lose_cache()  # it knows where the outbox ended


def told(site: Any) -> list[str]:
    return [key for key in site.acknowledged() if "torn" not in key]


@pytest.mark.parametrize("tear", [half, hole, flipped])
def test_a_torn_frame_hides_no_other(site, boots, tear):
    """A frame that the power loss tore was never acknowledged; those before it and after it are all read."""
    assert site.run(CRASH).status == 0
    tear_last(site, tear)
    for boot in boots:
        site.log().write_bytes(b"")
        site.lose_cache()
        acknowledged = told(site)
        reopened = site.run(REOPEN.replace("store.close()", "os._exit(0)"), boot=boot)
        assert len(reopened.said) == 1, reopened.err
        assert sorted(reopened.said[0]) == sorted(acknowledged)
    site.assert_sound(told(site))


@pytest.mark.parametrize("tear", [half, hole, flipped])
def test_the_first_frame_after_a_torn_one_is_read(site, boots, tear):
    """A write that follows a torn frame at once is as durable as any other."""
    assert site.run(CLOSE).status == 0
    tear_last(site, tear)
    assert site.run('create(Store.open(directory=directory), id="prd-after")\nos._exit(0)').status == 0
    site.age()
    site.log().write_bytes(b"")
    restored = site.run(REOPEN, boot=boots[0])
    assert restored.said == [["prd-after"]], restored.err


def git(site: Any, *words: str) -> None:
    subprocess.run(["git", "-C", str(site.root), "-c", "user.name=a", "-c", "user.email=a@example.org", *words],
                   check=True, capture_output=True)
