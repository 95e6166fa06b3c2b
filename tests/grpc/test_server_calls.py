"""One call of each kind, over real HTTP/2 bytes, in memory and in virtual time."""

from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from trio.testing import wait_all_tasks_blocked

from tests.grpc.echo import CHAT, MANY, ONE, SUM, Echo, Note, serving
from tests.grpc.raw_client import connected
from trio_serve.transport.connection import LATE_RESET_S
from trio_serve.wire.grpc import frame_message


async def test_a_unary_call() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, Note(text="hello"))

        assert (await call.done()).status is Status.OK
        assert [note.text for note in call.parsed()] == ["hello"]


async def test_a_streamed_reply() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(MANY, Note(text="x", number=300))

        assert (await call.done()).status is Status.OK
        assert [note.number for note in call.parsed()] == list(range(300))


async def test_streamed_requests() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(SUM, *[Note(number=number) for number in range(100)])

        assert (await call.done()).status is Status.OK
        assert call.parsed()[0].number == 4950


async def test_both_ways_each_message_is_answered_before_the_next_is_sent() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(CHAT, end=False)
        for number in range(5):
            await call.send(Note(number=number))
            assert (await call.messages(number + 1))[-1].number == number
        await call.send(end=True)

        assert (await call.done()).status is Status.OK


async def test_a_streamed_request_without_a_message_is_legal() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(SUM)

        assert (await call.done()).status is Status.OK
        assert call.parsed() == [Note()]


async def test_an_empty_message_is_a_message() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, Note())

        assert (await call.done()).status is Status.OK
        assert call.data == frame_message(b"")


@pytest.mark.parametrize("count", [0, 2])
async def test_a_unary_request_that_is_not_one_message_is_unimplemented(count: int) -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, *[Note()] * count)

        assert (await call.done()).status is Status.UNIMPLEMENTED
        assert call.status().message.startswith(f"{ONE} takes one request message; ")


async def test_a_unary_request_in_single_bytes_is_the_same_request() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, end=False)
        for byte in frame_message(Note(text="slow").SerializeToString()):
            await call.send_bytes(bytes((byte,)))
        await call.send(end=True)

        assert (await call.done()).status is Status.OK
        assert call.parsed()[0].text == "slow"


async def test_an_unknown_method_is_unimplemented() -> None:
    async with connected(serving(Echo())) as client:
        for path in ("/tests.server.Echo/Two", "/nobody/Nothing", "/"):
            call = await client.call(path, Note())
            assert (await call.done())[:2] == (Status.UNIMPLEMENTED, "Method not found!")


async def test_a_request_that_cannot_be_parsed_names_the_message_type() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, end=False)
        await call.send_bytes(frame_message(b"\xff\xff"), end=True)

        assert (await call.done()).status is Status.INVALID_ARGUMENT
        assert "tests.server.Note" in call.status().message


async def test_a_request_message_over_the_limit_is_refused_at_its_prefix() -> None:
    """Only the five bytes of the prefix are sent, and the answer does not wait for more."""
    async with connected(serving(Echo(), message_bytes_max=1000)) as client:
        for path in (ONE, CHAT):
            call = await client.call(path, end=False)
            await call.send_bytes(frame_message(bytes(1001))[:5])

            assert (await call.done()).status is Status.RESOURCE_EXHAUSTED
            assert call.status().message == (
                "request message of 1001 bytes is over message_bytes_max=1000 (set it in grpc_options)"
            )


async def test_a_request_message_at_the_limit_is_served() -> None:
    note = Note(blob=bytes(990))
    async with connected(serving(Echo(), message_bytes_max=note.ByteSize())) as client:
        call = await client.call(ONE, note)

        assert (await call.done()).status is Status.OK


async def test_a_request_cut_off_within_a_message_is_internal() -> None:
    async with connected(serving(Echo())) as client:
        for path in (ONE, SUM):
            call = await client.call(path, end=False)
            await call.send_bytes(frame_message(b"1234")[:6], end=True)

            assert (await call.done()).status is Status.INTERNAL
            assert "cut off" in call.status().message


async def test_a_handler_that_ends_early_does_not_wait_for_the_requests() -> None:
    class Hasty(Echo):
        async def Sum(self, requests: Any, context: Any) -> Any:
            return Note(number=7)

    async with connected(serving(Hasty())) as client:
        call = await client.call(SUM, end=False)

        assert (await call.done()).status is Status.OK
        await trio.sleep(2 * LATE_RESET_S)
        assert not client.wire.streams  # it was reset, so that nothing more is sent in vain


class Failing(Echo):
    error: BaseException = ValueError("bad\nluck")

    async def One(self, request: Any, context: Any) -> Any:
        raise self.error

    async def Many(self, request: Any, context: Any) -> Any:
        for number in range(3):
            yield Note(number=number)
        raise self.error


async def test_what_a_handler_raises_is_unknown_and_says_what(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(serving(Failing())) as client:
        call = await client.call(ONE, Note())

        assert (await call.done())[:2] == (Status.UNKNOWN, "ValueError: bad\nluck")
        assert len(call.blocks) == 1  # trailers only
        assert [record.message for record in caplog.records] == [f"{ONE}: the handler raised"]


async def test_what_a_stream_raises_comes_after_its_messages() -> None:
    async with connected(serving(Failing())) as client:
        call = await client.call(MANY, Note())

        assert (await call.done()).status is Status.UNKNOWN
        assert [note.number for note in call.parsed()] == [0, 1, 2]


async def test_a_grpc_error_is_the_status_with_its_details(caplog: pytest.LogCaptureFixture) -> None:
    from trio_serve.grpc.rpc_error import unpack_details

    servicer = Failing()
    servicer.error = GRPCError(Status.NOT_FOUND, "no such note", [Note(text="why")])
    async with connected(serving(servicer)) as client:
        for path in (ONE, MANY):
            call = await client.call(path, Note())

            assert (await call.done())[:2] == (Status.NOT_FOUND, "no such note")
            assert unpack_details(call.status().details) == [Note(text="why")]
    assert not caplog.records


async def test_a_single_error_in_groups_counts_as_itself() -> None:
    servicer = Failing()
    servicer.error = ExceptionGroup("", [ExceptionGroup("", [GRPCError(Status.ABORTED, "inner")])])
    async with connected(serving(servicer)) as client:
        call = await client.call(ONE, Note())

        assert (await call.done())[:2] == (Status.ABORTED, "inner")


@pytest.mark.parametrize("error", [SystemExit(3), RecursionError("deep"), KeyError(), GeneratorExit()])
async def test_no_exception_of_a_handler_ends_the_server(error: BaseException) -> None:
    servicer = Failing()
    servicer.error = error
    async with connected(serving(servicer)) as client:
        failed = await client.call(ONE, Note())
        assert (await failed.done()).status is Status.UNKNOWN
        assert type(error).__name__ in failed.status().message

        other = await client.call(SUM, Note(number=1))
        assert (await other.done()).status is Status.OK


async def test_a_reply_of_another_type_is_internal_and_names_both() -> None:
    class Confused(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            return "a string"

        async def Many(self, request: Any, context: Any) -> Any:
            yield None

    async with connected(serving(Confused())) as client:
        one = await client.call(ONE, Note())
        many = await client.call(MANY, Note())

        assert (await one.done())[:2] == (
            Status.INTERNAL,
            "tests.server.Echo/One returned str where the rpc declares tests.server.Note",
        )
        assert (await many.done()).status is Status.INTERNAL


async def test_long_details_are_cut_in_the_middle() -> None:
    servicer = Failing()
    servicer.error = GRPCError(Status.ABORTED, "begin" + "x" * 10_000 + "end")
    async with connected(serving(servicer)) as client:
        call = await client.call(ONE, Note())
        message = (await call.done()).message

    assert len(message) <= 4096
    assert message.startswith("begin")
    assert message.endswith("end")


async def test_initial_and_trailing_metadata_with_binary_values() -> None:
    class Telling(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            assert ("k", "v") in context.invocation_metadata()
            assert ("raw-bin", b"\x00\xff") in context.invocation_metadata()
            await context.send_initial_metadata((("first", "1"),))
            context.set_trailing_metadata((("last", "2"), ("last-bin", b"\xff")))
            return request

    async with connected(serving(Telling())) as client:
        call = await client.call(ONE, Note(), metadata=(("k", "v"), ("raw-bin", b"\x00\xff")))
        trailers = await call.done()

        assert trailers.status is Status.OK
        assert call.header(b"first") == b"1"
        assert trailers.metadata == (("last", "2"), ("last-bin", b"\xff"))


@pytest.mark.parametrize("metadata", [(("Upper", "1"),), (("k", "line\nbreak"),), (("grpc-status", "0"),)])
async def test_metadata_that_cannot_be_sent_is_an_error_in_the_handler(metadata: Any) -> None:
    class Injecting(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            with pytest.raises(ValueError, match="metadata"):
                context.set_trailing_metadata(metadata)
            with pytest.raises(ValueError, match="metadata"):
                await context.send_initial_metadata(metadata)
            return request

    async with connected(serving(Injecting())) as client:
        call = await client.call(ONE, Note())
        assert (await call.done()).status is Status.OK


async def test_a_code_that_a_handler_sets_leaves_with_its_return() -> None:
    class Setting(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            context.set_code(Status.ALREADY_EXISTS)
            context.set_details("twice")
            context.set_trailing_metadata((("k", "v"),))
            assert (context.code(), context.details()) == (Status.ALREADY_EXISTS, "twice")
            assert context.trailing_metadata() == (("k", "v"),)
            return request

        async def Many(self, request: Any, context: Any) -> Any:
            yield request
            context.set_code(6)

    async with connected(serving(Setting())) as client:
        call = await client.call(ONE, Note())
        assert (await call.done())[:3] == (Status.ALREADY_EXISTS, "twice", (("k", "v"),))
        assert not call.data
        streamed = await client.call(MANY, Note())
        assert (await streamed.done()).status is Status.ALREADY_EXISTS


async def test_a_code_that_a_handler_sets_before_it_raises_counts(caplog: pytest.LogCaptureFixture) -> None:
    """As under grpcio, whose generated servicers leave a method out in this way."""

    class Raising(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            context.set_code(Status.FAILED_PRECONDITION)
            context.set_trailing_metadata((("k", "v"),))
            raise ValueError("bad luck")

        async def Many(self, request: Any, context: Any) -> Any:
            context.set_code(12)
            context.set_details("Method not implemented!")
            raise NotImplementedError("Method not implemented!")
            yield

        async def Sum(self, requests: Any, context: Any) -> Any:
            context.set_code(Status.FAILED_PRECONDITION)
            raise GRPCError(Status.NOT_FOUND, "a status of its own")

    async with connected(serving(Raising())) as client:
        call = await client.call(ONE, Note())
        assert (await call.done())[:3] == (
            Status.FAILED_PRECONDITION,
            "ValueError: bad luck",
            (("k", "v"),),
        )
        assert [record.message for record in caplog.records] == [f"{ONE}: the handler raised"]

        left_out = await client.call(MANY, Note())
        assert (await left_out.done())[:2] == (Status.UNIMPLEMENTED, "Method not implemented!")
        own = await client.call(SUM, Note())
        assert (await own.done()).status is Status.NOT_FOUND
        assert len(caplog.records) == 1


async def test_abort_ends_the_handler_there() -> None:
    went_on = False

    class Aborting(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            nonlocal went_on
            await context.abort(Status.PERMISSION_DENIED, "not you", (("k", "v"),))
            went_on = True

    async with connected(serving(Aborting())) as client:
        call = await client.call(ONE, Note())
        assert (await call.done())[:3] == (Status.PERMISSION_DENIED, "not you", (("k", "v"),))
    assert not went_on


async def test_done_callbacks_are_called_once_the_handler_is_done() -> None:
    told = []

    class Watched(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            context.add_done_callback(lambda context: told.append(context.done()))
            return request

    async with connected(serving(Watched())) as client:
        await (await client.call(ONE, Note())).done()
    assert told == [True]


async def test_read_and_write_of_the_context() -> None:
    class Reading(Echo):
        async def Chat(self, requests: Any, context: Any) -> None:
            while (request := await context.read()) is not None:
                await context.write(request)

    async with connected(serving(Reading())) as client:
        call = await client.call(CHAT, Note(number=1), Note(number=2))
        assert (await call.done()).status is Status.OK
        assert [note.number for note in call.parsed()] == [1, 2]


async def test_counters_count_calls_messages_and_codes() -> None:
    server = serving(Echo())
    async with connected(server) as client:
        await (await client.call(CHAT, *[Note()] * 3)).done()
        await (await client.call(ONE, Note())).done()
        await (await client.call(ONE)).done()
        hanging = await client.call(CHAT, end=False)
        await wait_all_tasks_blocked()

        chat, one = server.method_counters[CHAT], server.method_counters[ONE]
        assert (chat.started, chat.received, chat.sent, chat.running) == (2, 3, 3, 1)
        assert (one.started, one.received, one.sent) == (2, 1, 1)
        assert one.handled[Status.UNIMPLEMENTED.value] == 1
        assert sum(one.latency_buckets) == 2
        await hanging.cancel()
        await wait_all_tasks_blocked()
        assert chat.handled[Status.CANCELLED.value] == 1
        assert chat.running == 0


async def test_calls_beyond_the_running_and_the_queued_are_refused_at_once() -> None:
    release = trio.Event()

    class Slow(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            await release.wait()
            return request

    async with connected(serving(Slow(), max_running=1, max_queued=1)) as client:
        first, second, third = [await client.call(ONE, Note()) for _ in range(3)]
        assert (await third.done()).status is Status.RESOURCE_EXHAUSTED
        release.set()
        assert (await first.done()).status is Status.OK
        assert (await second.done()).status is Status.OK
