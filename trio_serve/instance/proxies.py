"""The proxies of one instance: listening, accepting, drained, in these steps and in this order.

    listen   services imported, files read, ports bound: whatever can be wrong is wrong here
    accept   connections are taken, those first that came in since
    drain    NOT_SERVING, no new connections, GOAWAY; returns when the last call has ended

Knows which proxies there are and what their options mean to them, and nothing of how they serve.
"""

import importlib
import math
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from trio_serve.grpc.methods import Method, MethodSourceError, methods_from
from trio_serve.grpc.server import SERVER_OPTIONS, Server
from trio_serve.instance.options import FaultOptions, HTTPOptions, TLSOptions, gRPCOptions
from trio_serve.instance.settings import Mistake, Mistakes
from trio_serve.proxy.grpc_proxy import GrpcProxy
from trio_serve.serving.controller import Controller
from trio_serve.serving.status import ProxyStatus
from trio_serve.transport.keepalive import KeepaliveOptions
from trio_serve.transport.lifetime import LifetimeOptions
from trio_serve.transport.listener import (
    close_listener,
    open_listeners,
    port_of,
    server_certificate,
    server_tls,
)

if TYPE_CHECKING:
    from trio_serve.proxy.http_grpc import GrpcOverHttp
    from trio_serve.proxy.http_proxy import HttpProxy
    from trio_serve.proxy.http_server import HttpServer


class Door:
    """A proxy with the sockets that it listens on."""

    def __init__(
        self, listeners: Sequence[socket.socket], tls: ssl.SSLContext | None, drain_timeout_s: float
    ) -> None:
        self._listeners = listeners
        self._tls = tls
        self._drain_timeout_s = drain_timeout_s
        self.status = ProxyStatus.STARTING
        self.address = address_of(listeners)
        self.port = port_of(listeners)

    def close(self) -> None:
        """Stop listening; what accepts, if anything does, closes the connections itself."""
        for listener in self._listeners:
            close_listener(listener)


class GrpcDoor(Door):
    """The gRPC proxy's."""

    def __init__(
        self,
        proxy: GrpcProxy,
        listeners: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
        drain_timeout_s: float,
    ) -> None:
        super().__init__(listeners, tls, drain_timeout_s)
        self.proxy = proxy

    @property
    def in_flight(self) -> dict[str, int]:
        """How many calls have no answer yet, by their method."""
        counters = self.proxy.server.method_counters
        return {path: of_method.running for path, of_method in counters.items() if of_method.running}

    async def accept(self, nursery: trio.Nursery) -> None:
        """Serve in ``nursery`` whoever connects, and has connected since the socket listens."""
        serve = self.proxy.server.serve_listeners
        await nursery.start(partial(serve, self._listeners, tls=self._tls))
        self.status = ProxyStatus.HEALTHY

    async def drain(self) -> None:
        """Let the calls in flight finish, for as long as ``drain_timeout_s``, and stop serving."""
        self.status = ProxyStatus.DRAINING
        await self.proxy.drain(self._drain_timeout_s)


class HttpDoor(Door):
    """The HTTP proxy's, which is made when it is to accept."""

    def __init__(
        self,
        options: HTTPOptions,
        controller: Controller,
        listeners: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(listeners, tls, options.drain_timeout_s)
        self._options = options
        self._controller = controller
        self.grpc_server: Server | None = None
        """Whose services are to be called over HTTP, too."""
        self.proxy: HttpProxy | None = None
        self._server: HttpServer | None = None

    @property
    def in_flight(self) -> dict[str, int]:
        """How many requests have no answer yet."""
        ongoing = 0 if self.proxy is None else self.proxy.counters.ongoing
        return {"over HTTP": ongoing} if ongoing else {}

    async def accept(self, nursery: trio.Nursery) -> None:
        """Serve in ``nursery`` whoever connects, and has connected since the socket listens."""
        # Starlette and Hypercorn take a third of a second to import; gRPC is served meanwhile.
        await trio.to_thread.run_sync(importlib.import_module, "trio_serve.proxy.http_server")
        from trio_serve.proxy.http_proxy import HttpProxy
        from trio_serve.proxy.http_server import HttpServer

        options = self._options
        self.proxy = HttpProxy(
            self._controller,
            root_path=options.root_path,
            request_timeout_s=options.request_timeout_s,
            grpc=await self._open_translator(nursery),
        )
        self._server = HttpServer(self.proxy, keep_alive_timeout_s=options.keep_alive_timeout_s)
        await nursery.start(partial(self._server.serve_listeners, self._listeners, tls=self._tls))
        self.status = ProxyStatus.HEALTHY

    async def _open_translator(self, nursery: trio.Nursery) -> "GrpcOverHttp | None":
        from trio_serve.proxy.http_grpc import GrpcOverHttp

        if self.grpc_server is None:
            return None
        translator = GrpcOverHttp(self.grpc_server, self._options.cors_origins)
        await nursery.start(translator.run)
        return translator

    async def drain(self) -> None:
        """Let requests and WebSockets finish, for as long as ``drain_timeout_s``, and stop serving."""
        self.status = ProxyStatus.DRAINING
        if self.proxy is not None and self._server is not None:
            self.proxy.draining = True
            await self._server.drain(self._drain_timeout_s)


async def open_grpc_door(
    options: gRPCOptions, controller: Controller, listeners: Sequence[socket.socket] = ()
) -> GrpcDoor:
    """Listen where ``options`` say, or on ``listeners`` that somebody opened; nothing is accepted yet.

    Raises:
        Mistakes: services that cannot be found and files that cannot be read, all of them.
        OSError: the port is in use, or the host is not ours.
    """
    methods, tls = _read(options)
    keepalive = options.keepalive
    make_server = _server_with(options.faults)
    server = make_server(
        message_bytes_max=options.message_bytes_max,
        request_timeout_s=options.request_timeout_s,
        reflection=options.enable_reflection,
        options=attrs.evolve(
            SERVER_OPTIONS,
            keepalive=KeepaliveOptions(
                time_s=keepalive.time_s,
                timeout_s=keepalive.timeout_s,
                without_calls=True,
                interval_min_s=keepalive.interval_min_s,
            ),
            lifetime=LifetimeOptions(age_max_s=options.max_connection_age_s or math.inf),
        ),
    )
    proxy = GrpcProxy(server, controller, methods, expose_tracebacks=options.expose_tracebacks)
    opened = list(listeners) or await open_listeners(options.host, options.port)
    return GrpcDoor(proxy, opened, tls, options.drain_timeout_s)


async def open_http_door(
    options: HTTPOptions, controller: Controller, listeners: Sequence[socket.socket] = ()
) -> HttpDoor:
    """Listen where ``options`` say, or on ``listeners`` that somebody opened; nothing is accepted yet.

    Raises:
        Mistakes: certificates that cannot be read.
        OSError: the port is in use, or the host is not ours.
    """
    tls = _http_tls(options)
    opened = list(listeners) or await open_listeners(options.host, options.port)
    return HttpDoor(options, controller, opened, tls)


def _server_with(faults: FaultOptions | None) -> Callable[..., Server]:
    """The server's class; the one with faults is imported for those who ask for them."""
    if faults is None:
        return Server
    from trio_serve.grpc.wire_faults import FaultyServer, WireFaults

    wanted = {name: value for name, value in attrs.asdict(faults).items() if value is not None}
    return partial(FaultyServer, faults=WireFaults(**wanted))


def _http_tls(options: HTTPOptions) -> ssl.SSLContext | None:
    if options.ssl_certfile is None or options.ssl_keyfile is None:
        return None
    files = (options.ssl_certfile, options.ssl_keyfile, options.ssl_ca_certs)
    try:
        return server_certificate(*files, password=options.ssl_keyfile_password)
    except OSError as error:  # ssl.SSLError is one too
        raise Mistakes([Mistake(("http_options", "ssl_certfile"), _tls_text(files, error))]) from None


def _read(options: gRPCOptions) -> tuple[list[Method], ssl.SSLContext | None]:
    """The methods of every service that ``options`` name (the first of a path wins), and the TLS files."""
    mistakes: list[Mistake] = []
    methods: dict[str, Method] = {}
    for name in ("grpc_servicer_functions", "protos"):
        for index, source in enumerate(getattr(options, name)):
            try:
                for method in methods_from(source):
                    methods.setdefault(method.path, method)
            except MethodSourceError as error:
                mistakes += [Mistake(("grpc_options", name, index), each) for each in error.problems]
    tls = None
    if options.tls is not None:
        try:
            tls = server_tls(options.tls.cert, options.tls.key, options.tls.client_ca)
        except OSError as error:  # ssl.SSLError is one too
            mistakes.append(Mistake(("grpc_options", "tls"), _tls_text(_files_of(options.tls), error)))
    if mistakes:
        raise Mistakes(mistakes)
    return list(methods.values()), tls


def _files_of(tls: TLSOptions) -> Sequence[str | None]:
    return tls.cert, tls.key, tls.client_ca


def _tls_text(files: Sequence[str | None], error: OSError) -> str:
    named = ", ".join(file for file in files if file is not None)
    return f"cannot serve TLS with {named}: {error.strerror or error}"


def address_of(listeners: Sequence[socket.socket]) -> str:
    """``127.0.0.1:9000``, of the first of ``listeners``."""
    name = listeners[0].getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
