"""Telling systemd how we are (sd_notify(3)): some lines of text to the socket it names."""

import os
import socket


class Notifier:
    """Says "ready", "stopping" and "alive" to the service manager, if there is one."""

    def __init__(self, environ: dict[str, str]) -> None:
        """The variables that name the socket are taken away, so that no child speaks for us."""
        self._address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", str(os.getpid()))
        self.every_s = int(microseconds) / 2_000_000 if microseconds.isdigit() and pid == str(os.getpid()) else None
        """How often it wants to hear that we are alive; None for never."""

    def say(self, *lines: str) -> None:
        """Send lines such as "READY=1". Nobody there is no error."""
        if not self._address.startswith(("/", "@")):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.sendto("\n".join(lines).encode(), address)
            except OSError:
                return
