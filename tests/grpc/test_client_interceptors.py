"""Client interceptors: around every call of a channel, in order, with the caller's context."""

import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from tests.grpc.client_peers import grpcio_stubs, grpclib_stubs, pb2
from trio_serve.grpc import EOF, CallDetails, RpcError, Server
from trio_serve.grpc.channel import Channel, open_channel

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Service:
    """Answers with what it got; ``names`` tells what reached it, ``seen`` with which metadata."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.seen: list[dict[str, Any]] = []
        self.cancelled = 0
        self.sent = 0
        self.timeouts: list[float | None] = []
        self.fail_first = 0

    def greeter(self) -> Any:
        service = self

        class Greeter(grpclib_stubs().GreeterBase):  # type: ignore[misc]
            async def SayHello(self, stream: Any) -> None:
                request = await stream.recv_message()
                service.note(stream, request)
                if len(service.names) <= service.fail_first:
                    raise GRPCError(Status.UNAVAILABLE, "not yet")
                if request.name == "nobody":
                    raise GRPCError(Status.NOT_FOUND, "no such person")
                if request.name == "slow":
                    await service.sleep()
                await stream.send_initial_metadata(metadata={"first": "1"})
                await stream.send_message(pb2().HelloReply(message=f"Hello {request.name}"))
                await stream.send_trailing_metadata(metadata={"last": "2"})

            async def SayHelloStreamReply(self, stream: Any) -> None:
                request = await stream.recv_message()
                service.note(stream, request)
                await stream.send_initial_metadata(metadata={"first": "1"})
                for number in range(int(request.name)):
                    await stream.send_message(pb2().HelloReply(message=str(number) * 1000))
                    service.sent += 1
                if request.name == "2":
                    raise GRPCError(Status.OUT_OF_RANGE, "two is the end")
                if request.name == "1":
                    await service.sleep()
                await stream.send_trailing_metadata(metadata={"last": "2"})

            async def SayHelloClientStream(self, stream: Any) -> None:
                async for request in stream:
                    service.note(stream, request)
                await stream.send_message(pb2().HelloReply(message=",".join(service.names)))

            async def SayHelloBidiStream(self, stream: Any) -> None:
                async for request in stream:
                    service.note(stream, request)
                    await stream.send_message(pb2().HelloReply(message=request.name * 2))

        return Greeter()

    def note(self, stream: Any, request: Any) -> None:
        self.names.append(request.name)
        self.seen.append(dict(stream.metadata))
        self.timeouts.append(stream.deadline.time_remaining() if stream.deadline else None)

    async def sleep(self) -> None:
        try:
            await trio.sleep(1000)
        except trio.Cancelled:
            self.cancelled += 1
            raise


@asynccontextmanager
async def around(*interceptors: Any, **options: Any) -> AsyncIterator[tuple[Service, Any, Channel]]:
    service = Service()
    async with open_channel(Server(service.greeter()), interceptors=interceptors, **options) as channel:
        yield service, grpcio_stubs().GreeterStub(channel), channel


def hello(name: str = "") -> Any:
    return pb2().HelloRequest(name=name)


async def onwards(call: CallDetails, proceed: Any) -> Any:
    return proceed(call)


class Telling:
    """Adds its name to the metadata, and tells in which order it is passed."""

    def __init__(self, name: str, story: list[str]) -> None:
        self.name = name
        self.story = story

    async def __call__(self, call: CallDetails, proceed: Any) -> Any:
        self.story.append(f"{self.name} {call.cardinality.name} for {who.get()}")
        who.set(self.name)
        made = proceed(attrs.evolve(call, metadata=(*call.metadata, (self.name, "x"))))
        if call.cardinality.server_streaming:
            return self.counted(made)
        reply = await made
        self.story.append(f"{self.name} got {reply.message}")
        return reply

    async def counted(self, replies: Any) -> Any:
        count = 0
        async for reply in replies:
            count += 1
            yield reply
        self.story.append(f"{self.name} got {count}")


async def test_they_are_around_every_kind_of_call_in_their_order() -> None:
    """Each sees the context variables of the one before it, and the caller none of theirs."""
    story: list[str] = []
    async with around(Telling("first", story), Telling("second", story)) as (service, stub, _):
        who.set("ada")

        assert (await stub.SayHello(hello("you"), metadata=[("own", "y")])).message == "Hello you"
        assert service.seen[-1].items() >= {"own": "y", "first": "x", "second": "x"}.items()
        assert story == [
            "first UNARY_UNARY for ada",
            "second UNARY_UNARY for first",
            "second got Hello you",
            "first got Hello you",
        ]
        story.clear()

        assert len([reply async for reply in stub.SayHelloStreamReply(hello("3"))]) == 3
        assert story == [
            "first UNARY_STREAM for ada",
            "second UNARY_STREAM for first",
            "second got 3",
            "first got 3",
        ]
        service.names.clear()
        story.clear()

        assert (await stub.SayHelloClientStream([hello("a"), hello("b")])).message == "a,b"
        assert story[2:] == ["second got a,b", "first got a,b"]
        story.clear()

        call = stub.SayHelloBidiStream()
        await call.write(hello("a"))
        assert (await call.read()).message == "aa"
        await call.write(hello("b"))
        await call.done_writing()
        assert (await call.read()).message == "bb"
        assert await call.read() is EOF
        assert service.seen[-1].items() >= {"first": "x", "second": "x"}.items()
        assert story[2:] == ["second got 2", "first got 2"]
        assert who.get() == "ada"


async def test_grpclibs_stubs_pass_them_too() -> None:
    story: list[str] = []
    async with around(Telling("first", story)) as (service, _, channel):
        stub = grpclib_stubs().GreeterStub(channel)
        assert (await stub.SayHello(hello("you"), timeout=5)).message == "Hello you"
        assert story == ["first UNARY_UNARY for nobody", "first got Hello you"]
        assert service.seen[-1]["first"] == "x"
        assert len(await stub.SayHelloStreamReply(hello("3"))) == 3
        service.names.clear()
        assert (await stub.SayHelloClientStream([hello("a"), hello("b")])).message == "a,b"
        async with stub.SayHelloBidiStream.open() as stream:
            await stream.send_request()
            await stream.send_message(hello("c"))
            assert (await stream.recv_message()).message == "cc"
            await stream.end()
            assert await stream.recv_message() is None
        async with stub.SayHello.open() as stream:
            await stream.send_message(hello("you"))
            await stream.recv_initial_metadata()
            assert stream.initial_metadata["first"] == "1"
            assert (await stream.recv_message()).message == "Hello you"
            await stream.recv_trailing_metadata()
            assert stream.trailing_metadata["last"] == "2"
        with pytest.raises(RpcError) as caught:
            await stub.SayHello(hello("nobody"))
        assert caught.value.status is Status.NOT_FOUND


async def test_what_they_change_is_what_is_sent() -> None:
    async def changes(call: CallDetails, proceed: Any) -> Any:
        assert call.path == "/helloworld.Greeter/SayHello"
        assert (call.timeout, call.metadata) == (None, (("own", "y"),))
        changed = attrs.evolve(call, request=hello(call.request.name.upper()), timeout=7, metadata=())
        return proceed(changed)

    async with around(changes) as (service, stub, _):
        assert (await stub.SayHello(hello("you"), metadata={"own": "y"})).message == "Hello YOU"
        assert "own" not in service.seen[0]
        assert service.timeouts[0] == pytest.approx(7)


async def test_streams_are_changed_on_their_way() -> None:
    async def upper(requests: Any) -> Any:
        async for request in requests:
            yield hello(request.name.upper())

    async def even(replies: Any) -> Any:
        async for reply in replies:
            yield pb2().HelloReply(message=f"<{reply.message}>")

    async def changes(call: CallDetails, proceed: Any) -> Any:
        return even(proceed(attrs.evolve(call, request=upper(call.request))))

    async with around(changes) as (_, stub, _):
        replies = [reply.message async for reply in stub.SayHelloBidiStream([hello("a"), hello("b")])]
        assert replies == ["<AA>", "<BB>"]


@pytest.mark.parametrize("interceptors", [(onwards,), (onwards, onwards)])
async def test_a_call_tells_the_same_with_them_as_without(interceptors: Any) -> None:
    async with around(*interceptors) as (_, stub, channel):
        reply, ended = await stub.SayHello.with_call(hello("you"))
        assert reply.message == "Hello you"
        assert dict(ended.initial_metadata())["first"] == "1"
        assert dict(ended.trailing_metadata())["last"] == "2"

        call = stub.SayHello(hello("nobody"))
        done: list[Any] = []
        call.add_done_callback(done.append)
        with pytest.raises(RpcError) as caught:
            await call
        assert (caught.value.status, caught.value.message) == (Status.NOT_FOUND, "no such person")
        assert await call.code() == Status.NOT_FOUND
        assert await call.details() == "no such person"
        assert "NOT_FOUND" in await call.debug_error_string()
        assert done == [call] and call.done() and not call.cancelled()

        streamed = stub.SayHelloStreamReply(hello("1"), timeout=9)
        assert streamed.time_remaining() == pytest.approx(9)
        await streamed.wait_for_connection()
        assert dict(await streamed.initial_metadata())["first"] == "1"
        assert (await streamed.read()).message == "0" * 1000
        assert streamed.cancel() and not streamed.cancel()
        with pytest.raises(RpcError) as caught:
            await streamed.read()
        assert caught.value.status is Status.CANCELLED

        unread = stub.SayHelloStreamReply(hello("1"))
        await trio.testing.wait_all_tasks_blocked()
        unread.cancel()
        with pytest.raises(RpcError):
            await unread.read()

        with pytest.raises(RpcError) as caught:
            assert [reply async for reply in stub.SayHelloStreamReply(hello("2"))] == []
        assert caught.value.message == "two is the end"
        with pytest.raises(ValueError, match="reserved"):
            stub.SayHello(hello(), metadata={"te": "x"})
        with pytest.raises(ValueError, match="brotli"):
            stub.SayHello(hello(), compression="brotli")
        with pytest.raises(TypeError, match="patience"):
            stub.SayHello(hello(), patience=3)
        await trio.testing.wait_all_tasks_blocked()
        assert not channel.calls


async def test_the_messages_before_an_error_come_first() -> None:
    async with around(onwards) as (_, stub, _):
        call = stub.SayHelloStreamReply(hello("2"))
        assert [(await call.read()).message[0] for _ in range(2)] == ["0", "1"]
        with pytest.raises(RpcError, match="two is the end"):
            await call.read()


async def test_one_may_answer_itself() -> None:
    """Nothing reaches the server, not even a connection is made."""

    async def cached(call: CallDetails, proceed: Any) -> Any:
        answer = pb2().HelloReply(message="from the cache")
        if not call.cardinality.server_streaming:
            return answer

        async def answers() -> Any:
            yield answer
            yield answer

        return answers()

    async with around(cached) as (service, stub, channel):
        reply, ended = await stub.SayHello.with_call(hello("you"))
        assert reply.message == "from the cache"
        assert (ended.code(), ended.trailing_metadata(), ended.initial_metadata()) == (Status.OK, (), ())
        assert len([reply async for reply in stub.SayHelloStreamReply(hello("1"))]) == 2
        assert (await stub.SayHelloClientStream([hello("a")])).message == "from the cache"
        assert len([reply async for reply in stub.SayHelloBidiStream([hello("a")])]) == 2
        assert service.names == []
        assert channel.get_state().name == "IDLE"


async def test_one_may_refuse() -> None:
    async def refusing(call: CallDetails, proceed: Any) -> Any:
        raise GRPCError(Status.PERMISSION_DENIED, "not you", ["a detail"])

    async with around(refusing) as (service, stub, _):
        with pytest.raises(RpcError) as caught:
            await stub.SayHello(hello("you"))
        error = caught.value
        assert (error.status, error.message, list(error.details)) == (
            Status.PERMISSION_DENIED,
            "not you",
            ["a detail"],
        )
        assert error.code() == Status.PERMISSION_DENIED and error.details() == "not you"
        assert isinstance(error.__cause__, GRPCError)
        call = stub.SayHelloBidiStream()
        with pytest.raises(RpcError, match="not you"):
            await call.read()
        with pytest.raises(RpcError, match="not you"):
            await call.write(hello("a"))
        assert service.names == []


async def test_what_one_raises_is_what_the_caller_gets() -> None:
    class Odd(Exception):
        pass

    async def failing(call: CallDetails, proceed: Any) -> Any:
        raise Odd("a bug")

    async with around(failing) as (_, stub, _):
        call = stub.SayHello(hello("you"))
        with pytest.raises(Odd, match="a bug"):
            await call
        assert await call.code() == Status.UNKNOWN
        assert await call.details() == "an interceptor of /helloworld.Greeter/SayHello failed: Odd: a bug"
        with pytest.raises(Odd):
            [reply async for reply in stub.SayHelloStreamReply(hello("1"))]


@pytest.mark.parametrize("result", [None, 5])
async def test_one_that_returns_no_answer_fails_the_call(result: Any) -> None:
    async def wrong(call: CallDetails, proceed: Any) -> Any:
        return result

    async def empty(call: CallDetails, proceed: Any) -> Any:
        async def nothings() -> Any:
            yield None

        return nothings()

    async with around(wrong) as (_, stub, _):
        if result is None:
            with pytest.raises(TypeError, match="returned None"):
                await stub.SayHello(hello("you"))
        with pytest.raises(TypeError, match="no replies to iterate over"):
            await stub.SayHelloStreamReply(hello("1")).read()
    async with around(empty) as (_, stub, _):
        with pytest.raises(TypeError, match="None for a reply"):
            await stub.SayHelloStreamReply(hello("1")).read()


async def test_one_may_try_again_and_replace_an_error() -> None:
    async def again(call: CallDetails, proceed: Any) -> Any:
        for seconds in (1, 2):
            try:
                return await proceed(call)
            except RpcError as error:
                if error.status is not Status.UNAVAILABLE:
                    raise
                await trio.sleep(seconds)
        return pb2().HelloReply(message="a substitute")

    async with around(again) as (service, stub, _):
        service.fail_first = 1
        reply, ended = await stub.SayHello.with_call(hello("you"))
        assert reply.message == "Hello you"
        assert dict(ended.trailing_metadata())["last"] == "2"
        assert (service.names, trio.current_time()) == (["you", "you"], 1)
        service.fail_first = 9
        assert (await stub.SayHello(hello("you"))).message == "a substitute"
        with pytest.raises(RpcError, match="no such person"):
            service.fail_first = 0
            await stub.SayHello(hello("nobody"))


async def test_the_initial_metadata_is_that_of_the_attempt_that_counts() -> None:
    async def again(call: CallDetails, proceed: Any) -> Any:
        try:
            return await proceed(call)
        except RpcError:
            return await proceed(call)

    async with around(again) as (service, stub, _):
        service.fail_first = 1
        call = stub.SayHello(hello("you"))
        assert dict(await call.initial_metadata())["first"] == "1"
        assert (await call).message == "Hello you"


async def test_the_callers_deadline_holds_for_all_that_they_do() -> None:
    async def patient(call: CallDetails, proceed: Any) -> Any:
        await trio.sleep(2)
        with pytest.raises(RpcError):
            await proceed(attrs.evolve(call, timeout=1))
        return proceed(attrs.evolve(call, timeout=100))

    async with around(patient) as (service, stub, _):
        with pytest.raises(RpcError) as caught:
            await stub.SayHello(hello("slow"), timeout=5)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert service.timeouts == [pytest.approx(1), pytest.approx(2)]
        with trio.CancelScope(deadline=trio.current_time() + 4), pytest.raises(RpcError) as caught:
            await stub.SayHello(hello("slow"), timeout=3.5)
        assert service.timeouts[2:] == [pytest.approx(1), pytest.approx(0.5)]
        assert trio.current_time() == pytest.approx(8.5)


async def test_a_deadline_that_passes_says_what_was_waited_for() -> None:
    class Nowhere:
        family = 0

        def __str__(self) -> str:
            return "nowhere"

        async def connect(self, tls: Any) -> Any:
            await trio.sleep_forever()

    async with open_channel(Nowhere(), interceptors=[onwards]) as channel:
        with pytest.raises(RpcError) as caught:
            await grpcio_stubs().GreeterStub(channel).SayHello(hello("you"), timeout=3)
        assert "waiting for a connection to nowhere" in str(caught.value.message)


@pytest.mark.parametrize("how", ["cancel", "task", "drop", "channel"])
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_cancelling_reaches_through_them_to_the_server(how: str, kind: str) -> None:
    cleaned: list[str] = []

    async def careful(call: CallDetails, proceed: Any) -> Any:
        try:
            if not call.cardinality.server_streaming:
                return await proceed(call)
        except trio.Cancelled:
            cleaned.append("unary")
            raise

        async def replies() -> Any:
            try:
                async for reply in proceed(call):
                    yield reply
            finally:
                cleaned.append("stream")

        return replies()

    async with around(careful, onwards) as (service, stub, channel), trio.open_nursery() as nursery:

        def make() -> Any:
            return stub.SayHello(hello("slow")) if kind == "unary" else stub.SayHelloStreamReply(hello("1"))

        async def wait() -> None:
            with pytest.raises(RpcError) if how == "channel" else nullcontext():
                call = make()
                if kind == "unary":
                    await call
                else:
                    async for _ in call:
                        pass

        if how in ("task", "channel"):
            nursery.start_soon(wait)
        else:
            call = make()
        await trio.testing.wait_all_tasks_blocked()
        if how == "cancel":
            call.cancel()
        elif how == "task":
            nursery.cancel_scope.cancel()
        elif how == "channel":
            channel.close()
        else:
            del call
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        assert service.cancelled == 1
        assert cleaned == [kind]
        assert not channel.calls


async def test_neither_side_runs_ahead_of_the_other() -> None:
    """Requests are taken as the server takes them, and replies as the caller does."""
    written: list[int] = []

    async def stuck(call: CallDetails, proceed: Any) -> Any:
        await trio.sleep_forever()

    async def requests() -> Any:
        for number in range(100):
            written.append(number)
            yield hello(str(number))

    async with around(stuck) as (_, stub, _):
        call = stub.SayHelloClientStream(requests())
        await trio.testing.wait_all_tasks_blocked()
        assert len(written) == 1
        call.cancel()

    async with around(onwards) as (service, stub, _):
        call = stub.SayHelloStreamReply(hello("10000"))
        await call.read()
        await trio.testing.wait_all_tasks_blocked()
        assert service.sent < 1500
        call.cancel()


async def test_a_stream_of_requests_that_fails_is_the_errors_cause() -> None:
    async def requests() -> Any:
        yield hello("a")
        raise KeyError("no more")

    async with around(onwards) as (_, stub, _):
        with pytest.raises(RpcError) as caught:
            await stub.SayHelloClientStream(requests())
        assert caught.value.status is Status.CANCELLED
        assert isinstance(caught.value.__cause__, KeyError)


async def test_what_the_channel_adds_is_added_once() -> None:
    async def again(call: CallDetails, proceed: Any) -> Any:
        assert "token" not in dict(call.metadata)
        return proceed(call)

    async with around(
        again, onwards, metadata=[("always", "z")], credentials=lambda path: {"token": "t"}
    ) as (
        service,
        stub,
        _,
    ):
        await stub.SayHello(hello("you"), credentials=lambda path: {"more": "m"})
        assert service.seen[0].items() >= {"always": "z", "token": "t", "more": "m"}.items()


async def test_a_channel_that_is_closed_or_not_open_runs_none() -> None:
    async def never(call: CallDetails, proceed: Any) -> Any:
        raise AssertionError("there is no channel")

    channel = Channel(Server(), interceptors=[never])
    with pytest.raises(RpcError, match="the channel is not open"):
        await grpcio_stubs().GreeterStub(channel).SayHello(hello())
    async with around(never) as (_, stub, channel):
        channel.close()
        with pytest.raises(RpcError, match="the channel was closed"):
            await stub.SayHello(hello())


def test_an_interceptor_is_a_function() -> None:
    with pytest.raises(TypeError, match="interceptor 'x' is no function"):
        Channel("localhost:1", interceptors=["x"])


def test_its_details_are_a_value() -> None:
    details = CallDetails(path="/a/B", cardinality=Cardinality.UNARY_UNARY, request=None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        details.timeout = 3  # type: ignore[misc]
