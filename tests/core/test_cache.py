"""The cache may be lost, damaged, foreign or out of reach at any time: the answers stay right."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from taskstore_core import query
from taskstore_core.batch import Operation
from taskstore_core.cache import Cache, open_cache
from taskstore_core.kinds import KINDS, Kind
from taskstore_core.lock import Lock
from taskstore_core.outbox import Outbox
from taskstore_core.paths import discover
from taskstore_core.schema import APPLICATION_ID, VERSION
from taskstore_core.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRD = KINDS["prd"]
SPEC = KINDS["task_spec"]
COUNT = 300


def line(n: int, **fields: object) -> bytes:
    return json.dumps({"id": f"p{n:03}", "title": f"title {n}", "created_at": n, "updated_at": n + 1,
                       "status": "ready" if n % 3 else "draft", **fields}).encode() + b"\n"


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=N", "-c", "user.email=e@x", *words], cwd=folder, check=True,
                   capture_output=True)


def make_store(root: Path, lines: bytes) -> None:
    root.mkdir(parents=True)
    store, _ = Store.create(str(root))
    with store:
        Path(store.paths.file(PRD.log)).write_bytes(lines)
        store.sync()


def right(store: Store, count: int = COUNT) -> bool:
    """Whether a store answers every sort of question as its log says."""
    titles = [f"title {n}" for n in range(count)]
    assert [json.loads(raw)["title"] for raw in store.find("prd")[0]] == titles
    assert [json.loads(store.get("prd", f"p{n:03}"))["title"] for n in range(0, count, 7)] == titles[::7]
    assert len(store.find("prd", {"status": "draft"})[0]) == len(range(0, count, 3))
    assert [json.loads(raw)["id"] for raw in store.find("prd", {"title": "title 1"})[0]] == ["p001"]
    stats = store.stats()["prd"]
    assert (stats["records"], stats["lines"], stats["bad_lines"]) == (count, count, 0)
    return True


def is_sound(path: Path) -> bool:
    """Whether the file at `path` is a cache again that SQLite finds no fault with."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        checked = db.execute("PRAGMA integrity_check").fetchall()
        version = db.execute("PRAGMA user_version").fetchone(), db.execute("PRAGMA application_id").fetchone()
        return checked == [("ok",)] and version == ((VERSION,), (APPLICATION_ID,))


@pytest.fixture(name="root")
def fixture_root(tmp_path: Path) -> Path:
    """A store of COUNT records, its cache filled and closed."""
    make_store(tmp_path / "store", b"".join(map(line, range(COUNT))))
    fold_in(tmp_path / "store")
    return tmp_path / "store"


def cache_of(root: Path) -> Path:
    return root / ".taskstore" / "store.db"


def fold_in(root: Path) -> None:
    """Put everything into the main file of the cache, so that damage to it meets what is in use."""
    with contextlib.closing(sqlite3.connect(cache_of(root))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        Path(f"{cache_of(root)}{suffix}").unlink(missing_ok=True)


# Gone


def test_git_clean_under_an_open_store(tmp_path: Path) -> None:
    """When git clean deletes the cache, an open store and one opened later answer and write as before."""
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q")
    make_store(root / "work", b"")  # an untracked folder is no concern of git clean's
    shutil.rmtree(root / "work")
    with Store.create(str(root))[0] as store, Store.open(str(root)) as other:
        Path(store.paths.file(PRD.log)).write_bytes(b"".join(map(line, range(COUNT))))
        git(root, "add", ".taskstore")
        git(root, "commit", "-qm", "store")
        for n in range(3):
            assert right(store, COUNT + n)
            assert right(other, COUNT + n)
            git(root, "clean", "-fdxq")
            assert not cache_of(root).exists()
            writer = (store, other)[n % 2]
            count = COUNT + n
            writer.apply([Operation("import", PRD, json.loads(line(count)))])
            assert writer.flush(60)
            assert right(other, count + 1)
            assert right(store, count + 1)
            assert is_sound(cache_of(root))
        git(root, "clean", "-fdxq")
        with Store.open(str(root)) as third:
            assert right(third, COUNT + 3)


KILLED = """
import os, sys
from taskstore_core.store import Store
store = Store.open(sys.argv[1])
assert len(store.find("prd")[0]) == int(sys.argv[2])
os._exit(0)
"""


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal"), ("", "-shm"), ("-wal",), ("-shm",), ("", "-wal", "-shm")])
@pytest.mark.parametrize("filled", [True, False])
def test_parts_of_a_cache_deleted(tmp_path: Path, suffixes: tuple[str, ...], *, filled: bool) -> None:
    """Whichever of the three files of a killed process's cache are deleted, the next store answers right."""
    root = tmp_path / "store"
    make_store(root, b"".join(map(line, range(COUNT if filled else 0))))
    (root / ".taskstore" / PRD.log).write_bytes(b"".join(map(line, range(COUNT))))
    subprocess.run([sys.executable, "-c", KILLED, str(root), str(COUNT)], check=True)
    for suffix in suffixes:
        Path(f"{cache_of(root)}{suffix}").unlink()
    with Store.open(str(root)) as store:
        assert right(store)
        store.apply([Operation("import", PRD, json.loads(line(COUNT)))])
        assert right(store, COUNT + 1)
    assert is_sound(cache_of(root))


def test_the_whole_folder_deleted_and_restored(root: Path) -> None:
    """A store folder that is deleted and comes back, as by a checkout, is served anew by the store that was open."""
    kept = root.parent / "kept"
    with Store.open(str(root)) as store:
        assert right(store)
        shutil.copytree(root / ".taskstore", kept, ignore=shutil.ignore_patterns("store.db*", ".local"))
        shutil.rmtree(root / ".taskstore")
        shutil.copytree(kept, root / ".taskstore")
        assert right(store)


# Damaged


def garbage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"This is no database, whatever it says." * 3)


def truncated(size: int) -> "Callable[[Path], None]":
    return lambda path: os.truncate(path, size)


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def short_of_a_byte(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def all_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def all_noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def first_page_noise(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(random.Random(2).randbytes(3996))


def text_file(path: Path) -> None:
    path.write_text("not a database\n")


def another_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={VERSION + 1}")


def an_older_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=0")
        db.execute("DROP TABLE logs")


def another_application(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id=7")


def a_foreign_database(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE prds(id, title)")
        db.execute("INSERT INTO prds VALUES('p007', 'not ours')")
        db.commit()


def an_empty_database(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [garbage_header, truncated(100), truncated(4096), truncated(5000), halved, short_of_a_byte, all_zeros,
           all_noise, first_page_noise, text_file, another_version, an_older_version, another_application,
           a_foreign_database, an_empty_database]


@pytest.mark.parametrize("damage", DAMAGES, ids=[
    "header", "100 bytes", "a page", "5000 bytes", "half", "a byte short", "zeros", "noise", "first page", "text",
    "newer schema", "older schema", "application", "foreign", "empty"])
@pytest.mark.parametrize("first", ["get", "find", "stats", "sync", "apply"])
def test_a_damaged_cache_heals_by_itself(root: Path, damage: "Callable[[Path], None]", first: str) -> None:
    """Whatever was done to the cache's file, the first call answers right and a sound cache stands there after it."""
    damage(cache_of(root))
    count = COUNT
    with Store.open(str(root)) as store:
        match first:
            case "get":
                assert json.loads(store.get("prd", "p007"))["title"] == "title 7"
            case "find":
                assert len(store.find("prd")[0]) == COUNT
            case "stats":
                assert store.stats()["prd"]["records"] == COUNT
            case "sync":
                assert store.sync()["repo_state"].bad_lines == 0
            case "apply":
                store.apply([Operation("import", PRD, json.loads(line(COUNT)))])
                count += 1
        assert right(store, count)
    assert is_sound(cache_of(root))


@pytest.mark.parametrize("damage", [another_version, another_application], ids=["schema", "application"])
def test_a_cache_that_another_release_takes_over(root: Path, damage: "Callable[[Path], None]") -> None:
    """A store that is open while another process gives the cache another version goes on answering right."""
    with Store.open(str(root)) as store:
        assert right(store)
        damage(cache_of(root))
        assert json.loads(store.get("prd", "p007"))["title"] == "title 7"
    with Store.open(str(root)) as store:
        assert right(store)
    assert is_sound(cache_of(root))


@pytest.mark.parametrize("seed", range(30))
def test_pages_overwritten_with_noise(root: Path, seed: int) -> None:
    """A cache some of whose pages hold noise is noticed, wherever it is met, and made anew."""
    chance = random.Random(seed)
    pages = cache_of(root).stat().st_size // 4096
    with cache_of(root).open("r+b") as file:
        for _ in range(chance.choice([1, 1, 2, pages // 2])):
            file.seek(chance.randrange(pages) * 4096)
            file.write(chance.randbytes(4096))
    with Store.open(str(root)) as store:
        assert right(store)
    with Store.open(str(root)) as store:
        assert right(store)


def test_noise_within_long_records(tmp_path: Path) -> None:
    """Noise where SQLite keeps the rest of long rows shows as text that is none, and the cache is made anew."""
    root = tmp_path / "store"
    make_store(root, b"".join(line(n, content="x" * 30_000) for n in range(20)))
    fold_in(root)
    with cache_of(root).open("r+b") as file:
        data = file.read()
        at = data.index(b"x" * 4000, len(data) // 2)
        file.seek(at)
        file.write(random.Random(1).randbytes(3000))
    with Store.open(str(root)) as store:
        assert right(store, 20)
        assert {len(json.loads(raw)["content"]) for raw in store.find("prd")[0]} == {30_000}


@pytest.mark.parametrize("damage", [garbage_header, halved, all_zeros, all_noise, text_file, an_empty_database],
                         ids=["header", "half", "zeros", "noise", "text", "empty"])
def test_damage_under_an_open_store(root: Path, damage: "Callable[[Path], None]") -> None:
    """A cache that is damaged while a store has it open is made anew, if not for that store then for the next."""
    with Store.open(str(root)) as store:
        assert right(store)
        damage(cache_of(root))
        with (root / ".taskstore" / PRD.log).open("ab") as file:
            file.write(line(COUNT))
        assert right(store, COUNT + 1)
    with Store.open(str(root)) as store:
        assert right(store, COUNT + 1)
    assert is_sound(cache_of(root))


# Something else in its place


def test_a_folder_in_its_place(root: Path) -> None:
    """With a folder where the cache should be, reading and writing work from memory, and again with a file later."""
    cache_of(root).unlink()
    cache_of(root).mkdir()
    with Store.open(str(root)) as store:
        assert right(store)
        store.apply([Operation("import", PRD, json.loads(line(COUNT)))])
        assert right(store, COUNT + 1)
    assert cache_of(root).is_dir()
    cache_of(root).rmdir()
    with Store.open(str(root)) as store:
        assert right(store, COUNT + 1)
    assert is_sound(cache_of(root))


@pytest.mark.parametrize("target", ["/dev/null", "/dev/full", "/proc/self/stat", "/proc/self/mem"])
def test_a_link_to_what_is_no_file_of_ours(root: Path, target: str) -> None:
    """A cache that leads to a device or to a file nobody can write does no harm to the answers."""
    cache_of(root).unlink()
    cache_of(root).symlink_to(target)
    with Store.open(str(root)) as store:
        assert right(store)
        store.apply([Operation("import", PRD, json.loads(line(COUNT)))])
        assert right(store, COUNT + 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_cache(root: Path) -> None:
    """A cache that may not be read is answered for from memory."""
    cache_of(root).chmod(0)
    with Store.open(str(root)) as store:
        assert right(store)


# Copied from elsewhere


@pytest.fixture(name="elsewhere")
def fixture_elsewhere(tmp_path: Path) -> Path:
    """Another store, whose records have the same ids and other titles."""
    make_store(tmp_path / "elsewhere", b"".join(line(n, title="elsewhere") for n in range(COUNT)))
    fold_in(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_the_cache_of_another_store(root: Path, elsewhere: Path) -> None:
    """A cache copied from another store, closed or open, is brought level with the logs that lie beside it."""
    shutil.copy2(cache_of(elsewhere), cache_of(root))
    with Store.open(str(root)) as store:
        assert right(store)
        os.replace(shutil.copy2(cache_of(elsewhere), root / "copy"), cache_of(root))
        assert right(store)
        store.apply([Operation("import", PRD, json.loads(line(COUNT)))])
        assert right(store, COUNT + 1)
    with Store.open(str(elsewhere)) as store:
        assert {json.loads(raw)["title"] for raw in store.find("prd")[0]} == {"elsewhere"}


def test_closing_leaves_nothing_beside_the_file(root: Path, elsewhere: Path) -> None:
    """After the last store was closed no write-ahead log of ours can mix with a file that is copied over ours."""
    with Store.open(str(root)) as store:
        store.apply([Operation("import", PRD, json.loads(line(COUNT)))])
    shutil.copy2(cache_of(elsewhere), cache_of(root))
    with Store.open(str(root)) as store:
        assert right(store, COUNT + 1)


def test_a_copy_of_the_whole_store(root: Path) -> None:
    """A store copied with its cache answers for itself: a change in one is not seen in the other."""
    copy = root.parent / "copy"
    shutil.copytree(root, copy)
    with Store.open(str(copy)) as store:
        store.apply([Operation("import", PRD, json.loads(line(COUNT)))])
        assert right(store, COUNT + 1)
    with Store.open(str(root)) as store:
        assert right(store)


def test_the_same_cache_file_is_not_trusted_for_other_logs(root: Path) -> None:
    """Logs exchanged while the cache stays, as a branch switch does, are what the answers are made from."""
    log = root / ".taskstore" / PRD.log
    with Store.open(str(root)) as store:
        for count in (COUNT - 1, 3, 0, COUNT):
            log.unlink()
            log.write_bytes(b"".join(map(line, range(count))))
            if count > 2:
                assert len(store.find("prd")[0]) == count
            assert store.stats()["prd"]["records"] == count


# For people with SQL tools


EVERY = {
    "prds": ("id", "title", "description", "created_at", "updated_at", "status", "review_passes", "content"),
    "task_specs": ("id", "prd_id", "phase_name", "description", "created_at", "updated_at", "status", "workflow_name",
                   "assigned_to", "content", "depends_on"),
    "executions": ("id", "ts_id", "worktree_path", "branch_name", "status", "started_at", "updated_at", "completed_at",
                   "current_phase", "iteration_count", "error_message"),
    "dependencies": ("id", "from_exec_id", "to_exec_id", "dependency_type", "created_at", "resolved_at", "payload",
                     "updated_at"),
    "workflows": ("id", "name", "description", "awl_code", "created_at", "updated_at"),
    "repo_state": ("repo_path", "last_synced_commit", "updated_at", "branch"),
}


def value_of(name: str, n: int) -> object:
    if name == "depends_on":
        return ["a", "b"]
    return n if name.endswith(("_at", "_passes", "_count")) else f"the {name}"


@pytest.fixture(name="full")
def fixture_full(tmp_path: Path) -> Path:
    """A store with one record of each kind that has every field, and one deleted."""
    root = tmp_path / "full"
    root.mkdir()
    with Store.create(str(root))[0] as store:
        for plural, names in EVERY.items():
            record = {name: value_of(name, n) for n, name in enumerate(names, 1)}
            gone = {names[0]: "gone", "deleted": True, "updated_at": 99}
            Path(store.paths.file(f"{plural}.jsonl")).write_text(f"{json.dumps(record)}\n{json.dumps(gone)}\n")
        store.sync()
    return root


def test_the_views_have_every_field(full: Path) -> None:
    """Each kind has a view under its plural with all its fields, in their order, and the line; live records only."""
    with contextlib.closing(sqlite3.connect(cache_of(full))) as db:
        for plural, names in EVERY.items():
            found = db.execute(f"SELECT * FROM {plural}")  # noqa: S608 - our own names
            assert tuple(column for column, *_ in found.description) == (*names, "raw", "concurrent")
            expected = [value_of(name, n) for n, name in enumerate(names, 1)]
            ((*values, raw, concurrent),) = found.fetchall()
            assert concurrent is None
            assert [json.loads(value) if name == "depends_on" else value
                    for name, value in zip(names, values, strict=True)] == expected
            assert list(json.loads(raw).values()) == expected


STDLIB = """
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in db.execute(sys.argv[2])]))
"""


@pytest.mark.parametrize("tool", ["sqlite3", "python"])
def test_other_tools_open_the_cache(full: Path, tool: str) -> None:
    """The sqlite3 command and Python's module, in processes of their own, read the views while a store is open."""
    command = [sys.executable, "-c", STDLIB] if tool == "python" else ["sqlite3", "-json"]
    if shutil.which(command[0]) is None:
        pytest.skip("there is no sqlite3 command")
    with Store.open(str(full)) as store:
        store.sync()
        for plural, names in EVERY.items():
            done = subprocess.run([*command, str(cache_of(full)), f"SELECT * FROM {plural}"],  # noqa: S608 - our names
                                  capture_output=True, text=True, check=True)
            (found,) = json.loads(done.stdout)
            assert tuple(found) == (*names, "raw", "concurrent")
            assert found[names[0]] == f"the {names[0]}"


@pytest.mark.parametrize(("plural", "column"), [
    ("prds", "status"), ("task_specs", "status"), ("task_specs", "prd_id"), ("task_specs", "assigned_to"),
    ("executions", "status"), ("executions", "ts_id"), ("dependencies", "from_exec_id"),
    ("dependencies", "to_exec_id"), ("workflows", "name"),
])
def test_the_indexes_are_used(full: Path, plural: str, column: str) -> None:
    """A search by status, parent or assignee goes by an index, in a person's SQL and in a list of ours."""
    kind = next(kind for kind in KINDS.values() if kind.plural == plural)
    word = kind.enums.get(column, ("x",))[0]
    ours = query.build(kind, {column: word})
    with contextlib.closing(sqlite3.connect(cache_of(full))) as db:
        for sql, values in ((f"SELECT * FROM {plural} WHERE {column} = ?", [word]),  # noqa: S608 - our own names
                            (ours.sql, ours.parameters)):
            plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values))
            assert f"USING INDEX {plural}_{column} ({column}=?)" in plan


def test_the_indexes_are_there_after_every_rebuild(root: Path) -> None:
    """A rebuild, which drops the indexes and makes them last, leaves each of them behind."""
    wanted = {f"{kind.plural}_{column}" for kind in KINDS.values() for column in kind.indexed}
    with Store.open(str(root)) as store:
        store.sync(full=True)
        store.sync(full=True)
    with contextlib.closing(sqlite3.connect(cache_of(root))) as db:
        found = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='index' AND sql NOT NULL")}
    assert wanted <= found


def test_a_cache_knows_itself(tmp_path: Path) -> None:
    """A new cache carries our application id and schema version, and one is not opened without."""
    path = str(tmp_path / "store.db")
    open_cache(path).close()
    assert is_sound(Path(path))
    cache = Cache(path)
    assert not cache.is_gone()
    os.unlink(path)
    assert cache.is_gone()
    cache.close()


# Where nothing can be written


class Answers(NamedTuple):
    """What a process said that could not write: titles by id, and why its write was refused."""

    titles: dict[str, str]
    refusal: dict[str, str]
    kept_answering: bool


ASKING = """
import importlib, json, os, pkgutil, subprocess, sys, tempfile, secrets, threading, operator, encodings.ascii
import apsw, msgspec, xxhash
import taskstore_core
for module in pkgutil.iter_modules(taskstore_core.__path__, "taskstore_core."):
    importlib.import_module(module.name)
from taskstore_core.errors import TaskStoreError
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store
from taskstore_core.batch import Operation

directory, user, folder = sys.argv[1:4]
if user:
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
for path in filter(None, folder.split(":")):
    try:
        with open(f"{path}/probe", "w"):
            sys.exit("the folder can be written")
    except OSError:
        pass


def titles(store):
    return {record["id"]: record["title"] for record in map(json.loads, store.find("prd")[0])}


with Store.open(directory) as store:
    first = titles(store)
    one = json.loads(store.get("prd", "p001"))["title"]
    assert store.stats()["prd"]["records"] == len(first)
    refusal = {}
    for verb, fields in (("create", {"title": "t"}), ("update", {"id": "p001", "status": "active"}),
                         ("delete", {"id": "p001"})):
        try:
            store.apply([Operation(verb, KINDS["prd"], fields)])
        except TaskStoreError as error:
            refusal[verb] = f"{error.kind} {error.applied}"
    store.sync()
    print(json.dumps([first, refusal, titles(store) == first and one == first["p001"]]))
"""


class Barrier:
    """A way to keep a process from writing below some folders: it is given the folders and the root of the store."""

    def __init__(self, way: str) -> None:
        self.way = way

    def ask(self, root: Path, folders: list[Path]) -> Answers:
        command = [sys.executable, "-c", ASKING, str(root)]
        names = ":".join(map(str, folders))
        if self.way == "mount":
            script = "".join(f'mount --bind "{folder}" "{folder}"; mount -o remount,bind,ro "{folder}"; '
                             for folder in folders)
            return self._said(["unshare", *_UNSHARE, "sh", "-ec", f'{script} exec "$@"', "sh", *command, "", names])
        if self.way == "user":
            return self._said([*command, "65534", names])
        with contextlib.ExitStack() as stack:
            for folder in folders:
                for path in (folder, *folder.rglob("*")):
                    stack.callback(path.chmod, path.stat().st_mode & 0o777)
                    path.chmod(path.stat().st_mode & 0o555)
            return self._said([*command, "", names])

    @staticmethod
    def _said(command: list[str]) -> Answers:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stderr
        return Answers(*json.loads(done.stdout))


_UNSHARE = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]


@pytest.fixture(name="barrier", params=["mount", "user", "mode"])
def fixture_barrier(request: pytest.FixtureRequest) -> Barrier:
    """Each way to make a folder read-only that works here."""
    way: str = request.param
    if way == "mount":
        with tempfile.TemporaryDirectory() as folder:
            tried = subprocess.run(["unshare", *_UNSHARE, "sh", "-ec", 'mount --bind "$0" "$0"', folder],
                                   capture_output=True, check=False)
        if tried.returncode:
            pytest.skip("no mount namespace can be made here")
    if way == "user" and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if way == "mode" and os.geteuid() == 0:
        pytest.skip("no mode keeps root from writing")
    return Barrier(way)


@pytest.fixture(name="shared")
def fixture_shared() -> "Iterator[Path]":
    """A folder that every user of this machine can read, down to the temporary folder itself."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def leave_pending(root: Path, *lines: bytes) -> None:
    """Put lines into the outbox alone, as a writer does that dies there."""
    paths = discover(str(root))
    with Lock(paths.local("lock")):
        outbox = Outbox(paths.local("outbox"))
        outbox.append([[(PRD.log, pending.decode().strip())] for pending in lines])
        outbox.close()


REFUSED = dict.fromkeys(("create", "update", "delete"), "read_only no")
TITLES = {f"p{n:03}": f"title {n}" for n in range(5)}


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("cache", ["level", "behind", "absent", "folded in", "damaged", "in use"])
def test_a_folder_that_cannot_be_written(shared: Path, barrier: Barrier, cache: str) -> None:
    """Where nothing can be written, reads are right whatever the cache's state, and writes answer read_only."""
    root = shared / "store"
    make_store(root, b"".join(map(line, range(4 if cache == "behind" else 5))))
    with contextlib.ExitStack() as stack:
        match cache:
            case "behind":
                with (root / ".taskstore" / PRD.log).open("ab") as file:
                    file.write(line(4))
            case "absent":
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{cache_of(root)}{suffix}").unlink(missing_ok=True)
            case "folded in":
                fold_in(root)
            case "damaged":
                fold_in(root)
                halved(cache_of(root))
            case "in use":
                used = stack.enter_context(Store.open(str(root)))
                assert used.find("prd")
        before = snapshot(root)
        assert barrier.ask(root, [root]) == (TITLES, REFUSED, True)
        after = snapshot(root)
    assert {name: data for name, data in after.items() if not name.endswith("-shm")} == {
        name: data for name, data in before.items() if not name.endswith("-shm")}


def test_pending_lines_are_seen_where_nothing_can_be_written(shared: Path, barrier: Barrier) -> None:
    """What the outbox holds and the log does not is in the answers of a reader who cannot put it there."""
    root = shared / "store"
    make_store(root, b"".join(map(line, range(5))))
    leave_pending(root, line(1, title="newer", updated_at=90), line(5), line(2, title="older", updated_at=1),
                  b'{"id":"p003","deleted":true,"updated_at":90}')
    expected = {**TITLES, "p001": "newer", "p005": "title 5"}
    del expected["p003"]
    assert barrier.ask(root, [root]) == (expected, REFUSED, True)
    with Store.open(str(root)) as store:
        assert {record["id"]: record["title"] for record in map(json.loads, store.find("prd")[0])} == expected
        assert len(Path(store.paths.file(PRD.log)).read_bytes().split(b"\n")) == 5 + 4 + 1


@pytest.mark.parametrize("place", [".taskstore", ".git"])
def test_one_of_the_two_folders_cannot_be_written(shared: Path, barrier: Barrier, place: str) -> None:
    """It is the same if only the work tree or only the git dir is out of reach, with lines pending too."""
    root = shared / "store"
    root.mkdir()
    git(root, "init", "-q")
    with Store.create(str(root))[0] as store:
        Path(store.paths.file(PRD.log)).write_bytes(b"".join(map(line, range(4))))
        store.sync()
    if barrier.way == "user" and place == ".taskstore":
        for path in (root / ".git" / "taskstore", *(root / ".git" / "taskstore").iterdir()):
            os.chown(path, 65534, 65534)
    leave_pending(root, line(4))
    assert barrier.ask(root, [root / place]) == (TITLES, REFUSED, True)


class Reader:
    """A process that cannot write and tells, each time it is asked, the titles it reads."""

    SCRIPT = ASKING.partition("with Store.open")[0] + """
with Store.open(directory) as store:
    for _ in sys.stdin:
        print(json.dumps(titles(store)), flush=True)
"""

    def __init__(self, barrier: Barrier, root: Path) -> None:
        command = [sys.executable, "-c", self.SCRIPT, str(root), "65534" if barrier.way == "user" else "", str(root)]
        if barrier.way == "mount":
            bind = f'mount --bind "{root}" "{root}"; mount -o remount,bind,ro "{root}"; exec "$@"'
            command = ["unshare", *_UNSHARE, "sh", "-ec", bind, "sh", *command]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def titles(self) -> dict[str, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, str] = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture(name="reader")
def fixture_reader(shared: Path, barrier: Barrier) -> "Iterator[Reader]":
    """Such a process, on a store with the records of TITLES."""
    if barrier.way == "mode":
        pytest.skip("the writer of this test would be kept out too")
    make_store(shared / "store", b"".join(map(line, range(5))))
    with contextlib.closing(Reader(barrier, shared / "store")) as reader:
        yield reader


def test_a_reader_in_memory_follows_the_log(shared: Path, reader: Reader) -> None:
    """A reader that cannot write sees each write, each pending line and each foreign line at its next read."""
    root = shared / "store"
    expected = dict(TITLES)
    assert reader.titles() == expected
    with Store.open(str(root)) as store:
        store.apply([Operation("import", PRD, json.loads(line(5)))])
    expected["p005"] = "title 5"
    assert reader.titles() == expected
    leave_pending(root, line(6))
    expected["p006"] = "title 6"
    assert reader.titles() == expected
    with (root / ".taskstore" / PRD.log).open("ab") as file:
        file.write(line(7))
    expected["p007"] = "title 7"
    assert reader.titles() == expected
    with Store.open(str(root)) as store:
        store.apply([Operation("delete", PRD, {"id": "p006"})])
    del expected["p006"]
    assert reader.titles() == expected


def test_a_reader_in_memory_forgets_what_was_taken_back(shared: Path, reader: Reader) -> None:
    """A pending line that its writer takes back is gone from the answers of a reader that cannot write too."""
    paths = discover(str(shared / "store"))
    with Lock(paths.local("lock")):
        outbox = Outbox(paths.local("outbox"))
        frames = outbox.append([[(PRD.log, line(1, title="taken back", updated_at=90).decode().strip())],
                                [(PRD.log, line(9, title="taken back").decode().strip())]])
        assert reader.titles() == {**TITLES, "p001": "taken back", "p009": "taken back"}
        outbox.abort(frames)
        outbox.close()
    assert reader.titles() == TITLES


@pytest.mark.parametrize("taken_back", [True, False])
def test_a_store_that_can_write_again(root: Path, *, taken_back: bool) -> None:
    """A store whose lock was out of reach for a while answers, once it has it again, as if it always had."""
    lock, aside = (Path(discover(str(root)).local(name)) for name in ("lock", "aside"))
    with Store.open(str(root)) as store:
        with Lock(str(lock)):
            outbox = Outbox(str(lock.parent / "outbox"))
            frames = outbox.append([[(PRD.log, line(COUNT).decode().strip())]])
            lock.rename(aside)
            lock.mkdir()
            assert len(store.find("prd")[0]) == COUNT + 1
            if taken_back:
                outbox.abort(frames)
            outbox.close()
            lock.rmdir()
            aside.rename(lock)
        assert right(store, COUNT + int(not taken_back))
        store.apply([Operation("import", PRD, json.loads(line(COUNT)))])
        assert right(store, COUNT + 1)


def test_an_outbox_that_may_not_be_read(shared: Path) -> None:
    """Who may read the logs but not the outbox is told so by an error of ours, never by another's."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    root = shared / "store"
    make_store(root, b"".join(map(line, range(5))))
    Path(discover(str(root)).local("outbox")).chmod(0o600)
    asking = ASKING.partition("with Store.open")[0] + """
try:
    with Store.open(directory) as store:
        print(len(store.find("prd")[0]))
except TaskStoreError as error:
    print(error.kind)
"""
    with Store.open(str(root)) as store, contextlib.closing(Cache(str(cache_of(root)))) as cache:
        while not cache.is_level(PRD, store.paths.file(PRD.log)):
            assert right(store, 5)
        done = subprocess.run([sys.executable, "-c", asking, str(root), "65534", str(root)], check=False,
                              capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() in {"5", "read_only"}, done.stderr


def kinds_with(column: str) -> list[Kind]:
    return [kind for kind in KINDS.values() if column in kind.indexed]


def test_what_is_indexed() -> None:
    """Status, parent and assignee are indexed wherever a kind has them."""
    assert kinds_with("status") == [PRD, SPEC, KINDS["execution"]]
    assert all(kind.parent in kind.indexed for kind in KINDS.values() if kind.parent)
    assert kinds_with("assigned_to") == [SPEC]
