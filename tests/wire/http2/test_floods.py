"""Limits: what is at the limit passes, what is one past it ends the connection or the stream.

Each flood is what a peer sends and never stops sending; the connection must say ENHANCE_YOUR_CALM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest

from trio_serve.wire.http2 import Connection, ErrorCode, Limits
from trio_serve.wire.http2.limits import Allowance
from trio_serve.wire.http2.recording import RecordingReceiver, RequestReceived, StreamReset

from .peer import (
    ES,
    GET_BLOCK,
    PADDED,
    POST_BLOCK,
    RST_STREAM,
    SETTINGS,
    continuation,
    data,
    frame,
    frames,
    get,
    headers,
    literal,
    ping,
    post_open,
    priority,
    rst,
    server,
    settings,
    window_update,
)

CALM = ErrorCode.ENHANCE_YOUR_CALM


def frames_survived(
    connection: Connection,
    flood: Callable[[int], bytes],
    most: int,
    *,
    reads: bool = True,
    now: float = 0.0,
) -> int:
    """How many turns of ``flood`` the connection bears; a peer that ``reads`` takes our bytes."""
    for turn in range(most):
        connection.receive_data(flood(turn), now)
        if connection.closed is not None:
            assert connection.closed.code == CALM, connection.closed
            return turn
        if reads:
            connection.data_to_send()
    return most


def test_rapid_reset_is_cut_at_the_burst() -> None:
    """HEADERS and RST_STREAM without end: each would start a handler and leave it behind."""
    connection, receiver = server()

    survived = frames_survived(connection, lambda n: get(2 * n + 1) + rst(2 * n + 1), 5000)

    assert survived == 950
    assert "resets_burst=950" in str(connection.closed)
    assert sum(isinstance(each, RequestReceived) for each in receiver.events) <= 951


def test_resets_are_forgiven_at_their_rate() -> None:
    connection, _ = server(Limits(resets_burst=10, resets_per_s=33))
    assert frames_survived(connection, lambda n: get(2 * n + 1) + rst(2 * n + 1), 10) == 10

    survived = frames_survived(connection, lambda n: get(2 * n + 101) + rst(2 * n + 101), 99, now=0.31)

    assert survived == 10


@pytest.mark.parametrize(
    "provoke",
    [
        pytest.param(lambda n: post_open(n) + window_update(n, 0), id="WINDOW_UPDATE of 0"),
        pytest.param(lambda n: get(n) + data(n, b"late"), id="DATA after END_STREAM"),
        pytest.param(lambda n: get(n) + get(n), id="HEADERS after END_STREAM"),
        pytest.param(lambda n: post_open(n) + frame(2, 0, n, bytes(4)), id="PRIORITY of 4 octets"),
        pytest.param(
            lambda n: post_open(n) + frame(2, 0, n, n.to_bytes(4, "big") + b"x"), id="self-dependency"
        ),
        pytest.param(lambda n: post_open(n, (b"content-length", b"1")) + data(n, b"12"), id="too much DATA"),
        pytest.param(lambda n: post_open(n) + 2 * window_update(n, (1 << 31) - 1), id="window overflow"),
        pytest.param(lambda n: get(n, (b"connection", b"x")), id="malformed request"),
    ],
)
def test_resets_that_the_peer_provokes_count_like_its_own(provoke: Callable[[int], bytes]) -> None:
    """MadeYouReset: the server is made to send the RST_STREAM."""
    connection, _ = server(Limits(window_updates_per_stream=100))

    survived = frames_survived(connection, lambda n: provoke(2 * n + 1), 5000)

    assert survived == 950


def test_streams_refused_are_no_abuse() -> None:
    """100,000 streams on one connection: each over the limit is refused, and the connection lives."""
    connection, receiver = server()
    refused = 0
    for number in range(20_000):
        connection.receive_data(get(2 * number + 1))
        refused += sum(each.kind == RST_STREAM for each in frames(connection.data_to_send()))

    assert connection.closed is None
    assert len(connection.streams) == 100
    assert refused == 19_900
    assert sum(isinstance(each, RequestReceived) for each in receiver.events) == 100


@pytest.mark.parametrize("fragment", [pytest.param(b"", id="empty"), pytest.param(b"\x00", id="one octet")])
def test_continuations_are_cut_past_eight(fragment: bytes) -> None:
    connection, _ = server()
    connection.receive_data(headers(1, GET_BLOCK, ES))

    assert frames_survived(connection, lambda n: continuation(1, fragment), 100) == 8


def test_a_field_block_is_cut_past_its_size() -> None:
    connection, _ = server(Limits(header_block_bytes_max=40_000))
    connection.receive_data(headers(1, b"", 0))

    assert frames_survived(connection, lambda n: continuation(1, bytes(10_000)), 8) == 4
    assert "header_block_bytes_max=40000" in str(connection.closed)


def test_a_ping_flood_is_cut_when_the_replies_pile_up() -> None:
    connection, _ = server()

    assert frames_survived(connection, lambda n: ping(), 5000, reads=False) == 1000
    assert "control_replies_max=1000" in str(connection.closed)


def test_a_settings_flood_is_cut_when_the_replies_pile_up() -> None:
    connection, _ = server()

    assert frames_survived(connection, lambda n: settings(), 5000, reads=False) == 1000


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(lambda n: ping(), id="PING"),
        pytest.param(lambda n: ping(flags=1), id="PING with ACK"),
        pytest.param(lambda n: settings(), id="SETTINGS"),
        pytest.param(lambda n: frame(SETTINGS, 1, 0), id="SETTINGS with ACK"),
        pytest.param(lambda n: frame(0x16, 0, 0), id="unknown type"),
        pytest.param(lambda n: frame(0x7, 0, 0, bytes(8)), id="GOAWAY"),
        pytest.param(lambda n: rst(1), id="RST_STREAM of a stream that is gone"),
        pytest.param(lambda n: data(3, b""), id="empty DATA on a stream that we reset"),
    ],
)
def test_frames_that_move_nothing_are_cut_even_from_a_peer_who_reads(flood: Callable[[int], bytes]) -> None:
    connection, receiver = server(Limits(glitches_burst=500, glitches_per_s=10))
    connection.receive_data(post_open(1) + rst(1) + post_open(3))
    connection.reset_stream(receiver.streams[3], ErrorCode.CANCEL)

    assert frames_survived(connection, flood, 5000) == 500


@pytest.mark.parametrize(
    ("late", "under_way"),
    [
        pytest.param(data(3, b"x"), 65_535 - 100, id="DATA"),
        pytest.param(headers(3, GET_BLOCK), 3, id="HEADERS"),
    ],
)
def test_what_was_under_way_when_we_reset_the_stream_is_no_flood(late: bytes, under_way: int) -> None:
    """The peer may fill the stream's window before it reads our RST_STREAM; what is past it counts."""
    connection, receiver = server(Limits(glitches_burst=500, glitches_per_s=10))
    connection.receive_data(post_open(3) + data(3, bytes(100)))
    connection.reset_stream(receiver.streams[3], ErrorCode.CANCEL)

    assert frames_survived(connection, lambda n: late, 100_000) == under_way + 500
    assert "glitches_burst=500" in str(connection.closed)


def test_glitches_are_forgiven_at_their_rate() -> None:
    connection, _ = server(Limits(glitches_burst=10, glitches_per_s=10))
    for second in range(100):
        connection.receive_data(ping() * 10, float(second))
        connection.data_to_send()

    assert connection.closed is None


def test_empty_data_is_cut_past_a_hundred_in_a_row() -> None:
    connection, _ = server()
    connection.receive_data(post_open(1))

    assert frames_survived(connection, lambda n: data(1, b""), 5000) == 100


def test_padding_does_not_make_data_less_empty() -> None:
    connection, _ = server()
    connection.receive_data(post_open(1))

    assert frames_survived(connection, lambda n: data(1, b"\x05" + bytes(5), PADDED), 5000) == 100


def test_data_with_content_starts_the_row_anew() -> None:
    connection, _ = server()
    connection.receive_data(post_open(1))

    assert frames_survived(connection, lambda n: data(1, b"") * 100 + data(1, b"x"), 50) == 50


def test_priorities_are_allowed_by_the_hundred_for_each_stream() -> None:
    idle, _ = server()
    assert frames_survived(idle, lambda n: priority(99), 5000) == 100

    busy, _ = server()
    busy.receive_data(post_open(1) + post_open(3))
    assert frames_survived(busy, lambda n: priority(1), 5000) == 300


def test_window_updates_are_allowed_by_streams_and_data_sent() -> None:
    idle, _ = server()
    assert frames_survived(idle, lambda n: window_update(0, 1), 5000) == 5

    busy, receiver = server()
    busy.receive_data(post_open(1) + post_open(3))
    busy.send_data(receiver.streams[1], b"one DATA")
    assert frames_survived(busy, lambda n: window_update(1, 1), 5000) == 5 + 2 * 2 + 20


def test_an_hpack_bomb_costs_its_stream_and_not_the_connection() -> None:
    """One entry of 4,000 octets, then one octet for each time it is meant again."""
    connection, receiver = server()
    connection.receive_data(headers(1, GET_BLOCK + literal(b"x", b"y" * 3900, 0x40), ES | 4))
    receiver.take()

    connection.receive_data(headers(3, GET_BLOCK + b"\xbe" * 16_000, ES | 4))
    answers = frames(connection.data_to_send())

    assert [(each.kind, each.stream_id, each.payload[3]) for each in answers] == [(RST_STREAM, 3, CALM)]
    assert not receiver.take()
    connection.receive_data(headers(5, GET_BLOCK + b"\xbe", ES | 4))
    assert [each.fields[-1][0] for each in receiver.take() if isinstance(each, RequestReceived)] == [b"x"]


def test_trailers_over_the_list_limit_reset_the_call() -> None:
    connection, receiver = server(Limits(header_list_bytes_max=1000))
    connection.receive_data(post_open(1) + headers(1, literal(b"x", b"y" * 1000), ES | 4))

    assert StreamReset(1, CALM, by_peer=False, processed=True) in receiver.events
    assert connection.closed is None


@pytest.mark.parametrize("streams_max", [1, 3])
def test_streams_are_refused_one_past_the_limit_and_taken_again_when_one_ends(streams_max: int) -> None:
    connection, receiver = server(Limits(streams_max=streams_max))
    for number in range(streams_max):
        connection.receive_data(post_open(2 * number + 1))
    assert not connection.data_to_send()

    connection.receive_data(post_open(101))
    assert [each.payload[3] for each in frames(connection.data_to_send())] == [ErrorCode.REFUSED_STREAM]

    connection.reset_stream(receiver.streams[1], ErrorCode.CANCEL)
    connection.receive_data(post_open(103))
    assert 103 in connection.streams


def test_a_frame_at_the_limit_passes_and_a_longer_one_is_refused_at_its_header() -> None:
    limits = Limits(frame_bytes_max=20_000, stream_window_bytes=1 << 20)
    connection, _ = server(limits)
    connection.receive_data(post_open(1) + data(1, bytes(20_000)))
    assert connection.closed is None

    connection.receive_data(frame(0, 0, 1, bytes(20_001))[:9])
    assert connection.closed is not None
    assert connection.closed.code == ErrorCode.FRAME_SIZE_ERROR


def test_data_within_the_stream_window_passes_and_one_octet_past_it_does_not() -> None:
    limits = Limits(stream_window_bytes=100)
    for size, resets in [(100, 0), (101, 1)]:
        for flags in (0, ES):
            connection, _ = server(limits)
            connection.receive_data(headers(1, POST_BLOCK) + data(1, bytes(size), flags))
            answers = frames(connection.data_to_send())
            assert [each.payload[3] for each in answers] == [ErrorCode.FLOW_CONTROL_ERROR] * resets


def test_data_past_the_connection_window_ends_the_connection() -> None:
    limits = Limits(connection_window_bytes=65_535, stream_window_bytes=1 << 20)
    connection, _ = server(limits)
    connection.receive_data(post_open(1) + data(1, bytes(16_000)) * 4 + data(1, bytes(1_535)))
    assert connection.closed is None

    connection.receive_data(data(1, b"x"))
    assert connection.closed is not None
    assert connection.closed.code == ErrorCode.FLOW_CONTROL_ERROR


def test_a_bucket_holds_its_burst_and_fills_at_its_rate() -> None:
    allowance = Allowance(2, 0.5)

    assert [allowance.spend(0.0) for _ in range(3)] == [True, True, False]
    assert not allowance.spend(1.9)
    assert allowance.spend(2.0)
    assert not allowance.spend(2.0)
    assert [allowance.spend(1e9) for _ in range(3)] == [True, True, False]


def test_a_clock_that_stands_or_runs_backwards_fills_nothing() -> None:
    allowance = Allowance(1, 1.0)
    assert allowance.spend(100.0)

    assert not allowance.spend(0.0)
    assert not allowance.spend(0.5)


def test_limits_out_of_range_are_all_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"frame_bytes_max=1 .*streams_max=-1 .*send_low_water=9 .*"):
        Limits(frame_bytes_max=1, streams_max=-1, send_low_water=9, send_high_water=8)


@pytest.mark.parametrize("limit", [each.name for each in fields(Limits)])
def test_every_limit_can_be_set(limit: str) -> None:
    value = getattr(Limits(), limit)

    assert getattr(Limits(**{limit: value}), limit) == value


def test_crumbs_of_a_frame_are_gathered_in_few_pieces() -> None:
    """A slow peer sends a frame of 16 kB in pieces of two octets: the pieces must not weigh more than it."""
    receiver = RecordingReceiver()
    connection, _ = server(receiver=receiver)
    connection.receive_data(post_open(1))
    octets = data(1, bytes(16_384))
    for start in range(0, len(octets), 2):
        connection.receive_data(octets[start : start + 2])
        assert len(connection.held) <= 66

    assert receiver.events[-1].data == bytes(16_384)  # type: ignore[union-attr]
