"""The table of commands: names, arguments and where each is carried out. Data; read by both parsers."""

from taskstore_core.kinds import KINDS

from .grammar import Argument, Command

GLOBALS = (
    Argument("--store", "value", "use the store in DIR instead of the repository's", metavar="DIR"),
    Argument("--json", "flag", 'print JSON: the record, or {"items": […]}'),
    Argument("--jsonl", "flag", "print one JSON record a line"),
    Argument("--no-daemon", "flag", "work on the files, whether or not a daemon runs"),
    Argument("--start", "flag", "start a daemon where none runs, as TASKSTORE_AUTOSTART=1 does"),
)

_KIND = Argument("KIND", "word", f"one of {', '.join(KINDS)}")
_ID = Argument("ID", "word", "its id, or enough of its beginning")
_MANY_WHERE = Argument("--where", "many",
                       "only records whose field fits: name=value, !=, <, <=, >, >=, or ~ (contains)", metavar="TEST")
_LIST = (
    _MANY_WHERE,
    Argument("--order", "value", "sort by a field, descending with a leading '-'", metavar="FIELD"),
    Argument("--limit", "number", "print at most N records", metavar="N"),
    Argument("--cursor", "value", "go on behind a page that --limit cut", metavar="CURSOR"),
)
_STATUS = Argument("--status", "value", "only those with this status")
_SET = Argument("--set", "many", "give a field its value; 'null' leaves an option empty", metavar="FIELD=VALUE")
_ALLOW_UNKNOWN = Argument("--allow-unknown", "flag", "let --set give fields that no kind has")
_INPUT = (
    Argument("--file", "value", "read records from a file of JSON objects, one a line", metavar="FILE"),
    Argument("--stdin", "flag", "read them from standard input"),
)
_OP = Argument("--op", "value", "your own id for this write: sent again within 24 h it happens once", metavar="OP")
_IF_UPDATED_AT = Argument("--if-updated-at", "number", "only if this is still the record's updated_at", metavar="STAMP")
_SPEC = Argument("ID", "word", "the task spec's id, or enough of its beginning")
_BY = Argument("--by", "value", "who: a name for the agent or person that works on it", metavar="NAME", required=True)
_PRD = Argument("--prd", "value", "only task specs of this PRD", metavar="PRD_ID")
_LEASE = Argument("--lease-ms", "number", "hold it for N milliseconds from now (if not given: 900000, 15 min)",
                  metavar="N")
_TOKEN = Argument("--token", "value", "what `claim` gave as a proof of holding it", metavar="TOKEN", required=True)

_BEGIN = (
    Command("init", "taskstore_hooks.commands:init", "make a store in this repository, with hooks and merge driver",
            Argument("--no-hooks", "flag", "leave git as it is: no hooks, no merge driver, no attributes"),
            description="Makes a store, or what is missing of one, and inside git does what install-hooks does. In a"
                        " worktree of a bare repository that has no store, makes this worktree the one that holds it.",
            examples=("init", "init --no-hooks")),
    Command("install-hooks", "taskstore_hooks.commands:install_hooks",
            "have git keep the cache level and merge the logs line by line",
            description="Installs, for this clone, what is missing of: the hooks pre-commit, post-merge, post-rewrite"
                        " (which git runs after a rebase: it has no post-rebase), pre-push and post-checkout, as a"
                        " marked block in hooks that are there already; the merge driver; .taskstore/.gitattributes;"
                        " and ignore patterns."),
    Command("uninstall-hooks", "taskstore_hooks.commands:uninstall_hooks",
            "take out again what install-hooks installed",
            description="Takes hooks, merge driver, attributes and ignore patterns out of this clone; every file is as"
                        " it was. Attributes that git tracks stay: other clones need them."),
    Command("completion", "completion:completion", "print a script that completes commands in a shell",
            Argument("SHELL", "word", "bash or zsh", choices=("bash", "zsh")),
            description="Prints a script for your shell that completes commands, options and kinds.",
            examples=("completion bash > ~/.local/share/bash-completion/completions/taskstore",
                      'completion zsh > "${fpath[1]}/_taskstore"')),
)
_RECORDS = (
    Command("create", "write:create", "create records", _KIND, _SET, _ALLOW_UNKNOWN, *_INPUT, _OP,
            description="Creates one record from --set, or many from --file or --stdin: all of them or none."
                        " Prints the ids, which are made where none is given.",
            examples=("create prd --set title=Search --set status=active",
                      "create ts --set prd_id=prd-1 --set phase_name=Index --set depends_on=ts-1,ts-2",
                      "create execution --file runs.jsonl")),
    Command("show", "show:show", "show one record in full", _KIND, _ID),
    Command("update", "write:update", "change records",
            _KIND, Argument("ID", "optional", "its id, or enough of its beginning"),
            _SET, _ALLOW_UNKNOWN, *_INPUT, _IF_UPDATED_AT, _OP,
            description="Changes fields of one record, by --set or by the JSON object in --file or --stdin. Without ID"
                        " each object there names its record by its id, and all are changed or none.",
            examples=("update prd prd-1 --set status=complete",
                      "update ts ts-1 --set assigned_to=null --if-updated-at 1764050000000",
                      "update ts --stdin < changes.jsonl")),
    Command("delete", "write:delete", "delete records",
            _KIND, Argument("ID", "optional", "its id, the whole of it"), *_INPUT, _IF_UPDATED_AT, _OP,
            description="Deletes one record, or without ID those whose ids stand in the JSON objects of --file or"
                        " --stdin, all of them or none. `restore` brings them back.",
            examples=("delete ts ts-1", "delete ts --stdin < old.jsonl")),
    Command("history", "history:history", "list the versions of a record, deletions too", _KIND, _ID,
            description="Lists every version of a record, oldest first, with what it changed, and says of which ones"
                        " lost to another whose writer had not seen them (--json: `lost` has their places)."),
    Command("restore", "history:restore", "bring back a deleted record or an earlier version",
            _KIND, Argument("ID", "word", "its id"),
            Argument("--version", "number", "the version to go back to, as `history` lists them", metavar="N"), _OP,
            description="Writes an earlier version of a record once more, as its newest: the last one before it was"
                        " deleted, or the one that --version names.",
            examples=("restore prd prd-1", "restore prd prd-1 --version 1764050000000")),
)
_LISTS = (
    Command("list", "lists:list_records", "list records of a kind", _KIND, *_LIST,
            Argument("--concurrent", "flag", "only records that two changed without seeing one another's, so that one"
                                             " version lost, and nobody has changed since; see `history`"),
            examples=("list ts --where status=pending --order=-updated_at --limit 20",
                      "list execution --where 'iteration_count>=10' --json", "list ts --concurrent")),
    Command("list-prds", "lists:list_prds", "list PRDs", _STATUS),
    Command("list-task-specs", "lists:list_task_specs", "list the task specs of a PRD",
            Argument("PRD_ID", "word", "the PRD's id, or enough of its beginning"), _STATUS),
    Command("list-executions", "lists:list_executions", "list executions", _STATUS),
    Command("stats", "upkeep:stats", "count records by kind and status, and say which commit was last synced"),
    Command("watch", "watch:watch", "print changes as they happen, until interrupted",
            Argument("KIND", "words", "only these kinds"), _MANY_WHERE,
            description="Prints a line for each record that is created, updated or deleted from now on, whoever does"
                        " it. --where takes one KIND; deletions always fit.",
            examples=("watch", "watch ts --where status=complete --json")),
)
_WORK = (
    Command("ready", "claims:ready", "list the task specs that may be claimed now, oldest first", _PRD,
            Argument("--limit", "number", "print at most N", metavar="N"),
            description="Lists what may be claimed now: pending, or running under no live lease, with every task spec"
                        " that it depends on complete and its PRD not cancelled."),
    Command("claim", "claims:claim", "take a task spec: this one, or the oldest that is ready",
            Argument("ID", "optional", "the task spec's id, or enough of its beginning"), _BY, _PRD, _LEASE, _OP,
            description="Takes a task spec for --by: of any number of callers exactly one gets it. Prints the token"
                        " that proves it, and exits with 1 (--json: prints null) when none is ready.",
            examples=("claim --by ann", "claim ts-1 --by ann --lease-ms 60000", "claim --by ann --json --op try-7")),
    Command("heartbeat", "claims:heartbeat", "hold a claimed task spec for longer", _SPEC, _BY, _TOKEN, _LEASE,
            description="Holds a claimed task spec for --lease-ms from now. Nothing is written to the log."),
    Command("complete", "claims:complete", "end a claim: the task spec is complete", _SPEC, _BY, _TOKEN, _OP,
            description="Ends a claim: the task spec is complete. Prints what may be claimed now because of it."),
    Command("fail", "claims:fail", "end a claim: the task spec has failed", _SPEC, _BY, _TOKEN, _OP),
    Command("release", "claims:release", "end a claim: the task spec is pending again", _SPEC, _BY, _TOKEN, _OP),
    Command("resolve-dependency", "dependencies:resolve", "say that a dependency between executions is resolved",
            Argument("ID", "word", "the dependency's id, or enough of its beginning"),
            Argument("--payload", "value", "what to hand over to whoever waits", metavar="TEXT"), _OP),
    Command("wait-dependency", "dependencies:wait", "wait until a dependency is resolved, and show it",
            Argument("ID", "word", "the dependency's id, or enough of its beginning"),
            Argument("--timeout-ms", "number", "wait at most N milliseconds, then exit with 1", metavar="N")),
)
_STORE = (
    Command("sync", "taskstore_hooks.commands:sync",
            "bring the cache level with the files; makes a store where there never was one",
            Argument("--full", "flag", "forget the cache and build it anew"),
            Argument("--hook", "value", "as git's hook NAME does it: within a second, without a store none is made,"
                                        " and the exit status is always 0", metavar="NAME")),
    Command("check", "taskstore_hooks.commands:check", "find what is wrong, and say what mends it",
            Argument("--fix", "flag", "mend what is safe to mend"),
            Argument("--ci", "flag", "look only at what is in git, not at this clone: for a forge's pipeline"),
            description="Looks at files, logs, cache and the clone's git configuration, and says what is wrong, what it"
                        " means and what mends it. Exits with 1 if anything but notes is left.",
            examples=("check", "check --fix", "check --ci")),
    Command("resolve-conflicts", "conflicts:resolve_conflicts", "settle what a merge left in the logs",
            Argument("KIND", "optional", "only conflicts of this kind"),
            Argument("ID", "optional", "only the one about this record: its id, or enough of its beginning"),
            Argument("--take", "value", "ours, theirs or newest: the version that is to count", metavar="SIDE"),
            description="Settles what the merge driver or git's text merge left with markers in the logs. What two"
                        " sides changed with the same stamp waits for --take and is listed until then, with exit"
                        " status 1. Markers go once a log has no conflict; no line is lost.",
            examples=("resolve-conflicts", "resolve-conflicts --take newest",
                      "resolve-conflicts ts ts-1 --take theirs")),
    Command("compact", "compaction:compact", "drop superseded versions from the logs",
            Argument("--older-than", "value", "only versions at least this old: 30d, 12h, 90min, 2w", metavar="AGE"),
            Argument("--keep", "number", "leave the N newest versions of each record (if not given: 1)", metavar="N"),
            Argument("--prune-tombstones", "flag",
                     "drop deleted records altogether, if every branch and stash here has the deletion"),
            Argument("--dry-run", "flag", "only say what would be dropped"),
            description="Drops the lines that no state comes from any more; `history` then begins later. With"
                        " --older-than and --keep a version goes if both let it. Refused while git merges, rebases,"
                        " cherry-picks, reverts or bisects. Agents may go on working meanwhile.",
            examples=("compact --dry-run", "compact --older-than 30d --keep 5",
                      "compact --older-than 90d --prune-tombstones")),
    Command("recover", "recover:recover", "list lines that git or somebody threw away, and bring them back",
            Argument("ID", "words", "bring back those of these records: their ids, or enough of the beginning"),
            Argument("--all", "flag", "bring back all that are listed"),
            description="Lists what was acknowledged and is in no log now, nor on a branch, in the index or in a stash:"
                        " thrown away by git checkout -- FILE, git reset --hard, a branch that was deleted, an editor."
                        " With ID or --all the lines are written once more, each with its own version, so that one"
                        " whose record has a newer version by now comes back into its history alone. What was written"
                        " is known for 30 days, or 64 MiB.",
            examples=("recover", "recover ts-1", "recover --all")),
    Command("export", "exchange:export", "print all records, or those of a kind, as JSON lines",
            Argument("KIND", "optional", "only this kind, as bare records"),
            description='Prints {"kind":…,"record":…} a line, or for one KIND its records as they stand in the log.'
                        " `import` reads both.",
            examples=("export > everything.jsonl", "export prd > prds.jsonl")),
    Command("import", "exchange:import_", "bring in records of an export or of another tool",
            Argument("FORMAT", "optional", "beads: a log of the beads issue tracker; else what `export` prints",
                     choices=("beads",)),
            Argument("FILE", "word", "the file to read, '-' for standard input"),
            Argument("--kind", "value", "the kind of records that do not say it", metavar="KIND"),
            description="Imports each record under its own id and times, all of them or none. Importing twice changes"
                        " nothing, and what is newer here stays.",
            examples=("import everything.jsonl", "import prds.jsonl --kind prd", "import beads .beads/issues.jsonl")),
    Command("schema", "upkeep:schema", "print the JSON Schema of a kind, or of what a method answers with",
            Argument("NAME", "word", f"one of {', '.join(KINDS)}, or a method such as task_spec.claim"),
            examples=("schema task_spec", "schema task_spec.claim")),
)
_DAEMON = (
    Command("daemon", "daemon:daemon", "run, start or stop the store's daemon, or see how it is",
            Argument("ACTION", "word", "run (in the foreground), start, stop, status or logs",
                     choices=("run", "start", "stop", "status", "logs")),
            Argument("--idle-s", "number", "leave when nobody was connected for N seconds", metavar="N"),
            Argument("--log-level", "value", "debug, info, warning or error", metavar="LEVEL"),
            Argument("--follow", "flag", "print what is logged from now on, too"),
            description="A store has one daemon at the most. Everything works without, but slower, and `watch` looks at"
                        " the files now and then. `status` exits with 1 when none answers.",
            examples=("daemon start", "daemon run --idle-s 600", "daemon status --json", "daemon logs --follow")),
    Command("service", "service:service", "have systemd run the store's daemon when it is wanted",
            Argument("ACTION", "word", "install, uninstall or status", choices=("install", "uninstall", "status")),
            description="Installs user units for this store: systemd listens at its socket, starts the daemon with the"
                        " first command, and starts it anew when it hangs or dies."),
)

GROUPS: tuple[tuple[str, tuple[Command, ...]], ...] = (
    ("to begin with", _BEGIN), ("records", _RECORDS), ("lists", _LISTS), ("work", _WORK), ("the store", _STORE),
    ("the daemon", _DAEMON))
COMMANDS: dict[str, Command] = {command.name: command for _, commands in GROUPS for command in commands}
