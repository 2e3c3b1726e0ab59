"""The interface as an OpenRPC document (https://spec.open-rpc.org), made from the method table."""

import json
from collections.abc import Mapping
from typing import Any

from taskstore_core import rpc
from taskstore_core.answers import answer_schema, parameters_schema
from taskstore_core.methods import METHODS, Method

from .release import release


def document(methods: Mapping[str, Method]) -> dict[str, Any]:
    """The document for `rpc.discover`: schemas that several methods answer with stand once, in its components."""
    schemas: dict[str, object] = {}
    made = {"openrpc": "1.3.2",
            "info": {"title": "TaskStore", "version": release(),
                     "description": f"Protocol {rpc.PROTOCOL}, JSON-RPC 2.0, one message a line."},
            "methods": [_method(method, schemas) for method in methods.values()],
            "components": {"schemas": schemas}}
    moved: dict[str, Any] = json.loads(json.dumps(made).replace('"#/$defs/', '"#/components/schemas/'))
    return moved


def _method(method: Method, schemas: dict[str, object]) -> dict[str, object]:
    given, answer = _parameters(method), {}
    if method.name in METHODS:
        answer = answer_schema(method.name)
        definitions = answer.pop("$defs", {})
        assert isinstance(definitions, dict)  # noqa: S101 - by name
        schemas.update(definitions)
    parameters = [{"name": parameter.name, "required": parameter.required,
                   "schema": given.get(parameter.name, {"type": parameter.type})}
                  for parameter in method.parameters.values()]
    if method.request is not None:
        parameters.append({"name": "flush", "required": False, "schema": {"type": "boolean"}})
    return {"name": method.name, "summary": method.summary, "paramStructure": "either", "params": parameters,
            "result": {"name": method.answer, "schema": answer}}


def _parameters(method: Method) -> dict[str, object]:
    """The schemas of parameters by name, for a method of the store."""
    properties = parameters_schema(method.name)["properties"] if method.name in METHODS else {}
    assert isinstance(properties, dict)  # noqa: S101 - of an object
    return properties
