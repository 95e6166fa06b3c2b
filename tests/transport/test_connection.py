"""One reader, one writer: what leaves when, and how a connection ends."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.peers import REQUEST, RESPONSE, Owner, Received, connected
from trio_serve.transport.connection import FRAMES_A_TURN, LATE_RESET_S, ConnectionOptions
from trio_serve.transport.memory import MemoryByteStream
from trio_serve.transport.writer import ANSWERS_AT_ONCE
from trio_serve.wire.http2 import ErrorCode, Limits, Role


async def test_the_answers_of_one_turn_leave_in_one_send() -> None:
    async with connected() as (connection, owner, peer):
        for _ in range(ANSWERS_AT_ONCE - 1):
            peer.wire.open_stream(REQUEST, Received(), end_stream=True)
        await peer.exchange()
        peer.sends = 0
        for stream in owner.streams:
            connection.wire.send_reply(stream, RESPONSE, b"x", ((b"done", b"1"),))
            connection.answered()
        await peer.exchange()

        assert len(owner.streams) == ANSWERS_AT_ONCE - 1
        assert peer.sends == 1
        assert not peer.wire.streams


async def test_requests_that_are_answered_as_they_are_read_share_a_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a server refuses calls: no other is open, so each answer seems to be the last."""

    class Refusing(Owner):
        def request_received(self, connection: Any, stream: Any, block: Any, end_stream: bool) -> Any:
            receiver = super().request_received(connection, stream, block, end_stream)
            connection.wire.send_headers(stream, RESPONSE, end_stream=True)
            connection.answered()
            return receiver

    sends = []

    def send_nowait(byte_stream: MemoryByteStream, data: bytes) -> int:
        sends.append(byte_stream)
        return send(byte_stream, data)

    async with connected(owner=Refusing()) as (connection, owner, peer):
        send = MemoryByteStream.send_nowait
        monkeypatch.setattr(MemoryByteStream, "send_nowait", send_nowait)
        for _ in range(ANSWERS_AT_ONCE - 1):
            peer.wire.open_stream(REQUEST, Received(), end_stream=True)
        await peer.exchange()

        assert len(owner.streams) == ANSWERS_AT_ONCE - 1
        assert sends.count(connection.byte_stream) == 1
        assert not peer.wire.streams


async def test_many_answers_of_one_turn_leave_early_and_in_order() -> None:
    async with connected() as (connection, owner, peer):
        receivers = [Received() for _ in range(3 * ANSWERS_AT_ONCE)]
        for receiver in receivers:
            peer.wire.open_stream(REQUEST, receiver, end_stream=True)
        await peer.exchange()
        for number, stream in enumerate(owner.streams):
            connection.wire.send_reply(stream, RESPONSE, b"%d" % number, ((b"done", b"1"),))
            connection.answered()
        assert connection.writer.backlog < 10 * ANSWERS_AT_ONCE * 3  # before any task has run
        await peer.exchange()

        assert [receiver.data for receiver in receivers] == [b"%d" % n for n in range(len(receivers))]


async def test_what_an_early_send_leaves_over_follows_in_order() -> None:
    """Five answers are more than the pipe holds."""
    async with connected() as (connection, owner, peer):
        receivers = [Received() for _ in range(5)]
        for receiver in receivers:
            peer.wire.open_stream(REQUEST, receiver, end_stream=True)
        await peer.exchange()
        for number, stream in enumerate(owner.streams):
            connection.wire.send_reply(stream, RESPONSE, bytes((number,)) * 20_000, ((b"done", b"1"),))
            for _ in range(ANSWERS_AT_ONCE):
                connection.answered()
        await peer.exchange()

        assert [receiver.data for receiver in receivers] == [bytes((n,)) * 20_000 for n in range(5)]


async def test_an_early_send_that_fails_is_the_connections_affair_and_not_the_callers() -> None:
    async with connected() as (connection, owner, peer):
        for _ in range(2 * ANSWERS_AT_ONCE):
            peer.wire.open_stream(REQUEST, Received(), end_stream=True)
        await peer.exchange()
        await peer.byte_stream.aclose()
        for stream in owner.streams:
            connection.wire.send_reply(stream, RESPONSE, b"x", ((b"done", b"1"),))
            connection.answered()
        await owner.closed.wait()


async def test_what_does_not_fit_the_pipe_follows_in_order() -> None:
    async with connected() as (connection, owner, peer):
        receiver = Received()
        peer.wire.open_stream(REQUEST, receiver, end_stream=True)
        await peer.exchange()
        blob = bytes(range(256)) * 2000
        connection.wire.send_headers(owner.streams[0], RESPONSE)
        connection.wire.send_data(owner.streams[0], blob, end_stream=True)
        connection.touch()
        for _ in range(100):
            await peer.exchange()
            if receiver.ended:
                break
            stream = next(iter(peer.wire.streams.values()))
            peer.wire.acknowledge(stream, stream.unacknowledged)
        assert receiver.data == blob


async def test_a_flood_gets_so_many_frames_a_turn_and_no_more() -> None:
    """The clock stands still here: it is the number that counts, not the time that they take."""
    streams = 10 * FRAMES_A_TURN
    options = ConnectionOptions(limits=Limits(streams_max=streams))
    async with connected(options=options) as (_, owner, peer):
        for _ in range(streams):
            peer.wire.open_stream(REQUEST, Received())
        await peer.byte_stream.send_all(peer.wire.data_to_send())
        most = 0
        while len(owner.streams) < streams:
            before = len(owner.streams)
            await trio.lowlevel.checkpoint()
            most = max(most, len(owner.streams) - before)

        assert most <= 2 * FRAMES_A_TURN  # its turn may come before ours once, and after ours the next time
        assert not peer.goaways


async def test_garbage_instead_of_the_preface_ends_that_connection_with_goaway() -> None:
    async with connected(started=False) as (_, owner, peer):
        await peer.byte_stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await peer.exchange()

        assert peer.goaways[0][1] == ErrorCode.PROTOCOL_ERROR
        assert peer.received_eof
        await owner.closed.wait()


async def test_a_peer_that_leaves_resets_its_streams() -> None:
    async with connected() as (_, owner, peer):
        peer.wire.open_stream(REQUEST, Received())
        await peer.exchange()
        await peer.byte_stream.aclose()
        await owner.closed.wait()

        assert owner.receivers[0].error is not None
        assert owner.reasons == ["the peer closed the connection"]


async def test_a_peer_without_a_preface_is_cut_at_the_handshake_timeout() -> None:
    async with connected(started=False) as (_, owner, peer):
        started = trio.current_time()
        await peer.byte_stream.send_all(b"PRI * HTTP/2.0\r\n")
        await owner.closed.wait()

        assert 10 <= trio.current_time() - started <= 12
        assert owner.reasons == ["no HTTP/2 preface within handshake_timeout_s=10"]


async def test_a_peer_that_sends_a_byte_a_second_is_cut_at_the_handshake_timeout() -> None:
    async with connected(started=False) as (_, owner, peer):
        started = trio.current_time()
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
            if owner.closed.is_set():
                break
            try:
                await peer.byte_stream.send_all(bytes((byte,)))
            except trio.BrokenResourceError:
                break
            await trio.sleep(1)
        await owner.closed.wait()
        assert trio.current_time() - started <= 13


async def test_settings_that_are_never_acknowledged_end_the_connection() -> None:
    async with connected(started=False) as (_, owner, peer):
        peer.wire.start()
        await peer.byte_stream.send_all(peer.wire.data_to_send())  # and never answers ours
        await owner.closed.wait()

        assert owner.reasons == ["no SETTINGS ACK within handshake_timeout_s=10"]


async def test_close_sends_what_is_queued_and_a_goaway() -> None:
    async with connected() as (connection, owner, peer):
        receiver = Received()
        peer.wire.open_stream(REQUEST, receiver, end_stream=True)
        await peer.exchange()
        connection.wire.send_reply(owner.streams[0], RESPONSE, b"last", ((b"done", b"1"),))
        connection.close("enough", ErrorCode.ENHANCE_YOUR_CALM, b"calm")
        connection.close("twice")
        await peer.exchange()

        assert receiver.data == b"last"
        assert [goaway[1:] for goaway in peer.goaways] == [(ErrorCode.ENHANCE_YOUR_CALM, b"calm")]
        await peer.byte_stream.aclose()
        await owner.closed.wait()
        assert owner.reasons == ["enough"]


async def test_a_cancelled_connection_resets_its_streams_and_closes_the_byte_stream() -> None:
    async with connected() as (_, owner, peer):
        peer.wire.open_stream(REQUEST, Received())
        await peer.exchange()
    assert owner.receivers[0].error is not None
    assert await peer.byte_stream.receive_some(10) == b""


@pytest.mark.parametrize("role", list(Role))
async def test_both_roles_reach_their_owner(role: Role) -> None:
    async with connected(role, ConnectionOptions()) as (connection, _, peer):
        await wait_all_tasks_blocked()
        assert connection.wire.closed is None
        assert peer.wire.closed is None


async def test_a_client_has_a_while_to_end_a_stream_whose_answer_it_has() -> None:
    """Three streams answered a second apart; of the second one the client sends the end."""
    async with connected() as (connection, owner, peer):
        receivers = [Received() for _ in range(3)]
        streams = [peer.wire.open_stream(REQUEST, receiver) for receiver in receivers]
        await peer.exchange()
        for stream in owner.streams:
            connection.wire.send_headers(stream, RESPONSE, end_stream=True)
            connection.wire.release_stream(stream, trio.current_time())
            connection.touch()
            await trio.sleep(1)
        peer.wire.send_data(streams[1], b"the end", end_stream=True)
        await peer.exchange()
        assert [receiver.error for receiver in receivers] == [None, None, None]
        assert [receiver.ended for receiver in receivers] == [True, True, True]

        when = []
        for _ in range(2 * round(LATE_RESET_S)):
            await trio.sleep(0.5)
            await peer.exchange()
            when.append([receiver.error is not None for receiver in receivers])

        first, third = when.index([True, False, False]), when.index([True, False, True])
        assert third - first == 4  # half seconds
        assert 3 + (first + 1) / 2 == pytest.approx(LATE_RESET_S, abs=0.6)
