"""The driver as a program: arguments, exit status, what it touches and what it imports, and being killed."""

import os
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.merge.logs import gone, line, log
from tests.merge.repos import Repo

BASE = log(line("a", 1), line("b", 2))
OURS = BASE + log(line("a", 5, title="y"))
THEIRS = BASE + log(line("b", 6, title="z"))
MERGED = BASE + log(line("a", 5, title="y"), line("b", 6, title="z"))

HEAVY = {"msgspec", "orjson", "apsw", "xxhash", "trio", "pygit2", "watchfiles", "asyncio", "rich", "argparse",
         "taskstore", "importlib.metadata", "tempfile", "dataclasses", "typing", "inspect", "pathlib", "subprocess"}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Base, ours and theirs, under names as git gives them."""
    folder = tmp_path / "work tree"
    folder.mkdir()
    paths = [folder / f".merge_file_{name}" for name in "OAB"]
    for path, data in zip(paths, (BASE, OURS, THEIRS), strict=True):
        path.write_bytes(data)
    return paths


def drive(*arguments: "str | Path", prefix: Sequence[str] = (), code: str = "") -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", code] if code else [sys.executable, "-m", "taskstore_merge"]
    return subprocess.run([*prefix, *program, *map(str, arguments)], capture_output=True, text=True, check=False)


def traced(call: str, what: str) -> list[str]:
    """What stands before a command to have something happen to its system calls of this name."""
    return ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:{what}"]


@pytest.mark.parametrize("more", [[], ["7"], ["7", ".taskstore/prds.jsonl"]], ids=len)
def test_merged(files: list[Path], more: list[str]) -> None:
    """With three to five arguments it merges into ours, says nothing, and ends with 0; the other files stay."""
    files[1].chmod(0o640)
    done = drive(*files, *more)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.read_bytes() for path in files] == [BASE, MERGED, THEIRS]
    assert files[1].stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in files[0].parent.iterdir()) == sorted(path.name for path in files)


def test_the_installed_program(files: list[Path]) -> None:
    """The program that git is told of is installed under its name."""
    program = os.path.join(sysconfig.get_path("scripts"), "taskstore-merge")
    assert subprocess.run([program, *files, "7", "prds.jsonl"], check=False).returncode == 0
    assert files[1].read_bytes() == MERGED


def test_from_another_folder(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Names without a folder are those of the folder it stands in."""
    monkeypatch.chdir(files[0].parent)
    assert drive(*(path.name for path in files)).returncode == 0
    assert files[1].read_bytes() == MERGED


def test_conflict(files: list[Path]) -> None:
    """With a conflict it ends with 1 and says of which records; markers are as long as asked for."""
    files[2].write_bytes(BASE + log(line("a", 5, title="\x1bz")))
    done = drive(*files, "9", "x/prds.jsonl")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "taskstore-merge: x/prds.jsonl: 1 in conflict (a); taskstore resolve-conflicts settles it\n"
    assert b"\n" + b"=" * 9 + b"\n" in files[1].read_bytes()


@pytest.mark.parametrize("arguments", [
    [], ["O"], ["O", "A"], ["O", "A", "B", "7", "P", "more"], ["O", "A", "B", "seven"], ["O", "A", "B", "-7"],
    ["O", "A", "B", "P", "7"], ["O", "A", "B", ""], ["--help"], ["O", "A", "B", "99999"],
], ids=" ".join)
def test_wrong_arguments(files: list[Path], arguments: list[str]) -> None:
    """Any other count of arguments, or a size that is none, ends with 2, and nothing is touched."""
    there = {path.name[-1]: path for path in files}
    done = drive(*(there.get(word, Path(word)) if word in there else word for word in arguments))
    assert done.returncode == 2
    assert done.stderr.startswith("taskstore-merge: usage: taskstore-merge BASE OURS THEIRS")
    assert [path.read_bytes() for path in files] == [BASE, OURS, THEIRS]


@pytest.mark.parametrize("missing", range(3))
def test_a_missing_file(files: list[Path], missing: int) -> None:
    """A file that cannot be read is an error that names it, and ours is as it was."""
    files[missing].unlink()
    done = drive(*files, "7", "prds.jsonl")
    assert done.returncode == 2
    assert os.fspath(files[missing]) in done.stderr
    assert missing == 1 or files[1].read_bytes() == OURS


@pytest.mark.parametrize("call", ["fchmod", "linkat", "rename"])
@pytest.mark.usefixtures("strace")
def test_a_full_disk(files: list[Path], call: str) -> None:
    """Where the disk is full, that is an error; ours is as it was and nothing is left beside it."""
    done = drive(*files, prefix=traced(call, "error=ENOSPC:when=1"))
    assert (done.returncode, files[1].read_bytes()) == (2, OURS)
    assert "No space left" in done.stderr
    assert len(list(files[0].parent.iterdir())) == 3


def test_a_fault_of_ours(files: list[Path]) -> None:
    """An error that nobody thought of ends with 2 as well: git must not take half a merge for one."""
    code = ("import sys, taskstore_merge.driver as driver\n"
            "def fail(*_): raise ZeroDivisionError('a fault')\n"
            "driver.merge = fail\nsys.exit(driver.main(sys.argv[1:]))")
    done = drive(*files, code=code)
    assert (done.returncode, done.stderr) == (2, "taskstore-merge: ZeroDivisionError: a fault; nothing was merged\n")
    assert files[1].read_bytes() == OURS


def test_without_nameless_files(files: list[Path]) -> None:
    """Where the file system has no nameless files, one with a name takes their place and goes."""
    code = ("import sys, taskstore_merge.driver as driver\n"
            "driver._open_nameless = lambda folder: None\nsys.exit(driver.main(sys.argv[1:]))")
    assert drive(*files, code=code).returncode == 0
    assert files[1].read_bytes() == MERGED
    assert len(list(files[0].parent.iterdir())) == 3


def test_kinds(files: list[Path]) -> None:
    """The kind comes from the path; without one, lines keyed by `repo_path` are told from others."""
    state = [b'{"repo_path":"/r","last_synced_commit":"%s","updated_at":%d}\n' % (b"abc"[n:n + 1], n) for n in range(3)]
    for more in ([], ["7"], ["7", ".taskstore/repo_state.jsonl"]):
        for path, data in zip(files, (state[0], state[0] + state[1], state[0] + state[2]), strict=True):
            path.write_bytes(data)
        assert drive(*files, *more).returncode == 0
        assert files[1].read_bytes() == b"".join(state)


def modules_after(files: list[Path]) -> set[str]:
    code = ("import sys\nfrom taskstore_merge.driver import main\nassert main(sys.argv[1:]) == 0\n"
            "print(' '.join(sys.modules))")
    done = drive(*files, "7", "prds.jsonl", code=code)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def loaded(modules: set[str], named: set[str]) -> set[str]:
    return {name for name in named if any(f"{module}.".startswith(f"{name}.") for module in modules)}


def test_start_up(files: list[Path]) -> None:
    """Git waits for it: a merge of few lines imports nothing heavy; one in which nothing is parsed, not even json."""
    modules = modules_after(files)
    assert loaded(modules, HEAVY) == set()
    assert loaded(modules, {"json", "taskstore_core.jsonl"}) == {"json", "taskstore_core.jsonl"}
    files[1].write_bytes(BASE)
    files[2].write_bytes(log(line("b", 2)))
    assert loaded(modules_after([files[0], files[1], files[1]]), {*HEAVY, "json", "re", "enum"}) == set()


def test_common_lines_are_not_parsed(files: list[Path]) -> None:
    """Nothing is parsed but lines that differ: with none that does, json is never imported."""
    files[1].write_bytes(BASE + b"\n")
    files[2].write_bytes(BASE + b"\n\n")
    assert "json" not in modules_after(files)


# Killed


@pytest.mark.parametrize("call", ["fchmod", "linkat", "rename", "write", "close", "openat", "read"])
@pytest.mark.usefixtures("strace")
def test_killed(files: list[Path], call: str) -> None:
    """Killed at any of its system calls, ours is whole: as it was, or merged."""
    names = {path.name for path in files}
    seen = set()
    for when in range(1, 400, 1 if call in {"fchmod", "linkat", "rename", "write"} else 23):
        files[1].write_bytes(OURS)
        done = drive(*files, prefix=traced(call, f"signal=KILL:when={when}"))
        data = files[1].read_bytes()
        assert data in {OURS, MERGED}
        seen.add(data)
        left = {path.name for path in files[0].parent.iterdir()} - names
        assert len(left) <= (call == "rename")  # between the two calls that give it a name and the place
        for name in left:
            (files[0].parent / name).unlink()
        if done.returncode == 0:
            break
        assert done.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
    else:
        raise AssertionError("it was killed every time")
    assert MERGED in seen
    assert OURS in seen


@pytest.mark.parametrize("call", ["openat", "linkat", "rename"])
@pytest.mark.usefixtures("strace")
def test_killed_under_git(tmp_path: Path, call: str) -> None:
    """When the driver is killed, git says so, HEAD and logs are as they were, and the merge can be done again."""
    program = f"{shlex.quote(sys.executable)} -m taskstore_merge %O %A %B %L %P"
    repo = Repo.make(tmp_path / "repo")
    repo.append(line("a", 1), line("b", 2))
    repo.git("checkout", "-q", "-b", "one")
    repo.append(line("a", 5, title="y"))
    repo.git("checkout", "-q", "main")
    repo.append(gone("b", 6))
    before, head, staged = repo.read(), repo.git("rev-parse", "HEAD"), repo.git("ls-files", "-s")
    repo.git("config", "merge.taskstore-merge.driver",
             f"{shlex.join(traced(call, 'signal=KILL:when=1'))} {program}")
    assert repo.run("merge", "-q", "--no-edit", "one").status != 0
    assert repo.git("rev-parse", "HEAD") == head
    assert repo.read() == before
    if repo.run("rev-parse", "-q", "--verify", "MERGE_HEAD").status == 0:
        repo.git("merge", "--abort")
    assert (repo.read(), repo.git("ls-files", "-s")) == (before, staged)
    for leftover in repo.root.glob(".merge_file_*"):
        leftover.unlink()
    assert repo.git("status", "--porcelain") == ""
    repo.register(program)
    repo.git("merge", "-q", "--no-edit", "one")
    assert repo.read() == before[:-len(log(gone("b", 6)))] + log(line("a", 5, title="y"), gone("b", 6))
