"""`completion`: a script that completes command lines in a shell.

The scripts are made from the table of commands by shtab, before a release and not here; a test holds them current.
"""

import os

from .arguments import Arguments
from .text import write_json


def completion(arguments: Arguments) -> int:
    """Print the script for a shell."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "completions")
    with open(f"{folder}/taskstore.{arguments.text('SHELL')}", encoding="utf-8") as file:
        script = file.read()
    write_json(script.removesuffix("\n")) if not arguments.json else write_json(_quoted(script))
    return 0


def _quoted(script: str) -> str:
    from taskstore_core.plain import to_json

    return to_json({"script": script})
