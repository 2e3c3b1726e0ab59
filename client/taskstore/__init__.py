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

    from .library import Store, connect
    from .operations import Claim, Create, Delete, Import, Page, Restore, Update, Version

_HOMES = {
    **dict.fromkeys(("Store", "connect"), "taskstore.library"),
    **dict.fromkeys(("Claim", "Create", "Delete", "Import", "Page", "Restore", "Update", "Version"),
                    "taskstore.operations"),
    "now_ms": "taskstore_core.clock",
    **dict.fromkeys(("BusyError", "ConflictError", "ExistsError", "InvalidError", "NoStoreError", "NotFoundError",
                     "ReadOnlyError", "TaskStoreError", "UnsupportedVersionError"), "taskstore_core.errors"),
    **dict.fromkeys(("Dependency", "DependencyType", "Execution", "ExecutionStatus", "Prd", "PrdStatus", "Record",
                     "RepoState", "TaskSpec", "TaskSpecStatus", "Workflow"), "taskstore_core.records"),
}

__all__ = [
    "BusyError",
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
    "Store",
    "TaskSpec",
    "TaskSpecStatus",
    "TaskStoreError",
    "UnsupportedVersionError",
    "Update",
    "Version",
    "Workflow",
    "connect",
    "now_ms",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'taskstore' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
