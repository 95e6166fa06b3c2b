"""grpclib's client."""

import asyncio

import greeter_grpc
import greeter_pb2 as pb2
import grpclib.client

from benchmarks.clients.asyncio_calls import call_until_time_is_over
from benchmarks.clients.timing import Timing


async def run(timing: Timing) -> None:
    async with grpclib.client.Channel("127.0.0.1", timing.arguments.port) as channel:
        stub = greeter_grpc.GreeterStub(channel)
        await call_until_time_is_over(
            timing, lambda: stub.SayHello(pb2.HelloRequest(name="world"), timeout=20)
        )


if __name__ == "__main__":
    asyncio.run(run(Timing()))
