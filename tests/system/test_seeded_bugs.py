"""The patches of known bugs apply to the code as it is; one is caught here, all with `--long`."""

import os
import subprocess

import pytest
from tests.seeded_bugs.run import ROOT, Bug, bugs, catch

QUICK = "token-not-looked-at"


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_the_patches_apply(bug: Bug) -> None:
    """None is stale, and each says what is wrong and who should notice."""
    subprocess.run(["git", "apply", "--check", os.fspath(bug.path)], cwd=ROOT, check=True)
    assert bug.what
    assert bug.caught_by


def test_a_bug_is_caught() -> None:
    """The script tells a test that fails from one that does not."""
    (bug,) = [bug for bug in bugs() if bug.name == QUICK]
    assert catch(bug) == bug.caught_by[0]
    assert catch(bug, ["tests/merge/test_table.py"]) == ""


@pytest.mark.long
@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_every_bug_is_caught(bug: Bug) -> None:
    """By one of the tests that should."""
    assert catch(bug)
