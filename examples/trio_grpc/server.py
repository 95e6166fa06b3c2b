"""A gRPC server on Trio, with nothing of serving: python server.py [port]"""

import signal
import sys

import trio
from helloworld_pb2 import HelloReply
from helloworld_pb2_grpc import GreeterServicer, add_GreeterServicer_to_server

from trio_serve.grpc import Server


class Greeter(GreeterServicer):
    async def SayHello(self, request, context):
        return HelloReply(message=f"Hello {request.name}")

    async def SayHelloStreamReply(self, request, context):
        for number in range(3):
            yield HelloReply(message=f"{number}: Hello {request.name}")


def new_server() -> Server:
    server = Server(request_timeout_s=10)
    add_GreeterServicer_to_server(Greeter(), server)
    return server


async def main(port: int) -> None:
    server = new_server()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(server.serve, "127.0.0.1", port)
            print(f"grpc 127.0.0.1:{port}", flush=True)
            await anext(signals)
            await server.drain(timeout_s=30)  # no call is lost; serve() returns


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if sys.argv[1:] else 50051)
