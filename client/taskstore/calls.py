"""What the typed library can ask of a store: for each operation the method, its parameters, and its answer as types.

Nothing is sent here. `Store` carries a call out in this process or over a socket and waits; the asynchronous client
awaits it. So signatures, documentation and types of both stand once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from taskstore_core.plain import to_json
from taskstore_core.records import Dependency, Execution, Record, RecordT, TaskSpec, from_line, to_fields

from .operations import Claim, Operation, Page, Version

T = TypeVar("T")


class Call(Generic[T]):
    """One call of a method, and what makes its answer a typed one."""

    __slots__ = ("decode", "method", "parameters")

    def __init__(self, method: str, decode: "Callable[[Any], T]", **parameters: object) -> None:
        self.method = method
        self.decode = decode
        self.parameters = {name: value for name, value in parameters.items() if value is not None}


def create(record: RecordT, *, op: str | None = None) -> Call[RecordT]:
    """Create a record and return it as stored: with an id if it had none, and its stamps.

    `op` is your id for this write: sent again within 24 h, it returns the first answer and writes nothing. Raises
    ExistsError, InvalidError, ReadOnlyError, BusyError.
    """
    return Call("record.create", _record(type(record)), kind=record.kind, record=to_fields(record), op=op)


def get(type_: type[RecordT], id: str) -> Call[RecordT]:  # noqa: A002 - the field's name
    """The live record with this id, or with the only id that begins so; raises NotFoundError."""
    return Call("record.get", _record(type_), kind=type_.kind, id=id)


def update(type_: type[RecordT], id: str, /, *, if_updated_at: int | None = None, op: str | None = None,  # noqa: A002
           **changes: object) -> Call[RecordT]:
    """Change fields of a record and return its next version; fields no one here knows may be set too.

    Raises NotFoundError, ConflictError if its version is not `if_updated_at`, InvalidError, ReadOnlyError,
    BusyError.
    """
    return Call("record.update", _record(type_), kind=type_.kind, id=id, set=changes, if_updated_at=if_updated_at,
                op=op)


def delete(type_: type[Record], id: str, *, if_updated_at: int | None = None,  # noqa: A002
           op: str | None = None) -> Call[None]:
    """Delete a record; raises NotFoundError, ConflictError, ReadOnlyError, BusyError."""
    return Call("record.delete", _nothing, kind=type_.kind, id=id, if_updated_at=if_updated_at, op=op)


def list_records(type_: type[RecordT], where: "Mapping[str, object] | None" = None, /, *, order: str | None = None,
                 limit: int | None = None, concurrent: bool = False, **equal: object) -> Call[list[RecordT]]:
    """The live records for which every field in `equal` and every condition in `where` holds.

    `where` is {field: {operator: value}} with eq, ne, gt, ge, lt, le, in, contains; `order` a field, with a
    leading "-" for descending (default: oldest first); `concurrent` for those alone of which a version lost to another
    whose writer had not seen it. Raises InvalidError.
    """
    return Call("record.list", _records(type_), kind=type_.kind, where={**(where or {}), **equal}, order=order,
                limit=limit, concurrent=concurrent or None)


def page(type_: type[RecordT], where: "Mapping[str, object] | None" = None, /, *, limit: int,
         order: str | None = None, cursor: str | None = None, concurrent: bool = False,
         **equal: object) -> Call[Page[RecordT]]:
    """At most `limit` records of a list, and the cursor that a next call goes on from (None at the end)."""
    records = _records(type_)
    return Call("record.list", lambda answer: Page(records(answer), answer["cursor"]), kind=type_.kind,
                where={**(where or {}), **equal}, order=order, limit=limit, cursor=cursor,
                concurrent=concurrent or None)


def history(type_: type[RecordT], id: str) -> Call[list[Version[RecordT]]]:  # noqa: A002
    """Every version of a record, oldest first, deletions too, and which of them lost; raises NotFoundError."""
    def decode(answer: dict[str, Any]) -> list[Version[RecordT]]:
        lost = set(answer["lost"])
        return [Version.read(type_, line, lost=place in lost) for place, line in enumerate(answer["items"])]

    return Call("record.history", decode, kind=type_.kind, id=id)


def restore(type_: type[RecordT], id: str, *, version: int | None = None,  # noqa: A002
            op: str | None = None) -> Call[RecordT]:
    """Write an earlier version once more: the one with this `updated_at`, or the last before the deletion.

    Raises NotFoundError, InvalidError (not deleted, and no `version`), ReadOnlyError, BusyError.
    """
    return Call("record.restore", _record(type_), kind=type_.kind, id=id, version=version, op=op)


def apply(operations: Sequence[Operation], *, op: str | None = None) -> Call[list[Record | None]]:
    """Carry out `Create`, `Update`, `Delete`, `Restore` and `Import` together or not at all.

    Returns the record each left, None for a deletion and for an import. The error of the first that cannot be is
    raised, with its number as `operation`.
    """
    types = [one.type for one in operations]

    def decode(answer: list[object]) -> list[Record | None]:
        return [from_line(type_, result) if isinstance(result, str) else None
                for type_, result in zip(types, answer, strict=True)]

    return Call("store.apply", decode, ops=[one.plain() for one in operations], op=op)


def resolve_conflicts(take: str | None = None, type_: type[Record] | None = None, /, id: str | None = None,  # noqa: A002
                      ) -> Call[dict[str, Any]]:
    """Settle what a merge left in the logs; as in `taskstore schema store.resolve_conflicts`.

    Conflicts are settled by `take`, "ours", "theirs" or "newest": all, those of one type, or the one about a record.
    Without it they are only listed. Raises InvalidError, NotFoundError, ReadOnlyError, BusyError.
    """
    return Call("store.resolve_conflicts", _plain, take=take, kind=None if type_ is None else type_.kind, id=id)


def recover(*ids: str, all: bool = False) -> Call[dict[str, Any]]:  # noqa: A002 - the method's name for it
    """The acknowledged lines that no log, branch or stash has any more; as in `taskstore schema store.recover`.

    Those of the records with these ids, or with the only ids that begin so, are written once more, or `all`. A line
    keeps its version: where its record has a newer one now, only the history gains by it. What was written is known for
    30 days, or 64 MiB. Raises InvalidError, NotFoundError, ReadOnlyError, BusyError (also while git is at work).
    """
    return Call("store.recover", _plain, ids=list(ids) or None, all=all)


def ready(prd_id: str | None = None, *, limit: int | None = None) -> Call[list[TaskSpec]]:
    """The task specs that may be claimed now, oldest first."""
    return Call("task_spec.ready", _records(TaskSpec), prd_id=prd_id, limit=limit)


def claim(id: str | None = None, *, by: str, prd_id: str | None = None, lease_ms: int | None = None,  # noqa: A002
          op: str | None = None) -> Call[Claim | None]:
    """Take a task spec: the one named, or the oldest that is ready; None when none is.

    It is yours for `lease_ms` (15 minutes) from now and from each heartbeat. Raises NotFoundError and ConflictError
    for one that was named and cannot be had.
    """
    return Call("task_spec.claim", lambda line: None if line is None else Claim.read(line, by), id=id, by=by,
                prd_id=prd_id, lease_ms=lease_ms, op=op)


def heartbeat(claim: Claim, *, lease_ms: int | None = None) -> Call[int]:
    """Hold a claim for `lease_ms` (15 minutes) from now; until when, in Unix ms.

    Raises ConflictError if the claim is not held any more.
    """
    return Call("task_spec.heartbeat", lambda answer: int(answer["expires_at"]), **claim.proof(), lease_ms=lease_ms)


def complete(claim: Claim, *, op: str | None = None) -> Call[list[str]]:
    """End a claim: its task spec is complete. Returns the ids of what may be claimed because of it.

    Raises ConflictError if the claim is not held any more.
    """
    return Call("task_spec.complete", _unblocked, **claim.proof(), op=op)


def fail(claim: Claim, *, op: str | None = None) -> Call[TaskSpec]:
    """End a claim: its task spec has failed. Raises ConflictError if the claim is not held any more."""
    return Call("task_spec.fail", _record(TaskSpec), **claim.proof(), op=op)


def release(claim: Claim, *, op: str | None = None) -> Call[TaskSpec]:
    """End a claim: its task spec is pending again. Raises ConflictError if the claim is not held any more."""
    return Call("task_spec.release", _record(TaskSpec), **claim.proof(), op=op)


def resolve_dependency(id: str, payload: str | None = None, *, op: str | None = None) -> Call[Dependency]:  # noqa: A002
    """Resolve a dependency, with a payload for whoever waits; raises NotFoundError, ConflictError if it is resolved."""
    return Call("dependency.resolve", _record(Dependency), id=id, payload=payload, op=op)


def wait_dependency(id: str, *, timeout_ms: int | None = None) -> Call[Dependency]:  # noqa: A002
    """The dependency once it is resolved, or as it is after `timeout_ms`; raises NotFoundError."""
    return Call("dependency.wait", _record(Dependency), id=id, timeout_ms=timeout_ms)


def sync(*, full: bool = False, wait_ms: int | None = None) -> Call[dict[str, Any]]:
    """Bring the cache level with the logs; what was read and changed. Reading does so by itself.

    `flushed` tells whether every line stands in its log, after waiting `wait_ms` for git to be quiet.
    """
    return Call("store.sync", dict, full=full, wait_ms=wait_ms)


def stats() -> Call[dict[str, Any]]:
    """Counts by kind and status."""
    return Call("store.stats", lambda answer: dict(answer["kinds"]))


def check(*, fix: bool = False) -> Call[list[dict[str, Any]]]:
    """Every problem found, each as in `taskstore schema store.check`; with `fix`, what is safe is mended."""
    return Call("store.check", lambda answer: list(answer["problems"]), fix=fix)


def compact(*, older_than_ms: int | None = None, keep: int | None = None, prune_tombstones: bool = False,
            dry_run: bool = False) -> Call[dict[str, Any]]:
    """Drop superseded versions from the logs: those older than `older_than_ms` and beyond the `keep` (1) newest.

    What was dropped, by kind, as in `taskstore schema store.compact`. `prune_tombstones` drops deleted records
    altogether where every branch and stash of this clone has the deletion; `dry_run` only tells. Raises BusyError
    while git merges, rebases or is at work, ReadOnlyError.
    """
    return Call("store.compact", dict, older_than_ms=older_than_ms, keep=keep, prune_tombstones=prune_tombstones,
                dry_run=dry_run)


class Named(Generic[RecordT]):
    """The calls of one kind, under the names that speak of it."""

    def __init__(self, type_: type[RecordT]) -> None:
        self.type = type_

    def create(self, record: RecordT, *, op: str | None = None) -> Call[RecordT]:
        """Create a record and return it as stored. Raises ExistsError, InvalidError, ReadOnlyError, BusyError."""
        return create(record, op=op)

    def get(self, id: str) -> Call[RecordT]:  # noqa: A002
        """The live record with this id, or with the only id that begins so; raises NotFoundError."""
        return get(self.type, id)

    def update(self, id: str, /, *, if_updated_at: int | None = None, op: str | None = None,  # noqa: A002
               **changes: object) -> Call[RecordT]:
        """Change fields of a record and return its next version. Raises NotFoundError, ConflictError, InvalidError."""
        return update(self.type, id, if_updated_at=if_updated_at, op=op, **changes)

    def delete(self, id: str, *, if_updated_at: int | None = None, op: str | None = None) -> Call[None]:  # noqa: A002
        """Delete a record; raises NotFoundError, ConflictError, ReadOnlyError, BusyError."""
        return delete(self.type, id, if_updated_at=if_updated_at, op=op)

    def list(self, where: "Mapping[str, object] | None" = None, /, *, order: str | None = None,
             limit: int | None = None, concurrent: bool = False, **equal: object) -> Call[list[RecordT]]:
        """The live records that fit, as `Store.list`."""
        return list_records(self.type, where, order=order, limit=limit, concurrent=concurrent, **equal)


def list_task_specs(prd_id: str | None = None, *, order: str | None = None, limit: int | None = None,
                    concurrent: bool = False, **equal: object) -> Call[list[TaskSpec]]:
    """The task specs of a PRD, or all; further fields that must be equal by name, such as `status`."""
    return list_records(TaskSpec, order=order, limit=limit, concurrent=concurrent, **_given(prd_id=prd_id), **equal)


def list_executions(ts_id: str | None = None, *, order: str | None = None, limit: int | None = None,
                    concurrent: bool = False, **equal: object) -> Call[list[Execution]]:
    """The executions of a task spec, or all; further fields that must be equal by name, such as `status`."""
    return list_records(Execution, order=order, limit=limit, concurrent=concurrent, **_given(ts_id=ts_id), **equal)


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _record(type_: type[RecordT]) -> "Callable[[Any], RecordT]":
    return lambda answer: from_line(type_, answer if isinstance(answer, str) else to_json(answer))


def _records(type_: type[RecordT]) -> "Callable[[Any], list[RecordT]]":
    return lambda answer: [from_line(type_, line) for line in answer["items"]]


def _plain(answer: object) -> dict[str, Any]:
    import json

    made: dict[str, Any] = json.loads(to_json(answer))
    return made


def _nothing(_: object) -> None:
    return None


def _unblocked(line: str) -> list[str]:
    import json

    return [str(key) for key in json.loads(line)["unblocked"]]
