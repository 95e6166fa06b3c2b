"""The other side of a connection under test: frames written by hand, answers read back.

Written from RFC 9113 section 4 and RFC 7541 alone, so that the engine is never checked against itself.
"""

from __future__ import annotations

from typing import NamedTuple

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from trio_serve.wire.http2 import Connection, Fields, Limits, Role
from trio_serve.wire.http2.recording import RecordingReceiver, RequestReceived

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
ACK = ES = 0x1
EH = 0x4
PADDED = 0x8
PRIO = 0x20

(
    HEADER_TABLE_SIZE,
    ENABLE_PUSH,
    MAX_CONCURRENT_STREAMS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
) = range(1, 7)


class Frame(NamedTuple):
    kind: int
    flags: int
    stream_id: int
    payload: bytes


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def frames(data: bytes) -> list[Frame]:
    """Cut ``data`` into frames, of which the last must be whole."""
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        assert len(data) >= 9 + length, "the engine wrote half a frame"
        stream_id = int.from_bytes(data[5:9], "big")
        found.append(Frame(data[3], data[4], stream_id, data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def resets(connection: Connection) -> list[tuple[int, int]]:
    """The streams that what ``connection`` has to send resets, each with the code's last octet."""
    return [
        (each.stream_id, each.payload[3])
        for each in frames(connection.data_to_send())
        if each.kind == RST_STREAM
    ]


def word(value: int) -> bytes:
    return value.to_bytes(4, "big")


def settings(*entries: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(i.to_bytes(2, "big") + word(value) for i, value in entries))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def ping(payload: bytes = b"\x01\x23\x45\x67\x89\xab\xcd\xef", flags: int = 0, stream_id: int = 0) -> bytes:
    return frame(PING, flags, stream_id, payload)


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, word(increment))


def rst(stream_id: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream_id, word(code))


def priority(stream_id: int, depends_on: int = 0, weight: int = 255) -> bytes:
    return frame(PRIORITY, 0, stream_id, word(depends_on) + bytes((weight,)))


def goaway(code: int = 0, debug: bytes = b"", last: int = 0, stream_id: int = 0) -> bytes:
    return frame(GOAWAY, 0, stream_id, word(last) + word(code) + debug)


def data(stream_id: int, content: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream_id, content)


def headers(stream_id: int, block: bytes, flags: int = EH) -> bytes:
    return frame(HEADERS, flags, stream_id, block)


def continuation(stream_id: int, block: bytes, flags: int = 0) -> bytes:
    return frame(CONTINUATION, flags, stream_id, block)


def integer(prefix: int, pattern: int, value: int) -> bytes:
    most = (1 << prefix) - 1
    if value < most:
        return bytes((pattern | value,))
    octets, value = [pattern | most], value - most
    while value >= 128:
        octets.append(value % 128 + 128)
        value //= 128
    return bytes((*octets, value))


def huffman(text: bytes) -> bytes:
    return HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)


def string(text: bytes, huffman_coded: bool = False) -> bytes:
    if huffman_coded:
        text = huffman(text)
        return integer(7, 0x80, len(text)) + text
    return integer(7, 0, len(text)) + text


def literal(name: bytes | int, value: bytes, pattern: int = 0x00, huffman_coded: bool = False) -> bytes:
    """One literal field; ``pattern`` 0x40 adds it to the table, 0x00 does not, 0x10 never."""
    prefix = 6 if pattern == 0x40 else 4
    if isinstance(name, int):
        start = integer(prefix, pattern, name)
    else:
        start = bytes((pattern,)) + string(name, huffman_coded)
    return start + string(value, huffman_coded)


def block(*fields: tuple[bytes, bytes]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


METHOD, SCHEME, PATH = (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")
AUTHORITY = (b":authority", b"127.0.0.1")
GET_FIELDS = (METHOD, SCHEME, PATH, AUTHORITY)
POST_FIELDS = ((b":method", b"POST"), SCHEME, PATH, AUTHORITY)
GET_BLOCK = block(*GET_FIELDS)
POST_BLOCK = block(*POST_FIELDS)
BIG = literal(b"x-dummy0", b"x" * 4000)


def get(stream_id: int = 1, *more: tuple[bytes, bytes]) -> bytes:
    return headers(stream_id, block(*GET_FIELDS, *more), ES | EH)


def get_open(stream_id: int = 1, flags: int = EH) -> bytes:
    return headers(stream_id, GET_BLOCK, flags)


def post_open(stream_id: int = 1, *more: tuple[bytes, bytes]) -> bytes:
    return headers(stream_id, block(*POST_FIELDS, *more))


class SilentApplication(RecordingReceiver):
    """Answers nothing: what comes back is the engine's alone."""


def server(
    limits: Limits | None = None, receiver: RecordingReceiver | None = None, started: bool = True
) -> tuple[Connection, RecordingReceiver]:
    """A server connection; ``started`` has exchanged and acknowledged SETTINGS."""
    receiver = receiver or SilentApplication()
    connection = Connection(Role.SERVER, receiver, limits)
    connection.start()
    if started:
        connection.receive_data(PREFACE + settings() + SETTINGS_ACK)
        connection.data_to_send()
        receiver.take()
    return connection, receiver


def client(
    limits: Limits | None = None, *entries: tuple[int, int], started: bool = True
) -> tuple[Connection, RecordingReceiver]:
    receiver = RecordingReceiver()
    connection = Connection(Role.CLIENT, receiver, limits)
    connection.start()
    if started:
        connection.receive_data(settings(*entries) + SETTINGS_ACK)
        connection.data_to_send()
        receiver.take()
    return connection, receiver


class PlainApplication(RecordingReceiver):
    """A gRPC port's answer to what is no gRPC: 415 with a short body, be the request at its end or not."""

    HEADERS: Fields = ((b":status", b"415"), (b"content-type", b"text/plain"))
    BODY = b"gRPC only\n"

    def __init__(self) -> None:
        super().__init__()
        self._unanswered: list[RequestReceived] = []

    def request_received(self, stream, block, end_stream):  # type: ignore[no-untyped-def]
        receiver = super().request_received(stream, block, end_stream)
        self._unanswered.append(self.events[-1])
        return receiver

    def answer(self, connection: Connection) -> None:
        """Answer every request received since the last time."""
        unanswered, self._unanswered = self._unanswered, []
        for request in unanswered:
            stream = self.streams[request.stream_id]
            head = (b":method", b"HEAD") in request.fields
            connection.send_headers(stream, self.HEADERS, end_stream=head)
            if not head:
                connection.send_data(stream, self.BODY, end_stream=True)
