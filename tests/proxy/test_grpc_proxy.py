"""Calls of every kind, from the wire into a deployment and back, in memory and in virtual time."""

import contextlib
import itertools
import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_serve as serve
from tests.garbage import left_to_the_collector
from trio_serve.actors import Envelope
from trio_serve.grpc import RpcError, Status, load_protos, open_channel
from trio_serve.grpc.call import ServerCall
from trio_serve.proxy.grpc_reply import GrpcReply
from trio_serve.testing import serving

PROTO = """
syntax = "proto3";
package kinds;
message Number { int64 value = 1; }
service Kinds {
  rpc Unary(Number) returns (Number);
  rpc Down(Number) returns (stream Number);
  rpc Up(stream Number) returns (Number);
  rpc Both(stream Number) returns (stream Number);
}
"""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file: pathlib.Path = tmp_path_factory.mktemp("protos") / "kinds.proto"
    file.write_text(PROTO)
    return load_protos(file)


class Stub:
    def __init__(self, channel: Any, kinds: Any) -> None:
        coded = {
            "request_serializer": kinds.Number.SerializeToString,
            "response_deserializer": kinds.Number.FromString,
        }
        self.Unary = channel.unary_unary("/kinds.Kinds/Unary", **coded)
        self.Down = channel.unary_stream("/kinds.Kinds/Down", **coded)
        self.Up = channel.stream_unary("/kinds.Kinds/Up", **coded)
        self.Both = channel.stream_stream("/kinds.Kinds/Both", **coded)


def asynchronous(kinds: Any) -> serve.Application:
    @serve.deployment
    class Async:
        async def Unary(self, number: Any) -> Any:
            return kinds.Number(value=number.value + 1)

        async def Down(self, number: Any) -> AsyncIterator[Any]:
            for value in range(number.value):
                yield kinds.Number(value=value)

        async def Up(self, numbers: Any) -> Any:
            return kinds.Number(value=sum([number.value async for number in numbers]))

        async def Both(self, numbers: Any) -> AsyncIterator[Any]:
            async for number in numbers:
                yield kinds.Number(value=-number.value)

    return Async.bind()


def synchronous(kinds: Any) -> serve.Application:
    @serve.deployment
    class Sync:
        def Unary(self, number: Any) -> Any:
            return kinds.Number(value=number.value + 1)

        def Down(self, number: Any) -> Iterator[Any]:
            for value in range(number.value):
                yield kinds.Number(value=value)

        def Up(self, numbers: Any) -> Any:
            return kinds.Number(value=sum(number.value for number in numbers))

        def Both(self, numbers: Any) -> Iterator[Any]:
            for number in numbers:
                yield kinds.Number(value=-number.value)

    return Sync.bind()


async def assert_all_four_kinds(stub: Stub, kinds: Any) -> None:
    numbers = [kinds.Number(value=value) for value in range(5)]
    assert (await stub.Unary(kinds.Number(value=1))).value == 2
    assert [reply.value async for reply in stub.Down(kinds.Number(value=3))] == [0, 1, 2]
    assert (await stub.Up(numbers)).value == 10
    assert [reply.value async for reply in stub.Both(numbers)] == [0, -1, -2, -3, -4]


async def test_all_four_kinds_into_async_methods(kinds: Any) -> None:
    async with serving(asynchronous(kinds), services=[kinds]) as service:
        await assert_all_four_kinds(Stub(service.channel(), kinds), kinds)


@pytest.mark.real_clock
async def test_all_four_kinds_into_sync_methods_in_their_replicas_thread(kinds: Any) -> None:
    """The kit would run them inline; here they have the thread that a served application gives them."""
    options = {"port": 0, "grpc_servicer_functions": [kinds]}
    async with serve.open_instance(grpc_options=options) as instance:
        await instance.run(synchronous(kinds))
        async with open_channel(f"127.0.0.1:{instance.grpc_port}") as channel:
            await assert_all_four_kinds(Stub(channel, kinds), kinds)


async def test_functions_are_deployments_too(kinds: Any) -> None:
    @serve.deployment
    class Ingress:
        def __init__(self, double: Any) -> None:
            self.double = double

        async def Unary(self, number: Any) -> Any:
            return kinds.Number(value=await self.double.remote(number.value))

    @serve.deployment
    def double(value: int) -> int:
        return value * 2

    async with serving(Ingress.bind(double.bind()), services=[kinds]) as service:
        assert (await Stub(service.channel(), kinds).Unary(kinds.Number(value=21))).value == 42


async def test_a_method_sees_the_clients_deadline_as_any_trio_code_does(kinds: Any) -> None:
    left_s: list[float] = []

    @serve.deployment
    class Looks:
        async def Unary(self, number: Any) -> Any:
            left_s.append(trio.current_effective_deadline() - trio.current_time())
            return number

    async with serving(Looks.bind(), services=[kinds]) as service:
        stub = Stub(service.channel(), kinds)
        await stub.Unary(kinds.Number(), timeout=5)
        await stub.Unary(kinds.Number(), timeout=1000)
        await trio.sleep(100)  # what the first call left behind would cancel the worker
        await stub.Unary(kinds.Number())

    assert left_s[0] == pytest.approx(5)
    assert left_s[1] == pytest.approx(1000)
    assert left_s[2] > 1000  # the deadline of the test alone


@pytest.mark.parametrize("timeout_s", [None, 10])
async def test_an_answered_call_is_no_work_for_the_garbage_collector(
    kinds: Any, timeout_s: float | None
) -> None:
    async with serving(asynchronous(kinds), services=[kinds]) as service:
        stub = Stub(service.channel(), kinds)
        await stub.Unary(kinds.Number())
        with left_to_the_collector(ServerCall, GrpcReply, Envelope) as left:
            for _ in range(20):
                await stub.Unary(kinds.Number(), timeout=timeout_s)
            await wait_all_tasks_blocked()

    assert len(left) <= 3  # a worker may remember its last call


async def test_a_client_that_stops_reading_stops_the_deepest_generator(kinds: Any) -> None:
    """Two hops of composition between the generator and the client; the flow-control window is the bound."""
    produced = 0
    ended: list[str] = []

    @serve.deployment
    class Source:
        async def numbers(self) -> AsyncIterator[int]:
            nonlocal produced
            try:
                for value in itertools.count():
                    produced = value + 1
                    yield value
            finally:
                ended.append("source")

    @serve.deployment
    class Middle:
        def __init__(self, source: Any) -> None:
            self.source = source

        async def numbers(self) -> AsyncIterator[int]:
            async for value in self.source.options(stream=True).numbers.remote():
                yield value

    @serve.deployment
    class Ingress:
        def __init__(self, middle: Any) -> None:
            self.middle = middle

        async def Down(self, number: Any) -> AsyncIterator[Any]:
            async for value in self.middle.options(stream=True).numbers.remote():
                yield kinds.Number(value=value)

    app = Ingress.bind(Middle.bind(Source.bind()))
    async with serving(app, services=[kinds]) as service:
        call = Stub(service.channel(), kinds).Down(kinds.Number())
        assert (await call.read()).value == 0
        await trio.sleep(1)
        await wait_all_tasks_blocked()
        standing = produced
        await trio.sleep(1000)

        assert produced == standing
        # 64 KiB of window, pipes and buffers hold some tens of thousands of messages of 6 bytes and no more.
        assert standing < 200_000
        call.cancel()
        await wait_all_tasks_blocked()
        assert ended == ["source"]


async def test_a_deployment_that_failed_is_unavailable_with_its_reason_in_one_line(kinds: Any) -> None:
    @serve.deployment(max_constructor_retry_count=1)
    class Broken:
        def __init__(self) -> None:
            raise OSError("no such model\nand more lines")

        async def Unary(self, number: Any) -> Any:
            return number

    async with serving(asynchronous(kinds), services=[kinds]) as service:
        with contextlib.suppress(OSError):
            await service.instance.run(Broken.bind(), name="broken", route_prefix=None)
        with pytest.raises(RpcError) as info:
            await Stub(service.channel(), kinds).Unary(
                kinds.Number(), metadata=[("application", "broken"), ("request_id", "9")]
            )

    assert info.value.status is Status.UNAVAILABLE
    text = str(info.value.message)
    assert "'broken'" in text and "'Broken'" in text and "OSError: no such model" in text
    assert "\n" not in text
    assert dict(info.value.trailing_metadata())["request_id"] == "9"


@pytest.mark.parametrize("exposed", [True, False])
async def test_tracebacks_are_exposed_as_asked(kinds: Any, exposed: bool) -> None:
    @serve.deployment
    class Raises:
        async def Unary(self, number: Any) -> Any:
            raise ValueError("secret")

    async with serving(Raises.bind(), services=[kinds], expose_tracebacks=exposed) as service:
        with pytest.raises(RpcError) as info:
            await Stub(service.channel(), kinds).Unary(kinds.Number(), metadata=[("request_id", "9")])

    text = str(info.value.message)
    assert info.value.status is Status.INTERNAL
    assert ("secret" in text and "in Unary" in text) is exposed
    assert ("request_id=9" in text) is not exposed


async def test_request_timeout_s_counts_while_queued(kinds: Any) -> None:
    """Both calls end at half a second with the contract's text; the second one was never started."""
    started: list[int] = []

    @serve.deployment(max_ongoing_requests=1)
    class Slow:
        async def Unary(self, number: Any) -> Any:
            started.append(number.value)
            await trio.sleep(60)

    texts = []

    async def call(stub: Stub, value: int) -> None:
        with pytest.raises(RpcError) as info:
            await stub.Unary(kinds.Number(value=value), metadata=[("request_id", str(value))])
        assert info.value.status is Status.DEADLINE_EXCEEDED
        assert dict(info.value.trailing_metadata())["request_id"] == str(value)
        texts.append(str(info.value.message))

    async with serving(Slow.bind(), services=[kinds], request_timeout_s=0.5) as service:
        stub = Stub(service.channel(), kinds)
        async with trio.open_nursery() as nursery:
            for value in range(2):
                nursery.start_soon(call, stub, value)
                await wait_all_tasks_blocked()

    assert texts == ["Request timed out after 0.5s."] * 2
    assert started == [0]


async def test_calls_in_flight_finish_while_the_server_drains(kinds: Any) -> None:
    @serve.deployment
    class Slow:
        async def Unary(self, number: Any) -> Any:
            await trio.sleep(10)
            return number

    answers = []

    async def call(stub: Stub) -> None:
        answers.append((await stub.Unary(kinds.Number(value=7))).value)

    async with serving(Slow.bind(), services=[kinds]) as service, trio.open_nursery() as nursery:
        nursery.start_soon(call, Stub(service.channel(), kinds))
        await wait_all_tasks_blocked()
        await service.drain()

    assert answers == [7]
