"""A connection goes on when its daemon does not, and what it wrote happens once."""

import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemons import poll, running_daemon

from taskstore import Create, Prd, Store, TaskSpec, connect
from taskstore.lookout import Lookout
from taskstore_core.paths import discover
from taskstore_core.sockets import socket_path
from taskstore_core.store import Store as Engine


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """An empty store."""
    engine, _ = Engine.create(directory=os.fspath(tmp_path / "project" / ".taskstore"))
    engine.close()
    return engine.paths.directory


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, with a short name: a socket's path may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def uses_daemon(store: Store) -> bool:
    return store._connection.remote is not None


def titles(directory: str) -> list[str]:
    with Store.open(directory=directory) as store:
        return sorted(prd.title for prd in store.list(Prd))


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_killed_daemon_is_passed_by(directory: str) -> None:
    """When its daemon is killed a connection goes on with the files, and a new one finds the next daemon."""
    with running_daemon(directory) as daemon, connect(directory=directory) as store:
        store.create(Prd(title="1"))
        assert uses_daemon(store)
        daemon.kill()
        daemon.wait()
        store.create(Prd(title="2"))
        assert [prd.title for prd in store.list(Prd)] == ["1", "2"]
        assert not uses_daemon(store)
    with running_daemon(directory), connect(directory=directory) as store:
        assert [prd.title for prd in store.list(Prd)] == ["1", "2"]
        assert uses_daemon(store)


def test_a_connection_survives_a_daemon_that_is_started_anew(directory: str) -> None:
    """When its daemon was replaced by another, a connection goes on with that one at once."""
    with connect(directory=directory) as store:
        store._connection._lookout = Lookout(store._connection.paths, Clock())
        with running_daemon(directory):
            store.create(Prd(title="1"))
            assert uses_daemon(store)
        with running_daemon(directory):
            store.create(Prd(title="2"))
            assert uses_daemon(store)
    assert titles(directory) == ["1", "2"]


class Relay:
    """Stands between a client and the daemon, and cuts the line behind the first answer to a write, unsent."""

    def __init__(self, here: str, there: str) -> None:
        self.cut = 0
        self._there = there
        os.makedirs(os.path.dirname(here), 0o700)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(here)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            ours, _ = self._listener.accept()
            with ours, socket.socket(socket.AF_UNIX) as theirs:
                theirs.connect(self._there)
                self._relay(ours, theirs)

    def _relay(self, ours: socket.socket, theirs: socket.socket) -> None:
        reader, answers = ours.makefile("rb"), theirs.makefile("rb")
        for line in reader:
            theirs.sendall(line)
            answer = answers.readline()
            if json.loads(line)["method"] == "record.create" and not self.cut:
                self.cut += 1
                ours.shutdown(socket.SHUT_RDWR)
                return
            ours.sendall(answer)


@pytest.fixture
def relay(directory: str, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay in front of a daemon, which clients take for it."""
    with running_daemon(directory):
        there = socket_path(directory, os.environ)
        (runtime / "front").mkdir(0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", os.fspath(runtime / "front"))
        yield Relay(socket_path(directory, os.environ), there)


def test_a_write_whose_answer_was_lost_happens_once(directory: str, relay: Relay) -> None:
    """A create whose answer gets lost on the way is sent again by itself, and stands there once."""
    with connect(directory=directory) as store:
        made = store.create(Prd(title="once"))
        assert store.get(Prd, made.id).title == "once"
    assert relay.cut == 1
    assert titles(directory) == ["once"]


def test_a_socket_that_others_could_have_made_is_passed_by(directory: str, runtime: Path) -> None:
    """A daemon's socket in a folder that others may enter is not trusted: the files are used."""
    with running_daemon(directory):
        os.chmod(runtime / "taskstore", 0o755)  # noqa: S103 - what is to be noticed
        with connect(directory=directory) as store:
            store.create(Prd(title="by the files"))
            assert not uses_daemon(store)
    assert titles(directory) == ["by the files"]


# Looking again


def seen_at_last(store: Store) -> None:
    """Use the store until it uses a daemon."""
    for _ in poll():
        assert [prd.title for prd in store.list(Prd)] == ["1"]
        if store._connection._remote is not None:
            return


def test_a_daemon_that_comes_later_is_used(directory: str) -> None:
    """A connection that began without a daemon, or lost it, uses the next one soon after that has come."""
    with connect(directory=directory) as store:
        store.create(Prd(title="1"))
        assert not uses_daemon(store)
        for _ in range(2):
            with running_daemon(directory) as daemon:
                seen_at_last(store)
                daemon.kill()
                daemon.wait()
                assert [prd.title for prd in store.list(Prd)] == ["1"]
                assert not uses_daemon(store)


def test_claims_outlive_a_change_of_sides(directory: str) -> None:
    """What was claimed by the files is held and completed through a daemon that came meanwhile, pages go on there."""
    with connect(directory=directory) as store:
        store.apply([Create(TaskSpec(id=f"t{n}", prd_id="p", phase_name="N", created_at=n + 1))
                     for n in range(4)])
        store.create(Prd(title="1"))
        claim = store.claim(by="ann")
        assert claim is not None
        page = store.page(TaskSpec, limit=2)
        with running_daemon(directory):
            seen_at_last(store)
            store.heartbeat(claim)
            assert store.claim(by="bob", op="1") is not None
            assert store.complete(claim) == []
            rest = store.page(TaskSpec, limit=2, cursor=page.cursor)
            assert [spec.id for spec in (*page.items, *rest.items)] == ["t0", "t1", "t2", "t3"]


def test_looks_are_a_second_apart(directory: str) -> None:
    """The first look is at once, each other a second after the one before; after a loss the next is at once."""
    clock = Clock()
    lookout = Lookout(discover(directory), clock)
    looks = []
    for _ in range(40):
        looks.append(lookout.is_due())
        clock.now += 0.25
    assert looks == [True, False, False, False] * 10
    assert lookout.is_due()
    lookout.hurry()
    assert lookout.is_due()
    assert not lookout.is_due()


def test_a_silent_daemon_is_passed_by(directory: str) -> None:
    """One that let its caller wait in vain is not asked again, another in its place is; one that refused is asked."""
    clock = Clock()
    lookout = Lookout(discover(directory), clock)
    assert lookout.places() == []
    with running_daemon(directory):
        (place,) = lookout.places()
        lookout.failed()  # at once: it is leaving, or has too many connections
        assert lookout.places() == [place]
        clock.now += 2
        lookout.failed()
        assert lookout.places() == []
    with running_daemon(directory):
        assert lookout.places() == [place]


def test_a_stopped_daemon_costs_one_greeting(directory: str) -> None:
    """A connection waits for a daemon that is stopped once, and goes over to the one that replaces it."""
    with running_daemon(directory) as daemon, connect(directory=directory) as store:
        daemon.send_signal(signal.SIGSTOP)
        store.create(Prd(title="1"))
        assert not uses_daemon(store)
        store._connection._lookout.hurry()
        assert store._connection._lookout.places() == []
        daemon.kill()
        daemon.wait()
        with running_daemon(directory):
            seen_at_last(store)
