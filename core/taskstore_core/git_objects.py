"""Which lines git holds: in the commits, stages and stashes that a command may have put a log into just now.

By the git of the user, as its own plumbing reads every kind of repository (sha256, partial clones, reftable).
"""

import os
import subprocess
from contextlib import closing

from .git import common_dir, environment
from .paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

_HEADS = ("HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD")
_PAST_HEADS = ("ORIG_HEAD", "AUTO_MERGE")
_AUTOSTASH = ("rebase-merge/autostash", "rebase-apply/autostash", "MERGE_AUTOSTASH")
_STAGES = range(4)
_RECENT = 50  # commits that HEAD and the stash have been at
_TIPS = 200  # branches, the last changed first
_PATIENCE_S = 60
_SLACK_MS = 2000  # a file system may keep no parts of a second, and a clock may have been set back


def held(paths: Paths, log: str, lines: "Mapping[str, int]") -> set[str]:
    """Those of `lines` that stand in any version of a log that git holds; none where git cannot be asked.

    `lines` are with when they were written, in Unix ms: what git stored before that need not be read for them.
    """
    return _found(paths, log, lines, lambda: [*_tips(paths), *_past(paths)])


def reachable(paths: Paths, log: str, lines: "Mapping[str, int]") -> set[str]:
    """Those that stand in a version which a checkout, merge or `stash pop` brings: not what only a reflog knows yet."""
    return _found(paths, log, dict.fromkeys(lines, 0), lambda: [*_tips(paths)])


def _found(paths: Paths, log: str, lines: "Mapping[str, int]", commits: "Callable[[], list[str]]") -> set[str]:
    """Those of `lines` that stand in the log as the index or one of the `commits` has it."""
    if paths.git_dir is None or paths.worktree is None or not lines:
        return set()
    name = os.path.relpath(paths.file(log), paths.worktree)
    left = {line.encode(): at for line, at in lines.items()}
    try:
        blobs = _blobs(paths, [f"{commit}:{name}" for commit in dict.fromkeys(commits())]
                       + [f":{n}:{name}" for n in _STAGES])
        with closing(_contents(paths, _worth_reading(paths, blobs, left))) as contents:
            for content in contents:
                for raw in left.keys() & set(content.split(b"\n")):
                    del left[raw]
    except (OSError, subprocess.SubprocessError, ValueError):
        return set()  # a line that is appended twice does no harm
    return {line for line in lines if line.encode() not in left}


def _tips(paths: Paths) -> "Iterator[str]":
    """Names of the commits that somebody works on or put away, whether or not they exist."""
    yield from _HEADS
    yield from _reflog(paths, "refs/stash")  # the parents of a stash are the index and what was untracked
    for name in _AUTOSTASH:
        try:
            with open(f"{paths.git_dir}/{name}", encoding="ascii") as file:
                commit = file.read().strip()
        except (OSError, UnicodeDecodeError):
            continue
        yield commit
        yield f"{commit}^2"
    yield from _git(paths, "for-each-ref", f"--count={_TIPS}", "--sort=-committerdate", "--format=%(objectname)",
                    "refs/heads", "refs/remotes").decode().split()


def _past(paths: Paths) -> "Iterator[str]":
    """Names of commits that HEAD was at, and that git deletes some day if nothing else leads to them."""
    yield from _PAST_HEADS
    yield from _reflog(paths, "HEAD")


def _reflog(paths: Paths, reference: str) -> list[str]:
    """The commits that a reference was at of late, and their parents."""
    try:
        return _git(paths, "log", "-g", f"-n{_RECENT}", "--format=%H %P", reference, "--").decode().split()
    except subprocess.CalledProcessError:  # no commit yet, or no stash
        return []


def _blobs(paths: Paths, names: list[str]) -> list[str]:
    """The ids of the blobs of these names, each once; names that lead to none are left out.

    A partial clone lacks what was never checked out, and git ends where it cannot fetch it. None of our lines is there.
    """
    words: list[list[str]] = []
    while names:
        done = subprocess.run([*_command(paths), "cat-file", "--batch-check=%(objecttype) %(objectname)"],
                              input=os.fsencode("\n".join(names)), capture_output=True, check=False, env=_environment(),
                              timeout=_PATIENCE_S)
        answers = done.stdout.decode(errors="replace").splitlines()
        words += [line.split() for line in answers]
        names = names[len(answers) + 1:] if done.returncode else []
    return list(dict.fromkeys(line[1] for line in words if len(line) == 2 and line[0] == "blob"))  # noqa: PLR2004


def _worth_reading(paths: Paths, blobs: list[str], left: "Mapping[bytes, int]") -> "Iterator[str]":
    """The blobs, one by one, that may hold what is still `left` to be found (→ when it was written, in Unix ms).

    The newest come first, as they have most of it: there may be a hundred versions of a large log, and reading them
    takes seconds. How old one in a pack is, is not known.
    """
    assert paths.git_dir is not None  # noqa: S101 - git was asked there
    objects = f"{common_dir(paths.git_dir)}/objects"
    stored = {blob: _stored_ms(f"{objects}/{blob[:2]}/{blob[2:]}") for blob in blobs}
    loose = {blob: ms for blob, ms in stored.items() if ms is not None}
    for blob in sorted(loose, key=loose.__getitem__, reverse=True):
        if not left or loose[blob] < min(left.values()):
            break
        yield blob
    for blob in stored.keys() - loose.keys():
        if left:
            yield blob


def _stored_ms(path: str) -> int | None:
    """When an object was written to a file of its own, or found there again, in Unix ms at the latest."""
    try:
        return os.stat(path).st_mtime_ns // 1_000_000 + _SLACK_MS
    except OSError:
        return None


def _contents(paths: Paths, blobs: "Iterable[str]") -> "Generator[bytes]":
    """What is in each blob, by one command for all."""
    with subprocess.Popen([*_command(paths), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, env=_environment()) as process:
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            for blob in blobs:
                process.stdin.write(f"{blob}\n".encode())
                process.stdin.flush()
                size = int(process.stdout.readline().split()[2])
                yield process.stdout.read(size + 1)[:size]
        finally:
            process.kill()


def _command(paths: Paths) -> list[str]:
    return ["git", f"--git-dir={paths.git_dir}", f"--work-tree={paths.worktree}"]


def _environment() -> dict[str, str]:
    """What git is run with: nothing is fetched for it, where git can do without (since 2.44)."""
    return environment() | {"GIT_NO_LAZY_FETCH": "1"}


def _git(paths: Paths, *arguments: str) -> bytes:
    """What a git command says that changes nothing; raises SubprocessError where it fails."""
    return subprocess.run([*_command(paths), *arguments], capture_output=True, check=True, env=_environment(),
                          timeout=_PATIENCE_S).stdout
