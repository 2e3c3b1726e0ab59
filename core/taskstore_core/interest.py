"""What somebody wants to hear of: kinds, and a filter as in a list."""

from . import query
from .cache import Cache
from .feed import Change
from .kinds import KINDS, find_kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Interest:
    """Which changes fit: of these kinds, and gone or fitting `where` now."""

    def __init__(self, kinds: "Sequence[str] | None" = None, where: "Mapping[str, object] | None" = None) -> None:
        """Raises InvalidError for a kind that does not exist, or a `where` that makes no sense for one of them."""
        self.kinds = None if kinds is None else [find_kind(name).name for name in kinds]
        self.where = where
        for name in (KINDS if self.kinds is None else self.kinds) if where else ():
            query.build(KINDS[name], where)

    def fitting(self, cache: Cache, changes: "Iterable[Change]") -> list[Change]:
        """Those of the changes that fit, by what the cache says of their records."""
        wanted = [change for change in changes if self.kinds is None or change.kind.name in self.kinds]
        if not self.where:
            return wanted
        live: dict[str, list[str]] = {}
        for change in wanted:
            if change.raw is not None:
                live.setdefault(change.kind.name, []).append(change.key)
        fits = {(name, key) for name, keys in live.items() for key in self._those_that_fit(cache, name, keys)}
        return [change for change in wanted if change.raw is None or (change.kind.name, change.key) in fits]

    def _those_that_fit(self, cache: Cache, name: str, keys: list[str]) -> list[str]:
        kind = KINDS[name]
        where = dict(self.where or {})
        given = where.get(kind.key)
        tests = given if isinstance(given, list) else [] if given is None else [
            given if isinstance(given, dict) else {"eq": given}]
        wanted = query.build(kind, {**where, kind.key: [{"in": list(keys)}, *tests]})
        return [str(row[0]) for row in cache.db.execute(wanted.sql, wanted.parameters)]
