"""Frames of the outbox: bytes in, bytes out, no files.

One frame is one line of JSON that ends in a CRC-32 of what stands before it:

    {"seq":7,"boot":"…","at":1700000000000,"entries":[["prds.jsonl","{…}"]],"sum":"0f3c9a11"}
    {"applied":7,"sum":…}   the lines of every frame up to 7 stand in their logs
    {"synced":7,"sum":…}    and those logs were fsynced since
    {"doubted":"…","sum":…} in this boot a sync of the logs failed: "synced" means nothing until the next
    {"settled":"7:0","sum":…} line 0 of frame 7, which its log lost, need not be looked for again
    {"abort":7,"sum":…}     frame 7 was taken back before anybody was told that it succeeded
    {"outbox":"…","sum":…}  the first line: the identity of this outbox

The file is filled with zeros ahead of its end. A stretch that is no frame (torn by a crash) is passed over up to
its line end; a zero byte ends the scan.
"""

import sys
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from .jsonl import Row

    Entry = tuple[str, str]
    """The name of a log, and one line for it, without its line end."""

_MARKS = (b'{"applied":', b'{"synced":', b'{"doubted":', b'{"settled":')
_PROGRESS = _MARKS[:2]
_WRITE = b'{"seq":'
_AT = b',"at":'
_SUM_BYTES = len(',"sum":"00000000"}')


class Write:
    """A frame that carries lines: `seq` counts up by one, `boot` and `at` tell when it was written."""

    __slots__ = ("at", "boot", "end", "entries", "offset", "rows", "seq")

    def __init__(self, seq: int, boot: str, at: int, entries: "Sequence[Entry]") -> None:
        self.seq = seq
        self.boot = boot
        self.at = at
        self.entries = entries
        self.offset = self.end = 0  # its bytes in the file, once they stand there
        self.rows: Sequence[Row | None] | None = None  # of its lines, for whoever has indexed them

    def encode(self) -> bytes:
        """The frame's bytes, line end included."""
        import msgspec

        return _seal(msgspec.json.encode(
            {"seq": self.seq, "boot": self.boot, "at": self.at, "entries": self.entries})[:-1])


def encode_mark(name: str, value: int | str) -> bytes:
    """The bytes of an "applied", "synced", "settled", "abort" or "outbox" frame, line end included."""
    return _seal((f'{{"{name}":{value}' if isinstance(value, int) else f'{{"{name}":"{value}"').encode())


def only_marks(data: bytes) -> bool:
    """Whether `data` holds marks and no lines; told by how they begin, as decoding would slow every start-up."""
    return all(line.startswith(_MARKS) for line in data.splitlines())


def scan(data: bytes, base: int) -> "Iterator[tuple[int, int, dict[str, object] | None]]":
    """Each line of `data`, which stands at file offset `base`, as (offset, end, frame); frame None if damaged.

    Ends at the first zero byte. An unterminated stretch before it is given as damaged, with its end where the
    zeros begin.
    """
    stop = data.find(b"\0")
    stop = len(data) if stop < 0 else stop
    start = 0
    while start < stop:
        newline = data.find(b"\n", start, stop)
        end = stop if newline < 0 else newline + 1
        yield base + start, base + end, None if newline < 0 else _open(data[start:newline])
        start = end


def written_since(data: bytes, since: int) -> "Iterator[dict[str, object]]":
    """The intact frames in `data` that are writes, but for those made before `since`, in Unix ms, and what undoes some.

    Old ones are told by how they begin, as decoding takes fifty times as long.
    """
    for line in data.split(b"\n"):
        if line.startswith(_WRITE):
            at = line.find(_AT) + len(_AT)
            stamp = line[at:line.find(b",", at)]
            if stamp.isdigit() and int(stamp) < since:
                continue
        elif line.startswith(_PROGRESS):
            continue
        frame = _open(line)
        if frame is not None:
            yield frame


def without(data: bytes, lines: "Mapping[str, Collection[bytes]]") -> bytes | None:
    """The frames in `data` that stand for writes, without these lines of these logs; None if none of them is there."""
    read = [line for line in scan(data, 0) if line[2]]
    aborted = {frame.get("abort") for _, _, frame in read if frame}
    places: dict[str, str] = {}  # "frame:line" as "settled" marks name it → what it is called now
    kept, found = [], False
    for offset, end, frame in read:
        match frame:
            case {"seq": int(seq), "boot": str(boot), "at": int(at), "entries": list(entries)}:
                left = [number for number, (name, line) in enumerate(entries)
                        if line.encode() not in lines.get(name, ())]
                found = found or len(left) < len(entries)
                if left and seq not in aborted:
                    places |= {f"{seq}:{old}": f"{seq}:{new}" for new, old in enumerate(left)}
                    kept.append(data[offset:end] if len(left) == len(entries)
                                else Write(seq, boot, at, [entries[number] for number in left]).encode())
            case {"settled": str(those)}:
                kept.append(encode_mark("settled", ",".join(places[one] for one in those.split(",") if one in places)))
            case {"doubted": _}:
                kept.append(data[offset:end])
            case _:
                pass
    return b"".join(kept) if found else None


def _seal(body: bytes) -> bytes:
    """A frame's bytes, of those before its sum."""
    return body + b',"sum":"%08x"}\n' % zlib.crc32(body)


def _open(line: bytes) -> dict[str, object] | None:
    body = line[:-_SUM_BYTES]
    if line[-_SUM_BYTES:] != b',"sum":"%08x"}' % zlib.crc32(body):
        return None
    return _decode(body + b"}")


def _decode(data: bytes) -> dict[str, object] | None:
    """A frame; by msgspec, ten times as fast, if it is loaded: whoever writes has it, and reads thousands at times.

    None for what is no object: bytes that nobody wrote so have the right sum by chance, as no bytes at all have.
    """
    if "msgspec" in sys.modules:
        import msgspec

        try:
            return msgspec.json.decode(data, type=dict[str, object])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
    import json

    try:
        frame = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None
