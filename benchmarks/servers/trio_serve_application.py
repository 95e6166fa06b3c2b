"""trio_serve's whole path: proxy, route, request context, replica, deadline, counters; one replica."""

from collections.abc import AsyncIterator
from typing import Any

import trio

import trio_serve as serve
from benchmarks.schema import PROTO
from trio_serve.grpc import methods_from

METHODS = {method.name: method for method in methods_from(str(PROTO))}
HelloReply: Any = METHODS["SayHello"].reply_type


@serve.deployment(max_ongoing_requests=1000)
class Greeter:
    async def SayHello(self, request: Any) -> Any:
        return HelloReply(message=f"Hello, {request.name}!")

    async def Count(self, request: Any) -> AsyncIterator[Any]:
        for k in range(request.value):
            yield HelloReply(message=f"Hello, {k}!")

    async def Chat(self, requests: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield HelloReply(message=f"Hello, {request.name}!")

    async def Echo(self, request: Any) -> Any:
        return request


async def main() -> None:
    options = {"port": 0, "protos": [str(PROTO)]}
    async with serve.open_instance(grpc_options=options) as instance:
        await instance.run(Greeter.bind(), name="default")
        print("ready", instance.grpc_port, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
