"""One of many agents: plans, claims, works, writes, reads, waits, and now and then dies. A program.

    python -m tests.system.agents.agent HISTORY STOP "daemon" or "files" LEASE_MS PAUSE_MS

Run in a worktree. It writes down what it does in HISTORY, and once the file STOP is there it only works, until nothing
is left to do. Started anew with the same HISTORY it sends again what it does not know the end of.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.system.agents import history

from taskstore.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

NOTES = [f"note-{number:02}" for number in range(4)]
"""Records that everybody writes to."""
_READY = 30
"""So many task specs are to be ready, or nearly."""


class Agent:
    """An agent with a store, and a memory."""

    def __init__(self, path: Path, stop: Path, through: str, lease_ms: int, pause_ms: int) -> None:
        before = list(history.calls(path)) if path.exists() else []
        self.name = path.stem
        self.recorder = history.Recorder(path, self.name)
        self.stop = stop
        self.lease_ms = lease_ms
        self.pause_ms = pause_ms
        self.uses_daemon = through == "daemon"
        self.store = Connection.open(daemon=self.uses_daemon)
        self.random = random.Random(f"{self.name}-{len(before)}")
        self._number = len(before)
        self._specs: list[str] = []
        self._mine: list[str] = []
        self._unsure = [call for call in before[-1:] if call.ended is None]

    def run(self) -> None:
        """Do this and that until told to stop, then what is left."""
        for call in self._unsure:
            self._send_again(call)
        while not self.stop.exists():
            self._act()
            time.sleep(self.random.random() * self.pause_ms / 500)
        while self._is_left():
            if not self._work():
                self._retry()
                time.sleep(self.pause_ms / 1000)
        self.store.close()

    def _act(self) -> None:
        actions: list[tuple[int, Callable[[], object]]] = [
            (12, self._work), (3, self._plan), (5, self._write), (2, self._own), (5, self._read), (4, self._list),
            (2, self._ready), (1, self._wait), (3, self._resolve), (1, self._retry), (1, self._switch)]
        weights, choices = zip(*actions, strict=True)
        (action,) = self.random.choices(choices, weights)
        action()

    def _call(self, name: str, **arguments: Any) -> Any:
        return self.recorder.call(self.store, name, **arguments)

    def _write_once(self, name: str, **arguments: Any) -> Any:
        """A write; now and then it is sent again, as if the answer had not come."""
        self._number += 1
        arguments["op"] = f"{self.name}.{self._number}"
        answer = self._call(name, **arguments)
        if answer is not None and self.random.random() < 0.05:
            self._call(name, **arguments)
        return answer

    def _send_again(self, call: history.Call) -> None:
        if "op" in call.arguments:
            answer = self._call(call.name, **call.arguments)
            if call.name == "task_spec.claim" and answer is not None:
                self._finish(answer)

    # Work

    def _work(self) -> bool:
        """Whether there was something to do."""
        claim = self._write_once("task_spec.claim", by=self.name, lease_ms=self.lease_ms)
        if claim is None:
            return False
        self._specs = [*self._specs[-20:], claim["id"]]
        for _ in range(self.random.randrange(3)):
            self._pause(0.3)
            self._call("task_spec.heartbeat", **self._proof(claim), lease_ms=self.lease_ms)
        self._finish(claim)
        return True

    def _finish(self, claim: dict[str, Any]) -> None:
        ends: list[tuple[int, Callable[[dict[str, Any]], object]]] = [
            (60, self._complete), (6, self._fail), (8, self._release), (4, self._die), (6, self._oversleep),
            (4, self._forge)]
        weights, choices = zip(*ends, strict=True)
        (end,) = self.random.choices(choices, weights)
        end(claim)

    def _proof(self, claim: dict[str, Any]) -> dict[str, Any]:
        return {"id": claim["id"], "by": self.name, "token": claim["token"]}

    def _complete(self, claim: dict[str, Any]) -> None:
        self._write_once("task_spec.complete", **self._proof(claim))
        if self.random.random() < 0.2:  # it is over
            self._call("task_spec.heartbeat", **self._proof(claim), lease_ms=self.lease_ms)

    def _fail(self, claim: dict[str, Any]) -> None:
        self._write_once("task_spec.fail", **self._proof(claim))

    def _release(self, claim: dict[str, Any]) -> None:
        self._write_once("task_spec.release", **self._proof(claim))

    def _die(self, _: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _oversleep(self, claim: dict[str, Any]) -> None:
        """Come back when somebody else may have it."""
        self._pause(1.3)
        self._write_once("task_spec.complete", **self._proof(claim))

    def _forge(self, claim: dict[str, Any]) -> None:
        self._write_once("task_spec.complete", id=claim["id"], by=self.name, token="0" * 16)
        self._complete(claim)

    def _retry(self) -> None:
        """Set what has failed to pending."""
        failed = self._call("record.list", kind="task_spec", where={"status": "failed"}, limit=3)
        for spec in failed["items"] if failed else ():
            self._write_once("record.update", kind="task_spec", id=spec["id"], set={"status": "pending"},
                             if_updated_at=spec["updated_at"])

    def _is_left(self) -> bool:
        found = self._call("record.list", kind="task_spec", where={"status": {"ne": "complete"}}, limit=1)
        return found is None or bool(found["items"])

    def _pause(self, leases: float) -> None:
        time.sleep(leases * self.lease_ms / 1000)

    # Everything else

    def _plan(self) -> None:
        """A PRD and its task specs, some of which need others, also of other PRDs; unless enough is there."""
        ready = self._call("task_spec.ready", limit=_READY)
        if ready is None or len(ready["items"]) >= _READY:
            return
        prd = f"plan-{self.name}-{self._number}"
        specs: list[dict[str, Any]] = []
        for number in range(self.random.randrange(2, 6)):
            earlier = [spec["id"] for spec in specs] + self._specs[-2:]
            needs = self.random.sample(earlier, min(len(earlier), self.random.randrange(3)))
            specs.append({"id": f"{prd}.{number}", "prd_id": prd, "phase_name": f"phase {number}", "depends_on": needs})
        self._write_once("store.apply", ops=[
            {"op": "create", "kind": "prd", "record": {"id": prd, "title": "a plan", "status": "active"}},
            *({"op": "create", "kind": "task_spec", "record": spec} for spec in specs)])

    def _write(self) -> None:
        """Change what others change too."""
        note = self.random.choice(NOTES)
        found = self._call("record.get", kind="workflow", id=note)
        seen = {"if_updated_at": found["updated_at"]} if found and self.random.random() < 0.5 else {}
        self._write_once("record.update", kind="workflow", id=note, set={"description": f"by {self.name}"}, **seen)
        if self._specs and self.random.random() < 0.3:
            self._write_once("record.update", kind="task_spec", id=self.random.choice(self._specs),
                             set={"description": f"seen by {self.name}"})

    def _own(self) -> None:
        """Create something, or delete it."""
        if self._mine and self.random.random() < 0.5:
            self._write_once("record.delete", kind="workflow", id=self._mine.pop())
        else:
            self._mine.append(f"own-{self.name}-{self._number}")
            self._write_once("record.create", kind="workflow", record={"id": self._mine[-1], "name": self._mine[-1]})

    def _read(self) -> None:
        for _ in range(5):
            self._call("record.get", kind="workflow", id=self.random.choice(NOTES))
        if self._specs:
            self._call("record.get", kind="task_spec", id=self.random.choice(self._specs))

    def _list(self) -> None:
        newest = self._call("record.list", kind="prd", order="-created_at", limit=5)
        for prd in newest["items"][:2] if newest else ():
            found = self._call("record.list", kind="task_spec", where={"prd_id": prd["id"]})
            self._specs += [spec["id"] for spec in found["items"][:2]] if found else []

    def _ready(self) -> None:
        self._call("task_spec.ready", limit=5)

    def _wait(self) -> None:
        """Want something of somebody, and wait for it; half the time for as long as it takes."""
        key = f"dep-{self.name}-{self._number}"
        created = self._write_once("record.create", kind="dependency", record={
            "id": key, "from_exec_id": self.name, "to_exec_id": "anybody", "dependency_type": "query"})
        if created is not None:
            limit = {"timeout_ms": self.lease_ms} if self.random.random() < 0.5 else {}
            self._call("dependency.wait", id=key, **limit)

    def _resolve(self) -> None:
        found = self._call("record.list", kind="dependency", where={"resolved_at": None}, limit=3)
        for dependency in found["items"] if found else ():
            self._write_once("dependency.resolve", id=dependency["id"], payload=f"from {self.name}")

    def _switch(self) -> None:
        """Open the store anew, now and then in the other way."""
        self.store.close()
        self.uses_daemon ^= self.random.random() < 0.2
        self.store = Connection.open(daemon=self.uses_daemon)


if __name__ == "__main__":
    Agent(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])).run()
