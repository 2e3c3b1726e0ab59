"""Fuzz one target with atheris: `python -m tests.fuzz.run NAME [--runs N] [--seed N] [--keep]`.

It begins with the corpus beside this file, and ends with status 0 after so many inputs without a finding. What fails is
written to the folder it is started in. With `--keep` inputs that reach new code are added to the corpus.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # there is none for every Python

CORPUS = Path(__file__).resolve().parent / "corpus"


def main() -> None:
    """Fuzz; does not return."""
    parser = argparse.ArgumentParser(description="Fuzz what reads bytes of others.")
    parser.add_argument("name")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    with atheris.instrument_imports(include=["taskstore", "taskstore_core", "taskstore_daemon", "taskstore_hooks",
                                             "taskstore_merge"]):
        from tests.fuzz.targets import TARGETS
    corpus = CORPUS / arguments.name
    if not arguments.keep:  # libFuzzer adds to the first folder it is given
        found = tempfile.mkdtemp(prefix="corpus-")
        if corpus.is_dir():
            shutil.copytree(corpus, found, dirs_exist_ok=True)
        corpus = Path(found)
    corpus.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], f"-runs={arguments.runs}", f"-seed={arguments.seed}", "-max_len=4096",
                   os.fspath(corpus)], TARGETS[arguments.name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
