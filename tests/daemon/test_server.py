"""What a daemon says of itself, whom it lets in, and that it can be left running."""

import json
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import Site
from tests.daemon.conftest import Client, Daemon, RpcError, Serving, append
from trio.testing import wait_all_tasks_blocked

from taskstore_core.errors import ReadOnlyError
from taskstore_core.methods import METHODS
from taskstore_daemon import listener
from taskstore_daemon.own_methods import OWN
from taskstore_daemon.watcher import Watcher


async def test_hello(serving: Serving, client: Client) -> None:
    """A greeting tells protocol, release, process, store, epoch and every limit; it may come with the first request."""
    await client.call("store.stats")
    hello, create = await client.ask(client.request("hello", protocol=[1, 3], client="a test", capabilities={"x": 1}),
                                     client.request("record.create", kind="prd", record={"title": "t"}))
    greeting = hello["result"]
    assert create["result"]["title"] == "t"
    assert (greeting["protocol"], greeting["pid"], greeting["store"]) == (1, os.getpid(), str(serving.site.directory))
    assert greeting["limits"] == {
        "frame_bytes": 8 << 20, "depth": 64, "batch": 100, "connections": 256, "frame_seconds": 10,
        "queued_bytes": 1 << 20, "in_flight": 64, "answer_bytes": 4 << 20}
    assert greeting["version"]
    assert greeting["capabilities"]["changes"] is True
    cursor = (await client.call("changes.subscribe"))["cursor"]
    assert cursor.startswith(f"{(await client.call('hello'))['epoch']}:")


@pytest.mark.parametrize(("protocol", "kind"), [
    ([2, 3], "unsupported_version"), ([0, 0], "unsupported_version"), ([1], "invalid"), ([], "invalid"),
    ([1, 2, 3], "invalid"), (["1", "1"], "invalid"), ([True, True], "invalid"), ([2, 1], "unsupported_version"),
])
async def test_versions(client: Client, protocol: list[object], kind: str) -> None:
    """Who cannot agree on a protocol gets a clear error that says what to do, and may go on."""
    with pytest.raises(RpcError) as refused:
        await client.call("hello", protocol=protocol, client="a test")
    assert refused.value.data["kind"] == kind
    if kind == "unsupported_version":
        assert "protocol 1" in str(refused.value)
        assert "taskstore daemon stop" in refused.value.data["hint"]
    assert (await client.call("hello", protocol=[1, 1]))["protocol"] == 1


async def test_status(serving: Serving, client: Client) -> None:
    """The status tells who serves what, since when, for whom, and how far behind."""
    other = await serving.connect()
    await other.call("changes.subscribe")
    while not serving.server.watcher.is_watching:
        await trio.lowlevel.checkpoint()
    status = await client.call("daemon.status")
    assert (status["pid"], status["socket"]) == (os.getpid(), serving.path)
    assert status["store"] == str(serving.site.directory)
    assert (status["connections"], status["subscribers"], status["protocol"]) == (2, 1, 1)
    assert (status["writes_waiting"], status["oldest_write_ms"], status["read_only"]) == (0, 0, None)
    assert status["watching"] == "inotify"
    assert status["uptime_s"] >= 0
    append(serving.site.log(), id="x", title="t", created_at=1, updated_at=1)
    await other.event()
    await wait_all_tasks_blocked(0.005)
    assert (await client.call("daemon.status"))["change_lag_ms"] > 0
    requests = (await client.call("daemon.status"))["requests"]
    assert (await client.call("daemon.status"))["requests"] == requests + 1


async def test_metrics(serving: Serving, client: Client) -> None:
    """The metrics are Prometheus' text: requests by method and outcome, latencies, groups, syncs, what is open."""
    await client.create(id="x")
    for parameters in ({"kind": "prd", "id": "x"}, {"kind": "prd", "id": "y"}, {"kind": "no such", "id": "y"}, {}):
        await client.ask(client.request("record.get", **parameters))
    await client.ask(client.request("no\nsuch method"), client.request("another"))
    append(serving.site.log(), id="z", title="t", created_at=1, updated_at=1)
    await client.call("record.get", kind="prd", id="z")
    await client.call("changes.subscribe")
    answer = await client.call("daemon.metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer["text"])}
    counted = {tuple(sample.labels.values()): sample.value for sample in families["taskstore_requests"].samples}
    assert counted["record.create", "ok"] == 1
    assert counted["record.get", "ok"] == 2
    assert counted["record.get", "not_found"] == 1
    assert counted["record.get", "invalid"] == 1
    assert counted["record.get", "invalid_params"] == 1
    assert counted["?", "method_not_found"] == 2
    values = {sample.name: sample.value for family in families.values() for sample in family.samples
              if not sample.labels}
    assert values["taskstore_commit_requests_count"] == values["taskstore_commit_seconds_count"] == 1
    assert values["taskstore_fsync_seconds_count"] == 1
    assert 0 < values["taskstore_fsync_seconds_sum"] < values["taskstore_commit_seconds_sum"]
    assert values["taskstore_sync_seconds_count"] >= 1
    assert values["taskstore_connections"] == values["taskstore_subscribers"] == 1
    assert values["taskstore_writes_waiting"] == 0
    assert 1 << 20 < values["taskstore_memory_bytes"] < 2 * values["taskstore_max_memory_bytes"]
    buckets = [sample.value for sample in families["taskstore_request_seconds"].samples
               if sample.name.endswith("_bucket") and sample.labels["method"] == "record.get"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 5


async def test_fsync_metric(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of an fsync is that of the system call, once a commit, and none where nothing was written."""
    real = os.fdatasync
    slow_s = 0.02

    def fdatasync(descriptor: int) -> None:
        began = time.perf_counter()
        real(descriptor)
        while time.perf_counter() < began + slow_s:
            pass

    async def told() -> tuple[float, float]:
        text = (await client.call("daemon.metrics"))["text"]
        (family,) = [one for one in text_string_to_metric_families(text) if one.name == "taskstore_fsync_seconds"]
        values = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples if not sample.labels}
        return values["count"], values["sum"]

    await client.create(id="x")
    count, seconds = await told()
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    await client.ask(*[client.request("record.create", kind="prd", record={"title": "t"}) for _ in range(20)])
    with pytest.raises(RpcError):
        await client.create(id="x")
    after = await told()
    assert after[0] == count + 1
    assert after[1] - seconds >= slow_s


async def test_change_lag(unwatched: Serving) -> None:
    """How long a change took to the cache counts from the file that changed, and not where a file is only gone."""
    client, watcher = await unwatched.connect(), unwatched.server.watcher
    look = Watcher.look
    for kind in ("prd", "workflow"):
        unwatched.site.log(kind).write_text("")
    await look(watcher)
    before = time.time()
    append(unwatched.site.log(), id="x", title="t", created_at=1, updated_at=1)
    await look(watcher)
    lag_ms = (await client.call("daemon.status"))["change_lag_ms"]
    assert 0 < lag_ms <= (time.time() - before) * 1000 + 10  # a file's time may be a tick of the clock old
    unwatched.site.log("workflow").unlink()
    await look(watcher)
    assert (await client.call("daemon.status"))["change_lag_ms"] == lag_ms


async def test_discover(client: Client) -> None:
    """The interface is an OpenRPC document of every method, whose schemas describe what is sent and answered."""
    document = await client.call("rpc.discover")
    assert document["openrpc"].startswith("1.")
    assert document["info"].keys() >= {"title", "version"}
    methods = {method["name"]: method for method in document["methods"]}
    assert methods.keys() == METHODS.keys() | OWN.keys()
    for name, method in methods.items():
        table = METHODS.get(name) or OWN[name]
        names = [parameter["name"] for parameter in method["params"]]
        assert names == [*table.parameters, *(["flush"] if table.request else [])]
        assert [one["required"] for one in method["params"]][:len(table.parameters)] == [
            one.required for one in table.parameters.values()]
        for schema in (method["result"]["schema"], *(one["schema"] for one in method["params"])):
            jsonschema.Draft202012Validator.check_schema(schema)

    def check(method: str, answer: object) -> None:
        schema = {**methods[method]["result"]["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer)

    made = await client.create(id="x")
    check("record.create", made)
    for method, parameters in (("record.get", {"kind": "prd", "id": "x"}), ("record.list", {"kind": "prd"}),
                               ("record.history", {"kind": "prd", "id": "x"}), ("store.stats", {}),
                               ("task_spec.ready", {}), ("task_spec.claim", {"by": "a"}), ("store.sync", {}),
                               ("record.delete", {"kind": "prd", "id": "x"})):
        check(method, await client.call(method, **parameters))
    with pytest.raises(jsonschema.ValidationError):
        check("record.get", {"id": 7})


# Who is let in


async def test_socket(serving: Serving) -> None:
    """The socket is its owner's alone, in a folder that nobody else may enter."""
    for path, mode in ((serving.path, 0o600), (os.path.dirname(serving.path), 0o700)):
        assert stat.S_IMODE(os.stat(path).st_mode) == mode


@pytest.mark.parametrize("make", [
    lambda folder, aside: folder.symlink_to(aside, target_is_directory=True),
    lambda folder, _: folder.mkdir(0o755),
    lambda folder, _: folder.write_text("a file"),
], ids=["symlink", "open", "file"])
def test_folder(tmp_path: Any, make: Callable[[Any, Any], object]) -> None:
    """A folder for the socket that is a symbolic link, open to others, or none, is refused."""
    aside = tmp_path / "aside"
    aside.mkdir(0o700)
    make(tmp_path / "run", aside)
    with pytest.raises(ReadOnlyError):
        listener.listen(f"{tmp_path}/run/socket")
    assert not list(aside.iterdir())


CLIENT = """
import os, socket, sys
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"hello"}\\n')
sys.stdout.buffer.write(sock.makefile("rb").read(1))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_another_user(serving: Serving, client: Client) -> None:
    """Another user, even one whom the folders let through to the socket, is hung up on."""
    os.chmod(serving.path, 0o666)  # noqa: S103 - so that the server has to refuse
    folder = serving.site.root.parent / "run"
    while str(folder) != "/":
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
        folder = folder.parent
    for uid, answer in ((65534, b""), (0, b"{")):
        done = await trio.run_process([sys.executable, "-c", CLIENT, serving.path, str(uid)], capture_stdout=True,
                                      capture_stderr=True, check=False)
        assert done.stdout == answer, done.stderr
    assert await client.call("hello")


# As a process


async def test_daemon(daemon: Daemon) -> None:
    """The daemon as a process serves the same store as everybody else, and leaves with 0 when it is asked to."""
    client = await daemon.connect()
    made = await client.create(id="x")
    assert (await client.call("hello"))["pid"] == daemon.process.pid
    assert (await client.call("daemon.status"))["socket"] == daemon.path
    assert daemon.site.ids() == ["x"]
    assert await client.call("record.get", kind="prd", id="x") == made
    assert await client.call("daemon.shutdown") == {"pid": daemon.process.pid}
    assert await client.line() == b""
    await client.aclose()
    assert await trio.to_thread.run_sync(daemon.process.wait) == 0
    assert not await trio.Path(daemon.path).exists()


async def test_terminated_under_load(daemon: Daemon) -> None:
    """SIGTERM under load: what was answered is there, and the daemon leaves with 0."""
    answered: list[str] = []
    enough = trio.Event()

    async def write(number: int) -> None:
        client = await daemon.connect()
        for turn in range(10_000):
            try:
                made = await client.create(id=f"x{number}-{turn}")
            except (trio.BrokenResourceError, AssertionError):
                break
            answered.append(made["id"])
            if len(answered) >= 100:
                enough.set()
        await client.aclose()

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(write, number)
        await enough.wait()
        daemon.process.terminate()
    assert await trio.to_thread.run_sync(daemon.process.wait) == 0
    assert set(answered) <= set(daemon.site.ids())


async def test_hostile(site: Site, daemon: Daemon) -> None:
    """Frames without end, depth without end, silence and connections without number: others are served meanwhile."""
    good = await daemon.connect()
    await good.create(id="x", content="c" * 100_000)
    memory = _memory(daemon)
    async with trio.open_nursery() as nursery:
        for attack in (_flood, _depth, _trickle, _deaf):
            nursery.start_soon(attack, daemon)
        crowd = [await daemon.connect() for _ in range(300)]
        for number in range(100):
            assert (await good.call("record.get", kind="prd", id="x"))["id"] == "x"
            assert (await good.create(n=number))["n"] == number
        nursery.cancel_scope.cancel()
    for one in crowd:
        await one.aclose()
    await good.aclose()
    assert _memory(daemon) < memory + (48 << 20)
    assert len(site.ids()) == 101


def _memory(daemon: Daemon) -> int:
    """The resident memory of a daemon, in bytes."""
    with open(f"/proc/{daemon.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _flood(daemon: Daemon) -> None:
    while True:
        client = await daemon.connect()
        try:
            for _ in range(2 << 10):
                await client.send(b"x" * (1 << 20))
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(client.stream)


async def _depth(daemon: Daemon) -> None:
    client = await daemon.connect()
    try:
        while True:
            await client.send(b"[" * 100_000 + b"]" * 100_000 + b"\n")
            assert b"error" in await client.line()
    except trio.BrokenResourceError:
        return
    finally:
        await trio.aclose_forcefully(client.stream)


async def _trickle(daemon: Daemon) -> None:
    client = await daemon.connect()
    try:
        while True:
            await client.send(b"{")
            await trio.sleep(1)
    finally:
        await trio.aclose_forcefully(client.stream)


async def _deaf(daemon: Daemon) -> None:
    client = await daemon.connect()
    request = json.dumps(client.request("record.get", kind="prd", id="x")).encode() + b"\n"
    try:
        while True:
            await client.send(client.request("changes.subscribe"))
            await client.send(request * 1000)
    finally:
        await trio.aclose_forcefully(client.stream)
