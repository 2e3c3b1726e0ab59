"""Carrying out calls and making their answers: at once where that is right, else by the engine or in a thread."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from taskstore_core import rpc
from taskstore_core.errors import InvalidError, TaskStoreError
from taskstore_core.plain import to_json
from taskstore_core.request import Outcome, Request
from taskstore_core.rpc import Call, Fault

from .committer import Waiting
from .long_answers import cut_list
from .own_methods import IN_ORDER
from .replies import too_large
from .waits import wait
from .work import NoMethodError, Work

if TYPE_CHECKING:
    from .engine import Fresh
    from .session import Session


_LONG_TEXT = rpc.ANSWER_BYTES // 4
"""Characters, of four bytes at the most, in a list that certainly need not be cut."""
_ERRORS = 1024 * rpc.BATCH
"""Bytes of a batch's frame that are kept for what is said of those answers which do not fit."""


def loads(frame: bytes) -> object:
    """The value of JSON text; raises ValueError. orjson would make floats of whole numbers from 2^64 on."""
    try:
        return msgspec.json.decode(frame)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


class Answerer:
    """What carries out the calls of one session."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._server = session.server
        self._engine = session.server.engine
        self._committer = session.server.committer
        self._replies = session.server.replies

    def look(self, message: Call | Fault, size: int) -> Work | bytes:
        """A call that is in order, or the answer that says what is wrong; `size` are the bytes of its frame."""
        if isinstance(message, Fault):
            return rpc.error(message.id, message.code, message.message)
        try:
            return Work(message, self._server.methods, size)
        except (InvalidError, NoMethodError) as error:
            return self._replies.refused(message, error)

    def at_once(self, work: Work, fresh: "Fresh") -> bytes | None:
        """The answer to a call that needs no waiting; None if it does. `fresh` are kinds that were just looked at."""
        method = work.method
        if method.request is not None or method.waits or work.is_long or method.name in IN_ORDER:
            return None
        began = time.perf_counter()
        try:
            text = self._text_at_once(work, fresh)
            return None if text is None else self._replies.done(work.call, text, began)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it
            return self._replies.failed(work.call, error, began)

    def _text_at_once(self, work: Work, fresh: "Fresh") -> str | None:
        if work.method.name in self._server.own:
            return to_json(_reading(work)(self._session))
        if not self._engine.is_fresh(work.kinds(), fresh):
            return None
        short = work.short_list()
        result: Any = self._engine.store.trusting(_reading(work, short))
        if short is not None and result["cursor"] is not None:
            return None
        text = to_json(result)
        return None if work.is_list and len(text) > _LONG_TEXT else text

    def put(self, works: Sequence[Work], tell: Callable[[bytes], None]) -> bool:
        """Have writes carried out together; `tell` gets their answers when they are done. False for what must wait."""
        if any(work.flush for work in works):
            return False
        self._committer.put(_Writes(self, works, tell), self._session)
        return True

    async def write(self, works: Sequence[Work]) -> list[bytes]:
        """Carry out writes together; their answers in order."""
        began = time.perf_counter()
        made = [_request(work) for work in works]
        requests = [one for one in made if isinstance(one, Request)]
        outcomes = await self._committer.write(requests, sum(work.size for work in works))
        is_done = any(isinstance(outcome, Outcome) for outcome in outcomes)  # what was refused has nothing to wait for
        flushed = to_json(await self._engine.flush()) if is_done and any(work.flush for work in works) else ""
        return self.answers(works, made, outcomes, began, flushed)

    def answers(self, works: Sequence[Work], made: "Sequence[Request | TaskStoreError]",
                 outcomes: "Sequence[Outcome | TaskStoreError]", began: float, flushed: str = "") -> list[bytes]:
        """The answers to writes, of which `made` are the requests, or what kept them from becoming one."""
        following = iter(outcomes)
        answers = []
        for work, one in zip(works, made, strict=True):
            outcome = next(following) if isinstance(one, Request) else one
            meta = f',"meta":{{"flushed":{flushed}}}' if work.flush else ""
            answers.append(self._replies.written(work.call, outcome, began, meta))
        return answers

    async def answer(self, work: Work) -> bytes:
        """The answer to a call that does not write, however long it takes."""
        answered = self.at_once(work, set())
        if answered is not None:
            return answered
        began = time.perf_counter()
        try:
            return self._replies.done(work.call, await self._result(work), began)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it
            return self._replies.failed(work.call, error, began)

    async def _result(self, work: Work) -> str:
        if work.method.name in self._server.own:
            result = _reading(work)(self._session)
            return to_json(await result if hasattr(result, "__await__") else result)
        if work.method.waits:
            return await wait(self._engine, self._server.publisher.waits, work.parameters)
        if work.is_long:
            return await self._engine.at_length(lambda store: to_json(_reading(work)(store)))
        if work.is_list:
            return await self._engine.at_length(lambda store: cut_list(store, work.parameters))
        return await self._engine.read(work.kinds(), lambda store: to_json(_reading(work)(store)))

    def fitting(self, work: Work, answer: bytes, before: int) -> bytes:
        """The answer to a call of a batch, or an error where with the `before` bytes of others it fits no frame."""
        if before + len(answer) <= rpc.FRAME_BYTES - _ERRORS:
            return answer
        error = too_large(before + len(answer), "yes" if work.writes else "no")
        return self._replies.failed(work.call, error, time.perf_counter())


class _Writes(Waiting):
    """Writes of one session that are on their way; `tell` is called with their answers."""

    __slots__ = ("_answerer", "_made", "_tell", "_works")

    def __init__(self, answerer: Answerer, works: Sequence[Work], tell: Callable[[bytes], None]) -> None:
        began = time.perf_counter()
        self._answerer = answerer
        self._works = works
        self._made = [_request(work) for work in works]
        self._tell = tell
        requests = [one for one in self._made if isinstance(one, Request)]
        super().__init__(requests, sum(work.size for work in works), began)

    def tell(self, outcomes: "Sequence[Outcome | TaskStoreError]") -> None:
        """Answer."""
        self._tell(b"".join(self._answerer.answers(self._works, self._made, outcomes, self.began)))


def _reading(work: Work, parameters: "dict[str, object] | None" = None) -> Callable[..., Any]:
    function = work.method.function
    assert function is not None  # noqa: S101 - it does not write
    return lambda store: function(store, **(parameters or work.parameters))


def _request(work: Work) -> Request | TaskStoreError:
    assert work.method.request is not None  # noqa: S101 - it writes
    try:
        return work.method.request(**work.parameters)
    except TaskStoreError as error:
        return error
