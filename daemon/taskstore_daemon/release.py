"""The release that is running."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def release() -> str:
    """The version of the installed package."""
    try:
        return version("taskstore")
    except PackageNotFoundError:
        return "unknown"
