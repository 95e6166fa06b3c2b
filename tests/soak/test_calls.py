"""Calls from handle to handle, and streams that are cancelled: no task, timer, thread or envelope is left.

In full: 1,000,000 calls and 100,000 streams.  Memory is looked at after a warm-up, at one and the same state.
"""

import gc
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_serve.actors import Envelope
from trio_serve.serving.controller import open_controller
from trio_serve.serving.deployment import deployment

SOAK = bool(os.environ.get("TRIO_SERVE_SOAK"))
CALLS = 1_000_000 if SOAK else 10_000
STREAMS = 100_000 if SOAK else 1_000
IN_FLIGHT = 50
MIB = 1024 * 1024
MEMORY_MAX = (1 if SOAK else 4) * MIB  # a short run is mostly the allocator's noise
MEMORY_AFTER_CANCELS_MAX = 4 * MIB

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc"
)


class Inner:
    async def __call__(self, number: int) -> int:
        await trio.lowlevel.checkpoint()
        return number + 1

    async def count(self) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1


class Outer:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, number: int) -> int:
        answer: int = await self.inner.remote(number)
        return answer

    async def count(self) -> AsyncIterator[int]:
        async for number in self.inner.options(stream=True).count.remote():
            yield number


class State:
    """What there is at a moment at which nothing is under way."""

    def __init__(self) -> None:
        gc.collect()
        statistics = trio.lowlevel.current_statistics()
        self.tasks = statistics.tasks_living
        self.threads = threading.active_count()
        self.envelopes = sum(type(each) is Envelope for each in gc.get_objects())
        self.resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def many(times: int, once: Callable[[Any, int], Awaitable[None]], handle: Any) -> None:
    numbers = iter(range(times))

    async def caller() -> None:
        for number in numbers:
            await once(handle, number)

    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(caller)
    await wait_all_tasks_blocked()


async def call(handle: Any, number: int) -> None:
    assert await handle.remote(number) == number + 1


async def call_with_a_deadline(handle: Any, number: int) -> None:
    """A timer for each, in the queue's heap or in a scope."""
    assert await handle.options(timeout_s=3000).remote(number) == number + 1


async def cancelled_stream(handle: Any, number: int) -> None:
    """Read a few items; then leave in one of three ways."""
    with trio.CancelScope() as scope:
        stream = handle.options(stream=True).count.remote()
        for _ in range(number % 4):
            await stream.__anext__()
        if number % 3 == 0:
            stream.cancel()
        elif number % 3 == 1:
            scope.cancel()
            await stream.__anext__()


@pytest.mark.parametrize(
    ("once", "times", "memory_max"),
    [
        (call, CALLS, MEMORY_MAX),
        (call_with_a_deadline, CALLS // 10, MEMORY_MAX),
        (cancelled_stream, STREAMS, MEMORY_AFTER_CANCELS_MAX),
    ],
    ids=["calls", "calls with a deadline", "cancelled streams"],
)
async def test_nothing_is_left(
    once: Callable[[Any, int], Awaitable[None]], times: int, memory_max: int
) -> None:
    async with open_controller() as controller:
        outer, inner = (
            deployment(max_ongoing_requests=IN_FLIGHT)(Outer),
            deployment(max_ongoing_requests=IN_FLIGHT)(Inner),
        )
        handle = await controller.deploy(outer.bind(inner.bind()))
        await many(times // 5, once, handle)
        before = State()
        await many(times, once, handle)
        after = State()

        grown = (after.resident - before.resident) / MIB
        print(f"\n{once.__name__}, {times}: {grown:+.2f} MiB")
        fleets = list(controller.applications["default"].fleets.values())
        assert [fleet.load() for fleet in fleets] == [0, 0]
        assert all(len(fleet.state.mailbox._deadlines) <= 128 for fleet in fleets)
        assert after.tasks == before.tasks
        assert after.threads <= before.threads  # Trio lets an idle one go after a while
        assert after.envelopes <= before.envelopes
        assert after.resident - before.resident <= memory_max
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 1000  # the test's own
