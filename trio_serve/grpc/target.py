"""What a channel is opened to: one text, several, or a server in this very process.

    "localhost:50051"  "dns:///host:port"      a name, resolved each time a connection must be made
    "ipv4:10.0.0.1:80,10.0.0.2:80"  "ipv6:[::1]:80"      addresses as they are
    "unix:relative/or/absolute"  "unix:///absolute"  "unix-abstract:name"
    a Server                                   no socket: both ends of each connection are in this process
    a list of any of these                     their addresses, in this order

Source: gRPC "Name Resolution".
Knows nothing of connections.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias, cast

import attrs

from trio_serve.transport.byte_stream import ByteStream
from trio_serve.transport.dialing import Address, ClientTls, TcpAddress, UnixAddress, resolve

__all__ = ["InMemoryServer", "MemoryAddress", "Target", "TargetLike", "read_target", "server_name"]

DEFAULT_PORT = 443
IN_MEMORY_FAMILY = 0


class InMemoryServer(Protocol):
    """A server that can be spoken to without a socket: `trio_serve.grpc.Server`."""

    def connect(self) -> ByteStream:
        """The client's end of a new connection.  Raises RuntimeError while the server is not serving."""

    async def serve_listeners(self) -> None:
        """Serve such connections until cancelled."""


TargetLike: TypeAlias = "str | Address | InMemoryServer | Sequence[str | Address | InMemoryServer]"
Start: TypeAlias = Callable[[Callable[..., Awaitable[Any]]], Awaitable[Any]]


@attrs.frozen
class MemoryAddress:
    """A server in this process.  One that nobody serves yet is served in the channel's nursery."""

    server: InMemoryServer
    start: Start = attrs.field(eq=False, repr=False)

    @property
    def family(self) -> int:
        return IN_MEMORY_FAMILY

    def __str__(self) -> str:
        return "memory:"

    async def connect(self, tls: ClientTls | None) -> ByteStream:
        if tls is not None:
            raise OSError("an in-memory server is spoken to without TLS")
        try:
            return self.server.connect()
        except RuntimeError:
            await self.start(self.server.serve_listeners)
            return self.server.connect()


@attrs.frozen
class Target:
    """Where a channel's server is.  ``resolve`` may wait, and raises OSError when there is no address."""

    text: str
    authority: str
    resolve: Callable[[], Awaitable[tuple[Address, ...]]]


def read_target(target: TargetLike, start: Start) -> Target:
    """What ``target`` says.

    Raises:
        ValueError: it is empty, or a text that says nothing.
        TypeError: it is none of the things above.
    """
    if isinstance(target, str):
        return _read_text(target)
    if isinstance(target, Sequence):
        if not target:
            raise ValueError("the target is an empty list; it needs at least one address")
        return _joined([read_target(one, start) for one in target])
    if hasattr(target, "serve_listeners"):
        return _fixed("memory:", "localhost", (MemoryAddress(cast(InMemoryServer, target), start),))
    if hasattr(target, "connect") and hasattr(target, "family"):
        return _fixed(str(target), str(target), (target,))
    raise TypeError(f"{target!r} is no target: pass 'host:port', 'unix:path', a Server or a list of these")


def _joined(targets: list[Target]) -> Target:
    async def resolve_all() -> tuple[Address, ...]:
        found: list[Address] = []
        failures: list[OSError] = []
        for target in targets:
            try:
                found += await target.resolve()
            except OSError as error:
                failures.append(error)
        if not found:
            raise failures[0]
        return tuple(found)

    return Target(",".join(target.text for target in targets), targets[0].authority, resolve_all)


def _fixed(text: str, authority: str, addresses: tuple[Address, ...]) -> Target:
    async def known() -> tuple[Address, ...]:
        return addresses

    return Target(text, authority, known)


def _read_text(text: str) -> Target:
    scheme, colon, rest = text.partition(":")
    if colon and scheme in _SCHEMES:
        return _SCHEMES[scheme](text, rest)
    return _dns(text, text)


def _dns(text: str, rest: str) -> Target:
    if rest.startswith("//"):
        resolver, _, rest = rest[2:].partition("/")
        if resolver:
            raise ValueError(f"target {text!r} names the DNS server {resolver!r}; only the system's is used")
    host, port = _split_port(rest)
    if not host:
        raise ValueError(f"target {text!r} has no host; write 'host:port'")

    async def resolve_name() -> tuple[Address, ...]:
        try:
            return await resolve(host, port)
        except OSError as error:
            raise OSError(f"{host}: {error.strerror or error}") from error

    return Target(text, rest, resolve_name)


def _ip(text: str, rest: str) -> Target:
    addresses = []
    for one in rest.split(","):
        host, port = _split_port(one)
        try:
            addresses.append(TcpAddress(str(ipaddress.ip_address(host)), port))
        except ValueError:
            raise ValueError(f"target {text!r}: {one!r} is no IP address with a port") from None
    return _fixed(text, rest.partition(",")[0], tuple(addresses))


def _unix(text: str, rest: str) -> Target:
    path = rest[2:] if rest.startswith("//") else rest
    if not path:
        raise ValueError(f"target {text!r} has no path")
    return _fixed(text, "localhost", (UnixAddress(path),))


def _unix_abstract(text: str, rest: str) -> Target:
    return _fixed(text, "localhost", (UnixAddress("\0" + rest),))


_SCHEMES: dict[str, Callable[[str, str], Target]] = {
    "dns": _dns,
    "ipv4": _ip,
    "ipv6": _ip,
    "unix": _unix,
    "unix-abstract": _unix_abstract,
}


def server_name(authority: str) -> str:
    """The name that a server's certificate must carry: the authority without its port."""
    return _split_port(authority)[0]


def _split_port(text: str) -> tuple[str, int]:
    """``host:port``, ``[v6]:port``, or either without the port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:]
        wrong = not bracket or (rest != "" and not rest.startswith(":"))
    elif text.count(":") > 1:
        return text, DEFAULT_PORT  # a bare IPv6 address
    else:
        host, _, port = text.partition(":")
        wrong = False
    if wrong or (port and not (port.isdigit() and int(port) < 65536)):
        raise ValueError(f"target {text!r} has no valid port; write 'host:port'")
    return host, int(port) if port else DEFAULT_PORT
