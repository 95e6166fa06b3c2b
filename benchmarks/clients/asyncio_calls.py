"""Calls in flight on asyncio, for the clients that live there."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.clients.timing import Timing


async def call_until_time_is_over(timing: Timing, call: Callable[[], Awaitable[object]]) -> None:
    async def caller() -> None:
        while (now := time.perf_counter()) < timing.until:
            await call()
            timing.latencies.append(time.perf_counter() - now)

    for _ in range(100):
        await call()
    timing.start()
    await asyncio.gather(*(caller() for _ in range(timing.arguments.in_flight)))
    timing.report()
