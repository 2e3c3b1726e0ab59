"""What `check` says of a clone, and what it mends."""

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.hooks.conftest import HOOKS, NAME, Clone, files_of, record


def problems(clone: Clone, *words: str, status: int | None = None) -> dict[str, dict[str, object]]:
    """Problems by name."""
    done = clone.run("check", "--json", *words, check=False)
    answer = json.loads(done.stdout)
    assert done.returncode == (1 if answer["left"] else 0) == (done.returncode if status is None else status)
    return {each["problem"]: each for each in answer["problems"]}


@pytest.fixture
def merged(tied: Clone) -> Clone:
    """One whose merge driver is a program."""
    program = tied.top.parent / "taskstore-merge"
    program.write_text("#!/bin/sh\nexit 2\n")
    program.chmod(0o755)
    tied.run("install-hooks", PATH=f"{program.parent}:{os.environ['PATH']}")
    return tied


def test_nothing_is_wrong(merged: Clone) -> None:
    """Where all is installed and committed there is nothing to say."""
    merged.run("create", "prd", "--set", "title=T")
    assert merged.run("check").stdout == "nothing is wrong\n"


def test_a_clone_without_hooks_and_driver(merged: Clone) -> None:
    """A missing driver is a warning, missing hooks are notes; --fix installs them."""
    second = Clone(merged.top.parent / "second", merged.top.parent.parent / "home")
    merged.git("clone", "-q", str(merged.top), str(second.top))
    found = problems(second, status=1)
    assert set(found) == {"no_driver", "no_hook"}
    assert (found["no_driver"]["severity"], found["no_hook"]["severity"]) == ("warning", "note")
    assert "has no merge driver" in str(found["no_driver"]["message"])
    second.environment["PATH"] = f"{merged.top.parent}:{second.environment['PATH']}"
    assert all(each["fixed"] for each in problems(second, "--fix", status=0).values())
    assert problems(second) == {}
    assert (second.hooks / "pre-push").exists()


def test_a_driver_that_is_gone(merged: Clone) -> None:
    """A registered driver whose program was deleted is a warning."""
    merged.git("config", "merge.taskstore-merge.driver", "'/gone/taskstore-merge' %O %A %B %L %P")
    assert "is gone" in str(problems(merged, status=1)["no_driver"]["message"])


def test_hooks_that_run_nothing(merged: Clone) -> None:
    """A hook that names a program which is gone, with none on PATH, is a note, and mended."""
    hook = merged.hooks / "pre-commit"
    good = hook.read_text()
    hook.write_text(good.replace(good.split("'")[1], "/gone/taskstore"))
    assert "gone" in str(problems(merged, status=0)["no_hook"]["message"])
    problems(merged, "--fix")
    assert hook.read_text() == good


def test_a_hook_that_is_left_alone(merged: Clone) -> None:
    """A hook that cannot take our lines is told with the reason, and is nothing to mend."""
    merged.hook("pre-commit", "#!/usr/bin/env python3\n")
    found = problems(merged, "--fix", status=0)["no_hook"]
    assert "it is no shell script" in str(found["message"])
    assert (found["fixable"], found["fixed"]) == (False, False)


@pytest.mark.parametrize("how", ["deleted", "overridden", "another line"])
def test_attributes(merged: Clone, how: str) -> None:
    """Attributes that do not lead to the driver, for whatever reason, are a warning; what is missing is mended."""
    path = merged.store / ".gitattributes"
    if how == "deleted":
        merged.git("rm", "-qf", str(path))
    elif how == "overridden":
        (merged.top / ".git" / "info" / "attributes").write_text("*.jsonl -merge\n")
    else:
        path.write_text("*.txt text\n")
    assert problems(merged, status=1)["no_attributes"]["severity"] == "warning"
    mended = problems(merged, "--fix")["no_attributes"]["fixed"]
    assert mended == (how != "overridden")
    assert "*.jsonl merge=taskstore-merge -text\n" in path.read_text()


def test_logs_that_git_does_not_know(clone: Clone) -> None:
    """A log with records that was never added is a warning, since `git clean` would take it; an empty one is not."""
    clone.run("init")
    assert "untracked_log" not in problems(clone)
    clone.run("create", "prd", "--set", "title=T")
    assert problems(clone, status=1)["untracked_log"]["file"] == "prds.jsonl"
    clone.git("add", ".taskstore")
    assert "untracked_log" not in problems(clone)


@pytest.mark.parametrize("line", ["<<<<<<< HEAD", "=======", ">>>>>>> theirs"])
def test_markers_of_a_merge(merged: Clone, line: str) -> None:
    """Markers that a merge as text left in a log are told of."""
    merged.write("prds.jsonl", record("p1"), line, record("p2", title="a ======= b"))
    for words in ([], ["--ci"]):
        assert problems(merged, *words, status=1)["markers"]["file"] == "prds.jsonl"


def test_in_a_pipeline(merged: Clone) -> None:
    """--ci looks at what is in git: a fresh clone of a sound repository passes, one with a broken line does not."""
    merged.write("prds.jsonl", record("p1"))
    merged.git("add", ".taskstore")
    merged.commit()
    second = Clone(merged.top.parent / "second", merged.top.parent.parent / "home")
    merged.git("clone", "-q", "--depth=1", f"file://{merged.top.parent}/repo".replace("%", "%25"), str(second.top))
    assert problems(second, "--ci", status=0) == {}
    second.write("prds.jsonl", "nonsense")
    assert set(problems(second, "--ci", status=1)) == {"bad_line"}
    done = second.run("check", "--ci", "--fix", check=False)
    assert (done.returncode, done.stdout) == (2, "")


def test_looking_changes_nothing(clone: Clone) -> None:
    """Without --fix `check` leaves git's folder and the worktree as they are."""
    clone.run("init", "--no-hooks")
    clone.run("check", check=False)
    before = files_of(clone.hooks, clone.top / ".git" / "info")
    config = (clone.top / ".git" / "config").read_bytes()
    clone.run("check", check=False)
    assert files_of(clone.hooks, clone.top / ".git" / "info") == before
    assert (clone.top / ".git" / "config").read_bytes() == config


def test_a_repository_that_git_refuses(merged: Clone) -> None:
    """Where git refuses the repository, that is the problem, and the rest of the store is looked at all the same."""
    merged.environment["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
    merged.write("prds.jsonl", "nonsense")
    found = problems(merged, status=1)
    assert set(found) == {"git_refuses", "bad_line"}
    assert "safe.directory" in str(found["git_refuses"]["mend"])


def test_outside_git(tmp_path: Path) -> None:
    """Outside git there is no clone to look at."""
    folder = Clone(tmp_path / NAME, tmp_path / "home")
    folder.top.mkdir()
    folder.run("init")
    assert problems(folder, status=0) == {}
    assert set(HOOKS).isdisjoint(os.listdir(folder.top))
    shutil.rmtree(folder.store)
