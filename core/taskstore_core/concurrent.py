"""Which versions of a record lost to another whose writer had not seen them; pure.

A line says in `base_at` which version its writer saw, and so replaced; where others had lost to that one, it names
them too, as a merge commit names its parents. Stamps only grow along such a chain. So a version is proven not to have
been seen by the newest if the chain behind that passes its time without coming to it. Where the chain ends earlier (at
a line of another tool, which has no `base_at`, or at one that was compacted away), nothing is claimed of what is older.
Nor of what is older than such a line that was not seen: it may be based on that.

The first version of a record is based on nothing, and needs no key to say so: it has the stamp of its creation.
"""

from itertools import pairwise

from .kinds import Kind
from .outcome import content

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .jsonl import Row

_BASE = -1  # places in a row
_STARTED = -2


def noted(kind: Kind, rows: "Sequence[Row]") -> str | None:
    """JSON of the stamps of the versions that lost to the newest of `rows` unseen, newest first; None for none.

    `rows` are all lines of one id in the order of their log. A version on which another such is based is not named.
    """
    heads, _ = _lost(kind, rows, first_only=False)
    return f"[{','.join(map(str, sorted({row[1] for row in heads}, reverse=True)))}]" if heads else None


def lost(kind: Kind, rows: "Sequence[Row]") -> list[int]:
    """The places in `rows`, all lines of one id by version, of those that lost to another, be it settled since or not.

    What counts is the chain from the newest back over what each version replaced.
    """
    heads, unseen = _lost(kind, rows, first_only=True)
    wanted = {row[1] for row in heads}
    found = {row[3] for row in heads}
    for row in sorted(unseen, key=lambda row: row[1], reverse=True):
        if row[3] in found or (row[1] in wanted and row not in heads):
            found.add(row[3])
            wanted.update(bases(row))
    return [place for place, row in enumerate(rows) if row[3] in found]


def bases(row: "Row") -> list[int]:
    """The versions that the writer of a line saw, the one it replaced first."""
    base = row[_BASE]
    if isinstance(base, str):
        import json

        return list(json.loads(base))
    return [base] if base is not None else []


def _lost(kind: Kind, rows: "Sequence[Row]", *, first_only: bool) -> "tuple[list[Row], list[Row]]":
    """The last of what lost, each on its branch, and all of what was not seen."""
    ordered = sorted({row[3]: row for row in rows}.values(), key=lambda row: row[1])
    if all(row[_BASE] == before[1] for before, row in pairwise(ordered)):
        return [], []
    by_version = {row[1]: row for row in ordered}
    seen, floor = _ancestry(kind, ordered, by_version, first_only=first_only)
    decided = seen if first_only else {ordered[-1][1]}
    if len(by_version) < len(ordered):
        _settle_twins(ordered, by_version, seen)
    unseen = [row for row in ordered if row[1] > floor and (row[1] not in seen or (
        row[1] in decided and by_version[row[1]] is not row and by_version[row[1]][_BASE] is not None))]
    if not unseen:
        return [], []
    based_on = {base for row in unseen for base in bases(row)}
    silent = max((row[1] for row in unseen if row[_BASE] is None and not _is_first(kind, row, ordered)), default=floor)
    said = [_said(by_version[version]) for version in seen if version in by_version]
    return [row for row in unseen if row[1] >= silent and row[1] not in based_on and _said(row) not in said], unseen


def _settle_twins(ordered: "Sequence[Row]", by_version: "dict[int, Row]", seen: "set[int]") -> None:
    """Of versions with one stamp, of which somebody has chosen one since, let that be the one that counted."""
    stamps = [row[1] for row in ordered]
    told = [_said(by_version[version]) for version in seen if stamps.count(version) == 1]
    for row in ordered:
        if row[1] in seen and row[1] != stamps[-1] and stamps.count(row[1]) > 1 and _said(row) in told:
            by_version[row[1]] = row


def _ancestry(kind: Kind, ordered: "Sequence[Row]", by_version: "dict[int, Row]", *,
              first_only: bool) -> "tuple[set[int], float]":
    """The stamps of the newest version and of those it is known to follow, and down to where those are all."""
    seen: set[int] = set()
    floor = -float("inf")
    waiting = [ordered[-1][1]]
    while waiting:
        version = waiting.pop()
        if version in seen:
            continue
        seen.add(version)
        row = by_version.get(version)
        before = bases(row) if row is not None else []
        if before:
            waiting += before[:1] if first_only else before
        elif row is None or not _is_first(kind, row, ordered):
            floor = max(floor, version)
    return seen, floor


def _is_first(kind: Kind, row: "Row", ordered: "Iterable[Row]") -> bool:
    """Whether a version was the first of its record, and what is older is of another creation, unknown to it."""
    if kind.started == "updated_at" or row[2] or row[1] != row[_STARTED]:
        return False
    return all(not older[2] and older[_STARTED] not in {None, row[_STARTED]} for older in ordered if older[1] < row[1])


def _said(row: "Row") -> dict[str, object]:
    said = content(row[3])
    said.pop("updated_at", None)
    return said
