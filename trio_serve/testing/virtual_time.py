"""A test in virtual time, with no plugin: sleeping costs nothing, and a deadlock is a failure at once.

    run_in_virtual_time(test)   -->   trio.run(test, clock=MockClock(autojump_threshold=0)), bounded

The clock jumps to the next deadline as soon as every task is blocked.  A test that waits for what never comes
therefore gets to the end of its time in no time.

Knows nothing of what is tested.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
from trio.testing import MockClock

from trio_serve.testing.scheduling import seeded_scheduling

T = TypeVar("T")


def run_in_virtual_time(
    async_fn: Callable[..., Awaitable[T]], *args: Any, timeout_s: float = 3600.0, seed: int | None = None
) -> T:
    """Run ``async_fn(*args)`` and return what it returns.

    It gets ``timeout_s`` virtual seconds.  With ``seed``, tasks that are ready at the same time run in the
    order that the seed draws, the same one each time (see `scheduling.seeded_scheduling`).

    Raises:
        trio.TooSlowError: it waited longer than ``timeout_s``; mostly that is a deadlock.
        Exception: what ``async_fn`` raised, as it was.
    """

    async def within_its_time() -> T:
        with trio.fail_after(timeout_s):
            return await async_fn(*args)

    clock = MockClock(autojump_threshold=0)
    if seed is None:
        return trio.run(within_its_time, clock=clock)
    with seeded_scheduling(seed):
        return trio.run(within_its_time, clock=clock)
