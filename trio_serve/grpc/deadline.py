"""Deadlines: when a call must be over, and the one clock that rings for all of them.

    handler of a served call            outgoing call
    current_deadline = 12.5  ─────────> min(its own timeout, 12.5, the surrounding cancel scope)

    Alarms.set(12.5, call)  ── heap ──> one task sleeps until the earliest, then rings it

A scope for each call would be exact as well, but costs some 3 µs to enter and leave; a place in the heap
costs a tenth of that.  All times are ``trio.current_time()``, so a virtual clock governs them.
Knows nothing of streams, metadata or retries.
"""

from __future__ import annotations

import contextvars
import heapq
import itertools
import math
from typing import Protocol

import trio

__all__ = ["Alarm", "Alarms", "current_deadline", "inherited_deadline"]

current_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("current_deadline", default=math.inf)
"""When the served call around this code must be over (``trio.current_time()``; ``inf`` for no limit).

Whoever starts a handler sets it in the handler's context; outgoing calls inherit it.
"""

STALE_ALARMS_MIN = 64
"""So many alarms may lie unneeded in the heap before sweeping is worth a thought."""


def inherited_deadline() -> float:
    """The earlier of the served call's deadline and the surrounding cancel scopes' (``inf`` for none)."""
    return min(current_deadline.get(), trio.current_effective_deadline())


class Alarm(Protocol):
    """What can be rung.  ``over`` turns true when the ring is no longer wanted."""

    over: bool

    def ring(self) -> None:
        """The time has come.  Called synchronously; must neither raise nor block."""


class Alarms:
    """A heap of moments, and the task that waits for the earliest one.

    An alarm that is no longer wanted stays in the heap until its time or until half of the heap is
    such, so that unsetting costs a count; memory stays within twice the living alarms and 64.
    """

    __slots__ = ("_heap", "_order", "_scope", "_stale")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._stale = 0
        self._scope: trio.CancelScope | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, when: float, alarm: Alarm) -> None:
        """Ring ``alarm`` at ``when``, unless it is over by then."""
        heapq.heappush(self._heap, (when, next(self._order), alarm))
        scope = self._scope
        if scope is not None and when < scope.deadline:
            scope.deadline = when

    def unset(self) -> None:
        """One alarm that had been set turned ``over`` before its time."""
        self._stale += 1
        if self._stale > STALE_ALARMS_MIN and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)
            self._stale = 0

    async def run(self) -> None:
        """Ring each alarm at its time, until cancelled."""
        while True:
            with trio.CancelScope() as scope:
                scope.deadline = self._heap[0][0] if self._heap else math.inf
                self._scope = scope
                await trio.sleep_forever()
            self._ring_those_due()

    def _ring_those_due(self) -> None:
        now = trio.current_time()
        while self._heap and self._heap[0][0] <= now:
            alarm = heapq.heappop(self._heap)[2]
            if alarm.over:
                self._stale = max(0, self._stale - 1)
            else:
                alarm.ring()
