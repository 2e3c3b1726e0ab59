"""The interface as an OpenRPC document (https://spec.open-rpc.org), made from the method table."""

from collections.abc import Mapping

from taskstore_core import rpc
from taskstore_core.methods import Method

from .release import release


def document(methods: Mapping[str, Method]) -> dict[str, object]:
    """The document for `rpc.discover`."""
    return {"openrpc": "1.3.2", "info": {"title": "TaskStore", "version": release(),
                                         "description": f"Protocol {rpc.PROTOCOL}, JSON-RPC 2.0, one message a line."},
            "methods": [_method(method) for method in methods.values()]}


def _method(method: Method) -> dict[str, object]:
    parameters = [{"name": parameter.name, "required": parameter.required, "schema": {"type": parameter.type}}
                  for parameter in method.parameters.values()]
    if method.request is not None:
        parameters.append({"name": "flush", "required": False, "schema": {"type": "boolean"}})
    return {"name": method.name, "summary": method.summary, "paramStructure": "either", "params": parameters,
            "result": {"name": method.answer, "schema": _answer(method)}}


def _answer(method: Method) -> dict[str, object]:
    try:
        from taskstore_core.answers import answer_schema
    except ImportError:
        return {}
    try:
        return answer_schema(method.name)
    except (KeyError, ValueError):
        return {}
