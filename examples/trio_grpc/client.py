"""A gRPC client on Trio: python client.py NAME [target]"""

import sys

import trio
from helloworld_pb2 import HelloRequest
from helloworld_pb2_grpc import GreeterStub

from trio_serve.grpc import RpcError, open_channel


async def main(name: str, target: str) -> None:
    async with open_channel(target) as channel:
        stub = GreeterStub(channel)
        reply = await stub.SayHello(HelloRequest(name=name), timeout=5)
        print(reply.message)
        async for reply in stub.SayHelloStreamReply(HelloRequest(name=name), timeout=5):
            print(reply.message)
        try:
            await stub.SayHelloClientStream([HelloRequest(name=name)])
        except RpcError as error:
            print(error)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2] if sys.argv[2:] else "127.0.0.1:50051")
