"""What takes its time: progress on a terminal, `watch`, and how both end."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.client.test_cli import environment, run, words


class Shown:
    """A process, and a terminal of which its standard error is a part."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self.seen = ""

    def until(self, part: str) -> None:
        """Read what appears up to `part`."""
        while part not in self.seen:
            assert select.select([self._terminal], [], [], 60)[0], self.seen
            self.seen += os.read(self._terminal, 4096).decode()

    def to_the_end(self) -> str:
        """All that appeared, once the process has ended."""
        with contextlib.suppress(OSError):  # EIO: the last writer has gone
            while block := os.read(self._terminal, 4096):
                self.seen += block.decode()
        return self.seen


@contextlib.contextmanager
def shown_errors(folder: Path, *argv: str, **changes: str) -> Iterator[Shown]:
    """Run a command with pipes but for standard error, which is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(words(argv), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs,
                          env=environment(**changes)) as process:
        os.close(theirs)
        try:
            yield Shown(process, ours)
        finally:
            process.kill()
            os.close(ours)


def test_progress(shop: Path) -> None:
    """What takes more than a second says so on a terminal, and the line is gone when it is done."""
    with shown_errors(shop, "import", "-", "--kind", "prd", "--json") as shown:
        shown.until("reading standard input … 1 s")
        out, _ = shown.process.communicate(b'{"id":"n1","title":"T","updated_at":5}\n')
        assert json.loads(out)["lines"]["prd"]["imported"] == 1
        assert shown.to_the_end().endswith("s\r\x1b[K")
        assert shown.process.returncode == 0


def test_no_progress_in_a_pipe(shop: Path) -> None:
    """Where nobody looks there is none, however long it takes."""
    done = run(shop, "wait-dependency", "d1", "--timeout-ms", "1100")
    assert (done.status, done.err) == (1, "taskstore: dependency d1 is not resolved after 1 s\n")


# Watching


def line_from(shown: Shown) -> str:
    """The next line of standard output, which the command writes whole; "" at its end."""
    assert shown.process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([shown.process.stdout], [], [], 60)[0], (line, shown.seen)
        block = os.read(shown.process.stdout.fileno(), 1)
        if not block:
            break
        line += block
    return line.decode()


def test_watch_for_people(shop: Path) -> None:
    """People get a line for each change: when, what, which record, and what it is now."""
    with shown_errors(shop, "watch") as shown:
        shown.until("watching; Ctrl-C ends it")
        run(shop, "create", "prd", "--set", "id=p9", "--set", "title=New\x1b[31m")
        run(shop, "update", "ts", "t2", "--set", "status=complete")
        run(shop, "delete", "workflow", "w1")
        lines = [line_from(shown) for _ in range(3)]
        assert [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in lines] == [
            "created  PRD         p9            draft  New\\x1b[31m\n",
            "updated  task spec   t2            complete  query\n",
            "deleted  workflow    w1\n"]
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(60) == 0
        assert line_from(shown) == ""


def test_watch_what_fits(shop: Path) -> None:
    """With --where only what fits is told, and what is deleted."""
    with shown_errors(shop, "watch", "ts", "--where", "status=complete", "--json") as shown:
        shown.until("watching")
        run(shop, "update", "ts", "t2", "--set", "phase_name=still pending")
        run(shop, "update", "ts", "t2", "--set", "status=complete")
        run(shop, "delete", "ts", "t1")
        events = [json.loads(line_from(shown)) for _ in range(2)]
        assert [(event["id"], event["op"]) for event in events] == [("t2", "update"), ("t1", "delete")]
        assert list(events[0]) == ["kind", "id", "op", "record"]


@pytest.mark.parametrize(("option", "said"), [("--json", '{"resync":true}\n'), ("", "look anew: ")])
def test_watch_a_cache_built_anew(shop: Path, option: str, said: str) -> None:
    """Once the cache was built anew, `watch` says to look anew, and goes on."""
    with shown_errors(shop, "watch", *option.split()) as shown:
        shown.until("watching")
        run(shop, "sync", "--full")
        assert said in line_from(shown)
        run(shop, "create", "prd", "--set", "id=later", "--set", "title=T")
        assert "later" in line_from(shown)


def test_watch_in_a_terminal(shop: Path) -> None:
    """A `watch` whose terminal hangs up ends."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(words(["watch"]), cwd=shop, stdin=theirs, stdout=theirs, stderr=theirs,
                          env=environment(), start_new_session=True) as process:
        os.close(theirs)
        assert b"watching" in os.read(ours, 4096)
        os.close(ours)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_an_interrupted_wait(shop: Path) -> None:
    """Ctrl-C ends any other command with status 130, and no more is said."""
    with shown_errors(shop, "wait-dependency", "d1") as shown:
        shown.until("waiting for d1 … 1 s")
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(60) == 130
        assert shown.to_the_end().endswith("s\r\x1b[K")
