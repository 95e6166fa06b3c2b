"""grpc.aio with a handler that takes 5 ms of CPU; see ``overloaded``."""

import asyncio

import greeter_pb2 as pb2
import greeter_pb2_grpc
import grpc.aio

from benchmarks.servers.hard_work import HardWork


class Busy(greeter_pb2_grpc.GreeterServicer):
    def __init__(self):
        self.work = HardWork()

    async def SayHello(self, request, context):
        return pb2.HelloReply(message=self.work.do(request.name))


async def serve() -> None:
    server = grpc.aio.server()
    greeter_pb2_grpc.add_GreeterServicer_to_server(Busy(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("ready", port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
