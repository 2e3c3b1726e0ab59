"""Commands that write, claim, look back, check, export and watch: in pipes and terminals, by the files and a daemon."""

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.client.test_cli import RECORDS, Done, assert_refused, environment, run, squeezed, terminal, unstyled, words
from tests.daemons import running_daemon

from taskstore_core.batch import Operation
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store


@pytest.fixture(params=["files", "daemon"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder with a store of a few old records; every test runs by the files and through a daemon."""
    with project(tmp_path / "project", request.param) as root:
        yield root


@pytest.fixture(scope="module", params=["files", "daemon"])
def unchanged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Such a folder for tests that write nothing to it."""
    with project(tmp_path_factory.mktemp("commands") / "project", request.param) as root:
        yield root


@contextlib.contextmanager
def project(root: Path, how: str) -> Iterator[Path]:
    root.mkdir()
    store, _ = Store.create(str(root))
    with store:
        store.apply([Operation("import", KINDS[kind], fields) for kind, fields in RECORDS])
        directory = store.paths.directory
    with contextlib.ExitStack() as stack:
        if how == "daemon":
            stack.enter_context(running_daemon(directory, "--log-level", "error"))
        yield root


def as_json(done: Done) -> Any:
    assert done.status == 0, done
    return json.loads(done.out)


def shown(done: Done) -> str:
    """What a person sees, with what differs from run to run made equal."""
    assert done.status == 0, done
    text = unstyled(done.out)
    text = re.sub(r"\b[0-9a-f]{16}\b", "TOKEN", text)
    text = re.sub(r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?", "DATE", text)
    text = re.sub(r"\b\d+ s ago\b", "just now", text)
    return "\n".join(line.rstrip() for line in text.split("\n"))


def claim(root: Path, *more: str) -> dict[str, Any]:
    claimed = as_json(run(root, "claim", "--by", "ann", "--json", *more))
    assert isinstance(claimed, dict)
    return claimed


def proof(claimed: dict[str, Any]) -> list[str]:
    return [claimed["id"], "--by", "ann", "--token", claimed["token"]]


def test_update_one(root: Path) -> None:
    """`update` changes fields by --set, typed by the field, and prints what changed, or the record."""
    done = run(root, "update", "prd", "p1", "--set", "review_passes=3", "--set", "status=complete")
    assert shown(done) == "PRD p1 updated\n  status         active → complete\n  review_passes  2 → 3\n"
    record = as_json(run(root, "update", "ts", "t1", "--set", "assigned_to=null", "--set", "depends_on=", "--json"))
    assert (record["assigned_to"], record.get("depends_on")) == (None, None)
    assert as_json(run(root, "show", "prd", "p1", "--json"))["review_passes"] == 3


def test_update_many(root: Path) -> None:
    """Without an id `update` changes the records that JSON lines name, all or none, and answers with every id."""
    lines = '{"id":"p1","title":"One"}\n{"id":"p2","title":"Two"}\n'
    assert run(root, "update", "prd", "--stdin", data=lines).out == "p1\np2\n"
    done = run(root, "update", "prd", "--stdin", data='{"id":"p1","title":"X"}\n{"id":"nope","title":"Y"}\n')
    assert_refused(done, 1, "line 2", "there is no PRD nope")
    assert as_json(run(root, "show", "prd", "p1", "--json"))["title"] == "One"


@pytest.mark.parametrize(("argv", "status", "parts"), [
    (["update", "prd", "p1", "--set", "titel=x"], 2, ["titel", "did you mean title?"]),
    (["update", "prd", "p1", "--set", "status=done"], 2, ["done", "draft, ready, active"]),
    (["update", "prd", "p1", "--set", "title=x", "--if-updated-at", "5"], 1, ["has changed", "read it again"]),
    (["update", "prd", "nope", "--set", "title=x"], 1, ["there is no PRD nope"]),
    (["update", "ts", "t2", "--set", "depends_on=t1"], 2, ["depends_on", "circle"]),
    (["delete", "prd", "p"], 1, ["p"]),
    (["delete", "prd", "nope"], 1, ["there is no PRD nope"]),
    (["history", "prd", "nope"], 1, ["there is no PRD nope"]),
    (["restore", "prd", "p1"], 2, ["is not deleted", "history prd p1"]),
    (["claim", "nope", "--by", "ann"], 1, ["there is no task spec nope"]),
    (["claim", "--by", ""], 2, ["by"]),
    (["claim", "--by", "ann", "--lease-ms", "0"], 2, ["lease_ms"]),
    (["complete", "t2", "--by", "ann", "--token", "x"], 1, ["t2", "nobody holds it"]),
    (["heartbeat", "t2", "--by", "ann", "--token", "x"], 1, ["t2"]),
    (["resolve-dependency", "nope"], 1, ["there is no dependency nope"]),
    (["wait-dependency", "nope", "--timeout-ms", "1"], 1, ["there is no dependency nope"]),
    (["watch", "nope"], 2, ["nope"]),
    (["watch", "--where", "status=x"], 2, ["KIND"]),
    (["schema", "task_spec.nope"], 2, ["task_spec.nope"]),
    (["export", "nope"], 2, ["nope"]),
    (["import", "no such file"], 1, ["no such file"]),
    (["create", "prd", "--set", "title=x", "--op", ""], 2, ["op"]),
], ids=lambda value: " ".join(value) if isinstance(value, list) else str(value))
def test_refusals(unchanged: Path, argv: list[str], status: int, parts: list[str]) -> None:
    """What cannot be is refused in one line that names the thing and what to do, and nothing is written."""
    before = {path.name: path.read_bytes() for path in (unchanged / ".taskstore").glob("*.jsonl")}
    assert_refused(run(unchanged, *argv), status, *parts)
    assert {path.name: path.read_bytes() for path in (unchanged / ".taskstore").glob("*.jsonl")} == before


def test_delete_history_restore(root: Path) -> None:
    """A deleted record's versions are listed with the deletion marked, and it can be brought back."""
    run(root, "update", "prd", "p2", "--set", "title=Exports")
    assert shown(run(root, "delete", "prd", "p2")) == "PRD p2 deleted; taskstore restore prd p2 brings it back\n"
    assert_refused(run(root, "show", "prd", "p2"), 1, "was deleted", "taskstore history prd p2")
    items = as_json(run(root, "history", "prd", "p2", "--json"))["items"]
    assert [item.get("title") for item in items] == ["Export", "Exports", None]
    assert len(run(root, "history", "prd", "p2", "--jsonl").out.splitlines()) == 3
    for done in (run(root, "history", "prd", "p2"), terminal(root, "history", "prd", "p2")):
        assert squeezed(shown(done)) == [
            "VERSION WHEN WHAT IT DID", f"{items[0]['updated_at']} 3 h ago created",
            f"{items[1]['updated_at']} just now title Export → Exports",
            f"{items[2]['updated_at']} just now deleted", ""]
    restored = as_json(run(root, "restore", "prd", "p2", "--json"))
    assert restored["title"] == "Exports"
    assert as_json(run(root, "restore", "prd", "p2", "--version", str(items[0]["updated_at"]), "--json"))[
        "title"] == "Export"


def test_ready_in_every_form(root: Path) -> None:
    """`ready` lists what may be claimed, as a table, as JSON and as JSON lines, and says when there is nothing."""
    assert shown(run(root, "ready")) == ("ID  STATUS   PRD  CREATED  PHASE\n"
                                         "t2  pending  p1   3 h ago  query\n")
    assert "t2" in shown(terminal(root, "ready"))
    assert [item["id"] for item in as_json(run(root, "ready", "--json"))["items"]] == ["t2"]
    assert [json.loads(line)["id"] for line in run(root, "ready", "--jsonl", "--prd", "p1").out.splitlines()] == ["t2"]
    nothing = run(root, "ready", "--prd", "p2")
    assert (nothing.status, nothing.out) == (0, "")
    assert "no task spec is ready" in nothing.err


def test_claim_and_complete(root: Path) -> None:
    """A claim prints the task spec and how to go on; completing it says what may be claimed because of it."""
    run(root, "create", "ts", "--set", "id=t3", "--set", "prd_id=p1", "--set", "phase_name=rank", "--set",
        "depends_on=t2")
    for in_terminal in (False, True):
        done = (terminal if in_terminal else run)(root, "claim", "t2", "--by", "ann", "--lease-ms", "600000")
        text = shown(done)
        assert "task spec t2" in text
        token = re.search(r"--token ([0-9a-f]{16})", unstyled(done.out) + done.err)
        assert token is not None
        ended = run(root, "release" if not in_terminal else "complete", "t2", "--by", "ann", "--token", token[1])
        assert ended.status == 0
    assert "t3" in ended.out + ended.err
    third = claim(root)
    assert third["id"] == "t3"
    assert as_json(run(root, "complete", *proof(third), "--json"))["unblocked"] == []


def test_a_claim_is_one_holder(root: Path) -> None:
    """While a task spec is held nobody else gets it, by id or by turn, and the same op gets it again."""
    first = claim(root, "--op", "try-1")
    assert claim(root, "--op", "try-1")["token"] == first["token"]
    nothing = run(root, "claim", "--by", "bob", "--json")
    assert (nothing.status, nothing.out) == (1, "null\n")
    assert_refused(run(root, "claim", "--by", "bob"), 1, "no task spec is ready")
    assert_refused(run(root, "claim", "t2", "--by", "bob"), 1, "ann holds it")
    beat = as_json(run(root, "heartbeat", *proof(first), "--lease-ms", "60000", "--json"))
    assert beat.keys() == {"id", "by", "expires_at"}
    assert run(root, "heartbeat", *proof(first)).status == 0
    assert_refused(run(root, "fail", "t2", "--by", "bob", "--token", first["token"]), 1, "ann holds it")
    assert run(root, "fail", *proof(first)).status == 0
    assert_refused(run(root, "complete", *proof(first)), 1, "nobody holds it")
    assert as_json(run(root, "show", "ts", "t2", "--json"))["status"] == "failed"


def test_an_op_is_not_shown_to_people(root: Path) -> None:
    """A repeated create answers with the first record; what its op left on the line is for programs."""
    argv = ["create", "workflow", "--set", "name=build", "--op", "once"]
    first = run(root, *argv)
    assert run(root, *argv).out == first.out
    page = shown(run(root, "show", "workflow", first.out.strip()))
    assert "op_sum" not in page
    assert "once" not in page
    assert_refused(run(root, "create", "workflow", "--set", "name=other", "--op", "once"), 2, "once", "another write")


def test_dependencies(root: Path) -> None:
    """A dependency is waited for in vain with status 1, then resolved, and then handed over at once."""
    waited = run(root, "wait-dependency", "d1", "--timeout-ms", "1", "--json")
    assert (waited.status, json.loads(waited.out)["resolved_at"]) == (1, None)
    assert run(root, "resolve-dependency", "d1", "--payload", "forty-two").status == 0
    assert as_json(run(root, "wait-dependency", "d1", "--json"))["payload"] == "forty-two"
    assert "forty-two" in shown(terminal(root, "wait-dependency", "d1"))
    assert_refused(run(root, "resolve-dependency", "d1"), 1, "resolved already")


def test_export_and_import(root: Path, tmp_path: Path) -> None:
    """What `export` prints makes the same state elsewhere, and importing it twice changes nothing."""
    exported = run(root, "export").raw
    assert len(exported.splitlines()) == len(RECORDS)
    other = tmp_path / "other"
    other.mkdir()
    run(other, "init")
    assert run(other, "import", "-", data=exported).status == 0
    assert sorted(run(other, "export").raw.splitlines()) == sorted(exported.splitlines())
    before = (other / ".taskstore" / "prds.jsonl").read_bytes()
    (other / "more.jsonl").write_bytes(exported)
    again = as_json(run(other, "import", "more.jsonl", "--json"))
    assert (other / ".taskstore" / "prds.jsonl").read_bytes() == before
    assert "prd" in json.dumps(again)
    bare = run(root, "export", "prd")
    assert {json.loads(line)["id"] for line in bare.out.splitlines()} == {"p1", "p2"}
    (other / "bare.jsonl").write_bytes(bare.raw)
    assert run(other, "import", "bare.jsonl", "--kind", "prd").status == 0


def test_check(root: Path) -> None:
    """`check` says what is wrong and what mends it, with status 1; what is safe it mends itself."""
    sound = run(root, "check")
    assert sound.status == 0, sound
    log = root / ".taskstore" / "prds.jsonl"
    log.write_bytes(log.read_bytes() + b"not a record\n")
    (root / ".taskstore" / "workflows.jsonl").rename(root / "aside")
    for done in (run(root, "check"), terminal(root, "check", together=True)):
        assert done.status == 1
        assert "not a record" in unstyled(done.out)
        assert "workflows.jsonl is missing" in unstyled(done.out)
    fixed = run(root, "check", "--fix", "--json")
    assert fixed.status == 1
    problems = {problem["problem"]: problem for problem in json.loads(fixed.out)["problems"]}
    assert (problems["missing_file"]["fixed"], problems["bad_line"]["fixed"]) == (True, False)
    assert problems["bad_line"]["line"] == 3


def test_schemas(root: Path) -> None:
    """`schema` prints the JSON Schema of a kind's lines, or of what a method answers with."""
    assert as_json(run(root, "schema", "task_spec.claim", "--json"))["title"] == "task_spec.claim: claim"
    assert "phase_name" in as_json(run(root, "schema", "ts"))["properties"]


@contextlib.contextmanager
def watching(root: Path, *argv: str) -> Iterator["subprocess.Popen[str]"]:
    """A `watch` that has begun: it has told of a change that was made over and over until it did."""
    with subprocess.Popen(words(["watch", *argv, "--jsonl"]), cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=environment(PYTHONUNBUFFERED="1")) as process:
        assert process.stdout is not None
        import threading

        told = threading.Event()

        def poke() -> None:
            while not told.is_set():
                run(root, "create", "prd", "--set", "title=poke")

        thread = threading.Thread(target=poke)
        thread.start()
        process.stdout.readline()
        told.set()
        thread.join()
        run(root, "create", "prd", "--set", "id=after", "--set", "title=after")
        while json.loads(process.stdout.readline())["id"] != "after":
            pass
        try:
            yield process
        finally:
            process.kill()


def test_watch(root: Path) -> None:
    """`watch` prints each change with its record as it happens, of the kinds asked for, and ends by SIGINT with 0."""
    with watching(root, "prd") as process:
        assert process.stdout is not None
        run(root, "create", "workflow", "--set", "name=unseen")
        run(root, "update", "prd", "p1", "--set", "title=Found\x1b[31m")
        run(root, "delete", "prd", "p2")
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [(event["kind"], event["id"], event["op"]) for event in events] == [
            ("prd", "p1", "update"), ("prd", "p2", "delete")]
        assert (events[0]["record"]["title"], events[1]["record"]) == ("Found\x1b[31m", None)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_watch_ends_with_its_reader(root: Path) -> None:
    """A `watch` whose reader has gone ends by itself, with no error."""
    with watching(root, "prd") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
