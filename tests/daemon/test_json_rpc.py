"""JSON-RPC 2.0 over the socket: every example of the specification, and what it leaves to us."""

import json
from typing import Any

import pytest
from tests.daemon.conftest import Client, Serving

from taskstore_core.methods import Method


def _methods() -> "dict[str, Method]":
    """The methods that the specification's examples call."""
    return {
        "subtract": Method("subtract", "minuend:integer subtrahend:integer", "number", "",
                           lambda _, minuend, subtrahend: minuend - subtrahend),
        "sum": Method("sum", "a:integer b:integer c:integer", "number", "", lambda _, a, b, c: a + b + c),
        "get_data": Method("get_data", "", "items", "", lambda _: ["hello", 5]),
        "update": Method("update", "a:integer b:integer c:integer d:integer e:integer", "", "", lambda *_, **__: 0),
        "notify_hello": Method("notify_hello", "a:integer", "", "", lambda *_, **__: 0),
        "notify_sum": Method("notify_sum", "a:integer b:integer c:integer", "", "", lambda *_, **__: 0),
    }


EXAMPLES = {
    "positional": ['{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
                   '{"jsonrpc": "2.0", "result": 19, "id": 1}'],
    "positional, reversed": ['{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
                             '{"jsonrpc": "2.0", "result": -19, "id": 2}'],
    "named": ['{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
              '{"jsonrpc": "2.0", "result": 19, "id": 3}'],
    "reversed": ['{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
                        '{"jsonrpc": "2.0", "result": 19, "id": 4}'],
    "a notification": ['{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', ""],
    "a notification of nothing": ['{"jsonrpc": "2.0", "method": "foobar"}', ""],
    "no such method": ['{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
                       '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}'],
    "invalid JSON": ['{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
                     '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}'],
    "invalid request": ['{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
                        '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'],
    "a batch, invalid JSON": [
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]',
        '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}'],
    "an empty batch": ["[]", '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'],
    "an invalid batch": [
        "[1]", '[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]'],
    "a batch of invalid ones": ["[1,2,3]", "[" + ",".join(
        ['{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'] * 3) + "]"],
    "a batch": [
        """[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
            {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
            {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
            {"foo": "boo"},
            {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
            {"jsonrpc": "2.0", "method": "get_data", "id": "9"}]""".replace("\n", " "),
        """[{"jsonrpc": "2.0", "result": 7, "id": "1"},
            {"jsonrpc": "2.0", "result": 19, "id": "2"},
            {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
            {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
            {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}]"""],
    "a batch of notifications": [
        """[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
            {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]""".replace("\n", " "), ""],
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
async def test_specification(serving: Serving, client: Client, example: list[str]) -> None:
    """What is sent and received in an example of the specification is sent and received here."""
    serving.server.methods.update(_methods())
    await client.send(example[0].encode() + b"\n", client.request("get_data"))
    if example[1]:
        assert _plain(await client.receive()) == json.loads(example[1])
    assert (await client.receive())["result"] == ["hello", 5]


def _plain(answer: Any) -> Any:
    """An answer with the messages that the specification has; ours say more behind them."""
    if isinstance(answer, list):
        return [_plain(one) for one in answer]
    if "error" in answer:
        answer["error"] = {"code": answer["error"]["code"], "message": answer["error"]["message"].partition(":")[0]}
    return answer
