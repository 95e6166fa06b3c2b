"""Calls of all kinds from generated stubs to our own server in memory, in virtual time."""

import gc
import math
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError

from tests.grpc.client_peers import grpcio_stubs, grpclib_stubs, pb2
from trio_serve.grpc import RpcError, Server
from trio_serve.grpc.channel import Channel, open_channel
from trio_serve.grpc.deadline import current_deadline


def greeter() -> Any:
    class Greeter(grpclib_stubs().GreeterBase):  # type: ignore[misc]
        def __init__(self) -> None:
            self.sent = 0
            self.cancelled = 0
            self.deadline = math.inf

        async def SayHello(self, stream: Any) -> None:
            request = await stream.recv_message()
            if request.name == "nobody":
                raise GRPCError(Status.NOT_FOUND, "no such person: é")
            if request.name.startswith("slow"):
                self.deadline = current_deadline.get()
                try:
                    await trio.sleep(100)
                except trio.Cancelled:
                    self.cancelled += 1
                    raise
            await stream.send_initial_metadata(metadata={"first": "1"})
            if request.name == "hesitant":
                await trio.sleep(1)
            await stream.send_message(pb2().HelloReply(message=f"Hello {request.name}"))
            await stream.send_trailing_metadata(metadata={"last": "2", "raw-bin": b"\x00\xff"})

        async def SayHelloStreamReply(self, stream: Any) -> None:
            request = await stream.recv_message()
            count = int(request.name or 5)
            try:
                for number in range(count):
                    await stream.send_message(pb2().HelloReply(message=str(number) * 1000))
                    self.sent += 1
                    count -= 1
            finally:
                self.cancelled += count > 0

        async def SayHelloClientStream(self, stream: Any) -> None:
            names = [request.name async for request in stream]
            await stream.send_message(pb2().HelloReply(message=",".join(names)))

        async def SayHelloBidiStream(self, stream: Any) -> None:
            async for request in stream:
                await stream.send_message(pb2().HelloReply(message=request.name * 2))

    return Greeter()


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[Any, Channel]]:
    service = greeter()
    async with open_channel(Server(service), **options) as channel:
        yield service, channel


def hello(name: str = "") -> Any:
    return pb2().HelloRequest(name=name)


async def test_grpcios_stub_makes_all_four_kinds_of_call() -> None:
    async with served() as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        assert (await stub.SayHello(hello("you"))).message == "Hello you"
        replies = [reply.message async for reply in stub.SayHelloStreamReply(hello("3"))]
        assert replies == ["0" * 1000, "1" * 1000, "2" * 1000]
        assert (await stub.SayHelloClientStream(iter([hello("a"), hello("b")]))).message == "a,b"
        doubled = [reply.message async for reply in stub.SayHelloBidiStream([hello("a"), hello("b")])]
        assert doubled == ["aa", "bb"]


async def test_grpclibs_stub_makes_all_four_kinds_of_call() -> None:
    async with served() as (_, channel):
        stub = grpclib_stubs().GreeterStub(channel)
        assert (await stub.SayHello(hello("you"), timeout=5, metadata={"a": "b"})).message == "Hello you"
        assert len(await stub.SayHelloStreamReply(hello("3"))) == 3
        assert (await stub.SayHelloClientStream([hello("a"), hello("b")])).message == "a,b"
        assert (await stub.SayHelloClientStream([])).message == ""
        assert [reply.message for reply in await stub.SayHelloBidiStream([hello("a")])] == ["aa"]
        with pytest.raises(GRPCError) as caught:
            await stub.SayHello(hello("nobody"))
        assert (caught.value.status, caught.value.message) == (Status.NOT_FOUND, "no such person: é")


async def test_grpclibs_open_stream_is_stepped_by_hand() -> None:
    async with served() as (_, channel):
        stub = grpclib_stubs().GreeterStub(channel)
        async with stub.SayHello.open() as stream:
            with pytest.raises(ProtocolError):
                await stream.recv_message()
            await stream.send_message(hello("you"), end=True)
            with pytest.raises(ProtocolError):
                await stream.send_message(hello("again"))
            await stream.recv_initial_metadata()
            assert stream.initial_metadata["first"] == "1"
            assert (await stream.recv_message()).message == "Hello you"
            assert await stream.recv_message() is None
            await stream.recv_trailing_metadata()
            assert stream.trailing_metadata["last"] == "2"
            assert stream.trailing_metadata["raw-bin"] == b"\x00\xff"
        async with stub.SayHelloBidiStream.open() as stream:
            for number in range(3):
                await stream.send_message(hello(str(number)))
                assert (await stream.recv_message()).message == str(number) * 2
            await stream.end()
        async with stub.SayHelloBidiStream.open() as stream:
            await stream.send_message(hello("x"))
            await stream.cancel()
            with pytest.raises(ProtocolError):
                await stream.cancel()


async def test_a_call_tells_its_code_details_and_metadata() -> None:
    async with served() as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        call = stub.SayHello(hello("you"))
        assert not call.done()
        assert await call.initial_metadata() == (("first", "1"),)
        await call
        assert call.done() and not call.cancelled()
        assert await call.code() == grpc.StatusCode.OK
        assert await call.details() == ""
        assert await call.trailing_metadata() == (("last", "2"), ("raw-bin", b"\x00\xff"))

        reply, call = await stub.SayHello.with_call(hello("you"), timeout=3)
        assert (reply.message, call.code()) == ("Hello you", grpc.StatusCode.OK)
        assert dict(call.trailing_metadata())["last"] == "2"


async def test_an_error_of_the_handler_is_the_callers_error() -> None:
    async with served() as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        with pytest.raises(RpcError) as caught:
            await stub.SayHello(hello("nobody"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert caught.value.details() == "no such person: é"
        assert "/helloworld.Greeter/SayHello" in caught.value.debug_error_string()
        with pytest.raises(RpcError, match=r"^UNIMPLEMENTED: Method not found!$"):
            await channel.unary_unary("/helloworld.Greeter/Nothing")(b"")


async def test_a_bidirectional_call_is_written_and_read_in_turn() -> None:
    async with served() as (_, channel):
        call = grpcio_stubs().GreeterStub(channel).SayHelloBidiStream()
        for number in range(3):
            await call.write(hello(str(number)))
            assert (await call.read()).message == str(number) * 2
        await call.done_writing()
        end = await call.read()
        assert end == grpc.aio.EOF and not end
        assert await call.code() == grpc.StatusCode.OK
        with pytest.raises(RpcError):
            await call.write(hello("late"))


async def test_requests_may_come_from_an_async_generator_that_is_closed_with_the_call() -> None:
    closed = []

    async def requests() -> AsyncIterator[Any]:
        try:
            yield hello("a")
            await trio.sleep(1000)
        finally:
            closed.append(trio.current_time())

    async with served() as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        with trio.move_on_after(7):
            await stub.SayHelloClientStream(requests())
        await trio.testing.wait_all_tasks_blocked()
        assert closed == [7]


async def test_a_generator_of_requests_that_nobody_takes_is_closed_with_the_call() -> None:
    """It stands at a ``yield`` while the server reads nothing; the call's end must still close it."""
    closed = []

    async def requests() -> AsyncIterator[Any]:
        try:
            while True:
                yield hello("x" * 10_000)
        finally:
            closed.append(trio.current_time())

    class Deaf(grpclib_stubs().GreeterBase):  # type: ignore[misc]
        async def SayHelloClientStream(self, stream: Any) -> None:
            await trio.sleep_forever()

        SayHello = SayHelloStreamReply = SayHelloBidiStream = SayHelloClientStream

    async with open_channel(Server(Deaf())) as channel:
        kept = requests()
        call = grpcio_stubs().GreeterStub(channel).SayHelloClientStream(kept)
        await trio.sleep(3)
        call.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert closed == [3]


async def test_what_the_request_iterable_raises_is_the_cause_of_the_error() -> None:
    def requests() -> Any:
        yield hello("a")
        raise KeyError("missing")

    async with served() as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        with pytest.raises(RpcError, match=r"CANCELLED: the requests of .* failed: KeyError") as caught:
            await stub.SayHelloClientStream(requests())
        assert isinstance(caught.value.__cause__, KeyError)
        assert (await stub.SayHello(hello("you"))).message == "Hello you"


async def test_a_timeout_is_deadline_exceeded_at_its_time_and_cancels_the_handler() -> None:
    async with served() as (service, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        started = trio.current_time()
        call = stub.SayHello(hello("slow"), timeout=1.5)
        assert call.time_remaining() == 1.5
        with pytest.raises(RpcError) as caught:
            await call
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert trio.current_time() == started + 1.5
        await trio.testing.wait_all_tasks_blocked()
        assert service.cancelled == 1
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await stub.SayHello(hello("you"), timeout=0)


async def test_the_surrounding_cancel_scope_is_the_servers_deadline_too() -> None:
    """The scope's end is Trio's Cancelled for the caller, and grpc-timeout for the server."""
    async with served() as (service, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        with trio.move_on_after(2) as scope:
            await stub.SayHello(hello("slow"))
        assert scope.cancelled_caught
        assert service.deadline == pytest.approx(2, abs=0.001)


async def test_a_handlers_outgoing_call_inherits_its_deadline() -> None:
    async with served() as (service, channel):
        token = current_deadline.set(trio.current_time() + 3)
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await grpcio_stubs().GreeterStub(channel).SayHello(hello("slow"), timeout=50)
        current_deadline.reset(token)
        assert trio.current_time() == 3
        assert service.deadline == pytest.approx(3, abs=0.001)


async def test_cancelling_the_task_that_awaits_cancels_the_handler() -> None:
    async with served() as (service, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stub.SayHello(hello("slow")).finished)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert service.cancelled == 1
        assert not channel.calls


async def test_cancel_ends_the_call_for_everybody_who_waits() -> None:
    async with served() as (service, channel):
        call = grpcio_stubs().GreeterStub(channel).SayHello(hello("slow"))
        done: list[Any] = []
        call.add_done_callback(done.append)

        async def cancel_it() -> None:
            await trio.sleep(1)
            assert call.cancel()
            assert not call.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_it)
            with pytest.raises(RpcError, match="CANCELLED"):
                await call
        assert call.cancelled() and done == [call]
        await trio.testing.wait_all_tasks_blocked()
        assert service.cancelled == 1


async def test_a_stream_ends_when_its_consumer_leaves() -> None:
    """A bare ``break``, a block, and a reference dropped all end the call at the server."""
    async with served() as (service, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        async for _ in stub.SayHelloStreamReply(hello("1000000")):
            break
        await trio.testing.wait_all_tasks_blocked()
        assert service.cancelled == 1
        async with stub.SayHelloStreamReply(hello("1000000")) as call:
            await call.read()
        await trio.testing.wait_all_tasks_blocked()
        assert service.cancelled == 2
        call = stub.SayHello(hello("slow"))
        await trio.testing.wait_all_tasks_blocked()
        del call
        await trio.testing.wait_all_tasks_blocked()
        assert service.cancelled == 3
        assert not channel.calls


async def test_a_consumer_that_does_not_read_stops_the_producer_within_its_window() -> None:
    async with served() as (service, channel):
        call = grpcio_stubs().GreeterStub(channel).SayHelloStreamReply(hello("6000"))
        await call.read()
        await trio.testing.wait_all_tasks_blocked()
        stalled_at = service.sent
        assert stalled_at < 2500  # some windows of 64 KiB to 1 MiB, not 6 MB
        await trio.sleep(100)
        assert service.sent == stalled_at
        count = 1
        async for _ in call:
            count += 1
        assert count == 6000 == service.sent


async def test_a_server_that_does_not_read_stops_the_writer() -> None:
    release = trio.Event()

    class Slow(grpclib_stubs().GreeterBase):  # type: ignore[misc]
        async def SayHelloClientStream(self, stream: Any) -> None:
            await release.wait()
            count = 0
            async for _ in stream:
                count += 1
            await stream.send_message(pb2().HelloReply(message=str(count)))

        SayHello = SayHelloStreamReply = SayHelloBidiStream = SayHelloClientStream

    written = 0

    async def write_all(call: Any) -> None:
        nonlocal written
        for _ in range(3000):
            await call.write(hello("x" * 1000))
            written += 1
        await call.done_writing()

    async with open_channel(Server(Slow())) as channel, trio.open_nursery() as nursery:
        call = grpcio_stubs().GreeterStub(channel).SayHelloClientStream()
        nursery.start_soon(write_all, call)
        await trio.testing.wait_all_tasks_blocked()
        assert 100 < written < 1500
        release.set()
        assert (await call).message == "3000"


@pytest.mark.parametrize("compression", ["gzip", "deflate", grpc.Compression.Gzip, None])
async def test_messages_are_compressed_both_ways(compression: Any) -> None:
    async with served(compression=compression) as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        reply = await stub.SayHello(hello("x" * 5000))
        assert reply.message == "Hello " + "x" * 5000
        assert (await stub.SayHello(hello("y"), compression="identity")).message == "Hello y"
        with pytest.raises(ValueError, match="zstd"):
            stub.SayHello(hello("y"), compression="zstd")


async def test_large_messages_pass_and_those_over_the_limit_do_not() -> None:
    async with served() as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        large = "x" * 3_000_000
        assert (await stub.SayHello(hello(large))).message == "Hello " + large
        with pytest.raises(RpcError, match=r"RESOURCE_EXHAUSTED: request message of \d+ bytes is over"):
            await stub.SayHello(hello("x" * 5_000_000))
    async with served(message_bytes_max=1000) as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        with pytest.raises(RpcError, match=r"RESOURCE_EXHAUSTED: reply message of \d+ bytes is over"):
            await stub.SayHello(hello("x" * 5000))


async def test_bad_metadata_is_the_callers_error_at_once() -> None:
    async with served() as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        with pytest.raises(ValueError, match="BAD KEY"):
            stub.SayHello(hello("you"), metadata=(("BAD KEY", "x"),))
        with pytest.raises(ValueError, match="printable ASCII"):
            stub.SayHello(hello("you"), metadata=(("key", "line\nbreak"),))
        assert not channel.calls


async def test_a_request_of_another_kind_is_told_by_the_rpc_that_got_it() -> None:
    async with open_channel(Server(greeter())) as channel:
        with pytest.raises(TypeError, match=r"SayHello got a request of type str"):
            grpcio_stubs().GreeterStub(channel).SayHello("you")


async def test_an_exception_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with served() as (_, channel):
            await grpcio_stubs().GreeterStub(channel).SayHello(hello("you"))
            raise KeyError("mine")


async def test_a_thousand_calls_at_once_share_one_connection() -> None:
    server = Server(greeter())
    async with open_channel(server) as channel:
        stub = grpcio_stubs().GreeterStub(channel)
        replies = []

        async def ask(number: int) -> None:
            replies.append((await stub.SayHello(hello(str(number)))).message)

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(ask, number)
        assert sorted(replies) == sorted(f"Hello {number}" for number in range(1000))
        assert server.counters.connections_accepted == 1


async def test_a_call_that_is_over_is_freed_without_the_garbage_collector() -> None:
    """Thousands of calls a second must leave no cycles behind: neither the call nor its stream."""
    async with served() as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        await stub.SayHello(hello())
        gc.collect()
        gc.disable()
        try:
            call = stub.SayHello(hello("you"))
            held = [weakref.ref(call.pending)]
            await call
            streamed = stub.SayHelloStreamReply(hello("2"))
            held.append(weakref.ref(streamed.pending))
            assert len([reply async for reply in streamed]) == 2
            del call, streamed
            assert [each() for each in held] == [None, None]
        finally:
            gc.enable()


async def test_whoever_awaits_a_reply_is_woken_once() -> None:
    """Response headers and messages before the end are no reason to run."""
    steps: list[str] = []

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            steps.append(task.name)

    async with served() as (_, channel), trio.open_nursery() as nursery:
        stub = grpcio_stubs().GreeterStub(channel)
        await stub.SayHello(hello())

        async def caller() -> None:
            await stub.SayHello(hello("hesitant"))

        counting = Steps()
        trio.lowlevel.add_instrument(counting)
        nursery.start_soon(caller)
        await trio.sleep(2)
        trio.lowlevel.remove_instrument(counting)

    assert len([name for name in steps if name.endswith("caller")]) == 2


async def test_metadata_that_the_server_does_not_take_fails_before_it_is_sent() -> None:
    """The connection lives on: nothing of the call ever reached the server."""
    async with served() as (_, channel):
        stub = grpcio_stubs().GreeterStub(channel)
        await stub.SayHello(hello())
        with pytest.raises(RpcError) as caught:
            await stub.SayHello(hello(), metadata=[("k", "v" * 20_000)])
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert "header list" in (caught.value.message or "")
        assert (await stub.SayHello(hello("you"))).message == "Hello you"
