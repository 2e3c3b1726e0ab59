"""Which record a word names, and many records at once: all or none, and never another than the one that was named."""

import json
import os
from pathlib import Path

import pytest
from tests.client.test_cli import assert_refused, line_of, logs, run, terminal


def test_a_beginning_names_a_record(shop: Path) -> None:
    """Every command but `delete` takes enough of an id's beginning, and answers with the whole of it."""
    run(shop, "create", "ts", "--set", "id=spec-one", "--set", "prd_id=p1", "--set", "phase_name=N")
    for argv in (["show", "ts", "spec"], ["update", "ts", "spec", "--set", "phase_name=M"]):
        assert json.loads(run(shop, *argv, "--json").out)["id"] == "spec-one"
    assert len(json.loads(run(shop, "history", "ts", "spec", "--json").out)["items"]) == 2
    claimed = json.loads(run(shop, "claim", "spec", "--by", "ann", "--json").out)
    assert claimed["id"] == "spec-one"
    for command in ("heartbeat", "complete"):
        done = run(shop, command, "spec", "--by", "ann", "--token", claimed["token"], "--json")
        assert json.loads(done.out)["id"] == "spec-one", done
    first = str(json.loads(run(shop, "history", "ts", "spec", "--jsonl").out.split("\n")[0])["updated_at"])
    assert json.loads(run(shop, "restore", "ts", "spec", "--version", first, "--json").out)["phase_name"] == "N"
    assert json.loads(run(shop, "wait-dependency", "d", "--timeout-ms", "0", "--json").out)["id"] == "d1"


@pytest.mark.parametrize("argv", [
    ["show", "ts", "t4"], ["update", "ts", "t4", "--set", "phase_name=x"], ["delete", "ts", "t4"],
    ["claim", "t4", "--by", "ann"], ["complete", "t4", "--by", "ann", "--token", "x"],
], ids=" ".join)
def test_a_deleted_id_is_no_beginning(shop: Path, argv: list[str]) -> None:
    """The id of a deleted record never means another one that begins so."""
    before = logs(shop)
    assert_refused(run(shop, *argv), 1, "t4", "was deleted")
    assert logs(shop) == before


@pytest.mark.parametrize(("word", "part"), [
    ("t44 ", "there is no task spec t44 "), ("t", "several task specs begin with t"),
    ("t5x", "there is no task spec t5x"), ("p1", "there is no task spec p1")])
def test_deleting_takes_the_whole_id(shop: Path, word: str, part: str) -> None:
    """`delete` deletes nothing that is not named in full, and says which ids begin so."""
    before = logs(shop)
    assert_refused(run(shop, "delete", "ts", word), 1, part)
    assert logs(shop) == before


def test_deleting_by_a_beginning_names_the_record(shop: Path) -> None:
    """A beginning of just one id is told what the whole of it is, and deletes nothing."""
    before = logs(shop)
    assert_refused(run(shop, "delete", "dependency", "d"), 1, "to delete d1, give the whole of its id")
    assert logs(shop) == before


# Many at once


@pytest.mark.parametrize("option", ["", "--json", "--jsonl"])
def test_delete_many(shop: Path, option: str) -> None:
    """Records whose ids stand in JSON lines are deleted together, and each is answered."""
    listed = run(shop, "list", "execution", "--jsonl").out
    done = run(shop, "delete", "execution", "--stdin", *option.split(), data=listed)
    assert (done.status, done.err) == (0, "")
    assert run(shop, "list-executions").err == "no executions\n"
    if not option:
        assert done.out == "e1\ne2\n"
        return
    answers = json.loads(done.out)["items"] if option == "--json" else list(map(json.loads, done.out.splitlines()))
    assert [answer["id"] for answer in answers] == ["e1", "e2"]
    assert all(answer.keys() == {"id", "updated_at"} for answer in answers)


@pytest.mark.parametrize("line", [
    '{"id":"nope","n":1}', '{"id":"t","n":1}', '{"id":"t4","n":1}', '{"title":"x"}', '{"id":7,"n":1}', '"t5"'])
@pytest.mark.parametrize("command", ["update", "delete"])
def test_many_or_none(shop: Path, command: str, line: str) -> None:
    """One line that names no record, by the whole of its id, and nothing is written."""
    before = logs(shop)
    done = run(shop, command, "ts", "--stdin", data=f'{{"id":"t5","phase_name":"x"}}\n{line}\n')
    assert_refused(done, 1 if '"id":"' in line else 2, "standard input, line 2")
    assert logs(shop) == before


def test_what_was_printed_may_be_given_back(shop: Path) -> None:
    """A record as it was printed, with the mark of its write, can be given to `update` and `create`."""
    made = run(shop, "create", "prd", "--set", "title=T", "--set", "id=n1", "--op", "o", "--json").out
    assert '"op":"o"' in made
    changed = json.loads(run(shop, "update", "prd", "--stdin", "--json", data=made.replace('"T"', '"U"')).out)
    assert (changed["title"], changed.get("op")) == ("U", None)
    assert run(shop, "create", "prd", "--stdin", data=made.replace("n1", "n2")).out == "n2\n"
    assert_refused(run(shop, "update", "prd", "--stdin", data='{"id":"n1","op":"x"}'), 2, "op")


def test_update_by_a_file(shop: Path) -> None:
    """With an ID the one object in a file is laid over the record; more than one, or another id, is refused."""
    (shop / "one").write_text('{\n  "title": "F",\n  "extra": [1]\n}\n')
    done = json.loads(run(shop, "update", "prd", "p1", "--file", "one", "--json").out)
    assert (done["title"], done["extra"], done["status"]) == ("F", [1], "active")
    before = logs(shop)
    for data, part in (('{"title":"A"}\n{"title":"B"}', "holds 2 records, not one"), ("", "holds 0 records, not one"),
                       ('{"id":"p2","title":"A"}', "cannot be changed"), ("{}", "nothing to change")):
        assert_refused(run(shop, "update", "prd", "p1", "--stdin", data=data), 2, part)
    assert logs(shop) == before


def test_many_in_a_terminal(shop: Path) -> None:
    """In a terminal the ids of many records are followed by how many there are."""
    (shop / "many").write_text('{"id":"d8","from_exec_id":"a","to_exec_id":"b","dependency_type":"share"}\n'
                               '{"id":"d9","from_exec_id":"a","to_exec_id":"b","dependency_type":"share"}\n')
    done = terminal(shop, "create", "dependency", "--file", "many")
    assert (done.out, done.err) == ("d8\nd9\n", "2 dependencies created\n")


@pytest.mark.parametrize(("data", "options", "part"), [
    ('{"id":"x","title":"T"}', [], "line 1: does not say of which kind it is; --kind KIND does"),
    ('{"kind":"nope","record":{"id":"x"}}', [], "line 1: there is no kind 'nope'"),
    ('{"kind":"prd","record":7}', [], "line 1: does not say of which kind"),
    ('{"kind":"prd","record":{"id":"x"},"more":1}', [], "line 1: does not say of which kind"),
    ('{"id":"x","title":"T","updated_at":5}\n{"id":"y","status":"nope"}', ["--kind", "prd"], "line 2: status"),
    ('{"id":"x"}', ["--kind", "nope"], "there is no kind 'nope'"),
    ("not json", ["--kind", "prd"], "line 1"),
])
def test_imports_that_are_refused(shop: Path, data: str, options: list[str], part: str) -> None:
    """A line that cannot be imported is named with the reason, and nothing is written."""
    before = logs(shop)
    assert_refused(run(shop, "import", "-", *options, data=data), 2, part)
    assert logs(shop) == before


def test_import_of_a_log(shop: Path, tmp_path: Path) -> None:
    """A log as it stands is imported with every version and deletion, and again to no effect."""
    run(tmp_path, "init")
    log = os.fspath(shop / ".taskstore" / "task_specs.jsonl")
    assert run(tmp_path, "import", log, "--kind", "ts").out == "task specs: 6 imported, 1 deleted, 0 here already\n"
    before = logs(tmp_path)
    assert before["task_specs.jsonl"] == Path(log).read_bytes()
    assert run(tmp_path, "import", log, "--kind", "ts").out == "task specs: 0 imported, 0 deleted, 7 here already\n"
    assert logs(tmp_path) == before


def test_exports(shop: Path) -> None:
    """An export is the live records as they stand in the log, in every form."""
    bare = run(shop, "export", "prd")
    assert bare.out == f"{line_of('p1')}\n{line_of('p2')}\n"
    assert json.loads(run(shop, "export", "prd", "--json").out)["items"] == list(map(json.loads, bare.out.splitlines()))
    assert f'{{"kind":"prd","record":{line_of("p1")}}}\n' in run(shop, "export").out
    assert '"t4"' not in run(shop, "export").out


@pytest.mark.parametrize(("argv", "part"), [
    (["update", "prd"], "give an ID"),
    (["update", "prd", "p1"], "--set FIELD=VALUE"),
    (["update", "prd", "p1", "--set", "title=x", "--stdin"], "exclude each other"),
    (["update", "prd", "--set", "title=x"], "give an ID"),
    (["update", "prd", "--stdin", "--if-updated-at", "5"], "--if-updated-at is about one record"),
    (["update", "prd", "p1", "--set", "updated_at=x"], "updated_at"),
    (["update", "prd", "p1", "--set", "id=x"], "cannot be changed"),
    (["delete", "prd"], "give an ID"),
    (["delete", "prd", "p1", "--stdin"], "exclude each other"),
    (["delete", "prd", "--stdin", "--file", "x"], "exclude each other"),
    (["import", "beads"], "./beads"),
    (["import", "json", "x"], "invalid choice: 'json'"),
    (["claim"], "--by"),
    (["complete", "t2", "--by", "ann"], "--token"),
    (["heartbeat", "--by", "ann", "--token", "x"], "ID"),
    (["claim", "--by", "ann", "--lease-ms", "-1"], "--lease-ms"),
    (["ready", "--limit", "0"], "limit"),
    (["completion", "fish"], "'fish'"),
    (["watch", "ts", "prd", "--where", "status=complete"], "--where needs one KIND"),
    (["watch", "ts", "--where", "status=nope"], "status"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_usage(base: Path, argv: list[str], part: str) -> None:
    """Wrong usage ends with status 2, says in one line what is wrong, and writes nothing."""
    before = logs(base)
    assert_refused(run(base, *argv), 2, part)
    assert logs(base) == before


def test_options_before_a_positional_that_may_be_left_out(shop: Path) -> None:
    """An ID may stand behind the options also where argparse has to explain the rest of the line."""
    done = run(shop, "update", "prd", "--set", "title=-x", "--json", "--", "p1")
    assert json.loads(done.out)["title"] == "-x"
    run(shop, "create", "prd", "--set", "id=-p", "--set", "title=T")
    assert run(shop, "update", "prd", "--set", "title=-y", "--", "-p").out == "PRD -p updated\n  title  T → -y\n"
    assert run(shop, "delete", "prd", "--", "-p").status == 0
