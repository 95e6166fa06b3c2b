"""Work that several callers wait for: it runs once, and ends early only when all of them have left.

    caller A ─ Waiter ─┐
    caller B ─ Waiter ─┼─ SharedWork ─ one task, one cancel scope, owned by the replica
    caller C ─ Waiter ─┘

A caller that is cancelled leaves at once, and the others notice nothing.  The last one to leave cancels the
work, and stays until the work has really ended: so whatever is counted for that caller counts until
nothing runs on its behalf any more.

Knows Trio only.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import outcome
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled


class SharedWork:
    """One piece of work and the number of those who want its result."""

    __slots__ = ("_ended", "_lingering", "cancel_scope", "ended", "wanted_by")

    def __init__(self) -> None:
        self.cancel_scope = trio.CancelScope()
        self.wanted_by = 0
        self.ended = False
        self._lingering: list[Waiter] = []
        self._ended = trio.Event()

    def unwanted(self) -> bool:
        """One caller fewer; True when it was the last, and the work is now being cancelled."""
        self.wanted_by -= 1
        if self.wanted_by or self.ended:
            return False
        self.cancel_scope.cancel()
        return True

    def finish(self) -> None:
        """Nothing of the work runs any more; to be called exactly once, last."""
        self.ended = True
        self._ended.set()
        for waiter in self._lingering:
            waiter.depart()

    async def wait_ended(self) -> None:
        """Wait until nothing of the work runs any more."""
        await self._ended.wait()


class Waiter:
    """One caller's place: waits for its own answer, given by whoever runs the work."""

    __slots__ = ("_raise_cancel", "_task", "work")

    def __init__(self, work: SharedWork | None = None) -> None:
        self.work = work
        self._task: Task | None = None
        self._raise_cancel: RaiseCancelT | None = None

    @property
    def waiting(self) -> bool:
        """Whether a task waits here for an answer."""
        return self._task is not None and self._raise_cancel is None

    async def wait(self) -> Any:
        """Wait for the answer; when cancelled, leave by :meth:`leave`."""
        self._task = current_task()
        answer = await wait_task_rescheduled(self._abort)
        if isinstance(answer, Failure):
            try:
                raise answer.error.with_traceback(answer.traceback)
            finally:
                del answer  # the traceback holds this frame: a cycle, and all that the callers' frames hold
        return answer

    def answer(self, value: Any) -> None:
        """Let the caller go on with ``value``, or have it raise a :class:`Failure`."""
        if self.waiting:
            assert self._task is not None
            task, self._task = self._task, None
            reschedule(task, outcome.Value(value))

    def leave(self) -> bool:
        """The caller wants no answer; True when it was the work's last, and must see it end."""
        return self.work is not None and self.work.unwanted()

    def _abort(self, raise_cancel: RaiseCancelT) -> Abort:
        if not self.leave():
            self._task = None
            return Abort.SUCCEEDED
        assert self.work is not None
        self._raise_cancel = raise_cancel
        self.work._lingering.append(self)
        return Abort.FAILED

    def depart(self) -> None:
        """The work that this caller was the last to leave has ended."""
        assert self._task is not None
        assert self._raise_cancel is not None
        task, self._task = self._task, None
        reschedule(task, outcome.capture(self._raise_cancel))


class Failure:
    """An error that several callers will raise, each with the traceback up to where it was caught."""

    __slots__ = ("error", "traceback")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        # Each raise adds its frames to the one traceback of the error; without going back to the
        # first, the hundredth caller would show the frames of the ninety-nine before it.
        self.traceback: TracebackType | None = error.__traceback__


def part_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Take an error apart: what is Trio's cancellation and must go on, and what is there for the callers."""
    if isinstance(error, trio.Cancelled):
        return error, None
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    return None, error
