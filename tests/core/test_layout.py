"""A store's own files: what `create` makes, what `.version` decides, and how an older format is brought up to date."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from taskstore_core import layout
from taskstore_core.batch import Operation
from taskstore_core.errors import NoStoreError, ReadOnlyError, TaskStoreError, UnsupportedVersionError
from taskstore_core.kinds import KINDS
from taskstore_core.lock import Lock
from taskstore_core.paths import Paths, discover
from taskstore_core.store import Store

CREATE = Operation("create", KINDS["prd"], {"id": "a", "title": "t"})


@pytest.fixture(name="root")
def fixture_root(tmp_path: Path) -> Path:
    """A store in a repository, with one record."""
    root = tmp_path / "repo"
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    with Store.create(str(root))[0] as store:
        store.apply([CREATE])
        assert store.flush(60)
    return root


def version_file(root: Path) -> Path:
    return root / ".taskstore" / ".version"


def fingerprint(root: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, modification time and hash of everything below a folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(root))] = (status.st_ino, status.st_mtime_ns, content)
    return found


# Making a store


def test_what_is_made(tmp_path: Path) -> None:
    """A new store is a version, a list of what git shall ignore, and six empty logs."""
    store, made = Store.create(str(tmp_path))
    store.close()
    folder = tmp_path / ".taskstore"
    assert sorted(made) == sorted([".version", ".gitignore", *(kind.log for kind in KINDS.values())])
    assert version_file(tmp_path).read_bytes() == b"1\n"
    assert {path.name: path.stat().st_size for path in folder.glob("*.jsonl")} == {
        kind.log: 0 for kind in KINDS.values()}


def test_git_sees_only_what_is_shared(root: Path) -> None:
    """Of a store that was used, git tracks the logs, the version and the ignore file, and nothing of this machine."""
    with Store.open(str(root)) as store:
        store.sync()
        (root / ".taskstore" / ".new-version").touch()
        listed = subprocess.run(["git", "status", "--porcelain", "-uall"], cwd=root, check=True, capture_output=True,
                                text=True).stdout
    assert sorted(line[3:] for line in listed.splitlines()) == sorted(
        f".taskstore/{name}" for name in (".version", ".gitignore", *(
            kind.log for kind in KINDS.values() if kind.name != "repo_state")))


def test_making_what_is_missing(root: Path) -> None:
    """Creating a store again adds only what is missing and leaves every byte of the rest."""
    (root / ".taskstore" / "workflows.jsonl").unlink()
    (root / ".taskstore" / ".gitignore").write_text("mine\n")
    version_file(root).write_text("1  # Current schema version\n")
    before = fingerprint(root / ".taskstore")
    store, made = Store.create(str(root))
    store.close()
    assert made == ["workflows.jsonl"]
    after = fingerprint(root / ".taskstore")
    kept = [name for name in before if not name.startswith("store.db")]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert Store.create(str(root))[1] == []


def test_making_a_store_leaves_no_temporary_file(root: Path) -> None:
    """Nothing that create wrote aside stays behind."""
    Store.create(str(root))[0].close()
    assert not list((root / ".taskstore").glob(".new-*"))


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    """A place in which no folder can be made is a read_only error that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(ReadOnlyError, match=r"cannot write .*/file"):
        Store.create(directory=str(tmp_path / "file" / "store"))


# The version


@pytest.mark.parametrize("content", [
    b"1", b"1\n", b"1\r\n", b"1  # Current schema version", b"1 2", b"1.5", b"1x", b" 1\n", b"\n1\n",
    b"\xef\xbb\xbf1\n", b"01", b"000000001", b"1" + b"\n" * 10_000, b"1\xff\xfe", b"1\x00"])
def test_versions_that_are_1(root: Path, content: bytes) -> None:
    """The version is the leading integer of the file; what follows it is ignored, and the file left as it is."""
    version_file(root).write_bytes(content)
    with Store.open(str(root)) as store:
        assert store.get("prd", "a")
        store.apply([Operation("update", KINDS["prd"], {"id": "a", "title": "new"})])
    assert version_file(root).read_bytes() == content


@pytest.mark.parametrize(("content", "reason"), [
    (b"2", "has format 2, this release knows up to 1"),
    (b"2  # of a later release\n", "has format 2"),
    (b"10\n", "has format 10"),
    (b"999999999", "has format 999999999"),
    (b"9" * 5000, "does not begin with a number"),
    (b"", "does not begin with a number"),
    (b"\n", "does not begin with a number"),
    (b"garbage", "does not begin with a number"),
    (b"v1", "does not begin with a number"),
    (b"-1", "does not begin with a number"),
    (b"# 1", "does not begin with a number"),
    (b"<<<<<<< HEAD\n1\n=======\n2\n>>>>>>> x\n", "does not begin with a number"),
    (b"\x00" * 10, "does not begin with a number"),
    (b"\xff\xfe1\x00", "does not begin with a number"),
    ("\u0661".encode(), "does not begin with a number"),
])
def test_versions_that_are_refused(root: Path, content: bytes, reason: str) -> None:
    """A newer version, or what is none, is refused by every call, with what to do, before any file is touched."""
    with Store.open(str(root)) as opened:
        assert opened.get("prd", "a")
        version_file(root).write_bytes(content)
        before = fingerprint(root)
        for call in (lambda: Store.open(str(root)), lambda: Store.create(str(root)),
                     lambda: opened.get("prd", "a"), lambda: opened.find("prd"), opened.stats, opened.sync,
                     lambda: opened.sync(full=True), lambda: opened.apply([CREATE])):
            with pytest.raises(UnsupportedVersionError, match=reason) as caught:
                call()
            assert caught.value.hint
        assert fingerprint(root) == before
        version_file(root).write_bytes(b"1\n")
        assert opened.get("prd", "a")


def test_refused_before_a_cache_or_a_lock_is_made(tmp_path: Path) -> None:
    """Where a newer release made a store, an older one leaves no trace in it."""
    (tmp_path / ".taskstore").mkdir()
    version_file(tmp_path).write_bytes(b"7\n")
    before = fingerprint(tmp_path)
    for call in (Store.open, Store.create):
        with pytest.raises(UnsupportedVersionError, match="has format 7"):
            call(str(tmp_path))
    assert fingerprint(tmp_path) == before


def test_no_version_is_no_store(root: Path) -> None:
    """Without .version, as on a branch that has no store, every call says that there is none and makes nothing."""
    with Store.open(str(root)) as opened:
        assert opened.get("prd", "a")
        version_file(root).unlink()
        before = fingerprint(root)
        for call in (lambda: Store.open(str(root)), lambda: opened.get("prd", "a"), opened.sync,
                     lambda: opened.apply([CREATE])):
            with pytest.raises(NoStoreError, match="there is no store in"):
                call()
        assert fingerprint(root) == before


def test_a_version_that_is_no_file(root: Path) -> None:
    """A folder in the place of .version is no store, and an error of ours."""
    version_file(root).unlink()
    version_file(root).mkdir()
    for call in (Store.open, Store.create):
        with pytest.raises(TaskStoreError, match="cannot read"):
            call(str(root))


# Older formats


@pytest.fixture(name="steps")
def fixture_steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done by two migrations, from 1 to 2 and from 2 to 3, registered for this test."""
    done: list[str] = []

    def note(name: str, wanted: bytes) -> None:
        done.append(f"{name} at {wanted.decode()[0]}")

    def first(paths: Paths) -> None:
        note("first", Path(paths.file(".version")).read_bytes())
        log = Path(paths.file("prds.jsonl"))
        log.write_bytes(log.read_bytes().replace(b'"title":"t"', b'"title":"T"'))

    def second(paths: Paths) -> None:
        note("second", Path(paths.file(".version")).read_bytes())

    monkeypatch.setattr(layout, "FORMAT", 3)
    monkeypatch.setattr(layout, "MIGRATIONS", {2: second, 1: first})
    return done


def test_migrations_run_once_and_in_order(root: Path, steps: list[str]) -> None:
    """Opening a store of an older format takes it one step at a time to ours, each step once, before it is read."""
    with Store.open(str(root)) as store:
        assert steps == ["first at 1", "second at 2"]
        assert version_file(root).read_bytes() == b"3\n"
        assert '"title":"T"' in store.get("prd", "a")
    Store.open(str(root)).close()
    assert len(steps) == 2
    assert not list((root / ".taskstore").glob(".new-*"))


def test_a_migration_begins_where_the_store_stands(root: Path, steps: list[str]) -> None:
    """A store that is half-way up has only the steps that it lacks done."""
    version_file(root).write_text("2  # Current schema version\n")
    Store.open(str(root)).close()
    assert steps == ["second at 2"]
    assert version_file(root).read_bytes() == b"3\n"


def test_a_migration_that_fails_is_taken_up_again(root: Path, steps: list[str],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """After a step that raised, the version is that of the last step done, and the next opening goes on there."""
    second = layout.MIGRATIONS[2]

    def failing(_: Paths) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(layout.MIGRATIONS, 2, failing)
    with pytest.raises(OSError, match="No space"):
        Store.open(str(root))
    assert version_file(root).read_bytes() == b"2\n"
    monkeypatch.setitem(layout.MIGRATIONS, 2, second)
    Store.open(str(root)).close()
    assert steps == ["first at 1", "second at 2"]


def test_a_format_that_cannot_be_brought_up(root: Path, steps: list[str]) -> None:
    """A version below every migration is refused, and nothing of the store is touched."""
    version_file(root).write_bytes(b"0\n")
    before = fingerprint(root / ".taskstore")
    with pytest.raises(UnsupportedVersionError, match="has format 0, which this release cannot bring up to 3"):
        Store.open(str(root))
    assert fingerprint(root / ".taskstore") == before
    assert steps == []


def test_a_newer_format_is_not_brought_down(root: Path, steps: list[str]) -> None:
    """Migrations only go up: a store beyond our format is refused as any newer one."""
    version_file(root).write_bytes(b"4\n")
    with pytest.raises(UnsupportedVersionError, match="this release knows up to 3"):
        Store.open(str(root))
    assert steps == []


def test_create_migrates_too(root: Path, steps: list[str]) -> None:
    """Creating a store where an older one is brings that one up to date."""
    store, made = Store.create(str(root))
    store.close()
    assert made == []
    assert steps == ["first at 1", "second at 2"]


MIGRATING = """
import sys
from taskstore_core import layout
from taskstore_core.store import Store


def step(paths):
    with open(sys.argv[2], "a") as file:
        file.write("step\\n")


layout.FORMAT = 2
layout.MIGRATIONS[1] = step
print("ready", flush=True)
Store.open(sys.argv[1]).close()
"""


def test_of_two_processes_one_migrates(root: Path, tmp_path: Path) -> None:
    """Processes that find an old store at the same time take turns, and the later ones find it done."""
    with Lock(discover(str(root)).local("lock")):
        started = [subprocess.Popen([sys.executable, "-c", MIGRATING, str(root), str(tmp_path / "steps")],
                                    stdout=subprocess.PIPE) for _ in range(3)]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
    for process in started:
        process.communicate()
        assert process.returncode == 0
    assert (tmp_path / "steps").read_text() == "step\n"
    assert version_file(root).read_bytes() == b"2\n"
