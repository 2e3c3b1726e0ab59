"""The reference pages and completion scripts are what docs/generate.py makes of the tables."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_reference_is_current() -> None:
    """No page and no completion script is stale; `python docs/generate.py` writes them anew."""
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_scripts_complete(tmp_path: Path) -> None:
    """The script for bash completes a command, and what `completion bash` prints is that script."""
    script = ROOT / "client" / "taskstore" / "cli" / "completions" / "taskstore.bash"
    printed = subprocess.run([sys.executable, "-m", "taskstore", "completion", "bash"], capture_output=True, check=True,
                             cwd=tmp_path)
    assert printed.stdout == script.read_bytes()
    words = f"source {script}; COMP_WORDS=(taskstore hea); COMP_CWORD=1; _shtab_taskstore; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "heartbeat\n"
