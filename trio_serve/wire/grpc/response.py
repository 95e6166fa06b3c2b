"""The answer to a call: response header fields, trailers, and both at once, each way.

    headers, message*, trailers       an answer
    headers with grpc-status          trailers only: an error before the first message

Source: gRPC over HTTP2, "Responses" and "HTTP2 Transport Mapping".
Knows no streams, messages or limits.
"""

import binascii
import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from .compression import ACCEPT_ENCODING, ENCODINGS
from .fields import FieldBlock, Fields, to_text
from .metadata import Metadata, MetadataLike, decode_metadata, encode_metadata
from .request import GrpcRefusal, HttpRefusal, is_grpc_content_type
from .status import Status, status_from_http, status_from_wire

RESPONSE_HEADERS: Fields = ((b":status", b"200"), (b"content-type", b"application/grpc"))
"""What nearly every answer begins with; constant, so that the peer's header table learns it."""

OK_TRAILERS: Fields = ((b"grpc-status", b"0"),)

_STATUS_FIELDS = {status: (b"grpc-status", str(status.value).encode("ascii")) for status in Status}

# Percent-coded are '%' itself and all but printable ASCII; spaces at either end too, because
# HTTP/2 allows none around a value (RFC 9113 section 8.2.1).
_PLAIN_MESSAGE = re.compile(r"[!-$&-~](?:[ -$&-~]*[!-$&-~])?")
_UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


def encode_message(message: str) -> bytes:
    """``message`` as a ``grpc-message`` field carries it."""
    if _PLAIN_MESSAGE.fullmatch(message):
        return message.encode("ascii")
    safe = _UNQUOTED if message != message.strip(" ") else _UNQUOTED + " "
    return quote(message, safe=safe, errors="replace").encode("ascii")


def decode_message(value: bytes) -> str:
    """The text in a peer's ``grpc-message``; what is no percent-code or UTF-8 in it does not fail."""
    return unquote_to_bytes(value).decode("utf-8", "replace")


def response_headers(encoding: str = "identity", metadata: MetadataLike = ()) -> Fields:
    """The fields before the first message.

    Raises:
        ValueError, TypeError: metadata that cannot be sent, see ``encode_metadata``.
    """
    fields = RESPONSE_HEADERS
    if encoding != "identity":
        fields = (*fields, (b"grpc-encoding", encoding.encode("ascii")))
    return fields + encode_metadata(metadata) if metadata else fields


def trailers(
    status: Status = Status.OK,
    message: str = "",
    metadata: MetadataLike = (),
    details_bin: bytes = b"",
) -> Fields:
    """The fields after the last message; ``details_bin`` is a serialized ``google.rpc.Status``.

    Raises:
        ValueError, TypeError: metadata that cannot be sent, see ``encode_metadata``.
    """
    fields: Fields = (_STATUS_FIELDS[status],)
    if message:
        fields = (*fields, (b"grpc-message", encode_message(message)))
    if metadata:
        fields += encode_metadata(metadata)
    if details_bin:
        coded = binascii.b2a_base64(details_bin, newline=False).rstrip(b"=")
        fields = (*fields, (b"grpc-status-details-bin", coded))
    return fields


def trailers_only(
    status: Status,
    message: str = "",
    metadata: MetadataLike = (),
    details_bin: bytes = b"",
) -> Fields:
    """Headers and trailers in one section that ends the stream, for an answer without a message."""
    return RESPONSE_HEADERS + trailers(status, message, metadata, details_bin)


def refusal(problem: HttpRefusal | GrpcRefusal) -> tuple[Fields, bytes]:
    """The header fields and the body (empty for gRPC) that answer a request with a problem."""
    if isinstance(problem, HttpRefusal):
        fields: Fields = (
            (b":status", b"%d" % problem.http_status),
            (b"content-type", b"text/plain; charset=utf-8"),
        )
        return fields, problem.message.encode("utf-8")
    fields = trailers_only(problem.status, problem.message)
    if problem.status is Status.UNIMPLEMENTED:
        fields = (*fields, (b"grpc-accept-encoding", ACCEPT_ENCODING))
    return fields, b""


class ResponseHead(NamedTuple):
    """What a server's header fields say; with a ``problem``, the call has failed with it."""

    encoding: str
    accept_encoding: tuple[str, ...]
    metadata: Metadata
    problem: GrpcRefusal | None


class Trailers(NamedTuple):
    """How a call ended.  ``details`` is a serialized ``google.rpc.Status``, or empty."""

    status: Status
    message: str
    metadata: Metadata
    details: bytes


_HEAD_FIELDS = frozenset((b":status", b"content-type", b"grpc-encoding", b"grpc-accept-encoding"))
_TRAILER_FIELDS = _HEAD_FIELDS | {b"grpc-status", b"grpc-message"}


def read_response_headers(block: FieldBlock) -> ResponseHead:
    """What the header section of a response says, kept in ``block.reading``.  Never raises.

    A section that ends the stream is an answer of trailers only: give it to ``read_trailers``.
    """
    if type(block.reading) is ResponseHead:
        return block.reading
    known = dict(block.fields)
    problem = _foreign_answer(known)
    encoding = to_text(known.get(b"grpc-encoding", b"identity"))
    if encoding not in ENCODINGS:
        problem = problem or GrpcRefusal(
            Status.INTERNAL, f"reply messages come as grpc-encoding {encoding!r}, which was not accepted"
        )
    accept_encoding = to_text(known.get(b"grpc-accept-encoding", b"")).split(",")
    metadata: Metadata = ()
    try:
        metadata = decode_metadata([field for field in block.fields if field[0] not in _HEAD_FIELDS])
    except ValueError as error:
        problem = problem or GrpcRefusal(Status.INTERNAL, str(error))
    accepts = tuple([part.strip() for part in accept_encoding if part.strip()])
    block.reading = head = ResponseHead(encoding, accepts, metadata, problem)
    return head


def read_trailers(block: FieldBlock) -> Trailers:
    """How the call ended, from its trailers or an answer of trailers only.  Never raises.

    Kept in ``block.reading``.  ``grpc-status-details-bin`` stays in the metadata as well,
    because that is where grpcio's users look for it.
    """
    if type(block.reading) is Trailers:
        return block.reading
    block.reading = end = _read_trailers(block.fields)
    return end


def _read_trailers(fields: Fields) -> Trailers:
    code, coded_message, extra = b"", b"", []
    for field in fields:
        name, value = field
        if name not in _TRAILER_FIELDS:
            extra.append(field)
        elif name == b"grpc-status":
            code = value
        elif name == b"grpc-message":
            coded_message = value
    try:
        metadata = decode_metadata(extra)
    except ValueError as error:
        return Trailers(Status.INTERNAL, str(error), (), b"")
    if not code:
        problem = _foreign_answer(dict(fields)) if fields and fields[0][0] == b":status" else None
        status, message = problem or (Status.UNKNOWN, "the server ended the call without a grpc-status")
        return Trailers(status, message, metadata, b"")
    status = status_from_wire(code)
    message = decode_message(coded_message) if coded_message else ""
    if status is Status.UNKNOWN and code != b"2":
        message = message or f"the server ended the call with grpc-status {to_text(code)}"
    return Trailers(status, message, metadata, _details(metadata) if extra else b"")


def _details(metadata: Metadata) -> bytes:
    for key, value in metadata:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return value
    return b""


def _foreign_answer(known: dict[bytes, bytes]) -> GrpcRefusal | None:
    """What is wrong with a header section that does not come from a gRPC server."""
    http_status, content_type = to_text(known.get(b":status", b"")), to_text(known.get(b"content-type", b""))
    if b"grpc-status" in known:
        return None
    if http_status != "200":
        number = int(http_status) if http_status.isdigit() else 0
        return GrpcRefusal(status_from_http(number), f"the server answered with HTTP status {http_status}")
    if is_grpc_content_type(content_type):
        return None
    status = Status.INTERNAL if content_type.startswith("application/grpc+") else Status.UNKNOWN
    return GrpcRefusal(
        status, f"the server answered with content-type {content_type!r}, not application/grpc"
    )
