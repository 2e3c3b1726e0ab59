"""For the tests of core: an empty store copied from a template, a second opening of it, and clocks moved by hand."""

import contextlib
import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import taskstore_core
from taskstore_core import clock as clock_module
from taskstore_core.store import Store

for _module in pkgutil.iter_modules(taskstore_core.__path__, "taskstore_core."):
    importlib.import_module(_module.name)  # now, so that none takes over a clock that a test has moved


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an empty store, to be copied: making one syncs every file of it."""
    made, _ = Store.create(os.fspath(tmp_path_factory.mktemp("empty")))
    with made:
        made.sync()
    return made.paths.directory


@pytest.fixture
def store(empty: str, tmp_path: Path) -> Iterator[Store]:
    """An empty store outside git."""
    directory = shutil.copytree(empty, tmp_path / ".taskstore")
    with Store.open(directory=os.fspath(directory)) as opened:
        yield opened


@pytest.fixture
def other(store: Store) -> Iterator[Store]:
    """The same store, opened a second time, as another process would."""
    with Store.open(directory=store.paths.directory) as opened:
        yield opened


class Clocks:
    """The clocks and the boot id that taskstore_core sees."""

    def __init__(self) -> None:
        self._now, self._uptime, self.boot = clock_module.now_ms, clock_module.uptime_ms, clock_module.boot_id()
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self._now() + self.ahead_ms

    def uptime_ms(self) -> int:
        return self._uptime() + self.ahead_ms

    def boot_id(self) -> str:
        return self.boot

    def go_on(self, ms: int) -> None:
        """Let `ms` pass."""
        self.ahead_ms += ms

    def reboot(self) -> None:
        """Start the machine anew."""
        self.boot = f"not-{self.boot}"


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Clocks that a test moves."""
    made = Clocks()
    for name, module in list(sys.modules.items()):
        for function in ("now_ms", "uptime_ms", "boot_id"):
            if name.startswith("taskstore_core") and hasattr(module, function):
                monkeypatch.setattr(module, function, getattr(made, function))
    return made


@pytest.fixture(scope="session")
def obedient(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What stands before a command so that file modes hold for it too, even where the tests run as root."""
    folder = tmp_path_factory.mktemp("closed")
    folder.chmod(0o500)
    for prefix in ([], ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]):
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run([*prefix, "mkdir", str(folder / str(len(prefix)))], capture_output=True, check=False)
            if done.returncode:
                return prefix
    pytest.skip("no mode keeps this user from writing, and setpriv cannot take that away")
