"""Receiving: what the two roles report, who is told what at an end, and windows given back."""

from __future__ import annotations

import pytest

from trio_serve.wire.http2 import (
    Connection,
    ConnectionEnded,
    ErrorCode,
    FieldBlock,
    Limits,
    Role,
    Stream,
    StreamReceiver,
    code_name,
)
from trio_serve.wire.http2.recording import (
    DataReceived,
    Ended,
    GoawayReceived,
    HeadersReceived,
    PingAcknowledged,
    PingReceived,
    RecordingReceiver,
    RequestReceived,
    SettingsAcknowledged,
    SettingsReceived,
    StreamClosed,
    StreamReset,
)

from .peer import (
    ACK,
    EH,
    ES,
    GET_FIELDS,
    GOAWAY,
    HEADER_TABLE_SIZE,
    POST_FIELDS,
    PREFACE,
    PUSH_PROMISE,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW_UPDATE,
    block,
    client,
    continuation,
    data,
    frame,
    frames,
    get,
    get_open,
    goaway,
    headers,
    literal,
    ping,
    post_open,
    priority,
    resets,
    rst,
    server,
    settings,
    window_update,
    word,
)

STATUS = (b":status", b"200")
TYPE = (b"content-type", b"application/grpc")
TRAILER = (b"grpc-status", b"0")
RESPONSE = block(STATUS, TYPE)
TRAILERS = block(TRAILER)


def asking(
    limits: Limits | None = None, end_stream: bool = True
) -> tuple[Connection, RecordingReceiver, Stream]:
    """A client with one request on stream 1."""
    connection, receiver = client(limits)
    stream = receiver.open(connection, POST_FIELDS, end_stream)
    connection.data_to_send()
    return connection, receiver, stream


# -- opening -------------------------------------------------------------------------------------------


def test_a_server_opens_with_settings_and_its_window() -> None:
    connection, receiver = server(started=False)
    opening = frames(connection.data_to_send())

    assert [(each.kind, each.stream_id) for each in opening] == [(SETTINGS, 0), (WINDOW_UPDATE, 0)]
    assert 65_535 + int.from_bytes(opening[1].payload, "big") == Limits().connection_window_bytes
    connection.receive_data(PREFACE + settings() + SETTINGS_ACK)
    assert receiver.take() == [SettingsReceived(), SettingsAcknowledged()]
    assert frames(connection.data_to_send()) == frames(SETTINGS_ACK)


def test_a_client_opens_with_the_preface() -> None:
    connection, _ = client(Limits(connection_window_bytes=65_535), started=False)
    opening = connection.data_to_send()

    assert opening.startswith(PREFACE)
    assert [each.kind for each in frames(opening[len(PREFACE) :])] == [SETTINGS]


@pytest.mark.parametrize(
    "first",
    [ping(), SETTINGS_ACK, window_update(0, 1), goaway(), get(1)],
    ids=["PING", "ACK", "W", "GOAWAY", "GET"],
)
def test_whatever_else_comes_first_is_no_http2(first: bytes) -> None:
    for connection, preface in [(server(started=False)[0], PREFACE), (client(started=False)[0], b"")]:
        connection.receive_data(preface + first)
        assert connection.closed is not None
        assert connection.closed.code == ErrorCode.PROTOCOL_ERROR


def test_http_1_is_refused_at_its_first_octets() -> None:
    connection, receiver = server(started=False)
    connection.receive_data(b"GET ")

    assert receiver.take() == [Ended(ErrorCode.PROTOCOL_ERROR, by_peer=False)]


# -- client --------------------------------------------------------------------------------------------


def test_a_client_reports_headers_data_and_trailers() -> None:
    connection, receiver, _ = asking()
    connection.receive_data(headers(1, RESPONSE) + data(1, b"message") + headers(1, TRAILERS, ES | EH))

    assert receiver.take() == [
        HeadersReceived(1, (STATUS, TYPE), False),
        DataReceived(1, b"message", False),
        HeadersReceived(1, (TRAILER,), True),
        StreamClosed(1),
    ]


def test_informational_responses_are_passed_over() -> None:
    connection, receiver, _ = asking()
    for status in (b"100", b"103", b"199"):
        connection.receive_data(headers(1, block((b":status", status))))
    connection.receive_data(headers(1, RESPONSE, ES | EH))

    assert receiver.take() == [HeadersReceived(1, (STATUS, TYPE), True), StreamClosed(1)]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(headers(1, block((b":status", b"100")), ES | EH), id="informational with END_STREAM"),
        pytest.param(headers(1, block((b":status", b"101"))), id="101"),
        pytest.param(headers(1, block(TYPE)), id="no status"),
        pytest.param(data(1, b"x"), id="DATA first"),
        pytest.param(headers(1, RESPONSE) + headers(1, TRAILERS), id="trailers without END_STREAM"),
        pytest.param(headers(1, RESPONSE) + headers(1, RESPONSE, ES | EH), id="a second response"),
        pytest.param(headers(1, block(STATUS, (b"content-length", b"3")), ES | EH), id="no content"),
        pytest.param(headers(1, block(STATUS, (b"content-length", b"3"))) + data(1, b"four"), id="too much"),
        pytest.param(
            headers(1, block(STATUS, (b"content-length", b"3"))) + data(1, b"ab", ES), id="too little"
        ),
        pytest.param(
            headers(1, block(STATUS, (b"content-length", b"3")))
            + data(1, b"ab")
            + headers(1, TRAILERS, ES | EH),
            id="too little before trailers",
        ),
    ],
)
def test_a_malformed_response_resets_its_stream(answer: bytes) -> None:
    connection, receiver, _ = asking()
    connection.receive_data(answer)

    assert StreamReset(1, ErrorCode.PROTOCOL_ERROR, by_peer=False, processed=True) in receiver.events
    assert receiver.events[-1] == StreamClosed(1)
    assert resets(connection) == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert connection.closed is None


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_a_response_without_content_by_its_status_may_name_a_length(status: bytes) -> None:
    connection, receiver, _ = asking()
    connection.receive_data(headers(1, block((b":status", status), (b"content-length", b"7")), ES | EH))

    assert isinstance(receiver.take()[0], HeadersReceived)


def test_the_response_to_head_may_name_a_length() -> None:
    connection, receiver = client()
    receiver.open(connection, ((b":method", b"HEAD"), *GET_FIELDS[1:]), end_stream=True)
    connection.receive_data(headers(1, block(STATUS, (b"content-length", b"7")), ES | EH))

    assert receiver.take()[-1] == StreamClosed(1)
    assert not resets(connection)


def test_a_server_may_answer_and_reset_before_the_request_ends() -> None:
    """RFC 9113 section 8.1: RST_STREAM(NO_ERROR) after a whole response."""
    connection, receiver, stream = asking(end_stream=False)
    connection.receive_data(headers(1, RESPONSE, ES | EH) + rst(1, 0))
    connection.send_data(stream, b"crossed")

    assert receiver.take() == [
        HeadersReceived(1, (STATUS, TYPE), True),
        StreamReset(1, 0, by_peer=True, processed=True),
        StreamClosed(1),
    ]
    assert not connection.unsent


def test_a_refused_stream_was_not_processed() -> None:
    connection, receiver, _ = asking()
    connection.receive_data(rst(1, ErrorCode.REFUSED_STREAM))

    assert receiver.take()[0] == StreamReset(1, ErrorCode.REFUSED_STREAM, by_peer=True, processed=False)


@pytest.mark.parametrize(
    "frames_of_a_server",
    [
        pytest.param(headers(3, RESPONSE), id="HEADERS on a stream never opened"),
        pytest.param(headers(2, RESPONSE), id="HEADERS on an even stream"),
        pytest.param(frame(PUSH_PROMISE, EH, 1, word(2) + block(*GET_FIELDS)), id="PUSH_PROMISE"),
        pytest.param(data(3, b"x"), id="DATA on a stream never opened"),
        pytest.param(rst(2), id="RST_STREAM on an even stream"),
        pytest.param(settings((2, 1)), id="ENABLE_PUSH 1"),
    ],
)
def test_what_a_server_may_not_do_ends_the_connection(frames_of_a_server: bytes) -> None:
    connection, receiver, _ = asking()
    connection.receive_data(frames_of_a_server)

    assert receiver.take() == [
        StreamReset(1, ErrorCode.PROTOCOL_ERROR, by_peer=False, processed=True),
        StreamClosed(1),
        Ended(ErrorCode.PROTOCOL_ERROR, by_peer=False),
    ]


def test_a_client_does_not_count_resets_as_abuse() -> None:
    connection, receiver = client()
    for _ in range(1500):
        stream = receiver.open(connection, GET_FIELDS, end_stream=True)
        connection.receive_data(rst(stream.id))

    assert connection.closed is None


# -- late frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "late",
    [data(1, b"late"), headers(1, TRAILERS, ES | EH), window_update(1, 9), rst(1), priority(1)],
    ids=["DATA", "HEADERS", "WINDOW_UPDATE", "RST_STREAM", "PRIORITY"],
)
def test_frames_that_crossed_our_reset_are_dropped(late: bytes) -> None:
    connection, receiver = server()
    connection.receive_data(post_open(1))
    connection.reset_stream(receiver.streams[1], ErrorCode.CANCEL)
    connection.data_to_send()
    receiver.take()

    connection.receive_data(late)

    assert receiver.take() == []
    assert not connection.unsent


def test_a_block_that_crossed_our_reset_keeps_the_table_in_step() -> None:
    connection, receiver = server()
    connection.receive_data(post_open(1))
    connection.reset_stream(receiver.streams[1], ErrorCode.CANCEL)
    connection.receive_data(headers(1, literal(b"x", b"y", 0x40), ES | EH))
    receiver.take()

    connection.receive_data(headers(3, block(*GET_FIELDS) + b"\xbe", ES | EH))

    assert receiver.take() == [RequestReceived(3, (*GET_FIELDS, (b"x", b"y")), True)]


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(literal(b"x", b"y", 0x40), id="no request at all"),
        pytest.param(block(*GET_FIELDS) + literal(b"x", b"y", 0x40) + block((b"X", b"")), id="malformed"),
        pytest.param(literal(b"x", b"y", 0x40) + block((b"a", b"b" * 17_000))[:16_000], id="cut"),
    ][:2],
)
def test_a_refused_block_keeps_the_table_in_step(refused: bytes) -> None:
    connection, receiver = server()
    connection.receive_data(headers(1, refused, ES | EH))
    assert resets(connection) == [(1, ErrorCode.PROTOCOL_ERROR)]

    connection.receive_data(headers(3, block(*GET_FIELDS) + b"\xbe", ES | EH))

    assert receiver.take() == [RequestReceived(3, (*GET_FIELDS, (b"x", b"y")), True)]


# -- ends ----------------------------------------------------------------------------------------------


def test_an_end_of_the_connection_is_told_to_every_stream_and_then_once_to_all() -> None:
    connection, receiver = server()
    connection.receive_data(get(1) + get_open(3))
    receiver.take()

    connection.receive_data(data(0, b"x"))
    connection.receive_data(ping())
    connection.receive_eof()

    code = ErrorCode.PROTOCOL_ERROR
    assert receiver.take() == [
        StreamReset(1, code, by_peer=False, processed=True),
        StreamClosed(1),
        StreamReset(3, code, by_peer=False, processed=True),
        StreamClosed(3),
        Ended(code, by_peer=False),
    ]
    [last] = frames(connection.data_to_send())
    assert (last.kind, last.payload) == (GOAWAY, word(3) + word(code) + b"DATA on stream 0")


def test_an_end_of_input_is_the_peers_doing() -> None:
    connection, receiver, _ = asking()
    connection.receive_eof()

    assert receiver.take() == [
        StreamReset(1, 0, by_peer=True, processed=True),
        StreamClosed(1),
        Ended(0, by_peer=True),
    ]
    assert not connection.unsent


def test_an_end_of_input_after_goaway_carries_its_code() -> None:
    connection, receiver, _ = asking()
    connection.receive_data(goaway(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings", last=1))
    connection.receive_eof()

    assert receiver.take()[-1] == Ended(ErrorCode.ENHANCE_YOUR_CALM, by_peer=True)


def test_we_can_end_it_for_a_reason_of_ours() -> None:
    connection, receiver = server()
    connection.receive_data(get(1))
    receiver.take()

    connection.terminate(ErrorCode.ENHANCE_YOUR_CALM, "pings too often", debug=b"too_many_pings")

    assert receiver.take()[-1] == Ended(ErrorCode.ENHANCE_YOUR_CALM, by_peer=False)
    assert frames(connection.data_to_send())[-1].payload.endswith(b"too_many_pings")


def test_errors_read_with_their_codes_names() -> None:
    assert str(ConnectionEnded(0xB, by_peer=True, text="why")) == "ENHANCE_YOUR_CALM: why"
    assert code_name(0xFF) == "0xff"


# -- GOAWAY and PING -----------------------------------------------------------------------------------


def test_streams_above_goaways_last_id_may_be_retried() -> None:
    connection, receiver = client()
    for _ in range(3):
        receiver.open(connection, GET_FIELDS, end_stream=True)

    connection.receive_data(goaway(0, b"bye", last=3))

    assert receiver.take() == [
        StreamReset(5, 0, by_peer=True, processed=False),
        StreamClosed(5),
        GoawayReceived(3, 0, b"bye"),
    ]
    connection.receive_data(headers(3, RESPONSE, ES | EH))
    assert receiver.take()[0] == HeadersReceived(3, (STATUS, TYPE), True)


def test_goaways_last_id_never_rises() -> None:
    connection, receiver = client()
    connection.receive_data(goaway(last=5) + goaway(last=9) + goaway(last=3))

    assert [each.last_stream_id for each in receiver.events if isinstance(each, GoawayReceived)] == [5, 5, 3]


def test_a_drain_takes_what_was_opened_before_its_second_step_and_ignores_the_rest() -> None:
    connection, receiver = server()
    connection.receive_data(get(1))
    connection.send_goaway(last_stream_id=(1 << 31) - 1)
    connection.receive_data(get(3))
    connection.send_goaway()
    receiver.take()
    said = [each.payload[:4] for each in frames(connection.data_to_send()) if each.kind == GOAWAY]
    assert said == [word((1 << 31) - 1), word(3)]

    connection.receive_data(
        headers(5, block(*POST_FIELDS) + literal(b"x", b"y", 0x40))
        + data(5, b"ignored")
        + window_update(5, 1)
        + headers(5, TRAILERS, ES | EH)
        + rst(5)
        + ping()
    )

    assert receiver.take() == [PingReceived()]
    assert sorted(connection.streams) == [1, 3]
    assert connection.decoder.table.entries == [(b"x", b"y")]


def test_pings_are_answered_and_reported() -> None:
    connection, receiver = server()
    connection.receive_data(ping(b"12345678") + ping(b"87654321", ACK))

    assert receiver.take() == [PingReceived(), PingAcknowledged(b"87654321")]


def test_a_lowered_table_binds_once_it_is_acknowledged() -> None:
    connection, receiver = server(Limits(header_table_bytes=100), started=False)
    connection.receive_data(PREFACE + settings() + get(1))
    connection.receive_data(SETTINGS_ACK + headers(3, b"\x3f\x45" + block(*GET_FIELDS), ES | EH))
    assert [each.stream_id for each in receiver.events if isinstance(each, RequestReceived)] == [1, 3]

    other, _ = server(Limits(header_table_bytes=100), started=False)
    other.receive_data(PREFACE + settings() + SETTINGS_ACK + get(1))
    assert other.closed is not None
    assert other.closed.code == ErrorCode.COMPRESSION_ERROR


def test_a_peers_smaller_table_is_kept_to() -> None:
    connection, receiver = server()
    connection.receive_data(settings((HEADER_TABLE_SIZE, 0)) + get(1))
    connection.data_to_send()
    connection.send_headers(receiver.streams[1], (STATUS, TYPE))

    assert frames(connection.data_to_send())[0].payload.startswith(b"\x20\x88")


# -- receivers that act --------------------------------------------------------------------------------


class Acting(RecordingReceiver):
    """Calls back into the connection from within its reports."""

    def __init__(self, deed: str) -> None:
        super().__init__()
        self.deed = deed
        self.connection: Connection | None = None

    def act(self, stream: Stream) -> None:
        assert self.connection is not None
        if self.deed == "reply":
            self.connection.send_reply(stream, (STATUS,), b"early", (TRAILER,))
        elif self.deed == "reset":
            self.connection.reset_stream(stream, ErrorCode.CANCEL)
        elif self.deed == "end":
            self.connection.terminate(ErrorCode.NO_ERROR, "enough")

    def request_received(self, stream: Stream, block: FieldBlock, end_stream: bool) -> StreamReceiver:  # type: ignore[override]
        receiver = super().request_received(stream, block, end_stream)
        self.act(stream)
        return receiver


@pytest.mark.parametrize("deed", ["reply", "reset", "end"])
@pytest.mark.parametrize("request_octets", [get(1), post_open(1) + data(1, b"x", ES)], ids=["GET", "POST"])
def test_a_request_can_be_done_with_while_it_is_being_reported(deed: str, request_octets: bytes) -> None:
    receiver = Acting(deed)
    connection = Connection(Role.SERVER, receiver)
    receiver.connection = connection
    connection.start()

    connection.receive_data(PREFACE + settings() + SETTINGS_ACK + request_octets + get(3))

    assert not connection.streams
    assert receiver.events.count(StreamClosed(1)) == 1
    assert not [each for each in receiver.events if isinstance(each, StreamReset)]
    if deed == "end":
        assert receiver.events[-1] == Ended(0, by_peer=False)
    else:
        assert connection.closed is None
        assert StreamClosed(3) in receiver.events


def test_headers_that_are_cut_wait_for_their_continuation_across_reads() -> None:
    connection, receiver = server()
    octets = block(*GET_FIELDS)
    connection.receive_data(headers(1, octets[:7], ES))
    connection.receive_data(continuation(1, octets[7:], EH))

    assert receiver.take() == [RequestReceived(1, GET_FIELDS, True)]
