"""From a thread into the Trio run and back: ask for something, and block until it comes.

    thread                              Trio
    ask ──run_sync_soon(request)──>     request(deliver): notes whom to tell
    blocked                             ...
    goes on   <──────────────────────   deliver(outcome)

A replica's thread that waits like this is not at work: virtual time may pass meanwhile (``threads_at_work``).
"""

import threading
from collections.abc import Callable
from typing import Any

import outcome
from trio.lowlevel import TrioToken

from trio_serve.actors.threads_at_work import counts_as_work, threads_at_work

Deliver = Callable[[outcome.Outcome[Any]], None]


class NotInTime(TimeoutError):
    """The answer did not come within the time that the thread was willing to wait."""


def ask(token: TrioToken, request: Callable[[Deliver], None], timeout_s: float | None = None) -> Any:
    """Call ``request(deliver)`` in the Trio thread, and return what is delivered, or raise it.

    Blocks the calling thread.  ``timeout_s`` is in real seconds; an answer that comes later is dropped.

    Raises:
        NotInTime: after ``timeout_s``.
        trio.RunFinishedError: the Trio run is over.
    """
    question = _Question(counts_as_work())
    token.run_sync_soon(question.put, request)
    if question.done.wait(timeout_s):
        return question.answers.pop().unwrap()  # in no variable, so that an error makes no cycle
    token.run_sync_soon(question.deliver, outcome.Value(None))
    raise NotInTime(f"no answer within {timeout_s} s")


class _Question:
    """One question under way; all but ``done`` and the answer found then belongs to the Trio thread."""

    __slots__ = ("answered", "answers", "asker_at_work", "done")

    def __init__(self, asker_at_work: bool) -> None:
        self.asker_at_work = asker_at_work
        self.answered = False
        self.answers: list[outcome.Outcome[Any]] = []
        self.done = threading.Event()

    def put(self, request: Callable[[Deliver], None]) -> None:
        if self.asker_at_work:
            threads_at_work().end()
        try:
            request(self.deliver)
        except Exception as error:  # nothing may leave a callback of the Trio run
            self.deliver(outcome.Error(error))

    def deliver(self, result: outcome.Outcome[Any]) -> None:
        if self.answered:
            return
        self.answered = True
        if self.asker_at_work:
            threads_at_work().begin()
        self.answers.append(result)
        self.done.set()
