"""What is known of a call on the server: who calls what, until when, and how it stands.

    head (path, metadata, encodings) --+
    connection (peer, TLS) ------------+--> CallFacts <-- its end: status, reason
    registration (method, counters) ---+

Knows nothing of how a call is received or answered: `answering` and `call` do that, around this state.
"""

import math
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from trio_serve.grpc.call_ended import CancelReason
from trio_serve.grpc.outbox import Outbox
from trio_serve.grpc.registration import Registration
from trio_serve.grpc.request_inbox import RequestInbox
from trio_serve.transport.connection import Http2Connection
from trio_serve.wire.grpc import Metadata, RequestHead, Status
from trio_serve.wire.http2 import Stream

if TYPE_CHECKING:
    from trio_serve.grpc.methods import Method

OnCancel = Callable[[CancelReason], None]


class CallFacts:
    """One call, to be looked at."""

    __slots__ = (
        "_inbox",
        "_outbox",
        "_started_at",
        "connection",
        "context",
        "deadline",
        "head",
        "on_cancel",
        "over",
        "reason",
        "registration",
        "request",
        "status",
        "stream",
    )

    def __init__(
        self,
        connection: Http2Connection,
        stream: Stream,
        registration: Registration,
        head: RequestHead,
        timeout_s: float,
    ) -> None:
        self.connection = connection
        self.stream = stream
        self.head = head
        self.request: Any = None
        """The message of a unary request; parsed, or to be parsed with `ServerCall.parse_request`."""
        self.context: Any = None
        """Whatever the one that handles this call keeps with it."""
        self.on_cancel: OnCancel | None = None
        """Called at most once, when the call ended although nobody answered it."""
        self.over = False
        """Whether the call has its status; nothing can be sent any more."""
        self.status: Status | None = None
        self.reason: CancelReason | None = None
        self.registration = registration
        self._inbox: RequestInbox | None = None
        self._outbox: Outbox | None = None
        self._started_at = connection.last_read
        self.deadline = math.inf
        registration.counters.started += 1
        if timeout_s != math.inf:
            self.deadline = self._started_at + timeout_s

    @property
    def method(self) -> "Method":
        """The rpc that is called."""
        return self.registration.method

    @property
    def streams_requests(self) -> bool:
        """Whether the client may send several messages."""
        return self.registration.streams_requests

    @property
    def streams_replies(self) -> bool:
        """Whether the method answers with a stream of messages."""
        return self.registration.streams_replies

    @property
    def path(self) -> str:
        """As on the wire: ``/package.Service/Name``."""
        return self.head.path

    @property
    def metadata(self) -> Metadata:
        """What the client sent: ``(key, value)`` pairs, bytes under ``-bin`` keys."""
        return self.head.metadata

    @property
    def authority(self) -> str:
        """The server's name as the client knows it."""
        return self.head.authority

    @property
    def peer(self) -> str:
        """The client's address, as ``ipv4:127.0.0.1:50000``."""
        return self.connection.peer

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session; None without TLS."""
        return self.connection.byte_stream.tls

    @property
    def trailing_metadata(self) -> Metadata:
        """What leaves with a status that the server itself decides."""
        own = self.registration.trailing_metadata
        return () if own is None else own(self)

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed, None without one."""
        if self.deadline == math.inf:
            return None
        return max(0.0, self.deadline - trio.current_time())

    def is_active(self) -> bool:
        """Whether an answer could still reach the client."""
        return not self.over

    def auth_context(self) -> dict[str, list[bytes]]:
        """What TLS knows of the client, in grpcio's property names; empty without TLS."""
        return read_auth_context(self.tls)


def read_auth_context(tls: ssl.SSLObject | None) -> dict[str, list[bytes]]:
    """A peer's certificate in grpcio's property names."""
    if tls is None:
        return {}
    context = {"transport_security_type": [b"ssl"]}
    certificate: dict[str, Any] = tls.getpeercert() or {}
    names = [
        str(value).encode()
        for part in certificate.get("subject", ())
        for key, value in part
        if key == "commonName"
    ]
    alternatives = [str(value).encode() for _, value in certificate.get("subjectAltName", ())]
    if names:
        context["x509_common_name"] = names
    if alternatives:
        context["x509_subject_alternative_name"] = alternatives
    return context
