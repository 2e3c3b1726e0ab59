"""The codec: bytes in, messages out, however the bytes were cut; and what is said of those that are none."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskstore_core import errors, rpc
from taskstore_core.plain import Json
from taskstore_core.rpc import Call, Fault, Framer, OversizeError

LOADS: list[Callable[[bytes], object]] = [orjson.loads, json.loads]


def feed_whole(stream: bytes, limit: int = rpc.FRAME_BYTES) -> list[bytes]:
    return Framer(limit).feed(stream)


def feed_bytewise(stream: bytes, limit: int = rpc.FRAME_BYTES) -> list[bytes]:
    framer = Framer(limit)
    return [line for number in range(len(stream)) for line in framer.feed(stream[number:number + 1])]


def feed_with_trailing_data(stream: bytes, limit: int = rpc.FRAME_BYTES) -> list[bytes]:
    framer = Framer(limit)
    lines = framer.feed(stream + b"{")
    assert (framer.is_partial, framer.feed(b"}\n"), framer.is_partial) == (True, [b"{}"], False)
    return lines


FEEDS = [feed_whole, feed_bytewise, feed_with_trailing_data]
feeds = pytest.mark.parametrize("feed", FEEDS)
STREAMS = {
    "one": (b'{"a":1}\n', [b'{"a":1}']),
    "two": (b"{}\n[]\n", [b"{}", b"[]"]),
    "blank lines": (b"\n\n{}\n \n\t\n[]\n\n", [b"{}", b"[]"]),
    "CRLF": (b"{}\r\n\r\n[]\r\n", [b"{}\r", b"[]\r"]),
    "letters of several bytes": ('"äß€😀"\n'.encode(), ['"äß€😀"'.encode()]),
    "nothing": (b"", []),
}


@feeds
@pytest.mark.parametrize(("stream", "lines"), STREAMS.values(), ids=STREAMS.keys())
def test_framing(feed: Any, stream: bytes, lines: list[bytes]) -> None:
    """Lines come out as they went in, blank ones left out, however the stream is cut."""
    assert feed(stream) == lines


@given(st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line)), st.lists(st.integers(0, 60)))
def test_framing_of_anything(lines: list[bytes], cuts: list[int]) -> None:
    """Any lines, cut anywhere, come out whole and in order."""
    stream = b"".join(line + b"\n" for line in lines)
    framer, found = Framer(), []
    ends = [*sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in zip([0, *ends], ends, strict=False):
        found += framer.feed(stream[start:end])
    assert found == [line for line in lines if line.strip()]
    assert not framer.is_partial


@pytest.mark.parametrize(("stream", "partial"), [
    (b"{", True), (b"{}\n{", True), (b"{}\n", False), (b"{}\n \r", False), (b" \t{ ", True), (b"{ \n \n ", False),
    (b" \n  {", True), (b"", False),
])
def test_partial(stream: bytes, partial: bool) -> None:
    """A line has begun when there is more than blanks of it, however they came."""
    whole, bytewise = Framer(), Framer()
    whole.feed(stream)
    for byte in stream:
        bytewise.feed(bytes([byte]))
    assert (whole.is_partial, bytewise.is_partial) == (partial, partial)


def test_largest() -> None:
    """A line of just the limit is taken, with or without others around it, and at any cut."""
    line = b"x" * 10
    for feed in FEEDS:
        assert feed(line + b"\n", 10) == [line]
        assert feed(b"a\n" + line + b"\nb\n", 10) == [b"a", line, b"b"]


@pytest.mark.parametrize("stream", [b"y" * 11, b"y" * 11 + b"\n", b"y" * 11 + b"\nb\n", b"y" * 99, b"y" * 11 + b"\n{"])
@pytest.mark.parametrize("before", [b"", b"a\n\n"])
def test_oversize(before: bytes, stream: bytes) -> None:
    """One byte more is refused as soon as it is there, ended or not; what came whole before is handed over."""
    with pytest.raises(OversizeError) as refused:
        feed_whole(before + stream, 10)
    assert refused.value.lines == ([b"a"] if before else [])
    framer = Framer(10)
    assert framer.feed(before + b"y" * 10) == ([b"a"] if before else [])
    with pytest.raises(OversizeError):
        framer.feed(b"y")
    assert not framer._buffer  # it is kept in memory no longer than that


def parse(frame: bytes | str, loads: Callable[[bytes], object] = orjson.loads) -> Any:
    return rpc.parse(frame.encode() if isinstance(frame, str) else frame, loads)


IDS = ["1", "0", "-1", '"a"', '""', '"ä\\n"', "null", "1.5", "18446744073709551616", '"1"']


@pytest.mark.parametrize("id_", IDS)
def test_ids(id_: str) -> None:
    """An id of any type that is allowed comes back as it was, and null is an id, too."""
    for loads in (json.loads, msgspec.json.decode):
        call = parse(f'{{"jsonrpc":"2.0","id":{id_},"method":"m"}}', loads)
        assert isinstance(call, Call)
        assert json.loads(rpc.result(call.id, "7")) == {"jsonrpc": "2.0", "id": json.loads(id_), "result": 7}
        assert json.loads(rpc.error(call.id, 5, "é"))["id"] == json.loads(id_)


@pytest.mark.parametrize("loads", LOADS)
def test_calls(loads: Callable[[bytes], object]) -> None:
    """A call has its method and its parameters, by name, by position or none; without an id it is a notification."""
    named = parse('{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[1]}}', loads)
    assert (named.id, named.method, named.parameters) == ("1", "m", {"a": [1]})
    assert parse('{"jsonrpc":"2.0","id":1,"method":"m","params":[1,2]}', loads).parameters == [1, 2]
    assert parse('{"jsonrpc":"2.0","id":1,"method":"m"}\r', loads).parameters == {}
    assert parse('{"jsonrpc":"2.0","method":"m"}', loads).id == ""


FAULTS = {
    "no JSON": ('{"jsonrpc":', -32700, "null"),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', -32700, "null"),
    "a number": ("1", -32600, "null"),
    "a string": ('"{}"', -32600, "null"),
    "null": ("null", -32600, "null"),
    "no version": ('{"id":1,"method":"m"}', -32600, "1"),
    "another version": ('{"jsonrpc":"1.0","id":1,"method":"m"}', -32600, "1"),
    "a version that is a number": ('{"jsonrpc":2.0,"id":"x","method":"m"}', -32600, '"x"'),
    "no method": ('{"jsonrpc":"2.0","id":1}', -32600, "1"),
    "a method that is none": ('{"jsonrpc":"2.0","id":1,"method":null}', -32600, "1"),
    "params that are a string": ('{"jsonrpc":"2.0","id":1,"method":"m","params":"x"}', -32600, "1"),
    "params that are null": ('{"jsonrpc":"2.0","id":1,"method":"m","params":null}', -32600, "1"),
    "an id that is true": ('{"jsonrpc":"2.0","id":true,"method":"m"}', -32600, "null"),
    "an id that is an object": ('{"jsonrpc":"2.0","id":{},"method":"m"}', -32600, "null"),
    "an id that is an array": ('{"jsonrpc":"2.0","id":[1],"method":"m"}', -32600, "null"),
    "a fault without an id": ('{"jsonrpc":"2.0","method":1}', -32600, "null"),
    "an empty batch": ("[]", -32600, "null"),
}


@pytest.mark.parametrize(("frame", "code", "id_"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("loads", LOADS)
def test_faults(loads: Callable[[bytes], object], frame: bytes | str, code: int, id_: str) -> None:
    """What is no call is answered with the code of the specification, and with its id where that can be told."""
    fault = parse(frame, loads)
    assert isinstance(fault, Fault)
    assert (fault.code, fault.id) == (code, id_)


def nested(depth: int) -> str:
    """A call that is `depth` levels deep; the call itself and its parameters are two of them."""
    return f'{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"a":{"[" * (depth - 2)}{"]" * (depth - 2)}}}}}'


@pytest.mark.parametrize("loads", [*LOADS, msgspec.json.decode])
def test_depth(loads: Callable[[bytes], object]) -> None:
    """64 levels are taken and 65 are not; brackets in strings, or side by side, are no levels."""
    assert isinstance(parse(nested(64), loads), Call)
    deeper = parse(nested(65), loads)
    assert (deeper.code, "64 levels" in deeper.message) == (-32600, True)
    deepest = parse(nested(100_000), loads)
    assert deepest.code in {-32600, -32700}
    assert parse("[" * 100_000, loads).code == -32700
    flat = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"a": [[]] * 500, "b": '[{\\"' * 500}})
    assert isinstance(parse(flat, loads), Call)
    assert parse(json.dumps("[" * 500), loads).code == -32600


def test_batches() -> None:
    """A batch has its calls and faults in order; of more than 100 it is refused as a whole."""
    call = '{"jsonrpc":"2.0","id":%d,"method":"m"}'
    batch = parse(f"[{call % 1},2,{call % 3}]")
    assert [type(one) for one in batch] == [Call, Fault, Call]
    assert [one.id for one in parse("[" + ",".join(call % n for n in range(100)) + "]")] == [str(n) for n in range(100)]
    many = parse("[" + ",".join(call % n for n in range(101)) + "]")
    assert isinstance(many, Fault)
    assert (many.code, many.id) == (-32600, "null")


def test_frames() -> None:
    """What is made is one line of JSON each: results as text that is JSON already, errors, batches, calls."""
    frames = [rpc.result("1", '{"a": 1}'), rpc.error("null", -5, "line\nbreak", {"kind": "x"}),
              rpc.request(7, "m", {"a": Json("[1]")}), rpc.notification("n", {"b": "\n"})]
    frames.append(rpc.batch(frames[:2]))
    assert all(frame.endswith(b"\n") and frame.count(b"\n") == 1 for frame in frames)
    assert [json.loads(frame) for frame in frames] == [
        {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}},
        {"jsonrpc": "2.0", "id": None, "error": {"code": -5, "message": "line\nbreak", "data": {"kind": "x"}}},
        {"jsonrpc": "2.0", "id": 7, "method": "m", "params": {"a": [1]}},
        {"jsonrpc": "2.0", "method": "n", "params": {"b": "\n"}},
        [json.loads(frames[0]), json.loads(frames[1])],
    ]
    assert rpc.batch([]) == b""


def test_error_data() -> None:
    """An error says its kind, whether to try again, what became of the write, and what more there is to say."""
    error = errors.InvalidError("m", hint="h", field="f", applied="no")
    error.operation = 0
    assert rpc.error_data(error) == {"kind": "invalid", "retryable": False, "applied": "no", "hint": "h", "field": "f",
                                     "operation": 0}
    assert rpc.error_data(errors.BusyError("m", applied="unknown")) == {
        "kind": "busy", "retryable": True, "applied": "unknown"}


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                      | st.text(st.characters(exclude_categories=["Cs"])),
                      lambda inner: st.lists(inner) | st.dictionaries(st.text('abc\n"', max_size=4), inner),
                      max_leaves=9)


@given(st.integers() | st.text(st.characters(exclude_categories=["Cs"])), st.text('a.\n"é'),
       st.dictionaries(st.text("ab\\ "), VALUES, max_size=4))
def test_round_trip(id_: int | str, method: str, parameters: dict[str, object]) -> None:
    """Any call that is encoded here is decoded as it was, alone and among others in a stream."""
    frame = rpc.request(id_, method, parameters)
    lines = Framer().feed(frame + frame)
    assert lines == [frame[:-1], frame[:-1]]
    call = rpc.parse(lines[0], json.loads)
    assert isinstance(call, Call)
    assert (json.loads(call.id), call.method, call.parameters) == (id_, method, parameters)


@given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_frame(frame: bytes) -> None:
    """Any bytes at all are a call, a fault or a batch of both, and the answer to a fault is JSON."""
    for loads in (json.loads, orjson.loads):
        parsed = rpc.parse(frame, loads)
        for one in parsed if isinstance(parsed, list) else [parsed]:
            if isinstance(one, Fault):
                assert json.loads(rpc.error(one.id, one.code, one.message))["error"]["code"] == one.code
