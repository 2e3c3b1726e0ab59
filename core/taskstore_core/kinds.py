"""The table of kinds: which log a kind lives in, its fields in their order, what is indexed, how versions are read.

Data, not behaviour: validation, cache, sync, command line and JSON Schema are all made from these rows.
It imports nothing, because every command reads it.
"""

from .errors import InvalidError

PRD_STATUSES = ("draft", "ready", "active", "complete", "cancelled")
TASK_SPEC_STATUSES = ("pending", "running", "complete", "failed")
EXECUTION_STATUSES = ("running", "paused", "complete", "failed", "stopped")
DEPENDENCY_TYPES = ("notify", "query", "share")


class Kind:
    """One row of the table.

    `fields` are the keys of a line in their order on disk; `optional_keys` follow them and are written only when
    set; `keys` are both. `indexed` maps to columns of the cache that are stored and carry an index. `versions` names
    the fields whose values are the version of a line: the first if present, else the largest of the others. `enums`
    gives the words a field may hold, `numbers` the fields that hold whole numbers.
    """

    __slots__ = ("aliases", "enums", "fields", "indexed", "key", "keys", "log", "name", "numbers", "optional_keys",
                 "parent", "plural", "prefix", "started", "title", "versions")

    def __init__(
        self, name: str, plural: str, prefix: str, fields: str, *, title: str, key: str = "id",
        started: str = "created_at", parent: str | None = None, indexed: tuple[str, ...] = (),
        optional_keys: tuple[str, ...] = (), aliases: tuple[str, ...] = (),
        enums: dict[str, tuple[str, ...]] | None = None, counts: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.plural = plural
        self.log = f"{plural}.jsonl"
        self.prefix = prefix
        self.fields = tuple(fields.split())
        self.title = title
        self.key = key
        self.started = started
        self.parent = parent
        self.indexed = indexed
        self.optional_keys = optional_keys
        self.aliases = aliases
        self.enums = enums or {}
        self.keys = (*self.fields, *optional_keys)
        self.numbers = (*(name for name in self.keys if name.endswith("_at")), *counts)
        stamps = ("updated_at", "resolved_at", "created_at", "started_at")
        self.versions = tuple(stamp for stamp in stamps if stamp in self.keys)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("prd", "prds", "prd", "id title description created_at updated_at status review_passes content",
             title="PRD", indexed=("status",), enums={"status": PRD_STATUSES},
             counts=("review_passes",)),
        Kind("task_spec", "task_specs", "ts",
             "id prd_id phase_name description created_at updated_at status workflow_name assigned_to content",
             title="task spec", parent="prd_id", indexed=("status", "prd_id", "assigned_to"),
             optional_keys=("depends_on",), aliases=("ts", "task-spec"), enums={"status": TASK_SPEC_STATUSES}),
        Kind("execution", "executions", "exec",
             "id ts_id worktree_path branch_name status started_at updated_at completed_at current_phase"
             " iteration_count error_message",
             title="execution", started="started_at", parent="ts_id", indexed=("status", "ts_id"),
             enums={"status": EXECUTION_STATUSES}, counts=("iteration_count",)),
        Kind("dependency", "dependencies", "dep",
             "id from_exec_id to_exec_id dependency_type created_at resolved_at payload",
             title="dependency", indexed=("from_exec_id", "to_exec_id"), optional_keys=("updated_at",),
             enums={"dependency_type": DEPENDENCY_TYPES}),
        Kind("workflow", "workflows", "wf", "id name description awl_code created_at updated_at",
             title="workflow", indexed=("name",)),
        Kind("repo_state", "repo_state", "repo", "repo_path last_synced_commit updated_at",
             title="repo state", key="repo_path", started="updated_at", optional_keys=("branch",),
             aliases=("repo-state",)),
    )
}

LOGS: dict[str, Kind] = {kind.log: kind for kind in KINDS.values()}

_NAMES = {alias: kind for kind in KINDS.values() for alias in (kind.name, *kind.aliases)}


def find_kind(name: str) -> Kind:
    """The kind of this name or alias.

    Raises InvalidError, naming the nearest, for any other word.
    """
    try:
        return _NAMES[name]
    except KeyError:
        raise InvalidError(f"there is no kind {name!r}", hint=f"kinds: {', '.join(KINDS)}", field="kind") from None
