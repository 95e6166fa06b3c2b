"""Reaching a server: which address, how long to wait for it, and when to try again.

    names --resolve--> addresses --interleave--> 6 4 6 4 ...          RFC 8305 section 4
          attempt 1 |--------------- refused
          attempt 2 |  250 ms  |------------------ connected; all others are left
    dial failed --> Backoff: 1 s, 1.6 s, 2.56 s ... 120 s, each varied by a fifth, until one connects

An attempt includes the TLS handshake, so that an address which accepts and then says nothing delays
no more than one that never answers.

Source: RFC 8305 (Happy Eyeballs), gRPC "Connection Backoff Protocol".
Knows nothing of HTTP/2 and of what the connection is for.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import ssl
from collections.abc import Sequence
from itertools import zip_longest
from typing import Protocol, cast

import attrs
import trio

from trio_serve.transport.byte_stream import (
    GONE,
    ByteStream,
    SocketByteStream,
    TlsByteStream,
    peer_name,
)

__all__ = [
    "Address",
    "Backoff",
    "BackoffOptions",
    "ClientTls",
    "DialFailed",
    "TcpAddress",
    "UnixAddress",
    "dial",
    "resolve",
]

ATTEMPT_DELAY_S = 0.25  # RFC 8305 section 5, "Connection Attempt Delay"


@attrs.frozen
class ClientTls:
    """How to speak TLS with a server, and the name its certificate must carry."""

    context: ssl.SSLContext
    server_name: str


class Address(Protocol):
    """One place where a server may be reached."""

    @property
    def family(self) -> int:
        """The address family, for the order of attempts."""

    async def connect(self, tls: ClientTls | None) -> ByteStream:
        """Connect, and speak TLS when asked to.  Raises OSError."""


@attrs.frozen
class TcpAddress:
    """An IP address (not a name) and a port."""

    host: str
    port: int

    @property
    def family(self) -> int:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def connect(self, tls: ClientTls | None) -> ByteStream:
        return await _connect(self.family, (self.host, self.port), tls)


@attrs.frozen
class UnixAddress:
    """A Unix socket's path; one that begins with a NUL is Linux's abstract name."""

    path: str

    @property
    def family(self) -> int:
        return socket.AF_UNIX

    def __str__(self) -> str:
        return f"unix:{self.path}"

    async def connect(self, tls: ClientTls | None) -> ByteStream:
        return await _connect(socket.AF_UNIX, self.path, tls)


class DialFailed(OSError):
    """No address could be reached; the text says why for each."""

    def __init__(self, failures: Sequence[tuple[Address, BaseException]]) -> None:
        self.failures = tuple(failures)
        super().__init__("; ".join(f"{address}: {_in_a_line(error)}" for address, error in failures))


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)  # the address stands before it, and trio's text would repeat it
    return str(error) or type(error).__name__


async def resolve(host: str, port: int) -> tuple[TcpAddress, ...]:
    """The addresses of ``host``, in the order that the system prefers.

    Raises:
        OSError: the name has none.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = (TcpAddress(str(where[0]), int(where[1])) for _, _, _, _, where in found)
    return tuple(dict.fromkeys(addresses))


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Alternate the families, beginning with the first address's, so that one dead family costs one wait."""
    if not addresses:
        return []
    first = [address for address in addresses if address.family == addresses[0].family]
    others = [address for address in addresses if address.family != addresses[0].family]
    pairs = zip_longest(first, others)
    return [address for pair in pairs for address in pair if address is not None]


async def dial(
    addresses: Sequence[Address], tls: ClientTls | None = None, *, attempt_delay_s: float = ATTEMPT_DELAY_S
) -> ByteStream:
    """Connect to whichever of ``addresses`` answers first, trying them one after the other.

    The next address is tried when the last attempt has failed or ``attempt_delay_s`` seconds have
    passed; the first to connect ends all other attempts.  Cancelling leaves nothing open.

    Raises:
        DialFailed: (an OSError) every address failed, or there was none.
    """
    failures: list[tuple[Address, BaseException]] = []
    connected: list[ByteStream] = []

    async def attempt(address: Address, ended: trio.Event) -> None:
        try:
            byte_stream = await address.connect(tls)
        except GONE as error:
            failures.append((address, error))
            ended.set()
            return
        connected.append(byte_stream)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in interleave(addresses):
                ended = trio.Event()
                nursery.start_soon(attempt, address, ended)
                with trio.move_on_after(attempt_delay_s):
                    await ended.wait()
    except BaseException:
        await _close(connected)
        raise
    await _close(connected[1:])
    if not connected:
        raise DialFailed(failures)
    return connected[0]


async def _close(byte_streams: Sequence[ByteStream]) -> None:
    """Close at once, without farewells: nobody has spoken on these yet."""
    with trio.CancelScope() as scope:
        scope.cancel()
        for byte_stream in byte_streams:
            await byte_stream.aclose()


async def _connect(family: int, where: str | tuple[str, int], tls: ClientTls | None) -> ByteStream:
    connecting = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await connecting.connect(where)
    except BaseException:
        connecting.close()
        raise
    if tls is None:
        return SocketByteStream(socket.socket(family, socket.SOCK_STREAM, fileno=connecting.detach()))
    return await _start_tls(trio.SocketStream(connecting), tls)


async def _start_tls(plain: trio.SocketStream, tls: ClientTls) -> ByteStream:
    peer = peer_name(cast(socket.socket, plain.socket))  # trio's socket answers the same questions
    secured = trio.SSLStream(plain, tls.context, server_hostname=tls.server_name, https_compatible=True)
    try:
        await secured.do_handshake()
        spoken = secured.selected_alpn_protocol()
        if spoken != "h2":
            raise OSError(f"TLS: the peer speaks no HTTP/2 (ALPN chose {spoken!r})")
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(plain)
        raise OSError(f"TLS: {error.__cause__ or error}") from error
    except BaseException:
        await trio.aclose_forcefully(plain)
        raise
    return TlsByteStream(secured, peer)


@attrs.frozen
class BackoffOptions:
    """gRPC's connection backoff.  Seconds; ``jitter`` is a share of the delay, either way."""

    initial_s: float = 1.0
    multiplier: float = 1.6
    jitter: float = 0.2
    max_s: float = 120.0
    connect_timeout_s: float = 20.0


class Backoff:
    """How long after the start of one failed attempt the next may start."""

    __slots__ = ("_options", "_rng", "_steady_s")

    def __init__(self, options: BackoffOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._steady_s = 0.0

    def next_delay_s(self) -> float:
        """Seconds between the start of this attempt and the next; longer each time."""
        options = self._options
        if self._steady_s == 0.0:
            self._steady_s = options.initial_s
            return self._steady_s
        self._steady_s = min(self._steady_s * options.multiplier, options.max_s)
        return self._steady_s * (1 + self._rng.uniform(-options.jitter, options.jitter))

    def reset(self) -> None:
        """A connection was made: begin anew."""
        self._steady_s = 0.0
