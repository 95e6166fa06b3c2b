"""The guide's first application inside a Trio program, called by a Trio client in the same event loop.

python embedded.py
"""

import trio
from test_deployment_v2 import g
from user_defined_protos_pb2 import UserDefinedMessage
from user_defined_protos_pb2_grpc import UserDefinedServiceStub

import trio_serve as serve
from trio_serve.grpc import open_channel


async def main() -> None:
    grpc_options = {
        "port": 0,
        "grpc_servicer_functions": ["user_defined_protos_pb2_grpc.add_UserDefinedServiceServicer_to_server"],
    }
    async with serve.open_instance(grpc_options=grpc_options) as instance:
        handle = await instance.run(g, name="app1")
        request = UserDefinedMessage(name="foo", num=30, origin="bar")

        reply = await handle.remote(request)
        print(f"by handle: {reply.greeting}")

        async with open_channel(f"127.0.0.1:{instance.grpc_port}") as channel:
            stub = UserDefinedServiceStub(channel)
            reply = await stub.__call__(request)
            print(f"over gRPC: {reply.greeting}")
            async for reply in stub.Streaming(request):
                print(f"streamed:  {reply.greeting}")


if __name__ == "__main__":
    trio.run(main)
