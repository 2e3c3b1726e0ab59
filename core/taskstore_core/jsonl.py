"""Lines of a log: bytes to (id, version, index columns) and nothing else; pure.

A line is a record, blank, a conflict marker, or bad. Lines are split at LF alone (U+2028 and friends are ordinary
characters inside a string); CR, BOM and spaces around a line are tolerated. `index_line` is the rule for what a
line means. `bulk_index` gives the same answers for whole files about five times faster; whatever it cannot take
in its stride it hands to `index_line`, and a property test holds the two together.
"""

from .clock import MAX_STAMP
from .kinds import Kind

MARKERS = ("<<<<<<<", "=======", ">>>>>>>", "|||||||")
MAX_READ_DEPTH = 500
"""Deeper lines are bad: SQLite's JSON functions and Python's recursion limit end at 1000."""

BASE = "base_at"
"""The key of a line that says which version, or versions, its writer saw."""

_INT_DIGITS = 20  # of a 64-bit integer with its sign; Python refuses to convert some thousands of them

_SMALL = 200_000  # bytes of log up to which importing the bulk indexer costs more than it saves
_TRIM = " \t\r\ufeff"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Row = tuple[str, int, bool, str, *tuple[str | int | None, ...]]
    """id, version, deleted, raw text, the values of `columns(kind)`, and last what `base_of` says."""


class BadLineError(ValueError):
    """Why a line is not a record; the message is for people."""


def columns(kind: Kind) -> tuple[str, ...]:
    """The fields that the cache stores beside the raw line: what is indexed, and when it began."""
    return kind.indexed if kind.started == "updated_at" else (*kind.indexed, kind.started)


def index_line(kind: Kind, line: bytes) -> "Row | None":
    """The index row of one line, or None for a blank line or a conflict marker.

    Raises BadLineError for anything else that is not a record of a log.
    """
    try:
        text = line.decode().strip(_TRIM)
    except UnicodeDecodeError as error:
        raise BadLineError(f"not UTF-8 at byte {error.start}") from None
    if not text or text.startswith(MARKERS):
        return None
    record = parse_object(text)
    key = record.get(kind.key)
    if not isinstance(key, str) or not key or not (key.isprintable() or min(key) >= " "):
        raise BadLineError(f"no usable {kind.key!r}")
    version = version_of(kind, record)
    stored = [as_column(record.get(name)) for name in columns(kind)]
    stored.append(base_of(record.get(BASE), version))
    return (key, version, record.get("deleted") is True, text, *stored)


def base_of(value: object, version: int) -> int | str | None:
    """What a line of this version was based on: a version, JSON of several, the one it replaced first, or None.

    Nothing can be based on what is no older than itself: whatever else stands there says nothing.
    """
    if value is None:
        return None
    if isinstance(value, list):
        bases = [base for base in value if _is_stamp(base) and base < version]
        return f"[{','.join(map(str, bases))}]" if bases else None
    return value if isinstance(value, int) and _is_stamp(value) and value < version else None


def _is_stamp(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_STAMP


def parse_object(text: str) -> dict[str, object]:
    """The JSON object in `text`; raises BadLineError for anything but one valid, storable object."""
    import json

    if too_deep(text):
        raise BadLineError("nested too deeply")
    try:
        record = json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadLineError("half of a surrogate pair in a string") from None
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise BadLineError("not a JSON object")
    return record


def version_of(kind: Kind, record: dict[str, object]) -> int:
    """`updated_at`, else the largest of the other stamps and 0; raises BadLineError for what is no stamp."""
    stamps = {name: _stamp(name, record.get(name)) for name in kind.versions}
    updated = stamps.pop("updated_at", None)
    return updated if updated is not None else max(0, 0, *(stamp or 0 for stamp in stamps.values()))


def too_deep(text: str) -> bool:
    """Whether brackets nest beyond MAX_READ_DEPTH; brackets in strings count only once there are that many."""
    if len(text) <= 2 * MAX_READ_DEPTH or text.count("{") + text.count("[") <= MAX_READ_DEPTH:
        return False
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth -= 1
    return deepest > MAX_READ_DEPTH


def _stamp(name: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadLineError(f"{name} is not an integer")
    if abs(value) > MAX_STAMP:
        raise BadLineError(f"{name} is beyond 2^53")
    return value


def as_column(value: object) -> str | int | None:
    """What the cache stores of a value beside the line: what SQLite can hold."""
    if isinstance(value, str):
        return value
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_STAMP else None


def _refuse_constant(name: str) -> None:
    raise BadLineError(f"{name} is not JSON")


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS else float(digits)


def indexer(kind: Kind, size: int) -> "Callable[[Sequence[bytes]], list[Row | BadLineError | None]]":
    """What turns lines into index rows: the bulk indexer if `size` bytes are worth importing it."""
    if size > _SMALL:
        return bulk_indexer(kind)
    return lambda lines: [index_or_error(kind, line) for line in lines]


def bulk_indexer(kind: Kind) -> "Callable[[Sequence[bytes]], list[Row | BadLineError | None]]":
    """A function from the lines of one stretch of a log to what `index_line` makes of each."""
    of_text = text_indexer(kind)

    def row(line: bytes) -> "Row | BadLineError | None":
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return index_or_error(kind, line)
        return of_text(text)

    return lambda lines: list(map(row, lines))


def text_indexer(kind: Kind) -> "Callable[[str], Row | BadLineError | None]":
    """A function from one line as text to what `index_line` makes of it."""
    from operator import attrgetter

    import msgspec

    decode: Callable[[str], Any] = msgspec.json.Decoder(_index_struct(kind)).decode
    others = [name for name in kind.versions if name != "updated_at"]
    key_of, stored = attrgetter(kind.key), _tuple_getter(columns(kind))

    def row(text: str) -> "Row | BadLineError | None":
        try:
            if too_deep(text):
                return index_or_error(kind, text.encode())
            record = decode(text)
        except (msgspec.DecodeError, RecursionError):
            return index_or_error(kind, text.encode())
        key = key_of(record)
        if not key.isprintable():
            return index_or_error(kind, text.encode())
        version = record.updated_at
        if version is None:
            version = max(0, 0, *(getattr(record, name) or 0 for name in others))
        base = record.base_at
        return (key, version, record.deleted, text.strip(_TRIM), *stored(record),
                None if base is None else base_of(base, version))

    return row


def _tuple_getter(names: tuple[str, ...]) -> "Callable[[object], tuple[Any, ...]]":
    from operator import attrgetter

    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


def _index_struct(kind: Kind) -> type:
    """The fields that `index_line` looks at, with the bounds it holds them to."""
    from typing import Annotated

    import msgspec

    stamp = Annotated[int, msgspec.Meta(ge=-MAX_STAMP, le=MAX_STAMP)]
    names = dict.fromkeys((*kind.versions, *columns(kind)))
    return msgspec.defstruct(
        "Index",
        [(kind.key, Annotated[str, msgspec.Meta(min_length=1)]),
         *((name, stamp | None if name.endswith("_at") else str | None, None) for name in names),
         (BASE, stamp | list | None, None), ("deleted", bool, False)],
        gc=False)


def index_or_error(kind: Kind, line: bytes) -> "Row | BadLineError | None":
    """What `index_line` gives or raises."""
    try:
        return index_line(kind, line)
    except BadLineError as error:
        return error
