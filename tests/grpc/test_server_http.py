"""What comes to the port and is no gRPC call; and what one peer does must not concern another."""

import pytest
import trio
from grpclib.const import Status
from trio.testing import wait_all_tasks_blocked

from tests.grpc.echo import ONE, Echo, Note, serving
from tests.grpc.raw_client import RawClient, connected
from trio_serve.wire.grpc import frame_message
from trio_serve.wire.http2 import ErrorCode, Limits

GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"test"))


def method(name: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return ((b":method", name), *GET[1:])


async def test_a_plain_get_is_answered_415_with_a_short_body() -> None:
    server = serving(Echo())
    async with connected(server) as client:
        call = await client.request(GET)
        await wait_all_tasks_blocked()

        assert call.header(b":status") == b"415"
        assert 5 <= len(call.data) <= 200
        assert call.ended
        assert server.counters.refused == 1


async def test_a_head_request_gets_no_body() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.request(method(b"HEAD"))
        await wait_all_tasks_blocked()

        assert call.header(b":status") == b"415"
        assert not call.data
        assert call.ended


async def test_the_body_of_a_refusal_keeps_to_the_window() -> None:
    async with connected(serving(Echo()), limits=Limits(stream_window_bytes=1)) as client:
        call = await client.request(GET)
        await wait_all_tasks_blocked()
        assert len(call.data) >= 1


async def test_an_early_415_does_not_end_the_checks_on_its_stream() -> None:
    """No RST_STREAM(NO_ERROR): the request's later frames are still verified, until it ends."""
    fields = (*method(b"POST"), (b"content-length", b"4"))
    async with connected(serving(Echo())) as client:
        call = await client.request(fields, end=False)
        await wait_all_tasks_blocked()
        assert call.header(b":status") == b"415"
        assert call.error is None
        await call.send_bytes(b"12345")
        await wait_all_tasks_blocked()

        assert call.error is not None
        assert call.error.code == ErrorCode.PROTOCOL_ERROR


async def test_a_refused_request_may_send_its_body_to_the_end() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.request(method(b"POST"), end=False)
        for _ in range(20):
            await call.send_bytes(bytes(3000))
        await call.send_bytes(b"", end=True)
        await wait_all_tasks_blocked()
        assert not client.wire.streams
        assert call.error is None


async def test_a_wrong_content_type_is_415_and_a_wrong_timeout_a_status() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.request((*method(b"POST"), (b"content-type", b"application/json")))
        await wait_all_tasks_blocked()
        assert call.header(b":status") == b"415"

        path = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", ONE.encode()))
        grpc = (*path, (b"content-type", b"application/grpc"), (b"te", b"trailers"))
        call = await client.request((*grpc, (b"grpc-timeout", b"soon")))
        assert (await call.done()).status is Status.INTERNAL


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(500), b"\x00" * 100_000])
async def test_garbage_ends_its_own_connection_only(junk: bytes, caplog: pytest.LogCaptureFixture) -> None:
    server = serving(Echo())
    async with connected(server) as client:
        stranger = server.connect()
        try:
            await stranger.send_all(junk)
        except trio.BrokenResourceError:
            pass
        await stranger.aclose()
        call = await client.call(ONE, Note())

        assert (await call.done()).status is Status.OK
        await wait_all_tasks_blocked()
        assert server.counters.connections == 1
        assert server.counters.connection_errors == 0
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_bug_in_one_connection_is_logged_once_and_ends_that_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = serving(Echo())
    async with connected(server) as client:
        await (await client.call(ONE, Note())).done()
        other = RawClient(server.connect())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.run)
            await other.ready.wait()
            broken = max(server._running.connections, key=lambda one: one.wire.streams_opened == 0)
            monkeypatch.setattr(type(broken.wire), "receive_data", _explode_for(broken.wire))
            await other.call(ONE, Note())
            await other.closed.wait()
        monkeypatch.undo()
        call = await client.call(ONE, Note())

        assert (await call.done()).status is Status.OK
        assert server.counters.connection_errors == 1
        assert len([record for record in caplog.records if record.exc_info]) == 1


def _explode_for(wire: object):  # type: ignore[no-untyped-def]
    real = type(wire).receive_data  # type: ignore[attr-defined]

    def receive_data(self: object, data: bytes, now: float = 0.0) -> None:
        if self is wire:
            raise AssertionError("a bug")
        real(self, data, now)

    return receive_data


async def test_the_101st_stream_is_refused_and_the_others_go_on() -> None:
    async with connected(serving(Echo())) as client:
        calls = [await client.call(ONE, end=False) for _ in range(100)]
        client.wire.peer.streams_max = 1000  # the client forgets what it was told
        late = await client.call(ONE, Note())
        await wait_all_tasks_blocked()
        assert late.error is not None
        assert late.error.code == ErrorCode.REFUSED_STREAM
        assert not late.error.processed

        for call in calls:
            await call.send_bytes(frame_message(b""), end=True)
            assert (await call.done()).status is Status.OK


async def test_too_much_metadata_fails_that_call_and_the_connection_lives() -> None:
    async with connected(serving(Echo())) as client:
        await client.ready.wait()
        client.wire.peer.header_list_bytes_max = None  # a client that does not care what it was told
        call = await client.call(ONE, Note(), metadata=[("k", "v" * 20_000)])
        await wait_all_tasks_blocked()
        assert call.ended

        other = await client.call(ONE, Note())
        assert (await other.done()).status is Status.OK


async def test_methods_come_and_go_while_serving() -> None:
    server = serving(Echo())
    async with connected(server) as client:
        method = server.methods[ONE]
        server.unregister(ONE)
        call = await client.call(ONE, Note())
        assert (await call.done()).status is Status.UNIMPLEMENTED
        server.register(method)
        call = await client.call(ONE, Note())
        assert (await call.done()).status is Status.OK
