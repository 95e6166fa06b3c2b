"""Frames: the layout that everything in HTTP/2 travels in.

    | 3 octets: length | 1: type | 1: flags | 4: reserved bit and stream id | length octets: payload |

The first four octets are read as one number, ``length << 8 | type``: one ``struct`` call a frame.

Source: RFC 9113 sections 4.1 and 6.
Knows nothing of streams' states or of what may be sent when.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

from .errors import ConnectionFault, ErrorCode

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES = 9
FRAME_BYTES_DEFAULT = 1 << 14
FRAME_BYTES_LARGEST = (1 << 24) - 1
STREAM_ID_MAX = (1 << 31) - 1

DATA = 0x00
HEADERS = 0x01
PRIORITY = 0x02
RST_STREAM = 0x03
SETTINGS = 0x04
PUSH_PROMISE = 0x05
PING = 0x06
GOAWAY = 0x07
WINDOW_UPDATE = 0x08
CONTINUATION = 0x09

# Flags: ACK and END_STREAM share a bit, on frames of different types.
ACK = 0x01
END_STREAM = 0x01
END_HEADERS = 0x04
PADDED = 0x08
PRIORITISED = 0x20

FRAME_HEADER = Struct(">IBI")  # length << 8 | type, flags, stream id
pack_frame_header = FRAME_HEADER.pack
_FRAME_WITH_WORD = Struct(">IBII")
_GOAWAY = Struct(">IBIII")
_SETTING = Struct(">HI")

SETTINGS_ACK = pack_frame_header(SETTINGS, ACK, 0)


def settings_frame(entries: Iterable[tuple[int, int]]) -> bytes:
    payload = b"".join([_SETTING.pack(identifier, value) for identifier, value in entries])
    return pack_frame_header(len(payload) << 8 | SETTINGS, 0, 0) + payload


def rst_stream_frame(stream_id: int, code: int) -> bytes:
    return _FRAME_WITH_WORD.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """``stream_id`` 0 widens the connection's window."""
    return _FRAME_WITH_WORD.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def ping_frame(payload: bytes, ack: bool = False) -> bytes:
    """``payload`` is exactly 8 octets."""
    return pack_frame_header(8 << 8 | PING, ACK if ack else 0, 0) + payload


def goaway_frame(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    return _GOAWAY.pack((8 + len(debug)) << 8 | GOAWAY, 0, 0, last_stream_id, code) + debug


def headers_frames(stream_id: int, block: bytes, end_stream: bool, frame_bytes_max: int) -> bytes:
    """HEADERS, and as many CONTINUATION as the peer's frame size asks for, in one piece.

    Nothing may come between them on the connection (RFC 9113 section 4.3).
    """
    flags = END_STREAM if end_stream else 0
    if len(block) <= frame_bytes_max:
        return pack_frame_header(len(block) << 8 | HEADERS, flags | END_HEADERS, stream_id) + block
    pieces = [pack_frame_header(frame_bytes_max << 8 | HEADERS, flags, stream_id), block[:frame_bytes_max]]
    for start in range(frame_bytes_max, len(block), frame_bytes_max):
        part = block[start : start + frame_bytes_max]
        last = start + frame_bytes_max >= len(block)
        pieces.append(pack_frame_header(len(part) << 8 | CONTINUATION, END_HEADERS if last else 0, stream_id))
        pieces.append(part)
    return b"".join(pieces)


_SHORT_BLOCK_MAX = 127
# The five octets before the stream id of a HEADERS whose block is short, by the block's length: three
# lookups and one join are half the time of packing three frame headers.
_OPENING_STARTS = [bytes((0, 0, length, HEADERS, END_HEADERS)) for length in range(_SHORT_BLOCK_MAX + 1)]
_CLOSING_STARTS = [
    bytes((0, 0, length, HEADERS, END_HEADERS | END_STREAM)) for length in range(_SHORT_BLOCK_MAX + 1)
]


def reply_frames(stream_id: int, opening: bytes, data: bytes, closing: bytes, frame_bytes_max: int) -> bytes:
    """HEADERS, DATA and HEADERS with END_STREAM in one piece; ``data`` fits one frame."""
    opening_size, closing_size = len(opening), len(closing)
    if opening_size <= _SHORT_BLOCK_MAX and closing_size <= _SHORT_BLOCK_MAX:
        identifier = stream_id.to_bytes(4, "big")
        return b"".join(
            (
                _OPENING_STARTS[opening_size],
                identifier,
                opening,
                len(data).to_bytes(3, "big"),
                b"\x00\x00",
                identifier,
                data,
                _CLOSING_STARTS[closing_size],
                identifier,
                closing,
            )
        )
    return b"".join(
        (
            headers_frames(stream_id, opening, False, frame_bytes_max),
            pack_frame_header(len(data) << 8 | DATA, 0, stream_id),
            data,
            headers_frames(stream_id, closing, True, frame_bytes_max),
        )
    )


def unpadded(payload: bytes) -> bytes:
    """What stands between the pad length octet and the padding (section 6.1)."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding is as long as the payload or longer")
    return payload[1 : len(payload) - payload[0]]
