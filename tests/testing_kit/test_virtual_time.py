"""Virtual time over all of it: what takes minutes and hours in production takes none here, and is exact."""

import time

import pytest
import trio

import trio_serve as serve
from trio_serve.grpc import RpcError, Status
from trio_serve.testing import run_in_virtual_time, serving
from trio_serve.transport.keepalive import KeepaliveOptions

from .greeting import PROTO, Greeter, GreeterStub, hello


def since(begun):
    return trio.current_time() - begun


def receiving(service, deployment="Greeter"):
    return len(service.instance.controller.find("default", deployment).receiving)


async def test_a_scale_down_of_thirty_minutes_is_exact_and_takes_none() -> None:
    app = Greeter.options(
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 4,
            "target_ongoing_requests": 1,
            "upscale_delay_s": 30,
            "downscale_delay_s": 1800,
        },
        max_ongoing_requests=10,
    ).bind()
    begun_for_real = time.perf_counter()
    async with serving(app, services=[PROTO]) as service:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(hello, service, "300")
            await trio.sleep(299)
            assert receiving(service) == 4
        idle_since = trio.current_time()
        await trio.sleep(1700)
        assert receiving(service) == 4
        while receiving(service) > 1:  # noqa: ASYNC110 - the moment is what is asked for
            await trio.sleep(1)

    assert 1799 <= trio.current_time() - idle_since <= 1900
    assert time.perf_counter() - begun_for_real < 30  # not a timing: half an hour would be 1800


async def test_a_deadline_reaches_the_deepest_call_and_is_exact() -> None:
    at = {}

    @serve.deployment
    class Deep:
        async def rank(self):
            try:
                await trio.sleep(100)
            finally:
                at["deep"] = trio.current_time()

    @serve.deployment
    class Outer:
        def __init__(self, deep):
            self._deep = deep

        async def SayHello(self, request):
            await self._deep.rank.remote()

    async with serving(Outer.bind(Deep.bind()), services=[PROTO]) as service:
        begun = trio.current_time()
        with pytest.raises(RpcError) as info:
            await hello(service, timeout=30)
        await trio.testing.wait_all_tasks_blocked()

    assert info.value.status is Status.DEADLINE_EXCEEDED
    assert at["deep"] - begun == pytest.approx(30, abs=0.01)


async def test_a_batching_window_is_exact() -> None:
    sizes = []

    @serve.deployment(max_ongoing_requests=10)
    class Batched:
        @serve.batch(max_batch_size=4, batch_wait_timeout_s=5)
        async def SayHello(self, requests):
            sizes.append(len(requests))
            return [PROTO.HelloReply(message=request.name) for request in requests]

    async with serving(Batched.bind(), services=[PROTO]) as service:
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(hello, service)
        assert since(begun) == pytest.approx(0, abs=0.01)  # a full batch leaves at once
        begun = trio.current_time()
        await hello(service)

    assert sizes == [4, 1]
    assert since(begun) == pytest.approx(5, abs=0.01)


async def test_a_failing_health_check_replaces_the_replica_after_three_periods() -> None:
    born = []

    @serve.deployment(health_check_period_s=60)
    class Sick:
        def __init__(self):
            born.append(trio.current_time())

        def check_health(self):
            if len(born) == 1 and trio.current_time() > born[0] + 1:
                raise RuntimeError("feverish")

        async def SayHello(self, request):
            return PROTO.HelloReply(message="well")

    async with serving(Sick.bind(), services=[PROTO]) as service:
        await trio.sleep(179)
        assert len(born) == 1
        await trio.sleep(10)
        assert await hello(service) == "well"

    assert len(born) == 2
    assert 180 <= born[1] - born[0] <= 185


async def test_keepalive_finds_a_dead_server() -> None:
    """The server's end is there and silent: PING after 60 s, and 20 s later the connection is over."""
    from trio_serve.grpc import open_channel
    from trio_serve.transport.memory import memory_pair

    class Silent:
        async def serve_listeners(self):
            await trio.sleep_forever()

        def connect(self):
            ours, theirs = memory_pair()
            for flags in (b"\0", b"\1"):  # SETTINGS and the ACK of theirs, and never a word again
                ours.send_nowait(b"\0\0\0\4" + flags + b"\0\0\0\0")
            self.kept = ours
            return theirs

    options = KeepaliveOptions(time_s=60, timeout_s=20)
    async with open_channel(Silent(), keepalive=options) as channel:
        begun = trio.current_time()
        with pytest.raises(RpcError) as info:
            await GreeterStub(channel).SayHello(PROTO.HelloRequest(name="you"))

    assert info.value.status is Status.UNAVAILABLE
    assert since(begun) == pytest.approx(80, abs=1.1)


async def test_drain_waits_for_the_call_in_flight_and_no_longer() -> None:
    async with serving(Greeter.bind(), services=[PROTO]) as service:
        await hello(service)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hello, service, "600")
            await trio.sleep(1)
            await service.drain()

    assert since(begun) == pytest.approx(600, abs=1)


def test_a_test_function_runs_in_virtual_time_without_a_plugin() -> None:
    async def sleeper(answer):
        await trio.sleep(3000)
        return answer

    assert run_in_virtual_time(sleeper, 42) == 42


def test_a_deadlock_is_a_failure_at_once() -> None:
    with pytest.raises(trio.TooSlowError):
        run_in_virtual_time(trio.sleep_forever)


def test_what_the_function_raises_comes_out_as_it_was() -> None:
    async def failing():
        raise AssertionError("mine")

    with pytest.raises(AssertionError, match=r"^mine$"):
        run_in_virtual_time(failing)
