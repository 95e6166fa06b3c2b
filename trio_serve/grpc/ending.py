"""How a handler's exception becomes the status of its call: one function, for every kind of handler.

    GRPCError(status, message, details)    that status
    AbortError, from context.abort()       the status given there
    DeadlinePassed                         DEADLINE_EXCEEDED
    MailboxFull                            RESOURCE_EXHAUSTED
    anything else                          UNKNOWN, with its type and text

Source: gRPC "Status codes and their use in gRPC".
"""

from typing import NamedTuple

from grpclib.exceptions import GRPCError

from trio_serve.actors import ActorStopped, DeadlinePassed, HandlerExited, MailboxClosed, MailboxFull
from trio_serve.grpc.call_ended import CallEnded
from trio_serve.grpc.rpc_error import pack_details
from trio_serve.wire.grpc import Metadata, Status


class AbortError(Exception):
    """What ``context.abort`` raises, so that the handler ends there.  Not for catching."""

    def __init__(self, status: Status, message: str, trailing_metadata: Metadata) -> None:
        super().__init__(status.name, message)
        self.status = status
        self.message = message
        self.trailing_metadata = trailing_metadata


class Ending(NamedTuple):
    """What `ServerCall.finish` takes."""

    status: Status
    message: str
    trailing_metadata: Metadata = ()
    details_bin: bytes = b""


def ending_of(error: BaseException) -> Ending:
    """The status that ``error`` means; an exception group around a single error counts as that error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, AbortError):
        return Ending(error.status, error.message, error.trailing_metadata)
    if isinstance(error, GRPCError):
        return Ending(error.status, error.message or "", (), _details_of(error))
    if isinstance(error, DeadlinePassed):
        return Ending(Status.DEADLINE_EXCEEDED, str(error))
    if isinstance(error, MailboxFull):
        return Ending(Status.RESOURCE_EXHAUSTED, f"The server is full: {error}")
    if isinstance(error, ActorStopped | MailboxClosed):
        return Ending(Status.UNAVAILABLE, "The server is stopping.")
    if isinstance(error, CallEnded):
        return Ending(Status.CANCELLED, str(error))
    if isinstance(error, HandlerExited) and error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    return Ending(Status.UNKNOWN, f"{type(error).__name__}: {text}" if text else type(error).__name__)


def is_expected(error: BaseException) -> bool:
    """Whether a handler ended its call with ``error`` on purpose: nothing to log then."""
    return ending_of(error).status is not Status.UNKNOWN or isinstance(error, GRPCError | AbortError)


def _details_of(error: GRPCError) -> bytes:
    if not error.details:
        return b""
    try:
        return pack_details(error.status, error.message or "", error.details)
    except (AttributeError, TypeError):
        return b""  # not protobuf messages: the status itself must reach the caller all the same
