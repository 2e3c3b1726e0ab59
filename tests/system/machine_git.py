"""The machine's rules for git: on the real repository, with the hooks and the driver that are installed in it.

What is in no commit survives a checkout, or git refuses it; merges are held to the table; a line that somebody throws
away stays away, unless it was written a moment before.
"""

import time

from hypothesis import strategies as st
from hypothesis.stateful import precondition
from tests.system.machine_base import Machine
from tests.system.machine_ground import KINDS, resident, step, unlocked
from tests.system.model_log import Log
from tests.system.model_merge import assert_merged, in_conflict

BRANCHES = ("main", "side")
FRESH_S = 4.0
"""For so long a line that was thrown away certainly counts as swallowed."""


class GitWork(Machine):
    """Branches, merges and what throws work away."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = "main"
        self.stashed: dict[str, bytes] | None = None
        self.stash_base: dict[str, bytes] = {}

    @property
    def other(self) -> str:
        return BRANCHES[self.branch == "main"]

    def become(self, logs: "dict[str, bytes]") -> None:
        """The logs are these bytes from now on, and the model with them."""
        for kind, data in logs.items():
            self.model.logs[kind] = Log(data)
        self.touched |= {(kind, line.key) for kind in KINDS for line in self.model.logs[kind].lines[-2:]}

    @step(data=st.data())
    @unlocked
    def commit(self, data: st.DataObject) -> None:
        """What stands in the files is committed; a line that waits for git yet is in the next one."""
        if data.draw(st.booleans()):
            self.commit_all()
        else:
            self.git("commit", "-qam", "some", "--allow-empty")

    def commit_all(self) -> None:
        self.settle()
        before = self.files()
        self.git("commit", "-qam", "all", "--allow-empty")
        assert self.git.logs() == before

    @step()
    @unlocked
    def checkout(self) -> None:
        """The other branch. Git refuses it just if it would have to overwrite lines that are in no commit."""
        self.settle()
        files, ours, theirs = self.files(), self.git.logs(), self.git.logs(self.other)
        endangered = [kind for kind in KINDS if ours[kind] != theirs[kind] and files[kind] != ours[kind]]
        done = self.git.run("checkout", "-q", self.other)
        assert (done.returncode != 0) == bool(endangered), done.stderr
        if not endangered:
            self.branch = self.other
            self.become({kind: files[kind] if ours[kind] == theirs[kind] else theirs[kind] for kind in KINDS})

    @step()
    @unlocked
    def merge(self) -> None:
        """The other branch is merged; where the table says that it conflicts, it is given up again."""
        self.prepare_to_merge()
        ours, theirs = self.git.logs(), self.git.logs(self.other)
        base = self.git.logs(self.git.base("HEAD", self.other))
        conflicts = [key for kind in KINDS for key in in_conflict(base[kind], ours[kind], theirs[kind])]
        done = self.git.run("merge", "-q", "--no-edit", self.other)
        assert (done.returncode != 0) == bool(conflicts), (done.stdout, done.stderr, conflicts)
        if conflicts:
            self.git("merge", "--abort")
        else:
            self.assert_result(base, ours, theirs, self.git.logs())
            self.become(self.git.logs())

    @step()
    @unlocked
    def rebase(self) -> None:
        """This branch's commits on top of the other's: each is a merge of its own."""
        self.prepare_to_merge()
        if self.git("rev-list", "--merges", f"{self.other}..HEAD"):
            return
        commits = self.git("rev-list", "--reverse", f"{self.other}..HEAD").split()
        done = self.git.run("rebase", "-q", "--empty=keep", "--reapply-cherry-picks", self.other)
        if done.returncode:
            self.assert_rebase_conflicts(commits)
            self.git("rebase", "--abort")
            return
        made = self.git("rev-list", "--reverse", f"{self.other}..HEAD").split()
        assert len(made) == len(commits)
        onto = self.other
        for old, new in zip(commits, made, strict=True):
            base, ours, theirs = self.git.logs(f"{old}^"), self.git.logs(onto), self.git.logs(old)
            assert not any(in_conflict(base[kind], ours[kind], theirs[kind]) for kind in KINDS)
            self.assert_result(base, ours, theirs, self.git.logs(new))
            onto = new
        self.become(self.git.logs())

    def assert_rebase_conflicts(self, commits: "list[str]") -> None:
        """Git stopped at a commit that the table calls a conflict."""
        stopped = self.git("rev-parse", "REBASE_HEAD")
        assert stopped in commits
        base, ours, theirs = self.git.logs(f"{stopped}^"), self.git.logs(), self.git.logs(stopped)
        assert any(in_conflict(base[kind], ours[kind], theirs[kind]) for kind in KINDS)

    def prepare_to_merge(self) -> None:
        for kind in KINDS:  # a torn line is half of one that somebody is about to finish
            self.finish(kind)
        self.commit_all()

    def finish(self, kind: str) -> None:
        if self.model.logs[kind].torn:
            self.settle()
            with self.site.log(kind).open("ab") as file:
                file.write(b"\n")
            self.model.logs[kind].close()

    def assert_result(self, base: "dict[str, bytes]", ours: "dict[str, bytes]", theirs: "dict[str, bytes]",
                      merged: "dict[str, bytes]") -> None:
        for kind in KINDS:
            assert_merged(base[kind], ours[kind], theirs[kind], merged[kind])

    @step()
    @precondition(lambda self: self.stashed is None)
    @unlocked
    def stash(self) -> None:
        """What is in no commit is put away: lines in a stash are in git's charge, and stay there."""
        for kind in KINDS:
            self.finish(kind)
        self.settle()
        files, head = self.files(), self.git.logs()
        done = self.git("stash")
        if files != head:
            self.stashed, self.stash_base = files, head
            self.become(head)
        else:
            assert "No local changes" in done

    @step()
    @precondition(lambda self: self.stashed is not None)
    @unlocked
    def pop_stash(self) -> None:
        """It comes back, merged with what was committed meanwhile; with local changes in its way git refuses."""
        for kind in KINDS:
            self.finish(kind)
        self.settle()
        stashed, base, files, head = self.stashed, self.stash_base, self.files(), self.git.logs()
        assert stashed is not None
        done = self.git.run("stash", "pop")
        if any(files[kind] != head[kind] for kind in KINDS if stashed[kind] != base[kind]):
            assert done.returncode, done.stdout
        elif any(in_conflict(base[kind], head[kind], stashed[kind]) for kind in KINDS):
            assert done.returncode, done.stdout
            self.git("reset", "-q", "--hard")
        else:
            assert done.returncode == 0, (done.stdout, done.stderr)
            merged = {kind: files[kind] if stashed[kind] == base[kind] else self.files()[kind] for kind in KINDS}
            self.assert_result(base, files, stashed, merged)
            self.become(merged)
            self.stashed = None

    @step(back=st.integers(0, 2))
    @unlocked
    def reset(self, back: int) -> None:
        """Everything is thrown away back to some commit, long after it was written: it stays away."""
        self.age()
        count = int(self.git("rev-list", "--count", "--first-parent", "HEAD"))
        self.git("reset", "-q", "--hard", f"HEAD~{min(back, count - 1)}")
        self.was_thrown = True
        self.become(self.git.logs())

    @step(who=resident, title=st.sampled_from(["x", "y"]))
    @unlocked
    def reset_at_once(self, who: str, title: str) -> None:
        """A line that was thrown away right after it was written cannot be told from one that git swallowed."""
        self.age()
        began = time.monotonic()
        record = {"id": f"fresh-{title}", "title": title}
        if record["id"] in self.model.live("prd"):
            one = {"op": "update", "kind": "prd", "id": record["id"], "set": {"title": f"{title}!"}}
        else:
            one = {"op": "create", "kind": "prd", "record": record}
        self.write(who, "store.apply", [one], ops=[one])
        self.settle()
        line = self.model.logs["prd"].lines[-1]
        self.git("reset", "-q", "--hard")
        self.was_thrown = True
        self.become(self.git.logs())
        if time.monotonic() - began < FRESH_S:
            self.model.logs["prd"].append(line)
            self.settle()
        else:  # the machine was slow, and either is right
            self.site.calm(forget=False)
            self.call(who, "store.sync", wait_ms=60_000)
            self.become(self.files())

    @step()
    @precondition(lambda self: self.since_git > 5)  # now and then, as little else can happen meanwhile
    @unlocked
    def begin_git(self) -> None:
        """Git is at work for some steps: what is written waits, and is read."""
        self.settle()
        self.left_alone = self.files()
        self.locked_at = time.monotonic()
        self.git.lock.touch()
        self.is_locked, self.since_git = True, 0

    @step()
    @precondition(lambda self: self.is_locked and self.since_git > 1)
    def end_git(self) -> None:
        self.git.lock.unlink()
        self.is_locked, self.since_git = False, 0
