"""Lines that git's rewriting swallowed: found again in the outbox, and told from those that somebody threw away.

Git reads a log, we append to it, git puts another file in its place: the line was acknowledged and is gone. What
was appended within a few seconds of git's work and is in the log no more is therefore looked for in everything that
git holds. There: git has taken charge of it (a stash, another branch). Nowhere: it was swallowed, and is written
anew. What is older stays as it is, since `git checkout -- FILE` and `git reset --hard` are a person's will.
"""


from .jsonl import index_or_error, indexer
from .kinds import LOGS, Kind
from .outbox import Outbox
from .paths import Paths
from .quiet import Quiet
from .signature import MISSING
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .appended import Appended

SLACK_MS = 5000
"""How long before git was seen at work a line may have been appended and be swallowed."""
_NEAR = 4 << 20
_FEW = 20  # lines that are searched for one by one


class SwallowedError(Exception):
    """Lines are missing, and git must be asked whether it has them, with no lock held; `ask` does."""

    def __init__(self, missing: "list[Appended]", stamp: int) -> None:
        super().__init__(f"{len(missing)} lines are missing")
        self.missing = missing
        self.stamp = stamp

    def ask(self, paths: Paths) -> "Verdict":
        """Ask git. Takes no lock, and time in proportion to the logs that git holds."""
        from .git_objects import held

        found: set[tuple[str, str]] = set()
        for log in dict.fromkeys(one.log for one in self.missing):
            those: dict[str, int] = {}
            for one in self.missing:
                if one.log == log:
                    those[one.line] = min(one.at, those.get(one.line, one.at))
            found |= {(log, line) for line in held(paths, log, those)}
        return Verdict(self.stamp, {(one.log, one.line) for one in self.missing}, found)


class Verdict:
    """Which missing lines git holds, and which it does not: the latter only until it is at work again (`stamp`)."""

    def __init__(self, stamp: int, asked: set[tuple[str, str]], found: set[tuple[str, str]]) -> None:
        self.stamp = stamp
        self.asked = asked
        self.found = found


def restore(paths: Paths, outbox: Outbox, quiet: Quiet, changed: "Collection[str]", verdict: Verdict | None) -> None:
    """Have the lines that git swallowed written anew: they are pending in `outbox` afterwards. Needs the lock.

    `changed` are the logs that somebody else has touched. Raises SwallowedError where lines are missing of which
    `verdict` does not tell.
    """
    noted = quiet.noted_ms()
    if paths.git_dir is None or (noted is None and not changed):
        return
    stamp = quiet.stamp()
    missing, gone = _missing(paths, outbox, quiet, changed, noted)
    if verdict is not None:  # what git was found to hold it has taken charge of, whatever it has done since
        held = [one for one in missing if (one.log, one.line) in verdict.found]
        if held:
            outbox.mark_settled(held)
        missing = [one for one in missing if (one.log, one.line) not in verdict.found]
    if missing:
        if verdict is None or verdict.stamp != stamp or not verdict.asked.issuperset((m.log, m.line) for m in missing):
            raise SwallowedError(missing, stamp)
        outbox.append([list(dict.fromkeys((one.log, one.line) for one in missing))])
        outbox.mark_settled(missing)
    for log in changed:
        if log not in gone:
            quiet.forget(log)
    if noted is not None:
        for log in gone:  # it is looked at when it is back
            quiet.note_gone(log, noted)
        quiet.forget()


def _missing(paths: Paths, outbox: Outbox, quiet: Quiet, changed: "Collection[str]", noted: int | None,
             ) -> "tuple[list[Appended], list[str]]":
    """The lines that were appended shortly before their log was replaced, or git seen at work, and are not there.

    And the logs of such lines that are gone, with a branch most likely.
    """
    from .appended import appended_since

    sources = {log: Source(paths.file(log)) for log in (LOGS if noted is not None else changed)}
    try:
        since = _since(sources, quiet, changed, noted)
        by_log: dict[str, list[Appended]] = {}
        for one in appended_since(outbox, min(since.values())) if since else []:
            if one.log in since and one.at >= since[one.log]:
                by_log.setdefault(one.log, []).append(one)
        return ([one for log, those in by_log.items() for one in _absent(sources[log], those)],
                [log for log in by_log if sources[log].signature == MISSING])
    finally:
        for source in sources.values():
            source.close()


def _since(sources: "Mapping[str, Source]", quiet: Quiet, changed: "Collection[str]", noted: int | None,
           ) -> dict[str, int]:
    """From when on the lines of each log may be missing, in Unix ms; nothing is known of when a log went."""
    since: dict[str, int] = {}
    for log, source in sources.items():
        times = [noted, quiet.noted_ms(log) if log in changed else None]
        if log in changed and source.signature != MISSING:
            times.append(source.signature[4] // 1_000_000)
        known = [time for time in times if time is not None]
        if known:
            since[log] = min(known) - SLACK_MS
    return since


def _absent(source: Source, those: "list[Appended]") -> "list[Appended]":
    """Those of the lines that do not stand in a log, which is looked at from its end; none where there is no log."""
    if source.signature == MISSING:
        return []
    near = max(0, source.size - _NEAR)
    data = source.read(near, source.size)
    left = _not_in(data, those)
    if not left:
        return []
    if near:
        data = source.read(0, source.size)
        left = _not_in(data, left)
    edited = _edited(data, left)
    return [one for one in left if one not in edited]


def _edited(data: bytes, those: "list[Appended]") -> "set[Appended]":
    """Those for whose version of their record the log has another line: somebody changed it where it stood."""
    if not those:
        return set()
    kind = LOGS[those[0].log]
    rows = {one: index_or_error(kind, one.line.encode()) for one in those}
    versions = {one: row[:2] for one, row in rows.items() if isinstance(row, tuple)}
    lines = _likely(kind, data.split(b"\n"), {key for key, _ in versions.values()})
    there = {row[:2] for row in indexer(kind, sum(map(len, lines)))(lines) if isinstance(row, tuple)}
    return {one for one, version in versions.items() if version in there}


def _likely(kind: Kind, lines: list[bytes], ids: "Collection[str]") -> list[bytes]:
    """The lines that may be of these records, told by how they begin; one that does not begin as ours do may always be.

    An id that somebody may have written with a backslash cannot be told so: then every line may be.
    """
    if any('"' in key or "\\" in key or not key.isprintable() or not key.isascii() for key in ids):
        return lines
    prefix, wanted = b'{"%s":"' % kind.key.encode(), {key.encode() for key in ids}
    start = len(prefix)
    return [line for line in lines if line[start:line.find(b'"', start)] in wanted or not line.startswith(prefix)]


def _not_in(data: bytes, those: "list[Appended]") -> "list[Appended]":
    if len(those) > _FEW:
        lines = set(data.split(b"\n"))
        return [one for one in those if one.line.encode() not in lines]
    framed = b"\n" + data + b"\n"
    return [one for one in those if b"\n" + one.line.encode() + b"\n" not in framed]
