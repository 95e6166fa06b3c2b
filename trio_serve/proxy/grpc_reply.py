"""Where the answer of a deployment goes when a gRPC client asked: from an outcome to a status.

    a value                            OK, or what the method set on its context
    GRPCError, context.abort()         the status given there
    the deployment's queue is full     RESOURCE_EXHAUSTED, with the time after which to try again
    the deployment is not there,
    or its replica died of this call   UNAVAILABLE
    the deployment has no such method  UNIMPLEMENTED
    the deadline passed                DEADLINE_EXCEEDED
    anything else                      INTERNAL, with the user's stack trace

Every answer has ``request_id`` first in its trailing metadata.
"""

import functools
import logging
from collections.abc import Coroutine
from typing import Any

import trio
from grpclib.exceptions import GRPCError

from trio_serve.actors import ActorStopped, CallCancelled, DeadlinePassed, Envelope
from trio_serve.grpc.call import ServerCall
from trio_serve.grpc.call_ended import CancelReason
from trio_serve.grpc.ending import AbortError, Ending, ending_of, is_expected
from trio_serve.proxy.counters import RouteCounters
from trio_serve.proxy.grpc_context import RayServegRPCContext
from trio_serve.proxy.stack_trace import user_stack_trace
from trio_serve.serving.errors import (
    BackPressureError,
    DeploymentUnavailable,
    MethodNotFound,
    WrongMethodKind,
)
from trio_serve.wire.grpc import Fields, Metadata, Status, encode_metadata, trailers_only

logger = logging.getLogger("trio_serve.proxy")

PUSHBACK: Metadata = (("grpc-retry-pushback-ms", "100"),)
_RESOURCE_EXHAUSTED = Status.RESOURCE_EXHAUSTED
(_PUSHBACK_FIELD,) = encode_metadata(PUSHBACK)


class GrpcReply:
    """The reply of one envelope: answers its call.  ``request_id`` is printable ASCII."""

    __slots__ = ("application", "call", "context", "counters", "envelope", "expose_tracebacks", "request_id")

    def __init__(
        self, call: ServerCall, request_id: str, expose_tracebacks: bool, application: str = ""
    ) -> None:
        self.call = call
        self.application = application
        self.counters: RouteCounters | None = None
        self.request_id = request_id
        self.expose_tracebacks = expose_tracebacks
        self.context: RayServegRPCContext | None = None
        self.envelope: Envelope | None = None

    def succeed(self, value: Any) -> None:
        """Answer the client; one that has gone is not told."""
        call = self.call
        try:
            if self.context is None and not call.registration.streams_replies:
                call.reply_ok(value, ((b"request_id", self.request_id.encode("ascii")),))
            else:
                self._succeed_as_set(value)
        except GRPCError as error:
            # What was returned is not what the rpc declares: the text says both.
            logger.error("request_id=%s: %s", self.request_id, error.message)
            self.fail(error)

    # No method with a name: bound, it would be an object more for each open call.
    def __call__(self, reason: CancelReason) -> None:
        """The call is over on the wire: so is the work for it, however deep."""
        if self.envelope is not None:
            error = DeadlinePassed if reason is CancelReason.DEADLINE else CallCancelled
            self.envelope.cancel(error(reason.value))

    def send(self, item: Any) -> Coroutine[Any, Any, None]:
        """Send one message of a streamed reply; returns when the client takes more."""
        return self.call.send_message(item)

    def trailing_metadata(self) -> Metadata:
        """``request_id``, then what the method set."""
        own: Metadata = (("request_id", self.request_id),)
        return own if self.context is None else own + self.context.trailing_metadata()

    def fail(self, error: BaseException) -> None:
        """Answer with the status that ``error`` means, unless the call has its answer."""
        if self.call.over:
            return
        if isinstance(error, DeadlinePassed) and trio.current_time() >= self.call.deadline:
            # The worker's scope, or its queue, saw the deadline in the same instant as the call's own alarm.
            self.call.expire()
            return
        status, message, metadata, details_bin = self._ending_of(error)
        trailing = self.trailing_metadata() + metadata
        self.call.finish(status, message, trailing, details_bin)

    def refuse(self, error: BackPressureError) -> None:
        """As `fail`, for a call of which nothing was made yet."""
        own = (b"request_id", self.request_id.encode("ascii"))
        self.call.refuse(_RESOURCE_EXHAUSTED, _refused_with(error.message), (own, _PUSHBACK_FIELD))

    def _succeed_as_set(self, value: Any) -> None:
        call, context = self.call, self.context
        code: object = Status.OK
        details = ""
        if context is not None:
            code, details = context.code(), context.details()
        if call.streams_replies:
            call.finish(code, details, self.trailing_metadata())
        else:
            call.reply(value, code, details, self.trailing_metadata())

    def _ending_of(self, error: BaseException) -> Ending:
        if isinstance(error, BackPressureError):
            return Ending(Status.RESOURCE_EXHAUSTED, str(error), PUSHBACK)
        if isinstance(error, MethodNotFound):
            return Ending(Status.UNIMPLEMENTED, str(error))
        if isinstance(error, DeploymentUnavailable):
            return Ending(Status.UNAVAILABLE, str(error))
        if isinstance(error, CallCancelled):
            return Ending(Status.CANCELLED, str(error))
        if isinstance(error, ActorStopped):
            return Ending(Status.UNAVAILABLE, str(error))
        if isinstance(error, AbortError):
            return Ending(error.status, error.message)  # its trailing metadata is the context's by now
        if isinstance(error, WrongMethodKind):
            return self._internal(error, self._way_out_of(error))
        if is_expected(error):
            return ending_of(error)
        return self._internal(error, user_stack_trace(error))

    def _way_out_of(self, error: WrongMethodKind) -> str:
        path = self.call.path
        if error.streamed:
            return (
                f"{path} streams its reply, but {error.deployment}.{error.method} is no generator; "
                "yield its messages, or declare a reply without 'stream' in the .proto"
            )
        return (
            f"{path} has one reply, but {error.deployment}.{error.method} is a generator; "
            "return one message, or declare 'returns (stream ...)' in the .proto"
        )

    def _internal(self, error: BaseException, text: str) -> Ending:
        """INTERNAL, with what the client may read of an error in the server's code; the log has all of it."""
        logger.error("%s failed, request_id=%s", self.call.path, self.request_id, exc_info=error)
        if not self.expose_tracebacks:
            text = f"Internal error, request_id={self.request_id}."
        return Ending(Status.INTERNAL, text)


@functools.lru_cache(maxsize=64)
def _refused_with(text: str) -> Fields:
    """The same fields, and not their like, for the same text: what is sent often is remembered by them."""
    return trailers_only(Status.RESOURCE_EXHAUSTED, text)
