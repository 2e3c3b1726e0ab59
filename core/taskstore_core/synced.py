"""At which commit this clone was when its logs were last read: a record of the kind `repo_state`, of this machine.

It is written when logs that git changed have been read, and by `sync`; never into a file that git tracks (the original
tool had it tracked), which would make the tree dirty with each checkout. It is not worth a sync of the disk.
"""

import os

from .clock import next_stamp
from .errors import TaskStoreError
from .jsonl import parse_object
from .kinds import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import Cache
    from .change import Known
    from .drain import Sealed
    from .git import Head
    from .kept import Logs
    from .paths import Paths

KIND = KINDS["repo_state"]
_OURS = {*KIND.keys, "op", "op_sum", "deleted"}


class Synced:
    """The record of one clone, whose key is the folder that holds the store."""

    def __init__(self, paths: "Paths") -> None:
        self._paths = paths
        self.key = os.path.dirname(paths.directory)
        try:
            self.key.encode()
        except UnicodeEncodeError:  # a folder whose name is no UTF-8: no line can name it
            self.key = ""
        self.is_due = False
        """Whether git was at work when it was last written, so that HEAD may have moved since."""

    def read(self, cache: "Cache") -> dict[str, object]:
        """The record as it is in the cache; empty where there is none."""
        line = cache.live(KIND, self.key)
        return parse_object(line) if line is not None else {}

    def write(self, cache: "Cache", logs: "Logs") -> "Sealed":
        """Append where HEAD is now, if that is not what the record says. Needs the lock.

        What was done to the log, empty where nothing was; what cannot be written now is left for the next time.
        """
        if self._paths.git_dir is None or not self.key:
            return {}
        from . import git

        self.is_due = git.may_move(self._paths)
        head = git.head(self._paths.git_dir)
        noted = cache.db.execute("SELECT last_synced_commit, branch FROM repo_state WHERE repo_path=?", (self.key,)).get
        if not head.commit or noted == (head.commit, head.branch or None) or not self._may_write():
            return {}
        try:
            fields = self.read(cache) if noted is not None else {}
            return _append(logs, _line(self.key, fields, head, cache.get(KIND, self.key)))
        except (OSError, TaskStoreError):
            return {}

    def _may_write(self) -> bool:
        """Whether git is not at work, and does not track the file."""
        from . import git

        paths = self._paths
        return (paths.git_dir is not None and not git.is_writing(paths)
                and not git.is_tracked(paths.file(KIND.log), paths.git_dir))


def _line(key: str, fields: dict[str, object], head: "Head", known: "Known") -> str:
    """The next version of the record; what others have put into it stays, byte for byte."""
    if fields.keys() - _OURS:
        from .change import update  # which imports what a hook has no time for

        changes = {"last_synced_commit": head.commit, "branch": head.branch or None}
        return update(KIND, key, changes, known)[3]
    stamp = next_stamp(known[0] if known else None)
    branch = f',"branch":{_quoted(head.branch)}' if head.branch else ""
    return f'{{"repo_path":{_quoted(key)},"last_synced_commit":"{head.commit}","updated_at":{stamp}{branch}}}'


def _quoted(text: str) -> str:
    """A text as JSON; most need no escape, and importing json takes a hook 3 ms."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json

    return json.dumps(text, ensure_ascii=False)


def _append(logs: "Logs", line: str) -> "Sealed":
    from .log import ReplacedError

    log = logs.open(KIND.log)
    try:
        log.append([line])
        sealed = log.seal()
    except ReplacedError:
        sealed = None
    except OSError:
        log.undo()
        raise
    finally:
        logs.done(log)
    return {KIND.log: (log.before, sealed)} if sealed else {}
