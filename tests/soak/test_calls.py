"""Calls from handle to handle, and streams that are cancelled: no task, timer, thread or envelope is left.

In full: 1,000,000 calls and 100,000 streams.  Memory is looked at after a warm-up, at one and the same state.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.soak.state import IN_FLIGHT, MEMORY_AFTER_CANCELS_MAX, MEMORY_MAX, State, many, needs_proc, times
from trio_serve.actors import Envelope
from trio_serve.serving.controller import open_controller
from trio_serve.serving.deployment import deployment

CALLS = times(10_000, 1_000_000)
STREAMS = times(1_000, 100_000)

pytestmark = needs_proc


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
    ("once", "count", "memory_max"),
    [
        (call, CALLS, MEMORY_MAX),
        (call_with_a_deadline, CALLS // 10, MEMORY_MAX),
        (cancelled_stream, STREAMS, MEMORY_AFTER_CANCELS_MAX),
    ],
    ids=["calls", "calls with a deadline", "cancelled streams"],
)
async def test_nothing_is_left(
    once: Callable[[Any, int], Awaitable[None]], count: int, memory_max: int
) -> None:
    async with open_controller() as controller:
        outer, inner = (
            deployment(max_ongoing_requests=IN_FLIGHT)(Outer),
            deployment(max_ongoing_requests=IN_FLIGHT)(Inner),
        )
        handle = await controller.deploy(outer.bind(inner.bind()))
        await many(count // 5, lambda number: once(handle, number))
        before = State(Envelope)
        await many(count, lambda number: once(handle, number))
        after = State(Envelope)

        print(f"\n{once.__name__}, {count}: {after.grown(before)}")
        fleets = list(controller.applications["default"].fleets.values())
        assert [fleet.load() for fleet in fleets] == [0, 0]
        assert all(len(fleet.state.mailbox._deadlines) <= 128 for fleet in fleets)
        after.assert_nothing_left(before, memory_max)
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 1000  # the test's own
