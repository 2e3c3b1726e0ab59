"""What is fuzzed: functions of bytes that anybody may send or leave in a file. Each asserts what must hold for all.

`frames`   what comes over the socket: cut anywhere, it is the same messages; nothing raises but an answer that says so
`outbox`   what a crash leaves of an outbox: scanning it never fails, and finds what was written before and behind it
`lines`    lines of a log: the quick reader and the careful one agree, and a cache takes what they say
`merge`    three versions of a log: no line lost, the same result either way, again, and read by everybody
`hooks`    files that others wrote: our block comes out again to the byte
`beads`    the log of another tool: what can be taken is valid, the rest is told
"""

import itertools
import json
import zlib
from collections.abc import Callable

import msgspec
from tests.merge.logs import both, records_in, state

from taskstore.beads import convert
from taskstore_core import frames, jsonl, rpc
from taskstore_core.errors import TaskStoreError
from taskstore_core.kinds import KINDS
from taskstore_core.methods import METHODS
from taskstore_core.validation import check_values
from taskstore_daemon.answerer import loads
from taskstore_daemon.work import NoMethodError, Work
from taskstore_hooks import blocks

_SMALL = 256
_ONE_IN = 32  # inputs that are also put into a cache, which takes a hundred times as long as reading them
_SEPARATOR = b"\n\xff\n"


def fuzz_frames(data: bytes) -> None:
    """A stream in two pieces gives what it gives in one, and every frame a call, several, or a fault."""
    cut = data[0] if data else 0
    stream = data[1:]
    whole, pieces = _framed(stream), _framed(stream[:cut], stream[cut:])
    assert whole == pieces
    for frame in whole[0]:
        message = rpc.parse(frame, loads)
        for one in message if isinstance(message, list) else [message]:
            if isinstance(one, rpc.Fault):
                assert json.loads(rpc.error(one.id, one.code, one.message))["error"]["code"] == one.code
                continue
            try:
                Work(one, METHODS, len(frame))
            except (TaskStoreError, NoMethodError):
                continue


def _framed(*pieces: bytes) -> tuple[list[bytes], bool]:
    """The frames that came, and whether one was too long."""
    framer = rpc.Framer(_SMALL)
    found: list[bytes] = []
    try:
        for piece in pieces:
            found += framer.feed(piece)
    except rpc.OversizeError as error:
        return found + error.lines, True
    return found, False


def fuzz_outbox(data: bytes) -> None:
    """Whatever bytes stand between two frames, the one before is found, and one behind a line end too."""
    first = frames.Write(1, "boot", 2, [("prds.jsonl", '{"id":"a"}')]).encode()
    second = frames.Write(2, "boot", 3, [("prds.jsonl", '{"id":"b"}')]).encode()
    torn = data.replace(b"\0", b"")
    found = [frame for _, _, frame in frames.scan(first + torn + b"\n" + second, 0) if frame]
    assert [found[0].get("seq"), found[-1].get("seq")] == [1, 2]
    ends = [(offset, end) for offset, end, _ in frames.scan(first + data, 0)]
    assert all(end == offset for (_, end), (offset, _) in itertools.pairwise(ends))
    frames.only_marks(data)
    frames.without(first + torn, {"prds.jsonl": {b'{"id":"a"}'}})


def fuzz_lines(data: bytes) -> None:
    """Both indexers say the same of each line, of every kind, and the cache holds the newest version of each id."""
    lines = data.split(b"\n")
    for kind, quick in _QUICK.items():
        careful = [jsonl.index_or_error(KINDS[kind], line) for line in lines]
        for one, other in zip(quick(lines), careful, strict=True):
            assert repr(one) == repr(other) if isinstance(one, jsonl.BadLineError) else one == other
    if zlib.crc32(data) % _ONE_IN:
        return
    whole = data[:data.rfind(b"\n") + 1]
    found, expected = state(whole), _newest(whole)
    assert found.keys() == expected.keys()
    assert all((record is None) == expected[key][2] for key, record in found.items())


_QUICK = {name: jsonl.bulk_indexer(kind) for name, kind in KINDS.items()}


def _newest(data: bytes) -> "dict[str, jsonl.Row]":
    """The row of each id that readers see: the largest version, of equals the last."""
    newest: dict[str, jsonl.Row] = {}
    for line in data.split(b"\n"):
        row = jsonl.index_or_error(KINDS["prd"], line)
        if isinstance(row, tuple) and (row[0] not in newest or row[1] >= newest[row[0]][1]):
            newest[row[0]] = row
    return newest


def fuzz_merge(data: bytes) -> None:
    """The parts between separators are base, ours and theirs."""
    parts = [*data.split(_SEPARATOR), b"", b"", b""]
    base, ours, theirs = parts[0], parts[1], parts[2]
    if any(line.count(b'"id"') > 1 for line in data.split(b"\n")):
        return  # a line that may have two ids, which is one of the assumptions in docs/guarantees.md
    merged = both(base, ours, theirs)
    kept = (records_in(ours) & records_in(theirs)) | (records_in(ours) - records_in(base)) | (
        records_in(theirs) - records_in(base))
    assert kept <= records_in(merged.data)
    if not merged.conflicts:
        assert _newest(both(base, merged.data, merged.data).data) == _newest(merged.data)
        assert _newest(both(base, ours, merged.data).data) == _newest(merged.data)


def fuzz_hooks(data: bytes) -> None:
    """A block that is put anywhere is found, renewed and taken out."""
    at, content = data[0] if data else 0, data[1:]
    if blocks.BEGIN in content or blocks.END in content:
        blocks.take(blocks.renew(content, b"body\n"))
        return
    begins = [0, *(place + 1 for place, byte in enumerate(content) if byte == ord("\n")), len(content)]
    put = blocks.put(content, b"body\n", begins[at % len(begins)])
    found = blocks.find(put)
    assert found is not None
    assert found.body == b"body\n"
    assert blocks.take(put)[0] == blocks.take(blocks.renew(put, b"another\n"))[0] == content


def fuzz_beads(data: bytes) -> None:
    """Every line is taken or told of, and what is taken may be written."""
    conversion = convert(data.split(b"\n"))
    for kind, record in conversion.records:
        check_values(KINDS[kind], {name: value for name, value in record.items() if name != "deleted"})
        msgspec.json.encode(record)
    for number, _, reason in conversion.skipped:
        assert number > 0
        assert reason


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": fuzz_frames, "outbox": fuzz_outbox, "lines": fuzz_lines, "merge": fuzz_merge, "hooks": fuzz_hooks,
    "beads": fuzz_beads,
}
