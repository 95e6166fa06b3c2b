"""Sending: whole replies, windows that hold data back, and the water marks."""

from __future__ import annotations

import pytest

from trio_serve.wire.http2 import (
    Connection,
    ConnectionClosing,
    ErrorCode,
    Fields,
    HeaderListTooLarge,
    Limits,
    State,
    Stream,
    TooManyStreams,
)
from trio_serve.wire.http2.recording import RecordingReceiver, StreamClosed, Writable

from .peer import (
    CONTINUATION,
    DATA,
    EH,
    ES,
    GET_FIELDS,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PING,
    RST_STREAM,
    client,
    data,
    frames,
    get,
    goaway,
    headers,
    post_open,
    rst,
    server,
    settings,
    window_update,
)

OK: Fields = ((b":status", b"200"),)
TRAILERS: Fields = ((b"grpc-status", b"0"),)
WIDEST = (1 << 31) - 1


def serving(
    *entries: tuple[int, int], limits: Limits | None = None
) -> tuple[Connection, Stream, RecordingReceiver]:
    """A server with one whole request on stream 1, its peer's SETTINGS as given."""
    connection, receiver = server(limits)
    connection.receive_data(settings(*entries) + get(1))
    connection.data_to_send()
    receiver.take()
    return connection, receiver.streams[1], receiver


def sent(connection: Connection) -> list[tuple[int, int, int, bytes]]:
    return [tuple(each) for each in frames(connection.data_to_send())]  # type: ignore[misc]


def shape(connection: Connection) -> list[tuple[int, int, int]]:
    """Type, flags and length of what was queued."""
    return [(each.kind, each.flags, len(each.payload)) for each in frames(connection.data_to_send())]


def test_a_reply_is_one_piece_of_three_frames_and_ends_the_stream() -> None:
    connection, stream, receiver = serving()

    connection.send_reply(stream, OK, b"message", TRAILERS)

    assert len(connection.pieces) == 1
    assert connection.unsent == len(connection.pieces[0])
    assert sent(connection) == [
        (HEADERS, EH, 1, b"\x88"),
        (DATA, 0, 1, b"message"),
        (HEADERS, EH | ES, 1, b"\x40\x0bgrpc-status\x010"),
    ]
    assert receiver.take() == [StreamClosed(1)]
    assert stream.state is State.CLOSED


def test_a_reply_spends_both_windows() -> None:
    """What is sent while the stream lives on, and what a second stream finds left of the connection's."""
    connection, receiver = server()
    connection.receive_data(get(1) + get(3))

    connection.send_reply(receiver.streams[1], OK, bytes(16_000), TRAILERS)

    assert connection.send_window.available == 65_535 - 16_000


def test_a_second_end_behind_one_that_waits_is_dropped() -> None:
    """The request is still open, so the stream outlives our end."""
    connection, receiver = server()
    connection.receive_data(settings((INITIAL_WINDOW_SIZE, 0)) + post_open(1))
    stream = receiver.streams[1]
    connection.send_reply(stream, OK, b"message", TRAILERS)
    connection.send_headers(stream, TRAILERS, end_stream=True)
    connection.send_data(stream, b"more", end_stream=True)

    connection.receive_data(window_update(1, 100))

    assert stream.state is State.HALF_CLOSED_LOCAL
    assert [each.kind for each in frames(connection.data_to_send())][-2:] == [DATA, HEADERS]


@pytest.mark.parametrize("bytes_max", [1, 9, 10_000, 16_394, 1 << 20])
def test_what_is_queued_can_be_taken_in_parts(bytes_max: int) -> None:
    connection, stream, _ = serving()
    connection.send_headers(stream, OK)
    connection.send_data(stream, bytes(range(256)) * 200, end_stream=True)
    total = connection.unsent

    parts = []
    while connection.unsent:
        parts.append(connection.data_to_send(bytes_max))
        assert connection.unsent == total - sum(map(len, parts))

    assert all(len(part) < bytes_max + 16_384 for part in parts)
    assert b"".join(each.payload for each in frames(b"".join(parts))[1:]) == bytes(range(256)) * 200


@pytest.mark.parametrize("window", [0, 65_535])
def test_changing_fields_end_a_replys_trailers_whether_it_waits_or_not(window: int) -> None:
    connection, receiver = server()
    connection.receive_data(settings((INITIAL_WINDOW_SIZE, window)) + get(1))

    connection.send_reply(receiver.streams[1], OK, b"message", TRAILERS, ((b"id", b"7"),))
    connection.receive_data(window_update(1, 100))

    *_, trailers = frames(connection.data_to_send())
    assert trailers.payload == b"\x40\x0bgrpc-status\x010" + b"\x40\x02id\x017"


@pytest.mark.parametrize("window", [0, 65_535])
def test_changing_fields_end_trailers_whether_they_wait_or_not(window: int) -> None:
    connection, receiver = server()
    connection.receive_data(settings((INITIAL_WINDOW_SIZE, window)) + get(1))
    connection.send_data(receiver.streams[1], b"message")

    connection.send_headers(receiver.streams[1], TRAILERS, True, ((b"id", b"7"),))
    connection.receive_data(window_update(1, 100))

    *_, trailers = frames(connection.data_to_send())
    assert trailers.payload == b"\x40\x0bgrpc-status\x010" + b"\x40\x02id\x017"


def test_of_fields_that_are_sent_again_only_the_changing_ones_are_encoded() -> None:
    connection, receiver = server()
    refused = (*TRAILERS, (b"grpc-message", b"a text that many calls have in common"))
    sizes = []
    for stream_id in (1, 3, 5, 7):
        connection.receive_data(get(stream_id))
        connection.send_headers(receiver.streams[stream_id], refused, True, ((b"id", b"%d" % stream_id),))
        (block,) = [each.payload for each in frames(connection.data_to_send()) if each.kind == HEADERS]
        sizes.append(len(block))

    assert sizes[-1] == len(refused) + len(b"\x0f\x2f" + b"\x01" + b"7")
    assert refused in connection.encoder.known


def test_a_reply_without_content_has_no_data() -> None:
    connection, stream, _ = serving()

    connection.send_reply(stream, OK, b"", TRAILERS)

    assert shape(connection) == [(HEADERS, EH, 1), (HEADERS, EH | ES, 15)]


def test_a_reply_before_the_requests_end_leaves_the_peers_side_open() -> None:
    connection, receiver = server()
    connection.receive_data(post_open(1))
    stream = receiver.streams[1]

    connection.send_reply(stream, OK, b"", TRAILERS)

    assert stream.state is State.HALF_CLOSED_LOCAL
    connection.receive_data(data(1, b"", ES))
    assert stream.state is State.CLOSED
    assert not connection.streams


@pytest.mark.parametrize("size", [127, 128, 5_000, 20_000])
def test_a_reply_with_long_trailers_is_cut_as_the_peer_asks(size: int) -> None:
    connection, stream, _ = serving()
    trailers = ((b"x-long", b"v" * size),)

    connection.send_reply(stream, OK, b"message", trailers)

    answers = frames(connection.data_to_send())
    assert [each.kind for each in answers[:3]] == [HEADERS, DATA, HEADERS]
    assert all(each.kind == CONTINUATION for each in answers[3:])
    assert all(len(each.payload) <= 16384 for each in answers)
    assert answers[-1].flags & EH
    assert answers[2].flags & ES
    assert b"".join(each.payload for each in answers[2:]).endswith(trailers[0][1])


def test_a_reply_that_a_window_holds_back_follows_as_it_opens() -> None:
    connection, stream, receiver = serving((INITIAL_WINDOW_SIZE, 3))

    connection.send_reply(stream, OK, b"message", TRAILERS)
    assert shape(connection) == [(HEADERS, EH, 1), (DATA, 0, 3)]
    assert stream.unsent == 4

    connection.receive_data(window_update(1, 4))
    assert shape(connection) == [(DATA, 0, 4), (HEADERS, EH | ES, 15)]
    assert receiver.take() == [StreamClosed(1)]


def test_a_message_larger_than_a_frame_is_cut_into_frames() -> None:
    connection, stream, _ = serving()

    connection.send_data(stream, bytes(40_000), end_stream=True)

    assert shape(connection) == [(DATA, 0, 16384), (DATA, 0, 16384), (DATA, ES, 40_000 - 2 * 16384)]


def test_a_peer_with_larger_frames_gets_larger_frames() -> None:
    connection, stream, _ = serving((MAX_FRAME_SIZE, 1 << 16))

    connection.send_data(stream, bytes(40_000))

    assert shape(connection) == [(DATA, 0, 40_000)]


def test_data_of_nothing_that_ends_nothing_is_not_sent() -> None:
    """A peer may count empty DATA as abuse, as we do."""
    connection, stream, _ = serving()

    connection.send_data(stream, b"")

    assert not connection.unsent


def test_an_empty_end_needs_no_window() -> None:
    connection, stream, _ = serving((INITIAL_WINDOW_SIZE, 0))

    connection.send_data(stream, b"", end_stream=True)

    assert shape(connection) == [(DATA, ES, 0)]


def test_an_empty_end_waits_behind_what_is_unsent() -> None:
    connection, stream, _ = serving((INITIAL_WINDOW_SIZE, 0))
    connection.send_data(stream, b"x")
    connection.send_data(stream, b"", end_stream=True)
    assert not connection.unsent

    connection.receive_data(window_update(1, 1))

    assert shape(connection) == [(DATA, 0, 1), (DATA, ES, 0)]


def test_the_connections_window_is_shared_a_frame_in_turn() -> None:
    connection, receiver = server()
    connection.receive_data(settings((INITIAL_WINDOW_SIZE, WIDEST)) + get(1) + get(3))
    one, three = receiver.streams[1], receiver.streams[3]
    connection.send_data(one, bytes(65_535 + 40_000))
    connection.send_data(three, bytes(40_000))
    connection.data_to_send()

    connection.receive_data(window_update(0, 4 * 16_384))

    assert [(each.stream_id, len(each.payload)) for each in frames(connection.data_to_send())] == [
        (1, 16384),
        (3, 16384),
        (1, 16384),
        (3, 16384),
    ]


def test_a_stream_whose_own_window_is_shut_holds_nobody_else() -> None:
    connection, receiver = server()
    connection.receive_data(settings((INITIAL_WINDOW_SIZE, 0)) + get(1) + get(3))
    connection.send_data(receiver.streams[1], b"shut")
    connection.send_data(receiver.streams[3], b"open")
    connection.data_to_send()

    connection.receive_data(window_update(3, 4))

    assert sent(connection) == [(DATA, 0, 3, b"open")]


def test_settings_that_shrink_the_window_make_it_negative() -> None:
    connection, stream, _ = serving((INITIAL_WINDOW_SIZE, 10))
    connection.send_data(stream, bytes(10))
    connection.send_data(stream, b"later")
    connection.data_to_send()

    connection.receive_data(settings((INITIAL_WINDOW_SIZE, 4)))
    assert stream.send_window is not None
    assert stream.send_window.available == -6
    connection.receive_data(window_update(1, 6))
    assert [each[0] for each in shape(connection)] == [4]  # the acknowledgement alone
    connection.receive_data(window_update(1, 5))
    assert sent(connection) == [(DATA, 0, 1, b"later")]


def test_settings_that_overflow_an_open_window_end_the_connection() -> None:
    connection, _, _ = serving((INITIAL_WINDOW_SIZE, 10))
    connection.receive_data(window_update(1, 11))

    connection.receive_data(settings((INITIAL_WINDOW_SIZE, WIDEST)))

    assert connection.closed is not None
    assert connection.closed.code == ErrorCode.FLOW_CONTROL_ERROR


def test_the_sender_is_told_once_when_the_water_has_fallen() -> None:
    connection, stream, receiver = serving(
        (INITIAL_WINDOW_SIZE, 0), limits=Limits(send_high_water=100, send_low_water=50)
    )
    connection.send_data(stream, bytes(100))
    assert not stream.congested
    connection.send_data(stream, bytes(1))
    assert stream.congested

    connection.receive_data(window_update(1, 50))
    assert receiver.take() == []
    connection.send_data(stream, b"x")  # below the high mark, and still above the low one
    connection.receive_data(window_update(1, 2))
    assert receiver.take() == [Writable(1)]
    connection.receive_data(window_update(1, 50))
    assert receiver.take() == []


def test_what_is_sent_on_a_stream_that_is_gone_is_dropped() -> None:
    connection, stream, _ = serving()
    connection.receive_data(rst(1))

    connection.send_headers(stream, OK)
    connection.send_data(stream, b"late")
    connection.send_reply(stream, OK, b"late", TRAILERS)
    connection.reset_stream(stream, ErrorCode.CANCEL)
    connection.acknowledge(stream, 10)

    assert not connection.unsent


def test_what_is_sent_after_our_end_is_dropped_even_when_the_end_still_waits() -> None:
    connection, stream, _ = serving((INITIAL_WINDOW_SIZE, 0))
    connection.send_reply(stream, OK, b"message", TRAILERS)
    connection.data_to_send()

    connection.send_data(stream, b"more", end_stream=True)
    connection.send_headers(stream, TRAILERS, end_stream=True)
    connection.send_reply(stream, OK, b"again", TRAILERS)
    connection.receive_data(window_update(1, 100))

    assert [each[0] for each in shape(connection)] == [DATA, HEADERS]


def test_a_reset_of_ours_forgets_what_was_unsent() -> None:
    connection, stream, receiver = serving((INITIAL_WINDOW_SIZE, 0))
    connection.send_data(stream, b"unsent")

    connection.reset_stream(stream, ErrorCode.CANCEL)

    assert sent(connection) == [(RST_STREAM, 0, 1, bytes((0, 0, 0, 8)))]
    assert (stream.unsent, connection.waiting) == (0, {})
    assert receiver.take() == [StreamClosed(1)]


def test_trailers_are_encoded_when_they_leave_and_not_before() -> None:
    """Stream 1's trailers wait; stream 3's come after them and leave first, so they prime the table."""
    connection, receiver = server()
    connection.receive_data(settings((INITIAL_WINDOW_SIZE, 0)) + get(1) + get(3))
    connection.send_data(receiver.streams[1], b"x")
    connection.send_headers(receiver.streams[1], TRAILERS, end_stream=True)
    connection.send_headers(receiver.streams[3], TRAILERS, end_stream=True)
    connection.receive_data(window_update(1, 1))

    answers = [each for each in frames(connection.data_to_send()) if each.kind == HEADERS]
    assert [(each.stream_id, len(each.payload)) for each in answers] == [(3, 15), (1, 1)]


def test_a_server_opens_no_stream() -> None:
    connection, receiver = server()
    with pytest.raises(RuntimeError, match="never pushes"):
        receiver.open(connection, GET_FIELDS)


def test_a_client_numbers_its_streams_and_stops_at_the_servers_limit() -> None:
    connection, receiver = client(None, (MAX_CONCURRENT_STREAMS, 2))
    assert [receiver.open(connection, GET_FIELDS).id for _ in range(2)] == [1, 3]
    with pytest.raises(TooManyStreams, match="allows 2"):
        receiver.open(connection, GET_FIELDS)

    connection.reset_stream(receiver.streams[1], ErrorCode.CANCEL)

    assert receiver.open(connection, GET_FIELDS).id == 5


def test_a_client_out_of_ids_opens_no_more() -> None:
    connection, receiver = client()
    connection.highest_id = WIDEST - 2
    assert receiver.open(connection, GET_FIELDS).id == WIDEST
    with pytest.raises(ConnectionClosing):
        receiver.open(connection, GET_FIELDS)


def test_no_stream_is_opened_after_goaway_or_the_end() -> None:
    connection, receiver = client()
    connection.receive_data(goaway())
    with pytest.raises(ConnectionClosing, match="GOAWAY"):
        receiver.open(connection, GET_FIELDS)

    ended, receiver = client()
    ended.receive_eof()
    with pytest.raises(ConnectionClosing):
        receiver.open(ended, GET_FIELDS)


def test_ping_and_goaway_are_queued_as_asked() -> None:
    connection, _ = server()
    connection.send_ping(b"12345678")
    connection.send_goaway(last_stream_id=WIDEST)
    connection.send_goaway(ErrorCode.ENHANCE_YOUR_CALM, debug=b"too_many_pings")

    assert sent(connection) == [
        (PING, 0, 0, b"12345678"),
        (GOAWAY, 0, 0, b"\x7f\xff\xff\xff\x00\x00\x00\x00"),
        (GOAWAY, 0, 0, b"\x00\x00\x00\x00\x00\x00\x00\x0btoo_many_pings"),
    ]
    with pytest.raises(ValueError, match="8 octets"):
        connection.send_ping(b"short")


def test_response_headers_longer_than_a_frame_continue() -> None:
    connection, stream, _ = serving()

    connection.send_headers(stream, (*OK, (b"x", b"y" * 40_000)), end_stream=True)

    assert [(each.kind, each.flags) for each in frames(connection.data_to_send())] == [
        (HEADERS, ES),
        (CONTINUATION, 0),
        (CONTINUATION, EH),
    ]


def test_nothing_is_queued_once_the_connection_has_ended() -> None:
    connection, stream, _ = serving()
    connection.receive_data(headers(0, b""))
    connection.data_to_send()

    connection.send_ping(b"12345678")
    connection.send_goaway()
    connection.send_reply(stream, OK, b"x", TRAILERS)
    connection.terminate(ErrorCode.NO_ERROR, "again")

    assert not connection.unsent


# -- the peer's MAX_HEADER_LIST_SIZE --------------------------------------------------------------------

LARGE: Fields = ((b"grpc-status", b"0"), (b"k", b"v" * 1000))  # 44 and 1033 octets
LARGE_SIZE = 44 + 1033


def test_a_request_over_the_servers_header_list_size_is_not_sent() -> None:
    size = sum(len(name) + len(value) + 32 for name, value in GET_FIELDS) + 100
    connection, receiver = client(None, (MAX_HEADER_LIST_SIZE, size))
    receiver.open(connection, (*GET_FIELDS, (b"k", b"v" * 67)))
    assert shape(connection)

    with pytest.raises(
        HeaderListTooLarge, match=f"header list of {size + 1} bytes is over the server's {size}"
    ):
        receiver.open(connection, (*GET_FIELDS, (b"k", b"v" * 68)))

    assert not connection.unsent
    assert receiver.open(connection, GET_FIELDS).id == 3


@pytest.mark.parametrize("whole", [True, False])
def test_trailers_over_the_clients_header_list_size_end_the_stream_with_an_error(whole: bool) -> None:
    connection, stream, receiver = serving((MAX_HEADER_LIST_SIZE, LARGE_SIZE - 1))

    if whole:
        connection.send_reply(stream, OK, b"message", LARGE)
    else:
        connection.send_headers(stream, OK)
        connection.send_headers(stream, LARGE, end_stream=True)

    assert sent(connection)[-1] == (RST_STREAM, 0, 1, ErrorCode.INTERNAL_ERROR.to_bytes(4, "big"))
    assert receiver.take() == [StreamClosed(1)]


def test_trailers_at_the_clients_header_list_size_are_sent() -> None:
    connection, stream, _ = serving((MAX_HEADER_LIST_SIZE, LARGE_SIZE))

    connection.send_reply(stream, OK, b"message", LARGE)

    assert [kind for kind, _, _ in shape(connection)] == [HEADERS, DATA, HEADERS]


def test_a_header_list_size_that_is_lowered_holds_for_what_was_sent_before() -> None:
    connection, _, receiver = serving()
    for number in range(1, 7, 2):
        connection.send_reply(receiver.streams[number], OK, b"message", LARGE)
        connection.receive_data(get(number + 2))
    connection.receive_data(settings((MAX_HEADER_LIST_SIZE, 100)))
    connection.data_to_send()

    connection.send_reply(receiver.streams[7], OK, b"message", LARGE)

    assert sent(connection)[-1][0] == RST_STREAM
