"""What our hooks cost a `git commit`, byte-compiled: against one without, in a small store and in a large one."""

import compileall
import fcntl
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable

from measure import Row, interleaved, scratch

import taskstore
import taskstore_core
import taskstore_hooks

SIZES = (1_000, 100_000)
ALLOWED_MS = 60.0
BOUND_MS = 1000.0
FLAT = 1.25
_PROGRAM = os.path.join(sysconfig.get_path("scripts"), "taskstore")
_GIT = ("git", "-c", "user.name=b", "-c", "user.email=b@x", "-c", "core.fsync=none", "-c", "gc.auto=0")


class _Clone:
    """A repository with a store of `size` task specs, committed."""

    def __init__(self, folder: str, size: int) -> None:
        self.folder = folder
        os.mkdir(folder)
        self.git("init", "-q")
        self.run("init")
        with open(f"{folder}/.taskstore/task_specs.jsonl", "w", encoding="utf-8") as file:
            file.writelines(f'{{"id":"ts-{n:08}","prd_id":"prd-{n % 100:08}","phase_name":"Phase {n}",'
                            f'"description":"{"what to do " * 20}","created_at":{n},"updated_at":{n},'
                            f'"status":"pending","workflow_name":null,"assigned_to":null,"content":""}}\n'
                            for n in range(size))
        self.run("sync")
        self.git("add", ".")
        self.git("commit", "-qm", "begin")
        self.git("branch", "other")
        self.records = 0

    def git(self, *words: str) -> None:
        subprocess.run([*_GIT, *words], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def run(self, *words: str) -> None:
        subprocess.run([_PROGRAM, *words], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def commit(self, *, hooks: bool) -> Callable[[], None]:
        """A commit of whatever is staged, nothing here, by a git that runs hooks or none."""
        words = () if hooks else ("-c", f"core.hooksPath={os.devnull}")
        return lambda: self.git(*words, "commit", "-q", "--allow-empty", "-m", "x")

    def commit_behind(self) -> None:
        """A commit right after another program appended a record, which the hook has to bring into the cache."""
        self.records += 1
        with open(f"{self.folder}/.taskstore/prds.jsonl", "a", encoding="utf-8") as file:
            file.write(f'{{"id":"p{self.records}","title":"t","updated_at":5}}\n')
        self.git("commit", "-q", "--allow-empty", "-m", "x")


def run(rounds: int = 40) -> list[Row]:
    """The commit that all agents make all the time: nothing of the store changed since it was last looked at."""
    for package in (taskstore, taskstore_core, taskstore_hooks):
        compileall.compile_dir(os.path.dirname(str(package.__file__)), quiet=1)
    with scratch() as folder:
        clones = {size: _Clone(f"{folder}/{size}", size) for size in SIZES}
        functions: dict[str, Callable[[], object]] = {"bare": lambda: subprocess.run(
            [sys.executable, "-c", "pass"], check=True)}
        for size, clone in clones.items():
            functions[f"without {size}"] = clone.commit(hooks=False)
            functions[f"with {size}"] = clone.commit(hooks=True)
            functions[f"behind {size}"] = clone.commit_behind
        times = interleaved(functions, rounds)
        with open(f"{folder}/{SIZES[0]}/.git/taskstore/lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = interleaved({"held": clones[SIZES[0]].commit_behind}, 5)["held"] - times[f"without {SIZES[0]}"]
    cost = {size: times[f"with {size}"] - times[f"without {size}"] for size in SIZES}
    small, large = SIZES
    return [
        *(Row(f"hooks: what a commit costs more, {size:,} records", cost[size], "what it may cost", ALLOWED_MS, 1)
          for size in SIZES),
        Row(f"hooks: the same, {large:,} records", cost[large], f"with {small:,} records", cost[small], FLAT),
        Row("hooks: the same", cost[large], "bare interpreter start", times["bare"]),
        *(Row(f"hooks: one record behind, {size:,} records", times[f"behind {size}"] - times[f"without {size}"],
              "what it may cost", ALLOWED_MS) for size in SIZES),
        Row("hooks: while another process holds the lock", held, "what it may cost", BOUND_MS, 1)]
