"""`export` and `import FILE`: records as JSON lines, under their own ids and times."""

import sys

from taskstore_core.errors import InvalidError, TaskStoreError
from taskstore_core.kinds import KINDS, Kind, find_kind
from taskstore_core.plain import to_json

from .arguments import Arguments
from .opening import connect
from .pages import fetch
from .text import write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .sources import Source

    Operation = dict[str, object]


def export(arguments: Arguments) -> int:
    """Print all records with their kinds, or those of one kind."""
    word = arguments.option("KIND")
    wanted = list(KINDS.values()) if word is None else [find_kind(word)]
    with connect(arguments) as store:
        found = [(kind, item) for kind in wanted for item in _items(fetch(store, {"kind": kind.name}))]
    lines = (item if word is not None else f'{{"kind":{to_json(kind.name)},"record":{item}}}' for kind, item in found)
    if arguments.flag("json"):
        write_json(f'{{"items":[{",".join(lines)}]}}')
    else:
        for line in lines:
            write_json(line)
    return 0


def _items(answer: dict[str, object]) -> list[str]:
    items = answer["items"]
    assert isinstance(items, list)  # noqa: S101 - what record.list answers with
    return items


def import_(arguments: Arguments) -> int:
    """Bring in what `export` printed, or with a FORMAT what another tool wrote."""
    path = arguments.text("FILE")
    if arguments.option("FORMAT") is not None:
        from .imports import import_beads

        return import_beads(arguments)
    from .sources import open_source

    if path == "beads":  # a format without a file, rather than a file of that name
        raise InvalidError("import beads: no FILE is named", hint="if beads is the file, write ./beads")
    name = arguments.option("kind")
    kind = None if name is None else find_kind(name)  # before standard input is waited for
    return _import(arguments, open_source(None if path == "-" else path), kind)


def _import(arguments: Arguments, source: "Source", kind: Kind | None) -> int:
    from .imports import count_results, print_counts
    from .progress import Working

    operations = [_operation(source, number, record, kind) for number, record in source.records]
    with connect(arguments) as store, Working("importing"):
        try:
            results = store.call("store.apply", {"ops": operations})
        except TaskStoreError as error:
            source.locate(error)
            raise
    counts = count_results(operations, results)
    if arguments.json:
        write_json(to_json({"lines": counts}))
    else:
        print_counts(counts)
        if not counts:
            sys.stderr.write(f"{source.name} holds no records\n")
    return 0


def _operation(source: "Source", number: int, record: dict[str, object], kind: Kind | None) -> "Operation":
    """The import of one line: {"kind": …, "record": …}, or a bare record of `kind`."""
    from .sources import refuse

    inner = record.get("record")
    if record.keys() == {"kind", "record"} and isinstance(inner, dict) and isinstance(record["kind"], str):
        try:
            return {"op": "import", "kind": find_kind(record["kind"]).name, "record": inner}
        except InvalidError as error:
            refuse(source.name, number, error.message)
    if kind is None:
        refuse(source.name, number, "does not say of which kind it is; --kind KIND does")
    return {"op": "import", "kind": kind.name, "record": record}
