"""Concurrent edits on the command line and in the asynchronous library, by the files and through a daemon."""

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from tests.client.test_cli import run
from tests.client.test_commands import as_json, project

from taskstore import TaskSpec, connect_async

THEN = 1_764_000_000_000


def line(key: str, phase: str, version: int, base: "int | None" = None) -> str:
    saw = {} if base is None else {"base_at": THEN + base}
    return json.dumps({"id": key, "prd_id": "p", "phase_name": phase, "created_at": THEN, "updated_at": THEN + version,
                       "status": "pending", **saw}) + "\n"


@pytest.fixture(params=["files", "daemon"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder with a store in which a merge had one of two task specs lose a version."""
    with project(tmp_path / "project", request.param) as root:
        with (root / ".taskstore" / "task_specs.jsonl").open("a") as file:
            file.write(line("k1", "first", 0) + line("k2", "first", 0) + line("k1", "ours", 5, 0)
                       + line("k1", "theirs", 3, 0) + line("k2", "second", 4, 0))
        yield root


def test_what_lost_is_listed_and_told(root: Path) -> None:
    """The list has the record until it is changed; history says what the version that lost had done to its own base."""
    assert [one["id"] for one in as_json(run(root, "list", "ts", "--concurrent", "--json"))["items"]] == ["k1"]
    assert as_json(run(root, "list", "ts", "--concurrent", "--where", "status=failed", "--json"))["items"] == []
    assert "k1" in run(root, "list", "ts", "--concurrent").out
    done = run(root, "history", "ts", "k1")
    told = [row.split("  ")[-1] for row in done.out.splitlines()[1:]]
    assert told == ["created", "lost to a concurrent one: phase_name first → theirs", "phase_name first → ours"]
    assert done.err == f"to bring back what lost: taskstore restore task_spec k1 --version {THEN + 3}\n"
    answer = as_json(run(root, "history", "ts", "k1", "--json"))
    assert [answer["items"][place]["phase_name"] for place in answer["lost"]] == ["theirs"]
    assert run(root, "history", "ts", "k2").err == ""
    run(root, "update", "ts", "k1", "--set", "phase_name=ours")
    assert run(root, "list", "ts", "--concurrent").err == "no task specs\n"
    assert as_json(run(root, "history", "ts", "k1", "--json"))["lost"] == [1]


def test_a_printed_record_may_be_given_back(root: Path, tmp_path: Path) -> None:
    """What a line says of its base is no field: show prints none, and a record printed as JSON can be sent again."""
    assert "base_at" not in run(root, "show", "ts", "k1").out
    printed = run(root, "show", "ts", "k1", "--json").out
    assert "base_at" in printed
    (tmp_path / "given.jsonl").write_text(printed.replace("ours", "given back"))
    assert run(root, "update", "ts", "--file", str(tmp_path / "given.jsonl")).status == 0
    shown = as_json(run(root, "show", "ts", "k1", "--json"))
    assert (shown["phase_name"], shown["base_at"]) == ("given back", [THEN + 5, THEN + 3])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_asynchronous_library(root: Path, backend: str) -> None:
    """It lists the same, and its versions say which of them lost."""
    async def work() -> "tuple[list[str], list[bool]]":
        async with connect_async(str(root)) as store:
            listed = await store.list(TaskSpec, concurrent=True)
            return [one.id for one in listed], [one.lost for one in await store.history(TaskSpec, "k1")]

    assert anyio.run(work, backend=backend) == (["k1"], [False, True, False])
