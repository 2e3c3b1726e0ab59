"""What README, how-tos and examples show is what happens."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.daemons import end_daemons_of, private_folder

from taskstore.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PATIENCE_S = "60"
SCRIPTS = str(Path(sys.executable).parent)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A new git repository."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def run(folder: Path, *argv: str) -> str:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, env={
        **{name: value for name, value in os.environ.items() if name != "TASKSTORE_DIR"},
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}"})
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout


def squeezed(text: str) -> list[str]:
    """The words of each line, however wide the columns are and however long the commands took."""
    return [" ".join(re.sub(r"\b\d+ s ago\b", "just now", line).split()) for line in text.splitlines()]


def same(text: str, names: dict[str, str]) -> str:
    """Text with the ids and tokens of the README in place of this run's, and without what is cut there."""
    for ours, theirs in names.items():
        text = text.replace(ours, theirs)
    return text


def test_the_first_steps(repository: Path) -> None:
    """The commands of the README's first steps print what stands there, one after the other."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## First steps")[2].partition("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    run(repository, "git", "config", "user.email", "a@b")
    run(repository, "git", "config", "user.name", "a")
    names: dict[str, str] = {str(repository): "/home/you/shop"}
    for block in blocks:
        for command, shown in re.findall(r"\$ (.*)\n((?:(?!\$ ).*\n)*)", block):
            ours = {theirs: mine for mine, theirs in names.items()}
            printed = run(repository, "sh", "-c", same(command, ours))
            if command.startswith("git"):
                continue
            for pattern in (r"\b(?:prd|ts)-[0-9a-z]{8}\b", r"--token ([0-9a-f]{16})"):
                for mine, theirs in zip(re.findall(pattern, printed), re.findall(pattern, shown), strict=False):
                    names.setdefault(mine, theirs)
            lines = squeezed(same(printed, names))
            for line in squeezed(shown):
                assert line == "…" or line in lines, f"{command}: {line!r} is not in {lines}"


@pytest.mark.parametrize("example", ["agent.py", "agent.sh"])
def test_the_example_agents(repository: Path, example: str) -> None:
    """Each example agent does everything there is to do, in the order in which it becomes ready."""
    run(repository, "taskstore", "init")
    for key, needs in (("t1", ""), ("t2", "t3"), ("t3", "t1")):
        run(repository, "taskstore", "create", "task_spec", "--set", f"id={key}", "--set", "prd_id=p", "--set",
            f"phase_name=phase {key}", "--set", f"depends_on={needs}")
    interpreter = sys.executable if example.endswith(".py") else "sh"
    said = run(repository, interpreter, str(ROOT / "examples" / example), "ann")
    assert re.findall(r"^(t\d): phase", said, re.MULTILINE) == ["t1", "t3", "t2"]
    assert "complete" in said
    assert '"complete":3' in run(repository, "taskstore", "stats", "--json").replace(" ", "")


BEADS = """
{"id":"bd-1","title":"Search","issue_type":"epic","status":"open","created_at":"2026-01-05T09:00:00Z"}
{"id":"bd-2","title":"Index","status":"closed","created_at":"2026-01-05T09:00:00Z","assignee":"ann","priority":1}
{"id":"bd-3","title":"Rank","status":"open","created_at":"2026-01-05T09:00:00Z","priority":1,"dependencies":[\
{"issue_id":"bd-3","depends_on_id":"bd-2","type":"blocks"},\
{"issue_id":"bd-3","depends_on_id":"bd-1","type":"parent-child"}]}
{"id":"bd-4","title":"Load test","status":"open","created_at":"2026-01-05T09:00:00Z","priority":3,"dependencies":[\
{"issue_id":"bd-4","depends_on_id":"bd-3","type":"blocks"}]}
"""
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def shop(tmp_path: Path, repository: Path) -> Iterator[Path]:
    """A repository with a commit, a beads log, and a store made from it."""
    del repository
    (tmp_path / "shop" / ".beads").mkdir(parents=True)
    shop = tmp_path / "shop"
    (shop / ".beads" / "issues.jsonl").write_text(BEADS.lstrip(), encoding="utf-8")
    run(shop, "git", "init", "-q")
    run(shop, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "begin")
    run(shop, "taskstore", "init")
    run(shop, "taskstore", "import", "beads", ".beads/issues.jsonl")
    run(shop, "git", "add", ".taskstore")
    yield shop
    subprocess.run([f"{SCRIPTS}/taskstore", "daemon", "stop", "--store", str(shop / ".taskstore")], check=False,
                   capture_output=True)  # where a how-to has started one


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_the_how_tos(shop: Path, page: Path) -> None:
    """Every block marked `sh` in a how-to succeeds, in a shell of its own; those marked `console` are not run."""
    if "taskstore check" in page.read_text(encoding="utf-8") and not os.path.exists(f"{SCRIPTS}/taskstore-merge"):
        pytest.skip("this installation has no merge driver, which is what `check` says of it")
    for block in blocks(page, "sh"):
        assert "taskstore service" not in block, f"{page.name}: it would change this machine; mark it `console`"
        run(shop, "timeout", PATIENCE_S, "sh", "-ec", block.replace("sqlite3 -readonly", "test -f"))


@pytest.mark.parametrize("query", [query for page in PAGES for query in blocks(page, "sql")])
def test_the_queries(shop: Path, query: str) -> None:
    """Every query of the how-tos is one, and finds something among the records that came from beads."""
    run(shop, "taskstore", "update", "ts", "bd-2", "--set", "status=complete")
    database = apsw.Connection(str(shop / ".taskstore" / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
    assert list(database.execute(query))
    database.close()


def test_the_loop(shop: Path) -> None:
    """The loop of the how-to completes what works, and fails what does not."""
    (code,) = [block for page in PAGES for block in blocks(page, "python")]
    begin = "from taskstore import connect\nname = 'ann'\ndef work(spec): assert spec.id != 'bd-4'\n"
    run(shop, sys.executable, "-c", begin + code)
    specs = run(shop, "taskstore", "list", "ts", "--jsonl").splitlines()
    assert {spec["id"]: spec["status"] for spec in map(json.loads, specs)} == {
        "bd-2": "complete", "bd-3": "complete", "bd-4": "failed"}


def test_every_command_is_named() -> None:
    """The README's table of commands names every command, and no other."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Commands")[2].partition("\nAll of them")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    named = {command for cell in cells for command in re.findall(r"`([a-z-]+)", cell)}
    assert named == set(COMMANDS)


def test_every_module_is_named() -> None:
    """The architecture page names every module of core, of the client and of the hooks."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = [path.stem for folder in ("core/taskstore_core", "client/taskstore", "hooks/taskstore_hooks")
               for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("__")]
    assert [name for name in modules if f"`{name}`" not in page] == []


def test_every_problem_is_named() -> None:
    """The page on `check` names every problem that core or hooks can find, with its severity, and no other."""
    page = (ROOT / "docs" / "how-to" / "check.md").read_text(encoding="utf-8")
    files = (*(ROOT / "core" / "taskstore_core").glob("check*.py"), ROOT / "hooks" / "taskstore_hooks" / "diagnosis.py")
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    found = {(name, severity or function) for function, name, severity in re.findall(
        r'\b(error|warning|Problem)\("(\w+)"(?:, "(note)")?', source)}
    assert found == set(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE))


def test_the_library_example(repository: Path) -> None:
    """The README's library example runs, and leaves what it says."""
    run(repository, "taskstore", "init")
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Library")[2]
    (code,) = re.findall(r"```python\n(.*?)```", text.partition("For asynchronous")[0], re.DOTALL)
    assert run(repository, sys.executable, "-c", code) == "Build the index\n"
    assert "done well" in run(repository, "taskstore", "export", "task_spec")
    run(repository, "taskstore", "create", "task_spec", "--set", "prd_id=p", "--set", "phase_name=more")
    (code,) = re.findall(r"```python\n(.*?)```", text.partition("For asynchronous")[2], re.DOTALL)
    run(repository, sys.executable, "-c", f"{code}\nimport asyncio\nasyncio.run(work())")
    assert '"status":"running"' in run(repository, "taskstore", "export", "task_spec")


# The tour


@pytest.fixture
def places() -> Iterator[dict[str, str]]:
    """Folders of the test's own for whatever a tour makes, as variables of its environment."""
    with private_folder() as temporary, private_folder() as runtime:
        yield {"TMPDIR": temporary, "XDG_RUNTIME_DIR": runtime}
        end_daemons_of(temporary)


def left_by_tour(places: dict[str, str]) -> list[str]:
    """The processes that work on a tour's store, and its files, with its daemon's socket."""
    found = [os.path.join(folder, name) for top in places.values() for folder, _, names in os.walk(top)
             for name in names]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if f"TASKSTORE_DIR={places['TMPDIR']}".encode() in environment or places["TMPDIR"].encode() in command:
                found.append(command.decode())
    return found + os.listdir(places["TMPDIR"])


@contextlib.contextmanager
def tour(places: dict[str, str], examples: Path = ROOT / "examples") -> Iterator["subprocess.Popen[str]"]:
    """A tour that is under way."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKSTORE_")}
    with subprocess.Popen([sys.executable, str(examples / "tour.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env={**environment, **places}) as process:
        yield process


def test_the_tour(places: dict[str, str]) -> None:
    """The tour shows agents take each piece once while `watch` tells of it, says how fast, and leaves nothing."""
    with tour(places) as process:
        out, err = process.communicate(timeout=float(PATIENCE_S))
    assert (process.returncode, err) == (0, "")
    pieces = {"ts-xml", "ts-pdf", "ts-range", "ts-vat", "ts-mail", "ts-credit", "ts-books"}
    assert sorted(re.findall(r"(?:ann|bob|cy) │ takes ([a-z-]+)", out)) == sorted(pieces)
    told = re.findall(r"watch │ [0-9:]{8}  updated  task spec +([a-z-]+) +complete", out)
    assert set(told) == pieces
    assert re.search(r"^[1-9][0-9]* claims a second", out, re.MULTILINE)
    assert re.search(r"^p50 of a call [0-9.]+ ms", out, re.MULTILINE)
    assert out.index("each piece had one holder") < out.index("nothing is wrong") < out.index('{"id":"ts-label-')
    assert left_by_tour(places) == []


@pytest.mark.parametrize(("number", "moment"), [
    (signal.SIGINT, "daemon start"), (signal.SIGINT, "watch │"), (signal.SIGTERM, "200 pieces")])
def test_a_tour_that_is_interrupted(places: dict[str, str], number: int, moment: str) -> None:
    """Ctrl-C or SIGTERM ends the tour with every process and file of it, whatever it is at, and no traceback."""
    with tour(places) as process:
        assert process.stdout is not None
        assert any(moment in line for line in process.stdout)
        process.send_signal(number)
        _, err = process.communicate(timeout=float(PATIENCE_S))
    assert (process.returncode, err) == (128 + number, "")
    assert left_by_tour(places) == []


@pytest.mark.parametrize(("code", "broken", "said"), [
    ('say("claim", claim.id,', 'say("claim", "ts-vat",', "has ts-vat, and [a-z]+ got it too"),
    ("unblocked = store.complete(claim)", "store.complete(claim); store.update_task_spec(claim.id); unblocked = []",
     "its versions are"),
    ("unblocked = store.complete(claim)", "raise SystemExit(3)", " failed"),
], ids=["two holders", "another version", "an agent that fails"])
def test_a_tour_that_goes_wrong(places: dict[str, str], tmp_path: Path, code: str, broken: str, said: str) -> None:
    """When an agent does not do what it should, the tour says so, fails, and leaves nothing all the same."""
    examples = shutil.copytree(ROOT / "examples", tmp_path / "examples")
    text = (examples / "crew.py").read_text(encoding="utf-8")
    assert code in text
    (examples / "crew.py").write_text(text.replace(code, broken), encoding="utf-8")
    with tour(places, examples) as process:
        _, err = process.communicate(timeout=float(PATIENCE_S))
    assert process.returncode == 1
    assert re.search(f"^tour: .*{said}", err, re.MULTILINE)
    assert left_by_tour(places) == []
