"""purerpc on Trio: the older gRPC server of the Trio world."""

from collections.abc import AsyncIterator

import greeter_pb2 as pb2
import trio
from purerpc import Server, Service

greeter = Service("benchmarks.Greeter")


@greeter.rpc("SayHello")
async def say_hello(request: pb2.HelloRequest) -> pb2.HelloReply:
    return pb2.HelloReply(message=f"Hello, {request.name}!")


@greeter.rpc("Count")
async def count(request: pb2.CountRequest) -> AsyncIterator[pb2.HelloReply]:
    for k in range(request.value):
        yield pb2.HelloReply(message=f"Hello, {k}!")


@greeter.rpc("Chat")
async def chat(requests: AsyncIterator[pb2.HelloRequest]) -> AsyncIterator[pb2.HelloReply]:
    async for request in requests:
        yield pb2.HelloReply(message=f"Hello, {request.name}!")


@greeter.rpc("Echo")
async def echo(request: pb2.Blob) -> pb2.Blob:
    return request


async def serve() -> None:
    server = Server(port=0)
    server.add_service(greeter)
    async with trio.open_nursery() as nursery:
        print("ready", await nursery.start(server.serve_async), flush=True)


if __name__ == "__main__":
    trio.run(serve)
