"""Installing what ties a store to git, and taking it out again, in every shape of clone that git can make."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.hooks.conftest import HOOKS, NAME, PATIENCE_S, PROGRAM, Clone, files_of, record

from taskstore_hooks.git import Git, GitError

BLOCK = "# >>> taskstore >>>"
LINE = b"*.jsonl merge=taskstore-merge -text\n"
EVERYTHING = [*HOOKS, "merge driver", "attributes", "ignore patterns"]


def changed(clone: Clone, *words: str, at: Path | None = None) -> list[str]:
    """What a command says it changed."""
    answer = json.loads(clone.run(*words, "--json", at=at).stdout)
    return list((answer.get("git") or answer)["changed"])


def left(clone: Clone, *words: str) -> dict[str, str]:
    """What it left alone, by the name of the file, and why."""
    answer = json.loads(clone.run(*words, "--json").stdout)
    return {Path(each["file"]).name: each["reason"] for each in answer["left"]}


def has_driver(clone: Clone, at: Path | None = None) -> bool:
    return "git merge-file --union" in clone.git("config", "merge.taskstore-merge.driver", at=at, check=False).stdout


def level(clone: Clone, at: Path | None = None) -> bool:
    """Whether the cache holds what `prds.jsonl` does, without a command that brings it level."""
    import apsw

    db = apsw.Connection(str((at or clone.store) / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
    there = {key for (key,) in db.execute("SELECT id FROM prds_rows")}
    db.close()
    return there == {json.loads(line)["id"] for line in ((at or clone.store) / "prds.jsonl").read_text().splitlines()}


# Installing


def test_init_installs_everything(clone: Clone) -> None:
    """`init` makes the store and ties it to git; a second one has nothing to do."""
    said = clone.run("init").stdout
    assert said.splitlines()[0] == f"made a store in {clone.store}"
    assert all(word in said for word in (*EVERYTHING, "git has no post-rebase"))
    assert has_driver(clone)
    assert (clone.store / ".gitattributes").read_bytes() == LINE
    assert all(os.access(clone.hooks / name, os.X_OK) for name in HOOKS)
    assert changed(clone, "init") == []


def test_init_without_hooks(clone: Clone) -> None:
    """With --no-hooks `init` changes nothing of git's."""
    before = files_of(clone.top / ".git")
    clone.run("init", "--no-hooks")
    (clone.top / ".git" / "taskstore").rename(clone.top / "private")
    assert files_of(clone.top / ".git") == before
    assert not (clone.store / ".gitattributes").exists()


def test_outside_git(tmp_path: Path) -> None:
    """Outside git `init` makes a store and nothing else; install-hooks says what is missing."""
    folder = Clone(tmp_path / "plain", tmp_path / "home")
    folder.top.mkdir()
    assert json.loads(folder.run("init", "--json").stdout)["git"] is None
    done = folder.run("install-hooks", check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "is in no git repository; git init makes one" in done.stderr


def test_install_and_uninstall(clone: Clone) -> None:
    """install-hooks changes nothing the second time, and uninstall-hooks leaves every file as it was before."""
    clone.run("init", "--no-hooks")
    clone.hook("pre-commit", "#!/bin/bash -e\n# mine\nexit 0", 0o750)
    clone.hook("pre-push", b"#!/bin/sh", 0o700)
    clone.hook("post-merge", b"echo no first line\n")
    (clone.top / ".git" / "info" / "exclude").write_bytes(b"*.mine")
    (clone.store / ".gitattributes").write_bytes(b"x.jsonl text")
    before = files_of(clone.top)
    assert changed(clone, "install-hooks") == EVERYTHING
    installed = {path: (os.stat(path).st_mtime_ns, content) for path, content in files_of(clone.top).items()}
    assert changed(clone, "install-hooks") == []
    assert clone.run("install-hooks").stdout == "everything is installed already\n"
    assert installed == {path: (os.stat(path).st_mtime_ns, content) for path, content in files_of(clone.top).items()}
    assert changed(clone, "uninstall-hooks") == EVERYTHING
    assert files_of(clone.top) == before
    assert clone.run("uninstall-hooks").stdout == "nothing is installed\n"


def test_a_repository_without_any_folder_for_them(tmp_path: Path) -> None:
    """In a repository made with no template the folders are made, and go again."""
    clone = Clone(tmp_path / "bare bones", tmp_path / "home").make("--template=")
    clone.run("init", "--no-hooks")
    before = files_of(clone.top)
    assert changed(clone, "install-hooks") == EVERYTHING
    clone.run("uninstall-hooks")
    assert files_of(clone.top) == before


def test_before_there_is_a_store(clone: Clone) -> None:
    """install-hooks needs no store and makes none; taken out again, nothing is left."""
    before = files_of(clone.top)
    assert changed(clone, "install-hooks") == EVERYTHING
    assert os.listdir(clone.store) == [".gitattributes"]
    clone.commit()
    assert os.listdir(clone.store) == [".gitattributes"]
    clone.run("uninstall-hooks")
    assert set(files_of(clone.hooks, clone.store)) == {path for path in before if "/hooks/" in path}


def test_a_clone_that_has_the_attributes_gets_its_driver(tied: Clone, tmp_path: Path) -> None:
    """Attributes come with a clone, the driver does not: installing adds it, and leaves git's files as they are."""
    second = Clone(tmp_path / "second", tmp_path / "home")
    tied.git("clone", "-q", str(tied.top), str(second.top))
    assert not has_driver(second)
    assert changed(second, "init") == [*HOOKS, "merge driver", "ignore patterns"]
    assert has_driver(second)
    assert second.git("status", "--porcelain").stdout == ""


def test_attributes_that_git_tracks_stay(tied: Clone) -> None:
    """Uninstalling takes nothing from the other clones."""
    assert ".gitattributes" in left(tied, "uninstall-hooks")
    assert tied.git("status", "--porcelain").stdout == ""


def test_what_a_user_wrote_since_stays(clone: Clone) -> None:
    """Lines that were added to a hook of our making outlive it."""
    clone.run("init")
    with (clone.hooks / "pre-commit").open("a") as file:
        file.write("echo mine >> ran\n")
    clone.run("uninstall-hooks")
    assert (clone.hooks / "pre-commit").read_text() == "#!/bin/sh\necho mine >> ran\n"
    assert not (clone.hooks / "post-merge").exists()


def test_many_at_once(clone: Clone) -> None:
    """Any number of agents may run init at the same time: all succeed, and each thing is there once."""
    running = [subprocess.Popen([PROGRAM, "init"], cwd=clone.top, env=clone.environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    for process in running:
        assert process.communicate(timeout=PATIENCE_S)[1] == b""
        assert process.returncode == 0
    assert (clone.hooks / "pre-commit").read_text().count(BLOCK) == 1
    assert (clone.top / ".git" / "info" / "exclude").read_text().count(BLOCK) == 1
    assert (clone.top / ".git" / "config").read_text().count("driver = ") == 1
    assert changed(clone, "init") == []


def test_a_configuration_that_is_locked(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else writes git's configuration we wait for that, and no longer than a second."""
    for name in ("GIT_DIR", "GIT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    lock = clone.top / ".git" / "config.lock"
    lock.touch()
    monkeypatch.setattr("time.sleep", lambda _: lock.unlink(missing_ok=True))
    assert Git(str(clone.top)).set("a.b", "c")
    lock.touch()
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(GitError, match="could not lock config file"):
        Git(str(clone.top)).set("a.b", "d")
    assert Git(str(clone.top)).setting("a.b") == "c"


# Hooks of others


def test_a_hook_that_ends_early(clone: Clone) -> None:
    """Ours runs before an `exit` or `exec` of the user's, which still decides what git does."""
    clone.run("init", "--no-hooks")
    clone.hook("pre-commit", "#!/bin/sh\nset -eu\nexec sh -c 'exit 7'\n")
    clone.run("install-hooks")
    clone.write("prds.jsonl", record("p1"))
    assert not level(clone)
    assert clone.git("commit", "--allow-empty", "-m", "x", check=False).returncode == 1
    assert level(clone)
    clone.hook("post-checkout", "#!/bin/sh\nexit 0\n")
    clone.run("install-hooks")
    clone.write("prds.jsonl", record("p2"))
    clone.git("checkout", "-q", "-b", "other")
    assert level(clone)


def test_standard_input_and_arguments_are_the_users(clone: Clone) -> None:
    """What git gives to a hook reaches the user's lines whole."""
    clone.run("init")
    with (clone.hooks / "pre-push").open("a") as file:
        file.write('{ echo "$0 $1 $#"; cat; } > told\n')
    bare = clone.top.parent / "remote.git"
    clone.git("init", "-q", "--bare", str(bare))
    clone.git("push", "-q", str(bare), "HEAD:refs/heads/x")
    told = (clone.top / "told").read_text()
    assert told.startswith(".git/hooks/pre-push " + str(bare))
    assert "refs/heads/x" in told


@pytest.mark.parametrize(("text", "mode", "reason"), [
    (b"#!/usr/bin/env python3\nopen('ran', 'w')\n", 0o755, "it is no shell script"),
    (b"\x7fELF\0\0", 0o755, "it is no shell script"),
    (b"#!/bin/sh\nexit 0\n", 0o644, "it is not executable, so git does not run it"),
    (b"#!/bin/sh\r\nexit 0\r\n", 0o755, "it cannot be run: its first line ends in a carriage return"),
    (b"#!/bin/sh\n'''exec' python3 \"$0\" \"$@\"\n' '''\n", 0o755,
     "it is a program in another language, which a shell only starts"),
], ids=["python", "binary", "not executable", "carriage return", "polyglot"])
def test_what_is_left_alone(clone: Clone, text: bytes, mode: int, reason: str) -> None:
    """A hook that cannot take our lines keeps every byte; that and why is said, and the others are installed."""
    path = clone.hook("pre-commit", text, mode)
    assert left(clone, "install-hooks") == {"pre-commit": reason}
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (text, mode)
    assert f"left alone: {path}: {reason}" in clone.run("install-hooks").stderr
    assert BLOCK in (clone.hooks / "pre-push").read_text()


def test_carriage_returns_below_the_first_line(clone: Clone) -> None:
    """A hook with CR LF lines behind a good first one takes ours, which an editor may give CRs without breaking it."""
    clone.run("init", "--no-hooks")
    clone.hook("post-checkout", b"#!/bin/sh\n:\r\n")
    clone.run("install-hooks")
    first, _, rest = (clone.hooks / "post-checkout").read_bytes().partition(b"\n")
    rest = rest.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    (clone.hooks / "post-checkout").write_bytes(first + b"\n" + rest)
    clone.write("prds.jsonl", record("p1"))
    done = clone.git("checkout", "-q", "-b", "other", check=False)
    assert "Syntax error" not in done.stderr
    assert level(clone)


def test_a_hook_that_is_a_link(clone: Clone) -> None:
    """A symbolic link stays one: what it leads to takes our lines and loses them again."""
    target = clone.hook("shared.sh", "#!/bin/sh\nexit 0\n", folder=clone.top.parent)
    before = target.read_bytes()
    for name in ("pre-commit", "post-merge"):
        (clone.hooks / name).symlink_to(target)
    (clone.hooks / "pre-push").symlink_to(clone.top / "nowhere")
    assert left(clone, "install-hooks") == {"pre-push": "it is a symbolic link that leads nowhere"}
    assert changed(clone, "install-hooks") == []
    assert (clone.hooks / "pre-commit").is_symlink()
    assert target.read_text().count(BLOCK) == 1
    clone.run("uninstall-hooks")
    assert target.read_bytes() == before


def test_beside_the_pre_commit_framework(clone: Clone) -> None:
    """The framework, installed later, moves our hook aside and runs it; taking it out finds it there."""
    clone.run("init")
    (clone.hooks / "pre-commit").rename(clone.hooks / "pre-commit.legacy")
    framework = clone.hook("pre-commit", '#!/usr/bin/env bash\n# File generated by pre-commit: https://pre-commit.com\n'
                                         '"$(dirname "$0")/pre-commit.legacy" "$@"\nexec true\n')
    before = framework.read_bytes()
    assert changed(clone, "install-hooks") == []
    clone.write("prds.jsonl", record("p1"))
    clone.commit()
    assert level(clone)
    clone.run("uninstall-hooks")
    assert framework.read_bytes() == before
    assert not (clone.hooks / "pre-commit.legacy").exists()


def test_after_the_pre_commit_framework(clone: Clone) -> None:
    """Its script, there first, takes our lines like any other and runs on."""
    clone.run("init", "--no-hooks")
    clone.hook("pre-commit", "#!/usr/bin/env bash\n# File generated by pre-commit: https://pre-commit.com\n"
                             '# ID: 138fd403232d2ddd5efb44317e38bf03\nARGS=(hook-impl)\nexec touch "ran ${ARGS[0]}"\n')
    clone.run("install-hooks")
    clone.write("prds.jsonl", record("p1"))
    clone.commit()
    assert level(clone)
    assert (clone.top / "ran hook-impl").exists()


def test_beside_husky(clone: Clone) -> None:
    """Husky's folder is where git looks; its wrappers take our lines and still run the project's hooks."""
    clone.run("init", "--no-hooks")
    folder = clone.top / ".husky" / "_"
    for name in HOOKS:
        clone.hook(name, '#!/usr/bin/env sh\n. "${0%/*}/h"', folder=folder)
    clone.hook("h", '#!/usr/bin/env sh\nn=$(basename "$0")\ns=$(dirname "$(dirname "$0")")/$n\n'
                    '[ ! -f "$s" ] && exit 0\nsh -e "$s" "$@"\nexit $?\n', folder=folder)
    clone.hook("pre-commit", "touch 'husky ran'\n", 0o644, folder=clone.top / ".husky")
    clone.git("config", "core.hooksPath", ".husky/_")
    before = files_of(clone.top / ".husky")
    clone.run("install-hooks")
    clone.write("prds.jsonl", record("p1"))
    clone.commit()
    assert level(clone)
    assert (clone.top / "husky ran").exists()
    assert not any(BLOCK in path.read_text() for path in clone.hooks.iterdir() if path.is_file())
    clone.run("uninstall-hooks")
    assert files_of(clone.top / ".husky") == before


# Where hooks are


@pytest.mark.parametrize("kind", ["absolute", "relative", "home", "missing"])
def test_a_folder_of_hooks_elsewhere(clone: Clone, kind: str, tmp_path: Path) -> None:
    """core.hooksPath decides where, however it is written; a folder that is missing is made."""
    clone.run("init", "--no-hooks")
    folder, value = {
        "absolute": (tmp_path / NAME / "h", str(tmp_path / NAME / "h")), "relative": (clone.top / "a b/h", "a b/h"),
        "home": (tmp_path / "home" / "my hooks", "~/my hooks"), "missing": (clone.top / "deep/er", "deep/er")}[kind]
    if kind != "missing":
        folder.mkdir(parents=True)
    clone.git("config", "core.hooksPath", value)
    (clone.top / "sub").mkdir()
    clone.run("install-hooks", at=clone.top / "sub")
    assert {path.name for path in folder.iterdir()} == set(HOOKS)
    clone.write("prds.jsonl", record("p1"))
    clone.commit(at=clone.top / "sub")
    assert level(clone)
    clone.run("uninstall-hooks")
    assert not list(folder.iterdir())


def test_hooks_that_are_switched_off(clone: Clone) -> None:
    """Where core.hooksPath names no folder that is said; driver, attributes and patterns are installed."""
    clone.git("config", "core.hooksPath", os.devnull)
    assert left(clone, "install-hooks") == {"null": "core.hooksPath names no folder, so git runs no hooks"}
    assert has_driver(clone)
    assert Path(os.devnull).is_char_device()


def test_in_a_linked_worktree(clone: Clone, tmp_path: Path) -> None:
    """From a linked worktree hooks and driver are the repository's; there, they bring the one store level."""
    tree = tmp_path / "a tree"
    clone.git("worktree", "add", "-q", str(tree), "-b", "side")
    assert changed(clone, "init", at=tree) == EVERYTHING
    assert not (tree / ".taskstore").exists()
    assert has_driver(clone)
    clone.write("prds.jsonl", record("p1"))
    clone.commit(at=tree)
    assert level(clone)


def test_a_relative_folder_in_a_linked_worktree(clone: Clone, tmp_path: Path) -> None:
    """A relative core.hooksPath is another folder in each worktree: the one we stand in gets its hooks too."""
    tree = tmp_path / "a tree"
    clone.git("worktree", "add", "-q", str(tree), "-b", "side")
    clone.git("config", "core.hooksPath", ".githooks")
    clone.run("init", at=tree)
    for top in (clone.top, tree):
        assert {path.name for path in (top / ".githooks").iterdir()} == set(HOOKS)


def test_in_a_submodule(clone: Clone, tmp_path: Path) -> None:
    """A submodule is a repository of its own, hooks and driver included; its superproject stays as it is."""
    library = Clone(tmp_path / "library", tmp_path / "home").make()
    clone.git("submodule", "--quiet", "add", str(library.top), "lib rary")
    config = (clone.top / ".git" / "config").read_bytes()
    part = Clone(clone.top / "lib rary", tmp_path / "home")
    part.run("init")
    assert BLOCK in (clone.top / ".git/modules/lib rary/hooks/pre-commit").read_text()
    part.write("prds.jsonl", record("p1"))
    part.commit()
    assert level(part)
    assert (clone.top / ".git" / "config").read_bytes() == config
    assert not (clone.hooks / "pre-commit").exists()
    assert not clone.store.exists()


def test_a_store_that_hooks_would_not_find(clone: Clone) -> None:
    """A second store in a repository gets attributes, driver and patterns; hooks are for the one at the top."""
    done = clone.run("init", "--json", "--store", str(clone.top / "sub dir" / "second"))
    assert json.loads(done.stdout)["git"]["changed"] == EVERYTHING[len(HOOKS):]
    assert "at the top" in json.loads(done.stdout)["git"]["left"][0]["reason"]
    assert clone.git("status", "--porcelain", "-uall").stdout.count("second/") == 8  # and neither cache nor lock
    assert clone.git("check-attr", "merge", "sub dir/second/prds.jsonl").stdout.endswith(": taskstore-merge\n")


# What git keeps out


def test_the_cache_is_ignored_on_every_branch(clone: Clone) -> None:
    """On a branch without the store, whose .gitignore is gone with it, `git add -A` takes in nothing of ours."""
    clone.git("branch", "bare-of-it")
    clone.run("init")
    clone.run("create", "prd", "--set", "title=T")
    clone.git("add", "-A")
    clone.commit()
    clone.git("checkout", "-q", "bare-of-it")
    assert (clone.store / "store.db").exists()
    assert clone.git("status", "--porcelain").stdout == ""


# Refused


def test_a_repository_of_somebody_else(clone: Clone) -> None:
    """Where git does not trust a repository, nothing is made, and the command that makes it trust is named."""
    before = files_of(clone.top)
    for command in ("init", "install-hooks", "uninstall-hooks"):
        done = clone.run(command, check=False, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
        assert (done.returncode, done.stdout) == (3, "")
        assert "git refuses" in done.stderr
        assert "git config --global --add safe.directory" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert files_of(clone.top) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_repository_that_was_given_away(clone: Clone) -> None:
    """The same where it really belongs to another user, and trusting it lets us in."""
    subprocess.run(["chown", "-R", "65534:65534", str(clone.top)], check=True)
    assert "git refuses" in clone.run("init", check=False).stderr
    clone.git("config", "--global", "--add", "safe.directory", str(clone.top))
    assert changed(clone, "init") == EVERYTHING
    assert (clone.hooks / "pre-commit").stat().st_mode & 0o111


def test_without_git(clone: Clone) -> None:
    """Without git on PATH the store can be made, and what cannot be is said."""
    done = clone.run("init", check=False, PATH="")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "taskstore: git is not on PATH; install it, or taskstore init --no-hooks\n"
    clone.run("init", "--no-hooks", PATH="")
    clone.run("stats", PATH="")


def test_a_hook_that_cannot_be_written(clone: Clone) -> None:
    """One hook that cannot be written is named, and the others are installed."""
    (clone.hooks / "pre-commit").mkdir()
    reasons = left(clone, "install-hooks")
    assert list(reasons) == ["pre-commit"]
    assert has_driver(clone)
    assert BLOCK in (clone.hooks / "post-merge").read_text()


def test_shared_with_a_group(tmp_path: Path) -> None:
    """In a repository shared with a group others may run, read and take out the hooks, too."""
    clone = Clone(tmp_path / "repo", tmp_path / "home").make("--shared=group")
    clone.run("init")
    mode = clone.hooks.stat().st_mode
    assert (clone.hooks / "pre-commit").stat().st_mode & 0o777 == mode & 0o777
    assert (clone.store / ".gitattributes").stat().st_mode == (clone.store / ".gitignore").stat().st_mode
