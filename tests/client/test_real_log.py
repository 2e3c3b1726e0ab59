"""Every reading command on a real tracker's log of 2,404 records, in a pipe and in a terminal."""

import json
import os
from pathlib import Path

import jsonschema
import pytest
from tests.client.test_cli import run, terminal, unstyled
from tests.client.test_import_beads import LOG

from taskstore_core import answers

READING: list[tuple[list[str], str]] = [
    (["stats"], "store.stats"), (["list-prds"], "record.list"), (["list-prds", "--status", "complete"], "record.list"),
    (["list", "task_spec"], "record.list"),
    (["list", "ts", "--where", "status=pending", "--order=-updated_at", "--limit", "5"], "record.list"),
    (["list-executions"], "record.list"), (["ready"], "task_spec.ready"),
    (["ready", "--limit", "3"], "task_spec.ready"),
    (["check"], "store.check"), (["sync"], "store.sync"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that the real log was imported into."""
    if not os.path.exists(LOG):
        pytest.skip(f"the real log is not here: {LOG}")
    root = tmp_path_factory.mktemp("real")
    run(root, "init")
    done = run(root, "import", "beads", str(LOG))
    assert done.status == 0, done
    return root


@pytest.mark.parametrize(("argv", "method"), READING, ids=[" ".join(argv) for argv, _ in READING])
def test_reading(root: Path, argv: list[str], method: str) -> None:
    """People get a table without control characters, programs JSON that fits its schema, and both the same records."""
    plain, shown, programs = run(root, *argv), terminal(root, *argv, columns=300), run(root, *argv, "--json")
    assert plain.status == shown.status == programs.status == 0, plain
    answer = json.loads(programs.out)
    jsonschema.Draft202012Validator(answers.answer_schema(method)).validate(answer)
    for text in (plain.out, unstyled(shown.out)):
        assert all(char == "\n" or char.isprintable() for char in text.replace("\r", "")), repr(text[:200])
    if "items" in answer:
        rows = len(answer["items"])
        assert max(0, len(plain.out.splitlines()) - 1) == rows == max(0, len(unstyled(shown.out).splitlines()) - 1)
        lines = run(root, *argv, "--jsonl").out.splitlines()
        assert [json.loads(line)["id"] for line in lines] == [item["id"] for item in answer["items"]]


def test_one_of_each(root: Path) -> None:
    """One PRD and one task spec are shown in full, with their history, and the spec can be claimed and completed."""
    prd = json.loads(run(root, "list-prds", "--json").out)["items"][0]["id"]
    assert prd in run(root, "show", "prd", prd).out
    assert prd in unstyled(terminal(root, "show", "prd", prd).out)
    spec = json.loads(run(root, "ready", "--json", "--limit", "1").out)["items"][0]["id"]
    claimed = json.loads(run(root, "claim", "--by", "ann", "--json").out)
    assert claimed["id"] == spec
    done = run(root, "complete", spec, "--by", "ann", "--token", claimed["token"])
    assert done.status == 0, done
    history = json.loads(run(root, "history", "ts", spec, "--json").out)["items"]
    assert [version["status"] for version in history] == ["pending", "running", "complete"]


def test_there_and_back(root: Path, tmp_path: Path) -> None:
    """The whole of it exported and imported elsewhere is the same state."""
    exported = run(root, "export").raw
    run(tmp_path, "init")
    done = run(tmp_path, "import", "-", data=exported)
    assert done.status == 0, done
    assert sorted(run(tmp_path, "export").raw.splitlines()) == sorted(exported.splitlines())
