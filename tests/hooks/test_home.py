"""Bare repositories: the store lies in the worktree that `taskstore.home` names, and nowhere without it."""

import json
import shutil
from pathlib import Path

import pytest
from tests.hooks.conftest import HOOKS, Clone, record
from tests.hooks.test_install import has_driver, level

from taskstore_core.paths import discover, named


@pytest.fixture(params=["bare.git", ".bare", ".git"])
def bare(request: pytest.FixtureRequest, clone: Clone, tmp_path: Path) -> Clone:
    """A bare repository under each of the names it may have, with the worktrees `main` and `side` beside it."""
    around = tmp_path / "a round"
    around.mkdir()
    made = Clone(around / request.param, tmp_path / "home")
    clone.git("clone", "-q", "--bare", str(clone.top), str(made.top))
    made.git("worktree", "add", "-q", str(around / "main"), "main")
    made.git("worktree", "add", "-q", str(around / "side"), "-b", "side")
    return made


def test_without_a_home_every_command_says_so(bare: Clone) -> None:
    """Every command but init is refused in a worktree of it, with what makes it work."""
    for command in (["stats"], ["sync"], ["install-hooks"], ["create", "prd", "--set", "title=T"], ["check"]):
        done = bare.run(*command, at=bare.top.parent / "side", check=False)
        assert done.returncode == 3, command
        assert "has no main worktree that could hold the store; taskstore init in one of its worktrees" in done.stderr
    assert not (bare.top.parent / "side" / ".taskstore").exists()


def test_init_makes_its_worktree_the_home(bare: Clone) -> None:
    """The worktree in which init is run holds the store for all of them, with one lock, wherever one stands."""
    main, side = bare.top.parent / "main", bare.top.parent / "side"
    bare.run("init", at=main)
    paths = discover(str(side))
    assert paths.directory == str(main / ".taskstore")
    assert paths.private == str(bare.top / "taskstore")
    assert paths.git_dir == str(bare.top / "worktrees" / "main")
    assert named(str(main / ".taskstore")).private == named(str(main)).private == paths.private
    assert named(str(side / "other")).private != paths.private
    assert discover(str(bare.top)).directory == paths.directory
    bare.run("create", "prd", "--set", "id=p1", "--set", "title=T", at=side)
    assert "p1" in bare.run("list-prds", at=bare.top / "refs").stdout
    assert json.loads(bare.run("init", "--json", at=side).stdout)["created"] == []
    assert not (side / ".taskstore").exists()
    assert has_driver(bare)


def test_hooks_of_a_bare_repository(bare: Clone) -> None:
    """Commits in each worktree bring the one store level."""
    main, side = bare.top.parent / "main", bare.top.parent / "side"
    bare.run("init", at=main)
    assert {path.name for path in (bare.top / "hooks").iterdir() if path.suffix != ".sample"} == set(HOOKS)
    for number, place in enumerate((main, side)):
        with (main / ".taskstore" / "prds.jsonl").open("a") as file:
            file.write(record(f"p{number}") + "\n")
        bare.commit(at=place)
        assert level(bare, main / ".taskstore")
    bare.git("add", "-A", at=main)
    assert "store.db" not in bare.git("status", "--porcelain", at=main).stdout


def test_a_home_that_is_gone(bare: Clone) -> None:
    """Where the home was removed every command says so, until init makes another worktree the home."""
    main, side = bare.top.parent / "main", bare.top.parent / "side"
    bare.run("init", at=main)
    bare.git("worktree", "remove", "--force", str(main))
    done = bare.run("stats", at=side, check=False)
    assert done.returncode == 3
    assert f"names {main}, which is no worktree; taskstore init" in done.stderr
    bare.run("init", at=side)
    assert discover(str(side)).directory == str(side / ".taskstore")
    assert (bare.top / "taskstore").is_dir()


def test_moved_as_a_whole(bare: Clone, tmp_path: Path) -> None:
    """A bare repository that is moved together with its worktrees keeps its home."""
    bare.run("init", at=bare.top.parent / "main")
    shutil.move(bare.top.parent, tmp_path / "moved")
    top = tmp_path / "moved" / bare.top.name
    bare.git("worktree", "repair", str(tmp_path / "moved" / "main"), str(tmp_path / "moved" / "side"), at=top)
    assert discover(str(tmp_path / "moved" / "side")).directory == str(tmp_path / "moved" / "main" / ".taskstore")


def test_the_folder_around(bare: Clone) -> None:
    """A bare repository called `.git`, or a file of that name that leads to it, makes the folder around no worktree."""
    around = bare.top.parent
    if bare.top.name != ".git":
        (around / ".git").write_text(f"gitdir: ./{bare.top.name}\n")
    assert "has no main worktree" in bare.run("stats", at=around, check=False).stderr
    bare.run("init", at=around / "main")
    assert discover(str(around)).directory == str(around / "main" / ".taskstore")


def test_in_the_environment_of_a_hook(bare: Clone) -> None:
    """What git sets for hooks does not change which repository is bare."""
    main, side = bare.top.parent / "main", bare.top.parent / "side"
    bare.run("init", at=main)
    for value in (str(bare.top / "worktrees" / "side"), "."):
        assert str(main) in bare.run("stats", at=side, GIT_DIR=value).stdout
