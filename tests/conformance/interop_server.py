"""``python -m tests.conformance.interop_server trio_serve|grpc.aio`` prints ``ready PORT`` and serves."""

import argparse
import asyncio

import grpc.aio
import trio

from tests.conformance.interop_service import TestService, add_to_server
from trio_serve.grpc import Server
from trio_serve.transport.listener import server_tls


async def serve_ours(arguments: argparse.Namespace) -> None:
    tls = server_tls(arguments.certificate, arguments.certificate) if arguments.certificate else None
    server = Server()
    add_to_server(TestService(trio.sleep), server)

    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await server.serve("127.0.0.1", arguments.port, tls=tls, task_status=task_status)

        print("ready", await nursery.start(serve), flush=True)


async def serve_grpc_aio(arguments: argparse.Namespace) -> None:
    server = grpc.aio.server()
    add_to_server(TestService(asyncio.sleep), server)
    port = server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    await server.start()
    print("ready", port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("on", choices=["trio_serve", "grpc.aio"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate", help="a PEM file with key and certificate: serve TLS")
    arguments = parser.parse_args()
    if arguments.on == "trio_serve":
        trio.run(serve_ours, arguments)
    else:
        asyncio.run(serve_grpc_aio(arguments))


if __name__ == "__main__":
    main()
