"""grpc.aio, on asyncio's own loop or, with ``--uvloop``, on uvloop."""

import asyncio
import sys

import greeter_pb2 as pb2
import greeter_pb2_grpc
import grpc.aio


class Greeter(greeter_pb2_grpc.GreeterServicer):
    async def SayHello(self, request, context):
        return pb2.HelloReply(message=f"Hello, {request.name}!")

    async def Count(self, request, context):
        for k in range(request.value):
            yield pb2.HelloReply(message=f"Hello, {k}!")

    async def Chat(self, requests, context):
        async for request in requests:
            yield pb2.HelloReply(message=f"Hello, {request.name}!")

    async def Echo(self, request, context):
        return request


async def serve() -> None:
    server = grpc.aio.server()
    greeter_pb2_grpc.add_GreeterServicer_to_server(Greeter(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("ready", port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    if "--uvloop" in sys.argv:
        import uvloop

        uvloop.run(serve())
    else:
        asyncio.run(serve())


if __name__ == "__main__":
    main()
