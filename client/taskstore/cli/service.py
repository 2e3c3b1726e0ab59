"""`service install|uninstall|status`: systemd's user manager listens at the store's socket and runs its daemon.

The units are templates, whose instance is the escaped path of the folder that holds the store. What depends on the
machine stands in drop-ins of the instance, which is also how we know that it is installed.
"""

import os
import sys

from taskstore_core.errors import TaskStoreError
from taskstore_core.paths import STORE, Paths
from taskstore_core.plain import to_json
from taskstore_core.sockets import socket_path

from .arguments import Arguments
from .daemon import paths_of, stop
from .text import visible, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

KINDS = ("socket", "service")
_DROP_IN = "taskstore.conf"
_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_."
_MAX_NAME = 255


def service(arguments: Arguments) -> int:
    """Carry out the action."""
    action = arguments.text("ACTION")
    unit = Unit(paths_of(arguments, must_exist=action == "install"))
    return {"install": _install, "uninstall": _uninstall, "status": _status}[action](arguments, unit)


class Unit:
    """The units of one store."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        directory = paths.directory
        self.place = os.path.dirname(directory) if os.path.basename(directory) == STORE else directory
        self.instance = escape(self.place)
        config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        self.folder = f"{config}/systemd/user"
        if len(self.name("service") + ".d") > _MAX_NAME:
            raise TaskStoreError(f"the path {self.place} is too long for the name of a unit",
                                 hint="taskstore daemon start")

    def name(self, kind: str) -> str:
        """The unit of a kind."""
        return f"taskstore@{self.instance}.{kind}"

    def drop_in(self, kind: str) -> str:
        """Its drop-in."""
        return f"{self.folder}/{self.name(kind)}.d/{_DROP_IN}"

    def template(self, kind: str) -> str:
        """The template it is made from."""
        return f"{self.folder}/taskstore@.{kind}"

    @property
    def is_installed(self) -> bool:
        """Whether its drop-ins are there."""
        return all(os.path.exists(self.drop_in(kind)) for kind in KINDS)

    def files(self) -> dict[str, str]:
        """Every file by its path."""
        name = os.path.basename(socket_path(self.paths.directory, os.environ))
        return {
            **{self.template(kind): _shipped(f"taskstore@.{kind}") for kind in KINDS},
            self.drop_in("socket"): f"[Socket]\nListenStream=%t/taskstore/{name}\n",
            self.drop_in("service"): f"[Service]\nExecStart={quote(sys.executable)} -P -m taskstore_daemon --at %f\n"}

    def write(self) -> None:
        """Write every file, whole or not at all."""
        for path, text in self.files().items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(f"{path}.new", path)

    def remove(self) -> None:
        """Remove every file, the templates with the last instance, and every folder that this leaves empty."""
        paths = [self.drop_in(kind) for kind in KINDS]
        paths.append(f"{self.folder}/sockets.target.wants/{self.name('socket')}")
        _unlink(paths)
        if not any(_is_instance(f"{self.folder}/{name}") for name in _listed(self.folder)):
            _unlink(self.template(kind) for kind in KINDS)
        sockets = os.path.dirname(socket_path(self.paths.directory, os.environ))
        for folder in (*(os.path.dirname(path) for path in paths), self.folder, os.path.dirname(self.folder), sockets):
            _rmdir(folder)


def escape(path: str) -> str:
    """A path as the instance of a unit (systemd.unit(5), what `systemd-escape --path` prints)."""
    text = "/".join(part for part in path.split("/") if part) or "/"
    if text == "/":
        return "-"
    return "".join(
        "-" if byte == 0x2F else chr(byte) if chr(byte) in _PLAIN and (place or byte != 0x2E) else f"\\x{byte:02x}"  # noqa: PLR2004 - "/" and "."
        for place, byte in enumerate(os.fsencode(text)))


def quote(path: str) -> str:
    """An absolute path as the first word of ExecStart=."""
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def _shipped(name: str) -> str:
    """A unit file of this release: beside this package in a wheel, at the top in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in (f"{package}/systemd", f"{package}/../../systemd"):
        if os.path.isfile(f"{folder}/{name}"):
            with open(f"{folder}/{name}", encoding="utf-8") as file:
                return file.read()
    raise TaskStoreError(f"this installation lacks {name}", hint="install taskstore anew")


def _is_instance(folder: str) -> bool:
    return os.path.basename(folder).startswith("taskstore@") and os.path.exists(f"{folder}/{_DROP_IN}")


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _unlink(paths: "Iterable[str]") -> None:
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue


def _rmdir(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        return  # not empty, or not there


def _systemctl(*words: str) -> "tuple[bool, str]":
    """Whether a command of systemctl succeeds, and what it says."""
    import subprocess

    try:
        done = subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True, errors="replace",
                              check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return False, "there is no systemctl"
    return done.returncode == 0, (done.stdout or done.stderr).strip()


def _install(arguments: Arguments, unit: Unit) -> int:
    stop(unit.paths)  # the socket is to be systemd's
    unit.write()
    for words in (("daemon-reload",), ("enable", unit.name("socket")), ("restart", unit.name("socket"))):
        done, said = _systemctl(*words)
        if not done:
            _take_away(unit)
            raise TaskStoreError(f"systemctl --user {words[0]} fails: {said.splitlines()[0] if said else 'no reason'}",
                                 hint="nothing was installed; without systemd: taskstore daemon start")
    return _report(arguments, unit, f"installed {unit.name('socket')}: the next command starts the daemon")


def _uninstall(arguments: Arguments, unit: Unit) -> int:
    if not unit.is_installed:
        _take_away(unit)
        return _report(arguments, unit, "not installed")
    _take_away(unit)
    return _report(arguments, unit, f"uninstalled {unit.name('socket')}")


def _take_away(unit: Unit) -> None:
    """Stop the units and remove their files, as far as they are there."""
    _systemctl("disable", unit.name("socket"))
    _systemctl("stop", *(unit.name(kind) for kind in KINDS))
    unit.remove()
    _systemctl("daemon-reload")
    _systemctl("reset-failed", *(unit.name(kind) for kind in KINDS))


def _status(arguments: Arguments, unit: Unit) -> int:
    state = _state(unit)
    if not state["installed"]:
        said = "not installed; taskstore service install does it"
    else:
        said = f"{unit.name('socket')}: {state['socket']}\n{unit.name('service')}: {state['service']}"
    _report(arguments, unit, said)
    return 0 if state["installed"] and state["socket"] == "active" else 1


def _state(unit: Unit) -> "dict[str, Any]":
    state: dict[str, Any] = {"installed": unit.is_installed, "instance": unit.instance, "folder": unit.folder}
    for kind in KINDS:
        said = _systemctl("show", "--property=ActiveState", "--value", unit.name(kind))
        state[kind] = said[1] if said[0] and unit.is_installed else None
    return state


def _report(arguments: Arguments, unit: Unit, text: str) -> int:
    if arguments.json:
        write_json(to_json(_state(unit)))
    else:
        sys.stdout.writelines(f"{visible(line)}\n" for line in text.splitlines())
    return 0
