"""Circles of `depends_on`: none is written, and the refusal names the way round."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskstore_core.batch import Batch, Operation
from taskstore_core.check_records import circles
from taskstore_core.errors import InvalidError
from taskstore_core.kinds import KINDS
from taskstore_core.request import Outcome
from taskstore_core.store import Store

SPEC = KINDS["task_spec"]


def spec(key: str, *needs: str) -> Operation:
    return Operation("create", SPEC, {"id": key, "prd_id": "p", "phase_name": "N", "depends_on": list(needs)})


def needing(key: str, *needs: str) -> Operation:
    return Operation("update", SPEC, {"id": key, "depends_on": list(needs)})


def other(verb: str, key: str, **fields: object) -> Operation:
    return Operation(verb, SPEC, {"id": key, **fields})


def log(store: Store) -> bytes:
    with open(store.paths.file(SPEC.log), "rb") as file:
        return file.read()


CIRCLES: dict[str, tuple[list[Operation], Operation, str]] = {
    "create, itself": ([], spec("a", "a"), "a needs a"),
    "create, of what was to come": ([spec("a", "b")], spec("b", "a"), "b needs a needs b"),
    "create, long": ([spec("a", "b"), spec("b", "c"), spec("c", "d")], spec("d", "x", "a"),
                     "d needs a needs b needs c needs d"),
    "create, of a deleted one": ([spec("a", "b"), spec("b"), other("delete", "b")], spec("b", "a"),
                                 "b needs a needs b"),
    "update, itself": ([spec("a")], needing("a", "a"), "a needs a"),
    "update": ([spec("a"), spec("b", "a"), spec("c", "b")], needing("a", "c"), "a needs c needs b needs a"),
    "update, among others": ([spec("a"), spec("b", "x", "a", "y"), spec("c")], needing("a", "c", "b"),
                             "a needs b needs a"),
    "update, of a completed one": ([spec("a"), spec("b", "a"), other("update", "b", status="complete")],
                                   needing("a", "b"), "a needs b needs a"),
    "restore": ([spec("a", "b"), needing("a"), spec("b", "a")], other("restore", "a", version=0), "a needs b needs a"),
    "restore of a deleted one": ([spec("a", "b"), other("delete", "a"), spec("b", "a")], other("restore", "a"),
                                 "a needs b needs a"),
}


@pytest.mark.parametrize("together", ["apart", "group", "apply"])
@pytest.mark.parametrize("name", CIRCLES)
def test_a_circle_is_refused(store: Store, name: str, together: str) -> None:
    """What would make a task spec wait for itself is refused, naming the way round, and nothing is written."""
    before, last, way = CIRCLES[name]
    if last.fields.get("version") == 0:
        store.apply(before[:1])
        version = json.loads(store.get(SPEC, "a"))["updated_at"]
        before, last = before[1:], other("restore", "a", version=version)
    if together == "apart":
        for operation in before:
            store.apply([operation])
    if together == "apply":
        written = log(store)
        with pytest.raises(InvalidError) as caught:
            store.apply([*before, last])
        error = caught.value
        assert error.operation == len(before)
        assert log(store) == written
    else:
        group = [Batch([operation]) for operation in before] if together == "group" else []
        *made, refused = store.commit([*group, Batch([last])])
        assert all(isinstance(one, Outcome) for one in made)
        assert isinstance(refused, InvalidError)
        error = refused
    assert error.field == "depends_on"
    assert f"depends_on: {way}: a circle" in error.message


def test_what_is_no_circle(store: Store) -> None:
    """Diamonds, doubled needs, needs of what is not there and of what was deleted are no circles."""
    store.apply([spec("a", "b", "c"), spec("b", "d", "d"), spec("c", "d"), spec("d", "none"), spec("none", "e")])
    store.apply([spec("x", "y"), spec("y"), other("delete", "x"), needing("y", "x")])
    store.apply([needing("a"), needing("none", "a")])
    store.apply([other("update", "a", content="new"), other("update", "b", status="running")])


def test_a_request_that_failed_leaves_no_needs(store: Store) -> None:
    """A request that was refused in a group has made nobody need anybody."""
    store.apply([spec("a"), spec("b")])
    refused, made = store.commit([Batch([needing("a", "b"), other("update", "none")]), Batch([needing("b", "a")])])
    assert not isinstance(refused, Outcome)
    assert isinstance(made, Outcome)


def test_circles_that_came_with_a_log(store: Store) -> None:
    """Specs of a circle that a merge made can be changed and unlinked; only what closes another one is refused."""
    with open(store.paths.file(SPEC.log), "a", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"id": key, "prd_id": "p", "phase_name": "N", "updated_at": 1, "depends_on": [need]}) + "\n"
            for key, need in ("ab", "bc", "ca", "da"))
    store.apply([other("update", "a", content="new"), needing("d", "a", "b"), spec("e", "d")])
    with pytest.raises(InvalidError, match="d needs e needs d"):
        store.apply([needing("d", "e")])
    with pytest.raises(InvalidError, match="a circle"):
        store.apply([needing("a", "b", "x")])
    store.apply([needing("a")])
    store.apply([needing("c", "x")])


def test_needs_of_a_log_that_is_another_altogether(store: Store) -> None:
    """When git puts quite another log in the place of one, nobody needs what only the old one said."""
    store.apply([spec(f"s{n}", f"s{n + 1}") for n in range(200)])
    path = Path(store.paths.file(SPEC.log))
    path.with_suffix(".new").write_bytes(b"".join(
        b'{"id":"s%d","prd_id":"p","phase_name":"N","updated_at":1}\n' % n for n in range(200)))
    path.with_suffix(".new").replace(path)
    assert store.sync()["task_spec"].mode == "rebuilt"
    assert store.ask(lambda cache: list(cache.db.execute("SELECT * FROM needs"))) == []
    store.apply([needing("s1", "s0")])


def test_an_import_takes_circles_as_they_are(store: Store) -> None:
    """An import brings in what stands elsewhere, circles too: `check` tells of them."""
    store.apply([Operation("import", SPEC, {"id": key, "prd_id": "p", "phase_name": "N", "updated_at": 5,
                                            "depends_on": [need]}) for key, need in ("ab", "ba")])
    assert store.ask(lambda cache: cache.needs("a") + cache.needs("b")) == ["b", "a"]


# Against plain reachability

KEYS = "abcdef"
STEPS = st.lists(st.tuples(
    st.sampled_from(["set", "set", "set", "delete", "restore", "rebuild", "complete"]), st.sampled_from(KEYS),
    st.lists(st.sampled_from(KEYS), max_size=3), st.booleans()), max_size=25)


def _reaches(model: dict[str, list[str]], begin: list[str], end: str) -> bool:
    """Whether a way along needs leads from any of `begin` to `end`."""
    seen: set[str] = set()
    waiting = list(begin)
    while waiting:
        key = waiting.pop()
        if key == end:
            return True
        if key not in seen:
            seen.add(key)
            waiting += model.get(key, [])
    return False


class Model:
    """What needs what, in plain Python: `last` is what a deleted one needed."""

    def __init__(self) -> None:
        self.needs: dict[str, list[str]] = {}
        self.last: dict[str, list[str]] = {}

    def step(self, verb: str, key: str, needs: list[str]) -> tuple[Operation, bool] | None:
        """The operation of a step and whether it closes no circle; None where there is nothing to do."""
        live = key in self.needs
        if verb == "set":
            return (needing if live else spec)(key, *needs), self._set(key, needs)
        if verb == "restore" and key in self.last and not live:
            return other("restore", key), self._set(key, self.last[key])
        if verb == "delete" and live:
            del self.needs[key]
            return other("delete", key), True
        return (other("update", key, status="complete"), True) if verb == "complete" and live else None

    def _set(self, key: str, needs: list[str]) -> bool:
        fine = not _reaches(self.needs, needs, key)
        if fine:
            self.needs[key] = self.last[key] = needs
        return fine


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_refused_is_just_what_closes_a_circle(empty: str, tmp_path_factory: pytest.TempPathFactory,
                                              steps: list[tuple[str, str, list[str], bool]]) -> None:
    """Over any creates, updates, deletes and restores, alone and in groups, what closes a circle is refused only."""
    directory = os.fspath(shutil.copytree(empty, tmp_path_factory.mktemp("cycles") / ".taskstore"))
    model = Model()
    waiting: list[tuple[Operation, bool]] = []
    with Store.open(directory=directory) as store:
        for verb, key, needs, alone in [*steps, ("rebuild", "a", [], True)]:
            if (step := model.step(verb, key, needs)) is not None:
                waiting.append(step)
            if alone or verb == "rebuild":
                outcomes = store.commit([Batch([operation]) for operation, _ in waiting])
                for (_, fine), outcome in zip(waiting, outcomes, strict=True):
                    assert isinstance(outcome, Outcome) == fine, outcome
                    _assert_way(outcome)
                waiting = []
            if verb == "rebuild":
                store.sync(full=True)
                found = store.ask(lambda cache: {key: sorted(cache.needs(key)) for key in KEYS})
                assert found == {key: sorted(set(model.needs.get(key, []))) for key in KEYS}
        assert list(circles(model.needs)) == []


def _assert_way(outcome: object) -> None:
    """The way that a refusal names begins where it ends, and passes no place twice."""
    if not isinstance(outcome, InvalidError):
        return
    found = re.fullmatch(r"depends_on: (.*): a circle, in which none can come first", outcome.message)
    assert found
    way = found[1].split(" needs ")
    assert way[0] == way[-1]
    assert len(way) - 1 == len(set(way))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), st.lists(st.sampled_from(KEYS), max_size=4), max_size=6))
def test_circles_are_found_if_there_are_any(needs: dict[str, list[str]]) -> None:
    """`check` finds a circle just where there is one, each a real one, and without the edges that close them none."""
    found = list(circles(needs))
    assert bool(found) == any(_reaches(needs, needs.get(key, []), key) for key in needs)
    left: dict[str, list[str]] = {key: list(of) for key, of in needs.items()}
    for way in found:
        assert len(way) == len(set(way))
        for one, following in zip(way, [*way[1:], way[0]], strict=True):
            assert following in needs[one]
        left[way[-1]] = [need for need in left[way[-1]] if need != way[0]]
    assert list(circles(left)) == []


def test_a_long_chain(store: Store) -> None:
    """A chain of thousands is no matter of depth: the circle through all of it is found, by a write and by `check`."""
    count = 3000
    store.apply([spec(f"s{n}", f"s{n + 1}") for n in range(count)])
    with pytest.raises(InvalidError, match=f"s{count} needs s0 needs s1 needs"):
        store.apply([spec(f"s{count}", "s0")])
    ring: Any = {str(n): [str((n + 1) % count)] for n in range(count)}
    assert [len(way) for way in circles(ring)] == [count]
