"""The machine's ground: a real repository with a store, several clients of it, and its files.

Clients by the files, through a daemon, and by the command line; all of them talk in methods and parameters.
"""

import contextlib
import functools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from tests.conftest import Site, make_site
from tests.daemons import running_daemon
from tests.system.machine_shell import CommandLine, Git
from tests.system.model import Model
from tests.system.model_log import LOGS, Log, Refused

from taskstore.connection import Connection
from taskstore_core.errors import TaskStoreError
from taskstore_core.lock import Lock

BY_FILES = ("files one", "files two")
BY_DAEMON = ("daemon one", "daemon two")
CLIENTS = (*BY_FILES, *BY_DAEMON)
SHELL = "shell"
KINDS = tuple(LOGS)
KEYS = ("a", "ab", "b", "c")
clients = st.sampled_from([*CLIENTS, *CLIENTS, *CLIENTS, SHELL])
resident = st.sampled_from(CLIENTS)
kinds = st.sampled_from(KINDS)
keys = st.sampled_from(KEYS)


def step(**strategies: Any) -> Callable[[Any], Any]:
    """A rule of the machine of which the steps are counted."""
    def decorate(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def counted(self: "Ground", **values: Any) -> None:
            Ground.steps[function.__name__] += 1
            function(self, **values)

        return cast("Callable[[Any], Any]", rule(**strategies))(counted)

    return decorate


def unlocked(function: Any) -> Any:
    """A rule for when git could work."""
    return precondition(lambda self: not self.is_locked)(function)


class Ground(RuleBasedStateMachine):
    """A store, its clients, and the model that they are held to."""

    steps: ClassVar[Counter[str]] = Counter()
    template: "Path | None" = None  # a repository made ready, of which each run begins with a copy

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.close = contextlib.ExitStack()
        self.close.callback(shutil.rmtree, self.folder)
        shutil.copytree(self._template(), self.folder / "site", symlinks=True)
        self.site = Site(self.folder / "site")
        self.git = Git(self.site)
        self.model = Model()
        self.is_locked = self.was_thrown = False
        self.locked_at: float | None = None  # when git began, of whose time lines may wait yet; by the monotonic clock
        self.left_alone: dict[str, bytes] = {}  # what git has read, while it is at work
        self.daemon: Any = None
        self.turn = self.since_git = 0
        self.touched: set[tuple[str, str]] = set()
        self.clients: dict[str, Any] = {SHELL: CommandLine(self.site)}
        self.close.callback(self.end_daemon)
        self.start_daemon()
        for name in CLIENTS:
            self.open(name)
            self.close.callback(lambda name: self.clients[name].close(), name)

    @classmethod
    def _template(cls) -> Path:
        if Ground.template is None:
            site = make_site(Path(tempfile.mkdtemp(prefix="model-")) / "site")
            done = site.cli("install-hooks")
            assert done.status == 0, done.err
            git = Git(site)
            for words in (["symbolic-ref", "HEAD", "refs/heads/main"], ["add", "-A"], ["commit", "-qm", "store"],
                          ["branch", "side"]):
                git(*words)
            site.lose_cache()
            Ground.template = site.root
        return Ground.template

    # Clients

    def open(self, name: str, path: Path | None = None) -> None:
        if name in self.clients:
            self.clients[name].close()
        self.clients[name] = Connection.open(os.fspath(path or self.site.root), daemon=name in BY_DAEMON)
        assert (self.clients[name].remote is not None) == (name in BY_DAEMON)  # it would do without, and say nothing

    def start_daemon(self) -> None:
        self.daemon_life = contextlib.ExitStack()
        self.daemon = self.daemon_life.enter_context(running_daemon(os.fspath(self.site.directory)))

    def end_daemon(self) -> None:
        self.daemon_life.close()

    def call(self, who: str, method: str, **parameters: Any) -> Any:
        """The answer of a method, or the kind of its error as a `Refused`; of a command its status."""
        given = {name: value for name, value in parameters.items() if value is not None}
        try:
            return self.clients[who].call(method, given)
        except TaskStoreError as error:
            return Refused(error.kind)

    def refused(self, who: str, answer: Any, expected: Refused) -> None:
        """Assert that a call was refused for this reason."""
        assert isinstance(answer, Refused), (answer, expected.kind)
        kind = f"status {2 if expected.kind == 'invalid' else 1}" if who == SHELL else expected.kind
        assert answer.kind == kind

    # Files

    def files(self) -> dict[str, bytes]:
        """The bytes of every log."""
        return {kind: self.site.log(kind).read_bytes() for kind in KINDS}

    def settle(self) -> None:
        """Have git's last work be long ago, and every line in its log; the files are then what the model says."""
        self.site.calm(forget=False)
        for _ in self.site.poll():
            self.site.calm(forget=False)
            answer = self.call(self.next(), "store.sync", wait_ms=0)
            assert not isinstance(answer, Refused), answer.kind
            if answer["flushed"]:
                break
        self.locked_at = None
        self.assert_files()

    def assert_files(self) -> None:
        """Every log has the lines of the model; the model takes over their order and their bytes."""
        for kind in KINDS:
            log = Log(self.site.log(kind).read_bytes())
            there, expected = log.content(), self.model.logs[kind].content()
            assert there == expected, (kind, there[0] - expected[0], expected[0] - there[0], there[1:], expected[1:])
            self.model.logs[kind] = log

    def age(self) -> None:
        """As if all that was written had been written an hour ago."""
        self.settle()
        with Lock(os.fspath(self.site.private / "lock")):
            self.site.age()

    def next(self) -> str:
        """The clients in turn."""
        self.turn += 1
        return CLIENTS[self.turn % len(CLIENTS)]
