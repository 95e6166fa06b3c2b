"""An application served in memory: real client, HTTP/2 bytes, server, proxy, mailbox and back, with no port.

    stub --> Channel --> HTTP/2 bytes --> Server --> GrpcProxy --> mailbox --> replica
                          (in memory)

Under a virtual clock (``trio.testing.MockClock(autojump_threshold=0)``) deadlines, batching windows, health
checks, autoscaling, keepalive and drain take no time and are exact.  Sync methods run inline, so that the
clock cannot run past them.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from random import Random
from typing import Any

import trio

from trio_serve.grpc.channel import Channel, open_channel
from trio_serve.grpc.methods import methods_from_all
from trio_serve.grpc.server import Server
from trio_serve.grpc.wire_faults import FaultyServer
from trio_serve.instance.errors_alone import errors_alone
from trio_serve.instance.instance import Handle, Instance, open_instance
from trio_serve.instance.targets import RunTarget
from trio_serve.proxy.grpc_proxy import GrpcProxy
from trio_serve.serving.application import Application, build_graph
from trio_serve.serving.status import ServeStatus
from trio_serve.testing.fakes import replace_deployments
from trio_serve.testing.faults import Faults, crash, with_faults
from trio_serve.testing.scheduling import seed_in_force
from trio_serve.testing.strictness import Prepare, Strict, strictly


class Service:
    """An application while it is served."""

    def __init__(
        self, instance: Instance, name: str, server: Server, channel: Channel, prepare: Prepare
    ) -> None:
        self._prepare = prepare
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
        await _run(self.instance, self._prepare(app), self.name)

    def crash(self, deployment: str) -> None:
        """Let one replica of ``deployment`` die at once, with the calls that it serves; another one follows.

        Raises:
            DeploymentUnavailable: there is none of that name.
        """
        crash(self.instance.controller.find(self.name, deployment).receiving[0])

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
    faults: Faults | None = None,
    strict: bool | Strict = False,
) -> AsyncIterator[Service]:
    """Serve ``app`` in memory for the length of the block.

    ``services`` are what ``grpc_servicer_functions`` takes: ``add_XServicer_to_server`` functions, grpclib
    bases, ``_pb2`` modules, ``.proto`` paths.  ``overrides`` puts fakes in the place of deployments, by name
    (see ``replace_deployments``).  ``faults`` are those of `faults.Faults`; what leaves the block then tells
    their seed.  ``strict`` fails the block for what is found at its end: values that would not survive a
    process boundary, and leaks.

    Raises:
        MethodSourceError: services that cannot be found, all of them.
        Exception: what the constructor of a deployment raised, itself; and what the block raised, as it was.
    """
    methods = methods_from_all(services)
    application = replace_deployments(app, overrides) if overrides else app
    if faults is not None:
        application = with_faults(application, faults)
    random = Random(seed_in_force.get())
    with _telling(faults), _strictly(strict) as prepare:
        async with open_instance(random=random) as instance:
            await _run(instance, prepare(application), name)
            server = _server(faults, request_timeout_s)
            GrpcProxy(server, instance.controller, methods, expose_tracebacks=expose_tracebacks)
            with errors_alone():
                async with trio.open_nursery() as nursery:
                    await nursery.start(server.serve_listeners)
                    async with open_channel(server, rng=random) as channel:
                        yield Service(instance, name, server, channel, prepare)
                    nursery.cancel_scope.cancel()


def _strictly(strict: bool | Strict) -> AbstractContextManager[Prepare]:
    if not strict:
        return nullcontext(_as_it_is)
    return strictly(Strict() if strict is True else strict)


def _as_it_is(application: Application) -> Application:
    return application


def _server(faults: Faults | None, request_timeout_s: float | None) -> Server:
    wire = None if faults is None else faults.of_the_wire
    if wire is None:
        return Server(request_timeout_s=request_timeout_s)
    return FaultyServer(faults=wire, request_timeout_s=request_timeout_s)


@contextmanager
def _telling(faults: Faults | None) -> Iterator[None]:
    """Let an error tell the seed that it came with."""
    try:
        yield
    except BaseException as error:
        if faults is not None:
            error.add_note(f"faults: {faults}")
        raise


async def _run(instance: Instance, app: Application, name: str) -> None:
    inline = {spec.name: {"sync_methods": "inline"} for spec in build_graph(app)}
    await instance.run_many([RunTarget(app, name, None, deployment_options=inline)])
