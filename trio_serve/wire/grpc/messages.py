"""Length-Prefixed-Message: how gRPC cuts a stream of DATA bytes into messages.

    | 1 byte: compressed, 0 or 1 | 4 bytes: length, big-endian | length bytes: message |

Message boundaries and DATA frame boundaries have nothing to do with each other.

Source: gRPC over HTTP2, "Length-Prefixed-Message".
Knows nothing of streams, protobuf or Trio.
"""

import struct

from grpclib.exceptions import GRPCError

from .compression import Decompress
from .status import Status

_PREFIX = struct.Struct(">BI")
PREFIX_BYTES = _PREFIX.size

# Neighbouring pieces are glued up to this size.  A peer that sends a large message in
# DATA frames of one byte would else cost us a bytes object and a list slot for each.
_PIECE_BYTES = 2048


def frame_message(payload: bytes, compressed: bool = False) -> bytes:
    """``payload`` with its prefix, ready to be sent."""
    return _PREFIX.pack(compressed, len(payload)) + payload


def frame_large_message(payload: bytes, compressed: bool, first_bytes: int) -> tuple[bytes, memoryview]:
    """As ``frame_message``, in two parts, the first of ``first_bytes``: a large payload is not copied."""
    taken = first_bytes - PREFIX_BYTES
    return _PREFIX.pack(compressed, len(payload)) + payload[:taken], memoryview(payload)[taken:]


def whole_message(data: bytes, message_bytes_max: int) -> bytes | None:
    """The payload, when ``data`` is exactly one uncompressed message within the limit; else None.

    Nearly every unary request is: it needs no ``MessageReader`` then.
    """
    size = len(data) - PREFIX_BYTES
    if 0 <= size <= message_bytes_max and _PREFIX.unpack_from(data) == (0, size):
        return data[PREFIX_BYTES:]
    return None


class MessageReader:
    """Cuts one direction of one call into messages.

    It holds at most one unfinished message, of at most ``message_bytes_max`` bytes.

    Args:
        message_bytes_max: the largest message taken, on the wire and after inflating.
        decompress: for the encoding that the peer announced; None for identity.
        what: names the message in errors, "request message" or "reply message".
        way_out: tells the reader of the error where to lift the limit.
    """

    __slots__ = ("_decompress", "_message_bytes_max", "_pieces", "_size", "_want", "_way_out", "_what")

    def __init__(
        self,
        message_bytes_max: int,
        decompress: Decompress | None = None,
        what: str = "request message",
        way_out: str = "set it in grpc_options",
    ) -> None:
        self._message_bytes_max = message_bytes_max
        self._decompress = decompress
        self._what = what
        self._way_out = way_out
        self._pieces: list[bytes] = []
        self._size = 0  # bytes in the pieces
        self._want = PREFIX_BYTES  # bytes that the pieces need before there is anything to do

    @property
    def missing(self) -> int:
        """How many bytes the message that has begun still needs, as far as is known; 0 between messages."""
        return self._want - self._size if self._size else 0

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes, inflated.

        Raises:
            GRPCError: RESOURCE_EXHAUSTED for a message over the limit, at its prefix, before
                any of it is kept; INTERNAL for a bad prefix or a message that does not inflate.
                The call is over then, with the messages before it in ``data``; the reader must
                not be used again.
        """
        if self._pieces:
            self._keep(data)
            if self._size < self._want:
                return []
            if self._size == self._want > PREFIX_BYTES:
                return [self._take_only_message()]
            data = b"".join(self._pieces)
            self._pieces.clear()
        messages = []
        start, end = 0, len(data)
        self._want = PREFIX_BYTES
        while end - start >= PREFIX_BYTES:
            flag, size = _PREFIX.unpack_from(data, start)
            if flag or size > self._message_bytes_max:
                self._check_prefix(flag, size)
            message_end = start + PREFIX_BYTES + size
            if message_end > end:
                self._want = PREFIX_BYTES + size
                break
            payload = data[start + PREFIX_BYTES : message_end]
            messages.append(self._inflate(payload) if flag else payload)
            start = message_end
        self._size = end - start
        if self._size:
            self._pieces.append(data[start:])
        return messages

    def end(self) -> None:
        """The peer ended its stream.

        Raises:
            GRPCError: INTERNAL, when it did so within a message.
        """
        if self._size:
            raise GRPCError(
                Status.INTERNAL,
                f"{self._what} is cut off: the stream ended after {self._size} bytes of {self._want}",
            )

    def _take_only_message(self) -> bytes:
        """The pieces are one message and no more, as a large one's mostly are: copy it once, not twice."""
        flag = self._pieces[0][0]
        self._pieces[0] = self._pieces[0][PREFIX_BYTES:]
        payload = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return self._inflate(payload) if flag else payload

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if len(self._pieces[-1]) + len(data) <= _PIECE_BYTES:
            self._pieces[-1] += data
        else:
            self._pieces.append(data)

    def _check_prefix(self, flag: int, size: int) -> None:
        if flag > 1:
            raise GRPCError(
                Status.INTERNAL, f"{self._what} begins with {flag}, where 0 or 1 says if it is compressed"
            )
        if size > self._message_bytes_max:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED, f"{self._what} of {size} bytes is over {self._limit()}"
            )
        if flag and self._decompress is None:
            raise GRPCError(
                Status.INTERNAL, f"{self._what} is marked as compressed, but no grpc-encoding was sent"
            )

    def _inflate(self, payload: bytes) -> bytes:
        assert self._decompress is not None  # _check_prefix saw to it
        return self._decompress(payload, self._message_bytes_max)

    def _limit(self) -> str:
        return f"message_bytes_max={self._message_bytes_max} ({self._way_out})"
