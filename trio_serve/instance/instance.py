"""A running instance: a controller with its applications, the proxies before it, nurseries around them.

    open_instance ── controller ── applications ── replicas
                       └─ nursery ── proxies ── connections

What was started first stops last: leaving the block drains the proxies (NOT_SERVING, GOAWAY, calls in flight
finish), then the applications.  Nothing outlives the block, and cancelling it cancels all.

Knows nothing of threads, signals and command lines.
"""

import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from random import Random
from typing import Any

import attrs
import trio

from trio_serve.instance.backends import Backends
from trio_serve.instance.errors_alone import errors_alone
from trio_serve.instance.metrics_door import MetricsDoor, open_metrics_door
from trio_serve.instance.options import HTTPOptions, LoggingConfig, MetricsOptions, gRPCOptions, options_from
from trio_serve.instance.proxies import GrpcDoor, HttpDoor, open_grpc_door, open_http_door
from trio_serve.instance.targets import RunTarget, check_targets, with_log_settings
from trio_serve.observe.exporter import Exporter
from trio_serve.observe.logs import admit, open_logs
from trio_serve.serving.application import Application
from trio_serve.serving.controller import Controller, open_controller
from trio_serve.serving.handle import DeploymentHandle
from trio_serve.serving.request_context import current_request
from trio_serve.serving.responses import DeploymentResponse
from trio_serve.serving.status import ServeStatus

Handle = DeploymentHandle[DeploymentResponse[Any]]

NAMED_MAX = 5
"""Methods that are named where it is told what is in flight."""

current_instance: ContextVar["Instance"] = ContextVar("trio_serve.instance")
"""The innermost instance that is open around the code that asks."""


@asynccontextmanager
async def open_instance(
    *,
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
    grpc_options: gRPCOptions | Mapping[str, Any] | None = None,
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
    metrics_options: MetricsOptions | Mapping[str, Any] | None = None,
    random: Random | None = None,
) -> AsyncIterator["Instance"]:
    """Open an instance for the length of the block.

    A port opens for the options that are given, and none for None; port 0 takes a free one.  Leaving the
    block drains: calls in flight have the graceful timeouts to finish.  An error that leaves it, and a
    cancellation, end everything at once.  ``random`` draws what is drawn: replicas, and their names.

    Raises:
        Mistakes: bad options, all of them.
        MethodSourceError: gRPC services that cannot be found, all of them.
        OSError: a port is in use, or a host is not ours.
    """
    http = None if http_options is None else options_from(HTTPOptions, http_options, "http_options")
    grpc = None if grpc_options is None else options_from(gRPCOptions, grpc_options, "grpc_options")
    logs = None if logging_config is None else options_from(LoggingConfig, logging_config, "logging_config")
    metrics = (
        None if metrics_options is None else options_from(MetricsOptions, metrics_options, "metrics_options")
    )
    with contextlib.nullcontext() if logs is None else open_logs(logs), errors_alone():
        async with open_controller(random=random) as controller:
            with errors_alone():
                async with trio.open_nursery() as nursery:
                    instance = Instance(controller, nursery)
                    around = current_instance.set(instance)
                    try:
                        await instance.listen(http, grpc, metrics)
                        await instance.accept()
                        yield instance
                        await instance.shutdown()
                    finally:
                        instance.close()
                        current_instance.reset(around)
                    nursery.cancel_scope.cancel()


class Instance:
    """What `open_instance` opens: applications to run, and proxies that lead to them."""

    def __init__(self, controller: Controller, nursery: trio.Nursery) -> None:
        self.trio_token = trio.lowlevel.current_trio_token()
        self.controller = controller
        self.backends = Backends(controller)
        self._nursery = nursery
        self._grpc: GrpcDoor | None = None
        self._metrics: MetricsDoor | None = None
        self._exporter = Exporter(controller)
        self._http: HttpDoor | None = None

    # Applications.

    async def run(
        self,
        target: Application,
        *,
        name: str = "default",
        route_prefix: str | None = "/",
        logging_config: LoggingConfig | Mapping[str, Any] | None = None,
    ) -> Handle:
        """Run an application, or update the one of this name, and wait until it is RUNNING.

        Cancelling it undoes it.

        Raises:
            TypeError: ``target`` is no application.
            Mistakes: a bad name or prefix.
            Exception: what the constructor of a deployment raised, itself.
        """
        (handle,) = await self.run_many([RunTarget(target, name, route_prefix, logging_config)])
        return handle

    async def run_many(self, targets: Sequence[RunTarget]) -> list[Handle]:
        """Run several applications as `run` does, all at the same time; their handles in the same order.

        All are checked before the first one is deployed, and one that fails does not keep the others from
        running.

        Raises:
            ExceptionGroup: when more than one failed, with the error of each; otherwise as `run`.
        """
        running = {name: app.route_prefix for name, app in self.controller.applications.items()}
        for name, endpoint in self.controller.endpoints.items():
            running[f"endpoint {name}"] = endpoint.route_prefix
        check_targets(targets, running)
        errors: list[Exception] = []
        async with trio.open_nursery() as nursery:
            for target in targets:
                nursery.start_soon(self._deploy, target, errors)
                await trio.lowlevel.checkpoint()  # lets it begin: applications are listed in this order
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(targets)} applications did not start", errors)
        for target in targets:
            if target.traffic is not None:
                self.controller.set_policy(target.name, target.traffic)
        return [self.get_app_handle(target.name) for target in targets]

    async def _deploy(self, target: RunTarget, errors: list[Exception]) -> None:
        try:
            await self.deploy(target)
        except Exception as error:
            errors.append(error)

    async def deploy(self, target: RunTarget) -> None:
        """Run one application as `run` does, for who has checked already that it goes with the others.

        Its traffic policy is left to the caller, for when those that it names run.
        """
        options = with_log_settings(target)
        for each in options.values():
            if "logging_config" in each:
                admit(each["logging_config"].log_level)
        await self.controller.deploy(
            target.target,
            name=target.name,
            route_prefix=target.route_prefix,
            logging_config=target.logging_config,
            overrides=options,
        )

    async def delete(self, name: str) -> None:
        """Drain the application ``name`` and take it away; KeyError when there is none."""
        await self.controller.delete(name)

    def status(self) -> ServeStatus:
        """What runs, and how it is."""
        proxies = {name: door.status for name, door in self._doors.items()}
        return attrs.evolve(self.controller.status(), proxies=proxies)

    def get_app_handle(self, name: str) -> Handle:
        """A handle for the ingress of the application ``name``; KeyError when there is none."""
        return self.controller.get_app_handle(name)

    def get_deployment_handle(self, deployment_name: str, app_name: str | None = None) -> Handle:
        """A handle for any deployment of an application: the one whose code asks, when none is named.

        Raises:
            KeyError: there is no such application.
            DeploymentUnavailable: it has no such deployment.
        """
        request = current_request()
        if app_name is None:
            app_name = "default" if request is None else request.application
        return self.controller.get_deployment_handle(deployment_name, app_name)

    # Traffic.

    async def set_traffic(
        self, name: str, weights: Mapping[str, float], *, sticky: str | None = None
    ) -> None:
        """From now on, let the applications in ``weights`` answer what comes for ``name``, by their shares.

        ``name`` is an application that requests reach, or an endpoint, and may be among them.  ``sticky`` is
        an HTTP header or gRPC metadata key: the same value of it is always answered by the same one.  Calls
        under way are not touched, and shadows stay as they are; ``{name: 1.0}`` ends the split.

        Raises:
            TrafficError: the weights do not sum to 1, or are none; a ValueError.
            NoSuchApplication: one of the names is not deployed; a KeyError.
        """
        await trio.lowlevel.checkpoint()
        before = self.controller.policy_of(name)
        self.controller.set_policy(name, attrs.evolve(before, weights=weights, sticky=sticky))

    async def shadow_traffic(self, name: str, target: str, proportion: float) -> None:
        """From now on, send copies of that share of what comes for ``name`` to ``target``; 0 ends it.

        What they answer is dropped; what they do never touches the calls that are copied.

        Raises:
            TrafficError: the proportion is not in 0 to 1; a ValueError.
            NoSuchApplication: one of the names is not deployed; a KeyError.
        """
        await trio.lowlevel.checkpoint()
        before = self.controller.policy_of(name)
        self.controller.set_policy(name, before.with_shadow(target, proportion))

    # Proxies.

    @property
    def grpc_port(self) -> int | None:
        """The port that the gRPC proxy listens on; None when it is not open."""
        return None if self._grpc is None else self._grpc.port

    @property
    def http_port(self) -> int | None:
        """The port that the HTTP proxy listens on; None when it is not open."""
        return None if self._http is None else self._http.port

    @property
    def metrics_port(self) -> int | None:
        """The port that metrics are read from; None when it is not open."""
        return None if self._metrics is None else self._metrics.port

    def metrics_text(self) -> str:
        """All metrics, in Prometheus' text format, whether or not a port is open for them."""
        return self._exporter.text().decode()

    @property
    def addresses(self) -> dict[str, str]:
        """Where it listens: ``{"grpc": "127.0.0.1:9000", "http": "127.0.0.1:8000"}``, and ``metrics``."""
        addresses = {name: door.address for name, door in self._doors.items()}
        return addresses if self._metrics is None else {**addresses, "metrics": self._metrics.address}

    @property
    def _doors(self) -> dict[str, GrpcDoor | HttpDoor]:
        doors = {"grpc": self._grpc, "http": self._http}
        return {name: door for name, door in doors.items() if door is not None}

    @property
    def calls_in_flight(self) -> int:
        """Calls that came in through a proxy and have no answer yet."""
        return sum(number for door in self._doors.values() for number in door.in_flight.values())

    @property
    def in_flight(self) -> str:
        """The same in words: ``3 calls in flight (2 /pkg.Service/Method, 1 over HTTP)``."""
        counted = Counter[str]()
        for door in self._doors.values():
            counted.update(door.in_flight)
        calls = counted.total()
        text = f"{calls} call{'' if calls == 1 else 's'} in flight"
        named = [f"{number} {what}" for what, number in counted.most_common(NAMED_MAX)]
        if len(counted) > NAMED_MAX:
            named.append("others")
        return f"{text} ({', '.join(named)})" if named else text

    async def listen(
        self,
        http_options: HTTPOptions | None,
        grpc_options: gRPCOptions | None,
        metrics_options: MetricsOptions | None = None,
        *,
        grpc_listeners: Sequence[socket.socket] = (),
        http_listeners: Sequence[socket.socket] = (),
        metrics_listeners: Sequence[socket.socket] = (),
    ) -> None:
        """Open the ports; who connects waits until `accept`.  Raises as `open_instance`."""
        if http_options is not None:
            self._http = await open_http_door(http_options, self.controller, http_listeners)
        if grpc_options is not None:
            self._grpc = await open_grpc_door(grpc_options, self.controller, grpc_listeners)
            self._exporter.grpc_proxy = self._grpc.proxy
            if self._http is not None:
                self._http.grpc_server = self._grpc.proxy.server
        if metrics_options is not None:
            self._exporter.ray_prefix = metrics_options.ray_prefix
            self._metrics = await open_metrics_door(metrics_options, self._exporter.scrape, metrics_listeners)

    async def open_grpc(self, grpc_options: gRPCOptions) -> None:
        """Open the gRPC proxy of an instance that serves, and has none.  Raises as `open_instance`."""
        door = self._grpc = await open_grpc_door(grpc_options, self.controller)
        self._exporter.grpc_proxy = door.proxy
        await door.accept(self._nursery)

    async def accept(self) -> None:
        """Serve who connects, and has connected since `listen`."""
        for door in self._doors.values():
            await door.accept(self._nursery)
        if self._http is not None:
            self._exporter.http_proxy = self._http.proxy
        if self._metrics is not None:
            await self._metrics.accept(self._nursery)

    # The end.

    async def drain(self) -> None:
        """Take no more calls from outside and wait for those in flight: NOT_SERVING, GOAWAY, last answer."""
        async with trio.open_nursery() as nursery:
            for door in self._doors.values():
                nursery.start_soon(door.drain)

    async def shutdown(self) -> None:
        """Drain the proxies, then the deployments in reverse order of their start, within their timeouts."""
        await self.drain()
        await self.controller.shutdown()

    def close(self) -> None:
        """Give the ports back at once."""
        if self._metrics is not None:
            self._metrics.close()
        for door in self._doors.values():
            door.close()


async def serve(
    target: Application,
    *,
    name: str = "default",
    route_prefix: str | None = "/",
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
    grpc_options: gRPCOptions | Mapping[str, Any] | None = None,
    logging_config: LoggingConfig | Mapping[str, Any] | None = None,
    task_status: trio.TaskStatus[Handle] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve one application until cancelled: ``handle = await nursery.start(serve, app)``.

    ``nursery.start`` returns a handle for the application once it is RUNNING.  Raises what `open_instance`
    and `Instance.run` raise.
    """
    async with open_instance(
        http_options=http_options, grpc_options=grpc_options, logging_config=logging_config
    ) as instance:
        handle = await instance.run(
            target, name=name, route_prefix=route_prefix, logging_config=logging_config
        )
        task_status.started(handle)
        await trio.sleep_forever()
