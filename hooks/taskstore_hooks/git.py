"""Running git: the command, as its users do, since only it reads a configuration with all that may be included there.

What a hook's environment says of the repository that git is working on is not passed on: we name ours.
"""

import os

from taskstore_core.errors import TaskStoreError
from taskstore_core.git import environment

_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class GitError(TaskStoreError):
    """Git is not there, or does not do it."""

    kind = "git"


class Git:
    """Git, run in one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit status, output and errors of a git command; raises GitError where git is not there."""
        import subprocess

        try:
            done = subprocess.run(["git", "-C", self.folder, *words], capture_output=True, check=False,
                                  stdin=subprocess.DEVNULL, env=environment())
        except FileNotFoundError:
            raise GitError("git is not on PATH", hint="install it, or taskstore init --no-hooks") from None
        return done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr)

    def ask(self, *words: str) -> str:
        """What a git command prints, without the last line end; raises GitError with git's reason."""
        status, out, err = self.run(*words)
        if not status:
            return out.removesuffix("\n")
        if "dubious ownership" in err:
            raise GitError(f"git refuses {self.folder}, which belongs to somebody else",
                           hint=f"git config --global --add safe.directory {self.folder}, if you trust its owner")
        reason = next((line for line in err.splitlines() if line), f"exit status {status}")
        raise GitError(f"git {words[0]} in {self.folder}: {reason.removeprefix('fatal: ').removeprefix('error: ')}")

    def setting(self, name: str) -> str | None:
        """The value of a variable of the configuration of this clone alone."""
        status, out, _ = self.run("config", "--local", "--null", "--get", name)
        return None if status else out.partition("\0")[0]

    def set(self, name: str, value: str) -> bool:
        """Give a variable of this clone its value; whether it had another. Raises GitError."""
        if self.setting(name) == value:
            return False
        self._change("--replace-all", name, value)
        return True

    def drop(self, section: str) -> None:
        """Remove a section of the configuration of this clone; raises GitError."""
        self._change("--remove-section", section)

    def _change(self, *words: str) -> None:
        """Change the configuration. Git does not wait for its lock, and agents run `init` at the same time."""
        import time

        for pause in _PAUSES_S:
            try:
                self.ask("config", "--local", *words)
            except GitError as error:
                if "could not lock" not in error.message:
                    raise
                time.sleep(pause)
            else:
                return
        self.ask("config", "--local", *words)
