"""The server: accepts connections of this user, and knows what the daemon has to say of itself."""

import errno
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable

import trio

from taskstore_core import rpc
from taskstore_core.paths import Paths
from taskstore_core.sockets import peer_uid
from taskstore_core.store import Store

from .committer import Committer
from .engine import Engine
from .head import Head
from .logs import fields
from .lookups import Lookups
from .metrics import Metrics
from .own_methods import ALL_METHODS, OWN
from .poller import Poller
from .publisher import Publisher
from .release import release
from .replies import Replies
from .session import Session
from .watcher import Watcher
from .wire import PENALTY_S
from .work import ALL

log = logging.getLogger(__name__)

_GRACE_S = 5
_AGAIN_S = 1.0
# Errors of accept(2) that are about one connection, or pass when descriptors are freed (as trio's own server has it).
_PASSING = {errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.EAGAIN}
_CROWDED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


class Server:
    """A store and all connections to it."""

    def __init__(self, paths: Paths, socket_path: str, *, use_inotify: bool = True) -> None:
        self.paths = paths
        self.socket_path = socket_path
        self.pid = os.getpid()
        self.metrics = Metrics()
        self.replies = Replies(self.metrics)
        self.engine = Engine(Store(paths, resident=True), self.metrics)
        self.committer = Committer(self.engine)
        self.poller = Poller()
        self.lookups = Lookups(self.engine)
        head = Head(paths)
        self.engine.store.distance = head.distance  # type: ignore[method-assign]
        self.publisher = Publisher(self.engine, head)
        self.watcher = Watcher(paths, self.engine, self.publisher, use_inotify=use_inotify)
        self.methods = dict(ALL_METHODS)
        self.own = OWN.keys()
        self.stopping = trio.Event()
        self.stopped = trio.Event()
        self.reason = ""
        self.last_busy = time.monotonic()
        self._sessions: set[Session] = set()
        self._started = time.time()

    @property
    def is_idle(self) -> bool:
        """Whether nobody is connected."""
        return not self._sessions

    def stop(self, reason: str) -> None:
        """Have `run` end once what is in flight is answered."""
        if not self.stopping.is_set():
            self.reason = reason
            self.stopping.set()

    async def run(self, listener: trio.socket.SocketType,
                  task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`; `started` once connections are taken."""
        try:
            async with trio.open_nursery() as background:
                background.start_soon(self.committer.run)
                for task in (self.engine.settle, self.engine.follow, self.engine.tidy, self.publisher.run,
                             self.watcher.run, self.poller.run):
                    background.start_soon(_keep_running, task)
                with listener:
                    await self._serve_all(listener, task_status)
                self.committer.finish()
                background.cancel_scope.cancel()
        finally:
            self.engine.close()
            self.poller.close()
            self.stopped.set()

    async def _serve_all(self, listener: trio.socket.SocketType, task_status: trio.TaskStatus[None]) -> None:
        """Serve connections until `stop`, and give those that are there some seconds to end."""
        async with trio.open_nursery() as connections:
            connections.start_soon(self._accept, listener, connections)
            task_status.started()
            await self.stopping.wait()
            log.info("leaving: %s", self.reason, extra=fields(
                "leave", reason=self.reason, uptime_s=round(time.time() - self._started, 3),
                connections=len(self._sessions), requests=self.metrics.requests.total()))
            connections.cancel_scope.deadline = trio.current_time() + _GRACE_S
            listener.close()
            for session in self._sessions:
                session.close_soon()

    async def _accept(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError as error:
                if error.errno in _CROWDED:
                    log.warning("cannot take a connection now: %s", error.strerror)
                    await trio.sleep(0.1)
                elif error.errno not in _PASSING:
                    if self.stopping.is_set():
                        return
                    raise
                continue
            plain = socket.socket(fileno=sock.detach())
            plain.setblocking(False)
            nursery.start_soon(self._serve, plain)

    async def _serve(self, sock: socket.socket) -> None:
        with sock:
            if peer_uid(sock) != os.geteuid():
                log.warning("refused a connection of another user")
                return
            if len(self._sessions) >= rpc.CONNECTIONS:
                _say(sock, rpc.error("null", rpc.INTERNAL_ERROR, f"{rpc.CONNECTIONS} connections are open",
                                     {"kind": "busy", "retryable": True, "applied": "no"}))
                await trio.sleep(PENALTY_S)
                return
            session = Session(sock, self)
            self._sessions.add(session)
            if self.stopping.is_set():
                session.close_soon()
            try:
                await session.run()
            except* Exception:  # a fault of ours: it costs this connection, and no other
                log.exception("a connection failed", extra=fields("error"))
            finally:
                self._sessions.discard(session)
                self.last_busy = time.monotonic()

    # What it says of itself

    def greeting(self) -> dict[str, object]:
        """The answer to `hello`."""
        return {"protocol": rpc.PROTOCOL, "version": release(), "pid": self.pid, "epoch": self.epoch(),
                "store": self.paths.directory, "capabilities": {"changes": True, "flush": True, "metrics": True},
                "limits": rpc.LIMITS}

    def epoch(self) -> str:
        """The epoch of the cursors that are given now; "" while the cache is behind."""
        if not self.engine.is_fresh(ALL, set()):
            return ""
        return self.engine.store.trusting(lambda store: store.ask(lambda cache: cache.epoch()))

    def status(self) -> dict[str, object]:
        """The answer to `daemon.status`."""
        return {"running": True, "pid": self.pid, "socket": self.socket_path, "version": release(),
                "protocol": rpc.PROTOCOL, "store": self.paths.directory,
                "uptime_s": round(time.time() - self._started, 3), "connections": len(self._sessions),
                "subscribers": len(self.publisher.subscriptions), "requests": self.metrics.requests.total(),
                "writes_waiting": self.committer.waiting,
                "oldest_write_ms": round(self.committer.oldest_waiting_s() * 1000, 3),
                "change_lag_ms": self.watcher.lag_ms, "watching": "inotify" if self.watcher.is_watching else "stat",
                "read_only": self.engine.store.failure or None}

    def metrics_text(self) -> str:
        """The answer to `daemon.metrics`."""
        self.metrics.connections.set(len(self._sessions))
        self.metrics.subscribers.set(len(self.publisher.subscriptions))
        self.metrics.waiting.set(self.committer.waiting)
        self.metrics.oldest.set(self.committer.oldest_waiting_s())
        return self.metrics.text()


async def _keep_running(task: Callable[[], Awaitable[None]]) -> None:
    """Run what should run for ever; what nobody thought of is logged, and it begins anew."""
    while True:
        try:
            await task()
        except* Exception:
            log.exception("%s failed", getattr(task, "__qualname__", task), extra=fields("error"))
        await trio.sleep(_AGAIN_S)


def _say(sock: socket.socket, data: bytes) -> None:
    try:
        sock.send(data)
    except OSError:
        return
