"""Do the tests notice? Each patch beside this file puts a bug into the code that a test is there to catch.

`python tests/seeded_bugs/run.py [NAME …]` applies each to a copy of the checkout, runs the tests that its head names
one after the other until one fails, and prints which did. Exit status: 0 if every bug was caught, 1 if not.
"""

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_FAILED = 1  # pytest's exit status for tests that failed; what cannot be collected or run has another
_SOURCES = ("core", "client", "daemon", "hooks", "merge")


@dataclasses.dataclass(frozen=True)
class Bug:
    """A patch: what is wrong then, and the tests that should catch it, the quickest first."""

    name: str
    what: str
    caught_by: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The patch itself."""
        return HERE / f"{self.name}.patch"


def bugs() -> list[Bug]:
    """All of them, by name."""
    return [_read(path) for path in sorted(HERE.glob("*.patch"))]


def _read(path: Path) -> Bug:
    head = path.read_text().partition("\ndiff --git ")[0].splitlines()
    said = [line.partition(": ")[::2] for line in head if ": " in line]
    return Bug(path.stem, dict(said)["Bug"], tuple(value for name, value in said if name == "Caught-by"))


def copy_with(bug: Bug, target: Path) -> None:
    """Put a copy of the checkout with the bug in it at `target`; raises CalledProcessError where the patch is stale."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)  # a patch is applied to a repository's folder
    subprocess.run(["git", "apply", "--unidiff-zero", os.fspath(bug.path)], cwd=target, check=True)


def catch(bug: Bug, tests: Sequence[str] | None = None) -> str:
    """The first of the tests that fails because of the bug; "" if none does."""
    with tempfile.TemporaryDirectory(prefix="seeded-bug-") as folder:
        target = Path(folder) / "checkout"
        copy_with(bug, target)
        for test in tests or bug.caught_by:
            if _fails(target, test):
                return test
    return ""


def _fails(target: Path, test: str) -> bool:
    path = os.pathsep.join(os.fspath(target / source) for source in _SOURCES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test], cwd=target,
        env={**os.environ, "PYTHONPATH": path}, check=False, capture_output=True, text=True)
    if done.returncode not in {0, _FAILED} or "\nERROR " in done.stdout:  # as of what a test needs
        raise RuntimeError(f"{test} could not be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == _FAILED


def main() -> int:
    """Print a line a bug, and count."""
    parser = argparse.ArgumentParser(description="Put known bugs into a copy of the code; see which tests notice.")
    parser.add_argument("names", nargs="*", help="which bugs; all without")
    names = parser.parse_args().names
    chosen = [bug for bug in bugs() if not names or bug.name in names]
    missed = 0
    for bug in chosen:
        began = time.monotonic()
        found = catch(bug)
        missed += not found
        print(f"{bug.name}: {bug.what}\n    {f'caught by {found}' if found else 'NOT CAUGHT'}"  # noqa: T201 - what it is for
              f" after {time.monotonic() - began:.0f} s", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} bugs caught")  # noqa: T201
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
