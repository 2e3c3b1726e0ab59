"""Plain data as answers are made of: what JSON knows, and text that is JSON already."""


class Json(str):
    """Text that is JSON already: a record is handed on as it stands in the log."""

    __slots__ = ()


def with_keys(line: str, **keys: object) -> Json:
    """The JSON object in `line` with more keys at its end."""
    return Json(line.removesuffix("}").rstrip() + "," + to_json(keys).removeprefix("{"))


def to_json(value: object) -> str:
    """The JSON text of plain data."""
    if isinstance(value, Json):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(key)}:{to_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(to_json, value)) + "]"
    import json

    return json.dumps(value, ensure_ascii=False, allow_nan=False)
