"""Telling whoever started us how we are: a service manager (sd_notify(3)), and a command that waits at a pipe."""

import os
import socket
from collections.abc import MutableMapping


class Notifier:
    """Says "ready", "stopping" and "alive" to the service manager, if there is one."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """The variables that name the socket are taken away, so that no child speaks for us."""
        self._address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", str(os.getpid()))
        wanted = microseconds.isdigit() and int(microseconds) > 0 and pid == str(os.getpid())
        self.every_s = int(microseconds) / 2_000_000 if wanted else None
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


class Starter:
    """A command that waits at the other end of a pipe for one word: ready, running or failed."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                self._descriptor = None

    def say(self, line: str) -> None:
        """Send a line; that nobody waits any more is no error."""
        if self._descriptor is not None:
            try:
                os.write(self._descriptor, line.replace("\n", " ").encode(errors="replace") + b"\n")
            except OSError:
                return

    def say_last(self, line: str) -> None:
        """Send a line, and let go of the pipe."""
        self.say(line)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
