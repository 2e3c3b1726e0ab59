"""The command line as people and programs meet it: processes, pipes and pseudo-terminals."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import textwrap
import time
import tty
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskstore.cli import text
from taskstore_core.batch import Operation
from taskstore_core.kinds import KINDS, find_kind
from taskstore_core.store import Store

Words = Sequence[str | bytes]

THEN = time.time_ns() // 1_000_000 - int(3.5 * 3_600_000)
"""So long ago that every table says "3 h ago"."""
CLOCK = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(THEN / 1000)) + " (3 h ago)"

RECORDS: list[tuple[str, dict[str, Any]]] = [
    ("prd", {"id": "p1", "title": "Search", "description": "short", "created_at": THEN, "updated_at": THEN,
             "status": "active", "review_passes": 2, "content": "# Head\n\n\tindented\n"}),
    ("prd", {"id": "p2", "title": "Export", "description": "", "created_at": THEN + 1, "updated_at": THEN + 1,
             "status": "draft", "review_passes": 0, "content": ""}),
    ("task_spec", {"id": "t1", "prd_id": "p1", "phase_name": "index", "description": "", "created_at": THEN,
                   "updated_at": THEN, "status": "running", "workflow_name": None, "assigned_to": "ann", "content": "",
                   "depends_on": ["t2"], "labels": ["a", {"b": None}], "odd": None, "flag": True, "n": 1.5}),
    ("task_spec", {"id": "t2", "prd_id": "p1", "phase_name": "query", "description": "", "created_at": THEN + 1,
                   "updated_at": THEN, "status": "pending", "workflow_name": None, "assigned_to": None, "content": ""}),
    ("execution", {"id": "e1", "ts_id": "t1", "worktree_path": "/w", "branch_name": "b1", "status": "running",
                   "started_at": THEN, "updated_at": THEN, "completed_at": None, "current_phase": None,
                   "iteration_count": 12, "error_message": None}),
    ("execution", {"id": "e2", "ts_id": "t1", "worktree_path": "/w2", "branch_name": "b2", "status": "failed",
                   "started_at": THEN + 1, "updated_at": THEN, "completed_at": THEN, "current_phase": "test",
                   "iteration_count": 3, "error_message": "it broke"}),
    ("dependency", {"id": "d1", "from_exec_id": "e1", "to_exec_id": "e2", "dependency_type": "query",
                    "created_at": THEN, "resolved_at": None, "payload": "what?"}),
    ("workflow", {"id": "w1", "name": "review", "description": "", "awl_code": "step one", "created_at": THEN,
                  "updated_at": THEN}),
    ("repo_state", {"repo_path": "/r", "last_synced_commit": "c0ffee", "updated_at": THEN}),
]


class Done:
    """How a command ended and what it wrote; in a terminal, `err` is what it wrote to standard error if apart."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status = status
        self.raw = out
        self.out = out.decode()
        self.err = err.decode()

    def __repr__(self) -> str:
        return f"status {self.status}\n{self.out}\n{self.err}"


def environment(**changes: str) -> dict[str, str]:
    unset = ("TASKSTORE_DIR", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES", "PYTHONUNBUFFERED", "TERM",
             "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, "LC_ALL": "C.UTF-8", "TZ": "UTC", "TERM": "xterm-256color", **changes}


def words(argv: Words) -> list[str | bytes]:
    return [sys.executable, "-m", "taskstore", *argv]


def run(cwd: Path, *argv: str | bytes, data: str | bytes = b"", prefix: Sequence[str] = (), **changes: str) -> Done:
    """Run a command with pipes."""
    done = subprocess.run([*prefix, *words(argv)], cwd=cwd, input=data.encode() if isinstance(data, str) else data,
                          capture_output=True, check=False, env=environment(**changes))
    return Done(done.returncode, done.stdout, done.stderr)


def terminal(cwd: Path, *argv: str | bytes, columns: int = 200, together: bool = False, **changes: str) -> Done:
    """Run a command in a pseudo-terminal, in which its errors appear too if `together`."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(words(argv), cwd=cwd, stdin=theirs, stdout=theirs,
                          stderr=theirs if together else subprocess.PIPE, env=environment(**changes)) as process:
        os.close(theirs)
        out = b""
        with contextlib.suppress(OSError):  # EIO: the last writer has gone
            while block := os.read(ours, 65536):
                out += block
        os.close(ours)
        err = process.stderr.read() if process.stderr else b""
    return Done(process.returncode, out, err)


def unstyled(shown: str) -> str:
    """What a terminal shows, without bold, colours and what progress begins with on a machine that is slow today."""
    return re.sub(r"\x1b\[[0-9;]*m|\r\x1b\[K", "", shown)


def squeezed(shown: str) -> list[str]:
    """The words of each line."""
    return [" ".join(line.split()) for line in shown.split("\n")]


def assert_refused(done: Done, status: int, *parts: str) -> None:
    """An error: its status, one printable line on standard error, nothing on standard output."""
    assert done.status == status, done
    assert done.out == "", done
    assert done.err.startswith("taskstore"), done
    assert done.err.endswith("\n"), done
    assert done.err[:-1].isprintable(), done
    for part in parts:
        assert part in done.err, done


def make_repository(folder: Path) -> Path:
    folder.mkdir()
    subprocess.run(["git", "init", "-q", "--template=", os.fspath(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose store holds RECORDS, to be read and not written to."""
    folder = make_repository(tmp_path_factory.mktemp("cli") / "repo")
    store, _ = Store.create(os.fspath(folder))
    with store:
        store.apply([Operation("import", KINDS[kind], fields) for kind, fields in RECORDS])
        assert store.flush(60)
    return folder


@pytest.fixture
def own(repo: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may do to as it likes."""
    return shutil.copytree(repo, tmp_path / "own")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A repository without a store."""
    return make_repository(tmp_path / "empty")


def logs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / ".taskstore").glob("*.jsonl")}


def line_of(key: str) -> str:
    fields = next(fields for _, fields in RECORDS if key in fields.values())
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def page(snapshot: str) -> str:
    return textwrap.dedent(snapshot).removeprefix("\n").replace("CLOCK", CLOCK)


# What people see

SNAPSHOTS = {
    "list-prds": """
        ID  STATUS  UPDATED  TITLE
        p1  active  3 h ago  Search
        p2  draft   3 h ago  Export
        """,
    "list-prds --status draft": """
        ID  STATUS  UPDATED  TITLE
        p2  draft   3 h ago  Export
        """,
    "list prd --order=-title --where status=active": """
        ID  STATUS  UPDATED  TITLE
        p1  active  3 h ago  Search
        """,
    "list-task-specs p1": """
        ID  STATUS   ASSIGNED TO  UPDATED  PHASE
        t1  running  ann          3 h ago  index
        t2  pending  -            3 h ago  query
        """,
    "list-executions": """
        ID  STATUS   TASK SPEC  BRANCH  PHASE  ITERATIONS  UPDATED
        e1  running  t1         b1      -              12  3 h ago
        e2  failed   t1         b2      test            3  3 h ago
        """,
    "list dependency": """
        ID  TYPE   FROM  TO  CREATED  RESOLVED
        d1  query  e1    e2  3 h ago  -
        """,
    "list workflow": """
        ID  UPDATED  NAME
        w1  3 h ago  review
        """,
    "list repo-state": """
        REPOSITORY  UPDATED  COMMIT
        /r          3 h ago  c0ffee
        """,
    "show prd p1": """
        PRD p1
          title          Search
          created_at     CLOCK
          updated_at     CLOCK
          status         active
          review_passes  2

        description
          short

        content
          # Head

          \tindented
        """,
    "show ts t1": """
        task spec t1
          prd_id         p1
          phase_name     index
          created_at     CLOCK
          updated_at     CLOCK
          status         running
          workflow_name  -
          assigned_to    ann
          depends_on     ["t2"]
          labels         ["a",{"b":null}]
          odd            -
          flag           true
          n              1.5
        """,
    "show execution e2": """
        execution e2
          ts_id            t1
          worktree_path    /w2
          branch_name      b2
          status           failed
          started_at       CLOCK
          updated_at       CLOCK
          completed_at     CLOCK
          current_phase    test
          iteration_count  3

        error_message
          it broke
        """,
    "show dependency d": """
        dependency d1
          from_exec_id     e1
          to_exec_id       e2
          dependency_type  query
          created_at       CLOCK
          resolved_at      -

        payload
          what?
        """,
    "show workflow w1": """
        workflow w1
          name        review
          created_at  CLOCK
          updated_at  CLOCK

        awl_code
          step one
        """,
    "show repo_state /r": """
        repo state /r
          last_synced_commit  c0ffee
          updated_at          CLOCK
        """,
    "stats": """
        STORE

        KIND          RECORDS  DELETED  LINES  STATUS
        prds                2        0      2  1 draft, 1 active
        task specs          2        0      2  1 pending, 1 running
        executions          2        0      2  1 running, 1 failed
        dependencies        1        0      1  -
        workflows           1        0      1  -
        repo state          1        0      1  -
        """,
}


@pytest.mark.parametrize("command", SNAPSHOTS)
def test_in_a_pipe(repo: Path, command: str) -> None:
    """In a pipe a command prints an aligned table, or a record laid out, whole and without any escape."""
    done = run(repo, *command.split())
    assert (done.status, done.err) == (0, "")
    assert done.out == page(SNAPSHOTS[command]).replace("STORE", f"{repo}/.taskstore")


@pytest.mark.parametrize("command", SNAPSHOTS)
def test_in_a_terminal(repo: Path, command: str) -> None:
    """In a terminal that is wide enough the same words stand in the same lines, and the headings in bold."""
    done = terminal(repo, *command.split())
    assert (done.status, done.err) == (0, "")
    assert squeezed(unstyled(done.out)) == squeezed(page(SNAPSHOTS[command]).replace("STORE", f"{repo}/.taskstore"))
    assert unstyled(done.out).replace("\n", "").replace("\t", "").isprintable()
    assert "\x1b[1m" in done.out


@pytest.mark.parametrize("command", ["list-prds", "show prd p1", "stats", "list-executions"])
def test_without_colour(repo: Path, command: str) -> None:
    """With NO_COLOR there is no colour, on a terminal that is dumb no escape at all, nor ever in a pipe."""
    colours = r"\x1b\[(?:\d+;)*(?:3|4|9|10)[0-9][;m]"
    assert not re.search(colours, terminal(repo, *command.split(), NO_COLOR="1").out)
    for done in (terminal(repo, *command.split(), TERM="dumb"), run(repo, *command.split(), FORCE_COLOR="1")):
        assert "\x1b" not in done.out
    if command.startswith("list"):
        assert re.search(colours, terminal(repo, *command.split()).out)


def test_in_a_narrow_terminal(own: Path) -> None:
    """In a terminal that is too narrow only the last column is cut: ids and statuses stay whole."""
    run(own, "create", "prd", "--set", "id=prd-01234567", "--set", f"title={'long ' * 40}", "--set", "status=complete")
    shown = unstyled(terminal(own, "list-prds", columns=80).out)
    last = shown.rstrip("\n").split("\n")[-1]
    assert last.split()[:2] == ["prd-01234567", "complete"]
    assert all(len(line) <= 80 for line in shown.split("\n"))
    assert last.rstrip().endswith("…")


def test_wide_characters_in_a_table(own: Path) -> None:
    """A character that takes two cells counts as two where columns are aligned."""
    specs = [{"prd_id": "p9", "phase_name": "END", "assigned_to": name} for name in ("日本語の人", None)]
    run(own, "create", "ts", "--stdin", data="\n".join(map(json.dumps, specs)))
    first, second = (re.sub(r"[^\x00-\x7f]", "xx", line) for line in
                     run(own, "list-task-specs", "p9").out.splitlines()[1:])
    assert first.index("END") == second.index("END")


def test_nothing_to_list(repo: Path) -> None:
    """A list of nothing says so on standard error and succeeds."""
    for shown in (run, terminal):
        done = shown(repo, "list-prds", "--status", "cancelled")
        assert (done.status, done.out, done.err) == (0, "", "no PRDs\n")


def test_pages(repo: Path) -> None:
    """A list that --limit cut tells how to go on, and going on gives the rest."""
    first = run(repo, "list", "prd", "--limit", "1")
    assert first.out.splitlines()[1].startswith("p1")
    cursor = re.fullmatch(r"more: --cursor ([0-9a-f]+)\n", first.err)
    assert cursor
    second = run(repo, "list", "prd", "--limit", "1", "--cursor", cursor[1])
    assert second.out.splitlines()[1].startswith("p2")
    assert second.err == ""


def test_two_tests_of_one_field(repo: Path) -> None:
    """Every --where must hold, also where two ask the same of one field."""
    for first, second in (("title~S", "title~r"), ("title~r", "title~S")):
        done = run(repo, "list", "prd", "--where", first, "--where", second, "--jsonl")
        assert [json.loads(line)["title"] for line in done.out.splitlines()] == ["Search"]


# What programs see

READING = ["list prd", "list-prds", "list ts", "list-task-specs p1", "list-executions", "list dependency",
           "list workflow", "list repo_state"]


@pytest.mark.parametrize("command", READING)
def test_lists_as_json(repo: Path, command: str) -> None:
    """--json prints one object whose items are the records as they stand in the log, --jsonl one a line."""
    first, _, last = command.partition(" ")
    name = {"list-prds": "prd", "list-task-specs": "task_spec", "list-executions": "execution"}.get(first, last)
    name = find_kind(name).name
    lines = [line_of(next(iter(fields.values()))) for of, fields in RECORDS if of == name]
    for shown in (run, terminal):
        done = shown(repo, "--json", *command.split())
        assert (done.status, done.err) == (0, "")
        assert done.out == f'{{"items":[{",".join(lines)}],"cursor":null}}\n'
        done = shown(repo, *command.split(), "--jsonl")
        assert (done.status, done.err) == (0, "")
        assert done.out == "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(("kind", "key"), [
    ("prd", "p1"), ("ts", "t1"), ("execution", "e2"), ("dependency", "d1"), ("workflow", "w1"), ("repo_state", "/r")])
@pytest.mark.parametrize("option", ["--json", "--jsonl"])
def test_show_as_json(repo: Path, kind: str, key: str, option: str) -> None:
    """A record is printed as it stands in the log, byte for byte, in a pipe and in a terminal."""
    for shown in (run, terminal):
        done = shown(repo, "show", kind, key, option)
        assert (done.status, done.out, done.err) == (0, line_of(key) + "\n", "")


def test_others_as_json(repo: Path, own: Path, empty: Path) -> None:
    """Every other command prints one JSON value with --json, and nothing else on standard output."""
    for shown in (run, terminal):
        stats = json.loads(shown(repo, "stats", "--json").out)
        assert stats["store"] == f"{repo}/.taskstore"
        assert stats["kinds"]["prd"] == {"records": 2, "deleted": 0, "status": {"draft": 1, "active": 1}, "lines": 2,
                                         "bad_lines": 0}
        schema = shown(own, "schema", "prd", "--json").out
        assert schema.count("\n") == 1
        assert json.loads(schema)["title"] == "Prd"
        assert json.loads(shown(own, "schema", "prd").out) == json.loads(schema)
        assert set(json.loads(shown(own, "sync", "--json").out)) == {"kinds", "parsed", "changed", "flushed", "took_ms"}
        created = shown(own, "create", "prd", "--set", "title=T", "--json").out
        assert created == (own / ".taskstore/prds.jsonl").read_text().splitlines(keepends=True)[-1]
        imported = json.loads(shown(own, "import", "beads", os.devnull, "--json").out)
        assert imported == {"lines": {}, "skipped": [], "notes": []}
    made = json.loads(run(empty, "init", "--json").out)
    assert made["store"] == f"{empty}/.taskstore"
    assert ".version" in made["created"]
    assert json.loads(run(empty, "init", "--json").out)["created"] == []


@pytest.mark.parametrize("command", ["stats", "init", "sync", "import beads in", "schema prd"])
def test_others_as_jsonl(own: Path, command: str) -> None:
    """With --jsonl every command prints nothing but JSON on standard output, a value a line."""
    (own / "in").write_text('{"id":"bd-1","title":"A","created_at":"2025-01-01T00:00:00Z"}')
    done = run(own, *command.split(), "--jsonl")
    assert done.status == 0
    for line in done.out.splitlines():
        json.loads(line)


# Writing


def test_create(own: Path) -> None:
    """A record is made of --set, each value typed by its field, and its id printed."""
    for shown in (run, terminal):
        done = shown(own, "create", "ts", "--set", "prd_id=p2", "--set", "phase_name=a=b", "--set", "created_at=5",
                     "--set", "assigned_to=null", "--set", "content=null", "--set", "depends_on=t1, t2",
                     "--allow-unknown", "--set", 'z={"a": [1.5]}', "--set", "y=text", "--set", "x=")
        assert (done.status, done.err) == (0, "")
        key = done.out.removesuffix("\n")
        assert re.fullmatch("ts-[0-9a-z]{8}", key)
        record = json.loads(run(own, "show", "ts", key, "--json").out)
        expected = {"prd_id": "p2", "phase_name": "a=b", "created_at": 5, "assigned_to": None, "content": "null",
                    "depends_on": ["t1", "t2"], "z": {"a": [1.5]}, "y": "text", "x": "", "status": "pending"}
        assert {name: record[name] for name in expected} == expected


def test_null_empties_a_list(own: Path) -> None:
    """`null` empties `depends_on` like any other option."""
    done = run(own, "create", "ts", "--set", "prd_id=p", "--set", "phase_name=N", "--set", "depends_on=null", "--json")
    assert "depends_on" not in json.loads(done.out)


def test_create_every_kind(own: Path) -> None:
    """A record of every kind, under each of its names, is made of what the kind needs and found again."""
    least = {"prd": ["title=T"], "task_spec": ["prd_id=p", "phase_name=N"], "ts": ["prd_id=p", "phase_name=N"],
             "task-spec": ["prd_id=p", "phase_name=N"], "execution": ["ts_id=t"],
             "dependency": ["from_exec_id=a", "to_exec_id=b", "dependency_type=share"], "workflow": ["name=N"],
             "repo_state": ["repo_path=/new", "last_synced_commit=x"]}
    for kind, fields in least.items():
        done = run(own, "create", kind, *(word for field in fields for word in ("--set", field)))
        assert done.status == 0, done
        assert run(own, "show", kind, done.out.strip()).status == 0


RECORDS_IN = '{"title":"A","id":"n1"}\n\n{"id":"n2","title":"B","z":[1]}\r\n{"title":"C"}'


@pytest.mark.parametrize("way", ["stdin", "file"])
@pytest.mark.parametrize("option", ["", "--json", "--jsonl"])
def test_create_many(own: Path, way: str, option: str) -> None:
    """Many records are made of JSON objects, one a line, and all of them answered in their order."""
    (own / "in.jsonl").write_text(RECORDS_IN)
    source = ["--stdin"] if way == "stdin" else ["--file", "in.jsonl"]
    done = run(own, "create", "prd", *source, *option.split(), data=RECORDS_IN if way == "stdin" else "")
    assert (done.status, done.err) == (0, "")
    lines = (own / ".taskstore/prds.jsonl").read_text().splitlines()[-3:]
    assert [json.loads(line)["title"] for line in lines] == ["A", "B", "C"]
    ids = [json.loads(line)["id"] for line in lines]
    assert ids[:2] == ["n1", "n2"]
    assert done.out == {"": "".join(f"{key}\n" for key in ids), "--json": f'{{"items":[{",".join(lines)}]}}\n',
                        "--jsonl": "".join(f"{line}\n" for line in lines)}[option]


def test_create_one_from_a_file(own: Path) -> None:
    """A file may hold one object however it is laid out, which is answered like a record of --set."""
    (own / "one.json").write_text(json.dumps({"title": "T", "id": "n1"}, indent=2))
    done = run(own, "create", "prd", "--file", "one.json", "--json")
    assert done.status == 0
    assert json.loads(done.out)["id"] == "n1"


@pytest.mark.parametrize("bad", [
    '{"title":"X","status":"nope"}', '{"title":"X","id":"p1"}', '{"title":"X","id":"n1"}', '{"title":"X"', "[]", "7",
    '{"title":"X","z":NaN}', "{}", '{"title":"X","id":"a\\nb"}', '{"title":"\\ud800"}', '{"title":"X"} {"title":"Y"}',
    '{"title":"X","z":1e400}', "\x00", '{"title":"X","deleted":true}',
], ids=range(14))
@pytest.mark.parametrize("place", [0, 1, 3])
def test_create_all_or_none(own: Path, bad: str, place: int) -> None:
    """One bad record among many, wherever it stands, and nothing is written."""
    lines = ['{"title":"A","id":"n1"}', '{"title":"B"}', '{"title":"C"}']
    if place == 0 and '"n1"' in bad:
        bad, lines[0] = lines[0], bad  # the second of two with one id is the bad one
    before = logs(own)
    done = run(own, "create", "prd", "--stdin", data="\n".join([*lines[:place], bad, *lines[place:]]))
    assert_refused(done, 1 if '"p1"' in bad or "n1" in bad else 2)
    assert logs(own) == before


def test_the_line_of_a_bad_record(repo: Path) -> None:
    """Of many records, the bad one is told by the line it stands in."""
    done = run(repo, "create", "prd", "--stdin", data='{"title":"A"}\n\n{"title":"B","status":"nope"}\n')
    assert_refused(done, 2, "line 3", "status")


def test_nothing_to_create(own: Path) -> None:
    """An empty standard input is no records: none are made, and --json says so."""
    before = logs(own)
    for data in ("", "\n", " \r\n\n"):
        done = run(own, "create", "prd", "--stdin", data=data)
        assert (done.status, done.out, done.err) == (0, "", "")
        assert run(own, "create", "prd", "--stdin", "--json", data=data).out == '{"items":[]}\n'
    assert logs(own) == before


def test_import(own: Path) -> None:
    """An import tells what it brought in and what it could not, and --json tells it all."""
    source = own / "beads.jsonl"
    source.write_text('{"id":"bd-1","title":"A","status":"open","created_at":"2025-01-01T00:00:00Z"}\nnot json\n')
    done = run(own, "import", "beads", "beads.jsonl")
    assert done.status == 0
    assert done.out == ("PRDs: 1 imported, 0 deleted, 0 here already\n"
                        "task specs: 1 imported, 0 deleted, 0 here already\n")
    assert done.err.startswith("line 2: ")
    assert done.err.count("\n") == 1
    again = json.loads(terminal(own, "import", "beads", "beads.jsonl", "--json").out)
    assert again["lines"] == {kind: {"imported": 0, "deleted": 0, "unchanged": 1} for kind in ("prd", "task_spec")}
    assert [skipped["line"] for skipped in again["skipped"]] == [2]


# Where the store is


def test_init(empty: Path) -> None:
    """`init` makes a store, says where, and the second time that it is there."""
    assert run(empty, "init").out.splitlines()[0] == f"made a store in {empty}/.taskstore"
    assert terminal(empty, "init").out == f"there is a store in {empty}/.taskstore already\n"
    names = {path.name for path in (empty / ".taskstore").iterdir()}
    assert {".version", ".gitignore", *(kind.log for kind in KINDS.values())} <= names
    assert run(empty, "list-prds").err == "no PRDs\n"


def test_sync(empty: Path) -> None:
    """`sync` makes a store where there is none, tells what it read, and names bad lines on standard error."""
    assert re.fullmatch(r"in sync after \d+ ms\n", run(empty, "sync").out)
    with (empty / ".taskstore/prds.jsonl").open("a") as file:
        file.write('{"id":"x","title":"T","updated_at":5}\nnot \x1b[31mjson\n')
    done = run(empty, "sync")
    assert done.out.startswith("prds.jsonl: ")
    assert done.err.startswith("prds.jsonl, line 2: skipped: ")
    assert run(empty, "stats").err == "prds.jsonl: 1 lines are not records; taskstore sync --full names them\n"
    full = run(empty, "sync", "--full")
    assert "rebuilt" in full.out
    assert full.err == done.err


def test_from_anywhere_in_the_repository(own: Path, tmp_path: Path) -> None:
    """Subfolders and linked worktrees use the repository's store, and so does whoever names it."""
    git = ["git", "-C", os.fspath(own), "-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run([*git, "worktree", "add", "-q", os.fspath(tmp_path / "linked")], check=True)
    (tmp_path / "linked/sub").mkdir()
    (own / "a/b").mkdir(parents=True)
    places: list[tuple[Path, list[str], dict[str, str]]] = [
        (own / "a/b", [], {}), (tmp_path / "linked", [], {}), (tmp_path / "linked/sub", [], {}),
        (tmp_path, ["--store", f"{own}/.taskstore"], {}), (tmp_path, ["--store", f"{own}"], {}),
        (tmp_path, ["--store", "own"], {}), (tmp_path, [], {"TASKSTORE_DIR": f"{own}/.taskstore"}),
        (tmp_path, ["--store", f"{own}"], {"TASKSTORE_DIR": "/nowhere"})]
    for number, (place, options, changes) in enumerate(places):
        done = run(place, "create", "prd", "--set", f"id=x{number}", "--set", "title=T", *options, **changes)
        assert (done.status, done.out) == (0, f"x{number}\n"), done
        shown = run(place, *options, "stats", "--json", **changes)
        assert json.loads(shown.out)["store"] == f"{own}/.taskstore"
    assert [json.loads(line)["id"] for line in logs(own)["prds.jsonl"].splitlines()] == [
        "p1", "p2", *(f"x{number}" for number in range(len(places)))]
    assert not (tmp_path / "linked/.taskstore").exists()


def test_options_anywhere(repo: Path) -> None:
    """Options may stand before and after the command, and between its arguments."""
    for argv in (["--json", "show", "prd", "p1"], ["show", "--json", "prd", "p1"], ["show", "prd", "--json", "p1"],
                 ["show", "prd", "p1", "--json"], ["--store", f"{repo}", "show", "prd", "p1", "--json"],
                 ["show", "prd", f"--store={repo}", "--json", "p1"]):
        assert run(repo, *argv).out == line_of("p1") + "\n"


COMMANDS = ["list-prds", "list ts", "list-task-specs p1", "list-executions", "show prd p1", "stats",
            "create prd --set title=T", "import beads /dev/null"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["", "--json", "--jsonl"])
def test_no_store(empty: Path, command: str, option: str) -> None:
    """Where there is no store, a command ends with status 3, says what would make one, and makes nothing."""
    assert_refused(run(empty, *command.split(), *option.split()), 3, "there is no store", "taskstore init")
    assert os.listdir(empty) == [".git"]


@pytest.mark.parametrize("command", [*COMMANDS, "init", "sync", "sync --full"])
def test_a_newer_store(own: Path, command: str) -> None:
    """A store of a newer format is refused with status 3, and nothing of it is touched."""
    (own / ".taskstore/.version").write_text("2  # later\n")
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    assert_refused(run(own, *command.split()), 3, "format 2", "newer")
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before


def read_only(folder: Path) -> list[str]:
    """Words that run a command for which `folder` is read-only."""
    if os.geteuid():
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        return []
    bind = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", bind, os.fspath(folder)]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("as root a folder can only be made read-only by a mount, which is not allowed here")
    return prefix


@pytest.fixture
def frozen(own: Path) -> Iterator[list[str]]:
    yield read_only(own)
    for path in [own, *own.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("has_cache", [True, False])
def test_an_unwritable_store(own: Path, frozen: list[str], *, has_cache: bool) -> None:
    """A store that cannot be written is read as ever; writing to it ends with status 3 and says what is needed."""
    if not has_cache:
        own.chmod(0o755)
        (own / ".taskstore").chmod(0o755)
        for path in (own / ".taskstore").glob("store.db*"):
            path.unlink()
        (own / ".taskstore").chmod(0o755 if not os.geteuid() else 0o555)
    for command in ("list-prds", "show ts t1", "stats", "list-executions"):
        done = run(own, *command.split(), prefix=frozen)
        assert (done.status, done.err) == (0, "")
        assert done.out == page(SNAPSHOTS[command]).replace("STORE", f"{own}/.taskstore")
    before = logs(own)
    for argv in (["create", "prd", "--set", "title=T"], ["import", "beads", os.devnull], ["create", "prd", "--stdin"]):
        done = run(own, *argv, data='{"title":"T"}', prefix=frozen)
        if argv[0] == "import":
            continue  # of nothing: it may succeed
        assert_refused(done, 3, "cannot write")
    assert logs(own) == before


@pytest.mark.parametrize("command", ["init", "sync"])
def test_an_unwritable_folder(empty: Path, command: str) -> None:
    """No store can be made in a folder that cannot be written, which ends with status 3."""
    try:
        assert_refused(run(empty, command, prefix=read_only(empty)), 3, "cannot write")
    finally:
        empty.chmod(0o755)


# Bad input


@pytest.mark.parametrize(("argv", "status", "part"), [
    (["create", "nope"], 2, "there is no kind 'nope'; kinds: prd, task_spec"),
    (["create", "PRD", "--set", "title=T"], 2, "there is no kind 'PRD'"),
    (["list", "prds"], 2, "there is no kind 'prds'"),
    (["show", "nope", "x"], 2, "there is no kind 'nope'"),
    (["schema", "nope"], 2, "there is no kind 'nope'"),
    (["show", "prd", "nope"], 1, "there is no PRD nope"),
    (["show", "prd", "p"], 1, "several PRDs begin with p: p1, p2"),
    (["show", "prd", ""], 1, "there is no PRD"),
    (["show", "ts", "p1"], 1, "there is no task spec p1"),
    (["list-task-specs", "nope"], 1, "there is no PRD nope"),
    (["list-prds", "--status", "nope"], 2, "status: 'nope' is not one of draft, ready, active, complete, cancelled"),
    (["list-executions", "--status", "draft"], 2, "status: 'draft' is not one of running"),
    (["list", "prd", "--where", "status=nope"], 2, "status"),
    (["list", "prd", "--where", "title"], 2, "--where title"),
    (["list", "prd", "--where", "created_at=x"], 2, "created_at"),
    (["list", "prd", "--order", 'a"b'], 2, 'a"b'),
    (["list", "prd", "--limit", "0"], 2, "limit"),
    (["list", "prd", "--cursor", "zz"], 2, "cursor"),
    (["create", "prd"], 2, "title"),
    (["create", "prd", "--set", "titel=T"], 2, "did you mean title"),
    (["create", "prd", "--set", "zzz=T"], 2, "no field 'zzz'"),
    (["create", "prd", "--set", "title"], 2, "--set title"),
    (["create", "prd", "--set", "title=T", "--set", "status=nope"], 2, "status"),
    (["create", "prd", "--set", "title=T", "--set", "review_passes=256"], 2, "review_passes"),
    (["create", "prd", "--set", "title=T", "--set", "review_passes=-1"], 2, "review_passes"),
    (["create", "prd", "--set", "title=T", "--set", "review_passes=1.5"], 2, "review_passes"),
    (["create", "prd", "--set", "title=T", "--set", "review_passes=null"], 2, "review_passes"),
    (["create", "execution", "--set", "ts_id=t", "--set", "iteration_count=4294967296"], 2, "iteration_count"),
    (["create", "dependency", "--set", "from_exec_id=a", "--set", "to_exec_id=b", "--set", "dependency_type=x"], 2,
     "dependency_type"),
    (["create", "prd", "--set", "title=T", "--set", "created_at=9007199254740993"], 2, "created_at"),
    (["create", "prd", "--set", "title=T", "--set", "id=a\nb"], 2, "id"),
    (["create", "prd", "--set", "title=T", "--set", "id=\x1b"], 2, "id"),
    (["create", "prd", "--set", "title=T", "--set", f"id={'x' * 257}"], 2, "id: 257 characters"),
    (["create", "prd", "--set", "title=T", "--set", "id=p1"], 1, "PRD p1 exists already"),
    (["create", "prd", "--set", b"title=a\xffb"], 2, "title"),
    (["create", "prd", "--allow-unknown", "--set", "title=T", "--set", b"z=\xff"], 2, "z"),
    (["create", "prd", "--allow-unknown", "--set", "title=T", "--set", b"\xff=1"], 2, "\\udcff"),
    (["create", "prd", "--allow-unknown", "--set", "title=T", "--set", "z=NaN"], 2, "z"),
    (["create", "prd", "--allow-unknown", "--set", "title=T", "--set", 'z="\\ud800"'], 2, "z"),
    (["create", "prd", "--allow-unknown", "--set", "title=T", "--set", "op=1"], 2, "op"),
    (["create", "prd", "--allow-unknown", "--set", "title=T", "--set", "deleted=true"], 2, "deleted"),
    (["create", "prd", "--stdin", "--set", "title=T"], 2, "exclude each other"),
    (["create", "prd", "--file", "x", "--stdin"], 2, "exclude each other"),
    (["create", "prd", "--file", "nope"], 1, "cannot read nope"),
    (["create", "prd", "--file", "/"], 1, "cannot read /"),
    (["create", "prd", "--file", sys.executable], 2, "line 1"),
    (["import", "beads", "nope"], 1, "cannot read nope"),
    (["import", "beads", "/"], 1, "cannot read /"),
    (["--store", "/nowhere", "stats"], 3, "there is no store in /nowhere"),
    (["--store", "/dev/null", "stats"], 3, "/dev/null"),
], ids=range(50))
def test_bad_arguments(repo: Path, argv: Words, status: int, part: str) -> None:
    """A bad word of a command is refused in one line that names it, and nothing is written."""
    before = logs(repo)
    assert_refused(run(repo, *argv), status, part)
    assert logs(repo) == before


DEEP = "[" * 64 + "]" * 64


@pytest.mark.parametrize(("data", "part"), [
    ("not json", "line 1"),
    ('{"title":"A"}\n{"title":', "line 2"),
    ('{"title":"A"}\n[]', "line 2: not a JSON object"),
    ("null", "not a JSON object"),
    ("\x00\x01", "line 1"),
    (b'{"title":"\xff"}', "line 1"),
    (b"\xff\xfe{\x00}\x00", "line 1"),
    ('{"title":NaN}', "title"),
    ('{"title":"A","z":NaN}', "z"),
    ('{"title":"A","z":[Infinity]}', "z"),
    ('{"title":"A","z":-Infinity}', "z"),
    ('{"title":"A","z":18446744073709551616}', "z"),
    ('{"title":"A","z":"\\ud800"}', "z"),
    ('{"title":"\\udfff"}', "title"),
    ('{"title":"A","\\ud800":1}', "\\ud800"),
    ('{"title":"A","z":{"\\ud800":1}}', "z"),
    ('{"title":"A","nope":' + DEEP + "}", "nope"),
    ('{"title":"A","z":' + "[" * 99999 + "]" * 99999 + "}", "line 1"),
    ('{"title":"A","review_passes":256}', "review_passes"),
    ('{"title":"A","review_passes":"1"}', "review_passes"),
    ('{"title":"A","review_passes":1.0}', "review_passes"),
    ('{"title":"A","status":null}', "status"),
    ('{"title":"A","status":"nope"}', "status"),
    ('{"title":"A","id":7}', "id"),
    ('{"title":"A","id":"a\\nb"}', "id"),
    ('{"title":7}', "title"),
    ("{}", "title"),
    ('{"title":"' + "x" * (11 << 20) + '"}', "4194304"),
    ('{"title":"A","z":"' + "ü" * (2 << 20) + '"}', "4194304"),
], ids=range(29))
@pytest.mark.parametrize("way", ["stdin", "file"])
def test_bad_records(repo: Path, tmp_path: Path, data: str | bytes, part: str, way: str) -> None:
    """A bad record on standard input or in a file is refused in one line that says where, and nothing is written."""
    before = logs(repo)
    (tmp_path / "in").write_bytes(data if isinstance(data, bytes) else data.encode())
    source = ["--stdin"] if way == "stdin" else ["--file", os.fspath(tmp_path / "in")]
    done = run(repo, "create", "prd", *source, data=data if way == "stdin" else b"")
    assert_refused(done, 2, part)
    assert len(done.err) < 500
    assert logs(repo) == before


@pytest.mark.parametrize(("argv", "status"), [
    (["show", "prd", b"\xff"], 2),
    (["list-task-specs", b"\xff"], 2),
    (["create", "prd", "--set", "title=T", "--set", b"id=\xff"], 2),
    (["list", "prd", "--where", b"title=\xff"], 2),
    (["list", "prd", "--where", b"title~\xff"], 2),
    (["list", "prd", "--where", b"\xff=1"], 2),
    (["list", "prd", "--order", b"\xff"], 2),
    (["list", "prd", "--where", "review_passes=18446744073709551616"], 2),
    (["list", "prd", "--limit", "9223372036854775807"], 2),
    (["list", "prd", "--limit", "9" * 5000], 2),
], ids=range(10))
def test_words_that_sqlite_cannot_hold(repo: Path, argv: Words, status: int) -> None:
    """A word that is no text or a number beyond 64 bits is refused like any other bad word."""
    assert_refused(run(repo, *argv), status)


def test_a_store_whose_name_is_no_text(tmp_path: Path) -> None:
    """A store may lie in a folder whose name is no UTF-8."""
    folder = os.fsencode(tmp_path) + b"/\xff"
    assert run(tmp_path, "--store", folder, "init").status == 0
    assert run(tmp_path, "--store", folder, "create", "prd", "--set", "title=T").status == 0
    assert run(tmp_path, "--store", folder, "list-prds").status == 0


def test_errors_in_a_terminal(repo: Path) -> None:
    """An error is one line in a terminal too, and the JSON options do not change where it goes."""
    for argv in (["show", "prd", "nope"], ["show", "prd", "nope", "--json"], ["--jsonl", "list", "nope"]):
        done = terminal(repo, *argv)
        assert_refused(done, done.status)
        assert terminal(repo, *argv, together=True).out == done.err


# Where the output goes


def closed_pipe() -> int:
    """A descriptor to write to that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def into(cwd: Path, descriptor: int, *argv: str, data: bytes = b"") -> tuple[int, str]:
    """Run a command whose standard output is `descriptor`; its status and what it wrote to standard error."""
    try:
        done = subprocess.run(words(argv), cwd=cwd, input=data, stdout=descriptor, stderr=subprocess.PIPE, check=False,
                              env=environment())
    finally:
        os.close(descriptor)
    return done.returncode, done.stderr.decode()


OUTPUTS = ["list-prds", "list-prds --json", "show prd p1", "stats", "schema prd", "create prd --set title=T"]


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_reader_that_has_gone(own: Path, command: str) -> None:
    """Where nobody reads the output any more, a command ends quietly and with success."""
    assert into(own, closed_pipe(), *command.split()) == (0, "")


@pytest.mark.parametrize("command", ["--help", "list --help"])
def test_a_reader_of_help_that_has_gone(repo: Path, command: str) -> None:
    """Help is as quiet about it."""
    assert into(repo, closed_pipe(), *command.split()) == (0, "")


def test_a_reader_that_goes(own: Path) -> None:
    """`| head -1` of a long list ends quietly and with success."""
    titles = "".join(f'{{"title":"{"x" * 500}","id":"x{number}"}}\n' for number in range(500))
    assert run(own, "create", "prd", "--stdin", data=titles).status == 0
    for argv in (["list-prds"], ["list-prds", "--json"], ["list", "prd", "--jsonl"]):
        with subprocess.Popen(words(argv), cwd=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=environment()) as process:
            assert process.stdout
            assert process.stderr
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_full_disk_for_the_output(own: Path, command: str) -> None:
    """Where the output cannot be written, one line says that, and the status is 3."""
    status, err = into(own, os.open("/dev/full", os.O_WRONLY), *command.split())
    assert status == 3
    assert err.count("\n") == 1
    assert "standard output" in err


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_closed_output(own: Path, command: str) -> None:
    """With standard output closed a command does its work, and neither breaks down nor says that it failed to."""
    done = run(own, *command.split(), prefix=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert done.status in {0, 3}
    assert "Traceback" not in done.err
    assert done.err.count("\n") <= 1


def test_a_closed_input(own: Path) -> None:
    """With standard input closed there are no records to create, which is no reason to break down."""
    done = run(own, "create", "prd", "--stdin", prefix=["sh", "-c", 'exec "$@" <&-', "sh"])
    assert "Traceback" not in done.err


def test_an_error_of_the_store_is_not_the_output_s(own: Path) -> None:
    """Where the system refuses the store something, the output is not blamed."""
    if not shutil.which("strace") or subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("strace makes the system refuse it, and cannot be used here")
    prefix = ["strace", "-f", "-o", "/dev/null", "-e", "inject=flock:error=ENOLCK"]
    done = run(own, "create", "prd", "--set", "title=T", prefix=prefix)
    assert_refused(done, 3, "No locks available")
    assert "standard output" not in done.err


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(("argv", "status"), [(["show", "nope", "x"], 2), (["--store", "/nowhere", "stats"], 3)])
def test_nowhere_to_report_to(repo: Path, redirection: str, argv: list[str], status: int) -> None:
    """Where an error cannot be reported, the status still tells."""
    assert run(repo, *argv, prefix=["sh", "-c", f'exec "$@" {redirection}', "sh"]).status == status


@pytest.mark.parametrize("command", ["list-prds", "list-prds --json", "show prd ü1"])
def test_an_output_that_is_not_utf8(own: Path, command: str) -> None:
    """Where the locale cannot show a character, something stands for it; JSON is UTF-8 always."""
    run(own, "create", "prd", "--set", "id=ü1", "--set", "title=日本")
    done = subprocess.run(words(command.split()), cwd=own, capture_output=True, check=False,
                          env=environment(PYTHONIOENCODING="ascii"))
    assert (done.returncode, done.stderr) == (0, b"")
    if "--json" in command:
        assert "日本".encode() in done.stdout


# Nothing that a terminal would act on

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
EVERY_CHARACTER = [chr(code) for code in range(0x110000)]


def is_active(char: str) -> bool:
    """Whether a terminal, or an eye, could be deceived by it: controls, surrogates, line ends, bidi, tags, BOM."""
    return (unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or unicodedata.bidirectional(char) in BIDI
            or char in "\u061c\u200b\u200e\u200f\u2060\ufeff\ufff9\ufffa\ufffb" or 0xE0000 <= ord(char) < 0xE0080)


ACTIVE = [char for char in EVERY_CHARACTER if is_active(char)]


def test_every_character() -> None:
    """Every active character is written as an escape in printable ASCII, and every printable one as itself."""
    for char in ACTIVE:
        shown = text.visible(char)
        assert shown.isascii()
        assert shown.isprintable()
        assert shown.startswith("\\")
        assert char == "\n" or text.visible(char, keep=char) == char
    printable = "".join(char for char in EVERY_CHARACTER if char.isprintable())
    assert text.visible(printable) == printable
    assert text.visible(printable + "\n") == printable + "\\n"
    assert len({text.visible(char) for char in ACTIVE}) == len(ACTIVE)
    assert not any(is_active(char) for char in text.visible("".join(EVERY_CHARACTER)))


TEXT = st.text(st.characters() | st.sampled_from(ACTIVE))


@given(TEXT, st.sampled_from(["", "\t", "\n\t"]))
def test_any_text(string: str, keep: str) -> None:
    """Made visible, a text has no active character but those to be kept, and all its others in their order."""
    shown = text.visible(string, keep=keep)
    assert not any(is_active(char) and char not in keep for char in shown)
    assert text.visible(shown, keep=keep) == shown
    inactive = [char for char in string if not is_active(char)]
    rest = iter(shown)
    assert all(char in rest for char in inactive)


class Output(io.TextIOWrapper):
    """A standard output that says whether it is a terminal, and what was written to it."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="\n")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def written(self) -> str:
        self.flush()
        self.seek(0)
        return self.read()


@given(st.recursive(st.none() | TEXT.filter(lambda string: not any("\ud800" <= char <= "\udfff" for char in string)),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
                    max_leaves=5))
def test_any_json(value: object) -> None:
    """JSON on a terminal has no active character, and is the same JSON; elsewhere it is the same bytes."""
    line = json.dumps(value, ensure_ascii=False)
    with contextlib.redirect_stdout(Output(terminal=True)) as output:
        text.write_json(line)
    shown = output.written()
    assert json.loads(shown) == value
    assert not any(is_active(char) for char in shown[:-1])
    with contextlib.redirect_stdout(Output(terminal=False)) as output:
        text.write_json(line)
    assert output.written() == line + "\n"


EVIL = "\x1b]0;owned\x07\x1b[31m\r\n\x00\x7f\x80\x85\x9b31m\x9d\u202eevil\u2066\u2028\u200b\ufeff\U000e0041"
EVIL_ID = "z\u202e\u2066\u2028\u200f"


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose lines another tool wrote, active characters wherever there is text, some of them unescaped."""
    folder = make_repository(tmp_path_factory.mktemp("cli") / "evil\u202e\x1b[31m")
    Store.create(os.fspath(folder))[0].close()
    for kind in KINDS.values():
        fields: dict[str, object] = {name: EVIL for name in kind.fields if name not in kind.numbers}
        fields |= {kind.key: "z\x9b31m\u202e", EVIL: EVIL, "list": [EVIL], "object": {EVIL: EVIL}, "updated_at": THEN,
                   "prd_id": "z\x9b31m\u202e", "odd_at": EVIL}
        line = json.dumps(fields, ensure_ascii=False) + "\n"
        other = json.dumps({**fields, kind.key: EVIL_ID}) + "\n"
        bad = f'{{"{kind.key}":"\x1b[31m","updated_at":"{EVIL}"}}\nnot \x1b[31m\x9b json\n'
        (folder / ".taskstore" / kind.log).write_text(line + other + bad, newline="")
    return folder


@pytest.mark.parametrize("argv", [
    *(["list", kind] for kind in KINDS), *(["list", kind, "--json"] for kind in KINDS),
    *(["show", kind, EVIL_ID] for kind in KINDS), *(["show", kind, EVIL_ID, "--json"] for kind in KINDS),
    *(["show", kind, "z\x9b"] for kind in KINDS),
    ["list-prds"], ["list-prds", "--jsonl"], ["list-executions"], ["list-task-specs", "z\x9b31m\u202e"],
    ["list-task-specs", "z\x9b31m\u202e", "--json"], ["stats"], ["stats", "--json"], ["sync"], ["sync", "--full"],
    ["sync", "--full", "--json"], ["init"], ["init", "--json"],
    ["create", "prd", "--set", f"title={EVIL[:2]}", "--json"],
    ["create", "prd", "--set", "title=T", "--set", f"id={EVIL_ID}2"],
    # errors
    ["show", "prd", "z"], ["show", "prd", "z", "--json"], ["show", EVIL[:3], "x"], ["show", "prd", f"nope{EVIL[:3]}"],
    ["list", "prd", "--where", EVIL[:3]], ["list", "prd", "--where", f"status={EVIL[:3]}"],
    ["list", "prd", "--order", f'"{EVIL[:3]}'], ["list", "prd", "--cursor", EVIL[:3]],
    ["list-prds", "--status", "\x9b"],
    ["create", "prd", "--set", EVIL[:3]], ["create", "prd", "--set", f"{EVIL[:3]}=1"],
    ["create", "prd", "--set", f"status={EVIL[:3]}", "--set", "title=T"],
    ["create", "prd", "--set", f"id={EVIL[:3]}", "--set", "title=T"],
    ["create", "prd", "--set", f"id={EVIL_ID}", "--set", "title=T"],
    ["create", "prd", "--set", f"review_passes={EVIL[:3]}", "--set", "title=T"],
    ["create", "prd", "--file", EVIL[:3]], ["import", "beads", EVIL[:3]], ["--store", f"/{EVIL[:3]}", "stats"],
    [EVIL[:3]], ["list", "prd", "--limit", EVIL[:3]], ["import", EVIL[:3], "x"], ["schema", EVIL[:3]],
    ["stats", EVIL[:3]],
], ids=lambda argv: " ".join(word[:20] for word in argv))
def test_nothing_active_reaches_a_terminal(evil: Path, argv: list[str]) -> None:
    """No text of a record, a file name or a command line reaches a terminal as anything it would act on."""
    done = terminal(evil, *(word.replace("\x00", "") for word in argv), together=True)
    assert done.out
    shown = done.out.replace("\r\x1b[K", "") if {"--json", "--jsonl"} & set(argv) else unstyled(done.out)
    assert not any(is_active(char) for char in shown.replace("\n", "")), repr(shown)
    if "--json" in argv and done.status == 0:
        json.loads(done.out.rpartition("\r\x1b[K")[2])


def test_json_in_a_pipe_is_what_stands_in_the_log(evil: Path) -> None:
    """In a pipe JSON has every byte that stands in the log."""
    line = (evil / ".taskstore/prds.jsonl").read_bytes().split(b"\n")[1]
    assert run(evil, "show", "prd", EVIL_ID, "--json").raw == line + b"\n"


@pytest.mark.parametrize("age", [
    (0, "just now"), (999, "just now"), (-999, "just now"), (1000, "1 s ago"), (59_999, "59 s ago"),
    (60_000, "1 min ago"), (3_599_999, "59 min ago"), (3_600_000, "1 h ago"), (86_399_999, "23 h ago"),
    (86_400_000, "1 day ago"), (-86_400_000, "in 1 day"), (-5000, "in 5 s"),
    (2 * 86_400_000, "2 days ago"),
    (40 * 86_400_000, "1 month ago"), (70 * 86_400_000, "2 months ago"), (366 * 86_400_000, "1 year ago"),
    (1000 * 86_400_000, "2 years ago"), (-(10**15), "in 31688 years"),
])
def test_ages(age: tuple[int, str]) -> None:
    """An age is told in the largest unit of which it has one."""
    assert text.ago(10**13 - age[0], 10**13) == age[1]


@pytest.mark.parametrize("value", [True, "x", "\x1b", 1.5, [1], {"a": "\x9b"}])
def test_ages_of_what_is_no_stamp(value: object) -> None:
    """What is no stamp is shown as what it is, made visible."""
    assert text.ago(value) == text.moment(value) == text.visible(str(value))
    assert text.ago(None) == ""


def test_moments_out_of_range() -> None:
    """A stamp that the calendar does not reach is shown as a number."""
    assert text.moment(2**53).startswith(("9007199254740992", "287396-"))
    assert text.moment(2**80) == str(2**80)
