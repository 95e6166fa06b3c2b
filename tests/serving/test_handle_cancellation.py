"""Taking calls back: while they wait for a replica, while they are at work, and what they had called."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.serving.test_handle import serving
from trio_serve.actors import CallCancelled
from trio_serve.serving.deployment import deployment


class Gate:
    """Lets calls through when it is opened; tells how many came, and how many were cancelled."""

    def __init__(self) -> None:
        self.came = 0
        self.cancelled = 0
        self.open = trio.Event()

    async def wait(self) -> int:
        self.came += 1
        number = self.came
        try:
            await self.open.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return number


def gated(gate: Gate, **options: Any) -> Any:
    @deployment(name="Gated", **options)
    class Gated:
        async def __call__(self, argument: Any = None) -> int:
            return await gate.wait()

        async def items(self) -> AsyncIterator[int]:
            yield 1
            await gate.wait()
            yield 2

    return Gated


async def test_a_call_cancelled_in_the_queue_never_reaches_a_replica() -> None:
    gate = Gate()
    async with serving(gated(gate, max_ongoing_requests=1).bind()) as (_, handle):
        first, second = handle.remote(), handle.remote()
        await wait_all_tasks_blocked()
        second.cancel()
        with pytest.raises(CallCancelled, match="it was cancelled by its caller"):
            await second
        gate.open.set()
        assert await first == 1
        assert [await handle.remote() for _ in range(3)] == [2, 3, 4]


async def test_only_the_call_that_is_cancelled_ends() -> None:
    gate = Gate()
    async with serving(gated(gate).bind()) as (_, handle):
        one, other = handle.remote(), handle.remote()
        await wait_all_tasks_blocked()
        one.cancel()
        with pytest.raises(CallCancelled):
            await one
        gate.open.set()
        assert await other in (1, 2)  # Trio shuffles who comes first
        assert gate.cancelled == 1


async def test_a_cancelled_stream_says_so_to_its_reader() -> None:
    gate = Gate()
    async with serving(gated(gate).bind()) as (_, handle):
        stream = handle.options(stream=True).items.remote()
        assert await anext(stream) == 1
        await wait_all_tasks_blocked()
        stream.cancel()
        with pytest.raises(CallCancelled):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert gate.cancelled == 1


async def test_a_reader_that_is_cancelled_ends_the_stream_though_somebody_still_holds_it() -> None:
    gate = Gate()
    async with serving(gated(gate).bind()) as (_, handle):
        stream = handle.options(stream=True).items.remote()
        await anext(stream)
        with trio.move_on_after(1):
            await anext(stream)
        await wait_all_tasks_blocked()
        assert gate.cancelled == 1
        assert stream.cancelled()


@pytest.mark.parametrize("queued", [False, True])
async def test_a_call_that_nobody_awaits_goes_with_its_request(queued: bool) -> None:
    """At work or still waiting for a replica, and its place is free at once."""
    gate = Gate()

    @deployment
    class Ingress:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self) -> None:
            self.inner.remote()
            await trio.sleep_forever()

    app = Ingress.bind(gated(gate, max_ongoing_requests=1, max_queued_requests=1).bind())
    async with serving(app) as (controller, handle):
        inner = controller.get_deployment_handle("Gated")
        before = inner.remote() if queued else None
        request = handle.remote()
        await wait_all_tasks_blocked()
        request.cancel()
        await wait_all_tasks_blocked()
        assert gate.cancelled == (0 if queued else 1)
        gate.open.set()
        if before is not None:
            assert await before == 1
        assert await inner.remote() == 2


async def test_a_call_made_in_the_constructor_belongs_to_no_request() -> None:
    gate = Gate()

    @deployment
    class Ingress:
        def __init__(self, inner: Any) -> None:
            self.inner = inner
            self.out_of_band = inner.remote()

        async def __call__(self) -> None:
            await self.inner.remote()

        async def later(self) -> Any:
            return await self.out_of_band

    async with serving(Ingress.bind(gated(gate).bind())) as (_, handle):
        request = handle.remote()
        await wait_all_tasks_blocked()
        assert gate.came == 2
        request.cancel()
        with pytest.raises(CallCancelled):
            await request
        gate.open.set()
        assert await handle.later.remote() == 1
        assert gate.cancelled == 1


async def test_a_hundred_requests_through_five_deployments_leave_no_orphan() -> None:
    """Cancelled at all stages of their way, down and back."""
    at_work = 0

    @deployment(max_ongoing_requests=20)
    class Link:
        def __init__(self, inner: Any = None) -> None:
            self.inner = inner

        async def __call__(self) -> None:
            nonlocal at_work
            at_work += 1
            try:
                await trio.sleep(0.01)
                if self.inner is not None:
                    await self.inner.remote()
                await trio.sleep(0.01)
            finally:
                at_work -= 1

    app = Link.options(name="L0").bind()
    for number in range(1, 5):
        app = Link.options(name=f"L{number}").bind(app)

    async def request(handle: Any, patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            await handle.remote()

    async with serving(app) as (controller, handle):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(request, handle, 0.0015 * number)
        await wait_all_tasks_blocked()
        assert at_work == 0
        for fleet in controller.applications["default"].fleets.values():
            assert fleet.load() == 0
