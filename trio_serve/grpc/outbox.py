"""The sending side of one call: response headers, messages, and waiting while the peer takes no more.

    put(payload) --> [headers, once] + frame --> wire connection --> windows --> writer
    checkpoint() .... parks past the high water of the stream or of the connection

Knows nothing of status or of what a message means.
"""

import trio

from trio_serve.transport.connection import Http2Connection
from trio_serve.transport.parking import ParkingPlace
from trio_serve.transport.writer import BACKLOG_HIGH
from trio_serve.wire.grpc import (
    RESPONSE_HEADERS,
    Fields,
    Metadata,
    accepted,
    compressor,
    encode_metadata,
    frame_large_message,
    frame_message,
    response_headers,
)
from trio_serve.wire.grpc.compression import Compress
from trio_serve.wire.http2 import Stream

MESSAGES_A_TURN = 64
"""After so many messages without waiting, a sender, or a receiver, lets other tasks run."""

LARGE_MESSAGE_BYTES = 16 * 1024
"""A longer message is sent without copying it behind its prefix; also the size of a DATA frame."""

COMPRESSIONS: dict[object, str] = {None: "identity", 0: "identity", 1: "deflate", 2: "gzip"}
"""None, and the numbers of ``grpc.Compression``."""


class Outbox:
    """One direction of one call, sending side (server)."""

    __slots__ = (
        "_compress",
        "_connection",
        "_encoding",
        "_metadata",
        "_place",
        "_stream",
        "_turn",
        "headers_sent",
    )

    def __init__(self, connection: Http2Connection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream
        self._metadata: Metadata = ()
        self._encoding = "identity"
        self._compress: Compress | None = None
        self._place: ParkingPlace | None = None  # made when the peer first takes no more
        self._turn = 0
        self.headers_sent = False

    def set_metadata(self, metadata: Metadata) -> None:
        if self.headers_sent:
            raise RuntimeError("initial metadata has been sent already, with the response headers")
        encode_metadata(metadata)
        self._metadata = tuple(metadata)

    def set_compression(self, compression: str | int | None, accept_encoding: tuple[str, ...]) -> None:
        encoding = COMPRESSIONS.get(compression) or str(compression)
        compress = compressor(encoding)
        if not accepted(encoding, accept_encoding):
            compress = None
        elif not self.headers_sent:
            self._encoding = encoding
        elif encoding != self._encoding:
            compress = None  # the headers have named another encoding; identity is always allowed
        self._compress = compress

    def send_headers(self) -> None:
        """Queue the response headers, the first time."""
        if not self.headers_sent:
            self._connection.wire.send_headers(self._stream, self._response_headers())
            self._connection.touch()

    def put(self, payload: bytes) -> None:
        """Queue one message."""
        if not self.headers_sent:
            self.send_headers()
        self._send(payload)
        self._connection.touch()

    def reply(self, payload: bytes, trailers: Fields) -> None:
        """Queue a whole unary answer."""
        if not self.headers_sent:
            self.send_headers()
        self._send(payload)
        self._connection.wire.send_headers(self._stream, trailers, end_stream=True)

    async def checkpoint(self) -> None:
        """Wait until the peer has taken enough for more to be sent; now and then just let others run."""
        if self._is_crowded():
            place = self._place = self._place or ParkingPlace()
            while self._is_crowded():
                if self._connection.writer.backlog > BACKLOG_HIGH:
                    self._connection.writer.wake_when_room(place)
                await place.park()
            return
        self._turn += 1
        if self._turn >= MESSAGES_A_TURN:
            self._turn = 0
            await trio.lowlevel.checkpoint()

    def wake(self) -> None:
        """The stream has room again, or is gone."""
        if self._place is not None:
            self._place.wake()

    def _is_crowded(self) -> bool:
        wire = self._connection.wire
        stream = self._stream
        if stream.unsent > wire.limits.send_high_water:
            return True
        return self._connection.writer.backlog > BACKLOG_HIGH and wire.closed is None

    def _send(self, payload: bytes) -> None:
        wire, stream = self._connection.wire, self._stream
        compressed = self._compress is not None
        if self._compress is not None:
            payload = self._compress(payload)
        if len(payload) <= LARGE_MESSAGE_BYTES:
            wire.send_data(stream, frame_message(payload, compressed))
            return
        first, rest = frame_large_message(payload, compressed, LARGE_MESSAGE_BYTES)
        wire.send_data(stream, first)
        wire.send_data(stream, rest)

    def _response_headers(self) -> Fields:
        self.headers_sent = True
        if self._encoding == "identity" and not self._metadata:
            return RESPONSE_HEADERS
        return response_headers(self._encoding, self._metadata)
