"""Requests: what may wait together for one pass over the store, each decided on its own and whole or not at all."""

from .cache import MEMORY_MS
from .clock import MAX_STAMP, now_ms
from .errors import ConflictError, InvalidError, check_text
from .kinds import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import OpLine
    from .kinds import Kind
    from .leases import Lease
    from .view import View, Written

    Result = object

_MAX_WORD = 256


class Request:
    """A write. With an `op`, the caller's id for it, it happens once however often it is sent."""

    name = ""
    kinds: "tuple[Kind, ...]" = tuple(KINDS.values())
    """Those whose records decide what becomes of it."""
    is_narrow = False
    """Whether it looks at no records but those it names and what these need."""
    is_plain = False
    """Whether it has no `op`, changes no lease, and has written its one line once nothing more can go wrong."""

    def __init__(self, op: str | None = None) -> None:
        if op is not None:
            check_word("op", op)
        self.op = op

    def content(self) -> object:
        """What a repetition must say again, as plain data."""
        raise NotImplementedError

    def decide(self, view: "View") -> "Result":
        """Have lines written and leases changed, and give the answer; or raise, and nothing happens."""
        raise NotImplementedError

    def replay(self, view: "View", lines: "list[OpLine]") -> "Result":
        """The answer to a repetition: that of the first time, from the lines it wrote."""
        raise NotImplementedError

    def digest(self) -> str:
        """A digest of the content; of none that is not JSON, which is refused by its field later."""
        import json

        import xxhash

        try:
            content = json.dumps([self.name, self.content()], sort_keys=True, default=repr)
        except (TypeError, ValueError, RecursionError):
            return "?"
        return xxhash.xxh3_64_hexdigest(content.encode(errors="surrogatepass"))


class Outcome:
    """What a request came to: its lines, what it does to leases, and the answer."""

    __slots__ = ("leases", "result", "written")

    def __init__(self, written: "list[Written]", leases: "dict[str, Lease | None]", result: "Result") -> None:
        self.written = written
        self.leases = leases
        self.result = result


def run(request: Request, view: "View", lines: "list[OpLine]") -> "Result":
    """Decide a request, or answer it from `lines`, those that carry its `op` already."""
    recent = [line for line in lines if line.version >= now_ms() - MEMORY_MS] if lines else lines
    if not recent:
        return request.decide(view)
    if any(line.sum != view.sum for line in recent):
        raise other_write(request.op)
    return request.replay(view, recent)


def check_word(name: str, word: object) -> None:
    """Raise InvalidError for what cannot be a name or an `op`: a short text without control characters."""
    if not isinstance(word, str) or not word:
        raise InvalidError(f"{name}: must be a string that is not empty", field=name)
    check_text(name, word)
    if len(word) > _MAX_WORD or any(char < " " or "\x7f" <= char < "\xa0" for char in word):
        raise InvalidError(f"{name}: at most {_MAX_WORD} characters and no control characters are allowed", field=name)


def check_number(name: str, number: object, least: int) -> None:
    """Raise InvalidError for what is no whole number from `least` to 2^53."""
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= MAX_STAMP:
        raise InvalidError(f"{name}: must be a whole number from {least} to 2^53, not {str(number)[:40]}", field=name)


def other_write(op: str | None) -> InvalidError:
    """What a write hears whose `op` is that of another."""
    return InvalidError(f"op: {op!r} was given to another write", hint="a new write takes a new op", field="op")


def lapsed(op: str | None) -> ConflictError:
    """What a repeated claim hears once that claim, which was made, holds nothing any more."""
    return ConflictError(f"what was claimed with op {op!r} is no longer held", hint="claim again with another op",
                         applied="yes")
