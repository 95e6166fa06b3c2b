"""The controller: which applications run, under which names, and everything that changes that.

    deploy ──> build_graph ──> RunningApplication ──> Fleet (one for each deployment) ──> replicas
    handles, proxies ──find──> DeploymentState

One controller lives in one Trio run; its handles work from any thread of the process.

Knows nothing of networks: a proxy reads ``applications`` and calls ``application.ingress.call(...)``.
"""

import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio
from trio.lowlevel import TrioToken

from trio_serve.serving.application import Application, DeploymentSpec, build_graph
from trio_serve.serving.deployment_state import DeploymentState
from trio_serve.serving.endpoint import Endpoint
from trio_serve.serving.errors import DeploymentUnavailable, ServeError
from trio_serve.serving.handle import DeploymentHandle
from trio_serve.serving.responses import DeploymentResponse
from trio_serve.serving.running_application import RunningApplication
from trio_serve.serving.status import ServeStatus
from trio_serve.serving.traffic import TrafficPolicy
from trio_serve.serving.traffic_split import TrafficSplit


class NoSuchApplication(ServeError, KeyError):
    """No application of this name is deployed; the text lists those that are."""

    def __init__(self, name: str, known: list[str]) -> None:
        has = ", ".join(known) if known else "none"
        super().__init__(f"no application {name!r} is deployed; there are: {has}")

    __str__ = Exception.__str__


class Controller:
    """Deploys applications and finds them; made by ``open_controller``."""

    def __init__(self, nursery: trio.Nursery, random: Random, unix_time: Callable[[], float]) -> None:
        self.applications: dict[str, RunningApplication] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.token: TrioToken = trio.lowlevel.current_trio_token()
        self.thread_ident = threading.get_ident()
        self._nursery = nursery
        self._random = random
        self._unix_time = unix_time

    async def deploy(
        self,
        target: Application,
        *,
        name: str = "default",
        route_prefix: str | None = "/",
        logging_config: object = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> DeploymentHandle[DeploymentResponse[Any]]:
        """Run ``target`` under ``name``; return a handle to its ingress once every replica is ready.

        Where the name runs already, this is a rolling update: new replicas are ready before the old ones
        finish what they have and go; what has not changed is left alone, and a change of options takes no
        new replicas.  ``overrides`` gives options by deployment name.

        Cancelling it undoes it.  A change that fails leaves what was there serving.

        Raises:
            OptionsError: ``overrides`` cannot be used; nothing has happened.
            DeploymentUnavailable: the application was deleted meanwhile.
            Exception: the original error of a constructor, or of ``reconfigure``.
        """
        specs = build_graph(target, overrides)
        deployed = False
        while not deployed:
            application = self.applications.get(name)
            if application is None:
                application = RunningApplication(name, self, self._random, self._nursery)
                application.ingress = DeploymentState(name, specs[-1], self, self._random)
                self.applications[name] = application
                application.route_prefix = route_prefix
            async with application.changing:
                if self.applications.get(name) is application:  # else it was deleted while this waited
                    await self._change(application, specs)
                    application.route_prefix = route_prefix
                    application.logging_config = logging_config
                    application.deployed_at = self._unix_time()
                    deployed = True
        return DeploymentHandle(self, name, specs[-1].name)

    async def _change(self, application: RunningApplication, specs: list[DeploymentSpec]) -> None:
        with trio.CancelScope() as application.deploying:
            await application.deploy(specs)
        if application.deploying.cancelled_caught:
            cause = "it was deleted while it was being deployed"
            raise DeploymentUnavailable(application.name, specs[-1].name, cause)

    async def delete(self, name: str) -> None:
        """Stop the application ``name``, within its graceful timeouts, and forget it.

        Cancelling this ends it at once.

        Raises:
            NoSuchApplication
        """
        application = self._application(name)
        application.deploying.cancel()
        async with application.changing:
            try:
                await application.stop(f"application {name!r} was deleted")
            finally:
                if self.applications.get(name) is application:
                    del self.applications[name]

    async def shutdown(self) -> None:
        """Delete every endpoint, and every application, the last deployed first."""
        await trio.lowlevel.checkpoint()
        self.endpoints.clear()
        for name in reversed(list(self.applications)):
            if name in self.applications:
                await self.delete(name)

    # -- traffic ---------------------------------------------------------------------------------------

    def split(self, policy: TrafficPolicy) -> TrafficSplit:
        """A split that follows ``policy`` among the applications.

        Raises:
            NoSuchApplication: the policy names one that is not deployed.
        """
        self._check_targets(policy)
        return TrafficSplit(policy, self.applications, self._random)

    def set_policy(self, name: str, policy: TrafficPolicy) -> None:
        """From now on, ``policy`` says who gets the calls to the endpoint, or else the application, ``name``.

        Raises:
            NoSuchApplication: there is none of that name, or the policy names one that is not deployed.
        """
        self._check_targets(policy)
        door = self.endpoints.get(name) or self._application(name)
        if door.traffic is None:
            door.traffic = self.split(policy)
        else:
            door.traffic.policy = policy

    def policy_of(self, name: str) -> TrafficPolicy:
        """The policy in force at the endpoint, or else the application, ``name``.

        Raises:
            NoSuchApplication
        """
        door = self.endpoints.get(name) or self._application(name)
        return TrafficPolicy({name: 1.0}) if door.traffic is None else door.traffic.policy

    def _check_targets(self, policy: TrafficPolicy) -> None:
        for target in policy.targets:
            self._application(target)

    # -- finding ---------------------------------------------------------------------------------------

    def find(self, application: str, deployment: str) -> DeploymentState:
        """The deployment of that name.

        Raises:
            DeploymentUnavailable: there is none.
        """
        running = self.applications.get(application)
        if running is None:
            raise DeploymentUnavailable(application, deployment, "no application of this name is deployed")
        state = running.state_of(deployment)
        if state is not None:
            return state
        if running.ingress.name == deployment:
            return running.ingress  # which tells why it is not there
        raise DeploymentUnavailable(
            application,
            deployment,
            f"the application has no such deployment; it has {', '.join(running.fleets)}",
        )

    def get_app_handle(self, name: str) -> DeploymentHandle[DeploymentResponse[Any]]:
        """A handle to the ingress of the application ``name``.

        Raises:
            NoSuchApplication
        """
        return DeploymentHandle(self, name, self._application(name).ingress.name)

    def get_deployment_handle(
        self, deployment_name: str, app_name: str = "default"
    ) -> DeploymentHandle[DeploymentResponse[Any]]:
        """A handle to one deployment of an application.

        Raises:
            NoSuchApplication
            DeploymentUnavailable: the application has no such deployment.
        """
        self._application(app_name)
        self.find(app_name, deployment_name)
        return DeploymentHandle(self, app_name, deployment_name)

    def status(self) -> ServeStatus:
        """A snapshot of all applications."""
        return ServeStatus({name: each.overview() for name, each in self.applications.items()})

    def _application(self, name: str) -> RunningApplication:
        application = self.applications.get(name)
        if application is None:
            raise NoSuchApplication(name, list(self.applications))
        return application


@asynccontextmanager
async def open_controller(
    *, random: Random | None = None, unix_time: Callable[[], float] = time.time
) -> AsyncIterator[Controller]:
    """A controller for the length of a block; leaving it stops the applications within their timeouts.

    Cancelling the block cancels everything in it at once.  ``random`` draws replicas and their names.
    """
    async with trio.open_nursery() as nursery:
        controller = Controller(nursery, random or Random(), unix_time)
        yield controller
        await controller.shutdown()
        nursery.cancel_scope.cancel()
