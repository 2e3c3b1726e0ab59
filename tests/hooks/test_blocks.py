"""Blocks of ours in files of others, and which files can take them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskstore_hooks import blocks
from taskstore_hooks.scripts import NoShellError, entrance

BODY = b"one\ntwo\n"
PARTS = [b"#!/bin/sh", b"exit 0", b"\r", b"\n", b"\r\n", b"x", b"# >>> task"]
contents = st.one_of(st.binary(), st.lists(st.sampled_from(PARTS)).map(b"".join))


def places(content: bytes) -> list[int]:
    """The offsets at which a line begins, and the end."""
    return sorted({0, len(content), *(n + 1 for n, byte in enumerate(content) if byte == 0x0A)})


@given(contents, st.data(), st.sets(st.sampled_from([blocks.MADE])))
@example(b"#!/bin/sh", None, set())
def test_what_was_put_in_is_taken_out(content: bytes, data: st.DataObject | None, notes: set[bytes]) -> None:
    """Taking a block out restores every byte, wherever it was put in, and tells its notes."""
    at = len(content) if data is None else data.draw(st.sampled_from(places(content)))
    there = blocks.put(content, BODY, at, frozenset(notes))
    rest, told = blocks.take(there)
    assert rest == content
    assert told - {blocks.NEWLINE} == notes


@given(contents, st.data())
def test_a_block_is_found_and_renewed(content: bytes, data: st.DataObject) -> None:
    """A block is found by its lines; renewing it changes these alone, or nothing where they are the same."""
    there = blocks.put(content, BODY, data.draw(st.sampled_from(places(content))))
    found = blocks.find(there)
    assert found is not None
    assert found.body == BODY
    assert blocks.renew(there, BODY) == there
    other = blocks.renew(there, b"three\n")
    assert b"three\n" in other
    assert blocks.take(other)[0] == content


@pytest.mark.parametrize("content", [
    b"", b"x\n", blocks.BEGIN + b"\nx\n", b"x\n" + blocks.END + b"\n", blocks.END + b"\n" + blocks.BEGIN + b"\n"])
def test_half_a_block_is_none(content: bytes) -> None:
    """Where a marker line is missing nothing is taken out, however it came to that."""
    assert blocks.find(content) is None
    assert blocks.take(content) == (content, frozenset())
    assert blocks.renew(content, BODY) == content


def test_half_a_block_before_a_whole_one() -> None:
    """What stands between a first line without a last one and a whole block is nobody's of ours."""
    content = blocks.BEGIN + b"\nsomebody's own\n"
    assert blocks.take(blocks.put(content, BODY, len(content)))[0] == content


def test_a_block_that_an_editor_gave_carriage_returns() -> None:
    """A block whose lines end in CR LF is still one."""
    content = blocks.put(b"#!/bin/sh\necho x\n", BODY, 10, frozenset({blocks.MADE})).replace(b"\n", b"\r\n")
    assert blocks.take(content) == (b"#!/bin/sh\r\necho x\r\n", frozenset({blocks.MADE}))


@pytest.mark.parametrize(("content", "offset"), [
    (b"", 0), (b"echo x\n", 0), (b"# a comment\necho x\n", 0), (b"#!/bin/sh", 9), (b"#!/bin/sh\nexit\n", 10),
    (b"#! /bin/bash -eu\nexit\n", 17), (b"#!/usr/bin/env bash\r\n", None), (b"#!/usr/bin/env sh\n. x\n", 18),
    (b"#!/usr/bin/env -S FOO=x bash -e\nx\n", 32), (b"#!/bin/busybox sh\nx\n", 18), (b"#!/bin/zsh\nx\n", 11),
    (b"#!/bin/sh\r\necho x\r\n", None), (b"#!/usr/bin/env python3\nprint()\n", None), (b"#!/usr/bin/perl\n", None),
    (b"\x7fELF\x02\x01\0\0", None), (b"#!/bin/sh\n\0", None), (b"#!/bin/fish\n", None), (b"#!\n", None),
    (b"#!/bin/sh\n'''exec' python \"$0\"\n' '''\n", None), (b'#!/bin/sh\n# x\n"exec" python $0\n', None)])
def test_where_a_shell_begins(content: bytes, offset: int | None) -> None:
    """A shell's commands begin behind its first line; what is another language's, or cannot be run, is told."""
    if offset is None:
        with pytest.raises(NoShellError, match=r"shell|carriage return"):
            entrance(content)
    else:
        assert entrance(content) == offset
