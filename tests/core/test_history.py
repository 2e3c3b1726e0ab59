"""History and restoring: every version that the log holds, and any of them once more."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskstore_core import signature
from taskstore_core.batch import Batch, Operation
from taskstore_core.cache import Cache
from taskstore_core.errors import ConflictError, InvalidError, NotFoundError
from taskstore_core.history import versions
from taskstore_core.jsonl import index_line
from taskstore_core.kinds import KINDS, Kind
from taskstore_core.lock import Lock
from taskstore_core.methods import dispatch
from taskstore_core.outbox import Outbox
from taskstore_core.request import Outcome
from taskstore_core.store import Store

PRD = KINDS["prd"]
LATER_NS = 10**9
LEAST: dict[str, dict[str, object]] = {
    "prd": {"title": "T"}, "task_spec": {"prd_id": "p", "phase_name": "N"}, "execution": {"ts_id": "t"},
    "dependency": {"from_exec_id": "a", "to_exec_id": "b", "dependency_type": "query"}, "workflow": {"name": "N"},
    "repo_state": {"last_synced_commit": "c0ffee"},
}


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the logs had been written a while ago."""
    monkeypatch.setattr(signature, "stamping_ns", lambda: time.time_ns() + LATER_NS)


def write(store: Store, *operations: Operation) -> list[str]:
    """Apply operations; the lines they wrote."""
    return [one.raw for one in store.apply(operations)]


def of(verb: str, key: str, kind: Kind = PRD, **fields: object) -> Operation:
    least = LEAST[kind.name] if verb == "create" else {}
    return Operation(verb, kind, {kind.key: key, **least, **fields})


def log(store: Store, kind: Kind = PRD) -> Path:
    return Path(store.paths.file(kind.log))


def put(store: Store, *lines: bytes) -> None:
    """Put other lines in the place of the log, as git does."""
    path = log(store)
    path.with_suffix(".new").write_bytes(b"".join(lines))
    path.with_suffix(".new").replace(path)


def append(store: Store, *lines: bytes) -> None:
    with log(store).open("ab") as file:
        file.write(b"".join(lines))


@pytest.mark.parametrize("name", list(KINDS))
def test_every_version(store: Store, other: Store, name: str) -> None:
    """History has each line of a record as it stands in the log, oldest first, deletions too, of any kind."""
    kind = KINDS[name]
    made = [*write(store, of("create", "/x", kind)), *write(store, of("update", "/x", kind, z=1)),
            *write(store, of("delete", "/x", kind)), *write(store, of("create", "/x", kind))]
    write(store, of("create", "/x2", kind))
    for opened in (store, other):
        assert opened.history(kind, "/x") == opened.history(name, "/x") == made
    answer: Any = dispatch(store, "record.history", {"kind": name, "id": "/x"})
    assert answer == {"items": made, "lost": []}


@pytest.mark.parametrize("key", ["none", "x", "", "xy\0", "\x01"])
def test_a_history_that_is_none(store: Store, key: str) -> None:
    """An id that never was has no history, and the beginning of one is not looked for."""
    write(store, of("create", "xy"))
    append(store, b"\n\nbad\n")
    for sync in (False, True):
        if sync:
            store.sync()
        with pytest.raises(NotFoundError, match="there never was one"):
            store.history("prd", key)
    with pytest.raises(InvalidError):
        store.history("prd", "\ud800")


def line(key: str, version: int, **fields: object) -> bytes:
    return json.dumps({"id": key, "title": "T", "updated_at": version, **fields}).encode() + b"\n"


@pytest.mark.parametrize("settled", [False, True], ids=["just written", "known to the cache"])
def test_lines_in_any_order_and_form(store: Store, monkeypatch: pytest.MonkeyPatch, *, settled: bool) -> None:
    """Versions are in the order of their stamps, equal ones in that of the log, whatever else stands around them."""
    append(store, line("x", 5, n=1), b"\xef\xbb\xbf" + line("x", 3, n=2), b"\n", b"no record\n", line("y", 4),
           b"<<<<<<< ours\n", line("x", 5, n=3).replace(b"\n", b"\r\n"), b"=======\n", line("x", 4, n=4),
           b">>>>>>> theirs\n", b'{"id":"\\u0078","title":"T","updated_at":6,"n":5}\n',
           b'  {"id":"x","deleted":true,"updated_at":7,"n":6}  \n',
           b'{"updated_at":2,"n":7,"id":"x"}\n', b'{"id":"x","updated_at":8,"n":8')
    if settled:
        later(monkeypatch)
        store.sync()
    found = store.history("prd", "x")
    assert [json.loads(one)["n"] for one in found] == [7, 2, 4, 1, 3, 5, 6]
    assert all(one == one.strip() and not one.startswith("\ufeff") for one in found)
    append(store, b',"z":1}')
    assert [json.loads(one)["n"] for one in store.history("prd", "x")] == [7, 2, 4, 1, 3, 5, 6, 8]


def test_ids_that_hold_one_another(store: Store) -> None:
    """The history of an id has no line of one that it begins, ends or is a part of."""
    keys = ["a", "aa", "ba", "ab", "aab", "\u00e9", "e\u0301", "\u2028", "a b", '"', "\\", "\U0001f600"]
    for round_ in range(3):
        write(store, *(of("update" if round_ else "create", key, z=f"{key} {round_}") for key in keys))
    for key in keys:
        assert [json.loads(one)["z"] for one in store.history("prd", key)] == [f"{key} {n}" for n in range(3)]


def test_lines_that_wait_in_the_outbox(store: Store) -> None:
    """A line that is durable and not yet in its log belongs to the history, once."""
    made = write(store, of("create", "x"))
    store.close()
    waiting = [line("x", 2**50, n=1), line("y", 2**50), line("x", 2**50 + 1, n=2)]
    with Lock(store.paths.local("lock")):
        outbox = Outbox(store.paths.local("outbox"))
        outbox.append([[(PRD.log, one.decode().strip())] for one in waiting])
        outbox.close()
    append(store, waiting[0])
    wanted = [*made, waiting[0].decode().strip(), waiting[2].decode().strip()]
    with Lock(store.paths.local("lock")):
        assert store.pending(PRD) == [one.decode().strip() for one in waiting]
        assert versions(Cache(), PRD, os.fspath(log(store)), "x", store.pending(PRD)) == wanted
    assert store.history("prd", "x") == wanted
    assert log(store).read_bytes().count(b'"n": 1') == 1


def test_a_log_that_changes_after_the_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git replaces a log between the look at it and the reading, it is the new one that is read."""
    later(monkeypatch)
    put(store, line("x", 1, n="old"), line("y", 1, n="old"))
    store.sync()
    put(store, line("y", 1, n="old"), line("x", 7, n="new"))
    cache = Cache(store.paths.file("store.db"))
    try:
        found = versions(cache, PRD, os.fspath(log(store)), "x")
    finally:
        cache.close()
    assert [json.loads(one)["n"] for one in found] == ["new"]


def test_a_log_that_is_gone(store: Store) -> None:
    """Without its log a record has no history; with the log it is there again."""
    made = write(store, of("create", "x"))
    content = log(store).read_bytes()
    log(store).unlink()
    with pytest.raises(NotFoundError):
        store.history("prd", "x")
    put(store, content)
    assert store.history("prd", "x") == made


VERSIONS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.integers(0, 3)), max_size=120)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VERSIONS, VERSIONS, st.sampled_from(["append", "replace", "rebuild"]), st.sampled_from([0, LATER_NS]))
def test_history_is_what_the_log_says(  # noqa: PLR0917 - what hypothesis gives
    empty: str, tmp_path_factory: pytest.TempPathFactory, first: list[tuple[str, int, int]],
    then: list[tuple[str, int, int]], how: str, later_ns: int,
) -> None:
    """However a log came to be as it is, the history of each id is its lines, by version and then by place."""
    directory = os.fspath(shutil.copytree(empty, tmp_path_factory.mktemp("history") / ".taskstore"))
    old, new = ([line(key, version, n=n) for key, version, n in rows] for rows in (first, then))
    with Store.open(directory=directory) as store, patch.object(
            signature, "stamping_ns", lambda: time.time_ns() - LATER_NS + 2 * later_ns):
        put(store, *old)
        store.sync()
        (append if how == "append" else put)(store, *new)
        store.sync(full=how == "rebuild")
        rows = [index_line(PRD, one) for one in log(store).read_bytes().split(b"\n")]
        for key in "abc":
            lines = [row[3] for row in sorted((row for row in rows if row and row[0] == key), key=lambda row: row[1])]
            assert store.ask(lambda cache, key=key: store._versions(cache, PRD, key)) == lines  # type: ignore[misc]


# Restoring


def restore(store: Store, key: str, kind: Kind = PRD, **parameters: object) -> str:
    return str(dispatch(store, "record.restore", {"kind": kind.name, "id": key, **parameters}))


STRANGE = ('"title":"T","x":1.50,"y":{"b":1,"a":[ 1, 2 ]},"big":123456789012345678901234567890,"e":1E+2,'
           '"esc":"\\u0041\\/","z":null')


@pytest.mark.parametrize("deleted", [True, False])
def test_restoring_is_byte_for_byte(store: Store, *, deleted: bool) -> None:
    """A version comes back as it was written, unknown fields and numbers of any form too, under a stamp of its own."""
    append(store, f'{{"id":"x",{STRANGE},"updated_at":5}}\n'.encode())
    changed = json.loads(write(store, of("update", "x", title="U", big=1))[0])["updated_at"]
    if deleted:
        write(store, of("delete", "x"))
    restored = restore(store, "x", version=5)
    stamp = json.loads(restored)["updated_at"]
    assert stamp > changed
    known, unknown = STRANGE.split(",", 1)
    base = json.loads(store.history("prd", "x")[-2])["updated_at"]
    assert restored == f'{{"id":"x",{known},"updated_at":{stamp},{unknown},"base_at":{base}}}'
    assert store.get("prd", "x") == restored == store.history("prd", "x")[-1]


@pytest.mark.parametrize("name", list(KINDS))
def test_restoring_what_was_deleted(store: Store, other: Store, name: str) -> None:
    """Without a version, a deleted record of any kind comes back as it last was."""
    kind = KINDS[name]
    write(store, of("create", "/x", kind, z="first"))
    (last,) = write(store, of("update", "/x", kind, z="last"))
    (gone,) = write(store, of("delete", "/x", kind))
    again = json.loads(restore(other, "/x", kind))
    assert again["updated_at"] > json.loads(gone)["updated_at"]
    assert again == {**json.loads(last), "updated_at": again["updated_at"], "base_at": json.loads(gone)["updated_at"]}
    assert json.loads(store.get(kind, "/x")) == again
    with pytest.raises(InvalidError) as caught:
        restore(store, "/x", kind)
    assert caught.value.field == "version"
    assert caught.value.hint


def test_restoring_an_execution_keeps_when_it_was_done(store: Store) -> None:
    """A restored execution has the status and the times it had, not those of the restoring."""
    kind = KINDS["execution"]
    write(store, of("create", "e", kind))
    (done,) = write(store, of("update", "e", kind, status="failed", completed_at=7))
    write(store, of("update", "e", kind, status="running"))
    again = json.loads(restore(store, "e", kind, version=json.loads(done)["updated_at"]))
    assert (again["status"], again["completed_at"]) == ("failed", 7)


def test_what_cannot_be_restored(store: Store) -> None:
    """What never was, a version that is not in the log, a deletion and what is no version are refused by what it is."""
    (made,) = write(store, of("create", "x"))
    (gone,) = write(store, of("delete", "x"))
    append(store, b'{"id":"only deleted","deleted":true,"updated_at":5}\n')
    before = log(store).read_bytes()
    with pytest.raises(NotFoundError, match="there is no PRD none"):
        restore(store, "none")
    with pytest.raises(NotFoundError, match="there is no PRD xy"):
        restore(store, "xy", version=json.loads(made)["updated_at"])
    for version in (0, 1, json.loads(gone)["updated_at"], 2**53):
        with pytest.raises(NotFoundError, match=f"has no version {version} in this log") as caught:
            restore(store, "x", version=version)
        assert caught.value.hint
    with pytest.raises(NotFoundError, match="has no version that is no deletion"):
        restore(store, "only deleted")
    wrongs: list[object] = ["5", 1.5, True, [5], {}, 2**53 + 1]
    for wrong in wrongs:
        with pytest.raises(InvalidError) as refused:
            dispatch(store, "store.apply", {"ops": [{"op": "restore", "kind": "prd", "id": "x", "version": wrong}]})
        assert refused.value.field == "version"
    assert log(store).read_bytes() == before


def test_restoring_within_a_group(store: Store) -> None:
    """What a request before it has written can be restored in the same group, and in the same apply."""
    write(store, of("create", "x", z="old"))
    for operations in (
        [of("update", "x", z="new"), of("delete", "x"), of("restore", "x")],
        [of("create", "y", z="new"), of("delete", "y"), of("restore", "y")],
    ):
        key = str(operations[0].fields["id"])
        assert json.loads(write(store, *operations)[-1])["z"] == "new"
        assert len(store.history("prd", key)) == (4 if key == "x" else 3)
        outcomes = store.commit([Batch([of("update", key, z="newer")]), Batch([of("delete", key)]),
                                 Batch([of("restore", key)], single=True)])
        last = outcomes[-1]
        assert isinstance(last, Outcome)
        assert json.loads(str(last.result))["z"] == "newer"
        assert json.loads(store.get("prd", key))["z"] == "newer"


def test_restoring_what_git_took_away(store: Store) -> None:
    """A deleted record whose earlier lines are gone cannot be restored, and says where they may be."""
    write(store, of("create", "x"))
    write(store, of("delete", "x"))
    put(store, log(store).read_bytes().splitlines(keepends=True)[-1])
    with pytest.raises(NotFoundError, match="in this log") as caught:
        restore(store, "x")
    assert "branch" in caught.value.hint


def test_a_restored_version_is_the_newest(store: Store) -> None:
    """Who expected the version before a restore hears of a conflict."""
    (made,) = write(store, of("create", "x"))
    (changed,) = write(store, of("update", "x", title="U"))
    restore(store, "x", version=json.loads(made)["updated_at"])
    with pytest.raises(ConflictError):
        store.apply([Operation("update", PRD, {"id": "x", "z": 1}, json.loads(changed)["updated_at"])])
