"""trio_serve.grpc's Channel, with the stub that grpcio-tools generates."""

import time

import greeter_pb2 as pb2
import greeter_pb2_grpc
import trio

from benchmarks.clients.timing import Timing
from trio_serve.grpc.channel import open_channel


async def run(timing: Timing) -> None:
    async with open_channel(timing.address) as channel:
        stub = greeter_pb2_grpc.GreeterStub(channel)

        async def caller() -> None:
            while (now := time.perf_counter()) < timing.until:
                await stub.SayHello(pb2.HelloRequest(name="world"), timeout=20)
                timing.latencies.append(time.perf_counter() - now)

        for _ in range(100):
            await stub.SayHello(pb2.HelloRequest(name="world"), timeout=20)
        timing.start()
        async with trio.open_nursery() as nursery:
            for _ in range(timing.arguments.in_flight):
                nursery.start_soon(caller)
        timing.report()


if __name__ == "__main__":
    trio.run(run, Timing())
