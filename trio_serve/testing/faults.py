"""Faults for tests: connections that break, replicas that crash, constructors that fail, drawn from a seed.

    serving(app, faults=Faults(seed=7, wire=WireFaults(latency_s=0.1),
                               deployments={"Ranker": DeploymentFaults(constructor_failures=2)}))

An instance with ports has the same: ``grpc_options={"faults": {"latency_s": 0.1}}`` for the wire, and
`with_faults` for the deployments of an application.
"""

import secrets
from collections.abc import Mapping
from random import Random
from typing import Any

import attrs
import trio

from trio_serve.grpc.wire_faults import WireFaults
from trio_serve.instance.instance import current_instance
from trio_serve.serving.application import Application, build_graph
from trio_serve.serving.replica import Replica
from trio_serve.serving.request_context import RequestContext, current
from trio_serve.testing.interposing import Arguments, interposed


class InjectedFault(Exception):
    """A fault that somebody asked for, and nobody's mistake."""


@attrs.frozen(kw_only=True)
class DeploymentFaults:
    """What befalls the replicas of one deployment, all of them counted together.

    ``constructor_failures``: so many constructions raise, before the first that does not.
    ``crash_on_call``: the replica that gets the n-th call dies of it (and another takes its place).
    ``error_share``: such a share of the calls raises; ``latency_s``: each call of an async method waits.
    """

    constructor_failures: int = 0
    crash_on_call: int | None = None
    error_share: float = 0.0
    latency_s: float = 0.0


@attrs.frozen(kw_only=True)
class Faults:
    """All that a test asks for; without a ``seed``, one is drawn, and told where the test fails."""

    seed: int = attrs.field(factory=lambda: secrets.randbelow(2**32))
    wire: WireFaults | None = None
    deployments: Mapping[str, DeploymentFaults] = attrs.field(factory=dict)

    @property
    def of_the_wire(self) -> WireFaults | None:
        """Those of the wire, with this seed."""
        return None if self.wire is None else attrs.evolve(self.wire, seed=self.seed)


def with_faults(application: Application, faults: Faults) -> Application:
    """``application`` with the faults of its deployments, to be run anywhere.

    Raises:
        ValueError: there is no deployment of a name that ``faults`` has.
    """
    known = {spec.name for spec in build_graph(application)}
    if unknown := faults.deployments.keys() - known:
        raise ValueError(
            f"faults are for {', '.join(sorted(unknown))}, but the application has {', '.join(sorted(known))}"
        )
    random = Random(faults.seed)

    def before(name: str) -> "_FaultyDeployment | None":
        wanted = faults.deployments.get(name)
        return None if wanted is None else _FaultyDeployment(name, wanted, random)

    return interposed(application, before)


def crash(replica: Replica) -> None:
    """Let ``replica`` die at once, as of an error in a task of its own.  In the Trio thread only."""
    assert replica.scope is not None, "the replica has not begun"
    replica.scope.start_soon(_die, replica.tag)


async def _die(tag: str) -> None:
    raise InjectedFault(f"{tag} crashes, as asked for")


class _FaultyDeployment:
    """Counts and draws for one deployment."""

    def __init__(self, name: str, faults: DeploymentFaults, random: Random) -> None:
        self._name = name
        self._faults = faults
        self._random = random
        self._constructed = 0
        self._calls = 0

    def constructing(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._constructed += 1
        if self._constructed <= self._faults.constructor_failures:
            limit = f"constructor_failures={self._faults.constructor_failures}"
            raise InjectedFault(f"constructor of {self._name!r}: {self._constructed} of {limit}")

    def arrives(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], waits: bool) -> Arguments:
        self._calls += 1
        if self._random.random() < self._faults.error_share:
            raise InjectedFault(f"{self._name}.{method}(): error_share={self._faults.error_share:g}")
        if self._calls == self._faults.crash_on_call:
            self._crash(current.get())
            if not waits:
                raise InjectedFault(f"{self._name}.{method}(): crash_on_call={self._calls}")
        return args, kwargs

    def _crash(self, request: RequestContext | None) -> None:
        assert request is not None, "a method runs within a request"
        assert request.replica is not None
        if trio.lowlevel.in_trio_run():
            crash(request.replica)
        else:
            current_instance.get().trio_token.run_sync_soon(crash, request.replica)

    async def holds(self, method: str) -> None:
        if self._calls == self._faults.crash_on_call:
            await trio.sleep_forever()  # until the crash takes this call with it
        if self._faults.latency_s:
            await trio.sleep(self._faults.latency_s)

    def leaves(self, method: str, value: Any) -> Any:
        return value

    def raised(self, method: str, error: Exception) -> None:
        pass
