"""Claim, heartbeat, complete, fail, release: one holder of a task spec at a time, on this machine.

A claim is one step under the store's lock: find one that is ready, write that it runs, and note the lease. The token
that the claimer is given is what proves it from then on.
"""

from collections.abc import Mapping

from . import change, leases
from .errors import ConflictError, NotFoundError, check_text
from .jsonl import parse_object
from .plain import Json, with_keys
from .ready import obstacle, ready, unblocked
from .request import Request, check_number, check_word, lapsed, other_write
from .view import SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import OpLine
    from .leases import Lease
    from .request import Result
    from .view import View


class Claim(Request):
    """Take one task spec: the one named, or the oldest that is ready. The answer is it with a `token`, or None."""

    name = "claim"

    def __init__(self, by: str, id: str | None = None, prd_id: str | None = None,  # noqa: A002 - the name on the wire
                 lease_ms: int = leases.DEFAULT_MS, op: str | None = None) -> None:
        super().__init__(op)
        check_word("by", by)
        check_number("lease_ms", lease_ms, 1)
        for name, text in (("id", id), ("prd_id", prd_id)):
            if text is not None:
                check_text(name, text)
        self.by = by
        self.id = id
        self.prd_id = prd_id
        self.lease_ms = lease_ms

    def content(self) -> object:
        """Who wants what; for how long may differ from try to try."""
        return [self.by, self.id, self.prd_id]

    def decide(self, view: "View") -> "Result":
        """Take what is ready; raises NotFoundError or ConflictError for one that was named and cannot be had."""
        if (earlier := self._earlier(view)) is not None:
            return self._answer(view, earlier)
        if self.id is None:
            key = next((key for key, _ in ready(view, self.prd_id)), None)
            return None if key is None else self._take(view, key)
        _live(view, self.id)
        if why := obstacle(view, self.id):
            raise ConflictError(f"the task spec {self.id} cannot be claimed: {why}")
        return self._take(view, self.id)

    def replay(self, view: "View", lines: "list[OpLine]") -> "Result":
        """The same spec, as long as that claim still holds it."""
        earlier = self._earlier(view)
        if earlier is None:  # killed between the log and the lease
            key, known = lines[0].id, view.get(SPEC, lines[0].id)
            lease = view.lease(key)
            if known is None or known[0] != lines[0].version or (lease is not None and lease.token):
                raise lapsed(self.op)
            earlier = view.leases[key] = leases.granted(key, self.by, self.lease_ms, self.op, view.sum)
        return self._answer(view, earlier)

    def _earlier(self, view: "View") -> "Lease | None":
        """The lease that this claim was given before; it holds whatever branch is checked out."""
        lease = view.lease_of_op(self.op) if self.op is not None else None
        if lease is not None and lease.op_sum != view.sum:
            raise other_write(lease.op)
        if lease is not None and not lease.is_live():
            raise lapsed(lease.op)
        return lease

    def _take(self, view: "View", key: str) -> "Result":
        row = change.update(SPEC, key, {"status": "running", "assigned_to": self.by}, view.get(SPEC, key),
                            mark=view.mark())
        view.put(SPEC, row)
        lease = view.leases[key] = leases.granted(key, self.by, self.lease_ms, self.op, view.sum)
        return self._answer(view, lease)

    @staticmethod
    def _answer(view: "View", lease: "Lease") -> "Result":
        return with_keys(_live(view, lease.spec)[2], token=lease.token)


class Held(Request):
    """What only the holder of a task spec may do."""

    def __init__(self, id: str, by: str, token: str, op: str | None = None) -> None:  # noqa: A002 - the name on the wire
        super().__init__(op)
        for name, text in (("id", id), ("by", by), ("token", token)):
            check_text(name, text)
        self.id = id
        self.by = by
        self.token = token

    def content(self) -> object:
        """Who, what, and with which token."""
        return [self.id, self.by, self.token]

    def lease(self, view: "View") -> "Lease":
        """The live lease that the token proves; raises ConflictError."""
        lease = view.lease(self.id)
        if lease is None or not lease.token or lease.token != self.token or lease.by != self.by:
            why = f"{lease.by} holds it" if lease and lease.by and lease.is_live() else "nobody holds it"
            same = lease is not None and lease.is_live() and lease.by == self.by
            raise ConflictError(f"the task spec {self.id} is not held by {self.by} with this token:"
                                f" {'another claim of the same name holds it' if same else why}",
                                hint="claim it again")
        if not lease.is_live():
            raise ConflictError(f"the lease of {self.by} on the task spec {self.id} has ended", hint="claim it again")
        return lease


class Heartbeat(Held):
    """Hold a task spec for longer; nothing is written to the log."""

    name = "heartbeat"

    def __init__(self, id: str, by: str, token: str, lease_ms: int = leases.DEFAULT_MS) -> None:  # noqa: A002
        super().__init__(id, by, token)
        check_number("lease_ms", lease_ms, 1)
        self.lease_ms = lease_ms

    def decide(self, view: "View") -> "Result":
        """Extend the lease; the answer says until when."""
        lease = view.leases[self.id] = self.lease(view).extended(self.lease_ms)
        return {"id": self.id, "by": self.by, "expires_at": lease.expires_at()}


class Settle(Held):
    """End a claim: `outcome` is "complete", "fail" or "release"."""

    CHANGES: Mapping[str, Mapping[str, object]] = {
        "complete": {"status": "complete"}, "fail": {"status": "failed"},
        "release": {"status": "pending", "assigned_to": None}}

    def __init__(self, outcome: str, id: str, by: str, token: str, op: str | None = None) -> None:  # noqa: A002
        super().__init__(id, by, token, op)
        self.name = outcome

    def decide(self, view: "View") -> "Result":
        """Write how it ended, and let go of it."""
        self.lease(view)
        _live(view, self.id)
        row = change.update(SPEC, self.id, self.CHANGES[self.name], view.get(SPEC, self.id), mark=view.mark())
        view.put(SPEC, row)
        view.end_lease(self.id)
        return self._answer(view, row[3])

    def replay(self, view: "View", lines: "list[OpLine]") -> "Result":
        """How it ended the first time."""
        lease = view.lease(self.id)
        if lease is not None and lease.token == self.token:  # killed between the log and the lease
            view.end_lease(self.id)
        return self._answer(view, lines[0].raw)

    def _answer(self, view: "View", raw: str) -> "Result":
        return with_keys(raw, unblocked=unblocked(view, self.id)) if self.name == "complete" else Json(raw)


class Notice(Request):
    """Note what runs without a lease, so that its time runs from now."""

    name = "notice"

    def decide(self, view: "View") -> "Result":
        """Look at all that runs; there is nothing to answer."""
        next(ready(view), None)
        return None


class Resolve(Request):
    """Note that a dependency is resolved, with what there is to hand over."""

    name = "resolve"

    def __init__(self, id: str, payload: str | None = None, op: str | None = None) -> None:  # noqa: A002
        super().__init__(op)
        check_text("id", id)
        self.id = id
        self.payload = payload

    def content(self) -> object:
        """Which dependency, and the payload."""
        return [self.id, self.payload]

    def decide(self, view: "View") -> "Result":
        """Set `resolved_at`, and the payload if there is one; raises ConflictError if somebody has."""
        from .clock import now_ms
        from .kinds import KINDS

        kind = KINDS["dependency"]
        known = view.get(kind, self.id)
        changes: dict[str, object] = {"resolved_at": now_ms()}
        if self.payload is not None:
            changes["payload"] = self.payload
        row = change.update(kind, self.id, changes, known, mark=view.mark())
        if known is not None and parse_object(known[2]).get("resolved_at") is not None:
            raise ConflictError(f"the dependency {self.id} is resolved already", hint="look at what it holds")
        view.put(kind, row)
        return Json(row[3])

    def replay(self, view: "View", lines: "list[OpLine]") -> "Result":  # noqa: ARG002 - others look at it
        """The dependency as it was resolved."""
        return Json(lines[0].raw)


def _live(view: "View", key: str) -> tuple[int, bool, str, str | None]:
    known = view.get(SPEC, key)
    if known is None or known[1]:
        raise NotFoundError(f"there is no task spec {key}" if known is None else f"the task spec {key} was deleted")
    return known
