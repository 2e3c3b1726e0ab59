"""Many agents at work in the worktrees of one repository, and whoever disturbs them: the stage of the campaign."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
from tests.conftest import Site
from tests.daemons import running_daemon
from tests.system.agents import feeds, history
from tests.system.agents.agent import NOTES
from tests.system.agents.follower import THE_END
from tests.system.agents.ledger import CHAFF, Line

from taskstore.connection import Connection
from taskstore_core.errors import BusyError
from taskstore_core.jsonl import version_of
from taskstore_core.kinds import KINDS, LOGS

PATIENCE_S = 180.0
"""How long the agents may take, once told to stop, to finish what is left."""
_RESEND_S = 30.0
"""After which whoever was killed has sent again what it does not know the end of."""
_PAUSE_MS = 6
"""What an agent rests between two things, for each agent: together they must ask for less than the machine can do."""
_ROOT = str(Path(__file__).parents[3])


class Campaign:
    """Processes on one store. `upsets` are when another branch was checked out; `counts` what was done to them."""

    def __init__(self, site: Site, folder: Path, *, agents: int, worktrees: int, followers: int,
                 lease_ms: int) -> None:
        self.folder = folder
        self.upsets: list[history.Interval] = []
        self.counts: Counter[str] = Counter()
        self.feed: dict[str, dict[int, tuple[str, str]]] = {}
        self.freed: list[str] = []
        self.failed: list[str] = []
        self._site = site
        self._stop = folder / "stop"
        self._random = random.Random(agents)
        self._deck: list[Callable[[], None]] = []
        self._daemon: contextlib.ExitStack | None = None
        self._operator = history.Recorder(folder / "operator.jsonl", "operator")
        self._ops = itertools.count()
        self._prepare(worktrees)
        self._trees = [folder / f"tree-{number}" for number in range(worktrees)]
        ways = ("daemon", "files")
        self._commands = {f"agent-{number:02}": ["agent", str(self._stop), ways[number % 2], str(lease_ms),
                                                str(_PAUSE_MS * agents)]
                          for number in range(agents)}
        self._commands |= {f"follower-{number}": ["follower", ways[number % 2]] for number in range(followers)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def _prepare(self, worktrees: int) -> None:
        self._git("symbolic-ref", "HEAD", "refs/heads/main")
        assert self._site.cli("install-hooks").status == 0
        self._connection = Connection.open(str(self._site.root))
        for note in (*NOTES, CHAFF["workflow"]):
            self._operate("record.create", kind="workflow", record={"id": note, "name": note})
        self._operate("record.create", kind="task_spec", record={
            "id": CHAFF["task_spec"], "prd_id": "chaff", "phase_name": "chaff", "status": "complete"})
        for message in ("the store", "a second commit"):
            self._operate("record.create", kind="prd", record={"title": message})
            self._git("add", "-A")
            self._git("commit", "-qm", message)
        self._git("branch", "beside")
        for number in range(worktrees):
            self._git("worktree", "add", "-q", "--detach", str(self.folder / f"tree-{number}"))

    def _git(self, *words: str) -> bool:
        done = subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@x", *words], cwd=self._site.root,
                              env=self._site.environment, capture_output=True, check=False)
        self.counts["git commands"] += 1
        self.counts["git refused"] += done.returncode != 0
        return done.returncode == 0

    def _operate(self, name: str, **arguments: Any) -> Any:
        if name != "record.list":
            arguments["op"] = f"operator.{next(self._ops)}"
        return self._operator.call(self._connection, name, **arguments)

    # Processes

    def _keep_alive(self) -> bool:
        """Start whoever was killed anew; whether anybody is at work."""
        for name, (program, *words) in self._commands.items():
            process = self._processes.get(name)
            status = None if process is None else process.poll()
            if process is None or status == -signal.SIGKILL:
                self.counts["started anew"] += process is not None
                self._start(name, program, words)
            elif status:
                self.failed.append(f"{name} ended with {status}: {(self.folder / f'{name}.err').read_text()[-2000:]}")
                return False
        return any(process.poll() is None for name, process in self._processes.items() if name.startswith("agent"))

    def _start(self, name: str, program: str, words: list[str]) -> None:
        tree = self._trees[list(self._commands).index(name) % len(self._trees)]
        with (self.folder / f"{name}.err").open("ab") as err:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"tests.system.agents.{program}", str(self.folder / f"{name}.jsonl"), *words],
                cwd=tree, stderr=err, env={**self._site.environment, "PYTHONPATH": os.pathsep.join([_ROOT, *sys.path])})

    @contextlib.contextmanager
    def _cleaned_up(self) -> Iterator[None]:
        try:
            yield
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait()
            self._end_daemon()
            self._connection.close()
            self._operator.close()

    # Disturbances

    def _disturb(self) -> None:
        """The next disturbance: each kind comes in its turn, in an order that differs from round to round."""
        if not self._deck:
            self._deck = [*[self._kill_agent, self._kill_daemon] * 3, *[self._commit, self._checkout_beside] * 2,
                          self._checkout_older, self._stop_daemon, self._kill_follower, self._sync, self._rebuild,
                          self._compact]
            self._random.shuffle(self._deck)
        self._deck.pop()()
        if self._daemon is None and self._random.random() < 0.7:
            self._start_daemon()

    def _start_daemon(self) -> None:
        self._daemon = contextlib.ExitStack()
        self._process = self._daemon.enter_context(running_daemon(str(self._site.directory)))
        self.counts["daemons started"] += 1

    def _end_daemon(self) -> None:
        if self._daemon is not None:
            self._daemon.close()
            self._daemon = None

    def _kill_daemon(self) -> None:
        if self._daemon is not None:
            self._process.kill()
            self._end_daemon()
            self.counts["daemons killed"] += 1

    def _stop_daemon(self) -> None:
        if self._daemon is not None:
            self._end_daemon()
            self.counts["daemons stopped"] += 1

    def _kill(self, role: str) -> None:
        name = self._random.choice([name for name in self._commands if name.startswith(role)])
        self._processes[name].kill()
        self._processes[name].wait()
        self.counts[f"{role}s killed"] += 1

    def _kill_agent(self) -> None:
        self._kill("agent")

    def _kill_follower(self) -> None:
        self._kill("follower")

    def _commit(self) -> None:
        self._git("commit", "-qam", "lines")

    def _checkout_beside(self) -> None:
        """A branch with the same logs, and back: git leaves what is not committed as it is."""
        self._git("branch", "-f", "beside")
        self._git("checkout", "-q", "beside")
        self._git("checkout", "-q", "main")

    def _checkout_older(self) -> None:
        """A branch on which the logs are older, work on it, and back with what was done."""
        self._git("commit", "-qam", "lines before")
        began = time.monotonic_ns()
        if not self._git("checkout", "-q", "-B", "older", "HEAD~1"):
            return  # somebody wrote meanwhile
        time.sleep(0.4 * self._random.random())
        for _ in self._site.poll():
            self._git("commit", "-qam", "lines of another branch")
            if self._git("checkout", "-q", "main"):
                break
        for _ in self._site.poll():
            self._git("commit", "-qam", "lines after")
            if self._git("merge", "-q", "-m", "what was done on the other branch", "older"):
                break
        for _ in self._site.poll():
            done = self._site.cli("sync", "--json")  # which may have waited for the lock in vain
            if done.status == 0 and json.loads(done.out)["flushed"]:
                break
        self.upsets.append((began, time.monotonic_ns()))
        self.counts["older branches"] += 1

    def _sync(self) -> None:
        self._site.cli("sync")
        self.counts["syncs"] += 1

    def _rebuild(self) -> None:
        self._site.cli("sync", "--full")
        self.counts["rebuilds"] += 1

    def _compact(self) -> None:
        """Write lines that may go, among those that stay as somebody may repeat the writes, and have them dropped."""
        with Connection.open(str(self._site.root), daemon=False) as connection:
            try:
                for kind in list(CHAFF) * 3:
                    connection.call("record.update", {"kind": kind, "id": CHAFF[kind], "set": {"description": "chaff"}})
            except BusyError:
                return
        done = self._site.cli("compact", "--json")
        if done.status == 0:
            self.counts["compactions"] += 1
            self.counts["lines dropped"] += json.loads(done.out)["lines"]

    # The run

    def run(self, seconds: float) -> None:
        """Let them work for so long, then finish."""
        with self._cleaned_up():
            until = time.monotonic() + seconds
            self._start_daemon()
            while time.monotonic() < until and not self.failed:
                self._keep_alive()
                self._look_after()
                self._disturb()
                time.sleep(0.3 * self._random.random())
            self._stop.touch()
            stopped = time.monotonic()
            if self._daemon is None:
                self._start_daemon()
            while self._keep_alive():
                self._look_after()
                if time.monotonic() > stopped + _RESEND_S:
                    self._free()
                time.sleep(0.2)
                if time.monotonic() > stopped + PATIENCE_S:
                    self.failed.append("what is left does not end")
                    return
            self._end_followers()
            self._look_after()

    def _end_followers(self) -> None:
        self._operate("record.create", kind="prd", record={"id": THE_END, "title": THE_END})
        for name, process in self._processes.items():
            if name.startswith("follower"):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                if process.poll() != 0:
                    self.failed.append(f"{name} does not hear of the end")

    def _look_after(self) -> None:
        """Resolve what somebody may be waiting for, and read what the feed says."""
        found = self._operate("record.list", kind="dependency", where={"resolved_at": None})
        for dependency in found["items"] if found else ():
            self._operate("dependency.resolve", id=dependency["id"])
        with contextlib.suppress(apsw.Error), contextlib.closing(
                apsw.Connection(str(self._site.cache), flags=apsw.SQLITE_OPEN_READONLY)) as db, db:
            epoch = str(db.execute("SELECT id FROM epoch").get)
            entries = self.feed.setdefault(epoch, {})
            entries |= {seq: (LOGS[log].name, key) for seq, log, key in db.execute(
                "SELECT seq, log, id FROM feed WHERE seq > ?", (max(entries, default=0),))}

    def _free(self) -> None:
        """Set to pending what runs and nobody holds: it would count as held for a quarter of an hour."""
        leases = self._site.private / "leases.db"
        with contextlib.closing(apsw.Connection(str(leases), flags=apsw.SQLITE_OPEN_READONLY)) as db:
            unknown = [str(spec) for (spec,) in db.execute("SELECT spec FROM leases WHERE token = ''")]
        for spec in unknown:
            found = self._operate("record.list", kind="task_spec", where={"id": spec, "status": "running"})
            if found and found["items"]:
                self._operate("record.update", kind="task_spec", id=spec, set={"status": "pending"})
                self.freed.append(spec)

    # What there is in the end

    def calls(self) -> list[history.Call]:
        """What everybody did."""
        return [call for path in sorted(self.folder.glob("*.jsonl")) if not path.stem.startswith("follower")
                for call in history.calls(path)]

    def streams(self) -> list[feeds.Stream]:
        """What the followers heard."""
        return [feeds.read(path) for path in sorted(self.folder.glob("follower-*.jsonl"))]

    def lines(self) -> list[Line]:
        """The lines of all logs but repo_state, after everything has been flushed."""
        with self._site.open() as store:
            assert store.flush(60)
        return [Line(record["id"], version_of(kind, record), record.get("op", ""), record.get("deleted", False))
                for kind in KINDS.values() if kind.key == "id"
                for record in map(json.loads, self._site.lines(kind.name))]


def state_of(lines: list[Line]) -> dict[str, int | None]:
    """The version of each record in the end, None for what is gone."""
    newest = {line.key: line for line in sorted(lines, key=lambda one: one.version)}
    return {key: None if line.deleted else line.version for key, line in newest.items()}
