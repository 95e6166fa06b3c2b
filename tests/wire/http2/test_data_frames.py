"""DATA: what the windows hold, and how they are given back, lent and enlarged."""

from __future__ import annotations

import pytest

from trio_serve.wire.http2 import Connection, ErrorCode, Limits
from trio_serve.wire.http2.recording import DataReceived, StreamReset

from .peer import ES, WINDOW_UPDATE, data, frames, post_open, server


def window_updates(connection: Connection) -> list[tuple[int, int]]:
    return [
        (each.stream_id, int.from_bytes(each.payload, "big"))
        for each in frames(connection.data_to_send())
        if each.kind == WINDOW_UPDATE
    ]


LEVEL = Limits(stream_window_bytes=1000, stream_window_bytes_max=1000, connection_window_bytes=65_535)


def test_a_window_is_given_back_as_its_octets_are_consumed() -> None:
    connection, receiver = server(LEVEL)
    connection.receive_data(post_open(1) + data(1, bytes(800)))
    assert not window_updates(connection)

    connection.acknowledge(receiver.streams[1], 499)
    assert not window_updates(connection)
    connection.acknowledge(receiver.streams[1], 301)

    assert window_updates(connection) == [(1, 800)]


def test_a_stream_of_few_octets_has_no_window_of_its_own() -> None:
    """It is idle streams that there are thousands of."""
    connection, receiver = server(LEVEL)
    connection.receive_data(post_open(1) + data(1, bytes(499)))
    stream = receiver.streams[1]

    connection.acknowledge(stream, 499)
    assert stream.receive_window is None
    assert connection.receive_room(stream) == 501
    connection.receive_data(data(1, b"x"))
    connection.acknowledge(stream, 1)

    assert window_updates(connection) == [(1, 500)]


@pytest.mark.parametrize("consumed", [0, 300])
def test_a_window_holds_what_its_size_says_and_no_octet_more(consumed: int) -> None:
    """Whether or not something was consumed, too little to be given back, in between."""
    connection, receiver = server(LEVEL)
    connection.receive_data(post_open(1) + data(1, bytes(400)))
    connection.acknowledge(receiver.streams[1], consumed)
    connection.receive_data(data(1, bytes(600)))
    assert StreamReset(1, ErrorCode.FLOW_CONTROL_ERROR, by_peer=False, processed=True) not in receiver.take()

    connection.receive_data(data(1, b"x"))

    assert StreamReset(1, ErrorCode.FLOW_CONTROL_ERROR, by_peer=False, processed=True) in receiver.take()


def test_more_is_never_given_back_than_was_received() -> None:
    connection, receiver = server(LEVEL)
    connection.receive_data(post_open(1) + data(1, bytes(800)))

    connection.acknowledge(receiver.streams[1], 5000)

    assert window_updates(connection) == [(1, 800)]


def test_padding_is_given_back_at_once() -> None:
    connection, receiver = server(LEVEL)
    connection.receive_data(post_open(1))
    for _ in range(10):
        connection.receive_data(data(1, b"\xff" + b"x" + bytes(255), 0x8))
        connection.acknowledge(receiver.streams[1], 1)

    assert sum(increment for stream_id, increment in window_updates(connection) if stream_id) >= 2000
    assert connection.closed is None


def test_a_stream_that_is_dropped_gives_the_connections_window_back() -> None:
    """Ten thousand early ends of 6 kB each: the connection's window must not have shrunk."""
    connection, receiver = server()
    for number in range(10_000):
        connection.receive_data(post_open(2 * number + 1) + data(2 * number + 1, bytes(6000)), float(number))
        connection.reset_stream(receiver.streams.pop(2 * number + 1), ErrorCode.CANCEL)
        connection.data_to_send()
        receiver.take()

    assert connection.closed is None
    window = connection.receive_window
    assert window.available + window.consumed == Limits().connection_window_bytes


@pytest.mark.parametrize("ending", [b"", ES], ids=["open", "ended"])
def test_data_that_nobody_takes_gives_the_connections_window_back(ending: int) -> None:
    connection, receiver = server()
    connection.receive_data(post_open(1))
    connection.reset_stream(receiver.streams[1], ErrorCode.CANCEL)
    for _ in range(1000):
        connection.receive_data(data(1, bytes(16_000), ending or 0))
        connection.data_to_send()

    assert connection.closed is None


def test_data_beyond_our_goaway_gives_the_connections_window_back() -> None:
    connection, _ = server()
    connection.send_goaway()
    for _ in range(1000):
        connection.receive_data(data(1, bytes(16_000)))
        connection.data_to_send()

    assert connection.closed is None


def test_a_stream_whose_peer_has_ended_gets_no_window_back() -> None:
    connection, receiver = server(LEVEL)
    connection.receive_data(post_open(1) + data(1, bytes(600)) + data(1, bytes(300), ES))

    connection.acknowledge(receiver.streams[1], 900)

    assert window_updates(connection) == []


def test_a_window_can_be_lent_for_a_message_that_is_larger() -> None:
    connection, receiver = server(LEVEL)
    connection.receive_data(post_open(1) + data(1, bytes(1000)))

    connection.lend_window(receiver.streams[1], 500)
    connection.receive_data(data(1, bytes(500), ES))

    assert window_updates(connection) == [(1, 500)]
    assert receiver.events[-1] == DataReceived(1, bytes(500), True)


def test_a_window_can_be_enlarged_for_good() -> None:
    connection, receiver = server(LEVEL)
    connection.receive_data(post_open(1))
    stream = receiver.streams[1]

    connection.enlarge_window(stream, 1000)
    for _ in range(3):
        connection.receive_data(data(1, bytes(2000)))
        connection.acknowledge(stream, 2000)

    assert [each for each in window_updates(connection) if each[0]] == [(1, 1000), *[(1, 2000)] * 3]
    connection.receive_data(data(1, b"", ES))
    connection.enlarge_window(stream, 1)
    connection.lend_window(stream, 1)
    assert not window_updates(connection)
