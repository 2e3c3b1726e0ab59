"""Whether who followed the changes heard of each once and in order, by the feed as it stood in the cache.

Changes that are told together have one cursor: what a follower hears between two cursors must be what the feed has
between them, each record once, in the order of its last change.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.system.agents.freshness import WRITES
from tests.system.agents.history import Call, lines

Feed = Mapping[str, Mapping[int, tuple[str, str]]]
"""By epoch and number, (kind, id)."""


@dataclasses.dataclass
class Batch:
    """What was told between two cursors: (kind, id, version or None for what is gone)."""

    since: str
    cursor: str
    told: list[tuple[str, str, int | None]]


@dataclasses.dataclass
class Stream:
    """What one follower heard; a list of batches for each time it had to begin anew, last `at`, in ns.

    `rest` is what it was told of a batch of which it did not await the end.
    """

    who: str
    parts: list[list[Batch]] = dataclasses.field(default_factory=lambda: [[]])
    at: int = 0
    rest: list[tuple[str, str, int | None]] = dataclasses.field(default_factory=list)


def read(path: Path) -> Stream:
    """What a follower wrote down: {"start", "at"}, {"anew", "at"}, {"event": [kind, id, version], "cursor"}.

    "start" is the cursor from which it went on, also after it was killed: what it had been told of a batch, but not
    whole, is told again.
    """
    stream = Stream(path.stem)
    cursor = ""
    told: list[tuple[str, str, int | None]] = []
    for line in lines(path):
        if "start" in line:
            cursor, told = line["start"], []
            stream.at = stream.at or line["at"]
        elif "anew" in line:
            stream.parts.append([])
            cursor, told = line["anew"], []
            stream.at = line["at"]
        elif "event" in line:
            told.append(tuple(line["event"]))
            if line["cursor"] != cursor:
                stream.parts[-1].append(Batch(cursor, line["cursor"], told))
                cursor, told = line["cursor"], []
    stream.rest = told
    return stream


def faults(streams: Sequence[Stream], feed: Feed, state: Mapping[str, int | None]) -> tuple[list[str], int]:
    """What was not as promised, and how many batches could not be held to the feed, which keeps the newest only.

    `state` is the version of each record in the end, None for what is gone.
    """
    found, unknown = [], 0
    for stream in streams:
        for part in stream.parts:
            for batch in part:
                wanted = expected(batch, feed)
                if wanted is None:
                    unknown += 1
                elif wanted != [told[:2] for told in batch.told]:
                    found.append(f"{stream.who} was told {[told[1] for told in batch.told]} between {batch.since} and"
                                 f" {batch.cursor}, where there is {[key for _, key in wanted]}")
        found += _outdated(stream, state)
    return found, unknown


def expected(batch: Batch, feed: Feed) -> list[tuple[str, str]] | None:
    """What is to be told between two cursors; None where that is not known any more."""
    (epoch, first), (until_epoch, last) = (cursor.rsplit(":", 1) for cursor in (batch.since, batch.cursor))
    entries = feed.get(epoch, {})
    if epoch != until_epoch or int(first) + 1 not in entries or int(last) not in entries:
        return None
    wanted: dict[tuple[str, str], None] = {}
    for number in range(int(first) + 1, int(last) + 1):
        entry = entries.get(number)
        if entry is not None:
            wanted.pop(entry, None)
            wanted[entry] = None
    return list(wanted)


def _outdated(stream: Stream, state: Mapping[str, int | None]) -> Iterator[str]:
    """Records of which the last that was told is not what they are in the end."""
    last: dict[str, int | None] = {}
    for batch in stream.parts[-1]:
        last.update((key, version) for kind, key, version in batch.told if kind != "repo_state")
    for key, version in last.items():
        if version != state.get(key):
            yield f"{stream.who} was last told of {key} as {version}, which is {state.get(key)}"


def untold(streams: Sequence[Stream], calls: Sequence[Call]) -> list[str]:
    """Writes that agents made since a follower began, of whose records it never heard. The feed need not be known."""
    found = []
    tried: set[str] = set()
    told = [(stream, {key for batch in stream.parts[-1] for _, key, _ in batch.told} | {one[1] for one in stream.rest})
            for stream in streams]
    for call in sorted(calls, key=lambda one: one.began):
        if call.name not in WRITES or call.arguments["op"] in tried:
            continue  # what is sent again may have been written long ago
        tried.add(call.arguments["op"])
        for stream, keys in told:
            if call.is_done and call.who.startswith("agent") and call.began > stream.at:
                found += [f"{stream.who} never heard of {key}, which {call.who} wrote" for key in call.versions
                          if key not in keys]
    return found


def heard(streams: Sequence[Stream]) -> dict[str, int]:
    """How many changes each follower was told of."""
    count: dict[str, int] = defaultdict(int)
    for stream in streams:
        count[stream.who] += sum(len(batch.told) for part in stream.parts for batch in part)
    return count
