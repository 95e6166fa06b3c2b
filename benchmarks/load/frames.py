"""The few HTTP/2 octets that a client must be able to write, and read.

    | length 24 | type 8 | flags 8 | stream 32 | payload |

Source: RFC 9113 section 4.1; RFC 7541 section 6.2.2 for the literals.  Independent of `trio_serve.wire`, so
that a mistake there is not measured with the same mistake.
"""

import struct
from collections.abc import Iterable

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
WINDOW_MAX = 2**31 - 1

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER = struct.Struct(">HBBBL")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def opening(window: int = WINDOW_MAX) -> bytes:
    """Preface, SETTINGS, and a connection window as large as a stream's."""
    settings = struct.pack(">HL", INITIAL_WINDOW_SIZE, window)
    return PREFACE + frame(SETTINGS, 0, 0, settings) + window_update(0, window - 65_535)


def window_update(stream_id: int, octets: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, octets.to_bytes(4, "big"))


def literal(name: bytes, value: bytes) -> bytes:
    """One field, not indexed and not Huffman coded; name and value under 127 octets."""
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


def request_block(path: str, *more: tuple[bytes, bytes]) -> bytes:
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    )
    return b"".join(literal(name, value) for name, value in fields)


def message(payload: bytes) -> bytes:
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def walk(buffer: bytearray) -> Iterable[tuple[int, int, int, bytes]]:
    """Take every whole frame off the front of ``buffer``: type, flags, stream, payload."""
    at, end = 0, len(buffer)
    try:
        while end - at >= 9:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(buffer, at)
            after = at + 9 + (high << 8 | low)
            if after > end:
                return
            payload = bytes(buffer[at + 9 : after])
            at = after
            yield kind, flags, stream_id, payload
    finally:
        del buffer[:at]
