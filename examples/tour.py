"""A tour: agents work on a small web shop's project through a daemon, while `taskstore watch` looks on.

It fails when anything is not as it should be: a task spec with two holders or none, or whose end was not told, or told
twice.
"""

import json
import os
import re
import signal
import sys
import time
from statistics import median

from stage import HERE, PATIENCE_S, Stage, TourError, stage

from taskstore import Create, Prd, PrdStatus, TaskSpec, connect

INVOICES = "prd-invoices"
PIECES = [TaskSpec(id=key, prd_id=INVOICES, phase_name=phase, depends_on=needs.split()) for key, phase, needs in (
    ("ts-range", "Number ranges", ""), ("ts-vat", "VAT by country", ""), ("ts-mail", "Mail with the order", "ts-pdf"),
    ("ts-credit", "Credit notes", "ts-range ts-xml"), ("ts-books", "Export for the books", "ts-credit ts-mail ts-vat"))]
CREW = ("ann", "bob", "cy")
WORK_S = 0.3
LABELS = Prd(id="prd-labels", title="Labels in every language", status=PrdStatus.ACTIVE)
MANY = [TaskSpec(id=f"ts-label-{number:03}", prd_id=LABELS.id, phase_name=f"Label {number}") for number in range(200)]
MANY_HANDS = (*CREW, "dee", "eve", "fay")
WATCH = "watch"
COMPLETE = "complete"
_TOLD = ([COMPLETE], ["running", COMPLETE], [COMPLETE, COMPLETE])
"""What `watch` may say of a task spec: each change, as the record is when that is told, and of two together one."""
_CHANGE = re.compile(r"(?:created|updated)  task spec +(\S+) +(\w+)")


class Shift:
    """Agents doing all of a PRD, and what they and `taskstore watch` said of it."""

    def __init__(self, on: Stage, names: tuple[str, ...], prd_id: str, work_s: float = 0.0) -> None:
        """`work_s` is how long each task spec takes an agent; where it takes any time, one can watch them."""
        self.holders: dict[str, str] = {}
        self.told: dict[str, list[str]] = {}
        self.calls_ms: list[float] = []
        self._stage = on
        self._names = names
        self._prd_id = prd_id
        self._work_s = work_s

    def work(self) -> float:
        """Do it; how long that took, in s."""
        self._begin()
        began = ended = time.perf_counter()
        self._stage.say_go(*self._names)
        at_work = set(self._names)
        while at_work or any(COMPLETE not in self.told.get(key, ()) for key in self.holders):
            name, line = self._stage.next_line()
            if name == WATCH:
                self._take_change(line)
            elif line:
                self._take_step(name, line)
            else:
                at_work.remove(name)
                ended = time.perf_counter()
        self._stage.end(*self._names)
        return ended - began

    def _begin(self) -> None:
        for name in self._names:
            self._stage.start(name, f"{HERE}/crew.py", name, self._prd_id, str(self._work_s))
        are_ready = 0
        while are_ready < len(self._names):
            name, line = self._stage.next_line()
            if name == WATCH:
                self._take_change(line)
            else:
                are_ready += line == "ready"

    def _take_change(self, line: str) -> None:
        change = _CHANGE.search(line)
        if change is None:
            raise TourError(f"watch says {line!r}")
        key, status = change.groups()
        if status != "pending":  # as which it was created
            self._show(WATCH, line)
            self.told.setdefault(key, []).append(status)

    def _take_step(self, name: str, line: str) -> None:
        step = json.loads(line)
        self.calls_ms.append(step["ms"])
        if step["did"] == "claim":
            if step["id"] in self.holders:
                raise TourError(f"{self.holders[step['id']]} has {step['id']}, and {name} got it too")
            self.holders[step["id"]] = name
            self._show(name, f"takes {step['id']}: {step['phase']}")
        else:
            unblocked = ", ".join(step["unblocked"])
            self._show(name, f"is done with {step['id']}{unblocked and f', so that one can begin with {unblocked}'}")

    def _show(self, who: str, what: str) -> None:
        if self._work_s:
            print(f"{who:>6} │ {what}", flush=True)

    def verify(self) -> None:
        """Hold what was said to what stands in the log."""
        written = versions(self._stage, self._prd_id)
        if written.keys() != self.holders.keys():
            raise TourError(f"nobody took {sorted(written.keys() - self.holders.keys())}")
        for key, holder in self.holders.items():
            if written[key] != [("pending", None), ("running", holder), (COMPLETE, holder)]:
                raise TourError(f"{holder} had {key}; its versions are {written[key]}")
            if self.told[key] not in _TOLD:
                raise TourError(f"watch told of {key}: {self.told[key]}")


def versions(on: Stage, prd_id: str) -> dict[str, list[tuple[str, str | None]]]:
    """The status and the holder of a PRD's task specs in each version of them, by id."""
    found: dict[str, list[tuple[str, str | None]]] = {}
    with open(f"{on.directory}/task_specs.jsonl", encoding="utf-8") as log:
        for version in map(json.loads, log):
            if version.get("prd_id") == prd_id:
                found.setdefault(version["id"], []).append((version["status"], version["assigned_to"]))
    return found


def say(text: str) -> None:
    """A heading."""
    print(f"\n# {text}", flush=True)


def show_what_is_there(on: Stage) -> None:
    """The example as it was shipped, and a daemon for it."""
    say("A small web shop's project:")
    on.show("stats")
    say("A daemon for it, which agents share:")
    on.show("daemon", "start", "--idle-s", "60")


def look_on(on: Stage) -> None:
    """Have somebody watch from here on."""
    on.start(WATCH, "-m", "taskstore", "watch", "ts")
    deadline = time.monotonic() + PATIENCE_S
    while not on.status()["subscribers"]:
        if time.monotonic() > deadline:
            raise TourError("nobody watches")


def work_together(on: Stage) -> None:
    """A few agents, and what one sees of them."""
    with connect(directory=on.directory) as store:
        store.apply([Create(spec) for spec in PIECES])
    say("One PRD and its pieces, some of which need others:")
    on.show("list-task-specs", INVOICES)
    say(f"{len(CREW)} agents, each a process, do all of it; `taskstore watch ts` in another terminal looks on:")
    look_on(on)
    shift = Shift(on, CREW, INVOICES, WORK_S)
    shift.work()
    shift.verify()


def work_fast(on: Stage) -> None:
    """More agents, and pieces that take no time."""
    say(f"{len(MANY_HANDS)} agents and {len(MANY)} pieces that take no time:")
    with connect(directory=on.directory) as store:
        store.apply([Create(LABELS), *(Create(spec) for spec in MANY)])
    asked = on.status()["requests"]
    shift = Shift(on, MANY_HANDS, LABELS.id)
    took_s = shift.work()
    shift.verify()
    if on.status()["requests"] - asked < len(shift.calls_ms):
        raise TourError("the daemon was not asked")
    print(f"{len(MANY) / took_s:.0f} claims a second, each durable, and as many completions")
    print(f"p50 of a call {median(shift.calls_ms):.1f} ms, of an fdatasync alone, {fdatasync_ms(on):.1f} ms")
    print("each piece had one holder, and `watch` told of the end of each")


def fdatasync_ms(on: Stage) -> float:
    """What making a line durable takes at the least, at the median."""
    times = []
    with open(f"{on.directory}/../floor", "ab", buffering=0) as file:
        for _ in range(25):
            file.write(bytes(300))
            began = time.perf_counter()
            os.fdatasync(file)
            times.append((time.perf_counter() - began) * 1000)
    return median(times)


def show_what_stays(on: Stage) -> None:
    """The log."""
    say("Nothing is wrong with the store, and each change stands as a line in a log that git can merge:")
    on.show("check")
    print("$ tail -n 1 task_specs.jsonl")
    with open(f"{on.directory}/task_specs.jsonl", encoding="utf-8") as log:
        print(log.readlines()[-1], end="")


def main() -> int:
    """Give the tour."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with stage() as on:
            show_what_is_there(on)
            work_together(on)
            work_fast(on)
            show_what_stays(on)
            say("Now the daemon ends, and the copy is thrown away.")
    except TourError as error:
        print(f"tour: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
