"""The ways an HTTP/2 stream or connection ends.

    StreamEnded      what a stream's receiver is told       (RFC 9113 section 5.4.2)
    ConnectionEnded  what a connection's receiver is told   (RFC 9113 section 5.4.1)
    StreamFault, ConnectionFault   raised inside the engine where a rule is found broken; they never
                                   leave ``receive_data``

Source: RFC 9113 sections 5.4 and 7.
Knows nothing of gRPC status codes.
"""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0x00
    PROTOCOL_ERROR = 0x01
    INTERNAL_ERROR = 0x02
    FLOW_CONTROL_ERROR = 0x03
    SETTINGS_TIMEOUT = 0x04
    STREAM_CLOSED = 0x05
    FRAME_SIZE_ERROR = 0x06
    REFUSED_STREAM = 0x07
    CANCEL = 0x08
    COMPRESSION_ERROR = 0x09
    CONNECT_ERROR = 0x0A
    ENHANCE_YOUR_CALM = 0x0B
    INADEQUATE_SECURITY = 0x0C
    HTTP_1_1_REQUIRED = 0x0D


def code_name(code: int) -> str:
    """``CANCEL`` for 8; a code that no RFC names is legal and reads ``0xff``."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return hex(code)


class StreamEnded(Exception):
    """A stream ended before END_STREAM had passed both ways.

    ``processed`` is False only when the peer has promised that it did nothing with the request
    (REFUSED_STREAM, or a GOAWAY with a lower stream id): then a retry cannot run it twice.
    """

    def __init__(self, code: int, *, by_peer: bool, text: str, processed: bool = True) -> None:
        super().__init__(f"{code_name(code)}: {text}")
        self.code = code
        self.by_peer = by_peer
        self.text = text
        self.processed = processed


class ConnectionEnded(Exception):
    """The connection carries nothing any more; a GOAWAY of ours, if any, is already queued."""

    def __init__(self, code: int, *, by_peer: bool, text: str) -> None:
        super().__init__(f"{code_name(code)}: {text}")
        self.code = code
        self.by_peer = by_peer
        self.text = text


class TooManyStreams(Exception):
    """The peer allows no further stream now; wait for ``stream_closed``."""


class ConnectionClosing(Exception):
    """No stream can be opened here any more: GOAWAY came, the ids ran out, or the connection ended."""


class HeaderListTooLarge(Exception):
    """The fields are more than the peer takes (SETTINGS_MAX_HEADER_LIST_SIZE); nothing was sent."""


class ConnectionFault(Exception):
    """The peer broke a rule whose scope is the connection (RFC 9113 section 5.4.1)."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class StreamFault(Exception):
    """The peer broke a rule whose scope is one stream (RFC 9113 section 5.4.2)."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
