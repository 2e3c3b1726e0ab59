"""The merge driver as git runs it: whatever becomes of the program, no line of either side is lost."""

import subprocess
from pathlib import Path

import pytest
from tests.hooks.conftest import Clone, record

from taskstore_hooks.scripts import driver_command

BASE, OURS, THEIRS = record("p0"), record("p1"), record("p2")


def diverge(clone: Clone, ours: str = OURS, theirs: str = THEIRS) -> None:
    """Two branches that each appended a line to the same log; we stand on the one with `ours`."""
    clone.write("prds.jsonl", BASE)
    clone.git("add", ".taskstore")
    clone.commit()
    clone.git("checkout", "-q", "-b", "theirs")
    _append(clone, theirs)
    clone.git("checkout", "-q", "main")
    _append(clone, ours)


def _append(clone: Clone, line: str) -> None:
    clone.write("prds.jsonl", line)
    clone.git("add", ".taskstore")
    clone.commit()


def register(clone: Clone, script: str | None) -> Path:
    """A program in the driver's place; with None there is none."""
    program = clone.top.parent / "o'ther $HOME 100%A" / "taskstore-merge"
    if script is not None:
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    clone.git("config", "merge.taskstore-merge.driver", driver_command(str(program)))
    return program


def merged(clone: Clone) -> list[str]:
    return (clone.store / "prds.jsonl").read_text().splitlines()


def leftovers(clone: Clone) -> str:
    """What git sees beside what is committed."""
    return clone.git("status", "--porcelain").stdout


@pytest.mark.parametrize("script", [
    None, "exit 2", "exit 127", "kill -9 $$", 'head -c 10 "$2" > x && cat x > "$2"; rm x; kill -9 $$',
    ': > "$2"; exit 3', 'rm "$2"; exit 2'],
    ids=["missing", "error", "not found", "killed", "killed halfway", "emptied", "removed"])
def test_a_driver_that_fails(tied: Clone, script: str | None) -> None:
    """Where the driver is missing, ends with an error or dies with half of its result written, both sides are kept."""
    diverge(tied)
    register(tied, script)
    tied.git("merge", "-q", "--no-edit", "theirs")
    assert sorted(merged(tied)) == [BASE, OURS, THEIRS]
    assert leftovers(tied) == ""


def test_a_driver_that_merges(tied: Clone) -> None:
    """What the driver makes is what git takes; it gets all five arguments."""
    diverge(tied)
    register(tied, 'printf "%s\\n" "$#" "$4" "$5" > "$2"')
    tied.git("merge", "-q", "--no-edit", "theirs")
    assert merged(tied) == ["5", "7", ".taskstore/prds.jsonl"]
    assert leftovers(tied) == ""


def test_a_driver_that_finds_conflicts(tied: Clone) -> None:
    """A conflict that the driver marks stays one: git stops, with the driver's text in the log."""
    diverge(tied)
    register(tied, 'echo "<<<<<<< ours" > "$2"; exit 1')
    assert tied.git("merge", "-q", "theirs", check=False).returncode == 1
    assert merged(tied) == ["<<<<<<< ours"]
    assert leftovers(tied).startswith("UU ")
    assert not list(tied.top.glob(".merge*"))


def test_rebase_stash_and_cherry_pick(tied: Clone) -> None:
    """Every git command that merges comes to the driver, and to what makes up for it."""
    diverge(tied)
    register(tied, None)
    tied.git("cherry-pick", "theirs")
    assert sorted(merged(tied)) == [BASE, OURS, THEIRS]
    tied.git("reset", "-q", "--hard", "HEAD~1")
    tied.git("rebase", "-q", "theirs")
    assert sorted(merged(tied)) == [BASE, OURS, THEIRS]
    tied.write("prds.jsonl", record("p3"))
    tied.git("stash", "-q")
    _append(tied, record("p4"))
    tied.git("stash", "pop", "-q")
    assert sorted(merged(tied)) == [BASE, OURS, THEIRS, record("p3"), record("p4")]


def test_an_empty_side(tied: Clone) -> None:
    """Two branches that each made a log's first line both keep it."""
    tied.git("checkout", "-q", "-b", "theirs")
    _append(tied, THEIRS)
    tied.git("checkout", "-q", "main")
    _append(tied, OURS)
    register(tied, ': > "$2"; exit 2')
    tied.git("merge", "-q", "--no-edit", "theirs")
    assert sorted(merged(tied)) == [OURS, THEIRS]


def test_without_a_driver_git_leaves_markers(tied: Clone) -> None:
    """Why all this: in a clone with no driver, as at a forge, git stops with markers; these are read around."""
    diverge(tied)
    tied.git("config", "--remove-section", "merge.taskstore-merge")
    assert tied.git("merge", "-q", "theirs", check=False).returncode == 1
    assert "=======" in merged(tied)
    assert subprocess.run(["git", "-C", str(tied.top), "ls-files", "-u"], capture_output=True, check=True).stdout
    assert len(tied.run("list-prds", "--jsonl").stdout.splitlines()) == 3
