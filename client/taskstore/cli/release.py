"""Which release this is, and in a checkout which commit."""

import os
import subprocess
from importlib.metadata import version


def release() -> str:
    """The version, followed by the git commit where this code runs from a checkout of its own repository."""
    here = os.path.dirname(os.path.abspath(__file__))
    top = here
    for _ in range(3):
        top = os.path.dirname(top)
    if not os.path.exists(f"{top}/.git") or not os.path.isdir(f"{top}/core/taskstore_core"):
        return version("taskstore")
    commit = subprocess.run(["git", "-C", top, "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                            check=False).stdout.strip()
    return f"{version('taskstore')} ({commit})" if commit else version("taskstore")
