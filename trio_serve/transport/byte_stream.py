"""A connection's bytes: what the reader and the writer of an HTTP/2 connection need, and no more.

    ByteStream   <- SocketByteStream   TCP or Unix socket, non-blocking, no layer between
                 <- TlsByteStream      the same under TLS, through trio.SSLStream
                 <- memory_pair()      no socket at all (memory.py)

A plain socket is used directly: a TCP read is then one `wait_readable` and one `recv`, which is 10 to 15 us
cheaper than `trio.SocketStream` when one call is in flight.

Knows nothing of HTTP/2.
"""

import socket
import ssl
from typing import Protocol
from urllib.parse import quote

import trio

GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError)
"""What a byte stream raises when the other side, or ours, is no longer there."""


class ByteStream(Protocol):
    """One task may receive while another sends."""

    peer: str
    """The other side, as gRPC names addresses: ``ipv4:127.0.0.1:50051``, ``unix:``, ``memory:``."""

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session, for the peer's certificate; None in plain text."""

    async def receive_some(self, size_max: int) -> bytes:
        """Wait for bytes and return at least one, or ``b""`` when the peer will send no more."""

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what leaves without waiting and return how many bytes that was, perhaps 0."""

    async def send_all(self, data: bytes | memoryview) -> None:
        """Wait until all of ``data`` has left."""

    async def send_eof(self) -> None:
        """Say that nothing more comes, where the stream can; the other direction stays open."""

    async def aclose(self) -> None:
        """Close both directions; never waits for the peer when cancelled."""


class SocketByteStream:
    """A connected stream socket, used without any layer between."""

    __slots__ = ("_socket", "peer")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        no_delay(connected)
        self._socket = connected
        self.peer = peer_name(connected)

    @property
    def tls(self) -> ssl.SSLObject | None:
        return None

    async def receive_some(self, size_max: int) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(size_max)
            except (BlockingIOError, InterruptedError):
                pass

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def send_all(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            await trio.lowlevel.wait_writable(self._socket)
            rest = rest[self.send_nowait(rest) :]

    async def send_eof(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class TlsByteStream:
    """A TLS session over a socket.  Every send waits, because a record must be made first."""

    __slots__ = ("_stream", "peer")

    def __init__(self, stream: "trio.SSLStream[trio.SocketStream]", peer: str) -> None:
        self._stream = stream
        self.peer = peer

    @property
    def tls(self) -> ssl.SSLObject | None:
        return self._stream._ssl_object  # trio hands out its attributes, but not the object as such

    async def receive_some(self, size_max: int) -> bytes:
        return bytes(await self._stream.receive_some(size_max))

    def send_nowait(self, data: bytes | memoryview) -> int:
        return 0

    async def send_all(self, data: bytes | memoryview) -> None:
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        """TCP's FIN alone, which peers take as the end: a TLS 1.2 peer that got TLS's would stop sending."""
        await self._stream.transport_stream.send_eof()

    async def aclose(self) -> None:
        with trio.move_on_after(1):  # a peer that takes no more bytes must not hold the close
            await self._stream.aclose()


def no_delay(connected: socket.socket) -> None:
    if connected.family in (socket.AF_INET, socket.AF_INET6):
        # Nagle's algorithm and the peer's delayed ACK together hold small answers back by 40 ms.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def peer_name(connected: socket.socket) -> str:
    """The other side's address in gRPC's form; a peer that left at once has none."""
    try:
        address = connected.getpeername()
    except OSError:
        return "unknown:"
    if connected.family == socket.AF_INET:
        return f"ipv4:{address[0]}:{address[1]}"
    if connected.family == socket.AF_INET6:
        return f"ipv6:{quote(f'[{address[0]}]')}:{address[1]}"
    return f"unix:{address}" if isinstance(address, str) else "unix:"
