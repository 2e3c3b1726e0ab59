"""`resolve-conflicts` and `Store.resolve_conflicts`, by the files and through a daemon, beside writers."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.client.test_cli import assert_refused, run, terminal, unstyled
from tests.client.test_commands import as_json, project

from taskstore import InvalidError, NotFoundError, Prd, connect

NOW = 1_764_000_000_000


def block(*pairs: tuple[str, str, str]) -> bytes:
    """A conflict block: for each id, the titles of ours and theirs."""
    sides = [[json.dumps({"id": pair[0], "title": pair[side], "updated_at": NOW}) for pair in pairs] for side in (1, 2)]
    return "\n".join(["<<<<<<< ours", *sides[0], "=======", *sides[1], ">>>>>>> theirs", ""]).encode()


@pytest.fixture(params=["files", "daemon"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder with a store in whose log of PRDs two records are in conflict."""
    with project(tmp_path / "project", request.param) as root:
        with log(root).open("ab") as file:
            file.write(block(("k1", "mine", "yours"), ("k2", "left\x1b", "right")))
        yield root


def log(root: Path) -> Path:
    return root / ".taskstore" / "prds.jsonl"


def test_list_and_settle(root: Path) -> None:
    """Conflicts are listed with what differs and exit status 1; taken one by one or together, they are settled."""
    before = log(root).read_bytes()
    done = run(root, "resolve-conflicts")
    assert done.status == 1
    assert "PRD k1: both sides changed it with the same stamp; ours → theirs:\n  title  mine → yours\n" in done.out
    assert "to settle it: taskstore resolve-conflicts prd k1 --take ours" in done.out
    assert "\x1b" not in done.out
    assert done.out.endswith("2 conflicts left; --take ours, theirs or newest settles all of them\n")
    assert log(root).read_bytes() == before
    done = run(root, "resolve-conflicts", "prd", "k1", "--take", "ours")
    assert (done.status, done.out.splitlines()[0]) == (1, "PRD k1: ours is taken")
    done = run(root, "resolve-conflicts", "--take", "theirs")
    assert done.status == 0
    assert done.out == ("PRD k2: theirs is taken\nprds.jsonl has no markers any more\n"
                        "settled; git add takes the logs in\n")
    assert [as_json(run(root, "show", "prd", key, "--json"))["title"] for key in ("k1", "k2")] == ["mine", "right"]
    assert b"=====" not in log(root).read_bytes()
    done = run(root, "resolve-conflicts")
    assert (done.status, done.out) == (0, "no conflict\n")
    assert "left" in run(root, "history", "prd", "k2").out


def test_json(root: Path) -> None:
    """With --json the answer is printed, with --jsonl a conflict a line; the status is the same."""
    done = run(root, "resolve-conflicts", "--jsonl")
    assert done.status == 1
    assert [(one["kind"], one["id"], one["ours"]["title"]) for one in map(json.loads, done.out.splitlines())] == [
        ("prd", "k1", "mine"), ("prd", "k2", "left\x1b")]
    answer = as_json(run(root, "resolve-conflicts", "--take", "newest", "--json"))
    assert (answer["left"], answer["logs"], {one["taken"] for one in answer["conflicts"]}) == (
        0, ["prds.jsonl"], {"theirs"})


@pytest.mark.parametrize(("argv", "status", "parts"), [
    (["--take", "mine"], 2, ["take", "ours, theirs, newest"]),
    (["prd", "none", "--take", "ours"], 1, ["the PRD none is in no conflict", "resolve-conflicts lists"]),
    (["prd", "k", "--take", "ours"], 1, ["several PRDs in conflict begin with k"]),
    (["prd", "k1"], 2, ["what to take"]), (["nope"], 2, ["nope"]),
], ids=lambda value: " ".join(value) if isinstance(value, list) else str(value))
def test_refusals(root: Path, argv: list[str], status: int, parts: list[str]) -> None:
    """What makes no sense is refused in one line, and nothing is written."""
    before = log(root).read_bytes()
    assert_refused(run(root, "resolve-conflicts", *argv), status, *parts)
    assert log(root).read_bytes() == before


def test_in_a_terminal(root: Path) -> None:
    """In a terminal what a record holds does nothing to it."""
    assert "\x1b" not in unstyled(terminal(root, "resolve-conflicts").out)


def test_library(root: Path) -> None:
    """The library does the same, by type."""
    with connect(os.fspath(root)) as store:
        found = store.resolve_conflicts()
        assert [(one["id"], one["ours"]["title"], one["taken"]) for one in found["conflicts"]] == [
            ("k1", "mine", None), ("k2", "left\x1b", None)]
        with pytest.raises(NotFoundError):
            store.resolve_conflicts("ours", Prd, id="none")
        with pytest.raises(InvalidError):
            store.resolve_conflicts("both")
        assert store.resolve_conflicts("ours", Prd, id="k2")["left"] == 1
        assert store.resolve_conflicts("ours")["left"] == 0
        assert store.get(Prd, "k1").title == "mine"


WRITER = """
import sys
from taskstore import Prd, connect
with connect(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(60):
        print(store.create(Prd(title=str(number))).id, flush=True)
"""


def test_beside_writers(root: Path) -> None:
    """Settling again and again while others write loses none of their lines."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, os.fspath(root)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "ready\n"
    written: list[str] = []
    threads = [threading.Thread(target=lambda writer=writer: written.extend(writer.communicate("\n")[0].split()))
               for writer in writers]
    for thread in threads:
        thread.start()
    with connect(os.fspath(root)) as store:
        for number in range(15):
            with log(root).open("ab") as file:
                file.write(block((f"n{number}", "mine", "yours")))
            assert store.resolve_conflicts("ours")["left"] == 0
        for thread in threads:
            thread.join()
        assert [writer.returncode for writer in writers] == [0, 0]
        assert len(written) == 120
        there = {prd.id: prd.title for prd in store.list(Prd)}
    assert set(written) <= there.keys()
    assert {there[f"n{number}"] for number in range(15)} == {"mine"}
