"""A daemon is there all day: what it keeps in memory, at rest and with many records."""

import os

import pytest
import trio
from tests.conftest import PATIENCE_S, Site
from tests.daemon.conftest import Daemon
from tests.daemons import running_daemon

IDLE_MB = 60
RECORD_KB = 0.2


def resident_mb(daemon: Daemon) -> float:
    """The memory of a daemon, with what it shares with others."""
    with open(f"/proc/{daemon.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.mark.parametrize("count", [0, pytest.param(100_000, marks=pytest.mark.long)])
async def test_at_rest(site: Site, count: int) -> None:
    """A daemon that read all records, listed all, and found all of them ready, is small again a moment later."""
    with site.log("task_spec").open("w") as log:
        log.writelines(
            f'{{"id":"t{number}","prd_id":"p{number // 50}","phase_name":"n","description":"{"d" * 200}",'
            f'"created_at":{number},"updated_at":{number},"status":"pending"}}\n' for number in range(count))
    most_mb = IDLE_MB + RECORD_KB * count / 1024
    with running_daemon(os.fspath(site.directory)) as process:
        daemon = Daemon(site, process)
        client = await daemon.connect()
        assert (await client.call("store.stats"))["kinds"]["task_spec"]["records"] == count
        await client.ask(client.request("record.list", kind="task_spec"), client.request("task_spec.ready"))
        await client.create()
        with trio.fail_after(PATIENCE_S):
            while resident_mb(daemon) > most_mb:  # noqa: ASYNC110 - the event is another process's
                await trio.sleep(0.05)
        await client.aclose()
