"""Which fields a message may have: what makes a request, a response or trailers malformed.

    request   :method :scheme :path once each, :authority at most once, ahead of all other fields
    response  :status, alone
    trailers  no pseudo-field

Malformed is an error of the stream alone, whatever the fields hold.

Source: RFC 9113 sections 8.1.1 to 8.3; RFC 9110 sections 5.1 (names), 5.5 (values), 8.6 (content-length).
Knows nothing of HPACK, and nothing of what a well-formed field means to an application.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .header_tables import Field

_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
# Two steps, because nearly every value has no space at all and passes the first at once.
_VALUE_UNSPACED = re.compile(rb"[!-~\x80-\xff]*").fullmatch
_VALUE = re.compile(rb"[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?").fullmatch
_DIGITS = re.compile(rb"[0-9]{1,18}").fullmatch
_STATUS = re.compile(rb"[1-9][0-9][0-9]").fullmatch

_CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_RESPONSE_PSEUDO = frozenset((b":status",))
_NO_PSEUDO: frozenset[bytes] = frozenset()
# Fields whose rules look beyond the field itself.
_RULED = _CONNECTION_SPECIFIC | {b"te", b"content-length", b"host"}

_PLAIN_NAMES_MAX = 256


class Malformed(ValueError):
    """The message breaks a rule: a stream error PROTOCOL_ERROR (RFC 9113 section 8.1.1)."""


def check_request(fields: Sequence[Field]) -> int | None:
    """The request's content-length, None without one.

    Raises:
        Malformed: naming the rule.
    """
    pseudo, regular = _split(fields, _REQUEST_PSEUDO)
    method = pseudo.get(b":method")
    if method is None or not _TOKEN(method):
        raise Malformed(":method is missing or no token")
    if method == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo or not pseudo.get(b":authority"):
            raise Malformed("CONNECT takes :authority, and neither :scheme nor :path")
    else:
        if not pseudo.get(b":scheme"):
            raise Malformed(":scheme is missing or empty")
        path = pseudo.get(b":path")
        if not path:
            raise Malformed(":path is missing or empty")
        if not path.startswith(b"/") and not (path == b"*" and method == b"OPTIONS"):
            raise Malformed(":path does not start with '/'")
    authority = pseudo.get(b":authority")
    if authority is not None and any(name == b"host" and value != authority for name, value in regular):
        raise Malformed("host differs from :authority")
    return _check_regular(regular)


def check_response(fields: Sequence[Field]) -> tuple[int, int | None]:
    """The response's status and its content-length.

    Raises:
        Malformed: naming the rule.
    """
    pseudo, regular = _split(fields, _RESPONSE_PSEUDO)
    status = pseudo.get(b":status")
    if status is None or not _STATUS(status):
        raise Malformed(":status is missing or not three digits")
    if status == b"101":
        raise Malformed("HTTP/2 has no 101 (Switching Protocols)")
    return int(status), _check_regular(regular)


def check_trailers(fields: Sequence[Field]) -> None:
    """Raises Malformed, naming the rule."""
    _, regular = _split(fields, _NO_PSEUDO)
    _check_regular(regular)


def _split(fields: Sequence[Field], known: frozenset[bytes]) -> tuple[dict[bytes, bytes], Sequence[Field]]:
    pseudo: dict[bytes, bytes] = {}
    count = 0
    for name, value in fields:
        if name[:1] != b":":
            break
        if name not in known:
            raise Malformed(f"pseudo-field {name[:64]!r} is not one of this message's")
        if name in pseudo:
            raise Malformed(f"pseudo-field {name!r} twice")
        if not _VALUE_UNSPACED(value):
            raise Malformed(f"the value of {name!r} holds a space or a control octet")
        pseudo[name] = value
        count += 1
    return pseudo, fields[count:]


def _check_regular(fields: Iterable[Field]) -> int | None:
    content_length: int | None = None
    for name, value in fields:
        if not _NAME(name):
            if name[:1] == b":":
                raise Malformed("a pseudo-field after another field")
            raise Malformed(f"field name {name[:64]!r} is not a token in lower case")
        _check_value(name, value)
        if name not in _RULED:
            continue
        if name in _CONNECTION_SPECIFIC:
            raise Malformed(f"field {name!r} belongs to a connection, not to a message")
        if name == b"te" and value.lower() != b"trailers":
            raise Malformed("te other than 'trailers'")
        if name == b"content-length":
            if not _DIGITS(value) or content_length not in (None, int(value)):
                raise Malformed("content-length is no number, or there are two")
            content_length = int(value)
    return content_length


def _check_value(name: bytes, value: bytes) -> None:
    if not _VALUE_UNSPACED(value) and not _VALUE(value):
        raise Malformed(f"the value of {name[:64]!r} holds a control octet, or a space at an end")


class PlainFields:
    """Judges fields that follow a checked section: True when they cannot change its verdict.

    Names that passed are remembered, since a peer's metadata keys are few.  False says no more than
    that the whole section has to be checked together.
    """

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: set[bytes] = set()

    def passes(self, fields: Iterable[Field]) -> bool:
        names = self._names
        for name, value in fields:
            if name not in names and not self._learn(name):
                return False
            # Timeouts and ids, which change with every call, are letters and digits.
            if not value.isalnum() and not _VALUE_UNSPACED(value) and not _VALUE(value):
                return False
        return True

    def _learn(self, name: bytes) -> bool:
        if name in _RULED or not _NAME(name):
            return False
        if len(self._names) >= _PLAIN_NAMES_MAX:
            self._names.clear()
        self._names.add(name)
        return True
