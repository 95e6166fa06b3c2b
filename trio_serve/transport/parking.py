"""One place where one task waits until somebody wakes it.

    waiting task:  await place.park()   ....................  goes on
    anybody else:                            place.wake()

A Trio Event can be waited on once and costs an object each time; the writer of a connection and the two
ends of a stream park thousands of times a second.  A wake with nobody parked is forgotten, so whoever
parks looks at its condition first, in the same scheduler turn.

Knows nothing of what is being waited for.
"""

from collections.abc import Coroutine
from typing import Any

import trio


class ParkingPlace:
    """Room for one parked task."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    @property
    def taken(self) -> bool:
        return self._task is not None

    # No coroutine of its own, and the place itself is what a cancel calls: thousands may be parked, and a
    # coroutine would be 200 bytes for each, a bound method 64.
    def park(self) -> Coroutine[Any, Any, None]:
        """Await what this returns, at once, to wait for `wake`.  Cancelling leaves the place free.

        Raises:
            trio.BusyResourceError: another task is parked here.
        """
        if self._task is not None:
            raise trio.BusyResourceError("another task already waits here")
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self)  # noqa: ASYNC105 (whoever parks awaits it)

    def wake(self) -> bool:
        """Let the parked task go on in the next scheduler turn; whether there is one."""
        task = self._task
        if task is None:
            return False
        self._task = None
        trio.lowlevel.reschedule(task)
        return True

    def __call__(self, raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        """The parked task is cancelled; for Trio."""
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
