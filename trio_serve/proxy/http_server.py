"""An HTTP/1.1 server for one ASGI application, on Trio.

    listeners --> connections --> requests --> application(scope, receive, send)
        all in one nursery; nothing that a client or the application does gets out of it

Knows connections, and nothing of what is served.
"""

import logging
import socket
import ssl
from collections.abc import Sequence
from math import inf

import trio
from hypercorn.trio.worker_context import WorkerContext

from trio_serve.proxy.http_connection import HttpConnection, http1_config
from trio_serve.proxy.http_exchange import ASGIApplication
from trio_serve.transport.byte_stream import ByteStream
from trio_serve.transport.listener import Accepting, close_listener, port_of
from trio_serve.transport.memory import MemoryByteStream, memory_pair

logger = logging.getLogger("trio_serve.proxy")

HTTP1 = "http/1.1"


class HttpServer:
    """Serves ``application`` on sockets, and in memory; once, from `serve_listeners` to `drain`."""

    def __init__(
        self,
        application: ASGIApplication,
        *,
        keep_alive_timeout_s: float = 90.0,
        connections_max: int = 10_000,
    ) -> None:
        self.port = 0
        """The TCP port served, while serving."""
        self.connections: set[HttpConnection] = set()
        self.connections_accepted = 0
        self.connection_errors = 0
        self.draining = False
        self._application = application
        self._keep_alive_timeout_s = keep_alive_timeout_s
        self._connections_max = connections_max
        self._config = http1_config()
        self._context = WorkerContext(None)
        self._address: tuple[str, int] | None = None
        self._accepting = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._no_connections = trio.Event()

    async def serve_listeners(
        self,
        listeners: Sequence[socket.socket] = (),
        *,
        tls: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on ``listeners``, which are closed afterwards, until `drain` or cancelled."""
        self.port = port_of(listeners)
        self._address = _address_of(listeners)
        if tls is not None:
            tls.set_alpn_protocols([HTTP1])
        accepting = Accepting(self.serve_stream, tls=tls, alpn=None, connections_max=self._connections_max)
        try:
            async with trio.open_nursery() as self._nursery:
                with self._accepting:
                    async with trio.open_nursery() as accepts:
                        for listener in listeners:
                            accepts.start_soon(accepting.accept_from, listener, self._nursery)
                        task_status.started(self.port)
                        await trio.sleep_forever()
                for listener in listeners:
                    close_listener(listener)
                await self._no_connections.wait()
                self._nursery.cancel_scope.cancel()  # what is left are handshakes that nobody will finish
        finally:
            self._nursery = None
            for listener in listeners:
                close_listener(listener)

    async def serve_stream(self, byte_stream: ByteStream) -> None:
        """Serve one connection until it ends; whatever goes wrong is logged.  Cancelling drops it."""
        if self.draining:
            await byte_stream.aclose()
            return
        connection = HttpConnection(
            byte_stream,
            self._application,
            self._config,
            self._context,
            self._address,
            self._keep_alive_timeout_s,
        )
        self.connections.add(connection)
        self.connections_accepted += 1
        try:
            await connection.run()
        except Exception:
            self.connection_errors += 1
            logger.exception("the connection with %s failed", byte_stream.peer)
        finally:
            self.connections.discard(connection)
            self._look_if_drained()

    def connect(self) -> MemoryByteStream:
        """The client's end of a new connection in memory.

        Raises:
            RuntimeError: the server is not serving.
        """
        if self._nursery is None:
            raise RuntimeError("this server is not serving; start serve_listeners() first")
        ours, theirs = memory_pair()
        self._nursery.start_soon(self.serve_stream, ours)
        return theirs

    async def drain(self, timeout_s: float = inf) -> None:
        """Accept no more, close what is idle, let requests and WebSockets end, and return when all have.

        What has not ended after ``timeout_s`` seconds is cut off; a WebSocket is told so.
        """
        self.draining = True
        await self._context.terminated.set()
        self._accepting.cancel()
        # A request whose bytes have arrived is no longer to be refused: let the readers read them first.
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        for connection in list(self.connections):
            if connection.idle:
                connection.close()
        self._look_if_drained()
        with trio.move_on_after(timeout_s):
            await self._no_connections.wait()
            return
        logger.warning("%d HTTP connections are cut off after %g s", len(self.connections), timeout_s)
        async with trio.open_nursery() as cutting:
            for connection in list(self.connections):
                cutting.start_soon(connection.cut)
        await self._no_connections.wait()

    def _look_if_drained(self) -> None:
        if self.draining and not self.connections:
            self._no_connections.set()


def _address_of(listeners: Sequence[socket.socket]) -> tuple[str, int] | None:
    for listener in listeners:
        if listener.family in (socket.AF_INET, socket.AF_INET6):
            host, port = listener.getsockname()[:2]
            return host, port
    return None
