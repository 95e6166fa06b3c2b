"""grpclib on asyncio."""

import asyncio
import socket

import greeter_grpc
import greeter_pb2 as pb2
import grpclib.server


class Greeter(greeter_grpc.GreeterBase):
    async def SayHello(self, stream):
        request = await stream.recv_message()
        await stream.send_message(pb2.HelloReply(message=f"Hello, {request.name}!"))

    async def Count(self, stream):
        request = await stream.recv_message()
        for k in range(request.value):
            await stream.send_message(pb2.HelloReply(message=f"Hello, {k}!"))

    async def Chat(self, stream):
        async for request in stream:
            await stream.send_message(pb2.HelloReply(message=f"Hello, {request.name}!"))

    async def Echo(self, stream):
        await stream.send_message(await stream.recv_message())


async def serve() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    # asyncio does this where it opens the socket itself; without it each reply would wait for an ACK of the
    # client's, 40 ms, and the comparison be unfair.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = grpclib.server.Server([Greeter()])
    await server.start(sock=listening)
    print("ready", listening.getsockname()[1], flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve())
