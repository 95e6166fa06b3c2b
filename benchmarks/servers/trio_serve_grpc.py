"""trio_serve.grpc alone: its Server, with handlers and messages straight from greeter.proto.

``--methods N`` registers N methods more, ``--streams N`` allows N streams a connection.
"""

import argparse
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import attrs
import trio

from benchmarks.schema import PROTO
from trio_serve.grpc import Method, Server, methods_from
from trio_serve.grpc.server import SERVER_OPTIONS

METHODS = {method.name: method for method in methods_from(str(PROTO))}


def reply_type(name: str) -> Any:
    return METHODS[name].reply_type


HelloReply = reply_type("SayHello")


async def say_hello(request: Any, context: Any) -> Any:
    return HelloReply(message=f"Hello, {request.name}!")


async def count(request: Any, context: Any) -> AsyncIterator[Any]:
    for k in range(request.value):
        yield HelloReply(message=f"Hello, {k}!")


async def chat(requests: Any, context: Any) -> AsyncIterator[Any]:
    async for request in requests:
        yield HelloReply(message=f"Hello, {request.name}!")


async def echo(request: Any, context: Any) -> Any:
    return request


def methods(more: int) -> list[Method]:
    handlers = {"SayHello": say_hello, "Count": count, "Chat": chat, "Echo": echo}
    served = [attrs.evolve(METHODS[name], handler=handler) for name, handler in handlers.items()]
    hello = served[0]
    return served + [
        attrs.evolve(hello, path=f"/benchmarks.More{k}/SayHello", service=f"benchmarks.More{k}")
        for k in range(more)
    ]


async def serve() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--methods", type=int, default=0)
    parser.add_argument("--streams", type=int, default=0)
    arguments = parser.parse_args()
    options = SERVER_OPTIONS
    if arguments.streams:
        limits = dataclasses.replace(options.limits, streams_max=arguments.streams)
        options = attrs.evolve(options, limits=limits)
    server = Server(options=options, max_running=20_000)
    for method in methods(arguments.methods):
        server.register(method)
    async with trio.open_nursery() as nursery:
        print("ready", await nursery.start(server.serve, "127.0.0.1", 0), flush=True)


if __name__ == "__main__":
    trio.run(serve)
