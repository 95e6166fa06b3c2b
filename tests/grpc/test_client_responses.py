"""What a server may answer, well or badly, and the status that its caller gets: frame by frame, no socket."""

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from grpclib.const import Status

from tests.grpc.client_peers import Request, ScriptedServer
from trio_serve.grpc import RpcError
from trio_serve.grpc.channel import Channel, open_channel
from trio_serve.grpc.client_call import StreamUnaryCall
from trio_serve.wire.grpc import frame_message
from trio_serve.wire.http2 import ErrorCode, Limits

OK_HEADERS = ((b":status", b"200"), (b"content-type", b"application/grpc"))
HTML = ((b":status", b"200"), (b"content-type", b"text/html"))
NO_STATUS = "without a grpc-status"
OVER = "message_bytes_max=4194304"


@asynccontextmanager
async def answered_by(
    answer: Callable[[Request], None], *, early: bool = False
) -> AsyncIterator[tuple[ScriptedServer, Channel]]:
    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, answer, early=early)
        async with open_channel(server) as channel:
            yield server, channel
        nursery.cancel_scope.cancel()


async def error_of(answer: Callable[[Request], None]) -> RpcError:
    """The error of a unary call that is answered so; the next call must succeed all the same."""
    failing = True

    def once(request: Request) -> None:
        nonlocal failing
        if failing:
            failing = False
            answer(request)
        else:
            request.reply(b"fine")

    async with answered_by(once) as (_, channel):
        method = channel.unary_unary("/a.B/C")
        with pytest.raises(RpcError) as caught:
            await method(b"x")
        assert await method(b"y") == b"fine"
    return caught.value


async def test_the_request_has_the_fields_that_grpc_asks_for() -> None:
    async with answered_by(lambda request: request.reply(b"ok")) as (server, channel):
        metadata = (("k", "v"), ("k-bin", b"\xff"))
        await channel.unary_unary("/a.B/C")(b"x", timeout=2.5, metadata=metadata)
    fields = server.requests[0].fields
    assert fields[b":method"] == b"POST"
    assert fields[b":scheme"] == b"http"
    assert fields[b":path"] == b"/a.B/C"
    assert fields[b":authority"] == b"scripted"
    assert fields[b"te"] == b"trailers"
    assert fields[b"content-type"] == b"application/grpc"
    assert fields[b"grpc-timeout"] == b"2500000u"
    assert fields[b"user-agent"].startswith(b"grpc-python-trio/")
    assert fields[b"grpc-accept-encoding"] == b"identity,gzip,deflate"
    assert (fields[b"k"], fields[b"k-bin"]) == (b"v", b"/w")
    assert server.requests[0].messages == [b"x"]


@pytest.mark.parametrize(
    ("http", "status"),
    [
        (400, Status.INTERNAL),
        (401, Status.UNAUTHENTICATED),
        (403, Status.PERMISSION_DENIED),
        (404, Status.UNIMPLEMENTED),
        (429, Status.UNAVAILABLE),
        (502, Status.UNAVAILABLE),
        (503, Status.UNAVAILABLE),
        (504, Status.UNAVAILABLE),
        (418, Status.UNKNOWN),
        (500, Status.UNKNOWN),
    ],
)
@pytest.mark.parametrize("with_body", [False, True])
async def test_an_http_error_is_mapped_to_its_status(http: int, status: Status, with_body: bool) -> None:
    def answer(request: Request) -> None:
        fields = ((b":status", b"%d" % http), (b"content-type", b"text/html"))
        request.fields_only(*fields, end_stream=not with_body)
        if with_body:
            request.raw(b"<html>sorry</html>", end_stream=True)

    error = await error_of(answer)
    assert error.status is status
    assert str(http) in error.details()


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (
            lambda r: r.fields_only(*HTML),
            "UNKNOWN",
            "text/html",
        ),
        (lambda r: r.fields_only((b":status", b"200")), "UNKNOWN", "content-type"),
        (lambda r: r.fields_only(*OK_HEADERS), "UNKNOWN", NO_STATUS),
        (lambda r: r.fields_only(*OK_HEADERS, (b"grpc-status", b"77")), "UNKNOWN", "77"),
        (
            lambda r: (r.headers(), r.message(b"x"), r.fields_only((b"a", b"b"))),
            "UNKNOWN",
            "without a grpc-status",
        ),
        (lambda r: (r.headers(), r.raw(frame_message(b"x"), True)), "INTERNAL", "without trailers"),
        (lambda r: (r.headers(), r.end()), "UNIMPLEMENTED", "sent none"),
        (lambda r: r.fail(Status.OK), "UNIMPLEMENTED", "sent none"),
        (lambda r: (r.headers(), r.message(b"1"), r.message(b"2"), r.end()), "UNIMPLEMENTED", "sent more"),
        (lambda r: (r.headers(), r.raw(b"\0\0\0\0\x09abc"), r.end()), "INTERNAL", "cut off"),
        (lambda r: (r.headers(), r.raw(b"\x07\0\0\0\0"), r.end()), "INTERNAL", "begins with 7"),
        (lambda r: (r.headers(), r.message(b"x", True), r.end()), "INTERNAL", "compressed"),
        (lambda r: r.headers("snappy"), "INTERNAL", "snappy"),
        (lambda r: (r.headers("gzip"), r.message(b"junk", True), r.end()), "INTERNAL", "inflate"),
        (
            lambda r: (r.headers(), r.raw(b"\0\xff\xff\xff\xff")),
            "RESOURCE_EXHAUSTED",
            "message_bytes_max=4194304",
        ),
        (
            lambda r: (r.headers(), r.message(b"x"), r.end(Status.ABORTED, "at the end")),
            "ABORTED",
            "at the end",
        ),
        (lambda r: (r.headers(), r.headers()), "INTERNAL", ""),
    ],
)
async def test_an_answer_that_is_none_has_its_status(
    answer: Callable[[Request], None], status: str, text: str
) -> None:
    error = await error_of(answer)
    assert (error.status.name, text in error.details()) == (status, True), error


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.NO_ERROR, Status.INTERNAL),
        (ErrorCode.PROTOCOL_ERROR, Status.INTERNAL),
        (ErrorCode.INTERNAL_ERROR, Status.INTERNAL),
        (ErrorCode.FLOW_CONTROL_ERROR, Status.INTERNAL),
        (ErrorCode.CANCEL, Status.CANCELLED),
        (ErrorCode.ENHANCE_YOUR_CALM, Status.RESOURCE_EXHAUSTED),
        (ErrorCode.INADEQUATE_SECURITY, Status.PERMISSION_DENIED),
    ],
)
@pytest.mark.parametrize("after", ["request", "headers", "data", "half a message"])
async def test_a_reset_is_mapped_to_its_status(code: ErrorCode, status: Status, after: str) -> None:
    """The 'bad servers' of gRPC's interop: RST_STREAM after headers, after data, during data."""

    def answer(request: Request) -> None:
        if after != "request":
            request.headers()
        if after == "data":
            request.message(b"whole")
        if after == "half a message":
            request.raw(b"\0\0\0\0\x09abc")
        request.reset(code)

    error = await error_of(answer)
    assert error.status is status
    assert code.name in error.details()


async def test_messages_before_an_error_are_delivered_first() -> None:
    def answer(request: Request) -> None:
        request.headers()
        for number in range(3):
            request.message(b"%d" % number)
        request.end(Status.DATA_LOSS, "no more")

    async with answered_by(answer) as (_, channel):
        got = []
        with pytest.raises(RpcError, match="DATA_LOSS: no more"):
            async for message in channel.unary_stream("/a.B/C")(b""):
                got.append(message)  # noqa: PERF401 - what came before the error counts
        assert got == [b"0", b"1", b"2"]


async def test_compressed_replies_are_inflated() -> None:
    def answer(request: Request) -> None:
        request.headers("gzip")
        request.message(gzip.compress(b"squeezed" * 100), compressed=True)
        request.message(b"plain", compressed=False)
        request.end()

    async with answered_by(answer) as (_, channel):
        messages = [message async for message in channel.unary_stream("/a.B/C")(b"")]
    assert messages == [b"squeezed" * 100, b"plain"]


async def test_a_reply_cut_into_single_bytes_is_put_together() -> None:
    def answer(request: Request) -> None:
        request.headers()
        for byte in frame_message(b"slowly"):
            request.raw(bytes([byte]))
        request.end()

    async with answered_by(answer) as (_, channel):
        assert await channel.unary_unary("/a.B/C")(b"") == b"slowly"
        assert [m async for m in channel.unary_stream("/a.B/C")(b"")] == [b"slowly"]


async def test_messages_larger_than_any_window_arrive() -> None:
    """3 MB in frames of 16 KiB; the server is held to its windows all the while."""

    async def answer_slowly(request: Request) -> None:
        data = frame_message(b"x" * 3_000_000)
        request.headers()
        for start in range(0, len(data), 16384):
            request.peer.wire.send_data(request.stream, data[start : start + 16384])
            while request.peer.wire.unsent or request.stream.unsent:
                request.peer.flush()
                await trio.sleep(0.001)
        request.end()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, lambda request: nursery.start_soon(answer_slowly, request))
        async with open_channel(server) as channel:
            assert len(await channel.unary_unary("/a.B/C")(b"")) == 3_000_000
            sizes = [len(message) async for message in channel.unary_stream("/a.B/C")(b"")]
            assert sizes == [3_000_000]
        nursery.cancel_scope.cancel()


async def test_a_peer_that_stops_reading_its_socket_stops_the_writer() -> None:
    """Its windows are wide open, so only the connection's backlog can say stop."""
    wide = Limits(stream_window_bytes=2**30, connection_window_bytes=2**30)
    written = 0

    async def write_all(call: StreamUnaryCall) -> None:
        nonlocal written
        for _ in range(5000):
            await call.write(b"x" * 1000)
            written += 1
        await call.done_writing()

    async with trio.open_nursery() as nursery:
        server = ScriptedServer(nursery, lambda request: request.reply(b"all"), limits=wide)
        async with open_channel(server) as channel, trio.open_nursery() as writers:
            await channel.unary_unary("/a.B/C")(b"")
            server.reads = trio.Event()
            call = channel.stream_unary("/a.B/C")()
            writers.start_soon(write_all, call)
            await trio.testing.wait_all_tasks_blocked()
            assert 100 < written < 1000
            server.reads.set()
            assert await call == b"all"
            assert written == 5000
        nursery.cancel_scope.cancel()


async def test_a_call_answered_before_its_requests_are_done_ends_at_once() -> None:
    async with answered_by(lambda request: request.reply(b"enough"), early=True) as (server, channel):
        call = channel.stream_unary("/a.B/C")()
        assert await call == b"enough"
        await trio.testing.wait_all_tasks_blocked()
        assert server.requests[0].reset_code == ErrorCode.NO_ERROR
        with pytest.raises(RpcError):
            await call.write(b"late")


async def test_cancelling_sends_rst_stream_cancel() -> None:
    async with answered_by(lambda request: None) as (server, channel):
        with trio.move_on_after(1):
            await channel.unary_unary("/a.B/C")(b"")
        await trio.testing.wait_all_tasks_blocked()
        assert server.requests[0].reset_code == ErrorCode.CANCEL


async def test_a_ping_flood_and_unknown_frames_disturb_no_call() -> None:
    def answer(request: Request) -> None:
        for number in range(500):
            request.peer.wire.send_ping(b"%08d" % number)
        request.peer.flush()
        request.peer.send(b"\x00\x00\x03\xbb\x00\x00\x00\x00\x00abc")
        request.reply(b"still here")

    async with answered_by(answer) as (_, channel):
        assert await channel.unary_unary("/a.B/C")(b"") == b"still here"
        assert await channel.unary_unary("/a.B/C")(b"") == b"still here"


async def test_a_server_that_breaks_http2_ends_the_call_and_a_new_connection_serves_the_next() -> None:
    def answer(request: Request) -> None:
        if len(request.peer.server.peers) == 1:
            request.peer.send(b"\x00\x00\x05\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")
        else:
            request.reply(b"ok")

    async with answered_by(answer) as (server, channel):
        method = channel.unary_unary("/a.B/C")
        with pytest.raises(RpcError, match=r"UNAVAILABLE.*FRAME_SIZE_ERROR"):
            await method(b"")
        assert await method(b"") == b"ok"
        assert len(server.peers) == 2


async def test_a_reply_that_does_not_parse_is_internal() -> None:
    async with answered_by(lambda request: request.reply(b"\xff")) as (_, channel):
        method = channel.unary_unary("/a.B/C", response_deserializer=lambda data: data.decode())
        with pytest.raises(RpcError, match=r"INTERNAL: reply message of /a.B/C does not parse"):
            await method(b"")


async def test_bad_metadata_from_the_server_is_internal() -> None:
    error = await error_of(lambda r: r.fields_only(*OK_HEADERS, (b"grpc-status", b"0"), (b"x-bin", b"!")))
    assert error.status is Status.INTERNAL
    assert "base64" in error.details()


async def test_the_message_of_an_error_is_percent_decoded() -> None:
    error = await error_of(
        lambda r: r.fields_only(*OK_HEADERS, (b"grpc-status", b"3"), (b"grpc-message", b"caf%C3%A9 100%"))
    )
    assert (error.status, error.details()) == (Status.INVALID_ARGUMENT, "café 100%")
