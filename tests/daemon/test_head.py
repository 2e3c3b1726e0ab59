"""Where HEAD is and what was synced, through a daemon."""

import os
from collections.abc import Callable

import pytest
from tests.conftest import Site
from tests.daemon.conftest import Client, Serving

from taskstore_core.paths import discover
from taskstore_daemon.head import Head

Git = Callable[..., str]


async def test_a_checkout_is_noted_when_git_is_done(git: Git, serving: Serving, client: Client) -> None:
    """After a checkout the record of the clone names its branch and commit, told as a change of that record."""
    git("checkout", "-qb", "other")
    await client.call("record.create", kind="prd", record={"title": "x"}, flush=True)
    git("commit", "-qam", "x")
    subscriber = await serving.connect()
    await subscriber.call("changes.subscribe", kinds=["repo_state"])
    git("checkout", "-q", "main")
    wanted = (git("rev-parse", "main"), "main")
    told = None
    while told != wanted:
        message = await subscriber.receive()
        for change in message["params"].get("changes", []):
            told = (change["record"]["last_synced_commit"], change["record"].get("branch"))
    stats = await client.call("store.stats")
    assert stats["repository"]["last_synced"]["commit"] == wanted[0]
    assert (stats["repository"]["ahead"], stats["repository"]["behind"]) == (0, 0)
    git("commit", "-q", "--allow-empty", "-m", "more")
    stats = await client.call("store.stats")
    assert (stats["repository"]["ahead"], stats["repository"]["behind"]) == (1, 0)


@pytest.mark.parametrize("setting", ["extensions.partialClone=origin", "index.sparse=true", "extensions.nothing="])
def test_distances_are_those_that_git_tells(site: Site, git: Git, setting: str) -> None:
    """By pygit2 or by git, asked where pygit2 refuses the repository; None for a commit that is not here."""
    base = git("rev-parse", "HEAD")
    for _ in range(3):
        git("commit", "-q", "--allow-empty", "-m", "more")
    git("checkout", "-q", "--detach", base)
    git("commit", "-q", "--allow-empty", "-m", "aside")
    name, _, value = setting.partition("=")
    if value:
        git("config", "core.repositoryformatversion", "1")
        git("config", name, value)
    head = Head(discover(os.fspath(site.root)))
    ours, theirs = git("rev-parse", "HEAD"), git("rev-parse", "main")
    assert head.distance(base, theirs) == (3, 0)
    assert head.distance(theirs, ours) == (1, 3)
    assert head.distance("ab" * 20, ours) is None
