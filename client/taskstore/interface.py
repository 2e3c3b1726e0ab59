"""The methods that `Store` and `AsyncStore` have in common, which are all but how they are opened and `changes`.

Each carries out a call of `calls`. `Store` waits for the answer, `AsyncStore` gives something to await.
"""

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from taskstore_core.records import Dependency, Execution, Prd, RepoState, TaskSpec, Workflow

from . import calls
from .calls import Call, Named

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Concatenate, Protocol, overload

    from .aio import AsyncStore
    from .library import Store

    P = ParamSpec("P")
    T_co = TypeVar("T_co", covariant=True)

    class Method(Protocol[P, T_co]):
        """A method that answers with a T_co, or with something to await that does."""

        @overload
        def __get__(self, store: Store, owner: type) -> Callable[P, T_co]:
            ...

        @overload
        def __get__(self, store: AsyncStore, owner: type) -> Callable[P, Coroutine[Any, Any, T_co]]:
            ...

        @overload
        def __get__(self, store: None, owner: type) -> Callable[Concatenate[Any, P], Any]:
            ...


def _method(make: "Callable[P, Call[T_co]]") -> "Method[P, T_co]":
    """A method that carries out the call which `make` makes."""
    @wraps(make)
    def method(store: Any, /, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - the Protocol says what
        return store.run(make(*arguments, **named))

    return cast("Method[P, T_co]", method)


class Interface:
    """What can be asked of a store."""

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
    compact = _method(calls.compact)
    resolve_conflicts = _method(calls.resolve_conflicts)
    recover = _method(calls.recover)

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
