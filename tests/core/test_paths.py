"""Which store a folder means, and where its private files lie: in every shape of repository that git can make."""

import os
import subprocess
from pathlib import Path

import pytest

from taskstore_core.batch import Operation
from taskstore_core.errors import NoStoreError
from taskstore_core.kinds import KINDS
from taskstore_core.paths import STORE, Paths, discover, named
from taskstore_core.store import Store

NAME = "-a b 'ä\"\t日本$x"
"""Whatever breaks careless programs, in one name."""


def git(folder: Path, *words: str) -> None:
    """Run git with no configuration but our own."""
    subprocess.run(
        ["git", "-c", "user.name=N", "-c", "user.email=e@x", "-c", "protocol.file.allow=always",
         "-c", "init.defaultBranch=main", *words],
        cwd=folder, check=True, capture_output=True,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
             "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull})


def make_repository(folder: Path, *words: str) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", *words)
    (folder / "sub" / "folder").mkdir(parents=True)
    (folder / "sub" / "folder" / "file").write_text("x")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def is_store(paths: Paths, top: Path, git_dir: Path | None, private: Path) -> bool:
    """Whether `paths` are those of the store of the worktree at `top`."""
    assert paths.directory == str(top / STORE)
    assert paths.git_dir == (None if git_dir is None else str(git_dir))
    assert paths.private == str(private)
    return True


@pytest.fixture(name="base")
def fixture_base(tmp_path: Path) -> Path:
    """A folder under a name that programs have to be careful with."""
    (tmp_path / NAME).mkdir()
    return tmp_path / NAME


@pytest.fixture(name="repository")
def fixture_repository(base: Path) -> Path:
    return make_repository(base / "repo")


# Outside git


def test_a_plain_folder(base: Path) -> None:
    """Outside git the store is that of the nearest folder above which has one, else of the folder itself."""
    deep = base / "a" / "b" / "c"
    deep.mkdir(parents=True)
    assert is_store(discover(str(deep)), deep, None, deep / STORE / ".local")
    Store.create(str(base / "a"))[0].close()
    assert is_store(discover(str(deep)), base / "a", None, base / "a" / STORE / ".local")
    Store.create(directory=str(deep / STORE))[0].close()
    assert is_store(discover(str(deep)), deep, None, deep / STORE / ".local")
    assert is_store(discover(str(base / "a" / "b")), base / "a", None, base / "a" / STORE / ".local")


def test_a_folder_without_a_version_is_no_store(tmp_path: Path) -> None:
    """A .taskstore with no .version in it, as a branch switch leaves it, does not stop the search."""
    (tmp_path / "a" / STORE).mkdir(parents=True)
    Store.create(str(tmp_path))[0].close()
    assert discover(str(tmp_path / "a")).directory == str(tmp_path / STORE)


@pytest.mark.parametrize("what", ["missing", "file"])
def test_what_is_no_folder(tmp_path: Path, what: str) -> None:
    """A place to start from that is no folder is named in the refusal."""
    if what == "file":
        (tmp_path / what).write_text("")
    with pytest.raises(NoStoreError, match=f"{what} is not a folder"):
        discover(str(tmp_path / what))


# In a repository


@pytest.mark.parametrize("place", ["", "sub", "sub/folder", ".git", ".git/objects", STORE])
def test_anywhere_in_a_repository(repository: Path, place: str) -> None:
    """Every folder of a repository means the store at its top, whose private files lie in the git dir."""
    (repository / STORE).mkdir()
    paths = discover(str(repository / place))
    assert is_store(paths, repository, repository / ".git", repository / ".git" / "taskstore")


def test_a_repository_comes_before_a_store_above_it(tmp_path: Path) -> None:
    """A repository without a store means its own, not one that a folder around it has."""
    Store.create(str(tmp_path))[0].close()
    repository = make_repository(tmp_path / "repo")
    assert discover(str(repository / "sub")).directory == str(repository / STORE)


def test_a_store_within_a_repository_is_not_found_by_standing_beside_it(repository: Path) -> None:
    """Only the store at the top is discovered: another in a subfolder has to be named."""
    Store.create(directory=str(repository / "sub" / STORE))[0].close()
    assert discover(str(repository / "sub" / "folder")).directory == str(repository / STORE)


def test_a_linked_worktree(repository: Path, base: Path) -> None:
    """A linked worktree, wherever it lies, means the main worktree's store, with the same lock and outbox."""
    git(repository, "worktree", "add", "-q", "--detach", str(base / "linked tree"))
    git(repository, "worktree", "add", "-q", "--detach", str(repository / "within"))
    for tree in (base / "linked tree", base / "linked tree" / "sub", repository / "within" / "sub" / "folder"):
        assert is_store(discover(str(tree)), repository, repository / ".git", repository / ".git" / "taskstore")


def test_a_linked_worktree_that_was_moved(repository: Path, base: Path) -> None:
    """A linked worktree that git moved still means the main worktree's store."""
    git(repository, "worktree", "add", "-q", "--detach", str(base / "tree"))
    git(repository, "worktree", "move", str(base / "tree"), str(base / "elsewhere"))
    assert discover(str(base / "elsewhere" / "sub")).directory == str(repository / STORE)


def test_worktrees_share_one_state(repository: Path, base: Path) -> None:
    """What is written from one worktree is read in the other at once."""
    git(repository, "worktree", "add", "-q", "--detach", str(base / "tree"))
    with Store.create(str(repository))[0] as here, Store.open(str(base / "tree" / "sub")) as there:
        there.apply([Operation("create", KINDS["prd"], {"id": "a", "title": "t"})])
        assert here.get("prd", "a") == there.get("prd", "a")
        assert there.flush(60)
    assert (repository / STORE / "prds.jsonl").stat().st_size
    assert not (base / "tree" / STORE).exists()


def test_a_worktree_whose_repository_is_gone(repository: Path, base: Path) -> None:
    """A linked worktree that leads nowhere is refused by the name of what is missing, with what to do."""
    git(repository, "worktree", "add", "-q", "--detach", str(base / "tree"))
    repository.rename(base / "moved")
    with pytest.raises(NoStoreError, match="which does not exist") as caught:
        discover(str(base / "tree"))
    assert "git worktree repair" in caught.value.hint


# Submodules


@pytest.fixture(name="submodule")
def fixture_submodule(repository: Path, base: Path) -> Path:
    library = make_repository(base / "library")
    git(repository, "submodule", "--quiet", "add", "--name", "the library", str(library), "sub/lib rary")
    git(repository, "commit", "-qm", "submodule")
    return repository / "sub" / "lib rary"


def test_a_submodule(repository: Path, submodule: Path) -> None:
    """A submodule is a repository of its own: its store lies in its worktree, its private files in its git dir."""
    git_dir = repository / ".git" / "modules" / "the library"
    assert is_store(discover(str(submodule / "sub" / "folder")), submodule, git_dir, git_dir / "taskstore")
    assert discover(str(repository / "sub")).directory == str(repository / STORE)


def test_a_linked_worktree_of_a_submodule(repository: Path, submodule: Path, base: Path) -> None:
    """A linked worktree of a submodule means the store in the submodule."""
    git(submodule, "worktree", "add", "-q", "--detach", str(base / "tree of the library"))
    git_dir = repository / ".git" / "modules" / "the library"
    assert is_store(discover(str(base / "tree of the library" / "sub")), submodule, git_dir, git_dir / "taskstore")


def test_a_submodule_in_a_linked_worktree(repository: Path, submodule: Path, base: Path) -> None:
    """A submodule checked out in a linked worktree of its superproject is a repository apart from the other one."""
    git(repository, "worktree", "add", "-q", "--detach", str(base / "tree"))
    git(base / "tree", "submodule", "--quiet", "update", "--init")
    second = base / "tree" / "sub" / "lib rary"
    git_dir = repository / ".git" / "worktrees" / "tree" / "modules" / "the library"
    assert is_store(discover(str(second)), second, git_dir, git_dir / "taskstore")
    assert discover(str(submodule)).directory == str(submodule / STORE)


# Git dirs elsewhere


def test_a_separate_git_dir(base: Path) -> None:
    """With --separate-git-dir the store lies in the worktree and its private files in that git dir."""
    repository = make_repository(base / "repo", f"--separate-git-dir={base / 'git data'}")
    assert (repository / ".git").is_file()
    assert is_store(discover(str(repository / "sub")), repository, base / "git data", base / "git data" / "taskstore")


def test_a_linked_worktree_of_a_separate_git_dir(base: Path) -> None:
    """Git does not know where the main worktree of such a repository is, so a linked one has to be told."""
    repository = make_repository(base / "repo", f"--separate-git-dir={base / 'git data'}")
    git(repository, "worktree", "add", "-q", "--detach", str(base / "tree"))
    with pytest.raises(NoStoreError, match="has no main worktree") as caught:
        discover(str(base / "tree"))
    assert "--store" in caught.value.hint
    git(repository, "config", "core.worktree", str(repository))
    assert discover(str(base / "tree")).directory == str(repository / STORE)


@pytest.mark.parametrize("name", ["bare.git", ".bare", ".git"])
def test_a_worktree_of_a_bare_repository(repository: Path, base: Path, name: str) -> None:
    """A bare repository, whatever its folder is called, has no main worktree: it says so and how to name a store."""
    (base / "around").mkdir()
    git(base, "clone", "-q", "--bare", str(repository), str(base / "around" / name))
    git(base / "around" / name, "worktree", "add", "-q", "--detach", str(base / "around" / "tree"))
    with pytest.raises(NoStoreError, match="has no main worktree") as caught:
        discover(str(base / "around" / "tree" / "sub"))
    assert "--store" in caught.value.hint
    with Store.create(directory=str(base / "around" / "tree" / STORE))[0] as store:
        store.apply([Operation("create", KINDS["prd"], {"id": "a", "title": "t"})])
    with Store.open(directory=str(base / "around" / "tree")) as store:
        assert store.get("prd", "a")


@pytest.mark.parametrize("content", ["", "nonsense", "gitdir: /no/such/place", "gitdir:missing space"])
def test_a_git_file_that_leads_nowhere(tmp_path: Path, content: str) -> None:
    """A .git that is no folder and names none is refused, not passed over."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / ".git").write_text(content)
    Store.create(str(tmp_path))[0].close()
    with pytest.raises(NoStoreError, match=r"\.git"):
        discover(str(tmp_path / "repo"))


def test_a_git_link_that_dangles(tmp_path: Path) -> None:
    """A symbolic link called .git that leads nowhere is refused too."""
    (tmp_path / ".git").symlink_to(tmp_path / "gone")
    with pytest.raises(NoStoreError, match="cannot read"):
        discover(str(tmp_path))


# Symbolic links


def test_a_link_to_a_repository(repository: Path, base: Path) -> None:
    """A repository reached by a symbolic link is the same store under its real path."""
    (base / "link").symlink_to(repository)
    (base / "deep link").symlink_to(repository / "sub" / "folder")
    for start in (base / "link", base / "link" / "sub", base / "deep link"):
        assert is_store(discover(str(start)), repository, repository / ".git", repository / ".git" / "taskstore")


def test_a_link_within_a_repository_to_a_folder_outside(repository: Path, tmp_path: Path) -> None:
    """Whoever stands in a folder outside, reached through a repository, stands outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (repository / "link").symlink_to(outside)
    assert discover(str(repository / "link")).directory == str(outside / STORE)


def test_a_git_dir_that_is_a_link(repository: Path, base: Path) -> None:
    """Where .git is a symbolic link the private files lie in the git dir itself."""
    (repository / ".git").rename(base / "git data")
    (repository / ".git").symlink_to(base / "git data")
    assert is_store(discover(str(repository)), repository, base / "git data", base / "git data" / "taskstore")


def test_a_relative_start(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search may begin at a relative path."""
    monkeypatch.chdir(repository / "sub")
    for start in (".", "folder", "..", "../sub/./folder"):
        assert discover(start).directory == str(repository / STORE)


# Named stores


def test_a_named_store(repository: Path) -> None:
    """A store may be named by its folder or by the folder that holds it, and is the one that would be discovered."""
    Store.create(str(repository))[0].close()
    for name in (repository / STORE, repository):
        assert is_store(named(str(name)), repository, repository / ".git", repository / ".git" / "taskstore")


def test_a_named_store_outside_git(base: Path) -> None:
    """A named store outside git keeps its private files within itself, under whatever name it has."""
    store, made = Store.create(directory=str(base / "my state"))
    store.close()
    assert ".version" in made
    paths = named(str(base / "my state"))
    assert (paths.directory, paths.private, paths.git_dir) == (
        str(base / "my state"), str(base / "my state" / ".local"), None)


def test_a_named_store_that_does_not_exist(tmp_path: Path) -> None:
    """A name that leads to no store is kept as it is, for `create`, and refused by `open`."""
    assert named(str(tmp_path / "none")).directory == str(tmp_path / "none")
    with pytest.raises(NoStoreError, match="there is no store in"):
        Store.open(directory=str(tmp_path / "none"))


def test_stores_of_one_repository_share_nothing(repository: Path, submodule: Path, base: Path) -> None:
    """Every store of a repository has private files of its own: a line never ends up in the wrong log."""
    git(repository, "worktree", "add", "-q", "--detach", str(base / "tree"))
    separate = make_repository(base / "separate", f"--separate-git-dir={base / 'git data'}")
    folders = [top / place for top in (repository, submodule, separate, base / "tree")
               for place in (STORE, f"sub/{STORE}", f"sub%2F{STORE}", "other", "sub/other", "a b", "at/other")]
    opened = [Store.create(directory=str(folder))[0] for folder in folders]
    assert len({store.paths.private for store in opened}) == len(folders)
    for store, folder in zip(opened, folders, strict=True):
        store.apply([Operation("create", KINDS["prd"], {"id": "a", "title": str(folder)})])
        assert store.flush(60)
    for store, folder in zip(opened, folders, strict=True):
        assert len((folder / "prds.jsonl").read_bytes().splitlines()) == 1
        assert [Path(store.paths.directory)] == [folder]
        store.close()


def test_private_files_of_a_moved_repository(repository: Path, base: Path) -> None:
    """A repository with two stores that is moved finds each one's private files again."""
    Store.create(str(repository))[0].close()
    Store.create(directory=str(repository / "sub" / "second"))[0].close()
    before = [os.path.relpath(named(str(repository / place)).private, repository) for place in (STORE, "sub/second")]
    repository.rename(base / "moved")
    after = [os.path.relpath(named(str(base / "moved" / place)).private, base / "moved")
             for place in (STORE, "sub/second")]
    assert before == after


def test_discovering_makes_nothing(repository: Path, submodule: Path, base: Path) -> None:
    """Looking for a store, and failing to open one, leaves no file or folder behind."""
    git(repository, "worktree", "add", "-q", "--detach", str(base / "tree"))
    before = sorted(base.rglob("*"))
    for start in (repository, submodule, base / "tree", base):
        discover(str(start))
        with pytest.raises(NoStoreError):
            Store.open(str(start))
    assert sorted(base.rglob("*")) == before


def test_git_at_work_is_told_by_its_lock(repository: Path, base: Path) -> None:
    """Only the index lock of the worktree that holds the store counts, not a linked worktree's."""
    git(repository, "worktree", "add", "-q", "--detach", str(base / "tree"))
    paths = discover(str(base / "tree"))
    (repository / ".git" / "worktrees" / "tree" / "index.lock").touch()
    assert not paths.git_is_writing()
    (repository / ".git" / "index.lock").touch()
    assert paths.git_is_writing()
    assert not Paths(str(base / STORE)).git_is_writing()


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    """A store may lie under a name that is bytes and no text."""
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system has no such names")
    with Store.create(os.fsdecode(folder))[0] as store:
        store.apply([Operation("create", KINDS["prd"], {"id": "a", "title": "t"})])
        assert store.get("prd", "a")
    with Store.open(os.fsdecode(folder)) as store:
        assert store.get("prd", "a")
