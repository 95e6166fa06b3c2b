"""The status that every call ends with, whoever names it and however.

Source: gRPC "Status codes and their use in gRPC" and "HTTP to gRPC status code mapping".
Knows grpcio's codes by their shape only: grpcio is never imported.
"""

from grpclib.const import Status

__all__ = ["Status", "status_from_http", "status_from_wire", "to_status"]

_BY_NUMBER = {status.value: status for status in Status}
_BY_WIRE = {str(status.value).encode(): status for status in Status}

_BY_HTTP = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}


def to_status(code: object) -> Status:
    """The status that a handler means: a ``Status``, a number, or grpcio's ``grpc.StatusCode``.

    Raises:
        ValueError: a number outside 0 to 16.
        TypeError: anything else.
    """
    if isinstance(code, Status):
        return code
    number = getattr(code, "value", code)  # grpc.StatusCode.OK.value is (0, 'ok')
    if isinstance(number, tuple) and number:
        number = number[0]
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{code!r} is no status; pass a grpc.StatusCode, a grpclib Status or its number")
    status = _BY_NUMBER.get(number)
    if status is None:
        raise ValueError(f"{code!r} is no status: gRPC has 0 (OK) to 16 (UNAUTHENTICATED)")
    return status


def status_from_wire(value: bytes) -> Status:
    """The status in a peer's ``grpc-status``; UNKNOWN for a code that gRPC does not have."""
    return _BY_WIRE.get(value, Status.UNKNOWN)


def status_from_http(http_status: int) -> Status:
    """What a response without ``grpc-status`` means: a proxy answered, not a gRPC server."""
    return _BY_HTTP.get(http_status, Status.UNKNOWN)
