"""What may be written: every value is checked before anything reaches a file, and a refusal names the field.

It knows types and limits, not what a create or an update does with them (`change` does).
"""

import math
import unicodedata
from collections.abc import Mapping

import msgspec

from .errors import InvalidError, check_text
from .kinds import Kind
from .records import FIELDS, PARTIAL, reworded

RawValue = msgspec.Raw
MAX_RECORD = 4 << 20
MAX_DEPTH = 64
MAX_ID = 256


def check_values(kind: Kind, values: Mapping[str, object]) -> None:
    """Raise InvalidError, naming the field, for a value that may not be written. Unknown fields need only be JSON."""
    fields = FIELDS[kind.name]
    try:
        msgspec.convert(values, PARTIAL[kind.name])
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter for a name, which is looked at below
        _refuse_first(kind, values)
    for name, value in values.items():
        if name not in fields:
            check_text(name, name)
        elif type(value) is int:  # within the bounds of its field
            continue
        if type(value) is not str or not value.isascii():
            _check_json(name, value, 1)
    if kind.key in values:
        check_id(kind, values[kind.key])


def _refuse_first(kind: Kind, values: Mapping[str, object]) -> None:
    """Raise InvalidError for the first field whose value is not of its type."""
    for name, value in values.items():
        known = FIELDS[kind.name].get(name)
        if known is None:
            continue
        try:
            msgspec.convert(value, known.type)
        except msgspec.ValidationError as error:
            raise InvalidError(f"{name}: {_expected(kind, name, value) or reworded(error)}", field=name) from None
        except UnicodeEncodeError:
            check_text(name, str(value))


def _expected(kind: Kind, name: str, value: object) -> str:
    """What a field would have taken, where that can be said in words."""
    if name in kind.enums:
        return f"{str(value)[:80]!r} is not one of {', '.join(kind.enums[name])}"
    if name in kind.numbers and not isinstance(value, int):
        return f"must be a whole number, not {type(value).__name__}"
    return ""


def check_id(kind: Kind, key: object) -> None:
    """Raise InvalidError for what cannot be an id."""
    if not isinstance(key, str) or not key:
        raise InvalidError(f"{kind.key}: must be a string that is not empty", field=kind.key)
    if len(key) > MAX_ID and kind.key == "id":
        raise InvalidError(f"id: {len(key)} characters, at most {MAX_ID} are allowed", field="id")
    if not key.isprintable() and any(unicodedata.category(char) in {"Cc", "Cs"} for char in key):
        raise InvalidError(f"{kind.key}: {key[:80]!r} holds control characters", field=kind.key)


def encode(kind: Kind, raw: Mapping[str, object], *, limited: bool = True) -> str:
    """The line for a record, its keys in the order of the format; if `limited`, InvalidError over MAX_RECORD bytes."""
    return encode_ordered(kind, {**{name: raw[name] for name in kind.keys if name in raw}, **raw}, limited=limited)


def encode_ordered(kind: Kind, raw: Mapping[str, object], *, limited: bool = True) -> str:
    """The line for a record whose keys are in the order of the format already."""
    line = msgspec.json.encode(raw)
    if limited and len(line) > MAX_RECORD:
        raise InvalidError(f"{kind.title}: {len(line)} bytes, a record may have {MAX_RECORD}",
                           hint="keep long content in a file of its own and name it here")
    return line.decode()


def raw_value(value: object) -> RawValue:
    """A checked value as JSON bytes."""
    return msgspec.Raw(msgspec.json.encode(value))


def raw_fields(line: str) -> dict[str, RawValue]:
    """The fields of a stored line, each as the bytes it had: what nobody edits is never written anew."""
    return msgspec.json.decode(line, type=dict[str, RawValue])


def _check_json(name: str, value: object, depth: int) -> None:
    match value:
        case str():
            if not value.isascii():
                check_text(name, value)
        case bool() | None:
            return
        case int():
            if not -(2**63) <= value < 2**64:
                raise InvalidError(f"{name}: an integer of {value.bit_length()} bits, 64 are allowed", field=name)
        case float():
            if not math.isfinite(value):
                raise InvalidError(f"{name}: {value} is not JSON", field=name)
        case dict() | list() | tuple():
            _check_container(name, value, depth)
        case _:
            raise InvalidError(f"{name}: a {type(value).__name__} is not JSON", field=name)


def _check_container(name: str, value: "dict[object, object] | list[object] | tuple[object, ...]", depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise InvalidError(f"{name}: nested more than {MAX_DEPTH} levels deep", field=name)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidError(f"{name}: the key {key!r} is not a string", field=name)
            check_text(name, key)
    for item in value.values() if isinstance(value, dict) else value:
        _check_json(name, item, depth + 1)
