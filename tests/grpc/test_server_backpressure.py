"""A client that stops reading stops the handler; large messages are never a deadlock nor a heap."""

from typing import Any

import pytest
import trio
from grpclib.const import Status
from trio.testing import wait_all_tasks_blocked

from tests.grpc.echo import CHAT, MANY, ONE, SUM, Echo, Note, serving
from tests.grpc.raw_client import RawClient, connected
from trio_serve.grpc.outbox import MESSAGES_A_TURN
from trio_serve.transport.memory import PIPE_BYTES
from trio_serve.transport.window_loans import LOANS_BYTES_MAX
from trio_serve.transport.writer import BACKLOG_HIGH
from trio_serve.wire.grpc import frame_message
from trio_serve.wire.http2 import ErrorCode, Limits

MIB = 1024 * 1024
KIB = 1024


class Producer(Echo):
    """Streams blobs without end and counts them."""

    def __init__(self, size: int = KIB) -> None:
        self.blob = bytes(size)
        self.produced = 0

    async def Many(self, request: Any, context: Any) -> Any:
        while True:
            self.produced += 1
            yield Note(blob=self.blob)


async def test_a_client_that_opens_no_window_parks_the_producer() -> None:
    producer = Producer()
    server = serving(producer)
    async with connected(server, reads=False) as client:
        call = await client.call(MANY, Note())
        await wait_all_tasks_blocked()
        parked_at = producer.produced
        await trio.sleep(1000)

        assert producer.produced == parked_at
        high = client.wire.limits.stream_window_bytes + Limits().send_high_water
        assert parked_at * KIB <= high + 16 * KIB

        for _ in range(2):  # the producer goes on at the low water mark, which one window does not reach
            client.wire.acknowledge(call.stream, 65535)
            await client.flush()
            await wait_all_tasks_blocked()
        assert parked_at < producer.produced <= parked_at + 2 * 64


async def test_a_client_that_leaves_its_socket_unread_parks_the_producer() -> None:
    """Its windows are wide open; only the pipe is full."""
    producer = Producer()
    limits = Limits(
        stream_window_bytes=1 << 30, stream_window_bytes_max=1 << 30, connection_window_bytes=1 << 30
    )
    server = serving(producer)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners)
        client = RawClient(server.connect(), limits=limits)
        with trio.CancelScope() as reading:
            nursery.start_soon(client.run)
            call = await client.call(MANY, Note())
            await call.messages(100)
            client.stop_reading()
            await wait_all_tasks_blocked()
        parked_at = producer.produced
        await trio.sleep(50)

        assert not reading.cancel_called
        assert producer.produced == parked_at
        assert (parked_at - len(call.parsed())) * KIB <= BACKLOG_HIGH + 2 * PIPE_BYTES + 64 * KIB
        nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_nothing_for_write_stall_s_is_cut_off() -> None:
    producer = Producer()
    limits = Limits(
        stream_window_bytes=1 << 30, stream_window_bytes_max=1 << 30, connection_window_bytes=1 << 30
    )
    server = serving(producer)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners)
        client = RawClient(server.connect(), limits=limits)
        nursery.start_soon(client.run)
        call = await client.call(MANY, Note())
        await call.messages(1)
        client.stop_reading()
        started = trio.current_time()
        while server.counters.connections:  # noqa: ASYNC110 - a counter has no event
            await trio.sleep(1)

        assert 59 < trio.current_time() - started < 63
        assert server.method_counters[MANY].handled[Status.CANCELLED.value] == 1
        nursery.cancel_scope.cancel()


async def test_the_reader_is_held_back_while_answers_lie_unread() -> None:
    """Unary answers never wait, so a peer that reads none is not read either, past a bound."""
    server = serving(Echo())
    limits = Limits(
        stream_window_bytes=1 << 30, stream_window_bytes_max=1 << 30, connection_window_bytes=1 << 30
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners)
        client = RawClient(server.connect(), limits=limits)
        nursery.start_soon(client.run)
        await (await client.call(ONE, Note())).done()
        client.stop_reading()
        client.wire.peer.streams_max = 10_000  # the server has answered, so for it there is room
        sent = 0
        with trio.move_on_after(5):
            while True:
                await client.call(ONE, Note(blob=bytes(50_000)))
                sent += 1

        assert sent * 50_000 < 2 * MIB
        assert server.counters.connections == 1
        nursery.cancel_scope.cancel()


async def test_a_handler_that_does_not_read_parks_the_client_and_nobody_else() -> None:
    class Deaf(Echo):
        async def Sum(self, requests: Any, context: Any) -> Any:
            await trio.sleep(100)
            return Note(number=sum([len(request.blob) async for request in requests]))

    async with connected(serving(Deaf())) as client:
        deaf = await client.call(SUM, *[Note(blob=bytes(10_000))] * 30)
        await wait_all_tasks_blocked()
        assert deaf.stream.unsent > 200_000

        other = await client.call(ONE, Note(blob=bytes(3 * MIB)))
        assert (await other.done()).status is Status.OK
        assert (await deaf.done()).status is Status.OK
        assert deaf.parsed()[0].number == 300_000


async def test_40_deaf_handlers_hold_up_no_other_call_of_the_connection() -> None:
    class Deaf(Echo):
        async def Sum(self, requests: Any, context: Any) -> Any:
            async for _ in requests:
                await trio.sleep(1000)

    async with connected(serving(Deaf())) as client:
        for _ in range(40):
            await client.call(SUM, *[Note(blob=bytes(30_000))] * 20)
        await wait_all_tasks_blocked()
        started = trio.current_time()
        other = await client.call(ONE, Note(blob=bytes(2 * MIB)))
        assert (await other.done()).status is Status.OK
        assert trio.current_time() - started < 1


async def test_a_window_full_of_tiny_messages_leaves_the_others_their_turns() -> None:
    """They came while the handler slept: now it could take one after the other and never wait."""
    taken, awake = 0, trio.Event()

    class Counting(Echo):
        async def Sum(self, requests: Any, context: Any) -> Any:
            nonlocal taken
            await awake.wait()
            async for _ in requests:
                taken += 1
            return Note(number=taken)

    async with connected(serving(Counting())) as client:
        call = await client.call(SUM, end=False)
        client.wire.send_data(call.stream, frame_message(b"") * 12_000, end_stream=True)
        await client.flush()
        await wait_all_tasks_blocked()
        awake.set()
        most = 0
        while taken < 12_000:
            before = taken
            await trio.lowlevel.checkpoint()
            most = max(most, taken - before)

        assert (await call.done()).status is Status.OK
    assert most <= 2 * MESSAGES_A_TURN


@pytest.mark.parametrize("size", [60_000, 65_530, 65_536, 66_000, 131_072, MIB, 4 * MIB - 16])
async def test_messages_around_and_over_the_window_arrive(size: int) -> None:
    async with connected(serving(Echo())) as client:
        one = await client.call(ONE, Note(blob=bytes(size)))
        chat = await client.call(CHAT, *[Note(blob=bytes(size))] * 3)

        assert (await one.done()).status is Status.OK
        assert (await chat.done()).status is Status.OK
        assert [len(note.blob) for note in chat.parsed()] == [size] * 3


async def test_100_large_messages_at_once_all_arrive() -> None:
    async with connected(serving(Echo())) as client:
        calls = [await client.call(ONE, Note(blob=bytes(MIB))) for _ in range(100)]
        for call in calls:
            assert (await call.done()).status is Status.OK
            call.data.clear()


async def test_a_message_larger_than_all_loans_arrives() -> None:
    async with connected(serving(Echo(), message_bytes_max=20 * MIB)) as client:
        calls = [await client.call(ONE, Note(blob=bytes(12 * MIB))) for _ in range(2)]
        for call in calls:
            assert (await call.done()).status is Status.OK


async def test_100_stalled_echoes_of_1_mib_hold_a_bounded_part_of_it() -> None:
    """The client sends 100 MiB and takes no answer: its window is 0."""
    limits = Limits(stream_window_bytes=0, stream_window_bytes_max=0)
    server = serving(Echo())
    async with connected(server, limits=limits) as client:
        calls = [await client.call(ONE, Note(blob=bytes(MIB))) for _ in range(100)]
        await wait_all_tasks_blocked()

        (connection,) = server._running.connections
        wire = connection.wire
        stalled = sum(stream.unsent for stream in wire.streams.values())
        incoming = sum(stream.unacknowledged for stream in wire.streams.values())
        assert stalled <= LOANS_BYTES_MAX + MIB
        assert incoming + stalled < LOANS_BYTES_MAX + 100 * 64 * KIB + MIB

        # And it goes on as soon as the client takes its answers.
        for call in calls:
            client.wire.lend_window(call.stream, 2 * MIB)
        await client.flush()
        for call in calls:
            assert (await call.done()).status is Status.OK


async def test_a_loan_ends_with_its_call() -> None:
    server = serving(Echo())
    async with connected(server) as client:
        for path in (ONE, CHAT):
            call = await client.call(path, end=False)
            await call.send_bytes(frame_message(bytes(3 * MIB))[: 100 * KIB])
            await wait_all_tasks_blocked()
            (connection,) = server._running.connections
            assert connection.loans._lent
            client.wire.reset_stream(call.stream, ErrorCode.CANCEL)
            await client.flush()
            await wait_all_tasks_blocked()
            assert not connection.loans._lent
            assert not connection.loans.waiting


async def test_4_gib_announced_are_refused_at_the_prefix() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, end=False)
        await call.send_bytes(b"\0\xff\xff\xff\xff")
        assert (await call.done()).status is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_inflates_to_the_limit_and_no_further(encoding: str) -> None:
    from trio_serve.wire.grpc import compressor

    compress = compressor(encoding)
    assert compress is not None
    bomb = compress(bytes(64 * MIB))
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, end=False, encoding=encoding)
        await call.send_bytes(frame_message(bomb, compressed=True), end=True)
        assert (await call.done()).status is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compression_both_ways(encoding: str) -> None:
    from trio_serve.wire.grpc import compressor, decompressor

    class Compressing(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            context.set_compression(encoding)
            return request

    compress, inflate = compressor(encoding), decompressor(encoding)
    assert compress is not None and inflate is not None
    note = Note(text="again and again " * 100)
    async with connected(serving(Compressing())) as client:
        call = await client.call(ONE, end=False, encoding=encoding)
        await call.send_bytes(frame_message(compress(note.SerializeToString()), compressed=True), end=True)
        assert (await call.done()).status is Status.OK
        assert call.header(b"grpc-encoding") == encoding.encode()
        assert call.data[0] == 1
        assert Note.FromString(inflate(call.data[5:], MIB)) == note

        plain = await client.call(ONE, note, accept_encoding=b"")
        assert (await plain.done()).status is Status.OK
        assert plain.header(b"grpc-encoding") is None
        assert plain.parsed() == [note]


async def test_an_unknown_encoding_is_unimplemented_and_told_what_there_is() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, Note(), encoding="br")
        assert (await call.done()).status is Status.UNIMPLEMENTED
        assert call.header(b"grpc-accept-encoding") == b"identity,gzip,deflate"


async def test_a_compressed_message_without_an_encoding_is_internal() -> None:
    async with connected(serving(Echo())) as client:
        call = await client.call(ONE, end=False)
        await call.send_bytes(frame_message(b"x", compressed=True), end=True)
        assert (await call.done()).status is Status.INTERNAL
