"""Message encodings: identity, gzip and deflate, with a bound on what a message inflates to.

gRPC's "deflate" is the zlib format (RFC 1950), as HTTP's is, not the bare RFC 1951 stream.

Source: gRPC "Compression", and gRPC over HTTP2, "Message-Encoding".
Knows single messages only: each is compressed by itself.
"""

import zlib
from collections.abc import Callable, Iterable
from functools import partial

from grpclib.exceptions import GRPCError

from .status import Status

Compress = Callable[[bytes], bytes]
Decompress = Callable[[bytes, int], bytes]

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

ENCODINGS = ("identity", *_WINDOW_BITS)
ACCEPT_ENCODING = ",".join(ENCODINGS).encode("ascii")

# At level 6 zlib takes three times as long for a few per cent less.
_LEVEL = 1

_STEP_BYTES = 64 * 1024


def compressor(encoding: str) -> Compress | None:
    """How to compress a message in ``encoding``; None for identity.

    Raises:
        ValueError: an encoding that we do not speak.
    """
    if encoding == "identity":
        return None
    if encoding not in _WINDOW_BITS:
        raise ValueError(f"unknown message encoding {encoding!r}; there are {', '.join(ENCODINGS)}")
    return partial(zlib.compress, level=_LEVEL, wbits=_WINDOW_BITS[encoding])


def decompressor(encoding: str) -> Decompress | None:
    """How to inflate a message in ``encoding``, ``(message, bytes_max) -> message``; None for identity.

    Raises:
        ValueError: an encoding that we do not speak.
    """
    if encoding == "identity":
        return None
    if encoding not in _WINDOW_BITS:
        raise ValueError(f"unknown message encoding {encoding!r}; there are {', '.join(ENCODINGS)}")
    return partial(_inflate, encoding)


def _inflate(encoding: str, message: bytes, bytes_max: int) -> bytes:
    """At most ``bytes_max`` bytes, and never more memory than about that.

    Raises:
        GRPCError: RESOURCE_EXHAUSTED over the limit; INTERNAL for what is not ``encoding``.
    """
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    # In steps: a single one gathers blocks and then joins them, and a bomb would cost twice the limit.
    # Each copies what it leaves of its input, so that this is given in steps too.
    parts: list[bytes] = []
    size = given = 0
    try:
        while size <= bytes_max and not inflater.eof and (inflater.unconsumed_tail or given < len(message)):
            step = inflater.unconsumed_tail
            if not step:
                step = message[given : given + _STEP_BYTES]
                given += len(step)
            part = inflater.decompress(step, _STEP_BYTES)
            size += len(part)
            parts.append(part)
        if size <= bytes_max:
            parts.append(inflater.flush())
            size += len(parts[-1])
    except zlib.error as error:
        raise GRPCError(Status.INTERNAL, f"message does not inflate as {encoding}: {error}") from None
    if size > bytes_max:
        raise GRPCError(
            Status.RESOURCE_EXHAUSTED,
            f"message of {len(message)} bytes inflates to more than message_bytes_max={bytes_max}",
        )
    if not inflater.eof or inflater.unused_data or given < len(message):
        what = "more bytes than" if inflater.eof else "only a part of"
        raise GRPCError(Status.INTERNAL, f"message has {what} one {encoding} stream")
    return b"".join(parts)


def accepted(encoding: str, accept_encoding: Iterable[str]) -> bool:
    """Whether a peer that accepts ``accept_encoding`` can be sent ``encoding``; identity always can."""
    return encoding == "identity" or encoding in accept_encoding
