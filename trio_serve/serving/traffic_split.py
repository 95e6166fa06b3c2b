"""A policy in force: the one place where a call from outside is given its application.

    route, or application name ──> TrafficSplit.choose(key) ──> RunningApplication ──> its ingress
                                        └─ shadow(...) ──> copies, to others

The policy is swapped as a whole while calls come in.  A target that is deleted meanwhile gets no more calls:
its share falls to the others.

Knows nothing of what the key is or where it comes from.
"""

from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from trio_serve.serving.request_context import RequestContext
from trio_serve.serving.shadowing import ShadowCalls
from trio_serve.serving.status import ApplicationStatus
from trio_serve.serving.traffic import TrafficPolicy

if TYPE_CHECKING:
    from trio_serve.serving.running_application import RunningApplication


class TrafficSplit:
    """Follows ``policy`` among ``applications``; ``chosen`` counts the calls that each was given."""

    __slots__ = ("_applications", "_random", "chosen", "policy", "shadows")

    def __init__(
        self, policy: TrafficPolicy, applications: "Mapping[str, RunningApplication]", random: Random
    ) -> None:
        self.policy = policy
        self.chosen: dict[str, int] = {}
        self.shadows = ShadowCalls()
        self._applications = applications
        self._random = random

    def choose(self, key: str | None = None) -> "RunningApplication | None":
        """The application that answers the call at hand; None where every target is gone."""
        gone: set[str] = set()
        while True:
            name = self.policy.choose(key, self._random, gone)
            if name is None:
                return None
            application = self._serving(name)
            if application is not None:
                self.chosen[name] = self.chosen.get(name, 0) + 1
                return application
            gone.add(name)

    def shadow_targets(self) -> "list[RunningApplication]":
        """The applications that are to get a copy of the call at hand."""
        if not self.policy.shadows:
            return []
        names = self.policy.shadows_of_one(self._random)
        return [each for name in names if (each := self._serving(name)) is not None]

    def shadow(
        self,
        target: "RunningApplication",
        method: str,
        copy: Callable[[], tuple[Any, ...]],
        request: RequestContext,
        *,
        grpc_context: Any = None,
        stream: bool = False,
        respond: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        """Send ``target`` a copy of the call that ``request`` is about, within the budget; never raises."""
        own = RequestContext(
            request.request_id,
            target.name,
            request.multiplexed_model_id,
            route=request.route,
            grpc_context=grpc_context,
        )
        self.shadows.send(
            target.ingress,
            method,
            copy,
            own,
            self.policy.shadow_calls_max,
            stream=stream,
            respond=respond,
        )

    def _serving(self, name: str) -> "RunningApplication | None":
        application = self._applications.get(name)
        if application is None or application.phase is ApplicationStatus.DELETING:
            return None
        return application
