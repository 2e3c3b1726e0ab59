"""What people do to the files between two runs, or under one: restoring, emptying, linking, dropping."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from taskstore_core import frames, ledger, outbox
from taskstore_core.batch import Operation
from taskstore_core.errors import NotFoundError
from taskstore_core.kinds import KINDS
from taskstore_core.lock import Lock
from taskstore_core.paths import discover, named
from taskstore_core.store import Store

PRD = KINDS["prd"]


def create(store: Store, key: str) -> None:
    store.apply([Operation("create", PRD, {"id": key, "title": key})])


def ids(root: Path) -> set[str]:
    with Store.open(str(root)) as store:
        return {json.loads(raw)["id"] for raw in store.find("prd")[0]}


def restore_an_older_copy(path: Path) -> None:
    shutil.copy(path.with_name("backup"), path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_off_its_beginning(path: Path) -> None:
    path.write_bytes(path.read_bytes()[20:])


@pytest.mark.parametrize("tamper", [restore_an_older_copy, empty, cut_off_its_beginning])
def test_an_outbox_that_was_tampered_with_still_keeps_what_follows(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tamper: Callable[[Path], None]) -> None:
    """A write acknowledged after somebody restored or cut the outbox survives a power loss like any other."""
    store, _ = Store.create(str(tmp_path))
    create(store, "p0")
    store.close()
    path = Path(discover(str(tmp_path)).local("outbox"))
    shutil.copy(path, path.with_name("backup"))
    with Store.open(str(tmp_path)) as store:
        for number in range(3):
            create(store, f"q{number}")
    tamper(path)
    store = Store.open(str(tmp_path))
    create(store, "acknowledged")
    log = Path(store.paths.file(PRD.log))
    log.write_bytes(b"".join(line for line in log.read_bytes().splitlines(True) if b"acknowledged" not in line))
    for module in (outbox, ledger):
        monkeypatch.setattr(module, "boot_id", lambda: "another boot", raising=False)
    assert ids(tmp_path) == {"p0", "q0", "q1", "q2", "acknowledged"}


@pytest.mark.parametrize("has_msgspec", [True, False])
def test_a_sum_that_is_right_by_chance(monkeypatch: pytest.MonkeyPatch, *, has_msgspec: bool) -> None:
    """What is no frame for all that is passed over: no bytes have the sum 0."""
    if not has_msgspec:
        monkeypatch.delitem(sys.modules, "msgspec")
    line = b',"sum":"00000000"}\n'
    found = [frame for _, _, frame in frames.scan(line + frames.encode_mark("abort", 1), 0)]
    assert found[0] is None
    assert found[1] is not None


def test_a_waiter_that_a_signal_interrupts_leaves_the_lock_alone(tmp_path: Path) -> None:
    """Whoever gives up waiting because of an exception does not get the lock after all and keep it."""
    class AlarmError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise AlarmError

    path = str(tmp_path / "lock")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Lock(path):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(AlarmError), Lock(path, 30):
                pass
    finally:
        signal.signal(signal.SIGALRM, before)
    for thread in threading.enumerate():
        if thread.name == "taskstore-lock":
            thread.join(30)
    with Lock(path, 0.5):
        pass


def test_a_linked_store_is_one_store(tmp_path: Path) -> None:
    """A store that `.taskstore` links to has one lock and one outbox, however it is named."""
    repository, elsewhere = tmp_path / "repository", tmp_path / "elsewhere"
    repository.mkdir()
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    Store.create(directory=str(elsewhere))[0].close()
    (repository / ".taskstore").symlink_to(elsewhere)
    assert discover(str(repository)).private == named(str(elsewhere)).private


def test_a_store_that_git_came_to_later_keeps_its_outbox(tmp_path: Path) -> None:
    """`git init` around a store changes neither its lock nor its outbox."""
    store, _ = Store.create(str(tmp_path))
    create(store, "p0")
    private = store.paths.private
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert discover(str(tmp_path)).private == private
    store.close()


@pytest.mark.parametrize("damage", [
    "DROP VIEW prds; DROP TABLE prds_rows", "UPDATE chunks SET hashes = x'00'", "DROP TABLE logs", "DROP TABLE outbox"])
def test_damage_done_with_sql_heals(tmp_path: Path, damage: str) -> None:
    """A cache that lacks what we made in it is made anew by the next read or write, with the log edited meanwhile."""
    with Store.create(str(tmp_path))[0] as store:
        for number in range(100):
            create(store, f"p{number}")
        path, log = store.paths.file("store.db"), Path(store.paths.file(PRD.log))
    database = apsw.Connection(path)
    database.execute(damage)
    database.close()
    lines = log.read_bytes().splitlines(True)
    log.with_name("other").write_bytes(b"".join(lines[1:]))
    log.with_name("other").replace(log)
    assert ids(tmp_path) == {f"p{number}" for number in range(1, 100)}


def test_a_row_deleted_with_sql_is_back_after_a_full_sync(tmp_path: Path) -> None:
    """`sync --full` trusts nothing of the database."""
    with Store.create(str(tmp_path))[0] as store:
        create(store, "p0")
        path = store.paths.file("store.db")
    database = apsw.Connection(path)
    database.execute("DELETE FROM prds_rows")
    database.close()
    with Store.open(str(tmp_path)) as store:
        with pytest.raises(NotFoundError):
            store.get("prd", "p0")
        store.sync(full=True)
        assert store.get("prd", "p0")
