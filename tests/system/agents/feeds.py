"""Whether who followed the changes heard of each once and in order, by the feed as it stood in the cache.

Changes that are told together have one cursor: what a follower hears between two cursors must be what the feed has
between them, each record once, in the order of its last change.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.system.agents.history import lines

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
    """What one follower heard; a list of batches for each time it had to begin anew."""

    who: str
    parts: list[list[Batch]] = dataclasses.field(default_factory=lambda: [[]])


def read(path: Path) -> Stream:
    """What a follower wrote down: {"start"}, {"anew"}, {"event": [kind, id, version], "cursor"}.

    "start" is the cursor from which it went on, also after it was killed: what it had been told of a batch, but not
    whole, is told again.
    """
    stream = Stream(path.stem)
    cursor = ""
    told: list[tuple[str, str, int | None]] = []
    for line in lines(path):
        if "start" in line:
            cursor, told = line["start"], []
        elif "anew" in line:
            stream.parts.append([])
            cursor, told = line["anew"], []
        elif "event" in line:
            told.append(tuple(line["event"]))
            if line["cursor"] != cursor:
                stream.parts[-1].append(Batch(cursor, line["cursor"], told))
                cursor, told = line["cursor"], []
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


def heard(streams: Sequence[Stream]) -> dict[str, int]:
    """How many changes each follower was told of."""
    count: dict[str, int] = defaultdict(int)
    for stream in streams:
        count[stream.who] += sum(len(batch.told) for part in stream.parts for batch in part)
    return count
