"""What the daemon logs of its life: one JSON object for each event, with fields for programs and words for people."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Site
from tests.daemon.conftest import Client, Serving, append
from tests.daemons import private_folder, running_daemon

from taskstore_core.store import Store
from taskstore_daemon import replies
from taskstore_daemon.logs import JsonLines


class Lines(logging.Handler):
    """Keeps what is logged, as the daemon writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.all: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(json.loads(self.format(record)))

    def of(self, event: str) -> list[dict[str, Any]]:
        """The lines of one kind of event."""
        return [line for line in self.all if line.get("event") == event]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What the daemon's modules log from here on."""
    handler, logger = Lines(), logging.getLogger("taskstore_daemon")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.setLevel(before)
    logger.removeHandler(handler)


async def test_others_changes(unwatched: Serving, lines: Lines) -> None:
    """What others changed is logged with each log's mode and counts: a rewrite for everybody, appends at debug."""
    client = await unwatched.connect()
    log = unwatched.site.log()
    for number in range(99):
        append(log, id=f"x{number}", title="t", created_at=1, updated_at=1)
    await client.call("record.get", kind="prd", id="x1")
    append(log, id="z", title="t", created_at=1, updated_at=1)
    await client.call("record.get", kind="prd", id="z")
    (line,) = [line for line in lines.of("sync") if line["level"] == "debug"][-1:]
    assert line["logs"] == {"prd": {"mode": "tail", "lines": 1, "ids": 1, "bad_lines": 0}}
    assert line["ms"] > 0
    new = log.with_suffix(".new")
    new.write_bytes(log.read_bytes().replace(b'"id": "x50"', b'"id": "y50"') + b"no record\n")
    new.replace(log)
    await client.call("record.get", kind="prd", id="y50")
    line = lines.of("sync")[-1]
    assert (line["level"], line["logger"]) == ("info", "engine")
    assert (line["logs"]["prd"]["mode"], line["logs"]["prd"]["bad_lines"]) == ("changed", 1)
    assert line["logs"]["prd"]["ids"] >= 2


async def test_own_writes_are_no_event(unwatched: Serving, lines: Lines) -> None:
    """What the daemon wrote itself is not logged as somebody else's change."""
    client = await unwatched.connect()
    for _ in range(3):
        await client.create()
        await client.call("record.list", kind="prd")
    assert lines.of("sync") == []
    store = unwatched.server.engine.store
    before = store.reports
    await client.ask(*[client.request("record.create", kind="prd", record={"title": "t"}) for _ in range(9)])
    assert store.lag == 9
    await client.call("record.list", kind="prd")
    assert store.lag == 0
    assert store.reports is before


async def test_error(client: Client, monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    """A fault of ours is logged with the method it came up in and a traceback."""
    def find(*_: object, **__: object) -> Any:
        raise ZeroDivisionError

    await client.create()
    monkeypatch.setattr(Store, "find", find)
    (answer,) = await client.ask(client.request("record.list", kind="prd", limit=3))
    assert answer["error"]["data"]["kind"] == "internal"
    (line,) = lines.of("error")
    assert (line["level"], line["method"]) == ("error", "record.list")
    assert "in find" in line["traceback"]
    assert "ZeroDivisionError" in line["traceback"]


async def test_slow(client: Client, monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    """A request that took long is logged with method, outcome and time; not one that was to wait, nor a quick one."""
    await client.create("dependency", id="d")
    assert lines.of("slow") == []
    monkeypatch.setattr(replies, "SLOW_S", 0.0)
    await client.call("dependency.wait", id="d", timeout_ms=1)
    await client.call("store.stats")
    await client.ask(client.request("record.update", kind="prd", id="no", set={}))
    told = [(line["level"], line["method"], line["outcome"]) for line in lines.of("slow")]
    assert told == [("warning", "store.stats", "ok"), ("warning", "record.update", "not_found")]
    assert all(line["ms"] > 0 for line in lines.of("slow"))


def test_from_start_to_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`taskstore daemon logs` tells when, where and as what a daemon started, what it noticed, and why it left."""
    site.log().write_text("".join(f'{{"id":"x{number}","title":"t","updated_at":1}}\n' for number in range(9)))
    with private_folder() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        with running_daemon(str(site.directory)) as daemon:
            assert site.cli("stats", XDG_RUNTIME_DIR=folder).status == 0
    told = [json.loads(line) for line in site.cli("daemon", "logs", "--json").out.splitlines()]
    start, *others, leave = told
    assert [line["event"] for line in (start, leave)] == ["start", "leave"]
    assert (start["pid"], start["store"]) == (daemon.pid, str(site.directory))
    assert Path(start["socket"]).parent.parent == Path(folder)
    assert start["version"]
    assert [line["logs"]["prd"]["lines"] for line in others if line["event"] == "sync"] == [9]
    assert (leave["reason"], leave["connections"]) == ("SIGTERM", 0)
    assert leave["requests"] >= 2
    assert leave["uptime_s"] > 0
    readable = site.cli("daemon", "logs").out
    assert f"as process {daemon.pid}" in readable
    assert "others changed the logs: prd rebuilt" in readable
    assert "leaving: SIGTERM" in readable
