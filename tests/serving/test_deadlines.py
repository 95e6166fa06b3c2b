"""One deadline for all that a request does: seen by its tasks, threads, streams and outgoing gRPC calls."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.grpc.client_peers import grpcio_stubs
from tests.grpc.test_client_calls import hello, served
from tests.serving.test_handle import serving
from trio_serve.actors import DeadlinePassed
from trio_serve.serving.deployment import deployment
from trio_serve.serving.request_context import current_request


@deployment
class Inner:
    async def task(self) -> float:
        return trio.current_effective_deadline()

    def thread(self) -> float:
        request = current_request()
        assert request is not None
        return request.deadline

    async def stream(self) -> AsyncIterator[float]:
        yield trio.current_effective_deadline()
        await trio.sleep_forever()


@deployment
class Outer:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def ask(self, method: str, timeout_s: float | None = None) -> float:
        inner = self.inner.options(method_name=method, timeout_s=timeout_s)
        if method == "stream":
            return float(await anext(inner.options(stream=True).remote()))
        return float(await inner.remote())

    def ask_from_thread(self) -> float:
        return float(self.inner.task.remote().result())


@pytest.mark.parametrize("method", ["task", "thread", "stream"])
async def test_what_is_called_sees_the_deadline_of_the_request(method: str) -> None:
    async with serving(Outer.bind(Inner.bind())) as (_, handle):
        now = trio.current_time()
        bounded = handle.options(timeout_s=3)
        assert await bounded.ask.remote(method) == now + 3
        assert await bounded.ask.remote(method, timeout_s=100) == now + 3
        assert await bounded.ask.remote(method, timeout_s=1) == now + 1


async def test_a_call_made_in_a_thread_sees_it_too() -> None:
    async with serving(Outer.bind(Inner.bind())) as (_, handle):
        deadline = trio.current_time() + 3
        assert await handle.options(timeout_s=3).ask_from_thread.remote() == deadline


async def test_an_outgoing_grpc_call_has_it_and_is_cancelled_with_its_request() -> None:
    async with served() as (service, channel):
        stub = grpcio_stubs().GreeterStub(channel)

        @deployment
        class Client:
            async def __call__(self) -> None:
                await stub.SayHello(hello("slow"))

        async with serving(Client.bind()) as (_, handle):
            begun = trio.current_time()
            response = handle.options(timeout_s=3).remote()
            await wait_all_tasks_blocked()
            assert service.deadline == pytest.approx(begun + 3, abs=0.001)
            with pytest.raises(DeadlinePassed):
                await response
            assert trio.current_time() == begun + 3
            await trio.sleep(0.1)
            assert service.cancelled == 1

            response = handle.remote()
            await trio.sleep(1)
            response.cancel()
            await trio.sleep(0.1)
            assert service.cancelled == 2


async def test_in_virtual_time_an_answer_leaves_in_the_moment_of_its_deadline() -> None:
    ended: list[float] = []

    @deployment(max_ongoing_requests=1000)
    class Slow:
        async def __call__(self) -> None:
            await trio.sleep_forever()

    async def call(handle: Any, timeout_s: float) -> None:
        begun = trio.current_time()
        with pytest.raises(DeadlinePassed):
            await handle.options(timeout_s=timeout_s).remote()
        ended.append(trio.current_time() - begun - timeout_s)

    async with serving(Slow.bind()) as (_, handle), trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(call, handle, 0.001 + number * 0.0137)
    assert len(ended) == 1000
    assert max(map(abs, ended)) < 1e-6


@pytest.mark.real_clock
async def test_on_a_real_clock_no_answer_leaves_before_its_deadline() -> None:
    early: list[float] = []

    @deployment(max_ongoing_requests=1000)
    class Slow:
        async def __call__(self) -> None:
            await trio.sleep_forever()

    async def call(handle: Any, timeout_s: float) -> None:
        begun = trio.current_time()
        with pytest.raises(DeadlinePassed):
            await handle.options(timeout_s=timeout_s).remote()
        if trio.current_time() < begun + timeout_s:
            early.append(timeout_s)

    async with serving(Slow.bind()) as (_, handle), trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(call, handle, 0.001 + number * 0.001)
    assert early == []
