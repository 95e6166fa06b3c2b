"""gRPC without I/O: what the protocol's bytes and header fields mean.

    fields      a header section as it comes from below
    metadata    an application's own fields
    timeout     grpc-timeout
    status      the seventeen codes
    request     the head of a call
    response    headers, trailers, and both at once
    messages    a byte stream cut into messages
    compression gzip and deflate, bounded

Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md of the gRPC project).
Knows no sockets, clocks, HTTP/2 frames or protobuf.
"""

from .compression import (
    ACCEPT_ENCODING,
    ENCODINGS,
    Compress,
    Decompress,
    accepted,
    compressor,
    decompressor,
)
from .fields import FieldBlock, Fields
from .messages import PREFIX_BYTES, MessageReader, frame_large_message, frame_message, whole_message
from .metadata import Metadata, MetadataLike, decode_metadata, encode_metadata
from .request import (
    GrpcRefusal,
    HttpRefusal,
    RequestHead,
    build_request_fields,
    read_request,
    request_prefix,
)
from .response import (
    OK_TRAILERS,
    RESPONSE_HEADERS,
    ResponseHead,
    Trailers,
    decode_message,
    encode_message,
    read_response_headers,
    read_trailers,
    refusal,
    response_headers,
    trailers,
    trailers_only,
)
from .status import Status, status_from_http, status_from_wire, to_status
from .timeout import decode_timeout, encode_timeout

__all__ = [
    "ACCEPT_ENCODING",
    "ENCODINGS",
    "OK_TRAILERS",
    "PREFIX_BYTES",
    "RESPONSE_HEADERS",
    "Compress",
    "Decompress",
    "FieldBlock",
    "Fields",
    "GrpcRefusal",
    "HttpRefusal",
    "MessageReader",
    "Metadata",
    "MetadataLike",
    "RequestHead",
    "ResponseHead",
    "Status",
    "Trailers",
    "accepted",
    "build_request_fields",
    "compressor",
    "decode_message",
    "decode_metadata",
    "decode_timeout",
    "decompressor",
    "encode_message",
    "encode_metadata",
    "encode_timeout",
    "frame_large_message",
    "frame_message",
    "read_request",
    "read_response_headers",
    "read_trailers",
    "refusal",
    "request_prefix",
    "response_headers",
    "status_from_http",
    "status_from_wire",
    "to_status",
    "trailers",
    "trailers_only",
    "whole_message",
]
