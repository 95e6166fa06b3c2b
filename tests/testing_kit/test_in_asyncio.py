"""An asyncio program with an instance inside: clients of asyncio, deployments of Trio, one loop."""

import asyncio

import grpc.aio
import pytest
import trio

import trio_serve as serve
from trio_serve.instance.in_asyncio import open_instance_in_asyncio

from .greeting import PROTO, Greeter, GreeterStub

OPTIONS = {"port": 0, "grpc_servicer_functions": [PROTO]}
REQUEST = PROTO.HelloRequest(name="you")


@pytest.mark.real_clock
def test_grpc_aio_calls_a_deployment_on_the_same_loop() -> None:
    async def main():
        async with open_instance_in_asyncio(grpc_options=OPTIONS) as guest:
            handle = await guest.run(Greeter.bind())
            async with grpc.aio.insecure_channel(guest.addresses["grpc"]) as channel:
                over_the_wire = await GreeterStub(channel).SayHello(REQUEST, timeout=20)
            by_handle = await guest.answer(handle.SayHello.remote(REQUEST))
        return over_the_wire.message, by_handle.message

    assert asyncio.run(main()) == ("Hello you", "Hello you")


@pytest.mark.real_clock
def test_errors_go_through_the_door_as_they_are() -> None:
    @serve.deployment
    class Failing:
        async def __call__(self):
            raise KeyError("mine")

    async def main():
        async with open_instance_in_asyncio() as guest:
            handle = await guest.run(Failing.bind())
            with pytest.raises(KeyError, match="mine"):
                await guest.answer(handle.remote())
            raise AssertionError("the block's")

    with pytest.raises(AssertionError, match="the block's"):
        asyncio.run(main())


@pytest.mark.real_clock
def test_cancelling_in_asyncio_cancels_in_trio() -> None:
    ended = []

    @serve.deployment
    class Slow:
        async def __call__(self):
            try:
                await trio.sleep_forever()
            finally:
                ended.append(True)

    async def main():
        async with open_instance_in_asyncio() as guest:
            handle = await guest.run(Slow.bind())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(guest.answer(handle.remote()), 0.1)

    asyncio.run(main())

    assert ended == [True]


@pytest.mark.real_clock
def test_what_keeps_it_from_opening_is_raised() -> None:
    async def main():
        async with open_instance_in_asyncio(grpc_options={"port": -1}):
            pass

    with pytest.raises(ValueError, match="port"):
        asyncio.run(main())
