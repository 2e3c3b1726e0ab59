"""Text for a terminal: what a record holds is data, and must never be taken for commands by the terminal."""

import os
import sys
import time

# Controls, line and paragraph separators, and the characters that reorder or hide text (bidi controls, interlinear
# annotations, tags): https://trojansource.codes. Zero-width joiners stay: emoji and several scripts need them.
_RANGES = ((0x00, 0x20), (0x7F, 0xA0), (0x61C, 0x61D), (0x200B, 0x200C), (0x200E, 0x2010), (0x2028, 0x202F),
           (0x2060, 0x2070), (0xFEFF, 0xFF00), (0xFFF9, 0xFFFC), (0xD800, 0xE000), (0xE0000, 0xE0080))

_UNITS = (("year", 365.25 * 86400), ("month", 30.44 * 86400), ("day", 86400), ("h", 3600), ("min", 60), ("s", 1))
_ABBREVIATED = ("h", "min", "s", "ms")  # take no plural
_COLOURS = {"complete": "32", "mended": "32", "active": "36", "running": "36", "failed": "31", "stopped": "31",
            "error": "31", "paused": "33", "ready": "33", "warning": "33", "cancelled": "2", "note": "2"}


def visible(text: str, *, keep: str = "") -> str:
    """`text` with every character that a terminal would act on written as an escape, but for those in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char in keep or not _is_active(ord(char)) else _escape(char) for char in text)


def _is_active(code: int) -> bool:
    return any(first <= code < end for first, end in _RANGES)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def write_json(text: str) -> None:
    """Write JSON and a line end to standard output; on a terminal with what it would act on escaped, as JSON can."""
    if sys.stdout.isatty() and not text.isprintable():
        text = "".join(char if char == "\n" or not _is_active(ord(char)) else _json_escape(char) for char in text)
    sys.stdout.flush()
    text = text if _is_utf8(text) else "".join(char if char.isascii() else _json_escape(char) for char in text)
    sys.stdout.buffer.write(text.encode() + b"\n")  # JSON is UTF-8, whatever the locale


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[n:n + 4]}" for n in range(0, len(units), 4))


def width(text: str) -> int:
    """How many cells of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def ago(stamp: object, now_ms: int | None = None) -> str:
    """A stamp in Unix milliseconds as people say it: "3 min ago"."""
    if not isinstance(stamp, int) or isinstance(stamp, bool):
        return "" if stamp is None else visible(str(stamp))
    seconds = ((time.time_ns() // 1_000_000 if now_ms is None else now_ms) - stamp) / 1000
    if abs(seconds) < 1:
        return "just now"
    words = span(abs(round(seconds * 1000)))
    return f"{words} ago" if seconds > 0 else f"in {words}"


def moment(stamp: object) -> str:
    """A stamp as local date and time, with how long ago it was."""
    if not isinstance(stamp, int) or isinstance(stamp, bool):
        return ago(stamp)
    try:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp / 1000))
    except (OverflowError, ValueError, OSError):
        return str(stamp)
    return f"{clock} ({ago(stamp)})"


def is_terminal() -> bool:
    """Whether standard output is a terminal that understands colours and may be shown some."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def bold(text: str) -> str:
    """`text` in bold, where that is wanted."""
    return _styled(text, "1")


def coloured(text: str, meaning: str) -> str:
    """`text` in the colour of a status or a severity, where that is wanted."""
    return _styled(text, _COLOURS.get(meaning, ""))


def _styled(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if code and is_terminal() and not os.environ.get("NO_COLOR") else text


def count_of(number: int, noun: str) -> str:
    """A number with its noun: "1 record", "2 records"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """More than one of it: "records", "dependencies"."""
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def span(milliseconds: int) -> str:
    """A length of time as people say it: "15 min"."""
    seconds = milliseconds / 1000
    count, unit = next(((int(seconds / length), unit) for unit, length in _UNITS if seconds >= length),
                       (milliseconds, "ms"))
    return f"{count} {unit if count == 1 or unit in _ABBREVIATED else unit + 's'}"


def word_of_shell(word: str) -> str:
    """A word as it is typed in a shell, made visible; shlex would import `re`."""
    plain = word and all(char.isalnum() or char in "@%+=:,./-_" for char in word)
    return visible(word if plain else "'" + word.replace("'", "'\"'\"'") + "'")
