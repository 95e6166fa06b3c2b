"""Streams: a rendezvous at every hop, and an end for the producer when the consumer leaves."""

import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.serving.test_handle import serving
from trio_serve.serving.deployment import deployment


class Produced:
    """What a test may look at from outside: how far the producers came, and how they ended."""

    def __init__(self) -> None:
        self.items = 0
        self.ends: list[str] = []


def sources(produced: Produced) -> Any:
    @deployment
    class Source:
        async def count(self, n: int) -> AsyncIterator[int]:
            try:
                for number in range(n):
                    produced.items += 1
                    yield number
                produced.ends.append("done")
            except BaseException as error:
                produced.ends.append(type(error).__name__)
                raise

        def sync_count(self, n: int) -> Iterator[int]:
            try:
                for number in range(n):
                    produced.items += 1
                    yield number
                produced.ends.append("done")
            except GeneratorExit:
                produced.ends.append("closed")
                raise

        async def breaks(self, n: int) -> AsyncIterator[int]:
            for number in range(n):
                yield number
            raise ValueError("broke")

    @deployment
    class Relay:
        def __init__(self, source: Any) -> None:
            self.source = source.options(stream=True)

        async def count(self, n: int) -> AsyncIterator[int]:
            async for number in self.source.count.remote(n):
                yield number

        async def forgetful(self, n: int) -> int:
            async for number in self.source.count.remote(n):
                return number  # leaves the stream as it is
            return -1

    return Source, Relay


@pytest.mark.parametrize("method", ["count", "sync_count"])
async def test_items_come_in_order_and_the_stream_ends(method: str) -> None:
    produced = Produced()
    source, _ = sources(produced)
    async with serving(source.bind()) as (_, handle):
        stream = handle.options(stream=True, method_name=method).remote(5)
        assert [x async for x in stream] == [0, 1, 2, 3, 4]
        assert [x async for x in stream] == []
    assert produced.ends == ["done"]


@pytest.mark.parametrize("method", ["count", "sync_count"])
async def test_the_producer_is_never_more_than_one_item_ahead(method: str) -> None:
    produced = Produced()
    source, _ = sources(produced)
    async with serving(source.bind()) as (_, handle):
        stream = handle.options(stream=True, method_name=method).remote(100)
        for taken in range(1, 10):
            await anext(stream)
            await wait_all_tasks_blocked(0.01)
            assert produced.items <= taken + 1
        await stream.aclose()


async def test_the_deepest_producer_stops_when_the_last_consumer_does() -> None:
    """Through three hops, each may hold one item."""
    produced = Produced()
    source, relay = sources(produced)
    app = relay.bind(relay.options(name="B").bind(relay.options(name="A").bind(source.bind())))
    async with serving(app) as (_, handle):
        stream = handle.options(stream=True).count.remote(1000)
        for _ in range(10):
            await anext(stream)
        await trio.sleep(100)
        assert produced.items <= 10 + 4
        assert [x async for x in stream] == list(range(10, 1000))
    assert produced.ends == ["done"]


async def test_what_a_generator_raises_comes_after_its_items() -> None:
    source, _ = sources(Produced())
    async with serving(source.bind()) as (_, handle):
        seen = []
        stream = handle.options(stream=True).breaks.remote(3)
        with pytest.raises(ValueError, match="broke"):
            async for number in stream:
                seen.append(number)  # noqa: PERF401 - what came before the error counts
        assert seen == [0, 1, 2]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("method", ["count", "sync_count"])
async def test_cancelling_a_stream_ends_its_generator(method: str) -> None:
    produced = Produced()
    source, _ = sources(produced)
    async with serving(source.bind()) as (controller, handle):
        stream = handle.options(stream=True, method_name=method).remote(100)
        await anext(stream)
        await wait_all_tasks_blocked(0.01)
        stream.cancel()
        assert stream.cancelled()
        await controller.applications["default"].fleets["Source"].members[0].child.actor.wait_idle()
        assert produced.ends == [{"count": "GeneratorExit", "sync_count": "closed"}[method]]


async def test_a_plain_generator_is_closed_at_once_in_the_thread_that_stepped_it() -> None:
    """And not whenever and wherever Python collects it."""
    threads: list[int] = []
    kept: list[Any] = []

    @deployment
    class Source:
        def items(self) -> Iterator[int]:
            generator = self.counted()
            kept.append(generator)
            return generator

        def counted(self) -> Iterator[int]:
            threads.append(threading.get_ident())
            try:
                yield 1
                yield 2
            finally:
                threads.append(threading.get_ident())

    async with serving(Source.bind()) as (controller, handle):
        stream = handle.options(stream=True).items.remote()
        assert await anext(stream) == 1
        stream.cancel()
        await controller.applications["default"].fleets["Source"].members[0].child.actor.wait_idle()
        assert len(threads) == 2
        assert len(set(threads)) == 1
        assert threads[0] != threading.get_ident()


async def test_a_stream_that_is_dropped_is_cancelled() -> None:
    produced = Produced()
    source, _ = sources(produced)
    async with serving(source.bind()) as (_, handle):
        stream = handle.options(stream=True).count.remote(100)
        await anext(stream)
        del stream
        gc.collect()
        await wait_all_tasks_blocked()
        assert produced.ends == ["GeneratorExit"]


async def test_a_consumer_that_is_cancelled_cancels_through_all_hops() -> None:
    produced = Produced()
    source, relay = sources(produced)
    async with serving(relay.bind(relay.options(name="A").bind(source.bind()))) as (_, handle):

        async def consume() -> None:
            async for _ in handle.options(stream=True).count.remote(10**6):
                await trio.sleep(1)

        with trio.move_on_after(5.5):
            await consume()
        await wait_all_tasks_blocked()
        assert produced.ends == ["GeneratorExit"]
        assert produced.items <= 9


async def test_a_request_that_leaves_a_stream_open_ends_it() -> None:
    produced = Produced()
    source, relay = sources(produced)
    async with serving(relay.bind(source.bind())) as (_, handle):
        assert await handle.forgetful.remote(100) == 0
        await wait_all_tasks_blocked()
        assert produced.ends == ["GeneratorExit"]


async def test_two_readers_of_one_stream_are_told_apart() -> None:
    @deployment
    class Slow:
        async def items(self) -> AsyncIterator[int]:
            await trio.sleep(10)
            yield 1

    async with serving(Slow.bind()) as (_, handle):
        stream = handle.options(stream=True).items.remote()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, stream)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="one reader at a time"):
                await anext(stream)
