"""The head of a call: its request header fields, both ways.

    :method POST, :scheme, :path /pkg.Svc/Name, :authority       pseudo fields, first
    te trailers, content-type, grpc-encoding, user-agent         the same for every call of a stub
    grpc-timeout, metadata                                       what changes from call to call

That order is the point: a client sends the first two rows alike each time, so the server
knows them again (``FieldBlock.prefix``) and reads only the third.

Source: gRPC over HTTP2, "Requests" and "Errors".
Knows no streams, methods or limits.
"""

from collections.abc import Iterable
from typing import NamedTuple

from .compression import ACCEPT_ENCODING, ENCODINGS
from .fields import FieldBlock, Fields, is_printable_ascii, to_text
from .metadata import Metadata, decode_metadata
from .status import Status
from .timeout import decode_timeout, encode_timeout


class HttpRefusal(NamedTuple):
    """Not a gRPC request: the answer is plain HTTP, with ``message`` as its body."""

    http_status: int
    message: str


class GrpcRefusal(NamedTuple):
    """A gRPC request that cannot be served: the answer is this status, trailers only."""

    status: Status
    message: str


class RequestHead(NamedTuple):
    """What the header fields of one call say.  A value: it may be kept and shared between calls.

    ``problem`` is why the request cannot be served: with further fields it may go, as when they
    bring the content-type; a ``bad_field`` stays.  ``extra`` are the application's own fields as they came:
    most of them nobody reads, so that they are decoded when somebody asks for ``metadata``.
    """

    http_method: str = ""
    path: str = ""
    authority: str = ""
    content_type: str = ""
    encoding: str = "identity"
    accept_encoding: tuple[str, ...] = ()
    timeout_s: float | None = None
    extra: Fields = ()
    bad_field: GrpcRefusal | None = None
    problem: HttpRefusal | GrpcRefusal | None = None

    @property
    def metadata(self) -> Metadata:
        """``extra``, decoded: ``(key, value)`` pairs, bytes under ``-bin`` keys."""
        return decode_metadata(self.extra)

    def with_tail(self, tail: Fields) -> "RequestHead":
        """This head with further fields, as if all had been read at once."""
        return _read(self, tail)


_EMPTY = RequestHead()
_new = tuple.__new__

# The fields of gRPC itself that stay the same from call to call.
_LASTING = frozenset(
    (
        b":method",
        b":scheme",
        b":path",
        b":authority",
        b"te",
        b"content-type",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"grpc-message-type",
    )
)


def read_request(block: FieldBlock) -> RequestHead:
    """The head in ``block``, kept in ``block.reading``; only the tail is read where the prefix is known.

    Never raises: what is wrong with the request stands in ``head.problem``.
    """
    head = block.reading
    if type(head) is RequestHead:
        return head
    prefix = block.prefix
    head = _read(_EMPTY, block.fields) if prefix is None else _read(read_request(prefix), block.tail)
    block.reading = head
    return head


def _read(base: RequestHead, fields: Fields) -> RequestHead:
    http_method, path, authority, content_type, encoding, accepts, timeout_s, extra, bad, problem = base
    lasting, own = [], []
    for field in fields:
        name, value = field
        if name in _LASTING:
            lasting.append(field)
            continue
        try:
            if name == b"grpc-timeout":
                timeout_s = decode_timeout(value)
            else:
                if not value.isalnum() or name.endswith(b"-bin"):
                    decode_metadata((field,))
                own.append(field)
        except ValueError as error:
            bad = bad or GrpcRefusal(Status.INTERNAL, str(error))
    if own:
        extra += tuple(own)
    problem = problem or bad
    # The tuple's own constructor: what a NamedTuple puts before it takes as long as all of the above.
    head = _new(
        RequestHead,
        (http_method, path, authority, content_type, encoding, accepts, timeout_s, extra, bad, problem),
    )
    return _with_lasting(head, lasting) if lasting else head


def _with_lasting(head: RequestHead, fields: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """Only these fields can make a problem, or solve one."""
    http_method, path, authority, content_type, encoding, accept_encoding = head[:6]
    for name, value in fields:
        if name == b":method":
            http_method = to_text(value)
        elif name == b":path":
            path = to_text(value)
        elif name == b":authority":
            authority = to_text(value)
        elif name == b"content-type":
            content_type = to_text(value)
        elif name == b"grpc-encoding":
            encoding = to_text(value)
        elif name == b"grpc-accept-encoding":
            accept_encoding = tuple([part.strip() for part in to_text(value).split(",")])
    problem: HttpRefusal | GrpcRefusal | None = head.bad_field
    if encoding not in ENCODINGS:
        problem = problem or _encoding_refusal(encoding)
    if http_method != "POST" or content_type != "application/grpc":
        problem = _http_refusal(http_method, content_type) or problem
    lasting = (http_method, path, authority, content_type, encoding, accept_encoding)
    return RequestHead._make((*lasting, *head[6:9], problem))


def is_grpc_content_type(content_type: str) -> bool:
    """Whether it says gRPC with protobuf messages: ``application/grpc``, with or without ``+proto``."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("application/grpc", "application/grpc+proto")


def _http_refusal(http_method: str, content_type: str) -> HttpRefusal | None:
    if not is_grpc_content_type(content_type):
        asked = f"not {content_type}" if content_type else "and the request has none"
        return HttpRefusal(415, f"This port speaks gRPC: content-type must be application/grpc, {asked}.\n")
    if http_method != "POST":
        return HttpRefusal(405, f"gRPC calls are POST requests, not {http_method}.\n")
    return None


def _encoding_refusal(encoding: str) -> GrpcRefusal:
    known = ", ".join(ENCODINGS)
    return GrpcRefusal(
        Status.UNIMPLEMENTED,
        f"request messages come as grpc-encoding {encoding!r}; this server takes {known}",
    )


def request_prefix(
    path: str,
    authority: str,
    *,
    scheme: str = "http",
    user_agent: str = "",
    encoding: str = "identity",
    accept_encoding: bytes = ACCEPT_ENCODING,
) -> Fields:
    """The fields that are the same for every call of one method on one channel: build them once.

    Raises:
        ValueError: text that no field can carry, or a path that is not ``/service/method``.
    """
    for what, text in (("path", path), ("authority", authority), ("user agent", user_agent)):
        if not is_printable_ascii(text) or text != text.strip():
            raise ValueError(f"{what} {text!r} cannot be sent: only printable ASCII can")
    if not path.startswith("/"):
        raise ValueError(f"path {path!r} has no leading '/'; it is '/package.Service/Method'")
    fields = [
        (b":method", b"POST"),
        (b":scheme", scheme.encode("ascii")),
        (b":path", path.encode("ascii")),
        (b":authority", authority.encode("ascii")),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    if encoding != "identity":
        fields.append((b"grpc-encoding", encoding.encode("ascii")))
    if accept_encoding:
        fields.append((b"grpc-accept-encoding", accept_encoding))
    if user_agent:
        fields.append((b"user-agent", user_agent.encode("ascii")))
    return tuple(fields)


def build_request_fields(prefix: Fields, timeout_s: float | None = None, metadata: Fields = ()) -> Fields:
    """The whole request head: ``request_prefix(...)``, the time left, and ``encode_metadata(...)``."""
    if timeout_s is None:
        return prefix + metadata
    return (*prefix, (b"grpc-timeout", encode_timeout(timeout_s)), *metadata)
