"""A running application: its deployments in the order of their start, and how to change them together.

    deploy    start each, what is called before its caller        failed: all that was started is stopped
    update    prepare every change, then commit all of them       failed: all is as it was, and serves on
    stop      the ingress first, and then what it calls, so that what is at work can finish

Knows nothing of other applications or of routes.
"""

import logging
from collections.abc import Awaitable, Callable
from random import Random

import trio

from trio_serve.serving.application import DeploymentSpec
from trio_serve.serving.deployment_state import DeploymentState
from trio_serve.serving.errors import one_line
from trio_serve.serving.fleet import Fleet, Member
from trio_serve.serving.handle import Directory
from trio_serve.serving.status import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
)
from trio_serve.serving.traffic_split import TrafficSplit

_log = logging.getLogger("trio_serve.serving")

_UNDO_S = 30.0
"""Seconds that a failed or cancelled change may take to clean up after itself."""


class RunningApplication:
    """One application under its name.  ``ingress`` is the deployment that requests from outside call."""

    def __init__(self, name: str, directory: Directory, random: Random, nursery: trio.Nursery) -> None:
        self.name = name
        self.route_prefix: str | None = None
        self.logging_config: object = None
        self.fleets: dict[str, Fleet] = {}
        self.ingress: DeploymentState
        self.traffic: TrafficSplit | None = None
        """Who answers in its place, by a policy; None: it does, always."""
        self.phase = ApplicationStatus.NOT_STARTED
        self.message = ""
        self.deployed_at = 0.0
        self.changing = trio.Lock()
        self.deploying = trio.CancelScope()
        self._leaving: list[Fleet] = []
        self._failed_at = ""
        self._directory = directory
        self._random = random
        self._nursery = nursery

    # -- changes ---------------------------------------------------------------------------------------

    async def deploy(self, specs: list[DeploymentSpec]) -> None:
        """Start the application, or change it to what ``specs`` say; the last one is the ingress.

        Cancelling this undoes it.

        Raises:
            Exception: the original error of the constructor or of ``reconfigure`` that failed.
        """
        self.phase, self.message = ApplicationStatus.DEPLOYING, ""
        first = not self.fleets
        try:
            if first:
                await self._start(specs)
            else:
                await self._update(specs)
        except BaseException as error:
            serving = "" if first else "; the version before it serves on"
            self.phase = ApplicationStatus.DEPLOY_FAILED
            self.message = f"deployment {self._failed_at!r}: {one_line(error)}{serving}"
            if first:
                self._say_why(specs)
            raise
        self.phase = ApplicationStatus.RUNNING

    async def _start(self, specs: list[DeploymentSpec]) -> None:
        fleets: list[Fleet] = []
        self.ingress = DeploymentState(self.name, specs[-1], self._directory, self._random)
        try:
            for spec in specs:
                self._failed_at = spec.name
                fleets.append(await self._open(spec))
                await fleets[-1].start()
        except BaseException as error:
            cause = f"the application could not be deployed: {one_line(error)}"
            with trio.move_on_after(_UNDO_S, shield=True):
                for fleet in reversed(fleets):
                    await fleet.stop(cause)
            self.fleets.clear()
            raise

    def _say_why(self, specs: list[DeploymentSpec]) -> None:
        """Leave an ingress behind that answers every call with the reason."""
        self.ingress = DeploymentState(self.name, specs[-1], self._directory, self._random)
        self.ingress.refuse_new(self.message)

    async def _open(self, spec: DeploymentSpec) -> Fleet:
        """A fleet with no replicas yet, to be found by handles."""
        last = self.fleets.get(spec.name)
        assert last is None or last.state.gone
        state = DeploymentState(self.name, spec, self._directory, self._random)
        fleet = Fleet(state, self._random, self._changed)
        await self._nursery.start(fleet.run)
        self.fleets[spec.name] = fleet
        self.ingress = state
        return fleet

    async def _update(self, specs: list[DeploymentSpec]) -> None:
        """Prepare everything that may fail, undo it all if something does, and only then commit."""
        ingress = self.ingress
        undo: list[Callable[[], Awaitable[None]]] = []
        commits: list[tuple[Fleet, DeploymentSpec, list[Member] | None]] = []
        try:
            for spec in specs:
                self._failed_at = spec.name
                fleet = self.fleets.get(spec.name)
                if fleet is None:
                    fleet = await self._open(spec)
                    self.ingress = ingress
                    undo.append(self._undo_open(fleet))
                    await fleet.start()
                elif not fleet.state.spec.same_code(spec):
                    fleet.updating = True
                    prepared = await fleet.prepare(spec)
                    undo.append(self._undo_prepare(fleet, prepared))
                    commits.append((fleet, spec, prepared))
                else:
                    before = fleet.state.spec
                    if before.options.user_config != spec.options.user_config:
                        await fleet.reconfigure(spec)
                        undo.append(self._undo_reconfigure(fleet, before))
                    commits.append((fleet, spec, None))
        except BaseException:
            with trio.move_on_after(_UNDO_S, shield=True):
                for step in reversed(undo):
                    await step()
            for fleet in self.fleets.values():
                fleet.updating = False
            raise
        self._commit(specs, commits)

    def _commit(
        self, specs: list[DeploymentSpec], commits: list[tuple[Fleet, DeploymentSpec, list[Member] | None]]
    ) -> None:
        old: list[Member] = []
        for fleet, spec, prepared in commits:
            if prepared is None:
                fleet.tune(spec)
            else:
                old += fleet.commit(spec, prepared)
        wanted = {spec.name for spec in specs}
        leaving = [fleet for name, fleet in self.fleets.items() if name not in wanted]
        self.fleets = {spec.name: self.fleets[spec.name] for spec in specs}
        self.ingress = self.fleets[specs[-1].name].state
        self._leaving += leaving
        if leaving:
            self._nursery.start_soon(self._stop_when_unused, leaving, old)

    async def _stop_when_unused(self, leaving: list[Fleet], callers: list[Member]) -> None:
        """Stop deployments that the new version has not, once the replicas that call them are gone."""
        for caller in callers:
            await caller.gone.wait()
        for fleet in reversed(leaving):
            await fleet.stop("the application does not have it any more")
            self._leaving.remove(fleet)

    def _undo_open(self, fleet: Fleet) -> Callable[[], Awaitable[None]]:
        async def undo() -> None:
            await fleet.stop("the update that brought it has failed")
            del self.fleets[fleet.state.name]

        return undo

    def _undo_prepare(self, fleet: Fleet, prepared: list[Member]) -> Callable[[], Awaitable[None]]:
        return lambda: fleet.abandon(prepared)

    def _undo_reconfigure(self, fleet: Fleet, before: DeploymentSpec) -> Callable[[], Awaitable[None]]:
        async def undo() -> None:
            if before.options.user_config is not None:
                await fleet.reconfigure(before)

        return undo

    async def stop(self, cause: str) -> None:
        """Stop every deployment, the ingress first; what is at work finishes within the graceful timeouts.

        Cancelling this ends all of them at once.
        """
        self.phase = ApplicationStatus.DELETING
        fleets = [*reversed(self.fleets.values()), *reversed(self._leaving)]
        try:
            for fleet in fleets:
                await fleet.stop(cause)
        finally:
            for fleet in fleets:
                fleet.kill()

    # -- looking -----------------------------------------------------------------------------------------

    def state_of(self, deployment: str) -> DeploymentState | None:
        """The deployment of that name, also one that only the version before this one has."""
        fleet = self.fleets.get(deployment)
        if fleet is not None:
            return fleet.state
        return next((leaving.state for leaving in self._leaving if leaving.state.name == deployment), None)

    def _changed(self) -> None:
        """A deployment's health changed."""

    @property
    def status(self) -> ApplicationStatus:
        """How the application as a whole fares."""
        if self.phase is not ApplicationStatus.RUNNING:
            return self.phase
        well = all(
            status_of(fleet).status is not DeploymentStatus.UNHEALTHY for fleet in self.fleets.values()
        )
        return ApplicationStatus.RUNNING if well else ApplicationStatus.UNHEALTHY

    def overview(self) -> ApplicationStatusOverview:
        """A snapshot for ``status()``."""
        deployments = {name: status_of(fleet) for name, fleet in self.fleets.items()}
        message = self.message or "; ".join(
            f"deployment {name!r}: {each.message}" for name, each in deployments.items() if each.message
        )
        return ApplicationStatusOverview(
            self.status, message, self.deployed_at, deployments, self.route_prefix
        )


def status_of(fleet: Fleet) -> DeploymentStatusOverview:
    """How one deployment fares."""
    states: dict[str, int] = {}
    for replica in fleet.replicas():
        states[replica.state.value] = states.get(replica.state.value, 0) + 1
    return DeploymentStatusOverview(_word(fleet), states, fleet.trouble)


def _word(fleet: Fleet) -> DeploymentStatus:
    running, wanted = len(fleet.state.receiving), fleet.target
    if fleet.updating:
        return DeploymentStatus.UPDATING
    if fleet.trouble:
        return DeploymentStatus.UNHEALTHY
    if running < wanted:
        return DeploymentStatus.UPSCALING
    if len(fleet.members) > wanted:
        return DeploymentStatus.DOWNSCALING
    return DeploymentStatus.HEALTHY
