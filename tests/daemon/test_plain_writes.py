"""Single plain writes go a short way, on which they are answered as on the long one."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.daemon.conftest import Client

from taskstore_core.records import FIELDS
from taskstore_daemon import session
from taskstore_daemon.plain_writes import PlainWrite, plain_write

NEEDED: dict[str, dict[str, object]] = {
    "prd": {"title": "T"}, "task_spec": {"prd_id": "p", "phase_name": "n"}, "execution": {"ts_id": "t"},
    "workflow": {"name": "w"}, "dependency": {"from_exec_id": "a", "to_exec_id": "b", "dependency_type": "query"},
    "repo_state": {"last_synced_commit": "c"}}


def frame(method: str, id_: str = "1", **params: Any) -> bytes:
    text = json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params})
    return text.replace('"id": 0', f'"id": {id_}', 1).encode() + b"\n"


def of_kind(kind: str, name: str) -> list[bytes]:
    """Frames about one record of a kind: what goes well, what is repeated, and what cannot be."""
    key = "repo_path" if kind == "repo_state" else "id"
    whole = {key: name, **NEEDED[kind]}
    changed = {field: NEEDED[kind][field] for field in list(NEEDED[kind])[:1]}
    return [
        frame("record.create", kind=kind, record=NEEDED[kind]),
        frame("record.create", kind=kind, record=whole),
        frame("record.create", kind=kind, record=whole),
        frame("record.create", kind=kind, record={**whole, key: f"{name}-o", "note": [1, {"a": None}]}, op=f"{name}-1"),
        frame("record.create", kind=kind, record={**whole, key: f"{name}-o", "note": [1, {"a": None}]}, op=f"{name}-1"),
        frame("record.create", kind=kind, record=whole, op=f"{name}-1"),
        frame("record.create", kind=kind, record={key: f"{name}-2"}),
        *(frame("record.create", kind=kind, record={**whole, key: f"{name}-3", field: {}}) for field in FIELDS[kind]),
        frame("record.update", kind=kind, id=name, set={**changed, "note": 'é\u2028"\\'}),
        frame("record.update", kind=kind, id=name, set=changed, if_updated_at=7),
        frame("record.update", kind=kind, id=name, set={key: "other"}),
        frame("record.update", kind=kind, id=name, set=changed, op=f"{name}-4"),
        frame("record.update", kind=kind, id=name, set=changed, op=f"{name}-4"),
        frame("record.update", kind=kind, id=f"{name}-nobody", set=changed),
        frame("record.delete", kind=kind, id=name, if_updated_at=7),
        frame("record.delete", kind=kind, id=name, op=f"{name}-5"),
        frame("record.delete", kind=kind, id=name, op=f"{name}-5"),
        frame("record.delete", kind=kind, id=name),
        frame("record.update", kind=kind, id=name, set=changed),
        frame("record.create", kind=kind, record=whole),
        frame("record.delete", kind=kind, id=name),
    ]


def unusual(name: str) -> list[bytes]:
    """Frames that are answered, but for the ids of some, the long way."""
    plain: dict[str, Any] = {"kind": "prd", "record": {"title": name}}
    deep = json.loads("[" * 70 + "]" * 70)
    others: list[dict[str, Any]] = [
        {"kind": "prds"}, {"kind": 1}, {"kind": None}, {"record": []}, {"record": {}}, {"op": ""}, {"op": 1},
        {"op": None}, {"op": "x" * 300}, {"flush": True}, {"flush": None}, {"flush": 1}, {"other": 1},
        {"record": {"title": deep}}, {"record": {"title": name, "big": 2**70}}, {"record": {"title": "\ud800"}},
        {"record": {"title": name, "id": "a\nb"}}, {"record": {"title": name, "op": "o"}},
        {"record": {"title": name, "deleted": True}}, {"record": {"title": name, "updated_at": 1}}]
    return [
        *(frame("record.create", id_, **plain) for id_ in (
            '"x"', '"\\u00e9\\n"', '"\\ud83d\\ude00"', "-0", "18446744073709551617", "1.0", "1e3", "null", "true",
            "{}")),
        *(frame("record.create", **plain | other) for other in others),
        *(frame("record.update", kind="prd", id=name, set={}, if_updated_at=stamp) for stamp in (
            None, 0, -1, 2**70, 1.0, "1", True)),
        frame("record.update", kind="prd", id=None, set={}),
        frame("record.create", **plain).replace(b'"2.0"', b'"1.0"'),
        frame("record.create", **plain).replace(b'"params"', b'"extra": 1, "params"'),
        frame("record.create", **plain).replace(b'"params"', b'"params": 1, "params"'),
        b'{"jsonrpc":"2.0","id":1,"method":"record.create","params":["prd",{"title":"by place"}]}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"record.create","params":{"kind":"prd","record":{"title":"\xff"}}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"record.create","params":{"kind":"prd","record":{"title":"a"}}}}\n',
    ]


async def answers(client: Client, frames: list[bytes]) -> list[str]:
    """The answers to frames that are sent one by one, without what differs from time to time."""
    told = []
    for one in frames:
        await client.send(one)
        text = (await client.line()).decode()
        text = re.sub(r"\b(prd|ts|exec|dep|wf)-[0-9a-z]{8}\b", "ID", re.sub(r"\b1[6-9]\d{11}\b", "STAMP", text))
        told.append(re.sub(r'(?<="op_sum":")\w+', "SUM", text))
    return told


@pytest.mark.parametrize("frames", [*(lambda name, kind=kind: of_kind(kind, name) for kind in NEEDED), unusual],
                         ids=[*NEEDED, "unusual"])
async def test_answers(client: Client, monkeypatch: pytest.MonkeyPatch,
                       frames: Callable[[str], list[bytes]]) -> None:
    """Whatever is asked, the short way answers what the long one does, to the byte."""
    short: list[bool] = []

    def noting(one: bytes, of: session.Session) -> PlainWrite | None:
        write = plain_write(one, of)
        short.append(write is not None)
        return write

    monkeypatch.setattr(session, "PENALTY_S", 0)
    monkeypatch.setattr(session, "plain_write", noting)
    first = await answers(client, frames("one"))
    assert len(short) == len(first)
    assert short.count(True) > 5
    monkeypatch.setattr(session, "plain_write", lambda *_: None)
    second = await answers(client, frames("two"))
    assert first == [text.replace("two", "one") for text in second]
