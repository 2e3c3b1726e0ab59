"""What changed from one version of a record to the next, in words for a table."""

from taskstore_core.jsonl import BASE, version_of
from taskstore_core.kinds import Kind

from .decode import decoder, fields
from .show import LONG, shown_fields, value_of
from .text import count_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SHORT = 40
Fields = dict[str, object]


class Version:
    """A version: its stamp, whether it is a deletion, and its fields."""

    __slots__ = ("base", "deleted", "fields", "stamp")

    def __init__(self, kind: Kind, record: Fields) -> None:
        self.stamp = version_of(kind, record)
        base = record.get(BASE)
        self.base = base[0] if isinstance(base, list) and base else base  # the stamp of the version that it replaced
        self.deleted = record.get("deleted") is True
        self.fields = shown_fields(kind, record)


def read(kind: Kind, lines: "Sequence[str]") -> list[Version]:
    """The versions that lines of a log hold."""
    connection = decoder()
    return [Version(kind, fields(connection, line)) for line in lines]


def seen_by(versions: "Sequence[Version]", place: int) -> Version | None:
    """The version that the one at `place` was made from: the one that it names, or the one before it."""
    before = versions[:place]
    named = (version for version in reversed(before) if version.stamp == versions[place].base)
    return next(named, before[-1] if before else None)


def describe(kind: Kind, before: Version | None, after: Version) -> str:
    """What a version did, by the one that it was made from."""
    if after.deleted:
        return "deleted"
    if before is None or before.deleted:
        return "created" if before is None else "created again"
    changed = differences(kind, before.fields, after.fields)
    return ", ".join(f"{name} {change}" for name, change in changed) or "written again, nothing changed"


def differences(kind: Kind, before: Fields, after: Fields) -> list[tuple[str, str]]:
    """(field, what became of it) of every field that differs, but for the stamp that always does."""
    names = [name for name in dict.fromkeys((*kind.fields, *before, *after)) if name != "updated_at"]
    return [(name, _change(kind, name, before, after)) for name in names if before.get(name) != after.get(name)]


def _change(kind: Kind, name: str, before: Fields, after: Fields) -> str:
    old, new = _short(kind, name, before.get(name)), _short(kind, name, after.get(name))
    if old == new:
        return "changed"
    return f"{old} → {new}"


def _short(kind: Kind, name: str, value: object) -> str:
    text = "-" if value in (None, "") else value_of(kind, name, value)
    if name in LONG and text != "-":
        return count_of(len(str(value)), "character")
    return text if len(text) <= _SHORT else text[:_SHORT - 1] + "…"
