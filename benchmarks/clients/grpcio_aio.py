"""grpc.aio's client, on asyncio's own loop or with ``--uvloop``."""

import asyncio

import greeter_pb2 as pb2
import greeter_pb2_grpc
import grpc.aio

from benchmarks.clients.asyncio_calls import call_until_time_is_over
from benchmarks.clients.timing import Timing


async def run(timing: Timing) -> None:
    async with grpc.aio.insecure_channel(timing.address) as channel:
        stub = greeter_pb2_grpc.GreeterStub(channel)
        await call_until_time_is_over(
            timing, lambda: stub.SayHello(pb2.HelloRequest(name="world"), timeout=20)
        )


def main() -> None:
    timing = Timing()
    if timing.arguments.uvloop:
        import uvloop

        uvloop.run(run(timing))
    else:
        asyncio.run(run(timing))


if __name__ == "__main__":
    main()
