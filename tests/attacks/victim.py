"""The server under attack: ``python -m tests.attacks.victim`` prints ``ready PORT`` and serves."""

import argparse
import resource
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_serve.grpc import Server, methods_from
from trio_serve.grpc.server import SERVER_OPTIONS

METHODS = {method.name: method for method in methods_from(str(Path(__file__).with_name("victim.proto")))}
Blob: Any = METHODS["Hello"].reply_type
Number: Any = METHODS["Produced"].reply_type

CHUNK = Blob(value=bytes(64 * 1024))
CHUNKS = 16 * 1024
produced = 0


async def hello(request: Any, context: Any) -> Any:
    return Blob(value=b"hello")


async def echo(request: Any, context: Any) -> Any:
    return request


async def flood(request: Any, context: Any) -> AsyncIterator[Any]:
    global produced
    for _ in range(CHUNKS):
        produced += 1
        yield CHUNK


async def hold(requests: Any, context: Any) -> Any:
    async for _ in requests:
        pass
    return Blob()


async def count_produced(request: Any, context: Any) -> Any:
    return Number(value=produced)


async def serve() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--handshake-timeout-s", type=float, default=10)
    parser.add_argument("--certificate", help="a PEM file with key and certificate: serve TLS")
    parser.add_argument("--descriptors", type=int, help="as ulimit -n")
    arguments = parser.parse_args()
    if arguments.descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (arguments.descriptors, arguments.descriptors))
    server = Server(options=attrs.evolve(SERVER_OPTIONS, handshake_timeout_s=arguments.handshake_timeout_s))
    handlers = {"Hello": hello, "Echo": echo, "Flood": flood, "Hold": hold, "Produced": count_produced}
    for name, handler in handlers.items():
        server.register(attrs.evolve(METHODS[name], handler=handler))
    tls = None
    if arguments.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(arguments.certificate)
        tls.set_alpn_protocols(["h2"])
    async with trio.open_nursery() as nursery:
        port = await nursery.start(
            lambda task_status: server.serve("127.0.0.1", 0, tls=tls, task_status=task_status)
        )
        print("ready", port, flush=True)


if __name__ == "__main__":
    trio.run(serve)
