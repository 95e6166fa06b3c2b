"""An HTTP/1.1 client for one connection, and a proxy to connect it to: in memory, so that time is free.

client --- real HTTP/1.1 bytes, in a memory pair --- HttpServer --- HttpProxy --- applications
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import trio

from trio_serve.proxy.http_proxy import HttpProxy
from trio_serve.proxy.http_server import HttpServer
from trio_serve.serving.application import Application
from trio_serve.serving.controller import Controller, open_controller
from trio_serve.transport.byte_stream import ByteStream


@attrs.frozen
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class HttpClient:
    """One connection, one request at a time."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.connection = h11.Connection(h11.CLIENT)

    async def ask(self, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> Response:
        """Send a request, wait for the whole response."""
        await self.send(target, method, body, **headers)
        return await self.response()

    async def send(self, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> None:
        if self.connection.our_state is h11.DONE:
            self.connection.start_next_cycle()
        fields = [("host", "test"), *((name.replace("_", "-"), value) for name, value in headers.items())]
        if body:
            fields.append(("content-length", str(len(body))))
        data = self.connection.send(h11.Request(method=method, target=target, headers=fields)) or b""
        if body:
            data += self.connection.send(h11.Data(data=body)) or b""
        data += self.connection.send(h11.EndOfMessage()) or b""
        await self.stream.send_all(data)

    async def response(self) -> Response:
        head = await self.head()
        body = b""
        while not isinstance(event := await self.event(), h11.EndOfMessage):
            body += event.data
        headers = {name.decode(): value.decode() for name, value in head.headers}
        return Response(head.status_code, headers, body)

    async def head(self) -> h11.Response:
        event = await self.event()
        assert isinstance(event, h11.Response), event
        return event

    async def event(self) -> Any:
        """The next h11 event; ConnectionClosed at the end; h11.RemoteProtocolError where it is cut short."""
        while (event := self.connection.next_event()) is h11.NEED_DATA:
            self.connection.receive_data(await self.stream.receive_some(65536))
        return event

    async def leave(self) -> None:
        await self.stream.aclose()


class Served:
    """Applications behind a proxy, in memory."""

    def __init__(self, proxy: HttpProxy, server: HttpServer, controller: Controller) -> None:
        self.proxy = proxy
        self.server = server
        self.controller = controller

    def connect(self) -> HttpClient:
        return HttpClient(self.server.connect())

    async def ask(self, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> Response:
        """One request on a connection of its own."""
        client = self.connect()
        try:
            return await client.ask(target, method, body, **headers)
        finally:
            await client.leave()


@asynccontextmanager
async def serving(
    *applications: Application,
    root_path: str = "",
    request_timeout_s: float | None = None,
    keep_alive_timeout_s: float = 90.0,
    **by_prefix: Application,
) -> AsyncIterator[Served]:
    """Serve one application at ``/``, and those given by name at ``/name``."""
    async with open_controller() as controller, trio.open_nursery() as nursery:
        for application in applications:
            await controller.deploy(application)
        for name, application in by_prefix.items():
            await controller.deploy(application, name=name, route_prefix=f"/{name}")
        proxy = HttpProxy(controller, root_path=root_path, request_timeout_s=request_timeout_s)
        server = HttpServer(proxy, keep_alive_timeout_s=keep_alive_timeout_s)
        await nursery.start(server.serve_listeners)
        yield Served(proxy, server, controller)
        nursery.cancel_scope.cancel()
