"""A connection goes on when its daemon does not, and what it wrote happens once."""

import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemons import running_daemon

from taskstore import Prd, Store, connect
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
    """When its daemon was replaced by another, a connection goes on with that one."""
    with connect(directory=directory) as store:
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
