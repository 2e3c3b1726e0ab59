"""Settling what merges left: which records are in conflict, what is written, and what stays of the file."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from taskstore_core import signature
from taskstore_core.conflicts import look, resolve
from taskstore_core.errors import BusyError, InvalidError, NotFoundError
from taskstore_core.files import replace_file
from taskstore_core.kinds import KINDS
from taskstore_core.methods import dispatch
from taskstore_core.store import Store

PRD, SPEC = KINDS["prd"], KINDS["task_spec"]
Line = dict[str, object] | str


def rec(version: int, title: str = "x", key: str = "a", **fields: object) -> dict[str, object]:
    return {"id": key, "title": title, "updated_at": version, **fields}


def text(*lines: Line) -> bytes:
    return "".join((line if isinstance(line, str) else json.dumps(line, separators=(",", ":"))) + "\n"
                   for line in lines).encode()


def block(ours: list[Line], theirs: list[Line], base: list[Line] | None = None) -> list[Line]:
    middle: list[Line] = [] if base is None else ["||||||| 1234567", *base]
    return ["<<<<<<< HEAD", *ours, *middle, "=======", *theirs, ">>>>>>> branch"]


def write(store: Store, *lines: Line, kind: str = "prd") -> Path:
    path = Path(store.paths.file(KINDS[kind].log))
    path.write_bytes(text(*lines))
    return path


def seen(store: Store, key: str = "a", kind: str = "prd") -> dict[str, object] | None:
    try:
        record: dict[str, object] = json.loads(store.get(kind, key))
    except NotFoundError:
        return None
    return record


GONE: dict[str, object] = {"id": "a", "deleted": True, "updated_at": 8}
CONFLICT = [rec(5), *block([rec(7, "y")], [rec(7, "z")])]


@pytest.mark.parametrize(("lines", "title"), [
    pytest.param([rec(5), *block([rec(7, "y")], [rec(9, "z")])], "z", id="newest version in theirs"),
    pytest.param([rec(5), *block([rec(9, "y")], [rec(7, "z")])], "y", id="newest version in ours"),
    pytest.param([rec(5), *block([rec(7, "y")], [rec(7, "y", op="1")])], "y", id="the same content"),
    pytest.param([rec(5), *block([rec(7, "y")], [rec(7, "z", "b")])], "y", id="other records"),
    pytest.param([rec(5), *block([GONE], [rec(9, "z")])], None, id="deleted in ours, edited later in theirs"),
    pytest.param([rec(5), *block([rec(9, "z")], [GONE])], None, id="edited later in ours, deleted in theirs"),
    pytest.param([rec(5), *block([rec(7)], [rec(7, "z")]), rec(8, "later")], "later", id="settled by a later version"),
    pytest.param(block([rec(3, "y")], [rec(5)], [rec(5)]), "y", id="diff3: rewritten by a clock that is behind"),
    pytest.param(block([], [rec(5), rec(7, "z")], [rec(5)]), None, id="diff3: taken out in ours, edited in theirs"),
    pytest.param([*block([rec(5)], [rec(5), rec(7, "z")], [rec(1, "old"), rec(5)])], "z",
                 id="diff3: compacted on both sides"),
])
def test_what_needs_no_choice(store: Store, lines: list[Line], title: str | None) -> None:
    """What the table decides is settled at once: readers see it, every line of both sides stays, no marker does."""
    path = write(store, *lines)
    before = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.startswith(b"{")]
    answer = resolve(store)
    assert (answer["conflicts"], answer["logs"], answer["left"]) == ([], ["prds.jsonl"], 0)
    record = seen(store)
    assert (record and record["title"]) == title
    after = path.read_bytes()
    assert [line for line in after.split(b"\n")[:-1] if not line.startswith(b"{")] == []
    left = [json.loads(line) for line in after.split(b"\n")[:-1]]
    assert [each for each in before if each not in left] == [
        each for each in before if "||||||| 1234567" in lines and each in (rec(1, "old"), rec(5)) and each not in left]
    assert look(PRD, after) is None
    assert resolve(store) == {"conflicts": [], "logs": [], "left": 0}


def test_what_a_side_took_out(store: Store) -> None:
    """Of the base's part, which git shows with diff3, lines stay that both sides have; those one took out do not."""
    old, kept, new = rec(1, "old"), rec(5), rec(7, "z")
    path = write(store, *block([kept], [old, kept, new], [old, kept]))
    assert resolve(store)["logs"] == ["prds.jsonl"]
    assert path.read_bytes() == text(kept, kept, new)


@pytest.mark.parametrize(("take", "title"), [("ours", "y"), ("theirs", "z"), ("newest", "z")])
def test_a_choice(store: Store, take: str, title: str) -> None:
    """A conflict waits, untouched, until one side is taken; that is the newest version then, and both stay."""
    path = write(store, *CONFLICT)
    before = path.read_bytes()
    answer = resolve(store)
    assert (answer["left"], answer["logs"], path.read_bytes()) == (1, [], before)
    taken = {"ours": "ours"}.get(take, "theirs")
    assert resolve(store, take) == {"conflicts": [{
        "kind": "prd", "id": "a", "ours": json.dumps(rec(7, "y"), separators=(",", ":")),
        "theirs": json.dumps(rec(7, "z"), separators=(",", ":")), "taken": taken}], "logs": ["prds.jsonl"], "left": 0}
    record = seen(store)
    assert record is not None
    assert record["title"] == title
    assert path.read_bytes().startswith(text(rec(5), rec(7, "y"), rec(7, "z")))
    assert len(store.history("prd", "a")) == 4


def test_newest_is_the_same_everywhere(store: Store) -> None:
    """Of two versions with one stamp every clone takes the same for the newest, whichever of them is its own."""
    write(store, rec(5), *block([rec(7, "z")], [rec(7, "y")]))
    resolve(store, "newest")
    record = seen(store)
    assert record is not None
    assert record["title"] == "z"


def test_one_record_of_several(store: Store) -> None:
    """Conflicts are settled one by one; the markers go with the last of a log, and other logs do not wait for it."""
    path = write(store, *block([rec(7, "y"), rec(7, "y", "bee")], [rec(7, "z"), rec(7, "z", "bee")]))
    other = write(store, *block([rec(7, "y")], [rec(7, "z")]), kind="workflow")
    assert resolve(store, "ours", PRD, "be")["left"] == 2
    assert b"=======" in path.read_bytes()
    answer = resolve(store, "theirs", KINDS["workflow"])
    assert (answer["logs"], answer["left"], b"=======" in other.read_bytes()) == (["workflows.jsonl"], 1, False)
    assert resolve(store, "theirs", PRD, "a")["logs"] == ["prds.jsonl"]
    assert [seen(store, key)["title"] for key in ("a", "bee")] == ["z", "y"]  # type: ignore[index]
    assert b"=======" not in path.read_bytes()


def test_fields_that_nobody_knows(store: Store) -> None:
    """What is taken keeps every field byte for byte, but not the mark of the write that made it."""
    odd = '{"id":"a","title":"y","updated_at":7,"n":1.50,"big":123456789012345678901234567890,"op":"1","op_sum":"2"}'
    path = write(store, *block([odd], [rec(7, "z")]))
    resolve(store, "ours")
    last = path.read_bytes().split(b"\n")[-2]
    stamp = json.loads(last)["updated_at"]
    assert last == (b'{"id":"a","title":"y","updated_at":%d,"n":1.50,"big":123456789012345678901234567890,"base_at":7}'
                    % stamp)


def test_a_lease_ends_with_what_is_taken(store: Store) -> None:
    """A task spec that was claimed here, and that the version taken says is complete, is held by nobody."""
    spec = {"id": "s", "prd_id": "p", "phase_name": "N", "updated_at": 5, "created_at": 5}
    write(store, {**spec, "status": "pending"}, kind="task_spec")
    dispatch(store, "task_spec.claim", {"by": "me", "id": "s"})
    stamp = json.loads(store.get("task_spec", "s"))["updated_at"]
    write(store, *block([store.get("task_spec", "s")], [{**spec, "updated_at": stamp, "status": "complete"}]),
          kind="task_spec")
    resolve(store, "theirs")
    with pytest.raises(Exception, match="nobody holds it"):
        dispatch(store, "task_spec.heartbeat", {"id": "s", "by": "me", "token": "x"})


@pytest.mark.parametrize(("arguments", "error"), [
    (("mine", None, None), InvalidError), (("ours", PRD, "none"), NotFoundError), ((None, PRD, "a"), InvalidError),
    (("ours", None, "a"), InvalidError), (("ours", SPEC, "a"), NotFoundError), (("ours", PRD, ""), NotFoundError),
])
def test_refusals(store: Store, arguments: tuple[str | None, object, str | None], error: type[Exception]) -> None:
    """What makes no sense is refused, and nothing is written."""
    path = write(store, *block([rec(7, "y"), rec(7, "y", "b")], [rec(7, "z"), rec(7, "z", "b")]))
    before = path.read_bytes()
    with pytest.raises(error):
        resolve(store, *arguments)  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_while_git_writes(tmp_path: Path) -> None:
    """While git holds its index the file is left alone, and nothing is chosen."""
    subprocess.run(["git", "init", "-q", "--template=", os.fspath(tmp_path)], check=True)
    store, _ = Store.create(os.fspath(tmp_path))
    with store:
        path = write(store, *CONFLICT)
        lock = tmp_path / ".git" / "index.lock"
        lock.touch()
        with pytest.raises(BusyError) as caught:
            resolve(store, "ours")
        assert caught.value.applied == "no"
        assert b"=======" in path.read_bytes()
        lock.unlink()
        assert resolve(store, "ours")["logs"] == ["prds.jsonl"]
        record = seen(store)
        assert record is not None
        assert record["title"] == "y"


def test_a_file_that_changed(tmp_path: Path) -> None:
    """A file that somebody changed since it was read is not replaced, and nothing is left beside it."""
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    before = signature.look(os.fspath(path))
    path.write_bytes(b"one\ntwo\n")
    assert not replace_file(os.fspath(path), b"", before)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"one\ntwo\n", ["log"])
    assert replace_file(os.fspath(path), b"three\n", signature.look(os.fspath(path)))
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"three\n", ["log"])


def test_mode_and_torn_line(store: Store) -> None:
    """The file keeps its mode, bad lines stay, and a torn last line is completed by nobody and lost by nobody."""
    path = write(store, "no record", *CONFLICT)
    path.write_bytes(path.read_bytes() + b'{"torn')
    path.chmod(0o640)
    resolve(store, "ours")
    assert path.stat().st_mode & 0o777 == 0o640
    data = path.read_bytes()
    assert b"no record\n" in data
    assert b'{"torn\n' in data
