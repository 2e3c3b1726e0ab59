"""The cache's tables, made from the table of kinds.

Each kind has a table `<plural>_rows` (tombstones too, for their versions) and a view `<plural>` of the live
records with every field as a column, for people who open store.db with an SQL tool, and `concurrent`, the versions
that lost (see `concurrent.py`). What is indexed is stored;
the other columns are read from the raw line when somebody asks for them, so that sync need not decode them.
"""

from .jsonl import columns
from .kinds import KINDS, Kind

VERSION = 4
"""Of this schema, in `PRAGMA user_version`; a database with another is thrown away and rebuilt."""
APPLICATION_ID = 0x54534B53  # "TSKS", so that file(1) and we know the database as ours

_COMMON = """
CREATE TABLE logs(
    name TEXT PRIMARY KEY, device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER,
    racy INTEGER, offset INTEGER, lines INTEGER, unterminated INTEGER
) WITHOUT ROWID;
CREATE TABLE chunks(
    log TEXT, position REAL, bytes INTEGER, lines INTEGER, bad INTEGER, digest BLOB, hashes BLOB, ids TEXT,
    PRIMARY KEY (log, position)
) WITHOUT ROWID;
CREATE TABLE outbox(
    id TEXT, boot TEXT, end INTEGER, resume INTEGER, seq INTEGER, applied INTEGER, synced INTEGER
);
CREATE TABLE ops(
    op TEXT, log TEXT, id TEXT, version INTEGER, deleted INTEGER, op_sum TEXT, raw TEXT,
    PRIMARY KEY (op, log, id, version)
) WITHOUT ROWID;
CREATE INDEX ops_version ON ops(version);
CREATE INDEX ops_id ON ops(log, id);
CREATE TABLE needs(spec TEXT, need TEXT, PRIMARY KEY (spec, need)) WITHOUT ROWID;
CREATE INDEX needs_need ON needs(need);
CREATE TABLE feed(seq INTEGER PRIMARY KEY AUTOINCREMENT, log TEXT, id TEXT, op TEXT);
CREATE TABLE epoch(id TEXT);
INSERT INTO epoch VALUES (lower(hex(randomblob(8))));
"""


_CONCURRENT = "CREATE INDEX IF NOT EXISTS {0}_concurrent ON {0}_rows(concurrent) WHERE concurrent IS NOT NULL;"


def create_statements() -> str:
    """SQL that makes every table, index and view in an empty database."""
    parts = [f"PRAGMA user_version={VERSION}; PRAGMA application_id={APPLICATION_ID};", _COMMON]
    for kind in KINDS.values():
        parts += [_table(kind), index_statements(kind), _view(kind)]
    return "\n".join(parts)


def index_statements(kind: Kind) -> str:
    """SQL that makes the indexes and triggers of one kind; apart, as a rebuild is faster when it makes them last."""
    return "\n".join((*(f"CREATE INDEX IF NOT EXISTS {name} ON {kind.plural}_rows({columns});"
                        for name, columns in _indexes(kind)),
                      _CONCURRENT.format(kind.plural), *_triggers(kind).values()))


def drop_index_statements(kind: Kind) -> str:
    """SQL that drops them."""
    return "\n".join((*(f"DROP INDEX IF EXISTS {name};" for name in (
        *(name for name, _ in _indexes(kind)), f"{kind.plural}_concurrent")),
                      *(f"DROP TRIGGER IF EXISTS {name};" for name in _triggers(kind))))


def renew_statements(kind: Kind) -> str:
    """SQL that makes what the triggers of one kind would have made, all at once, and begins the feed anew."""
    statements = "UPDATE epoch SET id = lower(hex(randomblob(8)));"
    if kind.name == "task_spec":
        statements += f"DELETE FROM needs; {_insert_needs('s', 'FROM task_specs_rows AS s,')}"  # noqa: S608 - our own words
    return statements


def upsert_statement(kind: Kind, *, newest: bool) -> str:
    """SQL that stores one index row; if `newest`, unless the table holds a newer version.

    On equal versions the later call wins. A row that is there is changed in place, so that its indexes stay.
    """
    names = ("id", "version", "deleted", "raw", *columns(kind), "base")
    insert = f"INSERT INTO {kind.plural}_rows({', '.join(names)}) VALUES({', '.join('?' * len(names))}) "
    if not newest:
        changes = ", ".join(f"{name}=excluded.{name}" for name in names[1:])
        return f"{insert}ON CONFLICT(id) DO UPDATE SET {changes}, concurrent=NULL"
    changes = ", ".join(f"{name}=iif(excluded.version >= version, excluded.{name}, {name})" for name in names[1:])
    return (f"{insert}ON CONFLICT(id) DO UPDATE SET {changes}, concurrent={_doubt(kind)} "
            f"WHERE excluded.version >= version OR {_may_have_rivals(kind, '')}")


def _doubt(kind: Kind) -> str:
    """SQL for whether a row is to be looked at (''): a line came that does not simply follow the one that is there.

    Only a state that says what it is based on can have rivals, or one that was the first of its record.
    """
    return ("CASE WHEN excluded.base = version AND concurrent IS NULL THEN NULL WHEN excluded.raw = raw THEN concurrent"
            f" WHEN excluded.version >= version AND NOT {_may_have_rivals(kind, 'excluded.')} THEN NULL ELSE '' END")


def _may_have_rivals(kind: Kind, row: str) -> str:
    first = "" if kind.started == "updated_at" else f" OR {row}version IS {row}{kind.started}"
    return f"({row}base IS NOT NULL{first})"


def _indexes(kind: Kind) -> list[tuple[str, str]]:
    """(name, columns): by status also in the order of age, which is how task specs are claimed."""
    return [(f"{kind.plural}_{column}", f"{column}, {kind.started}, id" if column == "status" else column)
            for column in kind.indexed]


def _triggers(kind: Kind) -> dict[str, str]:
    """Triggers by name. They note each change in the feed, whichever process makes it, and keep `needs` level."""
    table = f"{kind.plural}_rows"
    made = {}
    for event, which, op in (
        ("INSERT", "new", "iif(new.deleted, 'delete', 'create')"),
        ("UPDATE", "new", "iif(new.deleted, 'delete', iif(old.deleted, 'create', 'update'))"),
        ("DELETE", "old", "'delete'"),
    ):
        steps = [f"INSERT INTO feed(log, id, op) VALUES ('{kind.log}', {which}.id, {op});"]  # noqa: S608 - names from our own table
        if kind.name == "task_spec" and event != "INSERT":
            steps.append("DELETE FROM needs WHERE spec = old.id;")
        if kind.name == "task_spec" and event != "DELETE":
            steps.append(_insert_needs("new", "FROM"))
        name = f"{kind.plural}_{event.lower()}"
        when = {"UPDATE": "WHEN old.raw IS NOT new.raw ", "DELETE": "WHEN NOT old.deleted "}.get(event, "")
        made[name] = f"CREATE TRIGGER IF NOT EXISTS {name} AFTER {event} ON {table} {when}BEGIN {' '.join(steps)} END;"
    return made


def _insert_needs(row: str, source: str) -> str:
    """SQL that notes what a task spec depends on; looking for the key first spares decoding the others."""
    return (f"INSERT INTO needs SELECT DISTINCT {row}.id, need.value {source} json_each({row}.raw, '$.depends_on') AS"
            f" need WHERE NOT {row}.deleted AND instr({row}.raw, '\"depends_on\":') AND need.type = 'text';")


def _table(kind: Kind) -> str:
    stored = columns(kind)
    rest = [name for name in (*kind.fields, *kind.optional_keys) if name not in (*stored, kind.key)]
    lines = ["id TEXT PRIMARY KEY", "version INTEGER NOT NULL", "deleted INTEGER NOT NULL", "raw TEXT NOT NULL"]
    lines += [f"{name} {'INTEGER' if name.endswith('_at') else 'TEXT'}" for name in stored]
    lines += ["base", "concurrent TEXT"]
    lines += [f"{name} GENERATED ALWAYS AS (json_extract(raw, '$.{name}')) VIRTUAL" for name in rest]
    return f"CREATE TABLE {kind.plural}_rows({', '.join(lines)});"


def _view(kind: Kind) -> str:
    names = ", ".join("id AS repo_path" if name == kind.key != "id" else name
                      for name in (*kind.fields, *kind.optional_keys))
    names += ", raw, nullif(concurrent, '') AS concurrent"
    return f"CREATE VIEW {kind.plural} AS SELECT {names} FROM {kind.plural}_rows WHERE NOT deleted;"  # noqa: S608 - names from our own table
