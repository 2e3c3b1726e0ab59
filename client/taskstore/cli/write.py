"""`create`, `update` and `delete`: one record from options, or many from a file or standard input, all or none."""

import sys

from taskstore_core.errors import InvalidError, NotFoundError, TaskStoreError
from taskstore_core.kinds import Kind, find_kind
from taskstore_core.plain import Json, to_json

from .arguments import Arguments
from .decode import decoder, fields
from .ids import find_record
from .opening import Opened, connect
from .progress import Working
from .settings import settings
from .show import shown_fields
from .sources import Source, refuse, source_of
from .text import count_of, visible, word_of_shell, write_json
from .versions import differences

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Operation = dict[str, object]


def create(arguments: Arguments) -> int:
    """Create one record from --set, or all of a file's."""
    kind = find_kind(arguments.text("KIND"))
    source = _source(arguments)
    if source is not None:
        return _apply(arguments, kind, source, "created", lambda record: {
            # with no id rather than nothing at all, so that an empty record hears which fields it lacks
            "op": "create", "kind": kind.name, "record": {kind.key: None, **record}})
    record = settings(kind, arguments.many("set"), allow_unknown=arguments.flag("allow_unknown"))
    with connect(arguments) as store:
        line = store.call("record.create", {"kind": kind.name, "record": record, "op": arguments.option("op")})
    _print(arguments, kind, [line], "created")
    return 0


def update(arguments: Arguments) -> int:
    """Change one record, or all that a file names."""
    kind = find_kind(arguments.text("KIND"))
    word, source = arguments.option("ID"), _source(arguments)
    if word is None:
        return _apply(arguments, kind, _needed(arguments, source), "updated", lambda record: {
            "op": "update", "kind": kind.name, "id": record.get(kind.key),
            "set": {name: value for name, value in record.items() if name != kind.key}})
    changes = (settings(kind, arguments.many("set"), allow_unknown=arguments.flag("allow_unknown"))
               if source is None else _only(source))
    if not changes:
        raise InvalidError("update: nothing to change", hint="say what: --set FIELD=VALUE")
    with connect(arguments) as store:
        key, before = find_record(store, kind, word)
        after = store.call("record.update", {"kind": kind.name, "id": key, "set": changes, **_conditions(arguments)})
    if arguments.json:
        write_json(after)
    else:
        _print_changes(kind, key, before, after, changes)
    return 0


def delete(arguments: Arguments) -> int:
    """Delete one record by the whole of its id, or all that a file names."""
    kind = find_kind(arguments.text("KIND"))
    word, source = arguments.option("ID"), source_of(arguments)
    if word is None:
        return _apply(arguments, kind, _needed(arguments, source), "deleted", lambda record: {
            "op": "delete", "kind": kind.name, "id": record.get(kind.key)})
    if source is not None:
        raise InvalidError("delete: an ID and --file or --stdin exclude each other", hint="use one of them")
    with connect(arguments) as store:
        try:
            answer = store.call("record.delete", {"kind": kind.name, "id": word, **_conditions(arguments)})
        except NotFoundError as error:
            _say_longer(store, kind, word, error)
            raise
    if arguments.json:
        write_json(to_json(answer))
    else:
        sys.stdout.write(f"{kind.title} {visible(word)} deleted;"
                         f" taskstore restore {kind.name} {word_of_shell(word)} brings it back\n")
    return 0


def _say_longer(store: Opened, kind: Kind, word: str, error: NotFoundError) -> None:
    """Name the record whose id begins so: a beginning is not enough to delete one."""
    try:
        key, _ = find_record(store, kind, word)
    except NotFoundError as other:
        error.message, error.hint = other.message, other.hint
    else:
        error.hint = f"to delete {key}, give the whole of its id"


def _source(arguments: Arguments) -> Source | None:
    """The source named by --file or --stdin, which --set excludes."""
    if arguments.many("set") and (arguments.option("file") is not None or arguments.flag("stdin")):
        raise InvalidError(f"{arguments.command.name}: --set, --file and --stdin exclude each other",
                           hint="use one of them")
    return source_of(arguments)


def _needed(arguments: Arguments, source: Source | None) -> Source:
    name = arguments.command.name
    if source is None:
        raise InvalidError(f"{name}: no record is named", hint="give an ID, or records with ids by --file or --stdin")
    if arguments.number("if_updated_at") is not None:
        raise InvalidError(f"{name}: --if-updated-at is about one record", hint="give its ID")
    return source


def _only(source: Source) -> dict[str, object]:
    """The one object that a source holds."""
    if len(source.records) != 1:
        raise InvalidError(f"{source.name}: holds {count_of(len(source.records), 'record')}, not one",
                           hint="without ID each names its record by its id")
    return _fields_of(source.records[0][1])


def _fields_of(record: dict[str, object]) -> dict[str, object]:
    """A record without the mark of the write that it was taken from: printed records may be given back."""
    marks = {"op", "op_sum"}
    return {name: value for name, value in record.items() if name not in marks} if marks <= record.keys() else record


def _conditions(arguments: Arguments) -> dict[str, object]:
    return {"if_updated_at": arguments.number("if_updated_at"), "op": arguments.option("op")}


def _apply(arguments: Arguments, kind: Kind, source: Source, done: str,
           operation: "Callable[[dict[str, object]], Operation]") -> int:
    """Carry out one operation for each record of a source, all or none, and print what came of each."""
    operations = []
    for line, record in source.records:
        operations.append(operation(_fields_of(record)))
        if "id" in operations[-1] and not isinstance(operations[-1]["id"], str):
            refuse(source.name, line, f"names no record: its {kind.key!r} must be a text")
        if operations[-1].get("set") == {}:
            refuse(source.name, line, "holds nothing to change")
    with connect(arguments) as store, Working(f"writing {count_of(len(operations), 'record')}"):
        try:
            results = store.call("store.apply", {"ops": operations, "op": arguments.option("op")})
        except TaskStoreError as error:
            source.locate(error)
            raise
    _print(arguments, kind, results, done)
    return 0


def _print(arguments: Arguments, kind: Kind, results: "Sequence[Json | dict[str, object]]", done: str) -> None:
    if arguments.flag("json") and len(results) != 1:
        write_json(to_json({"items": results}))
    elif arguments.json:
        for one in results:
            write_json(to_json(one))
    else:
        connection = decoder()
        records = [fields(connection, one) if isinstance(one, str) else {kind.key: one["id"]} for one in results]
        sys.stdout.writelines(f"{visible(str(record[kind.key]))}\n" for record in records)
        if sys.stdout.isatty() and len(results) > 1:
            sys.stderr.write(f"{count_of(len(results), kind.title)} {done}\n")


def _print_changes(kind: Kind, key: str, before: str, after: str, changes: dict[str, object]) -> None:
    """Print what became of the fields that were to change."""
    connection = decoder()
    old, new = (shown_fields(kind, fields(connection, line)) for line in (before, after))
    asked = {*changes, "completed_at"} if "status" in changes else {*changes}
    told = [(name, change) for name, change in differences(kind, old, new) if name in asked]
    sys.stdout.write(f"{kind.title} {visible(key)} updated{'' if told else ', though nothing is different'}\n")
    width = max((len(visible(name)) for name, _ in told), default=0)
    sys.stdout.writelines(f"  {visible(name):<{width}}  {change}\n" for name, change in told)
