"""The gRPC proxy of an instance is held to what a server of ours is, besides what its options say."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

import trio_serve as serve
from trio_serve.grpc import RpcError, Status, open_channel

from ..contract.conftest import ROOT


@serve.deployment(max_ongoing_requests=100)
class Greeter:
    async def SayHello(self, request: Any, grpc_context: Any) -> Any:
        grpc_context.abort(Status.OUT_OF_RANGE, "it came through")

    async def SayHelloClientStream(self, requests: AsyncIterator[Any]) -> Any:
        await trio.sleep_forever()


@pytest.mark.real_clock
async def test_uploads_that_nobody_reads_hold_up_no_other_call_of_their_connection() -> None:
    """Ninety of them fill their windows; together these must leave room in the connection's."""
    grpc_options = {"port": 0, "protos": [str(ROOT / "protos" / "helloworld.proto")]}
    async with (
        serve.open_instance(grpc_options=grpc_options) as instance,
        open_channel(f"127.0.0.1:{instance.grpc_port}") as channel,
        trio.open_nursery() as nursery,
    ):
        await instance.run(Greeter.bind())
        upload = channel.stream_unary("/helloworld.Greeter/SayHelloClientStream")
        calls = [upload() for _ in range(90)]
        for call in calls:
            nursery.start_soon(call.write, bytes(256 * 1024))
        await trio.testing.wait_all_tasks_blocked(0.1)

        say_hello = channel.unary_unary("/helloworld.Greeter/SayHello")
        with pytest.raises(RpcError, match="it came through"):
            await say_hello(b"", timeout=30)
        nursery.cancel_scope.cancel()
