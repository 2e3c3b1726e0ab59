"""`recover`, as a command and by the library, by the files and through a daemon."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.client.test_branches import git
from tests.client.test_cli import assert_refused, run, terminal, unstyled
from tests.client.test_commands import as_json
from tests.conftest import Site
from tests.daemons import running_daemon

from taskstore import InvalidError, NotFoundError, Prd, connect, connect_async
from taskstore_core import outbox
from taskstore_core.batch import Operation
from taskstore_core.kinds import KINDS

AGO_MS = 3 * 60_000


@pytest.fixture(name="root", params=["files", "daemon"])
def fixture_root(site: Site, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store whose two PRDs were written three minutes ago, thrown away, and one of them made again since."""
    git(site, "add", ".")
    git(site, "commit", "-qm", "the store")
    site.calm()
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "now_ms", lambda: int(time.time() * 1000) - AGO_MS)
        with site.open() as store:
            store.apply([Operation("create", KINDS["prd"], {"id": key, "title": title})
                         for key, title in (("p1", "first"), ("p2", "esc \x1b[2J"))])
    git(site, "reset", "-q", "--hard")
    site.calm()
    site.seed(1, id="p1")
    site.calm()
    if request.param == "files":
        yield site.root
    else:
        with running_daemon(os.fspath(site.directory), "--log-level", "error"):
            yield site.root


def test_list_and_bring_back(root: Path) -> None:
    """What is lost is listed and nothing changed by that; brought back, it is said what it means."""
    before = (root / ".taskstore" / "prds.jsonl").read_bytes()
    done = run(root, "recover")
    head, first, second, _, summary = done.out.splitlines()
    assert (done.status, done.err) == (0, "")
    assert head.split("  ")[0] == "KIND"
    assert first.split()[:2] == ["PRD", "p1"]
    assert "3 min ago" in first
    assert "older: for the history alone" in first
    assert second.split()[-5:] == ["newer", "does", "not", "have", "it"]
    assert summary == "2 lines; taskstore recover ID … brings back those of a record, --all all of them"
    assert (root / ".taskstore" / "prds.jsonl").read_bytes() == before
    done = run(root, "recover", "p1")
    assert "3 min ago, is back; a newer version stands, so only its history has this one\n" in done.out
    assert done.out.endswith("1 line brought back, 1 left\n")
    assert as_json(run(root, "show", "prd", "p1", "--json"))["title"] == "seed 0"
    assert run(root, "history", "prd", "p1", "--jsonl").out.count("\n") == 2
    done = run(root, "recover", "--all")
    assert done.out.endswith("is back\n1 line brought back\n")
    assert as_json(run(root, "show", "prd", "p2", "--json"))["title"] == "esc \x1b[2J"
    assert run(root, "recover").out == "no line is lost\n"
    assert run(root, "recover", "--all").out == "0 lines brought back\n"
    assert len((root / ".taskstore" / "prds.jsonl").read_bytes().splitlines()) == 3


def test_json(root: Path) -> None:
    """With --json the answer is printed, with --jsonl a line each."""
    answer = as_json(run(root, "recover", "--json"))
    assert [(one["id"], one["superseded"], one["recovered"], one["record"]["title"]) for one in answer["lines"]] == [
        ("p1", True, False, "first"), ("p2", False, False, "esc \x1b[2J")]
    assert answer["left"] == 2
    lines = run(root, "recover", "p2", "--jsonl").out.splitlines()
    assert [json.loads(line)["recovered"] for line in lines] == [False, True]


@pytest.mark.parametrize(("argv", "status", "parts"), [
    (["p"], 1, ["several", "taskstore recover lists"]), (["p1", "none"], 1, ["no line of none"]),
    (["p1", "--all"], 2, ["ids"])])
def test_refusals(root: Path, argv: list[str], status: int, parts: list[str]) -> None:
    """What makes no sense is refused in one line, and nothing is written."""
    before = (root / ".taskstore" / "prds.jsonl").read_bytes()
    assert_refused(run(root, "recover", *argv), status, *parts)
    assert (root / ".taskstore" / "prds.jsonl").read_bytes() == before


def test_in_a_terminal(root: Path) -> None:
    """In a terminal what a record holds does nothing to it."""
    assert "\x1b" not in unstyled(terminal(root, "recover", "--jsonl").out)
    assert "p2" in unstyled(terminal(root, "recover").out)


def test_library(root: Path) -> None:
    """The library does the same."""
    with connect(os.fspath(root)) as store:
        assert [one["id"] for one in store.recover()["lines"]] == ["p1", "p2"]
        with pytest.raises(NotFoundError):
            store.recover("none")
        with pytest.raises(InvalidError):
            store.recover("p1", all=True)
        assert store.recover("p2")["left"] == 1
        assert store.get(Prd, "p2").title == "esc \x1b[2J"
        assert store.recover(all=True)["left"] == 0
        assert store.get(Prd, "p1").title == "seed 0"


async def test_asynchronous(root: Path) -> None:
    """So does the asynchronous one."""
    async with connect_async(os.fspath(root)) as store:
        assert (await store.recover("p2"))["left"] == 1
        assert (await store.get(Prd, "p2")).title == "esc \x1b[2J"
