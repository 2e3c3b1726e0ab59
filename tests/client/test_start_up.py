"""What a command imports: the start is most of what a short command costs, and each of these packages would show."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

DAEMON = {"trio", "pygit2", "watchfiles", "asyncio"}
NEVER = {*DAEMON, "rich", "importlib.metadata"}
READING = {*NEVER, "msgspec", "orjson", "argparse", "dataclasses", "typing", "inspect", "pathlib"}

RUN = """
import sys
from taskstore.cli import main
status = main(sys.argv[1:])
sys.stdout.flush()
sys.stderr.write("\\n" + " ".join(sys.modules))
sys.exit(status)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a record of each of the kinds that the commands below ask for."""
    directory = os.fspath(tmp_path_factory.mktemp("start") / ".taskstore")
    for command in (["init"], ["create", "prd", "--set", "id=p1", "--set", "title=Tïtle\x1b"],
                    ["create", "ts", "--set", "id=t1", "--set", "prd_id=p1", "--set", "phase_name=N"],
                    ["stats"]):
        modules_after(directory, command)
    return directory


def modules_after(directory: str, command: Sequence[str], data: str = "") -> set[str]:
    """The modules that a process has imported when the command is done, which must succeed."""
    done = subprocess.run([sys.executable, "-c", RUN, "--store", directory, *command],
                          input=data, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("\n")[2].split())


def packages(modules: set[str], named: set[str]) -> set[str]:
    """Which of `named` are among the modules, as such or by a part of them."""
    return {name for name in named if any(f"{module}.".startswith(f"{name}.") for module in modules)}


@pytest.mark.parametrize("command", [
    ["show", "prd", "p1"],
    ["show", "prd", "p"],
    ["show", "prd", "p1", "--json"],
    ["list", "prd"],
    ["list", "prd", "--where", "status=draft", "--order=-title"],
    ["list", "prd", "--json"],
    ["list-prds"],
    ["list-prds", "--jsonl"],
    ["list-task-specs", "p1"],
    ["list-executions"],
    ["stats"],
    ["ready"],
    ["history", "ts", "t1"],
], ids=" ".join)
def test_reading(directory: str, command: list[str]) -> None:
    """A command that reads imports no package that only writing, the daemon, a terminal or help needs."""
    assert packages(modules_after(directory, command), READING) == set()


@pytest.mark.parametrize("command", [["show", "prd", "p1"], ["list-prds"], ["stats"]], ids=" ".join)
def test_reading_needs_no_regular_expressions(directory: str, command: list[str]) -> None:
    """The commonest commands import neither `re`, `enum`, `json` nor `threading`."""
    assert packages(modules_after(directory, command), {"re", "enum", "json", "threading"}) == set()


@pytest.mark.parametrize("command", [
    ["create", "prd", "--set", "title=T"],
    ["create", "prd", "--set", "title=T", "--json"],
    ["create", "prd", "--stdin"],
    ["init"],
    ["sync"],
    ["sync", "--full"],
    ["schema", "prd"],
    ["import", "beads", os.devnull],
    ["update", "prd", "p1", "--set", "title=U"],
    ["claim", "t1", "--by", "ann", "--lease-ms", "1"],
    ["check"],
    ["export"],
], ids=" ".join)
def test_writing(directory: str, command: list[str]) -> None:
    """Every other command imports nothing that the daemon or a terminal needs."""
    assert packages(modules_after(directory, command, '{"title":"T"}\n'), NEVER) == set()


def test_a_terminal_is_what_rich_is_for(directory: str) -> None:
    """The test would see what a command imports: outside these lists it imports apsw, and our own modules."""
    modules = modules_after(directory, ["stats"])
    assert packages(modules, {"apsw", "taskstore.cli.upkeep", "taskstore_core.store"}) == {
        "apsw", "taskstore.cli.upkeep", "taskstore_core.store"}
    assert packages({"re._compiler", "a.typing"}, {"re", "typing"}) == {"re"}


def test_first_read_of_a_new_clone(tmp_path: Path, directory: str) -> None:
    """Where the cache is missing, reading a small log still imports nothing of the daemon's."""
    folder = tmp_path / ".taskstore"
    folder.mkdir()
    for name in (".version", "prds.jsonl"):
        (folder / name).write_bytes((Path(directory) / name).read_bytes())
    modules = modules_after(os.fspath(folder), ["list-prds"])
    assert packages(modules, NEVER) == set()
