"""The shell lines themselves: in order by shellcheck, and doing what they should in every shell."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tests.hooks.conftest import NAME

from taskstore_hooks import blocks
from taskstore_hooks.scripts import SHEBANG, driver_command, find_program, hook_body, interpreter_of, quoted

SHELLCHECK = os.path.join(sysconfig.get_path("scripts"), "shellcheck")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program in the place of taskstore, under a name that a shell has to be careful with."""
    path = tmp_path / f"{NAME} `x` \\ $(y)" / "taskstore"
    path.parent.mkdir()
    told = quoted(str(tmp_path / "told"))
    path.write_text(f'#!/bin/sh\nwhile read -r x; do :; done\necho "$@" "${{PYTHONHOME-unset}}" >> {told}\nexit 9\n')
    path.chmod(0o755)
    return path


def script(program: Path, first: bytes = SHEBANG) -> bytes:
    return blocks.put(first, hook_body("pre-commit", str(program)), len(first), frozenset({blocks.MADE}))


@pytest.mark.parametrize("dialect", ["sh", "dash", "bash", "ksh"])
def test_shellcheck(dialect: str) -> None:
    """Nothing is to be said by shellcheck about a hook of ours, nor about the driver's command."""
    program = Path("/opt/ann's \"ä\" (x86)/bin/taskstore")
    driver = driver_command(str(program))
    for placeholder in "OABLP":
        driver = driver.replace(f"%{placeholder}", f"./file{placeholder}")
    direct = hook_body("post-merge", str(program), "/opt/ann's \"ä\"/bin/python3").decode()
    for text in (script(program).decode(), f"#!/bin/sh\n{direct}", f"#!/bin/sh\n{driver}\n"):
        done = subprocess.run([SHELLCHECK, "--shell", dialect, "--severity=style", "-"], input=text,
                              capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wrong = subprocess.run([SHELLCHECK, "-"], input="#!/bin/sh\necho $1\n", capture_output=True, text=True, check=False)
    assert "SC2086" in wrong.stdout


@pytest.mark.parametrize("options", ["", "-e", "-u", "-eu"])
def test_in_each_shell(shells: list[str], program: Path, tmp_path: Path, options: str) -> None:
    """Under every shell and its strictest options the program is run, without git's input; its failure is nobody's."""
    hook = tmp_path / "hook"
    hook.write_bytes(script(program) + b'read -r line\necho "behind $line"\n')
    for shell in shells:
        done = subprocess.run([shell, *options.split(), str(hook)], capture_output=True, text=True, check=False,
                              env={"PATH": ""}, input="refs/heads/x\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "behind refs/heads/x\n", ""), shell
    assert (tmp_path / "told").read_text() == "sync --hook pre-commit \n" * len(shells)


def test_the_program_on_path(shells: list[str], program: Path, tmp_path: Path) -> None:
    """Where the program is gone the one on PATH is run, and where there is none nothing is, without a word."""
    hook = tmp_path / "hook"
    hook.write_bytes(script(tmp_path / "gone" / "taskstore"))
    for shell in shells:
        for path, times in ((str(program.parent), 1), ("", 0)):
            done = subprocess.run([shell, str(hook)], capture_output=True, text=True, check=False, env={"PATH": path})
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), shell
            told = tmp_path / "told"
            assert (told.read_text().count("--hook pre-commit") if told.exists() else 0) == times
            told.unlink(missing_ok=True)


@pytest.mark.parametrize(("text", "is_ours"), [
    ("#!{python}\n# -*- coding: utf-8 -*-\nimport re\nimport sys\nfrom taskstore.cli import main\n", True),
    ("#!{python}\nimport sys\nfrom taskstore.cli import main\nsys.exit(main())\n", True),
    ("#!/usr/bin/env python3\nfrom taskstore.cli import main\n", False),
    ("#!{python}\nfrom something import main\n", False),
    ("#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\nfrom taskstore.cli import main\n", False), ("", False)])
def test_when_the_interpreter_is_called_itself(tmp_path: Path, text: str, is_ours: bool) -> None:
    """The script is passed by only where it is the plain one of an installer, made for this very interpreter."""
    path = tmp_path / "taskstore"
    path.write_text(text.format(python=sys.executable))
    assert interpreter_of(str(path), sys.executable) == (sys.executable if is_ours else "")
    assert not interpreter_of(str(tmp_path / "none"), sys.executable)


def test_the_interpreter_itself(shells: list[str], program: Path, tmp_path: Path) -> None:
    """Where it is, the interpreter is called with the same words, while the script that vouches for it is there."""
    interpreter = program.rename(program.with_name("python3"))
    hook = tmp_path / "hook"
    hook.write_bytes(hook_body("pre-push", str(program), str(interpreter)) + b"echo behind\n")
    for shell in shells:
        program.symlink_to(interpreter)
        assert _run(shell, hook) == (0, "behind\n", "")
        program.unlink()
        assert _run(shell, hook) == (0, "behind\n", "")
    assert (tmp_path / "told").read_text() == (
        "-EPc from taskstore.cli import main; main() sync --hook pre-push unset\n" * len(shells))


def _run(shell: str, hook: Path) -> tuple[int, str, str]:
    done = subprocess.run([shell, "-eu", str(hook)], capture_output=True, text=True, check=False, env={"PATH": ""})
    return done.returncode, done.stdout, done.stderr


def test_which_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program beside the one that runs comes first, then the one beside the interpreter, then PATH."""
    folders = [tmp_path / name for name in ("called", "python", "path")]
    monkeypatch.setenv("PATH", f"relative:{folders[2]}")

    def find() -> str:
        return find_program("taskstore-merge", str(folders[0] / "taskstore"), str(folders[1] / "python3"))

    assert find() == str(folders[1] / "taskstore-merge")  # where an installation would put it
    for folder in reversed(folders):
        folder.mkdir()
        (folder / "taskstore-merge").write_text("")
        before = find()
        (folder / "taskstore-merge").chmod(0o755)
        assert find() == str(folder / "taskstore-merge")
        assert before != find() or folder == folders[1]
    assert find_program("taskstore-merge", str(folders[0] / "pytest"), str(folders[1] / "python3")).startswith(
        str(folders[1]))
