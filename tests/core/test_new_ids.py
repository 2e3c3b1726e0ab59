"""The ids that new records are given: drawn several at a time, and nobody else's."""

from collections.abc import Iterator
from itertools import count
from json import loads
from typing import Any

import pytest

from taskstore_core import batch
from taskstore_core.kinds import Kind
from taskstore_core.methods import dispatch, look_up
from taskstore_core.request import Outcome
from taskstore_core.store import Store


@pytest.fixture
def resident(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose cache follows later, and whose ids are numbers, counted up with each that is drawn."""
    numbers = count()
    monkeypatch.setattr(batch, "_random_ids", lambda kind, many: [_id(kind, next(numbers)) for _ in range(many)])
    with Store(store.paths, resident=True) as opened:
        yield opened


def _id(kind: Kind, number: int) -> str:
    return f"{kind.prefix}-{number:08}"


def create(store: Store, **fields: Any) -> str:
    """Create a PRD; its id."""
    method, given = look_up("record.create", {"kind": "prd", "record": {"title": "T", **fields}})
    assert method.request is not None
    (outcome,) = store.commit([method.request(**given)])
    assert isinstance(outcome, Outcome)
    return str(loads(str(outcome.result))["id"])


@pytest.mark.parametrize("who", ["ourselves", "another process", "another process in a store that is level"])
def test_drawn_and_taken(resident: Store, store: Store, who: str) -> None:
    """An id that was drawn and then taken by somebody is given to nobody else."""
    first = [create(resident) for _ in range(5)]
    assert resident.lag > 0
    drawn = {f"prd-{number:08}" for number in range(17)} - set(first)
    if who.endswith("level"):
        resident.catch_up()
    for key in sorted(drawn):
        if who == "ourselves":
            create(resident, id=key)
        else:
            dispatch(store, "record.create", {"kind": "prd", "record": {"id": key, "title": "taken"}})
    later = [create(resident) for _ in range(20)]
    assert len({*first, *drawn, *later}) == len(first) + len(drawn) + len(later)


def test_found_in_the_cache(resident: Store, store: Store) -> None:
    """An id that some record has, be it deleted, is passed over."""
    for number in (0, 3):
        key = f"prd-{number:08}"
        dispatch(store, "record.create", {"kind": "prd", "record": {"id": key, "title": "there"}})
    dispatch(store, "record.delete", {"kind": "prd", "id": "prd-00000000"})
    made = [create(resident) for _ in range(20)]
    assert len(set(made)) == 20
    assert not {"prd-00000000", "prd-00000003"} & set(made)
