"""Merging by real git, with the driver registered and without: branches, clones, and what rewrites history."""

import random
from pathlib import Path

import pytest
from tests.merge.logs import gone, line, lines_of, live, log
from tests.merge.repos import Repo

from taskstore_core.batch import Operation
from taskstore_core.conflicts import resolve
from taskstore_core.kinds import KINDS

BASE = [line("a", 1, title="a"), line("b", 2, title="b"), line("c", 3, title="c")]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository with the driver and three records."""
    made = Repo.make(tmp_path / "repo")
    made.append(*BASE, message="base")
    return made


def titles(repo: Repo) -> dict[str, object]:
    return {key: record["title"] for key, record in live(repo.read()).items() if record is not None}


def branch(repo: Repo, name: str, *lines: bytes, start: str = "main") -> None:
    repo.git("checkout", "-q", "-B", name, start)
    repo.append(*lines, message=name)


def test_both_directions(repo: Repo) -> None:
    """Merging one branch into the other gives the same tree as the other way round."""
    branch(repo, "one", line("a", 10, title="a1"), gone("b", 11), line("d", 12, title="d"))
    branch(repo, "two", line("a", 13, title="a2"), line("b", 14, title="b2"), line("e", 15, title="e"))
    repo.git("merge", "-q", "--no-edit", "one")
    tree = repo.git("rev-parse", "HEAD^{tree}")
    assert titles(repo) == {"a": "a2", "c": "c", "d": "d", "e": "e"}
    assert len(lines_of(repo.read())) == 10  # nine, and the deletion that stands
    repo.git("checkout", "-q", "one")
    repo.git("merge", "-q", "--no-edit", "two~")  # as it was before its merge
    assert repo.git("rev-parse", "HEAD^{tree}") == tree


def test_no_merge_base(repo: Repo) -> None:
    """Logs of two histories that have nothing in common merge by adding up."""
    repo.git("checkout", "-q", "--orphan", "other")
    repo.path().write_bytes(b"")
    repo.append(line("a", 9, title="newer"), line("z", 1, title="z"))
    repo.git("checkout", "-q", "main")
    repo.git("merge", "-q", "--no-edit", "--allow-unrelated-histories", "other")
    assert titles(repo) == {"a": "newer", "b": "b", "c": "c", "z": "z"}


def test_conflict(repo: Repo) -> None:
    """A conflict stops the merge with all three stages in the index; settled and added, it can be committed."""
    branch(repo, "one", line("a", 10, title="a1"))
    branch(repo, "two", line("a", 10, title="a2"), line("b", 11, title="b2"))
    done = repo.run("merge", "-q", "--no-edit", "one")
    assert done.status == 1, done
    assert "taskstore resolve-conflicts" in done.err
    assert [words.split()[2] for words in repo.git("ls-files", "-u").splitlines()] == ["1", "2", "3"]
    assert lines_of(repo.read())[-5:] == [b"<<<<<<< ours", line("a", 10, title="a2"), b"=======",
                                         line("a", 10, title="a1"), b">>>>>>> theirs"]
    assert repo.run("diff", "--check").status != 0
    with repo.open() as store:
        assert resolve(store, "theirs")["left"] == 0
    repo.git("add", "-A")
    repo.git("commit", "-q", "--no-edit")
    assert titles(repo) == {"a": "a1", "b": "b2", "c": "c"}
    assert repo.git("status", "--porcelain") == ""


def test_marker_size(repo: Repo) -> None:
    """The attribute conflict-marker-size is obeyed."""
    attributes = repo.root / ".taskstore" / ".gitattributes"
    attributes.write_text("*.jsonl merge=taskstore-merge -text conflict-marker-size=12\n")
    repo.commit("longer markers")
    branch(repo, "one", line("a", 10, title="a1"))
    branch(repo, "two", line("a", 10, title="a2"))
    assert repo.run("merge", "one").status == 1
    assert b"\n" + b"<" * 12 + b" ours\n" in repo.read()
    with repo.open() as store:
        assert resolve(store, "ours")["left"] == 0
    assert titles(repo)["a"] == "a2"


def test_criss_cross(repo: Repo) -> None:
    """Two branches that merged one another, each in its way, merge again: nothing is lost, both directions agree."""
    branch(repo, "one", line("a", 10, title="a1"), line("b", 10, title="b1"))
    branch(repo, "two", line("a", 11, title="a2"), gone("c", 12))
    repo.git("checkout", "-q", "-b", "left", "one")
    repo.git("merge", "-q", "--no-edit", "two")
    repo.append(line("b", 20, title="left"), line("l", 21, title="l"))
    repo.git("checkout", "-q", "-b", "right", "two")
    repo.git("merge", "-q", "--no-edit", "one")
    repo.append(line("b", 22, title="right"), line("r", 23, title="r"))
    assert len(repo.git("merge-base", "--all", "left", "right").split()) == 2
    merged = []
    for into, other in (("left", "right"), ("right", "left")):
        repo.git("checkout", "-q", "--detach", into)
        repo.git("merge", "-q", "--no-edit", other)
        merged.append(repo.read())
    assert merged[0] == merged[1]
    assert titles(repo) == {"a": "a2", "b": "right", "l": "l", "r": "r"}
    assert len(lines_of(merged[0])) == 11


def test_criss_cross_with_a_conflict(repo: Repo) -> None:
    """Where the merge of the merge bases is itself a conflict, settled by one branch, its choice counts."""
    branch(repo, "one", line("a", 10, title="a1"))
    branch(repo, "two", line("a", 10, title="a2"))
    for name, start, other in (("left", "one", "two"), ("right", "two", "one")):
        repo.git("checkout", "-q", "-b", name, start)
        assert repo.run("merge", "-q", other).status == 1
        with repo.open() as store:
            resolve(store, "newest")
        repo.commit("settled")
        repo.append(line(name, 30, title=name))
    assert len(repo.git("merge-base", "--all", "left", "right").split()) == 2
    repo.git("merge", "-q", "--no-edit", "left")
    assert titles(repo) == {"a": "a2", "b": "b", "c": "c", "left": "left", "right": "right"}
    assert not repo.markers()


def test_octopus(repo: Repo) -> None:
    """Git merges more than two branches without drivers: it refuses, nothing is touched, one by one it works."""
    for name in ("one", "two", "three"):
        branch(repo, name, line(name, 10, title=name))
    repo.git("checkout", "-q", "main")
    before = repo.read()
    assert repo.run("merge", "-q", "--no-edit", "one", "two", "three").status != 0
    repo.git("reset", "-q", "--merge")
    assert (repo.read(), repo.git("status", "--porcelain")) == (before, "")
    for name in ("one", "two", "three"):
        repo.git("merge", "-q", "--no-edit", name)
    assert titles(repo).keys() == {"a", "b", "c", "one", "two", "three"}


def test_revert(repo: Repo) -> None:
    """Reverting a commit takes its lines out again and leaves those that came later."""
    edit = repo.append(line("a", 10, title="wrong"), line("d", 11, title="made"))
    repo.append(line("b", 12, title="later"))
    repo.git("revert", "--no-edit", edit)
    assert titles(repo) == {"a": "a", "b": "later", "c": "c"}
    repo.git("revert", "--no-edit", "HEAD")
    assert titles(repo) == {"a": "wrong", "b": "later", "c": "c", "d": "made"}


def test_revert_of_what_was_edited_since(repo: Repo) -> None:
    """Reverting the commit that made a record deletes it, also where it was edited since; history keeps the edit."""
    made = repo.append(line("d", 11, title="made"))
    repo.append(line("d", 12, title="edited"))
    repo.git("revert", "--no-edit", made)
    assert titles(repo) == {"a": "a", "b": "b", "c": "c"}
    assert lines_of(repo.read())[-2:] == [line("d", 12, title="edited"), gone("d", 13, base_at=11)]


@pytest.mark.parametrize("how", ["rebase", "cherry-pick", "squash"])
def test_history_rewritten(repo: Repo, how: str) -> None:
    """A rebase, cherry-picks and a squashed merge come to what a merge comes to."""
    branch(repo, "topic", line("a", 10, title="a1"), line("d", 11, title="d"))
    repo.append(gone("b", 12))
    repo.append(line("a", 13, title="a3"))
    branch(repo, "other", line("a", 14, title="a2"), line("b", 15, title="b2"), line("e", 16, title="e"))
    repo.git("checkout", "-q", "-b", "merged", "other")
    repo.git("merge", "-q", "--no-edit", "topic")
    expected = titles(repo)
    assert expected == {"a": "a2", "c": "c", "d": "d", "e": "e"}
    if how == "rebase":
        repo.git("checkout", "-q", "topic")
        repo.git("rebase", "-q", "other")
    else:
        repo.git("checkout", "-q", "other")
        repo.git(*({"cherry-pick": ["cherry-pick", "main..topic"], "squash": ["merge", "--squash", "topic"]}[how]))
    assert titles(repo) == expected
    assert not repo.markers()


def test_stash(repo: Repo) -> None:
    """Lines that wait in a stash come back beside those committed since."""
    repo.path().write_bytes(repo.read() + log(line("a", 10, title="stashed")))
    repo.git("stash", "-q")
    repo.append(line("a", 9, title="committed"), line("d", 11, title="d"))
    repo.git("stash", "pop", "-q")
    assert titles(repo) == {"a": "stashed", "b": "b", "c": "c", "d": "d"}


@pytest.mark.parametrize("style", ["merge", "diff3", "zdiff3"])
def test_without_the_driver(tmp_path: Path, style: str) -> None:
    """Without the driver git leaves markers, which readers pass over and resolve-conflicts settles the same way."""
    found = []
    for driver in (True, False):
        repo = Repo.make(tmp_path / str(driver), **({} if driver else {"driver": None}))
        repo.git("config", "merge.conflictStyle", style)
        repo.append(*BASE)
        branch(repo, "one", line("a", 10, title="a1"), gone("b", 11), line("d", 12, title="d"))
        branch(repo, "two", line("a", 13, title="a2"), line("b", 14, title="b2"), line("e", 15, title="e"))
        assert repo.run("merge", "--no-edit", "one").status == (0 if driver else 1)
        assert repo.markers() is not driver
        with repo.open() as store:
            assert {"a", "c", "d", "e"} <= titles(repo).keys()
            assert resolve(store)["left"] == 0
        assert not repo.markers()
        assert set(lines_of(repo.read())) >= {*BASE, line("a", 10, title="a1"), line("b", 14, title="b2")}
        found.append(titles(repo))
    assert found[0] == found[1] == {"a": "a2", "c": "c", "d": "d", "e": "e"}


@pytest.mark.parametrize("seed", range(4))
def test_random_branches(tmp_path: Path, seed: int) -> None:
    """However branches commit and merge one another: no line is lost, and each merge is the same in both directions."""
    chance = random.Random(seed)
    repo = Repo.make(tmp_path / "repo")
    repo.append(*BASE)
    names, stamp, written = ["one", "two", "three"], 10, set(BASE)
    for name in names:
        repo.git("branch", name)
    for _ in range(14):
        name = chance.choice(names)
        repo.git("checkout", "-q", name)
        if chance.random() < 0.6:
            lines = []
            for _ in range(chance.randrange(1, 4)):
                key, stamp = chance.choice("abcdef"), stamp + 1
                lines.append(gone(key, stamp) if chance.random() < 0.2 else line(key, stamp, title=str(stamp)))
            written |= set(lines)
            repo.append(*lines)
        else:
            _merge_both_ways(repo, name, chance.choice([other for other in names if other != name]))
    for name in names[1:]:
        _merge_both_ways(repo, names[0], name)
    there = lines_of(repo.read())
    assert set(there) >= written
    assert len(there) == len(set(there))


def _merge_both_ways(repo: Repo, into: str, other: str) -> None:
    repo.git("checkout", "-q", "--detach", other)
    repo.git("merge", "-q", "--no-edit", into)
    backwards = repo.read()
    repo.git("checkout", "-q", into)
    repo.git("merge", "-q", "--no-edit", other)
    assert repo.read() == backwards


# Two clones


def work(repo: Repo, name: str) -> None:
    """Create, change and delete records of every kind, some of them those of the other clone."""
    with repo.open() as store:
        store.apply([
            Operation("create", KINDS["prd"], {"id": f"prd-{name}", "title": name}),
            Operation("update", KINDS["prd"], {"id": "prd-shared", "title": f"by {name}"}),
            Operation("create", KINDS["task_spec"], {"id": f"ts-{name}", "prd_id": "prd-shared", "phase_name": name}),
            Operation("update", KINDS["task_spec"], {"id": "ts-shared", "assigned_to": name}),
            Operation("create", KINDS["execution"], {"id": f"e-{name}", "ts_id": "ts-shared"}),
            Operation("update", KINDS["execution"], {"id": "e-shared", "iteration_count": len(name), "note": name}),
            Operation("create", KINDS["dependency"], {"id": f"d-{name}", "from_exec_id": "e-shared",
                                                      "to_exec_id": f"e-{name}", "dependency_type": "share"}),
            Operation("create", KINDS["workflow"], {"id": f"w-{name}", "name": name}),
            Operation("update", KINDS["repo_state"], {"repo_path": "/shared", "last_synced_commit": name}),
            Operation("create", KINDS["repo_state"], {"repo_path": f"/{name}", "last_synced_commit": name}),
        ])
        if name == "ann":
            store.apply([Operation("delete", KINDS["workflow"], {"id": "w-shared"}),
                         Operation("update", KINDS["dependency"], {"id": "d-shared", "resolved_at": 5})])
        else:
            store.apply([Operation("update", KINDS["workflow"], {"id": "w-shared", "awl_code": "later"}),
                         Operation("delete", KINDS["task_spec"], {"id": "ts-old"})])
    repo.git("add", "-f", ".taskstore/repo_state.jsonl")
    repo.commit(name)


def test_two_clones(tmp_path: Path) -> None:
    """Two clones that worked on all kinds at once pull one another: the same bytes and state, and nothing by hand."""
    origin = Repo.make(tmp_path / "origin")
    with origin.open() as store:
        store.apply([
            Operation("create", KINDS["prd"], {"id": "prd-shared", "title": "T"}),
            *(Operation("create", KINDS["task_spec"], {"id": key, "prd_id": "prd-shared", "phase_name": "N"})
              for key in ("ts-shared", "ts-old")),
            Operation("create", KINDS["execution"], {"id": "e-shared", "ts_id": "ts-shared"}),
            Operation("create", KINDS["dependency"], {"id": "d-shared", "from_exec_id": "e", "to_exec_id": "f",
                                                      "dependency_type": "query"}),
            Operation("create", KINDS["workflow"], {"id": "w-shared", "name": "N"}),
            Operation("create", KINDS["repo_state"], {"repo_path": "/shared", "last_synced_commit": "c"})])
    origin.git("add", "-f", ".taskstore/repo_state.jsonl")
    origin.commit("all kinds")
    clones = [origin.clone(tmp_path / name) for name in ("ann", "bob")]
    for clone in clones:
        work(clone, clone.root.name)
    for clone, other in (clones, reversed(clones)):
        clone.git("pull", "-q", "--no-rebase", "--no-edit", str(other.root), "main:other")
    heads = [clone.git("rev-parse", "HEAD^{tree}") for clone in clones]
    assert heads[0] == heads[1]
    assert clones[0].logs() == clones[1].logs()
    seen = clones[0].seen()
    assert seen == clones[1].seen()
    for kind, keys in {"prd": ["prd-ann", "prd-bob", "prd-shared"], "task_spec": ["ts-ann", "ts-bob", "ts-shared"],
                       "execution": ["e-ann", "e-bob", "e-shared"], "dependency": ["d-ann", "d-bob", "d-shared"],
                       "workflow": ["w-ann", "w-bob"], "repo_state": ["/ann", "/bob", "/shared"]}.items():
        # Beside these, a store writes a state of the repository that it is in.
        assert sorted(key for key in seen[kind] if not key.startswith(f"{tmp_path}/")) == keys
    resolved = seen["dependency"]["d-shared"]
    assert resolved is not None
    assert resolved["resolved_at"] == 5
    for clone in clones:
        with clone.open() as store:
            assert sorted(seen["prd"]) == sorted(record.partition('"id":"')[2].partition('"')[0]
                                                 for record in store.find("prd")[0])
