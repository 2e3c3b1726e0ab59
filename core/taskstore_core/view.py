"""What a request sees while it is decided: the cache, under what the requests before it in its group will write.

Nothing reaches a file through it. A request that fails is forgotten with its view; one that succeeds hands on what
it wrote to the view below, so that the next request of the group builds on it.
"""

from . import leases
from .cache import Cache, OpLine
from .errors import InvalidError
from .jsonl import parse_object
from .kinds import KINDS, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .change import Known
    from .jsonl import Row
    from .leases import Lease, Leases, Token

    History = Callable[[Kind, str], list[str]]

SPEC = KINDS["task_spec"]


class Written:
    """What became of one operation: the id, its version now, and the line; `changed` is False for a repeated import."""

    __slots__ = ("changed", "deleted", "key", "kind", "raw", "version")

    def __init__(self, kind: Kind, row: "Row", *, changed: bool = True) -> None:
        self.kind = kind
        self.key, self.version, self.deleted, self.raw = row[:4]
        self.changed = changed


class View:
    """State as one request sees it. `written` are its lines, in order; `leases` what it does to leases.

    `noticed` are the leases of nobody that this group has begun: they stay even where their request fails. `drawn` are
    ids for new records, by kind, that the cache did not have: who takes one of them since is seen in `rows`, or has the
    cache brought level, with which these views end.
    """

    __slots__ = ("below", "cache", "drawn", "held", "history", "leases", "needed", "noticed", "number", "op",
                 "op_lines", "rows", "sum", "written")

    def __init__(self, cache: Cache, held: "Leases", history: "History", below: "View | None" = None) -> None:
        self.cache = cache
        self.held = held
        self.history = history
        self.written: list[Written] = []
        self.leases: dict[str, Lease | None] = {}
        self.op: str | None = None
        self.sum = ""
        self.number = 0  # of the operation within the request
        self.below = below
        self.noticed: dict[str, Lease] = {} if below is None else below.noticed
        self.drawn: dict[str, list[str]] = {} if below is None else below.drawn
        self.rows: dict[tuple[str, str], Known] = {}
        self.needed: set[str] = set()
        self.op_lines: list[OpLine] = []

    def above(self, op: str | None, digest: str) -> "View":
        """A view for the next request, whose lines carry `op`."""
        view = View(self.cache, self.held, self.history, self)
        view.op, view.sum = op, digest
        return view

    def absorb(self, view: "View") -> None:
        """Take over what a request that succeeded has written."""
        self.rows.update(view.rows)
        self.needed |= view.needed
        self.op_lines += view.op_lines
        self.leases.update(view.leases)
        self.written += view.written

    def get(self, kind: Kind, key: str) -> "Known":
        """What is known of an id, tombstones included; None where there never was one."""
        view: View | None = self
        name = (kind.name, key)
        while view is not None:
            if name in view.rows:
                return view.rows[name]
            view = view.below
        return self.cache.get(kind, key)

    def touched(self, kind: Kind, key: str) -> bool:
        """Whether this group writes to an id."""
        name = (kind.name, key)
        view: View | None = self
        while view is not None:
            if name in view.rows:
                return True
            view = view.below
        return False

    def all_touched(self, kind: Kind) -> set[str]:
        """The ids of a kind that this group writes to."""
        return {key for view in self._views() for name, key in view.rows if name == kind.name}

    def versions(self, kind: Kind, key: str) -> list[str]:
        """The lines of an id, oldest first: those in its log, and those that this group writes."""
        ours = [written.raw for view in reversed(list(self._views())) for written in view.written
                if written.changed and (written.kind, written.key) == (kind, key)]
        return self.history(kind, key) + ours

    def put(self, kind: Kind, row: "Row") -> Written:
        """Have a line written."""
        self.rows[kind.name, row[0]] = known = (*row[1:4], None)
        if kind is SPEC:
            self.needed.update(needs_of(known))
        written = Written(kind, row)
        self.written.append(written)
        if self.op is not None:
            self.op_lines.append(OpLine(self.op, kind.log, *row[:3], self.mark()["op_sum"], row[3]))
        return written

    def mark(self) -> dict[str, str]:
        """The keys that the next line carries for its `op`, so that a repetition is known for one."""
        if self.op is None:
            return {}
        return {"op": self.op, "op_sum": f"{self.sum}.{self.number}" if self.number else self.sum}

    def lines_of_op(self) -> "list[OpLine]":
        """The lines that carry the `op` of this request already, this group's among them."""
        if self.op is None:
            return []
        written = [line for view in self._views() for line in view.op_lines if line.op == self.op]
        return written or self.cache.op_lines(self.op)

    def lease(self, spec: str) -> "Lease | None":
        """What is known of who holds a task spec, live or not."""
        for view in self._views():
            if spec in view.leases:
                return view.leases[spec] or self.noticed.get(spec)
        return self.noticed.get(spec) or self.held.get(spec)

    def is_granted(self, spec: str) -> bool:
        """Whether this group has given a lease on a task spec, and not ended it."""
        return next((view.leases[spec] is not None for view in self._views() if spec in view.leases), False)

    def lease_of_op(self, op: str) -> "Lease | None":
        """The lease that a claim with this `op` was given, if it has not passed on."""
        noted = (lease for view in self._views() for lease in view.leases.values() if lease is not None)
        found = next((lease for lease in noted if lease.op == op), None) or self.held.of_op(op)
        lease = self.lease(found.spec) if found is not None else None
        return lease if lease is not None and lease.op == op else None

    def tokens(self) -> "dict[str, Token]":
        """The token of every lease by its task spec."""
        found = self.held.tokens()
        for view in reversed(list(self._views())):
            for spec, lease in view.leases.items():
                if lease is None:
                    found.pop(spec, None)
                else:
                    found[spec] = lease.as_token()
        for spec, lease in self.noticed.items():
            if not self.is_granted(spec):
                found[spec] = lease.as_token()
        return found

    def end_lease(self, spec: str) -> None:
        """Let go of a task spec."""
        if self.lease(spec) is not None:
            self.leases[spec] = None
            self.noticed.pop(spec, None)

    def notice(self, spec: str, version: int) -> None:
        """Count a running task spec that nobody is known to hold as held, for the default time from now."""
        self.noticed[spec] = leases.unknown(spec, version)

    def needs(self, spec: str) -> list[str]:
        """The task specs that must be complete before this one."""
        return needs_of(self.get(SPEC, spec)) if self.touched(SPEC, spec) else self.cache.needs(spec)

    def needed_by(self, spec: str) -> set[str]:
        """The live task specs that depend on this one."""
        found = {key for key in self.cache.needed_by(spec) if not self.touched(SPEC, key)}
        if any(spec in view.needed for view in self._views()):
            found |= {key for key in self.all_touched(SPEC) if spec in needs_of(self.get(SPEC, key))}
        return found

    def is_needed(self, spec: str) -> bool:
        """Whether any task spec may need this one."""
        return any(spec in view.needed for view in self._views()) or self.cache.is_needed(spec)

    def _views(self) -> "Iterator[View]":
        view: View | None = self
        while view is not None:
            yield view
            view = view.below


def needs_of(known: "Known") -> list[str]:
    """What a version of a task spec depends on."""
    if known is None or known[1] or '"depends_on":' not in known[2]:
        return []
    needs = parse_object(known[2]).get("depends_on")
    return [need for need in (needs if isinstance(needs, list) else [needs]) if isinstance(need, str)]


def refuse_cycle(view: View, spec: str, needs: "list[str]") -> None:
    """Raise InvalidError if `spec` would come to wait for itself; names the way round."""
    if spec not in needs and not view.is_needed(spec):
        return
    came_from = dict.fromkeys(needs, spec)
    waiting = list(came_from)
    while waiting:
        need = waiting.pop()
        if need == spec:
            way = [spec]
            while len(way) == 1 or way[-1] != spec:
                way.append(came_from[way[-1]])
            raise InvalidError(f"depends_on: {' needs '.join(reversed(way))}: a circle, in which none can come first",
                               field="depends_on")
        for further in view.needs(need):
            if further not in came_from:
                came_from[further] = need
                waiting.append(further)
