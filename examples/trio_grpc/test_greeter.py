"""The server's own bytes and the client's, with no socket, and in virtual time."""

import trio
import trio.testing
from helloworld_pb2 import HelloRequest
from helloworld_pb2_grpc import GreeterStub
from server import new_server

from trio_serve.grpc import open_channel


def test_it_greets() -> None:
    async def test() -> None:
        async with open_channel(new_server()) as channel:
            reply = await GreeterStub(channel).SayHello(HelloRequest(name="Ada"), timeout=1)
        assert reply.message == "Hello Ada"

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))
