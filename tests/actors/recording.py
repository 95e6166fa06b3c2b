"""What the tests of this folder share: a reply that remembers, and an actor within a block."""

import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import outcome
import trio

from trio_serve.actors import Actor, Envelope, Mailbox
from trio_serve.actors.actor import Serve


class Recorded:
    """A reply that keeps its answer, and fails the test when it is answered twice."""

    def __init__(self) -> None:
        self.answer: outcome.Outcome[Any] | None = None
        self.at: float | None = None
        self._answered = trio.Event()

    def succeed(self, value: Any, /) -> None:
        self._take(outcome.Value(value))

    def fail(self, error: BaseException, /) -> None:
        self._take(outcome.Error(error))

    def _take(self, result: outcome.Outcome[Any]) -> None:
        assert self.answer is None, "answered twice"
        self.answer = result
        self.at = trio.current_time()
        self._answered.set()

    async def send(self, item: Any, /) -> None:
        raise NotImplementedError

    async def wait(self) -> Any:
        await self._answered.wait()
        assert self.answer is not None
        return self.answer.unwrap()

    @property
    def error(self) -> BaseException:
        assert isinstance(self.answer, outcome.Error), self.answer
        return self.answer.error


def envelope(
    message: Any = None, *, deadline: float = inf, parent: Envelope | None = None
) -> tuple[Envelope, Recorded]:
    reply = Recorded()
    return Envelope(message, reply, contextvars.copy_context(), deadline, parent), reply


@asynccontextmanager
async def running(serve: Serve, *, max_ongoing: int = 1, capacity: int | None = 10) -> AsyncIterator[Actor]:
    actor = Actor("actor", serve, max_ongoing, Mailbox(capacity))
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        nursery.start_soon(actor.mailbox.expire)
        yield actor
        await actor.stop()
        nursery.cancel_scope.cancel()
