"""trio_serve, the whole dispatch path: proxy, application, replica, request id, counters.

The handlers are those of the bare server, as the methods of one deployment with one replica.

``--replicas N`` gives it N, ``--applications N`` runs the same application under N - 1 other names.
"""

import argparse
from collections.abc import AsyncIterator
from typing import Any

import trio

import trio_serve as serve
from benchmarks.schema import PROTO
from benchmarks.servers import trio_serve_grpc as bare


@serve.deployment(max_ongoing_requests=20_000)
class Greeter:
    async def SayHello(self, request: Any) -> Any:
        return bare.HelloReply(message=f"Hello, {request.name}!")

    async def Count(self, request: Any) -> AsyncIterator[Any]:
        for k in range(request.value):
            yield bare.HelloReply(message=f"Hello, {k}!")

    async def Chat(self, requests: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield bare.HelloReply(message=f"Hello, {request.name}!")

    async def Echo(self, request: Any) -> Any:
        return request


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--applications", type=int, default=1)
    arguments = parser.parse_args()
    async with serve.open_instance(grpc_options={"port": 0, "protos": [str(PROTO)]}) as instance:
        await instance.run(Greeter.options(num_replicas=arguments.replicas).bind())
        for k in range(1, arguments.applications):
            await instance.run(Greeter.bind(), name=f"other{k}", route_prefix=f"/other{k}")
        print("ready", instance.grpc_port, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
