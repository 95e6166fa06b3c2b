"""The error of a call that did not end well, in the words of both worlds.

    grpclib   except GRPCError as error: error.status is Status.NOT_FOUND; error.message; error.details[0]
    grpcio    except RpcError as error:  error.code() == grpc.StatusCode.NOT_FOUND; error.details() -> "text"

One object answers to both, so that code written against either kind of generated stub keeps its
``except`` clauses.  grpcio itself is never imported.
Knows nothing of streams or connections.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from functools import cache
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.exceptions import GRPCError

__all__ = ["ErrorDetails", "RpcError", "StatusCode"]

Metadata = tuple[tuple[str, str | bytes], ...]


class StatusCode(enum.Enum):
    """A status as grpcio writes it; equal to grpcio's and to grpclib's member of the same name."""

    OK = (0, "ok")
    CANCELLED = (1, "cancelled")
    UNKNOWN = (2, "unknown")
    INVALID_ARGUMENT = (3, "invalid argument")
    DEADLINE_EXCEEDED = (4, "deadline exceeded")
    NOT_FOUND = (5, "not found")
    ALREADY_EXISTS = (6, "already exists")
    PERMISSION_DENIED = (7, "permission denied")
    RESOURCE_EXHAUSTED = (8, "resource exhausted")
    FAILED_PRECONDITION = (9, "failed precondition")
    ABORTED = (10, "aborted")
    OUT_OF_RANGE = (11, "out of range")
    UNIMPLEMENTED = (12, "unimplemented")
    INTERNAL = (13, "internal")
    UNAVAILABLE = (14, "unavailable")
    DATA_LOSS = (15, "data loss")
    UNAUTHENTICATED = (16, "unauthenticated")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, enum.Enum) and type(other).__name__ in ("Status", "StatusCode"):
            return self.name == other.name
        return NotImplemented

    def __hash__(self) -> int:
        # The hash of every plain enum's member is that of its name, so a dict keyed by grpcio's or
        # grpclib's members finds ours.
        return hash(self.name)


class ErrorDetails(tuple[Any, ...]):
    """The rich details of an error (``google.rpc.Status.details``, unpacked); called, its text."""

    _text: str

    def __new__(cls, text: str, messages: Iterable[Any] = ()) -> ErrorDetails:
        details = super().__new__(cls, messages)
        details._text = text
        return details

    def __call__(self) -> str:
        """The status message, as grpcio's ``error.details()``."""
        return self._text


class RpcError(GRPCError):
    """A call ended with another status than OK.

    ``status`` and ``message`` are grpclib's attributes, ``details`` holds the unpacked rich details and
    is callable for the text; ``code()`` and the metadata methods are grpcio's.  ``debug_error_string()``
    says what happened on the wire: the path, the peer, the cause.
    """

    def __init__(
        self,
        status: Status,
        message: str | None = "",
        *,
        initial_metadata: Metadata = (),
        trailing_metadata: Metadata = (),
        details_bin: bytes = b"",
        debug: str = "",
    ) -> None:
        text = message or ""
        super().__init__(status, text, ErrorDetails(text, unpack_details(details_bin)))
        self._initial_metadata = initial_metadata
        self._trailing_metadata = trailing_metadata
        self._debug = debug

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}" if self.message else self.status.name

    def code(self) -> StatusCode:
        """The status, as grpcio writes it."""
        return StatusCode[self.status.name]

    def initial_metadata(self) -> Metadata:
        """What came with the response headers; empty when none came."""
        return self._initial_metadata

    def trailing_metadata(self) -> Metadata:
        """What came with the status."""
        return self._trailing_metadata

    def debug_error_string(self) -> str:
        """What happened on the wire: path, peer, cause."""
        return self._debug or str(self)


def as_rpc_error(error: GRPCError) -> RpcError:
    """``error`` itself, or one of ours that says the same and has it for its cause."""
    if isinstance(error, RpcError):
        return error
    rich = RpcError(error.status, error.message)
    if isinstance(error.details, Iterable):
        rich.details = ErrorDetails(error.message or "", error.details)
    rich.__cause__ = error
    return rich


def unpack_details(details_bin: bytes) -> list[Any]:
    """The messages inside a ``grpc-status-details-bin`` value.

    A message whose type this program has not imported stays a ``google.protobuf.Any``; a value that is
    no ``google.rpc.Status`` holds none, for the status itself must reach the caller all the same.
    """
    packed = packed_details(details_bin)
    return [_unpack(any_pb2.Any(type_url=type_url, value=value)) for type_url, value in packed]


def packed_details(details_bin: bytes) -> list[tuple[str, bytes]]:
    """As `unpack_details`, each message as its type url and its bytes."""
    if not details_bin:
        return []
    try:
        packed = _rich_status().FromString(details_bin).details
    except DecodeError:
        return []
    return [(one.type_url, one.value) for one in packed]


def pack_details(status: Status, message: str, details: Iterable[Any]) -> bytes:
    """The ``grpc-status-details-bin`` value that carries ``details``, which are protobuf messages."""
    rich = _rich_status()(code=status.value, message=message)
    for one in details:
        packed = rich.details.add()
        packed.type_url = f"type.googleapis.com/{one.DESCRIPTOR.full_name}"
        packed.value = one.SerializeToString()
    return bytes(rich.SerializeToString())


def _unpack(packed: any_pb2.Any) -> Any:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
        message = message_factory.GetMessageClass(descriptor)()
        packed.Unpack(message)
    except (KeyError, DecodeError):
        return packed
    return message


@cache
def _rich_status() -> Any:
    """``google.rpc.Status`` in a pool of its own, so that a user's googleapis never clashes with it."""
    pool = descriptor_pool.DescriptorPool()
    for_any = descriptor_pb2.FileDescriptorProto()
    any_pb2.DESCRIPTOR.CopyToProto(for_any)
    pool.Add(for_any)
    file = descriptor_pb2.FileDescriptorProto(
        name="google/rpc/status.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=[for_any.name],
    )
    status = file.message_type.add(name="Status")
    field = descriptor_pb2.FieldDescriptorProto
    status.field.add(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    status.field.add(
        name="details",
        number=3,
        type=field.TYPE_MESSAGE,
        type_name=".google.protobuf.Any",
        label=field.LABEL_REPEATED,
    )
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("google.rpc.Status"))
