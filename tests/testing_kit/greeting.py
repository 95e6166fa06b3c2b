"""What the kit's tests share: a small service, and a stub for it."""

import trio

import trio_serve as serve
from trio_serve.grpc.protos import load_protos

from ..contract.conftest import ROOT

PROTO = load_protos(ROOT / "protos" / "helloworld.proto")


@serve.deployment
class Greeter:
    """Sleeps as long as the name says, where that is a number."""

    async def SayHello(self, request):
        if request.name.isdigit():
            await trio.sleep(int(request.name))
        return PROTO.HelloReply(message=f"Hello {request.name}")

    def SayHelloStreamReply(self, request):
        for _ in range(int(request.name)):
            yield PROTO.HelloReply(message="x" * 10_000)


class GreeterStub:
    def __init__(self, channel):
        coding = {
            "request_serializer": PROTO.HelloRequest.SerializeToString,
            "response_deserializer": PROTO.HelloReply.FromString,
        }
        self.SayHello = channel.unary_unary("/helloworld.Greeter/SayHello", **coding)
        self.SayHelloStreamReply = channel.unary_stream("/helloworld.Greeter/SayHelloStreamReply", **coding)


async def hello(service, name="you", **options):
    reply = await GreeterStub(service.channel()).SayHello(PROTO.HelloRequest(name=name), **options)
    return reply.message
