"""The machine's rules for what befalls a store's files and processes: editors, lost caches, compaction, kills."""

import json
import os
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition
from tests.system.machine_base import Machine
from tests.system.machine_ground import BY_DAEMON, KINDS, kinds, resident, step, unlocked
from tests.system.machine_records import records
from tests.system.model_log import Line, Log, Refused, started

from taskstore_core.clock import now_ms


class Files(Machine):
    """What others than clients do."""

    @step(kind=kinds, data=st.data(), when=st.sampled_from(["now", "tie", "earlier", "ahead"]), deleted=st.booleans(),
          end=st.sampled_from(["\n", "\n", "\r\n"]))
    @unlocked
    def edit_log(self, kind: str, data: st.DataObject, when: str, deleted: bool, end: str) -> None:
        """An editor, or another tool, appends a line with fields that nobody knows."""
        self.settle()
        record = data.draw(records(kind))
        known = self.model.known(kind, record["id"])
        newest = known.stamp if known is not None else now_ms()
        stamp = {"now": max(now_ms(), newest + 1), "tie": newest, "earlier": newest - 1000,
                 "ahead": max(now_ms() + 3_600_000, newest + 1)}[when]
        status = {"status": "pending"} if kind == "task_spec" else {"status": "running"} if kind == "execution" else {}
        status = {"status": "draft"} if kind == "prd" else status
        fields: dict[str, Any] = {**status, **record, started(kind): 5, "updated_at": stamp}
        if deleted:
            fields = {"id": record["id"], "deleted": True, "updated_at": stamp}
        text = json.dumps(fields, ensure_ascii=False)[:-1] + ', "zz_foreign": 1.50, "aa_foreign" : {"deep":[1e3]}}'
        self.append(kind, text, end)
        self.model.logs[kind].close()
        self.model.logs[kind].lines += Log(f"{text}\n".encode()).lines
        self.touched.add((kind, record["id"]))

    @step(kind=kinds, text=st.sampled_from(['{"id": "torn", "title": "', '{"id":"a","x":[1,', "{"]))
    @unlocked
    def tear_line(self, kind: str, text: str) -> None:
        """Somebody has written half a line yet."""
        self.settle()
        self.append(kind, text, "")
        self.model.logs[kind].close()
        self.model.logs[kind].torn = text.encode()

    @step(kind=kinds, text=st.sampled_from(["no json at all", "[1]", '{"id":7,"updated_at":1}', '{"title":"x"}',
                                            '{"id":"a","updated_at":"soon"}', ""]))
    @unlocked
    def write_garbage(self, kind: str, text: str) -> None:
        self.settle()
        self.append(kind, text, "\n")
        self.model.logs[kind].close()
        self.model.logs[kind].bad += [text.encode()] if text else []

    def append(self, kind: str, text: str, end: str) -> None:
        """What an editor does, who begins on a line of its own."""
        path = self.site.log(kind)
        begin = "\n" if self.model.logs[kind].torn else ""
        with path.open("ab") as file:
            file.write(f"{begin}{text}{end}".encode())

    @step(kind=kinds, in_place=st.booleans())
    @unlocked
    def rewrite_log(self, kind: str, in_place: bool) -> None:
        """The same bytes once more, in the same file or in another."""
        self.settle()
        path, data = self.site.log(kind), self.site.log(kind).read_bytes()
        if in_place:
            path.write_bytes(data)
        else:
            other = path.with_suffix(".new")
            other.write_bytes(data)
            other.replace(path)

    @step(kind=kinds)
    @unlocked
    def clean_log(self, kind: str) -> None:
        """An editor takes out what is no record, and closes the last line."""
        self.settle()
        path = self.site.log(kind)
        log = self.model.logs[kind]
        junk = {*log.bad, log.torn}
        lines = [line for line in path.read_bytes().split(b"\n") if line and line not in junk]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        log.bad, log.torn = [], b""

    @step()
    def lose_cache(self) -> None:
        self.site.lose_cache()

    @step(who=resident, full=st.booleans())
    def sync(self, who: str, full: bool) -> None:
        answer = self.call(who, "store.sync", full=full)
        assert not isinstance(answer, Refused)
        counts = self.call(who, "store.stats")["kinds"]
        for kind in KINDS:
            state, bad = self.model.logs[kind].state(), len(self.model.logs[kind].bad)
            live = len(self.model.live(kind))
            assert (counts[kind]["records"], counts[kind]["deleted"]) == (live, len(state) - live), (counts, kind)
            possible = range(bad, bad + len(self.model.logs[kind].closing) + 1)
            assert counts[kind]["bad_lines"] in possible, (counts, kind, possible)
            assert not full or answer["kinds"][kind]["bad_lines"] in possible, (answer, kind, possible)

    @step(who=resident, keep=st.sampled_from([1, 1, 2]))
    @unlocked
    def compact(self, who: str, keep: int) -> None:
        """What goes is superseded, and all of it goes that nothing holds; what stays keeps its bytes and its order."""
        self.settle()
        before = {kind: self.site.log(kind).read_bytes() for kind in KINDS}
        answer = self.call(who, "store.compact", keep=keep)
        assert not isinstance(answer, Refused), answer.kind
        for kind in KINDS:
            after = self.site.log(kind).read_bytes()
            if after != before[kind]:
                self.model.logs[kind].close()
            self.assert_compacted(before[kind], after, keep)
            self.model.logs[kind] = Log(after)

    def assert_compacted(self, before: bytes, after: bytes, keep: int) -> None:
        old, new = Log(before), Log(after)
        left = iter(new.lines)
        kept = [line for line in old.lines if line.raw in {one.raw for one in new.lines}]
        assert [line.raw for line in kept] == [line.raw for line in left]
        assert (old.bad, old.torn) == (new.bad, new.torn)
        for key in {line.key for line in old.lines}:
            versions = sorted((line for line in old.lines if line.key == key), key=lambda line: line.stamp)
            may_go = [line for line in versions[:-keep] if not _is_remembered(line)]
            went = [line for line in versions if line not in new.lines]
            assert went in (may_go, []), key
            assert went == may_go or not _is_plain(versions), key

    @step(name=resident)
    def reopen(self, name: str) -> None:
        self.open(name)

    @step(again=st.booleans())
    @precondition(lambda self: self.turn % 3 == 0)  # now and then, as a start takes a second
    def kill_daemon(self, again: bool) -> None:
        """Kill -9, and perhaps another in its place; its clients go on, some of them with connections of before."""
        self.daemon.kill()
        self.daemon.wait()
        self.daemon_life.close()
        self.start_daemon()
        if again:
            for name in BY_DAEMON:
                self.open(name)

    @step(name=st.sampled_from(["files one", "daemon one"]))
    @unlocked
    def open_in_worktree(self, name: str) -> None:
        """A client in a linked worktree, whose store is the main one's."""
        tree = self.folder / "tree"
        if not tree.exists():
            self.git("worktree", "add", "-q", "--detach", os.fspath(tree))
        self.open(name, tree)


def _is_remembered(line: Line) -> bool:
    """Whether the write that made a line may be repeated yet."""
    return line.op is not None


def _is_plain(versions: "list[Line]") -> bool:
    """Whether each version was based on the one before it, so that none of them lost to one that had not seen it."""
    return all(line.record.get("base_at") == earlier.stamp for earlier, line in pairwise(versions))


