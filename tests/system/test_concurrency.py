"""Many processes on one store, without a daemon: nothing lost, nothing twice, nothing torn, nobody starved."""

import json
import os
from collections import Counter
from typing import Any

import pytest

WRITERS = 8
EACH = 500
COMMANDS = 60
"""Of the creates of the last writer: how many are commands, each a process of its own."""

WRITER = """
store = Store.open(directory=directory)
ready()
for n in range(int(arguments[0])):
    create(store, title=f"{os.getpid()} {n}", content="some " * random.randrange(60))
store.close()
"""
READER = """
import glob
folder, = arguments
store = Store.open(directory=directory)
ready()
looks = 0
while not os.path.exists(f"{folder}/done"):
    known = [key for path in glob.glob(f"{folder}/*.writer") for key in open(path).read().split()]
    there = {json.loads(line)["id"] for line in store.find("prd")[0]}
    missing = set(known) - there
    assert not missing, missing
    for key in known[-3:]:
        assert json.loads(store.get("prd", key))["id"] == key
    looks += 1
print(looks)
"""
HOLDER = """
from taskstore_core.lock import Lock
with Lock(f"{arguments[0]}/lock"):
    ready("held")
"""
WAITER = """
from taskstore_core.lock import Lock
try:
    with Lock(f"{arguments[0]}/lock", wait_s=0.1):
        print("got it")
except TaskStoreError as error:
    print(json.dumps([error.kind, error.retryable]))
"""

GIVE_UP = """
import threading
from taskstore_core.lock import Lock
path = f"{arguments[0]}/lock"
try:
    with Lock(path, wait_s=0.01):
        print("got it")
except TaskStoreError:
    ready("gave up")
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()  # it waits in the kernel, and gets the lock now
with Lock(path, wait_s=0):
    print("got it")
"""


def test_writers_and_readers_at_once_lose_nothing_and_see_everything(site, tmp_path):
    """Eight processes write 4,000 records at once, each is there once, and readers never miss one or see an error."""
    folder = tmp_path / "acknowledged"
    folder.mkdir()
    counts = [EACH] * (WRITERS - 1) + [EACH - COMMANDS]
    writers = [site.start(WRITER, str(count), acknowledged=folder / f"{number}.writer")
               for number, count in enumerate(counts)]
    readers = [site.start(READER, str(folder)) for _ in range(2)]
    for process in [*readers, *writers]:
        site.await_word(process, "ready")
    for process in [*readers, *writers]:
        site.go_on(process)
    with (folder / "commands.writer").open("w", encoding="utf-8") as told:
        for number in range(COMMANDS):
            created = site.cli("create", "prd", "--set", f"title=command {number}")
            assert created.status == 0, created.err
            told.write(created.out)
            told.flush()
    assert [finish(writer) for writer in writers] == [""] * WRITERS
    (folder / "done").touch()
    assert all(int(finish(reader)) > 0 for reader in readers)

    acknowledged = [key for path in folder.glob("*.writer") for key in path.read_text().split()]
    assert len(acknowledged) == len(set(acknowledged)) == WRITERS * EACH
    assert Counter(json.loads(line)["id"] for line in site.lines()) == Counter(acknowledged)
    assert Counter(site.ids()) == Counter(acknowledged)
    site.assert_sound(acknowledged)


def finish(process: Any) -> Any:
    """What a process printed by its end, which must be a good one."""
    with process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def test_waiters_go_on_when_the_lock_holder_is_killed(site):
    """A holder of the lock that is killed frees it: those who wait for it then write, one after the other."""
    holder = hold(site)
    waiters = [site.start('create(Store.open(directory=directory), id=f"prd-{arguments[0]}")', str(number))
               for number in range(3)]
    for _ in site.poll():
        assert not any(waiter.poll() is not None for waiter in waiters)
        if waiting(site) == len(waiters):
            break
    holder.kill()
    assert [finish(waiter) for waiter in waiters] == [""] * len(waiters)
    holder.communicate()
    assert sorted(site.acknowledged()) == ["prd-0", "prd-1", "prd-2"]
    site.assert_sound(site.acknowledged())


def test_a_lock_that_is_held_too_long_is_busy(site):
    """Who waits for the lock in vain is told `busy`, which may be tried again, and does then get it."""
    holder = hold(site)
    said = site.run(WAITER, str(site.private))
    assert said.said == [["busy", True]], said.err
    holder.communicate("\n")
    assert site.run(WAITER, str(site.private)).out == "got it\n"


def test_who_waited_in_vain_holds_nothing_later(site):
    """A wait that was given up takes no lock once its holder leaves: nobody would let go of it again."""
    holder = hold(site)
    with site.start(GIVE_UP, str(site.private)) as waiter:
        site.await_word(waiter, "gave up")
        holder.communicate("\n")
        out, err = waiter.communicate("\n", timeout=60)
    assert out == "got it\n", err


@pytest.mark.long
def test_a_command_that_waits_in_vain_says_so_in_one_line(site):
    """A command that cannot get the lock ends with status 3 and one line that says why, and has written nothing."""
    holder = hold(site)
    before = site.log().read_bytes()
    refused = site.cli("create", "prd", "--set", "title=too late")
    assert (refused.status, refused.out, refused.err.count("\n")) == (3, "", 1)
    assert "another process" in refused.err
    assert site.log().read_bytes() == before
    holder.communicate("\n")


SLOW_LOOK = "newfstatat:delay_enter=50000"
"""Holds a process up where it looks whether the log it appended to is still the one in place."""


@pytest.mark.usefixtures("strace")
def test_a_log_that_is_replaced_under_every_try_gets_its_line_later(site):
    """A write whose log is replaced whenever it was appended to is acknowledged, and is in the log in the end."""
    ids = site.seed(2)
    with site.replaced_all_the_time():
        done = site.run_traced("""
store = Store.open(directory=directory)
store.sync()
ready()
create(store, id="prd-replaced")
os._exit(0)
""", calls="newfstatat", inject=[SLOW_LOOK], paths=[site.log()])
    assert done.status == 0, done.err
    assert len(site.lines()) == len(ids)
    assert "prd-replaced" in site.ids()
    site.assert_sound([*ids, "prd-replaced"])


@pytest.mark.usefixtures("strace")
def test_a_line_that_waits_for_its_log_is_read(site):
    """While an acknowledged line cannot be put into its log, the process that wrote it and others read it."""
    ids = site.seed(2)
    with site.replaced_all_the_time():
        done = site.run_traced("""
store = Store.open(directory=directory)
store.sync()
ready()
create(store, id="prd-replaced")
print(json.dumps(sorted(json.loads(line)["id"] for line in store.find("prd")[0])))
os._exit(0)
""", calls="newfstatat", inject=[SLOW_LOOK], paths=[site.log()])
        assert done.said == [sorted([*ids, "prd-replaced"])], done.err


def test_reads_need_no_lock(site):
    """While somebody holds the lock, a store whose logs did not change is read at once."""
    ids = site.seed(3)
    assert sorted(site.ids()) == sorted(ids)
    holder = hold(site)
    assert sorted(site.ids()) == sorted(ids)
    holder.communicate("\n")


def test_the_lock_leaves_with_its_process_and_not_with_its_children(site):
    """A child that a writer started and left behind does not keep the lock."""
    script = """
import subprocess
from taskstore_core.lock import Lock
with Lock(f"{arguments[0]}/lock"):
    child = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, close_fds=False)
    print(child.pid, flush=True)
    os._exit(0)
"""
    left_behind = site.run(script, str(site.private))
    try:
        assert site.run(WAITER, str(site.private)).out == "got it\n"
    finally:
        os.kill(int(left_behind.out), 9)


def hold(site: Any) -> Any:
    """A process that holds the store's lock until it is told to go on."""
    holder = site.start(HOLDER, str(site.private))
    site.await_word(holder, "held")
    return holder


def waiting(site: Any) -> int:
    """How many processes the kernel knows to be waiting for the store's lock."""
    inode = f":{(site.private / 'lock').stat().st_ino} "
    with open("/proc/locks", encoding="ascii") as file:
        return sum("->" in line and inode in line for line in file)
