"""TaskStore: state for many agents working on one repository.

    from taskstore import Prd, PrdStatus, Store

    with Store.open(".") as store:
        prd = store.create(Prd(title="Search"))
        store.update(Prd, prd.id, status=PrdStatus.ACTIVE)

Importing this package is cheap: each name is loaded when it is first used.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from taskstore_core.clock import now_ms
    from taskstore_core.errors import (
        BusyError,
        ConflictError,
        ExistsError,
        InvalidError,
        NoStoreError,
        NotFoundError,
        ReadOnlyError,
        TaskStoreError,
        UnsupportedVersionError,
    )
    from taskstore_core.records import (
        Dependency,
        DependencyType,
        Execution,
        ExecutionStatus,
        Prd,
        PrdStatus,
        Record,
        RepoState,
        TaskSpec,
        TaskSpecStatus,
        Workflow,
    )

    from .aio import AsyncStore, connect_async
    from .events import BranchChanged, Changed, Resync
    from .library import Store, connect
    from .operations import Claim, Create, Delete, Import, Page, Restore, Update, Version

_HOMES = {
    **dict.fromkeys(("Store", "connect"), "taskstore.library"),
    **dict.fromkeys(("AsyncStore", "connect_async"), "taskstore.aio"),
    **dict.fromkeys(("BranchChanged", "Changed", "Resync"), "taskstore.events"),
    **dict.fromkeys(("Claim", "Create", "Delete", "Import", "Page", "Restore", "Update", "Version"),
                    "taskstore.operations"),
    "now_ms": "taskstore_core.clock",
    **dict.fromkeys(("BusyError", "ConflictError", "ExistsError", "InvalidError", "NoStoreError", "NotFoundError",
                     "ReadOnlyError", "TaskStoreError", "UnsupportedVersionError"), "taskstore_core.errors"),
    **dict.fromkeys(("Dependency", "DependencyType", "Execution", "ExecutionStatus", "Prd", "PrdStatus", "Record",
                     "RepoState", "TaskSpec", "TaskSpecStatus", "Workflow"), "taskstore_core.records"),
}

__all__ = [
    "AsyncStore",
    "BranchChanged",
    "BusyError",
    "Changed",
    "Claim",
    "ConflictError",
    "Create",
    "Delete",
    "Dependency",
    "DependencyType",
    "Execution",
    "ExecutionStatus",
    "ExistsError",
    "Import",
    "InvalidError",
    "NoStoreError",
    "NotFoundError",
    "Page",
    "Prd",
    "PrdStatus",
    "ReadOnlyError",
    "Record",
    "RepoState",
    "Restore",
    "Resync",
    "Store",
    "TaskSpec",
    "TaskSpecStatus",
    "TaskStoreError",
    "UnsupportedVersionError",
    "Update",
    "Version",
    "Workflow",
    "connect",
    "connect_async",
    "now_ms",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'taskstore' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
