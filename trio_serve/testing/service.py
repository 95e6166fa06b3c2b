"""An application served in memory: real client, HTTP/2 bytes, server, proxy, mailbox and back, with no port.

    stub --> Channel --> HTTP/2 bytes --> Server --> GrpcProxy --> mailbox --> replica
                          (in memory)

Under a virtual clock (``trio.testing.MockClock(autojump_threshold=0)``) deadlines, batching windows, health
checks, autoscaling, keepalive and drain take no time and are exact.  Sync methods run inline, so that the
clock cannot run past them.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_serve.grpc.channel import Channel, open_channel
from trio_serve.grpc.methods import methods_from_all
from trio_serve.grpc.server import Server
from trio_serve.instance.errors_alone import errors_alone
from trio_serve.instance.instance import Handle, Instance, open_instance
from trio_serve.instance.targets import RunTarget
from trio_serve.proxy.grpc_proxy import GrpcProxy
from trio_serve.serving.application import Application, build_graph
from trio_serve.serving.status import ServeStatus
from trio_serve.testing.fakes import replace_deployments


class Service:
    """An application while it is served."""

    def __init__(self, instance: Instance, name: str, server: Server, channel: Channel) -> None:
        self.instance = instance
        self.name = name
        self.server = server
        self._channel = channel

    @property
    def handle(self) -> Handle:
        """A handle to the application's ingress."""
        return self.instance.get_app_handle(self.name)

    def handle_to(self, deployment: str) -> Handle:
        """A handle to any deployment of the application, to be called by itself.

        Raises:
            DeploymentUnavailable: there is none of that name.
        """
        return self.instance.get_deployment_handle(deployment, self.name)

    def channel(self) -> Channel:
        """A channel for stubs, grpcio's and grpclib's; always the same one, closed with the block."""
        return self._channel

    @asynccontextmanager
    async def open_channel(self, **options: Any) -> AsyncIterator[Channel]:
        """Another client, with ``ChannelOptions`` of its own."""
        async with open_channel(self.server, **options) as channel:
            yield channel

    def status(self) -> ServeStatus:
        """What runs, and how it is."""
        return self.instance.status()

    async def update(self, app: Application) -> None:
        """Put ``app`` in the place of the application: a rolling update, as any redeploy is.

        Raises:
            Exception: what a constructor raised; the old version serves on.
        """
        await _run(self.instance, app, self.name)

    async def drain(self, timeout_s: float = float("inf")) -> None:
        """Refuse new calls and wait for those in flight, as at SIGTERM; the service is over then."""
        await self.server.drain(timeout_s)


@asynccontextmanager
async def serving(
    app: Application,
    *,
    services: Iterable[object] = (),
    name: str = "default",
    overrides: Mapping[str, Any] | None = None,
    request_timeout_s: float | None = None,
    expose_tracebacks: bool = True,
) -> AsyncIterator[Service]:
    """Serve ``app`` in memory for the length of the block.

    ``services`` are what ``grpc_servicer_functions`` takes: ``add_XServicer_to_server`` functions, grpclib
    bases, ``_pb2`` modules, ``.proto`` paths.  ``overrides`` puts fakes in the place of deployments, by name
    (see ``replace_deployments``).

    Raises:
        MethodSourceError: services that cannot be found, all of them.
        Exception: what the constructor of a deployment raised, itself; and what the block raised, as it was.
    """
    methods = methods_from_all(services)
    application = replace_deployments(app, overrides) if overrides else app
    async with open_instance() as instance:
        await _run(instance, application, name)
        server = Server(request_timeout_s=request_timeout_s)
        GrpcProxy(server, instance.controller, methods, expose_tracebacks=expose_tracebacks)
        with errors_alone():
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve_listeners)
                async with open_channel(server) as channel:
                    yield Service(instance, name, server, channel)
                nursery.cancel_scope.cancel()


async def _run(instance: Instance, app: Application, name: str) -> None:
    inline = {spec.name: {"sync_methods": "inline"} for spec in build_graph(app)}
    await instance.run_many([RunTarget(app, name, None, deployment_options=inline)])
