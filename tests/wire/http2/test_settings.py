"""SETTINGS, in and out (RFC 9113 section 6.5)."""

import pytest

from trio_serve.wire.http2 import ErrorCode, Limits
from trio_serve.wire.http2.errors import ConnectionFault
from trio_serve.wire.http2.settings import STREAMS_UNLIMITED, PeerSettings, our_settings

from .peer import (
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    settings,
)


def applied(*entries: tuple[int, int], from_server: bool = False, first: bool = True) -> PeerSettings:
    peer = PeerSettings()
    peer.apply(settings(*entries)[9:], from_server=from_server, first=first)
    return peer


def test_the_defaults_are_the_protocols() -> None:
    peer = PeerSettings()

    assert (peer.initial_window, peer.frame_bytes_max, peer.header_list_bytes_max) == (65535, 16384, None)


def test_the_first_settings_lift_the_assumed_stream_limit_unless_they_name_one() -> None:
    assert PeerSettings().streams_max == 100
    assert applied().streams_max == STREAMS_UNLIMITED
    assert applied((MAX_CONCURRENT_STREAMS, 7)).streams_max == 7
    assert applied(first=False).streams_max == 100


def test_the_last_value_stands_and_every_table_size_is_told() -> None:
    peer = PeerSettings()
    sizes = peer.apply(
        settings(
            (HEADER_TABLE_SIZE, 0),
            (INITIAL_WINDOW_SIZE, 9),
            (HEADER_TABLE_SIZE, 64),
            (INITIAL_WINDOW_SIZE, 1),
        )[9:],
        from_server=False,
        first=True,
    )

    assert sizes == [0, 64]
    assert peer.initial_window == 1


@pytest.mark.parametrize(
    ("identifier", "least", "most", "code"),
    [
        (INITIAL_WINDOW_SIZE, 0, (1 << 31) - 1, ErrorCode.FLOW_CONTROL_ERROR),
        (MAX_FRAME_SIZE, 1 << 14, (1 << 24) - 1, ErrorCode.PROTOCOL_ERROR),
        (ENABLE_PUSH, 0, 1, ErrorCode.PROTOCOL_ERROR),
        (HEADER_TABLE_SIZE, 0, (1 << 32) - 1, None),
        (MAX_CONCURRENT_STREAMS, 0, (1 << 32) - 1, None),
        (MAX_HEADER_LIST_SIZE, 0, (1 << 32) - 1, None),
        (0xABCD, 0, (1 << 32) - 1, None),
    ],
)
def test_each_value_is_accepted_within_its_range_and_refused_past_it(
    identifier: int, least: int, most: int, code: ErrorCode | None
) -> None:
    applied((identifier, least))
    applied((identifier, most))
    for outside in [least - 1, most + 1]:
        if 0 <= outside < 1 << 32:
            with pytest.raises(ConnectionFault) as refused:
                applied((identifier, outside))
            assert refused.value.code is code


def test_a_server_may_not_allow_push() -> None:
    applied((ENABLE_PUSH, 0), from_server=True)
    with pytest.raises(ConnectionFault):
        applied((ENABLE_PUSH, 1), from_server=True)


def test_only_what_differs_from_the_protocol_is_announced() -> None:
    assert our_settings(Limits(), is_client=False) == [
        (MAX_HEADER_LIST_SIZE, 16384),
        (MAX_CONCURRENT_STREAMS, 100),
    ]
    assert our_settings(Limits(), is_client=True) == [(MAX_HEADER_LIST_SIZE, 16384), (ENABLE_PUSH, 0)]
    limits = Limits(header_table_bytes=0, stream_window_bytes=1 << 20, frame_bytes_max=1 << 15)
    assert our_settings(limits, is_client=True)[2:] == [
        (HEADER_TABLE_SIZE, 0),
        (INITIAL_WINDOW_SIZE, 1 << 20),
        (MAX_FRAME_SIZE, 1 << 15),
    ]
