"""The cache's tables, made from the table of kinds.

Each kind has a table `<plural>_rows` (tombstones too, for their versions) and a view `<plural>` of the live
records with every field as a column, for people who open store.db with an SQL tool. What is indexed is stored;
the other columns are read from the raw line when somebody asks for them, so that sync need not decode them.
"""

from .jsonl import columns
from .kinds import KINDS, Kind

VERSION = 1
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
"""


def create_statements() -> str:
    """SQL that makes every table, index and view in an empty database."""
    parts = [f"PRAGMA user_version={VERSION}; PRAGMA application_id={APPLICATION_ID};", _COMMON]
    for kind in KINDS.values():
        parts += [_table(kind), index_statements(kind), _view(kind)]
    return "\n".join(parts)


def index_statements(kind: Kind) -> str:
    """SQL that makes the indexes of one kind; apart, because a rebuild is faster when it makes them last."""
    return "\n".join(f"CREATE INDEX IF NOT EXISTS {name} ON {kind.plural}_rows({column});"
                     for name, column in _indexes(kind))


def drop_index_statements(kind: Kind) -> str:
    """SQL that drops them."""
    return "\n".join(f"DROP INDEX IF EXISTS {name};" for name, _ in _indexes(kind))


def upsert_statement(kind: Kind, *, newest: bool) -> str:
    """SQL that stores one index row; if `newest`, unless the table holds a newer version.

    On equal versions the later call wins. A row that is there is changed in place, so that its indexes stay.
    """
    names = ("id", "version", "deleted", "raw", *columns(kind))
    changes = ", ".join(f"{name}=excluded.{name}" for name in names[1:])
    return (f"INSERT INTO {kind.plural}_rows({', '.join(names)}) VALUES({', '.join('?' * len(names))}) "
            f"ON CONFLICT(id) DO UPDATE SET {changes}{' WHERE excluded.version >= version' if newest else ''}")


def _indexes(kind: Kind) -> list[tuple[str, str]]:
    return [(f"{kind.plural}_{column}", column) for column in kind.indexed]


def _table(kind: Kind) -> str:
    stored = columns(kind)
    rest = [name for name in (*kind.fields, *kind.optional_keys) if name not in (*stored, kind.key)]
    lines = ["id TEXT PRIMARY KEY", "version INTEGER NOT NULL", "deleted INTEGER NOT NULL", "raw TEXT NOT NULL"]
    lines += [f"{name} {'INTEGER' if name.endswith('_at') else 'TEXT'}" for name in stored]
    lines += [f"{name} GENERATED ALWAYS AS (json_extract(raw, '$.{name}')) VIRTUAL" for name in rest]
    return f"CREATE TABLE {kind.plural}_rows({', '.join(lines)});"


def _view(kind: Kind) -> str:
    names = ", ".join("id AS repo_path" if name == kind.key != "id" else name
                      for name in (*kind.fields, *kind.optional_keys))
    return f"CREATE VIEW {kind.plural} AS SELECT {names}, raw FROM {kind.plural}_rows WHERE NOT deleted;"  # noqa: S608 - names from our own table
