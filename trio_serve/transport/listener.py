"""Where connections come in: listening sockets, and the loop that accepts from them.

    open_listeners(host, port)      TCP, each address of the host, one port
    open_unix_listener(path)        Unix socket
    serve_listeners(listeners, ...) accept --> [TLS handshake] --> handler, one task a connection

A port in use is always an error: SO_REUSEPORT is never set, because with it a stranger's server could share
the port and take half of the calls.  An accept that fails, mostly for want of descriptors, is tried again;
the connections that are open are not concerned.

Knows nothing of HTTP but the name of its version 2 in the TLS handshake.
"""

import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Sequence

import trio

from trio_serve.transport.byte_stream import ByteStream, SocketByteStream, TlsByteStream, no_delay, peer_name
from trio_serve.transport.certificates import keep_current

logger = logging.getLogger("trio_serve.transport")

BACKLOG = 1024
RETRY_S = 0.1
LOG_INTERVAL_S = 1.0
ALPN = "h2"

PASSING = frozenset((errno.ECONNABORTED, errno.EPROTO))
"""The client left before it was let in."""


async def open_listeners(host: str | None, port: int, backlog: int = BACKLOG) -> list[socket.socket]:
    """Listen on every address of ``host`` (None: on all of this machine), all on one port; 0 takes a free
    one.

    Raises:
        OSError: the port is in use, or the host is not ours; the text says what to do.
    """
    addresses = await _resolve(host, port)
    listeners: list[socket.socket] = []
    try:
        for family, address in addresses:
            listener = _bind(family, (address[0], port, *address[2:]), backlog)
            listeners.append(listener)
            port = port or listener.getsockname()[1]
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise _explained(error, f"port {port} on {host or 'all addresses'}", "port") from error
    return listeners


def open_unix_listener(path: str, backlog: int = BACKLOG) -> socket.socket:
    """Listen on a Unix socket at ``path``; one that a dead process left there is replaced.

    Raises:
        OSError: somebody listens there, or the path cannot be used.
    """
    if _is_stale_socket(path):
        os.unlink(path)
    try:
        return _bind(socket.AF_UNIX, path, backlog)
    except OSError as error:
        raise _explained(error, f"socket {path}", "path") from error


def close_listener(listener: socket.socket) -> None:
    """Stop listening; a Unix socket's file goes too."""
    name = listener.getsockname() if listener.fileno() != -1 and listener.family == socket.AF_UNIX else ""
    listener.close()
    if name:
        try:
            os.unlink(name)
        except OSError:
            pass  # somebody removed it, or put another thing there


def port_of(listeners: Sequence[socket.socket]) -> int:
    """The TCP port that ``listeners`` share; 0 for Unix sockets only."""
    for listener in listeners:
        if listener.family in (socket.AF_INET, socket.AF_INET6):
            port: int = listener.getsockname()[1]
            return port
    return 0


class Accepting:
    """The accept loops of one server.  What ``handler`` raises is its own affair: it must let nothing out.

    With ``tls``, a client that does not choose the protocol ``alpn`` is sent away; None takes any.
    """

    def __init__(
        self,
        handler: Callable[[ByteStream], Awaitable[None]],
        *,
        tls: ssl.SSLContext | None = None,
        alpn: str | None = ALPN,
        handshake_timeout_s: float = 10.0,
        connections_max: int = 10_000,
    ) -> None:
        self._handler = handler
        self._tls = tls
        self._alpn = alpn
        self._handshake_timeout_s = handshake_timeout_s
        self._places = trio.CapacityLimiter(connections_max)
        self._log_again_at = -LOG_INTERVAL_S
        self.errors = 0

    async def accept_from(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        """Start a task in ``nursery`` for each connection, until cancelled."""
        listening = trio.socket.from_stdlib_socket(listener)
        while True:
            place = object()
            await self._places.acquire_on_behalf_of(place)
            try:
                connected, _ = await listening.accept()
            except OSError as error:
                self._places.release_on_behalf_of(place)
                await self._survive(error)
            except BaseException:
                self._places.release_on_behalf_of(place)
                raise
            else:
                nursery.start_soon(self._serve, connected, place)

    async def _survive(self, error: OSError) -> None:
        if error.errno in PASSING:
            await trio.lowlevel.checkpoint()
            return
        if error.errno == errno.EBADF:
            raise error  # the listener was closed under us
        self.errors += 1
        now = trio.current_time()
        if now >= self._log_again_at:
            self._log_again_at = now + LOG_INTERVAL_S
            logger.error("cannot accept connections: %s; trying again (%d times so far)", error, self.errors)
        await trio.sleep(RETRY_S)

    async def _serve(self, connected: trio.socket.SocketType, place: object) -> None:
        try:
            try:
                byte_stream = await self._byte_stream(connected)
            except BaseException:
                connected.close()
                raise
            if byte_stream is not None:
                await self._handler(byte_stream)
        except Exception:
            logger.exception("a connection failed")
        finally:
            self._places.release_on_behalf_of(place)

    async def _byte_stream(self, connected: trio.socket.SocketType) -> ByteStream | None:
        if self._tls is None:
            return SocketByteStream(socket.socket(fileno=connected.detach()))
        no_delay(connected)  # type: ignore[arg-type]
        peer = peer_name(connected)  # type: ignore[arg-type]
        stream = trio.SSLStream(
            trio.SocketStream(connected), self._tls, server_side=True, https_compatible=True
        )
        problem = await self._handshake(stream)
        if problem is None:
            return TlsByteStream(stream, peer)
        logger.info("TLS handshake with %s failed: %s", peer, problem)
        await trio.aclose_forcefully(stream)
        return None

    async def _handshake(self, stream: "trio.SSLStream[trio.SocketStream]") -> str | None:
        """Why this stream is of no use; None when it is."""
        try:
            with trio.move_on_after(self._handshake_timeout_s) as patience:
                await stream.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError, OSError) as error:
            return str(error.__cause__ or error)
        if patience.cancelled_caught:
            return f"it took longer than handshake_timeout_s={self._handshake_timeout_s:g}"
        if self._alpn is None:
            return None
        chosen = stream.selected_alpn_protocol()
        return None if chosen == self._alpn else f"the client does not offer ALPN {self._alpn!r}"


def server_tls(certificate: str, key: str, client_ca: str | None = None) -> ssl.SSLContext:
    """TLS for a server: files with its certificate chain and key, and, for mTLS, those whose clients are
    let in.  Files that are renewed are used from the next handshake on.

    Raises:
        OSError, ssl.SSLError: a file that cannot be read, or a key that does not fit.
    """
    return server_certificate(certificate, key, client_ca, alpn=ALPN)


def server_certificate(
    certificate: str,
    key: str,
    client_ca: str | None = None,
    password: str | None = None,
    alpn: str = "http/1.1",
) -> ssl.SSLContext:
    """As `server_tls`, for another protocol; ``password`` opens the key."""

    def read() -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9113 section 9.2
        # With no password OpenSSL would ask the terminal for one.
        context.load_cert_chain(certificate, key, password or "")
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols([alpn])
        return context

    return keep_current(read(), [file for file in (certificate, key, client_ca) if file is not None], read)


async def _resolve(host: str | None, port: int) -> list[tuple[int, tuple[object, ...]]]:
    found = await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    unique: dict[tuple[int, tuple[object, ...]], None] = {}
    for family, _, _, _, address in found:
        unique[family, tuple(address)] = None
    return list(unique)


def _bind(family: int, address: object, backlog: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            # A restarted server must not wait for its old connections to time out.  On Linux this does
            # not let two programs listen on one port; SO_REUSEPORT would.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)  # type: ignore[arg-type]
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _explained(error: OSError, place: str, what: str) -> OSError:
    if error.errno == errno.EADDRINUSE:
        free = " (port 0 takes a free one)" if what == "port" else ""
        return OSError(
            errno.EADDRINUSE, f"{place} is in use by another program; stop it or choose another {what}{free}"
        )
    if error.errno == errno.EACCES:
        return OSError(
            errno.EACCES, f"{place} needs privileges that this process lacks; choose another {what}"
        )
    return OSError(error.errno, f"cannot listen on {place}: {error.strerror}")


def _is_stale_socket(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
