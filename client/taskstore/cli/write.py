"""`create`: records from options, a file or standard input."""

import codecs
import json
import sys
from typing import NoReturn

from taskstore_core.batch import Operation
from taskstore_core.errors import InvalidError, NotFoundError, TaskStoreError
from taskstore_core.kinds import Kind, find_kind
from taskstore_core.records import FIELDS, RESERVED
from taskstore_core.view import Written

from .arguments import Arguments
from .opening import open_store
from .text import visible, write_json

_STDIN = "standard input"


def create(arguments: Arguments) -> int:
    """Create one record from --set, or all of a file's."""
    kind = find_kind(arguments.text("KIND"))
    path = arguments.option("file")
    if path is None and not arguments.flag("stdin"):
        records = [(0, settings(kind, arguments.many("set"), allow_unknown=arguments.flag("allow_unknown")))]
    elif arguments.many("set") or (path is not None and arguments.flag("stdin")):
        raise InvalidError("create: --set, --file and --stdin exclude each other", hint="use one of them")
    else:
        records = _parse(_read(path), path or _STDIN)
    with open_store(arguments) as store:
        try:
            written = store.apply([Operation("create", kind, record) for _, record in records])
        except TaskStoreError as error:
            line = records[error.operation][0] if error.operation is not None else 0
            if line:
                error.message = f"{path or _STDIN}, line {line}: {error.message}"
            raise
    _print(arguments, kind, written)
    return 0


def settings(kind: Kind, words: list[str], *, allow_unknown: bool) -> dict[str, object]:
    """The fields given as FIELD=VALUE, each typed by its field; raises InvalidError."""
    fields: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidError(f"--set {word}: not of the form FIELD=VALUE", field=name)
        if name not in FIELDS[kind.name] and name not in RESERVED and not allow_unknown:
            import difflib

            near = difflib.get_close_matches(name, FIELDS[kind.name], 1)
            raise InvalidError(f"a {kind.title} has no field {name!r}",
                               hint=f"did you mean {near[0]}?" if near else "--allow-unknown sets it all the same",
                               field=name)
        fields[name] = _value(kind, name, value)
    return fields


def _value(kind: Kind, name: str, word: str) -> object:
    field = FIELDS[kind.name].get(name)
    if field is not None and field.default in (None, []) and word == "null":
        return field.default
    if field is not None and name in kind.numbers:
        try:
            return int(word)
        except ValueError:
            raise InvalidError(f"{name}: must be a whole number, not {word[:40]!r}", field=name) from None
    if name == "depends_on" and not word.startswith("["):
        return [part.strip() for part in word.split(",") if part.strip()]
    if field is not None and name != "depends_on":
        return word
    try:
        return json.loads(word)
    except ValueError:
        return word


def _read(path: str | None) -> bytes:
    if path is None:
        return sys.stdin.buffer.read()
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise NotFoundError(f"cannot read {path}: {error.strerror}") from None


def _parse(data: bytes, name: str) -> list[tuple[int, dict[str, object]]]:
    """The records in `data` with their lines: one JSON object, however it is laid out, or one a line."""
    try:
        whole = json.loads(data.decode("utf-8-sig"))
        return [(1, whole)] if isinstance(whole, dict) else _refuse(name, 1, "not a JSON object")
    except (ValueError, RecursionError):
        pass
    records = []
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            return _refuse(name, number, str(error))
        if not isinstance(record, dict):
            return _refuse(name, number, "not a JSON object")
        records.append((number, record))
    return records


def _refuse(name: str, line: int, reason: str) -> NoReturn:
    raise InvalidError(f"{name}, line {line}: {reason}", hint="nothing was written")


def _print(arguments: Arguments, kind: Kind, written: list[Written]) -> None:
    if arguments.flag("json") and len(written) != 1:
        write_json(f'{{"items":[{",".join(one.raw for one in written)}]}}')
    elif arguments.flag("json") or arguments.flag("jsonl"):
        for one in written:
            write_json(one.raw)
    else:
        sys.stdout.writelines(f"{visible(one.key)}\n" for one in written)
        if sys.stdout.isatty() and len(written) > 1:
            sys.stderr.write(f"{len(written)} {kind.title}s created\n")
