"""A call that is in order: the row of its method, its parameters by name, and how it is best answered."""

from collections.abc import Mapping

from taskstore_core.errors import InvalidError
from taskstore_core.kinds import KINDS, Kind, find_kind
from taskstore_core.methods import Method, check_parameters
from taskstore_core.rpc import Call

ALL = tuple(KINDS.values())
EACH = {name: (kind,) for name, kind in KINDS.items()}
"""Each kind by its name, alone: one object, so that what was found fresh is quickly known for it."""
_FLUSH = "flush"
_SHORT = 200
"""Rows of a list that is answered on the loop; at 0.1 ms a hundred, a longer one goes to a thread."""
_LONG = frozenset({"record.history", "store.sync", "store.stats", "store.check",
                   "store.resolve_conflicts", "store.compact", "store.recover", "task_spec.ready"})
"""What looks at many rows or at files."""


class NoMethodError(Exception):
    """There is no method of this name."""


class Work:
    """A call, looked at. `size` are the bytes of its frame."""

    __slots__ = ("call", "flush", "method", "parameters", "size")

    def __init__(self, call: Call, methods: Mapping[str, Method], size: int) -> None:
        """Raises NoMethodError, InvalidError."""
        method = methods.get(call.method)
        if method is None:
            raise NoMethodError(call.method)
        given = call.parameters
        if isinstance(given, list):
            if len(given) > len(method.parameters):
                raise InvalidError(f"{method.name} takes {len(method.parameters)} parameters", field="params")
            given = dict(zip(method.parameters, given, strict=False))
        flush = given.pop(_FLUSH, None) if method.request is not None else None
        if flush is not None and not isinstance(flush, bool):
            raise InvalidError(f"{_FLUSH}: must be boolean", field=_FLUSH)
        check_parameters(method, given)
        self.call = call
        self.size = size
        self.method = method
        self.flush = bool(flush)
        self.parameters = {name: value for name, value in given.items() if value is not None}

    @property
    def writes(self) -> bool:
        """Whether it is for the committer."""
        return self.method.request is not None

    @property
    def is_long(self) -> bool:
        """Whether it may take so long that others should not wait for it."""
        return self.method.name in _LONG

    @property
    def is_list(self) -> bool:
        """Whether its answer is cut where it becomes too long."""
        return self.method.name == "record.list"

    def kinds(self) -> tuple[Kind, ...]:
        """The kinds whose logs it reads; raises InvalidError."""
        kind = self.parameters.get("kind")
        if isinstance(kind, str):
            return EACH.get(kind) or (find_kind(kind),)
        return ALL

    def short_list(self) -> "dict[str, object] | None":
        """For a list without a small limit: the parameters of one that is cut short, to see whether it is long."""
        if not self.is_list:
            return None
        limit = self.parameters.get("limit")
        if limit is not None and (not isinstance(limit, int) or limit <= _SHORT):
            return None
        return {**self.parameters, "limit": _SHORT}
