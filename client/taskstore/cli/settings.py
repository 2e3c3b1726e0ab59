"""Fields given as FIELD=VALUE, each typed by its field."""

import json

from taskstore_core.errors import InvalidError
from taskstore_core.kinds import Kind
from taskstore_core.records import FIELDS, RESERVED


def settings(kind: Kind, words: list[str], *, allow_unknown: bool) -> dict[str, object]:
    """The fields given as FIELD=VALUE; raises InvalidError."""
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
