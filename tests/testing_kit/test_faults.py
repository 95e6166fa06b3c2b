"""Faults: each does what it says, can be had again from its seed, and is off unless asked for."""

from contextlib import suppress

import pytest
import trio

import trio_serve as serve
from trio_serve.grpc import RpcError, Status, open_channel
from trio_serve.instance.settings import Mistakes
from trio_serve.testing import DeploymentFaults, Faults, InjectedFault, WireFaults, serving, with_faults

from .greeting import PROTO, Greeter, GreeterStub, hello


def serving_with(app=None, **faults):
    return serving(app or Greeter.bind(), services=[PROTO], faults=Faults(seed=7, **faults))


async def test_latency_is_exact() -> None:
    async with serving_with(wire=WireFaults(latency_s=0.25)) as service:
        await hello(service)
        begun = trio.current_time()
        await hello(service)

        assert trio.current_time() - begun == pytest.approx(0.25)


async def test_a_call_is_too_late_for_its_deadline_by_the_latency_alone() -> None:
    async with serving_with(wire=WireFaults(latency_s=5)) as service:
        with pytest.raises(RpcError) as info:
            await hello(service, timeout=4)

    assert info.value.status is Status.DEADLINE_EXCEEDED


async def test_a_connection_is_cut_within_a_message_and_the_next_call_gets_another() -> None:
    async with serving_with(wire=WireFaults(cut_after_bytes=25_000)) as service:
        received = 0
        with pytest.raises(RpcError) as info:
            async for _ in GreeterStub(service.channel()).SayHelloStreamReply(PROTO.HelloRequest(name="10")):
                received += 1

        assert info.value.status is Status.UNAVAILABLE
        assert received == 2
        assert await hello(service) == "Hello you"


async def test_a_share_of_the_calls_is_reset_and_the_seed_says_which() -> None:
    async def outcomes():
        found = []
        async with serving_with(wire=WireFaults(reset_share=0.5)) as service:
            for _ in range(20):
                try:
                    found.append(await hello(service))
                except RpcError as error:
                    found.append(error.status)
        return found

    first = await outcomes()

    assert first == await outcomes()
    assert set(first) == {"Hello you", Status.INTERNAL}


async def test_a_refused_stream_is_tried_again_by_the_client_itself() -> None:
    """RFC 9113 section 8.7: REFUSED_STREAM says that nothing was done, so gRPC clients try once more."""

    async def successes(code):
        found = 0
        async with serving_with(wire=WireFaults(reset_share=0.5, reset_code=code)) as service:
            for _ in range(40):
                with suppress(RpcError):
                    await hello(service)
                    found += 1
        return found

    assert await successes("REFUSED_STREAM") > await successes("INTERNAL_ERROR")


async def test_goaway_loses_no_call() -> None:
    async with serving_with(wire=WireFaults(goaway_after_calls=2)) as service:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(hello, service, "5")
        for _ in range(4):
            await hello(service)

        assert service.server.counters.connections_accepted >= 2


async def test_a_reader_that_stalls_is_cut_off_at_the_write_stall() -> None:
    async with serving_with(wire=WireFaults(stall_after_bytes=300)) as service:
        begun = trio.current_time()
        with pytest.raises(RpcError) as info:
            async for _ in GreeterStub(service.channel()).SayHelloStreamReply(PROTO.HelloRequest(name="100")):
                pass

        assert info.value.status is Status.UNAVAILABLE
        assert trio.current_time() - begun == pytest.approx(60, abs=2)


async def test_a_constructor_that_fails_twice_is_tried_a_third_time() -> None:
    faults = {"Greeter": DeploymentFaults(constructor_failures=2)}
    async with serving_with(deployments=faults) as service:
        assert await hello(service) == "Hello you"


async def test_a_constructor_that_fails_too_often_is_the_error_and_tells_the_seed() -> None:
    with pytest.raises(InjectedFault, match="3 of constructor_failures=3") as info:
        async with serving_with(deployments={"Greeter": DeploymentFaults(constructor_failures=3)}):
            pass

    assert any("seed=7" in note for note in info.value.__notes__)


async def test_a_replica_crashes_on_its_call_and_another_takes_its_place() -> None:
    async with serving_with(deployments={"Greeter": DeploymentFaults(crash_on_call=2)}) as service:
        assert await hello(service) == "Hello you"
        with pytest.raises(RpcError):
            await hello(service)
        await trio.sleep(5)

        assert await hello(service) == "Hello you"


async def test_a_replica_can_be_crashed_at_a_moment_of_the_tests_choice() -> None:
    async with serving(Greeter.bind(), services=[PROTO]) as service:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call_that_dies_with_it():
                with pytest.raises(RpcError):
                    await hello(service, "1000")

            await trio.sleep(10)
            service.crash("Greeter")
        await trio.sleep(5)

        assert await hello(service) == "Hello you"


async def test_a_share_of_the_calls_raises() -> None:
    async with serving_with(deployments={"Greeter": DeploymentFaults(error_share=1.0)}) as service:
        with pytest.raises(InjectedFault, match=r"Greeter\.SayHello\(\): error_share=1"):
            await service.handle.SayHello.remote(PROTO.HelloRequest(name="x"))


async def test_faults_for_nobody_are_refused() -> None:
    with pytest.raises(ValueError, match="faults are for Rankr, but the application has Greeter"):
        with_faults(Greeter.bind(), Faults(deployments={"Rankr": DeploymentFaults()}))


async def test_a_fault_leaves_the_application_as_it_was() -> None:
    app = Greeter.bind()
    with_faults(app, Faults(deployments={"Greeter": DeploymentFaults(constructor_failures=9)}))

    async with serving(app, services=[PROTO]) as service:
        assert await hello(service) == "Hello you"


@pytest.mark.real_clock
async def test_a_sync_method_in_its_thread_can_crash_its_replica() -> None:
    @serve.deployment
    class Counter:
        def __call__(self):
            return "counted"

    app = with_faults(Counter.bind(), Faults(deployments={"Counter": DeploymentFaults(crash_on_call=1)}))
    async with serve.open_instance() as instance:
        handle = await instance.run(app)
        with pytest.raises(Exception, match=r"crash|was stopped"):  # whichever comes first
            await handle.remote()
        while True:
            try:
                assert await handle.remote() == "counted"
                break
            except serve_errors():
                await trio.sleep(0.01)


def serve_errors():
    from trio_serve.actors import ActorStopped
    from trio_serve.serving.errors import ServeError

    return (ServeError, ActorStopped)


@pytest.mark.real_clock
async def test_a_running_instance_makes_faults_where_its_configuration_asks_for_them() -> None:
    options = {"port": 0, "grpc_servicer_functions": [PROTO], "faults": {"seed": 1, "reset_share": 1}}
    async with serve.open_instance(grpc_options=options) as instance:
        await instance.run(Greeter.bind())
        async with open_channel(instance.addresses["grpc"]) as channel:
            with pytest.raises(RpcError) as info:
                await GreeterStub(channel).SayHello(PROTO.HelloRequest(name="you"))

    assert info.value.status is Status.INTERNAL


async def test_bad_fault_options_are_refused_all_at_once() -> None:
    with pytest.raises(Mistakes) as info:
        serve_options({"reset_share": 2, "latency_s": -1, "cut": 3, "reset_code": "GOAWAY"})

    text = str(info.value)
    assert "grpc_options.faults.reset_share: 2 is not a number from 0 to 1" in text
    assert "grpc_options.faults.latency_s" in text
    assert "grpc_options.faults.cut: unknown key" in text
    assert "grpc_options.faults.reset_code" in text


def serve_options(faults):
    from trio_serve.instance.options import gRPCOptions, options_from

    return options_from(gRPCOptions, {"faults": faults}, "grpc_options")
