"""What reads bytes of others, fuzzed: the corpus each time, and inputs made of it; a million each with `--long`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
SHORT, LONG = 1_000, 1_000_000


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    """What was thought of, and what was found."""
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[name](path.read_bytes())


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="there is no atheris for this Python")
@pytest.mark.parametrize("name", TARGETS)
def test_inputs_nobody_thought_of(name: str, long: bool, tmp_path: Path) -> None:
    """Those that libFuzzer makes of the corpus, led by the code that they reach."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", name, "--runs", str(LONG if long else SHORT)], check=False,
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Done" in done.stderr
