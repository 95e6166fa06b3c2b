"""A class with batched methods, and calls made at once: what the tests of batching share."""

from collections.abc import Awaitable
from typing import Any

import trio

from trio_serve.serving.batching import batch

FOREVER = 1000


async def gather(*calls: Awaitable[Any]) -> list[Any]:
    """The results in order; an error is a result too."""
    results: list[Any] = [None] * len(calls)

    async def one(index: int, call: Awaitable[Any]) -> None:
        try:
            results[index] = await call
        except Exception as error:
            results[index] = error

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(one, index, call)
            await trio.lowlevel.checkpoint()  # so that they arrive in order
    return results


class Doubler:
    """Doubles numbers; keeps the batches it was given."""

    def __init__(self, work_s: float = 0) -> None:
        self.batches: list[list[Any]] = []
        self.work_s = work_s
        self.running = self.most_running = 0
        self.cancelled = 0

    async def _double(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await trio.sleep(self.work_s)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return [2 * item for item in items]

    @batch(max_batch_size=3, batch_wait_timeout_s=1)
    async def double(self, items: list[int]) -> list[int]:
        return await self._double(items)

    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def pair(self, items: list[int]) -> list[int]:
        return await self._double(items)

    @batch(max_batch_size=1, batch_wait_timeout_s=FOREVER)
    async def single(self, items: list[int]) -> list[int]:
        return await self._double(items)

    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def at_once(self, items: list[int]) -> list[int]:
        return await self._double(items)

    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER, max_concurrent_batches=2)
    async def two_at_a_time(self, items: list[int]) -> list[int]:
        return await self._double(items)

    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def fail(self, items: list[int]) -> list[int]:
        raise ZeroDivisionError(f"with {items}")
