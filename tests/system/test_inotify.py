"""A kernel that has no inotify to give, or that drops events: who follows the changes hears of each all the same."""

import json
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.conftest import Site
from tests.daemons import running_daemon

from taskstore.changes import Changes
from taskstore.connection import Connection

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


def follow(site: Site) -> Generator[str, None, None]:
    """The ids that a daemon tells of, as they are told; the first is ""."""
    with Connection.open(directory=str(site.directory)) as connection, Changes(connection) as changes:
        assert changes._remote is not None
        yield ""
        for event in changes:
            yield event["id"]


def append(site: Site, key: str) -> None:
    """Write a line past the daemon."""
    with site.log().open("a") as log:
        log.write(json.dumps({"id": key, "title": "by hand", "updated_at": 5}) + "\n")


def watching(site: Site) -> object:
    with Connection.open(directory=str(site.directory)) as connection:
        return connection.call("daemon.status", {})["watching"]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("fault", ["inotify_init1:error=EMFILE", "inotify_add_watch:error=ENOSPC",
                                   "inotify_add_watch:error=ENOSPC:when=2+"])
def test_no_inotify_to_be_had(site: Site, fault: str) -> None:
    """Where the limits of instances or watches are used up, a daemon serves, and looks for itself."""
    call = fault.partition(":")[0]
    prefix = ["strace", "-D", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={fault}"]
    with running_daemon(str(site.directory), prefix=prefix):
        told = follow(site)
        next(told)
        if call == "inotify_init1":
            for _ in site.poll():
                if watching(site) == "stat":
                    break
        append(site, "first")
        assert next(told) == "first"
        append(site, "second")
        assert next(told) == "second"
        told.close()


def test_inotify_overflows(site: Site) -> None:
    """Of changes that drown in more events than the kernel keeps, and of those after them, a daemon tells."""
    with running_daemon(str(site.directory)) as daemon:
        told = follow(site)
        next(told)
        for _ in site.poll():
            if watching(site) == "inotify":
                break
        daemon.send_signal(signal.SIGSTOP)
        files = [site.log("execution"), site.log("workflow")]
        for number in range(int(QUEUE.read_text()) + 1000):
            os.utime(files[number % 2])  # in turns: events that are the same twice in a row are one
        append(site, "drowned")
        daemon.send_signal(signal.SIGCONT)
        assert next(told) == "drowned"
        append(site, "after")
        assert next(told) == "after"
        told.close()
