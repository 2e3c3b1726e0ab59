"""Lines that were looked up lately: what agents ask for again and again is not asked of SQLite each time."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import Cache
    from .kinds import Kind

_MOST = 2048
_LONGEST = 4096
"""Characters of a line that is kept, so that all together are a few megabytes."""


class Recent:
    """The lines, by kind and id. Whoever changes the cache, or finds it changed, calls `forget`."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], str] = {}

    def forget(self) -> None:
        """Let go of all."""
        self._lines.clear()

    def line(self, cache: "Cache", kind: "Kind", key: str) -> str | None:
        """The line of a live record in the cache, None where it has none; raises DAMAGED errors."""
        found = self._lines.get((kind.name, key))
        if found is None:
            found = cache.live(kind, key)
            if found is not None and len(found) <= _LONGEST:
                if len(self._lines) >= _MOST:
                    self._lines.clear()
                self._lines[kind.name, key] = found
        return found
