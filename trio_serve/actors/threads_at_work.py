"""Virtual time waits for threads.

A virtual clock (``trio.testing.MockClock`` with autojump) jumps to the next deadline when every task is
blocked.  It cannot see a thread that is computing the very answer that a task waits for, and so would let
all timeouts pass in no time.  While a thread is at work, a task that is always about to wake keeps such a
clock where it is.  On a real clock nothing happens at all.

Source: the documentation of MockClock, which leaves the clock alone while a task is in
``wait_all_tasks_blocked``.
"""

import threading

import trio
from trio.lowlevel import RunVar

_POLL_S = 0.0002  # real seconds between two looks at whether the thread is done


class ThreadsAtWork:
    """How many threads compute on behalf of this Trio run."""

    def __init__(self) -> None:
        self._count = 0
        clock = trio.lowlevel.current_clock()
        # By feature, because importing trio.testing costs every start-up something, for tests only.
        self._virtual = hasattr(clock, "autojump_threshold")
        self._held = False

    def begin(self) -> None:
        """One more thread has something to compute; from the Trio thread only."""
        self._count += 1
        if self._virtual and not self._held:
            self._held = True
            trio.lowlevel.spawn_system_task(self._hold_the_clock)

    def end(self) -> None:
        """One fewer; it is idle, or waits for this Trio run itself."""
        self._count -= 1

    async def _hold_the_clock(self) -> None:
        from trio.testing import wait_all_tasks_blocked

        while self._count:
            await wait_all_tasks_blocked(_POLL_S)
        self._held = False


_of_this_run: RunVar[ThreadsAtWork] = RunVar("threads_at_work")


def threads_at_work() -> ThreadsAtWork:
    """The one count of the current Trio run."""
    try:
        return _of_this_run.get()
    except LookupError:
        count = ThreadsAtWork()
        _of_this_run.set(count)
        return count


_this_thread = threading.local()


def enter_counted_thread() -> None:
    """The calling thread does jobs that are counted here, from now to its end."""
    _this_thread.counted = True


def counts_as_work() -> bool:
    """Whether what the calling thread does is counted."""
    return getattr(_this_thread, "counted", False)
