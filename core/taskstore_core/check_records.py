"""What `check` looks for in what the logs say: circles, what leads nowhere, stamps ahead of time, odd values."""

from . import clock
from .cache import Cache
from .errors import InvalidError
from .kinds import KINDS
from .problems import Problem, error, warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_AHEAD_MS = 60_000  # clocks of machines that talk to a time server differ by less
_PARENTS = (("task_spec", "prd_id", "prd"), ("execution", "ts_id", "task_spec"),
            ("dependency", "from_exec_id", "execution"), ("dependency", "to_exec_id", "execution"))


def look(cache: Cache) -> "Iterator[Problem]":
    """The problems of records, in a cache that is level with the logs."""
    yield from _circles(cache)
    yield from _needs(cache)
    yield from _orphans(cache)
    yield from _ahead(cache)
    yield from _values(cache)


def circles(needs: "Mapping[str, Sequence[str]]") -> "Iterator[list[str]]":
    """The groups of task specs that need one another, each in the order of a way round.

    Depth-first search with a path; each circle is given once, by the edge that closes it.
    """
    done: set[str] = set()
    for start in needs:
        path: dict[str, int] = {}
        stack = [(start, iter(needs.get(start, ())))] if start not in done else []
        if stack:
            path[start] = 0
        while stack:
            node, further = stack[-1]
            need = next(further, None)
            if need is None:
                stack.pop()
                del path[node]
                done.add(node)
            elif need in path:
                yield list(path)[path[need]:]
            elif need not in done:
                path[need] = len(path)
                stack.append((need, iter(needs.get(need, ()))))


def _circles(cache: Cache) -> "Iterator[Problem]":
    needs: dict[str, list[str]] = {}
    for spec, need in cache.db.execute("SELECT spec, need FROM needs ORDER BY spec, need"):
        needs.setdefault(spec, []).append(need)
    for way in circles(needs):
        yield error("circle", f"{' needs '.join((*way, way[0]))}: none of them can ever be ready",
                    f"take one need away: taskstore update task_spec {way[-1]} --set depends_on=…",
                    file=KINDS["task_spec"].log, key=way[0])


def _needs(cache: Cache) -> "Iterator[Problem]":
    for spec, need, gone in cache.db.execute(
            "SELECT n.spec, n.need, t.id IS NOT NULL FROM needs AS n"
            " JOIN task_specs_rows AS s ON s.id = n.spec AND s.status IN ('pending', 'running')"
            " LEFT JOIN task_specs_rows AS t ON t.id = n.need WHERE t.id IS NULL OR t.deleted ORDER BY n.spec, n.need"):
        why = "was deleted" if gone else "is not in the store"
        yield warning("missing_need", f"{spec} needs {need}, which {why}: it will never be ready",
                      f"taskstore update task_spec {spec} --set depends_on=…", file=KINDS["task_spec"].log, key=spec)


def _orphans(cache: Cache) -> "Iterator[Problem]":
    for name, field, parent in _PARENTS:
        kind, above = KINDS[name], KINDS[parent]
        for key, missing in cache.db.execute(
                f"SELECT c.id, c.{field} FROM {kind.plural}_rows AS c LEFT JOIN {above.plural}_rows AS p"  # noqa: S608 - names from our own table
                f" ON p.id = c.{field} AND NOT p.deleted WHERE NOT c.deleted AND p.id IS NULL ORDER BY c.id"):
            yield Problem("orphan", "note", f"{key} names the {above.title} {missing}, which is not in the store",
                          "nothing, if it lives on another branch", file=kind.log, key=key)


def _ahead(cache: Cache) -> "Iterator[Problem]":
    limit = clock.now_ms() + _AHEAD_MS
    for kind in KINDS.values():
        for key, version in cache.db.execute(
                f"SELECT id, version FROM {kind.plural}_rows WHERE version > ? ORDER BY id", (limit,)):  # noqa: S608 - names from our own table
            seconds = (version - clock.now_ms()) // 1000
            yield warning("future_stamp", f"the version of {key} lies {seconds} s in the future: edits made elsewhere"
                          " before then lose against it", "set the clock of the machine that wrote it; edits made here"
                          " still follow it", file=kind.log, key=key)


def _values(cache: Cache) -> "Iterator[Problem]":
    from .records import TYPES, from_line

    for kind in KINDS.values():
        for key, raw in cache.db.execute(f"SELECT id, raw FROM {kind.plural}_rows WHERE NOT deleted ORDER BY id"):  # noqa: S608 - names from our own table
            try:
                from_line(TYPES[kind.name], raw)
            except InvalidError as problem:
                yield warning("bad_value", problem.message, f"taskstore update {kind.name} {key} --set …",
                              file=kind.log, key=key)
