"""`ready`, `claim`, `heartbeat`, `complete`, `fail` and `release`: who works on what."""

import sys

from taskstore_core.kinds import KINDS
from taskstore_core.leases import DEFAULT_MS
from taskstore_core.plain import to_json

from .arguments import Arguments
from .decode import decoder, fields
from .ids import call_of, prd_of
from .lists import print_records, write_items
from .opening import Opened, connect
from .pages import fetch
from .show import write_record
from .text import bold, moment, span, visible, word_of_shell, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPEC = KINDS["task_spec"]
_COLUMNS = ("id", "status", "prd_id", "created_at", "phase_name")
_SHOWN = 20


def ready(arguments: Arguments) -> int:
    """List what may be claimed now."""
    with connect(arguments) as store:
        items = store.call("task_spec.ready", {"prd_id": _prd(store, arguments),
                                               "limit": arguments.number("limit")})["items"]
    if not write_items(arguments, {"items": items}):
        if items:
            print_records(items, _COLUMNS)
        else:
            sys.stderr.write("no task spec is ready\n")
    return 0


def claim(arguments: Arguments) -> int:
    """Take a task spec, and say how to go on."""
    lease_ms, word = arguments.number("lease_ms"), arguments.option("ID")
    with connect(arguments) as store:
        parameters: dict[str, object] = {"by": arguments.option("by"), "prd_id": _prd(store, arguments),
                                         "lease_ms": lease_ms, "op": arguments.option("op")}
        spec = (store.call("task_spec.claim", parameters) if word is None
                else call_of(store, "task_spec.claim", _SPEC, word, parameters))
    if arguments.json:
        write_json(to_json(spec))
    elif spec is None:
        sys.stderr.write("taskstore: no task spec is ready to be claimed\n")
    else:
        write_record(_SPEC, spec, without=("token",))
        _go_on(spec, arguments.option("by") or "", DEFAULT_MS if lease_ms is None else lease_ms)
    return 1 if spec is None else 0


def heartbeat(arguments: Arguments) -> int:
    """Hold a task spec for longer, and say until when."""
    answer = _held(arguments, "task_spec.heartbeat", lease_ms=arguments.number("lease_ms"))
    if arguments.json:
        write_json(to_json(answer))
    else:
        sys.stdout.write(f"{visible(answer['by'])} holds {visible(answer['id'])} until"
                         f" {moment(answer['expires_at'])}\n")
    return 0


def complete(arguments: Arguments) -> int:
    """End a claim, and list what it unblocked."""
    with connect(arguments) as store:
        answer = _call(store, arguments, "task_spec.complete", op=arguments.option("op"))
        unblocked = [] if arguments.json else _unblocked(store, answer)
    if arguments.json:
        write_json(answer)
        return 0
    _say(answer, "is complete")
    if unblocked:
        sys.stdout.write("\nready now because of it:\n")
        print_records(unblocked[:_SHOWN], _COLUMNS)
        if len(unblocked) > _SHOWN:
            sys.stdout.write(f"… and {len(unblocked) - _SHOWN} more: taskstore ready lists them\n")
    return 0


def fail(arguments: Arguments) -> int:
    """End a claim: it has failed."""
    return _settle(arguments, "task_spec.fail", "has failed")


def release(arguments: Arguments) -> int:
    """End a claim: somebody else may take it."""
    return _settle(arguments, "task_spec.release", "is pending again")


def _settle(arguments: Arguments, method: str, said: str) -> int:
    answer = _held(arguments, method, op=arguments.option("op"))
    if arguments.json:
        write_json(answer)
    else:
        _say(answer, said)
    return 0


def _held(arguments: Arguments, method: str, **more: object) -> "Any":  # noqa: ANN401 - plain data, as JSON has it
    with connect(arguments) as store:
        return _call(store, arguments, method, **more)


def _call(store: Opened, arguments: Arguments, method: str,
          **more: object) -> "Any":  # noqa: ANN401 - plain data, as JSON has it
    """The answer of what only a holder may do."""
    proof = {"by": arguments.option("by"), "token": arguments.option("token")}
    return call_of(store, method, _SPEC, arguments.text("ID"), {**proof, **more})


def _prd(store: Opened, arguments: Arguments) -> str | None:
    word = arguments.option("prd")
    return None if word is None else prd_of(store, word)


def _say(spec: str, said: str) -> None:
    record = fields(decoder(), spec)
    sys.stdout.write(f"task spec {visible(str(record['id']))} {said}: {visible(str(record.get('phase_name')))}\n")


def _unblocked(store: Opened, answer: str) -> list[str]:
    """The task specs that a completed one unblocked."""
    import json

    keys = json.loads(answer)["unblocked"]
    found = fetch(store, {"kind": _SPEC.name, "where": {"id": {"in": keys}}})["items"]
    assert isinstance(found, list)  # noqa: S101 - what record.list answers with
    return found


def _go_on(spec: str, by: str, lease_ms: int) -> None:
    """Say what the holder may do next, as commands to copy."""
    record = fields(decoder(), spec)
    key = str(record["id"])
    who = f"--by={word_of_shell(by)}" if by.startswith("-") else f"--by {word_of_shell(by)}"
    words = f"{who} --token {word_of_shell(str(record['token']))}"
    behind = f"{words} -- {word_of_shell(key)}" if key.startswith("-") else f"{word_of_shell(key)} {words}"
    sys.stdout.write(f"\n{bold(visible(by))} holds it for {span(lease_ms)}. To go on:\n")
    for verb, said in (("complete", "when it is done"), ("fail", "when it cannot be"),
                       ("release", "to give it back"), ("heartbeat", "to hold it for longer")):
        sys.stdout.write(f"  taskstore {verb:<9} {behind}   # {said}\n")
