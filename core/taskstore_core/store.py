"""The store: state that is always as new as the files say, and writes that last.

Synchronous, for one thread of one process; any number of processes may each have one open. It neither prints nor
reads the environment. Records go in as mappings and come out as the line in the log; `taskstore` puts types on it.
"""

import os

from . import layout
from .cache import Cache
from .errors import NotFoundError, ReadOnlyError, TaskStoreError, check_text
from .keeper import Keeper
from .kinds import KINDS, Kind, find_kind
from .lock import WAIT_S
from .paths import Paths, discover, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Self, TypeVar

    from .batch import Operation
    from .leases import Leases
    from .leveling import Reports
    from .lock import Lock
    from .reconcile import SwallowedError
    from .request import Outcome, Request
    from .view import View, Written

    T = TypeVar("T")

_LOOK_S = 0.01  # between two looks whether git is quiet
_NAMED = 3  # ids that an ambiguous prefix names


class Store:
    """One store, opened. Use it as a context manager, or `close` it."""

    def __init__(self, paths: Paths, *, resident: bool = False) -> None:
        """Open the store at `paths`; raises NoStoreError, UnsupportedVersionError.

        `resident` is for a process that lives long, serves others and never forks without exec: it keeps the lock's and
        the logs' descriptors, its cache follows its writes later (see `lag`), and what reads or writes may raise
        SwallowedError, which is for `ask_git`.
        """
        self.paths = paths
        self._keeper = Keeper(paths, resident=resident)
        self._opened_leases: Leases | None = None
        self._is_cramped = False  # a write found no room, of which the cache is to take no more than it must
        version = layout.read_version(paths)
        if version < layout.FORMAT:
            with self._keeper.lock():
                layout.migrate(paths, layout.read_version(paths))

    @classmethod
    def open(cls, path: str = ".", *, directory: str | None = None) -> "Store":
        """Open the store that `path` lies in, or the one in `directory`.

        Raises NoStoreError where there is none, UnsupportedVersionError for one of a newer release.
        """
        return cls(named(directory) if directory is not None else discover(path))

    @classmethod
    def create(cls, path: str = ".", *, directory: str | None = None) -> "tuple[Store, list[str]]":
        """Open a store, making what is missing of it; also the names of the files made.

        Raises NoStoreError, UnsupportedVersionError, ReadOnlyError.
        """
        paths = named(directory) if directory is not None else discover(path)
        if os.path.exists(paths.file(".version")):
            layout.read_version(paths)
        else:
            layout.refuse_kept_out(paths)
        try:
            made = layout.create(paths)
        except OSError as error:
            raise ReadOnlyError(f"cannot write {error.filename or paths.directory}: {error.strerror}") from None
        return cls(paths), made

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Make the logs themselves durable if this store wrote to them, and let go of everything."""
        self._keeper.close()
        if self._opened_leases is not None:
            self._opened_leases.close()

    # Reading

    def get(self, kind: Kind | str, key: str) -> str:
        """The line of a live record, by its id or by the beginning of just one id; raises NotFoundError."""
        kind = _kind(kind)
        check_text(kind.key, key)

        def look_up(cache: Cache) -> str:
            known = cache.get(kind, key)
            if known and known[1]:
                raise NotFoundError(f"the {kind.title} {key} was deleted",
                                    hint=f"taskstore history {kind.name} {key} shows what it was")
            if known:
                return known[2]
            ids = cache.ids_beginning(kind, key, _NAMED + 1) if key else []
            if len(ids) == 1 and (known := cache.get(kind, ids[0])):
                return known[2]
            if ids:
                raise NotFoundError(f"several {kind.title}s begin with {key}: {', '.join(ids[:_NAMED])}"
                                    f"{' …' if len(ids) > _NAMED else ''}", hint="give more of the id")
            raise NotFoundError(f"there is no {kind.title} {key}")

        return self._keeper.read((kind,), look_up)

    def look_up(self, kind: str, key: str, *, trusted: bool = False) -> str | None:
        """The line of a live record, if the cache is level with its log, or is `trusted` to be, and has just this id.

        It is the quickest way to an answer; where there is None, `get` has one, or says why not.
        """
        return self._keeper.look_up(kind, key, trusted=trusted)

    def history(self, kind: Kind | str, key: str) -> list[str]:
        """Every version of a record in the log, oldest first, deletions too; raises NotFoundError if there is none."""
        kind = _kind(kind)
        check_text(kind.key, key)
        versions = self._keeper.read((kind,), lambda cache: self._versions(cache, kind, key))
        if not versions:
            raise NotFoundError(f"there is no {kind.title} {key} and there never was one in this log")
        return versions

    def _versions(self, cache: Cache, kind: Kind, key: str) -> list[str]:
        from .history import versions

        return versions(cache, kind, self.paths.file(kind.log), key, self._keeper.pending(kind.log))

    def find(self, kind: Kind | str, where: "Mapping[str, object] | None" = None, *, order: str | None = None,
             limit: int | None = None, cursor: str | None = None,
             concurrent: bool = False) -> "tuple[list[str], str | None]":
        """The lines of the live records that fit, and a cursor if `limit` cut the list; see `query.build`."""
        from . import query

        kind = _kind(kind)
        wanted = query.build(kind, where, order, limit, cursor, concurrent=concurrent)
        rows = self._keeper.read((kind,), lambda cache: list(cache.db.execute(wanted.sql, wanted.parameters)))
        if wanted.limit is None or len(rows) <= wanted.limit:
            return [raw for _, _, raw in rows], None
        rows = rows[:wanted.limit]
        key, value, _ = rows[-1]
        return [raw for _, _, raw in rows], query.encode_cursor(order or kind.started, value, key)

    def ask(self, question: "Callable[[Cache], T]") -> "T":
        """What `question` says of a cache that is level with every log."""
        return self._keeper.read(tuple(KINDS.values()), question)

    def is_fresh(self, kinds: "Iterable[Kind]") -> bool:
        """Whether a read of `kinds` can be answered at once, without a lock or a look into files."""
        return self._keeper.is_fresh(kinds)

    def holds(self, kinds: "Iterable[Kind]") -> bool:
        """Whether what this store knows of `kinds`, be it in its cache or not yet, is what their logs say."""
        return self._keeper.holds(kinds)

    def is_level(self) -> bool:
        """Whether the cache is level with every log and nothing waits in the outbox. Takes no lock, changes nothing."""
        return self._keeper.has_level_cache()

    def trusting(self, work: "Callable[[Store], T]") -> "T":
        """Do some reads after `is_fresh` said yes, without asking again before each."""
        self._keeper.trusted = True
        try:
            return work(self)
        finally:
            self._keeper.trusted = False

    def look(self, kinds: "Iterable[Kind]") -> None:
        """Bring the cache level with the logs of `kinds` if it is not, and note where HEAD is if that is due."""
        self._keeper.read(kinds, lambda _: None)
        self._keeper.note_head()

    @property
    def is_head_due(self) -> bool:
        """Whether git was at work when it was last noted where HEAD is."""
        return self._keeper.synced.is_due

    @property
    def synced_s(self) -> float:
        """Seconds that this store has waited for its writes to become durable (fdatasync), all together."""
        return self._keeper.synced_s

    @property
    def reports(self) -> "Reports":
        """What others changed in the logs, by kind, as it was last found: another object each time."""
        return self._keeper.reports

    @property
    def failure(self) -> str:
        """Why this store writes nothing more; "" while it does."""
        return self._keeper.failure

    @property
    def is_unsettled(self) -> bool:
        """Whether logs that this store wrote to have yet to be synced."""
        return self._keeper.is_unsettled

    @property
    def is_waiting(self) -> bool:
        """Whether, when it was last looked, lines waited for git to be quiet, or were to be looked for then."""
        return self._keeper.is_waiting

    def flush(self, wait_s: float) -> bool:
        """Whether every line stands in its log, after waiting for git to be quiet, `wait_s` at the most."""
        import time

        if not self._keeper.has_looked:
            self.sync()
        end = time.monotonic() + wait_s
        while self._is_put_off():
            if time.monotonic() >= end:
                return False
            time.sleep(_LOOK_S)
        return True

    def _is_put_off(self) -> bool:
        """Whether something waits for git to be quiet yet, after doing it if git is."""
        if self._keeper.is_waiting and not self._keeper.quiet.is_busy():
            self.sync()
        return self._keeper.is_waiting

    def tidy(self) -> None:
        """Do what was put off while git was at work, if git is quiet now, in one pass.

        Raises BusyError if the lock is not to be had at once, SwallowedError if git must be asked first.
        """
        if self._keeper.is_waiting and not self._keeper.quiet.is_busy():
            with self._keeper.lock(0):
                self._keeper.level()

    def ask_git(self, error: "SwallowedError") -> None:
        """Ask git about what a pass has missed, for the next one. Takes long; other threads may use the store."""
        self._keeper.ask_git(error)

    def do_without_git(self) -> None:
        """Have the next pass go on without git's answer; what it may have swallowed is looked for later."""
        self._keeper.do_without_git()

    def settle(self) -> None:
        """Fsync the logs that this store wrote to; what cannot be done now is left for later."""
        self._keeper.settle()

    def pending(self, kind: Kind) -> list[str]:
        """The lines of a kind that are durable and wait to be appended to their log."""
        return self._keeper.pending(kind.log)

    def stats(self) -> dict[str, dict[str, object]]:
        """For each kind: live records, how many by status, deleted ids, lines of its log and how many are bad."""
        return self.ask(lambda cache: {kind.name: _stats(cache, kind) for kind in KINDS.values()})

    def repository(self) -> "dict[str, object] | None":
        """Where HEAD is, and where it was when logs that git had changed were last read; None where there is no commit.

        "ahead" and "behind" count the commits that HEAD has and that one has not, and the other way round.
        """
        from . import git

        git_dir = self.paths.git_dir
        head = git.head(git_dir) if git_dir is not None else None
        if git_dir is None or head is None or not head.commit:
            return None
        fields = self.ask(self._keeper.synced.read)
        base = fields.get("last_synced_commit")
        last = None if base is None else {"commit": str(base), "branch": fields.get("branch"),
                                          "at": fields.get("updated_at")}
        counts = None if last is None else (0, 0) if base == head.commit else self.distance(str(base), head.commit)
        ahead, behind = counts or (None, None)
        return {"commit": head.commit, "branch": head.branch or None, "last_synced": last, "ahead": ahead,
                "behind": behind}

    def distance(self, base: str, commit: str) -> tuple[int, int] | None:
        """(commits that `commit` has and `base` has not, the other way round); a quicker way may be put here."""
        from . import git

        return git.distance(self.paths.git_dir, base, commit) if self.paths.git_dir is not None else None

    # Writing

    def commit(self, requests: "Sequence[Request]", *, wait_s: float = WAIT_S) -> "list[Outcome | TaskStoreError]":
        """Carry out requests, each whole or not at all, all with one sync of the disk.

        The outcome of each stands at its place. Raises ReadOnlyError where none could be written, BusyError where
        the lock was not to be had within `wait_s`; `commit_locked` has the rest.
        """
        return self._keeper.in_turn(lambda: self.commit_locked(requests), wait_s)

    def lock(self, wait_s: float = WAIT_S) -> "Lock":
        """The store's lock, for `commit_locked`. It may be taken and let go of in different threads."""
        return self._keeper.lock(wait_s)

    def commit_locked(self, requests: "Sequence[Request]", *, at_once: bool = False,
                      ) -> "list[Outcome | TaskStoreError]":
        """What `commit` does, for whoever holds the lock.

        Raises BehindError if it is to be done `at_once` and the cache must be brought level for it, SwallowedError if
        git must be asked first, which `ask_git` does.
        """
        from taskstore_core import writer  # absolute, as in `methods`

        may_lag = False not in [request.is_narrow for request in requests]
        kinds = {kind: None for request in requests for kind in request.kinds}
        cache, outbox = self._keeper.leveled(kinds, may_lag=may_lag, at_once=at_once)
        base = self._keeper.lag.view if self._keeper.lag is not None else self.view(cache)
        view = base.above(None, "")
        outcomes = writer.decide(view, requests)
        try:
            sealed = writer.commit(self._keeper.logs, outbox, self._leases, outcomes, view.noticed)
        except ReadOnlyError:
            self._is_cramped = True
            raise
        if self._is_cramped and cache.path:
            self._is_cramped = not cache.fold()
        if sealed is not None:
            self._keeper.follow(sealed, view, may_lag=may_lag)
        return outcomes

    @property
    def lag(self) -> int:
        """How many lines this store, being resident, has written and not put into its cache."""
        return self._keeper.lag.lines if self._keeper.lag is not None else 0

    def catch_up(self, *, at_once: bool = False) -> bool:
        """Put what this store has written into its cache; False where that must be done otherwise, or not `at_once`."""
        return self._keeper.catch_up(at_once=at_once)

    def run(self, request: "Request") -> "Outcome":
        """Carry out one request; raises its error."""
        (outcome,) = self.commit([request])
        if isinstance(outcome, TaskStoreError):
            raise outcome
        return outcome

    def apply(self, operations: "Sequence[Operation]", op: str | None = None) -> "list[Written]":
        """Carry out operations together or not at all; raises the error of the one that cannot be."""
        from .batch import Batch

        return self.run(Batch(operations, op)).written

    @property
    def _leases(self) -> "Leases":
        if self._opened_leases is None:
            from .leases import Leases

            self._opened_leases = Leases(self.paths.local("leases.db"))
        return self._opened_leases

    def view(self, cache: Cache) -> "View":
        """What a request would see."""
        from .view import View

        return View(cache, self._leases, lambda kind, key: self._versions(cache, kind, key))

    def sync(self, *, full: bool = False) -> "Reports":
        """Bring the cache level with the logs, or build it anew; what was read and changed, by kind.

        Where the store cannot be written, a cache in memory takes the place of the file.
        """
        return self._keeper.sync(full=full)

    def compact(self, *, older_than_ms: int | None = None, keep: int | None = None, prune_tombstones: bool = False,
                dry_run: bool = False) -> dict[str, object]:
        """Drop superseded lines from the logs; see `superseded.Rule` and, also for errors, `compaction.compact`."""
        from .compaction import compact
        from .request import check_number
        from .superseded import Rule

        if older_than_ms is not None:
            check_number("older_than_ms", older_than_ms, 0)
        if keep is not None:
            check_number("keep", keep, 1)
        rule = Rule(older_than_ms or 0, keep or 1, prune_tombstones=prune_tombstones)
        return compact(self._keeper, rule, dry_run=dry_run)


def _kind(kind: Kind | str) -> Kind:
    return kind if isinstance(kind, Kind) else find_kind(kind)


def _stats(cache: Cache, kind: Kind) -> dict[str, object]:
    table = f"{kind.plural}_rows"
    records, deleted = cache.db.execute(
        f"SELECT count(*) FILTER (WHERE NOT deleted), count(*) FILTER (WHERE deleted) FROM {table}").get  # noqa: S608 - names from our own table
    stats: dict[str, object] = {"records": records, "deleted": deleted}
    if "status" in kind.enums:
        found = dict(cache.db.execute(
            f"SELECT status, count(*) FROM {table} WHERE NOT deleted GROUP BY status ORDER BY status"))  # noqa: S608
        words = [*kind.enums["status"], *(word for word in found if word not in kind.enums["status"])]
        stats["status"] = {word or "": found[word] for word in words if word in found}
    point = cache.checkpoint(kind)
    return {**stats, "lines": point.lines if point else 0, "bad_lines": cache.bad_lines(kind)}
