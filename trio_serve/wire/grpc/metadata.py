"""Metadata: what an application sends beside its messages, as header fields.

A key that ends in ``-bin`` has bytes as its value, sent in base64; any other has
printable ASCII.

Source: gRPC over HTTP2, "Custom-Metadata"; RFC 9113 section 8.2 for what no field may carry.
Knows nothing of the fields that the protocol itself sends, but that they are taken.
"""

import binascii
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeAlias

from .fields import Fields, is_printable_ascii

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
MetadataLike: TypeAlias = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]

_KEY = re.compile(r"[0-9a-z_.\-]+")

# A connection-specific field makes the whole message malformed (RFC 9113 section 8.2.2);
# a content-length of the application's would be a lie about ours.
_RESERVED = frozenset(
    (
        "te",
        "content-type",
        "content-length",
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    )
)

# The names with grpc- that applications and their libraries do send: status details
# (grpcio-status), retry pushback (gRFC A6), tracing and load reports.
_OPEN_GRPC_KEYS = frozenset(
    (
        "grpc-status-details-bin",
        "grpc-retry-pushback-ms",
        "grpc-previous-rpc-attempts",
        "grpc-trace-bin",
        "grpc-tags-bin",
        "grpc-server-stats-bin",
    )
)


def encode_metadata(metadata: MetadataLike) -> Fields:
    """The fields that carry ``metadata``, in its order.

    Spaces around a text value are dropped: HTTP/2 forbids them, gRPC allows dropping them.

    Raises:
        ValueError: a key or value that no field can carry, or a name that the protocol keeps for itself.
        TypeError: a key that is no ``str``; text for a ``-bin`` key; a value neither text nor bytes.
    """
    fields = []
    # A tuple, which it mostly is, is told at once; the general question asks an ABC.
    pairs = metadata if type(metadata) is tuple or not isinstance(metadata, Mapping) else metadata.items()
    for key, value in pairs:
        name = _encode_key(key)
        if type(value) is str and value.isascii() and value.isprintable() and name[-4:] != b"-bin":
            fields.append((name, value.strip(" ").encode("ascii")))
        else:
            fields.append((name, _encode_value(key, value)))
    return tuple(fields)


@lru_cache(maxsize=1024)  # an application has few keys and sends them with every call
def _encode_key(key: str) -> bytes:
    if not isinstance(key, str):
        raise TypeError(f"metadata key {key!r} is no str")
    if not _KEY.fullmatch(key):
        raise ValueError(f"metadata key {key!r} has characters other than a-z 0-9 _ - and .")
    if key in _RESERVED or (key.startswith("grpc-") and key not in _OPEN_GRPC_KEYS):
        raise ValueError(f"metadata key {key!r} is reserved: gRPC sends it itself")
    return key.encode("ascii")


def _encode_value(key: str, value: str | bytes) -> bytes:
    if key.endswith("-bin"):
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"metadata {key!r} has {value!r}; the value of a -bin key is bytes")
        return binascii.b2a_base64(value, newline=False).rstrip(b"=")
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise TypeError(
            f"metadata {key!r} has {value!r}; the value must be a str (or bytes under a -bin key)"
        )
    if not is_printable_ascii(text):
        raise ValueError(
            f"metadata {key!r} has {value!r}: only printable ASCII can be sent; use a key that ends in -bin"
        )
    return text.strip(" ").encode("ascii")


def decode_metadata(fields: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """The metadata in a peer's fields, in their order; a comma-joined ``-bin`` value is split.

    Raises:
        ValueError: base64 that is none, or text out of the printable ASCII range.
    """
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        key, is_binary = _decode_key(name)
        if is_binary:
            metadata += [(key, _decode_base64(name, part)) for part in value.split(b",")]
            continue
        if not value.isalnum() and not (value.isascii() and value.decode().isprintable()):
            raise ValueError(f"metadata {name!r} has {value!r}, which is not printable ASCII")
        metadata.append((key, value.decode()))
    return tuple(metadata)


@lru_cache(maxsize=1024)  # as above; a peer that sends ever new keys only makes itself slower
def _decode_key(name: bytes) -> tuple[str, bool]:
    key = name.decode("latin-1")
    return key, key.endswith("-bin")


def _decode_base64(name: bytes, value: bytes) -> bytes:
    bare = value.strip(b" ").rstrip(b"=")
    try:
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"metadata {name!r} has {value[:64]!r}, which is not base64: {error}") from None
