"""An answer that is complete before its request: the reset behind it comes late, or not at all."""

from __future__ import annotations

import pytest

from trio_serve.wire.http2 import Connection, ErrorCode, Limits
from trio_serve.wire.http2.recording import DataReceived, RecordingReceiver, StreamClosed

from .peer import (
    EH,
    ES,
    HEADERS,
    block,
    data,
    frames,
    headers,
    literal,
    post_open,
    resets,
    rst,
    server,
    settings,
    window_update,
    word,
)

STATUS = (b":status", b"200")
TRAILER = (b"grpc-status", b"0")


def released(limits: Limits | None = None) -> tuple[Connection, RecordingReceiver]:
    """A server that has answered stream 1, which the client has not ended, at second 10."""
    connection, receiver = server(limits)
    connection.receive_data(post_open(1), 10.0)
    answer(connection, receiver, 1, 10.0)
    return connection, receiver


def answer(connection: Connection, receiver: RecordingReceiver, stream_id: int, now: float) -> None:
    stream = receiver.streams[stream_id]
    connection.send_headers(stream, (STATUS, TRAILER), end_stream=True)
    connection.release_stream(stream, now)


def test_the_reset_waits_but_the_stream_is_over() -> None:
    connection, receiver = released()

    assert resets(connection) == []
    assert not connection.streams
    assert receiver.events[-1] == StreamClosed(1)
    connection.send_late_resets(14.9, 5)
    assert resets(connection) == []
    connection.send_late_resets(15.0, 5)
    assert resets(connection) == [(1, ErrorCode.NO_ERROR)]
    connection.send_late_resets(99.0, 5)
    assert resets(connection) == []


ENDINGS = {
    "DATA": data(1, b"the rest", ES),
    "empty DATA": data(1, b"", ES),
    "trailers": headers(1, block((b"x", b"y")), ES | EH),
    "RST_STREAM": rst(1),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_a_client_that_ends_the_stream_itself_gets_no_reset(ending: bytes) -> None:
    connection, _ = released()

    connection.receive_data(data(1, b"under way") + ending, 11.0)
    connection.send_late_resets(99.0, 5)

    assert resets(connection) == []
    assert connection.closed is None


@pytest.mark.parametrize("ending", ENDINGS.keys())
def test_such_an_end_is_no_flood(ending: str) -> None:
    """Each costs the client a call, so no limit counts it: here is room for no glitch and no reset at all."""
    limits = Limits(glitches_burst=0, glitches_per_s=0, resets_burst=0, resets_per_s=0)
    connection, receiver = server(limits)
    for stream_id in range(1, 41, 2):
        connection.receive_data(post_open(stream_id))
        answer(connection, receiver, stream_id, 0.0)
        octets = bytearray(ENDINGS[ending])
        octets[5:9] = word(stream_id)
        connection.receive_data(bytes(octets))

    assert connection.closed is None


def test_what_still_comes_is_dropped_and_gives_the_connections_window_back() -> None:
    connection, receiver = released()
    receiver.take()
    for _ in range(4):
        connection.receive_data(data(1, bytes(16_000)), 11.0)
        connection.data_to_send()

    window = connection.receive_window
    assert window.available + window.consumed == Limits().connection_window_bytes
    assert not [event for event in receiver.take() if isinstance(event, DataReceived)]
    connection.send_late_resets(99.0, 5)
    assert resets(connection) == [(1, ErrorCode.NO_ERROR)]


def test_trailers_that_come_late_keep_the_table_in_step() -> None:
    connection, receiver = released()
    connection.receive_data(headers(1, literal(b"x-new", b"1", 0x40), ES | EH), 11.0)

    connection.receive_data(
        headers(3, block((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/")) + b"\xbe")
    )

    assert (b"x-new", b"1") in receiver.events[-1].fields  # type: ignore[union-attr]


def test_only_so_many_wait_as_streams_may_be_open() -> None:
    connection, receiver = released(Limits(streams_max=3))
    for stream_id in (3, 5):
        connection.receive_data(post_open(stream_id), 11.0)
        answer(connection, receiver, stream_id, 11.0)
    assert resets(connection) == []

    connection.receive_data(post_open(7), 12.0)
    answer(connection, receiver, 7, 12.0)

    assert resets(connection) == [(1, ErrorCode.NO_ERROR)]
    assert list(connection.late_resets) == [3, 5, 7]


def test_an_answer_that_waits_for_a_window_is_not_cut_short() -> None:
    """Released with its trailers still behind DATA; the wait starts when they have left."""
    connection, receiver = server()
    connection.receive_data(settings((4, 2)) + post_open(1), 10.0)
    connection.data_to_send()
    stream = receiver.streams[1]
    connection.send_headers(stream, (STATUS,))
    connection.send_data(stream, b"four")
    connection.send_headers(stream, (TRAILER,), end_stream=True)
    connection.release_stream(stream, 10.0)
    assert not connection.late_resets

    connection.receive_data(window_update(1, 2), 20.0)

    assert connection.late_resets == {1: 20.0}
    assert frames(connection.data_to_send())[-1][:3] == (HEADERS, ES | EH, 1)
    assert not connection.streams


def test_an_answered_request_that_has_ended_is_left_alone() -> None:
    connection, receiver = server()
    connection.receive_data(post_open(1) + data(1, b"all", ES))

    answer(connection, receiver, 1, 0.0)

    assert not connection.late_resets
    assert not connection.streams


def test_a_connection_that_ends_forgets_them() -> None:
    connection, _ = released()

    connection.terminate(ErrorCode.NO_ERROR, "over")
    connection.data_to_send()
    connection.send_late_resets(99.0, 5)

    assert not connection.unsent
