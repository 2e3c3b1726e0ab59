"""What README, how-tos and examples show is what happens."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = str(Path(sys.executable).parent)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A new git repository."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def run(folder: Path, *argv: str) -> str:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, env={
        **{name: value for name, value in os.environ.items() if name != "TASKSTORE_DIR"},
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}"})
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout


def squeezed(text: str) -> list[str]:
    """The words of each line, however wide the columns are and however long the commands took."""
    return [" ".join(re.sub(r"\b\d+ s ago\b", "just now", line).split()) for line in text.splitlines()]


def same(text: str, names: dict[str, str]) -> str:
    """Text with the ids and tokens of the README in place of this run's, and without what is cut there."""
    for ours, theirs in names.items():
        text = text.replace(ours, theirs)
    return text


def test_the_first_steps(repository: Path) -> None:
    """The commands of the README's first steps print what stands there, one after the other."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## First steps")[2].partition("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    run(repository, "git", "config", "user.email", "a@b")
    run(repository, "git", "config", "user.name", "a")
    names: dict[str, str] = {str(repository): "/home/you/shop"}
    for block in blocks:
        for command, shown in re.findall(r"\$ (.*)\n((?:(?!\$ ).*\n)*)", block):
            ours = {theirs: mine for mine, theirs in names.items()}
            printed = run(repository, "sh", "-c", same(command, ours))
            if command.startswith("git"):
                continue
            for pattern in (r"\b(?:prd|ts)-[0-9a-z]{8}\b", r"--token ([0-9a-f]{16})"):
                for mine, theirs in zip(re.findall(pattern, printed), re.findall(pattern, shown), strict=False):
                    names.setdefault(mine, theirs)
            lines = squeezed(same(printed, names))
            for line in squeezed(shown):
                assert line == "…" or line in lines, f"{command}: {line!r} is not in {lines}"


@pytest.mark.parametrize("example", ["agent.py", "agent.sh"])
def test_the_example_agents(repository: Path, example: str) -> None:
    """Each example agent does everything there is to do, in the order in which it becomes ready."""
    run(repository, "taskstore", "init")
    for key, needs in (("t1", ""), ("t2", "t3"), ("t3", "t1")):
        run(repository, "taskstore", "create", "task_spec", "--set", f"id={key}", "--set", "prd_id=p", "--set",
            f"phase_name=phase {key}", "--set", f"depends_on={needs}")
    interpreter = sys.executable if example.endswith(".py") else "sh"
    said = run(repository, interpreter, str(ROOT / "examples" / example), "ann")
    assert re.findall(r"^(t\d): phase", said, re.MULTILINE) == ["t1", "t3", "t2"]
    assert "complete" in said
    assert '"complete":3' in run(repository, "taskstore", "stats", "--json").replace(" ", "")


def test_the_how_tos(repository: Path) -> None:
    """Every shell command of the how-tos succeeds, in order, in a repository with a store."""
    run(repository, "taskstore", "init")
    for page in sorted((ROOT / "docs" / "how-to").glob("*.md")):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for command in block.splitlines():
                assert shlex.split(command, comments=True)[0] == "taskstore", command
                run(repository, "sh", "-c", command)


def test_the_library_example(repository: Path) -> None:
    """The README's library example runs, and leaves what it says."""
    run(repository, "taskstore", "init")
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Library")[2]
    (code,) = re.findall(r"```python\n(.*?)```", text.partition("For asynchronous")[0], re.DOTALL)
    assert run(repository, sys.executable, "-c", code) == "Build the index\n"
    assert "done well" in run(repository, "taskstore", "export", "task_spec")
