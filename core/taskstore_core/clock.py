"""Stamps: Unix milliseconds, and the identity of the running kernel.

A stamp is the version of a record, so it never goes back for one record, whatever the clocks say.
"""

import time

from .errors import InvalidError

MAX_STAMP = 2**53
"""Largest stamp there is: beyond it, JSON readers that hold numbers as doubles would see other values."""


def now_ms() -> int:
    """The time in integer Unix milliseconds."""
    return time.time_ns() // 1_000_000


def next_stamp(newest_known: int | None) -> int:
    """A stamp for a new version that beats `newest_known`, even one from a clock that runs ahead.

    Raises InvalidError when the known version stands at the end of the range, where nothing can beat it.
    """
    if newest_known is None:
        return now_ms()
    if newest_known >= MAX_STAMP:
        raise InvalidError(f"the record's version {newest_known} is the largest possible: nothing can follow it",
                           field="updated_at")
    return max(now_ms(), newest_known + 1)


def boot_id() -> str:
    """What tells one run of the kernel from the next: data not synced before a reboot may be gone after it."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def uptime_ms() -> int:
    """Milliseconds since the kernel was started, time asleep included: a clock that nobody sets."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
