"""What must happen at a certain time: one heap and one task for all of a server's deadlines.

    at(12.5, ring) -------------------------> | 12.5 ring | 13.0 call.expire | 31.0 send a ping | ...
                                                 ^ the one task sleeps until here
    deadlines.watch(call) --> | call | call | -- a second before its deadline --^

A cancel scope of its own for each call would cost more than the call's frames.  An alarm rings never early,
and in time order.  A cancelled alarm stays in the heap as an empty shell; when shells are the greater part,
the heap is built anew, so its size stays within twice what is armed.

Nearly every call ends long before its deadline.  So calls whose deadline is far are only kept in a table,
which is looked through at most once in `NEAR_S`.

Knows nothing of calls and connections.
"""

import heapq
import logging
import math
from collections.abc import Callable
from typing import Protocol

import trio

logger = logging.getLogger("trio_serve.transport")

SHELLS_KEPT = 64
NEAR_S = 1.0


class Alarm:
    """One action at one time; `Alarms.at` makes it."""

    __slots__ = ("_alarms", "action")

    def __init__(self, action: Callable[[], None], alarms: "Alarms") -> None:
        self.action: Callable[[], None] | None = action
        self._alarms = alarms

    def cancel(self) -> None:
        """Never ring; a second time, or after it rang, does nothing."""
        if self.action is not None:
            # The action is let go here and not when the shell leaves the heap: it is what keeps a
            # finished call, and its messages, alive.
            self.action = None
            self._alarms.count_shell()


class Alarms:
    """Rings alarms from one task, `run`."""

    __slots__ = ("_count", "_heap", "_scope", "_shells", "deadlines")

    def __init__(self) -> None:
        # Time, number, alarm: tuples, which the heap compares without a step of Python's.
        self._heap: list[tuple[float, int, Alarm]] = []
        self._count = 0
        self._shells = 0
        self._scope: trio.CancelScope | None = None
        self.deadlines = Deadlines(self)

    def __len__(self) -> int:
        return len(self._heap) - self._shells

    def at(self, time: float, action: Callable[[], None]) -> Alarm:
        """Call ``action`` once `trio.current_time` has reached ``time`` (never for infinity)."""
        alarm = Alarm(action, self)
        if time == math.inf:
            alarm.action = None  # there is nothing to cancel
        else:
            self._count += 1
            heapq.heappush(self._heap, (time, self._count, alarm))
            scope = self._scope
            if scope is not None and time < scope.deadline:
                scope.deadline = time
        return alarm

    async def run(self) -> None:
        """Ring until cancelled.  What an action raises is logged: one bad action stops no other."""
        while True:
            self._ring_due(trio.current_time())
            with trio.CancelScope(deadline=self._next_time()) as self._scope:
                await trio.sleep_forever()
            self._scope = None

    def count_shell(self) -> None:
        self._shells += 1
        if self._shells > SHELLS_KEPT and self._shells * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._shells = 0

    def _next_time(self) -> float:
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
            self._shells -= 1
        return heap[0][0] if heap else math.inf

    def _ring_due(self, now: float) -> None:
        while self._next_time() <= now:
            alarm = heapq.heappop(self._heap)[2]
            action, alarm.action = alarm.action, None  # it has rung: cancelling it would leave no shell
            if action is None:
                continue
            try:
                action()
            except Exception:
                logger.exception("an alarm's action failed")


class Timed(Protocol):
    """What has a deadline, in Trio time, and is told when it passes."""

    @property
    def deadline(self) -> float: ...

    def expire(self) -> None: ...


class Deadlines:
    """Deadlines that mostly do not come to pass."""

    __slots__ = ("_alarms", "_far", "_look", "_look_at", "_near")

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._far: dict[Timed, None] = {}  # in order, so that equal deadlines expire as they came
        self._near: dict[Timed, Alarm] = {}
        self._look: Alarm | None = None
        self._look_at = math.inf  # no far deadline is earlier

    def watch(self, timed: Timed, seconds: float) -> None:
        """Let ``timed.expire()`` be called at its deadline, which is ``seconds`` away."""
        if seconds < NEAR_S:
            self._near[timed] = self._alarms.at(timed.deadline, timed.expire)
            return
        self._far[timed] = None
        if timed.deadline < self._look_at:
            self._look_by(timed.deadline)

    def forget(self, timed: Timed) -> None:
        """``timed`` is over, or has expired; a second time does nothing."""
        if timed in self._far:
            del self._far[timed]
            return
        alarm = self._near.pop(timed, None)
        if alarm is not None:
            alarm.cancel()

    def _look_by(self, time: float) -> None:
        if self._look is not None:
            self._look.cancel()
        self._look_at = time
        self._look = self._alarms.at(time, self._look_through)

    def _look_through(self) -> None:
        near_until = trio.current_time() + NEAR_S
        for timed in [timed for timed in self._far if timed.deadline <= near_until]:
            del self._far[timed]
            self._near[timed] = self._alarms.at(timed.deadline, timed.expire)
        self._look_by(min((timed.deadline for timed in self._far), default=math.inf))
