"""Threads in a simulation: real ones, but only one of them and Trio runs at a time, and time is virtual.

    Trio      ── put(job) ──> driver ─┐ gives the turn,             ┌─> sleeps as long as the thread spends
    thread                            └─> ... job ... ── pause ─────┘   waits as long as the thread waits

A thread has its turn until it pauses: because it has no job, because its job ``spend``s time, or because it
waits for an answer of the loop.  Trio stands still meanwhile, so the order of everything is decided by the
simulation alone, and the same seed runs the same way again.

All that ``SerialThread`` does is its own code; only its queue, and the event that ``ask`` waits for, are from
here.
"""

import threading
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_serve.actors import SerialThread, asking, threads_at_work
from trio_serve.serving import replica

_here = threading.local()

Until = Callable[[], Awaitable[object]]


class Turns:
    """The queue of one thread's jobs, which gives the thread its turns."""

    def __init__(self, thread: "TurnTakingThread") -> None:
        self._thread = thread
        self._jobs: deque[Any] = deque()
        self._for_thread = threading.Semaphore(0)
        self._for_trio = threading.Semaphore(0)
        self._put = trio.Event()
        self._until: Until | None = self._has_job

    # -- in Trio ---------------------------------------------------------------------------------------

    def put(self, job: Any) -> None:
        if not hasattr(self, "_driver"):
            self._driver = trio.lowlevel.spawn_system_task(self._drive)
        self._jobs.append(job)
        self._put.set()

    def qsize(self) -> int:
        return len(self._jobs)

    async def _drive(self) -> None:
        while self._until is not None:
            await self._until()
            self._for_thread.release()
            self._for_trio.acquire()
        assert self._thread._thread is not None
        self._thread._thread.join()

    async def _has_job(self) -> None:
        while not self._jobs:
            self._put = trio.Event()
            await self._put.wait()

    # -- in the thread ---------------------------------------------------------------------------------

    def get(self) -> Any:
        if not hasattr(_here, "turns"):
            _here.turns = self
            self._for_thread.acquire()  # the first turn
        else:
            self.pause(self._has_job)
        job = self._jobs.popleft()
        if job is None:
            self._until = None
            self._for_trio.release()  # who gave this turn now waits for the thread's end
        return job

    def pause(self, until: Until) -> None:
        """End this turn; the next one comes when ``until`` returns in Trio."""
        self._until = until
        self._for_trio.release()
        self._for_thread.acquire()


class TurnTakingThread(SerialThread):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._jobs: Any = Turns(self)


class TurnTakingEvent:
    """What ``ask`` needs of ``threading.Event``."""

    def __init__(self) -> None:
        self._set = trio.Event()

    def set(self) -> None:
        self._set.set()

    def wait(self, timeout_s: float | None) -> bool:
        assert timeout_s is None
        _here.turns.pause(self._set.wait)
        return True


def spend(seconds: float, clock: MockClock) -> bool:
    """Let a plain function take so long; True when it runs on the loop, which stands still for that time."""
    if hasattr(_here, "turns"):
        _here.turns.pause(partial(trio.sleep, seconds))
        return False
    clock.jump(seconds)
    return True


def take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, replicas have such threads."""
    monkeypatch.setattr(replica, "SerialThread", TurnTakingThread)

    class Threading:
        Event = TurnTakingEvent

    monkeypatch.setattr(asking, "threading", Threading)
    # No thread ever computes while the loop runs, so nobody need hold the clock for one.
    threads_at_work()._virtual = False
