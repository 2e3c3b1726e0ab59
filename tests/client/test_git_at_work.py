"""The command line waits for git to be quiet, so that a commit that comes next has the line."""

import json
import os
import subprocess
import sysconfig
from collections.abc import Iterator

import pytest
from tests.conftest import Site
from tests.daemons import running_daemon

TASKSTORE = os.path.join(sysconfig.get_path("scripts"), "taskstore")


def run(site: Site, *words: str) -> str:
    return subprocess.run(words, cwd=site.root, check=True, capture_output=True, text=True, env={
        **site.environment, "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e@x", "GIT_COMMITTER_NAME": "n",
        "GIT_COMMITTER_EMAIL": "e@x"}).stdout


@pytest.fixture(name="shared", params=["by the files", "through a daemon"])
def fixture_shared(site: Site, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A store with a record that is committed on two branches."""
    site.seed(1, id="p1")
    run(site, "git", "symbolic-ref", "HEAD", "refs/heads/main")
    run(site, "git", "add", ".")
    run(site, "git", "commit", "-qm", "one")
    run(site, "git", "branch", "other")
    if request.param == "by the files":
        yield site
    else:
        with running_daemon(os.fspath(site.directory)):
            yield site


def test_a_commit_right_after_an_update_right_after_a_checkout(shared: Site) -> None:
    """`taskstore update … && git commit -qam x` commits the line, however busy git has just been."""
    for number in range(5):
        run(shared, "git", "checkout", "-q", "main" if number % 2 else "other")
        run(shared, TASKSTORE, "update", "prd", "p1", "--set", f"title=title {number}")
        run(shared, "git", "commit", "-qam", "two")
        committed = run(shared, "git", "show", "HEAD:.taskstore/prds.jsonl").splitlines()
        assert json.loads(committed[-1])["title"] == f"title {number}"


def test_sync_tells_of_lines_that_wait(shared: Site) -> None:
    """`sync` waits for git, and where it goes on says that lines wait; when it is done the next one appends them."""
    lock = shared.root / ".git" / "index.lock"
    lock.touch()
    run(shared, TASKSTORE, "update", "prd", "p1", "--set", "title=new")
    assert json.loads(run(shared, TASKSTORE, "show", "prd", "p1", "--json"))["title"] == "new"
    assert "lines wait until git is done" in run(shared, TASKSTORE, "sync")
    assert not json.loads(run(shared, TASKSTORE, "sync", "--json"))["flushed"]
    assert len(shared.lines()) == 1
    lock.unlink()
    assert json.loads(run(shared, TASKSTORE, "sync", "--json"))["flushed"]
    assert len(shared.lines()) == 2
