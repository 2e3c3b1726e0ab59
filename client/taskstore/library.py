"""The typed library: calls carried out one after the other, each waited for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Self, TypeVar

from taskstore_core.records import Dependency, Execution, Prd, RepoState, TaskSpec, Workflow

from . import calls
from .calls import Call, Named
from .changes import Changes as PlainChanges
from .connection import Connection
from .events import BranchChanged, Changed, Resync, typed

P = ParamSpec("P")
T = TypeVar("T")


def _method(make: Callable[P, Call[T]]) -> "Callable[Concatenate[Store, P], T]":
    """A method of `Store` that carries out the call which `make` makes."""
    @wraps(make)
    def method(store: "Store", /, *arguments: P.args, **named: P.kwargs) -> T:
        return store.run(make(*arguments, **named))

    return method


class Changes:
    """An iterator over `Changed`, `Resync` and `BranchChanged`; `cursor` is where it is."""

    def __init__(self, changes: PlainChanges) -> None:
        self._changes = changes

    @property
    def cursor(self) -> str:
        """Given as `since` later, another goes on from here."""
        return self._changes.cursor

    def __iter__(self) -> Iterator[Changed | Resync | BranchChanged]:
        return map(typed, self._changes)


class Store:
    """A store of typed records. One thread at a time; any number of processes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: str = ".", *, directory: str | None = None) -> Self:
        """Open the store of the repository that `path` lies in, or the one in `directory`, by its files.

        Raises NoStoreError where there is none, UnsupportedVersionError for one of a newer release.
        """
        return cls(Connection.open(path, directory=directory, daemon=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        self._connection.close()

    def run(self, call: Call[T]) -> T:
        """Carry out a call."""
        return call.decode(self._connection.call(call.method, call.parameters))

    @contextmanager
    def changes(self, *, kinds: Sequence[str] | None = None, where: Mapping[str, object] | None = None,
                since: str | None = None) -> "Iterator[Changes]":
        """What changes from now on, or after the cursor `since`: an endless iterator.

        `kinds` and `where` (as in `list`) say what to hear of. Raises InvalidError.
        """
        with PlainChanges(self._connection, kinds, None if where is None else dict(where), since) as changes:
            yield Changes(changes)

    create = _method(calls.create)
    get = _method(calls.get)
    update = _method(calls.update)
    delete = _method(calls.delete)
    list = _method(calls.list_records)
    page = _method(calls.page)
    history = _method(calls.history)
    restore = _method(calls.restore)
    apply = _method(calls.apply)

    ready = _method(calls.ready)
    claim = _method(calls.claim)
    heartbeat = _method(calls.heartbeat)
    complete = _method(calls.complete)
    fail = _method(calls.fail)
    release = _method(calls.release)
    resolve_dependency = _method(calls.resolve_dependency)
    wait_dependency = _method(calls.wait_dependency)

    sync = _method(calls.sync)
    stats = _method(calls.stats)
    check = _method(calls.check)
    resolve_conflicts = _method(calls.resolve_conflicts)

    create_prd = _method(Named(Prd).create)
    get_prd = _method(Named(Prd).get)
    update_prd = _method(Named(Prd).update)
    delete_prd = _method(Named(Prd).delete)
    list_prds = _method(Named(Prd).list)

    create_task_spec = _method(Named(TaskSpec).create)
    get_task_spec = _method(Named(TaskSpec).get)
    update_task_spec = _method(Named(TaskSpec).update)
    delete_task_spec = _method(Named(TaskSpec).delete)
    list_task_specs = _method(calls.list_task_specs)

    create_execution = _method(Named(Execution).create)
    get_execution = _method(Named(Execution).get)
    update_execution = _method(Named(Execution).update)
    delete_execution = _method(Named(Execution).delete)
    list_executions = _method(calls.list_executions)

    create_dependency = _method(Named(Dependency).create)
    get_dependency = _method(Named(Dependency).get)
    update_dependency = _method(Named(Dependency).update)
    delete_dependency = _method(Named(Dependency).delete)
    list_dependencies = _method(Named(Dependency).list)

    create_workflow = _method(Named(Workflow).create)
    get_workflow = _method(Named(Workflow).get)
    update_workflow = _method(Named(Workflow).update)
    delete_workflow = _method(Named(Workflow).delete)
    list_workflows = _method(Named(Workflow).list)

    create_repo_state = _method(Named(RepoState).create)
    get_repo_state = _method(Named(RepoState).get)
    update_repo_state = _method(Named(RepoState).update)
    delete_repo_state = _method(Named(RepoState).delete)
    list_repo_states = _method(Named(RepoState).list)


def connect(path: str = ".", *, directory: str | None = None, daemon: bool = True, start: bool = False) -> Store:
    """The store of the repository that `path` lies in, or the one in `directory`.

    Through its daemon where one answers, unless `daemon` is False, else by its files: that changes the speed, and
    nothing else. `start` (or TASKSTORE_AUTOSTART=1 in the environment) starts a daemon where none runs.
    Raises NoStoreError where there is none, UnsupportedVersionError for one of a newer release.
    """
    return Store(Connection.open(path, directory=directory, daemon=daemon, start=start))
