"""The manners of every command: what people see word for word, and what programs get.

By the files alone; `test_commands` holds files and daemon to the same answers.
"""

import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client.test_cli import (
    EVIL,
    EVIL_ID,
    THEN,
    assert_refused,
    environment,
    is_active,
    run,
    terminal,
    unstyled,
    words,
)

from taskstore.cli import text
from taskstore.cli.commands import COMMANDS
from taskstore.direct import Direct
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store


def claim_by_ann(folder: Path) -> str:
    """The token of a claim on t2."""
    with Direct(Store.open(os.fspath(folder))) as store:
        token: str = json.loads(store.call("task_spec.claim", {"by": "ann", "id": "t2"}))["token"]
    return token


def same(shown: str, folder: Path) -> str:
    """What differs from run to run made equal: places, tokens, dates, ages, stamps and lengths."""
    shown = shown.replace(os.fspath(folder.parent), "")
    for pattern, word in ((r"\b[0-9a-f]{16}\b", "TOKEN"), (r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
                          (r"\b(?:just now|\d+ s ago)", "NOW"), (r"\bin \d+ (min|s)\b", r"in N \1"),
                          (r"\b1[0-9]{12}\b", "STAMP"), (r"after \d+ ms", "after N ms")):
        shown = re.sub(pattern, word, shown)
    return "\n".join(line.rstrip() for line in shown.split("\n"))


# Every command, in every form

EACH = {
    "init": "init", "completion": "completion bash", "create": "create prd --set title=T --set id=p8",
    "show": "show ts t1", "update": "update prd p1 --set title=U", "delete": "delete prd p2",
    "history": "history ts t1", "restore": "restore ts t4", "list": "list execution", "list-prds": "list-prds",
    "list-task-specs": "list-task-specs p1", "list-executions": "list-executions", "stats": "stats", "ready": "ready",
    "claim": "claim --by ann", "heartbeat": "heartbeat t2 --by ann --token TOKEN",
    "complete": "complete t2 --by ann --token TOKEN", "fail": "fail t2 --by ann --token TOKEN",
    "release": "release t2 --by ann --token TOKEN", "resolve-dependency": "resolve-dependency d1",
    "wait-dependency": "wait-dependency d1", "sync": "sync", "check": "check", "resolve-conflicts": "resolve-conflicts",
    "export": "export",
    "import": "import export.jsonl", "schema": "schema prd", "compact": "compact",
    "recover": "recover",
}
"""A command line of each command that succeeds."""
TESTED_APART = {"watch", "daemon", "service", "install-hooks", "uninstall-hooks"}


def test_each_is_every_command() -> None:
    """No command is left out below."""
    assert set(COMMANDS) - TESTED_APART == set(EACH)


def prepared(folder: Path, name: str) -> list[str]:
    """The words of a command line of EACH, once `folder` holds what they need."""
    line = EACH[name]
    if "TOKEN" in line:
        line = line.replace("TOKEN", claim_by_ann(folder))
    if name == "wait-dependency":
        run(folder, "resolve-dependency", "d1")
    return line.split()


@pytest.mark.parametrize("name", EACH)
def test_for_people(base: Path, tmp_path: Path, name: str) -> None:
    """People get text without control characters, and in a terminal the words that a pipe gets."""
    told = []
    for shown in (run, terminal):
        folder = shutil.copytree(base, tmp_path / shown.__name__ / "shop")
        done = shown(folder, *prepared(folder, name))
        assert (done.status, done.err) == (0, "")
        plain = done.out if shown is run else unstyled(done.out)
        assert plain.endswith("\n")
        assert plain.replace("\n", "").replace("\t", "").isprintable()
        told.append([line.split() for line in same(plain, folder).split("\n")])
    if name != "completion":
        assert told[0] == told[1]


@pytest.mark.parametrize("name", EACH)
def test_for_programs(base: Path, tmp_path: Path, name: str) -> None:
    """With --json a command prints one JSON value and nothing else, in a pipe and in a terminal."""
    keys = []
    for shown in (run, terminal):
        folder = shutil.copytree(base, tmp_path / shown.__name__ / "shop")
        done = shown(folder, *prepared(folder, name), "--json")
        assert (done.status, done.err) == (0, "")
        assert done.out.count("\n") == 1
        keys.append(list(json.loads(done.out)))
    assert keys[0] == keys[1]


# What people see

PAGES = {
    "claim t2 --by ann --lease-ms 90000": """
        task spec t2
          prd_id         p1
          phase_name     query
          created_at     DATE (3 h ago)
          updated_at     DATE (NOW)
          status         running
          workflow_name  -
          assigned_to    ann

        ann holds it for 1 min. To go on:
          taskstore complete  t2 --by ann --token TOKEN   # when it is done
          taskstore fail      t2 --by ann --token TOKEN   # when it cannot be
          taskstore release   t2 --by ann --token TOKEN   # to give it back
          taskstore heartbeat t2 --by ann --token TOKEN   # to hold it for longer
        """,
    "complete t2 --by ann --token TOKEN": """
        task spec t2 is complete: query

        ready now because of it:
        ID  STATUS   PRD  CREATED  PHASE
        t5  pending  p1   3 h ago  rank
        """,
    "fail t2 --by ann --token TOKEN": """
        task spec t2 has failed: query
        """,
    "release t2 --by ann --token TOKEN": """
        task spec t2 is pending again: query
        """,
    "heartbeat t2 --by ann --token TOKEN --lease-ms 90500": """
        ann holds t2 until DATE (in N min)
        """,
    "history ts t4": """
              VERSION  WHEN     WHAT IT DID
        STAMP  3 h ago  created
        STAMP  3 h ago  phase_name lost → found
        STAMP  3 h ago  deleted
        """,
    "restore ts t4": """
        task spec t4 is as it was at version STAMP, written 3 h ago
        """,
    "update execution e1 --set status=failed --set error_message=boom": """
        execution e1 updated
          status         running → failed
          completed_at   - → DATE (NOW)
          error_message  - → 4 characters
        """,
    "update prd p1 --set title=Search": """
        PRD p1 updated, though nothing is different
        """,
    "delete workflow w1": """
        workflow w1 deleted; taskstore restore workflow w1 brings it back
        """,
    "resolve-dependency d --payload all": """
        dependency d1 is resolved
        """,
    "import export.jsonl": """
        PRDs: 1 imported, 0 deleted, 0 here already
        """,
    "check": """
        nothing is wrong
        """,
}


@pytest.mark.parametrize("line", PAGES)
def test_pages(shop: Path, line: str) -> None:
    """What a command prints in a pipe is what stands here."""
    argv = (line.replace("TOKEN", claim_by_ann(shop)) if "TOKEN" in line else line).split()
    done = run(shop, *argv)
    assert (done.status, done.err) == (0, "")
    assert same(done.out, shop) == textwrap.dedent(PAGES[line]).removeprefix("\n")


def test_every_way_that_versions_differ(shop: Path) -> None:
    """`history` says that a record was created again, written again unchanged, and how long texts became."""
    run(shop, "restore", "ts", "t4")
    run(shop, "update", "ts", "t4", "--set", "phase_name=found")
    run(shop, "update", "ts", "t4", "--set", "content=" + "x" * 1234)
    run(shop, "update", "ts", "t4", "--set", "content=" + "y" * 1234)
    run(shop, "update", "ts", "t4", "--set", "phase_name=" + "z" * 50, "--op", "o")
    said = same(run(shop, "history", "ts", "t4").out, shop).split("\n")[4:-1]
    assert [re.sub(r"^STAMP +NOW +", "", line) for line in said] == [
        "created again", "written again, nothing changed", "content - → 1,234 characters", "content changed",
        f"phase_name found → {'z' * 39}…"]


def test_completing_what_many_wait_for(shop: Path) -> None:
    """Of many task specs that one unblocked the first are listed, and how many more there are."""
    specs = [{"id": f"w{number:02}", "prd_id": "p2", "phase_name": "N", "depends_on": ["t2"]} for number in range(22)]
    run(shop, "create", "ts", "--stdin", data="\n".join(map(json.dumps, specs)))
    done = run(shop, "complete", "t2", "--by", "ann", "--token", claim_by_ann(shop))
    assert len(done.out.splitlines()) == 4 + 20 + 1
    assert done.out.endswith("\n… and 3 more: taskstore ready lists them\n")


def test_what_check_found(shop: Path) -> None:
    """`check` prints the worst first, each with what mends it and how many more there are, and sums up."""
    log = shop / ".taskstore" / "task_specs.jsonl"
    lines = [json.dumps({"id": f"o{number:02}", "prd_id": "gone", "phase_name": "N", "updated_at": 5})
             for number in range(12)]
    log.write_text(log.read_text() + "\n".join(["no record", *lines]) + "\n")
    done = run(shop, "check")
    assert done.status == 1
    told = done.out.split("\n")
    assert told[0].startswith("error    task_specs.jsonl, line 8: not a record, and skipped: ")
    assert told[1] == "         to mend it: correct or delete line 8 of task_specs.jsonl"
    assert told[2] == "note     task_specs.jsonl: o00 names the PRD gone, which is not in the store"
    assert sum(line.startswith("note") for line in told) == 10
    assert told[-4:] == ["… and 2 more orphan: --json lists them all", "", "1 error, 12 notes", ""]
    assert len(run(shop, "check", "--jsonl").out.splitlines()) == 13


def test_only_notes_are_no_failure(shop: Path) -> None:
    """What is merely noted leaves the status of `check` at 0."""
    run(shop, "update", "ts", "t2", "--set", "prd_id=elsewhere")
    done = run(shop, "check")
    assert (done.status, done.out.split("\n")[-2]) == (0, "1 note")


def test_what_check_mended(shop: Path) -> None:
    """`check` says that --fix mends something; with it, that it is mended, and the status is 0."""
    for outbox in shop.rglob("outbox"):
        outbox.unlink()  # as in a clone that did not write the log, and so does not know what was in it
    (shop / ".taskstore" / "workflows.jsonl").unlink()
    before, after = run(shop, "check"), run(shop, "check", "--fix")
    assert before.status == 1
    assert before.out.endswith("\n1 warning; taskstore check --fix mends 1 of them\n")
    assert (after.status, after.out.split("\n")[0].split()[0]) == (0, "mended")
    assert after.out.endswith("\nnothing is wrong any more\n")


def test_what_check_mended_and_what_it_leaves_to_recover(shop: Path) -> None:
    """--fix makes a log that is missing anew; that what was written to it is gone remains noted until it is back."""
    (shop / ".taskstore" / "workflows.jsonl").unlink()
    before, after = run(shop, "check"), run(shop, "check", "--fix")
    assert before.status == 1
    assert before.out.endswith("\n1 warning, 1 note; taskstore check --fix mends 1 of them\n")
    assert (after.status, after.out.split("\n")[0].split()[0]) == (0, "mended")
    assert after.out.endswith("\n1 note\n")
    assert run(shop, "recover", "--all").status == 0
    assert run(shop, "check").out == "nothing is wrong\n"


@pytest.mark.parametrize(("argv", "said"), [
    (["list", "dependency", "--where", "dependency_type=share"], "no dependencies\n"),
    (["list", "repo_state", "--where", "repo_path=x"], "no repo states\n"),
    (["ready", "--prd", "p2"], "no task spec is ready\n"),
    (["import", os.devnull], "/dev/null holds no records\n"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_nothing(shop: Path, argv: list[str], said: str) -> None:
    """Where there is nothing to print, that is said on standard error, and it is no failure."""
    done = run(shop, *argv)
    assert (done.status, done.out, done.err) == (0, "", said)


# What a shell takes, and what a terminal acts on


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0").filter(lambda char: not is_active(char))))
def test_words_of_a_shell(word: str) -> None:
    """A shell reads the word that was meant."""
    done = subprocess.run(["sh", "-c", f"printf %s {text.word_of_shell(word)}"], capture_output=True, check=True)
    assert done.stdout.decode() == word


def test_how_to_go_on_can_be_typed(shop: Path) -> None:
    """The commands that a claim prints work as they are, whatever the names in them."""
    run(shop, "create", "ts", "--set", "id=-b'c", "--set", "prd_id=p1", "--set", "phase_name=N")
    said = run(shop, "claim", "--by=-o'x $HOME", "--", "-b'c").out
    line = next(line for line in said.split("\n") if "taskstore release" in line)
    done = subprocess.run(["sh", "-c", line.replace("taskstore", '"$0" -m taskstore', 1), words([])[0]], cwd=shop,
                          env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "task spec -b'c is pending again: N\n"), done.stderr


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose lines another tool wrote, with active characters wherever there is text."""
    folder = tmp_path_factory.mktemp("evil")
    Store.create(os.fspath(folder))[0].close()
    for kind in KINDS.values():
        fields: dict[str, object] = {name: EVIL for name in kind.fields if name not in kind.numbers}
        fields |= {kind.key: EVIL_ID, EVIL: EVIL, "status": "pending", "updated_at": THEN, "prd_id": EVIL_ID}
        bad = f'{{"{kind.key}":"\x1b[31m","updated_at":"{EVIL}"}}\n'
        lines = (json.dumps(fields), json.dumps({**fields, EVIL: "other", "updated_at": THEN + 1}))
        (folder / ".taskstore" / kind.log).write_text("\n".join(lines) + "\n" + bad, newline="")
    return folder


@pytest.mark.parametrize("argv", [
    ["ready"], ["ready", "--json"], ["history", "ts", EVIL_ID], ["history", "prd", EVIL_ID, "--json"],
    ["claim", EVIL_ID, "--by", "\x1b[31m"], ["claim", EVIL_ID, "--by", EVIL_ID, "--lease-ms", "1"],
    ["complete", EVIL_ID, "--by", EVIL_ID, "--token", EVIL_ID], ["check"], ["check", "--json"], ["export"],
    ["update", "prd", EVIL_ID, "--allow-unknown", "--set", f"{EVIL_ID}=\u202ex"], ["delete", "dependency", EVIL_ID],
    ["restore", "prd", EVIL_ID, "--version", str(THEN)], ["wait-dependency", EVIL_ID, "--timeout-ms", "1"],
    ["import", EVIL_ID], ["import", "-", "--kind", EVIL_ID], ["watch", EVIL_ID], ["schema", EVIL_ID],
    ["schema", f"x.{EVIL_ID}"], ["delete", "ts", EVIL_ID[:2]], ["update", "prd", EVIL_ID[:2]],
], ids=lambda argv: ascii(" ".join(argv))[:40])
def test_nothing_active_reaches_a_terminal(evil: Path, tmp_path: Path, argv: list[str]) -> None:
    """No text of a record or of a command line reaches a terminal as anything it would act on."""
    folder = shutil.copytree(evil, tmp_path / "evil")
    done = terminal(folder, *argv, together=True)
    assert done.out
    shown = unstyled(done.out) if "--json" not in argv else done.out.replace("\r\x1b[K", "")
    assert not any(is_active(char) for char in shown.replace("\n", "")), repr(shown)


@pytest.mark.parametrize("command", ["init --json", "export --json", "check", "watch", "claim --by ann",
                                     "history ts t1", "delete prd p1", "import export.jsonl", "ready"])
def test_an_empty_store_name(shop: Path, command: str) -> None:
    """An empty --store, as an unset variable gives, is refused by every command and never taken for this folder."""
    assert_refused(run(shop, *command.split(), "--store", ""), 2, "--store: names no folder")
