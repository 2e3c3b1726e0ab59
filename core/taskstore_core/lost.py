"""Lines that were acknowledged and stand in no log now: git, or a person, has taken them away.

They are found by holding everything that the outbox still has (30 days, 64 MiB) to the logs. A line is there if its
log has any line for the same version of the same record: one that was edited where it stood is not lost.
"""

from .appended import Appended, appended_since
from .jsonl import index_or_error, indexer
from .kinds import LOGS, Kind
from .outbox import Outbox
from .paths import Paths
from .plain import Json
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from .cache import Cache
    from .change import Known
    from .jsonl import Row
    from .store import Store


class Lost:
    """A line that no log has. `at` is when it was written, in Unix ms, `now` the state of its record.

    `held` tells whether git still has the line, `recovered` whether it was brought back.
    """

    __slots__ = ("at", "held", "kind", "line", "now", "recovered", "row")

    def __init__(self, kind: Kind, row: "Row", at: int, line: str) -> None:
        self.kind = kind
        self.row = row
        self.at = at
        self.line = line
        self.now: Known = None
        self.held = self.recovered = False

    @property
    def key(self) -> str:
        """The id of its record."""
        return self.row[0]

    @property
    def superseded(self) -> bool:
        """Whether the record has a newer version now."""
        return self.now is not None and self.now[0] > self.row[1]

    def plain(self) -> dict[str, object]:
        """As plain data."""
        return {"kind": self.kind.name, "id": self.key, "updated_at": self.row[1], "deleted": self.row[2],
                "written_at": self.at, "superseded": self.superseded, "held": self.held, "recovered": self.recovered,
                "record": Json(self.line)}


def absent(store: "Store") -> list[Lost]:
    """Every acknowledged line that stands in no log, oldest first, whether or not git holds it. Takes no lock."""
    by_log: dict[str, dict[str, Appended]] = {}
    for one in _appended(store.paths):
        by_log.setdefault(one.log, {}).setdefault(one.line, one)
    found = [lost for log, lines in by_log.items() for lost in _absent(store.paths, log, lines)]

    def look_up(cache: "Cache") -> None:
        for lost in found:
            lost.now = cache.get(lost.kind, lost.key)

    store.ask(look_up)
    return sorted(found, key=lambda lost: lost.at)


def among(paths: Paths, found: "Collection[Lost]",
          ask: "Callable[[Paths, str, Mapping[str, int]], set[str]]") -> set[Lost]:
    """Those whose lines git has, by a function of `git_objects`."""
    there: set[Lost] = set()
    for kind in dict.fromkeys(lost.kind for lost in found):
        those = [lost for lost in found if lost.kind is kind]
        lines = ask(paths, kind.log, {lost.line: lost.at for lost in those})
        there.update(lost for lost in those if lost.line in lines)
    return there


def standing(paths: Paths, found: "Collection[Lost]") -> set[Lost]:
    """Those whose lines stand in their logs again. Each log is read once."""
    def ask(_: Paths, log: str, lines: "Mapping[str, int]") -> set[str]:
        there = _lines(paths, log)
        return {line for line in lines if line.encode() in there}

    return among(paths, found, ask)


def _lines(paths: Paths, log: str) -> set[bytes]:
    source = Source(paths.file(log))
    try:
        return set(source.read(0, source.size).split(b"\n"))
    finally:
        source.close()


def _appended(paths: Paths) -> list[Appended]:
    """What was put into the logs, but for what is on its way there again."""
    outbox = Outbox(paths.local("outbox"), writable=False)
    try:
        waiting = {entry for frame in outbox.pending for entry in frame.entries}
        return [one for one in appended_since(outbox, 0, settled=True) if (one.log, one.line) not in waiting]
    finally:
        outbox.close()


def _absent(paths: Paths, log: str, lines: dict[str, Appended]) -> list[Lost]:
    kind = LOGS[log]
    there = _lines(paths, log)
    missing = [one for line, one in lines.items() if line.encode() not in there]
    if not missing:
        return []
    versions = {row[:2] for row in indexer(kind, sum(map(len, there)))(list(there)) if isinstance(row, tuple)}
    rows = ((one, index_or_error(kind, one.line.encode())) for one in missing)
    return [Lost(kind, row, one.at, one.line) for one, row in rows
            if isinstance(row, tuple) and row[:2] not in versions]
