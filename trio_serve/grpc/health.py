"""grpc.health.v1.Health: tells load balancers and people whether a service can be called.

    ""           the server as a whole
    "pkg.Svc"    one service

Source: gRPC Health Checking Protocol.
Knows no server: whoever owns it says what serves, and registers ``methods()``.
"""

import enum
from collections.abc import AsyncIterator, Iterable
from typing import Any

import trio
from attrs import evolve
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from .methods import Method, methods_from
from .standard import HEALTH


class ServingStatus(enum.IntEnum):
    """What a health check answers; SERVICE_UNKNOWN is for watchers of a name that may yet come."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Health:
    """The statuses, and the three rpcs that tell them.  Use it from the Trio thread only.

    Args:
        services: full names of services that serve; the server itself, ``""``, always does.
    """

    def __init__(self, services: Iterable[str] = ()) -> None:
        self._statuses = dict.fromkeys(("", *services), ServingStatus.SERVING)
        self._draining = False
        self._changed = trio.lowlevel.ParkingLot()

    def set(self, service: str, status: ServingStatus) -> None:
        """Say how ``service`` is; its watchers are told.  During a drain it is noted, and told to nobody."""
        self._statuses[service] = status
        self._changed.unpark_all()

    def remove(self, service: str) -> None:
        """Forget ``service``: NOT_FOUND for who checks it, SERVICE_UNKNOWN for who watches it."""
        self._statuses.pop(service, None)
        self._changed.unpark_all()

    def drain(self) -> None:
        """From now on nothing serves, whatever is set: balancers stop sending before the server stops."""
        self._draining = True
        self._changed.unpark_all()

    def status(self, service: str) -> ServingStatus:
        """What a watcher of ``service`` would be told now."""
        status = self._statuses.get(service, ServingStatus.SERVICE_UNKNOWN)
        if self._draining and service in self._statuses:
            return ServingStatus.NOT_SERVING
        return status

    def methods(self) -> list[Method]:
        """The rpcs with their handlers, for a server to register."""
        handlers = {"Check": self.check, "List": self.list_all, "Watch": self.watch}
        return [evolve(method, handler=handlers[method.name]) for method in methods_from(HEALTH)]

    async def check(self, request: Any, context: Any) -> Any:
        """How one service is now.

        Raises:
            GRPCError: NOT_FOUND, for a service that nobody ever spoke of.
        """
        if request.service not in self._statuses:
            raise GRPCError(Status.NOT_FOUND, f"unknown service {request.service!r}")
        return HEALTH.HealthCheckResponse(status=self.status(request.service))

    async def list_all(self, request: Any, context: Any) -> Any:
        """How every service is now."""
        reply = HEALTH.HealthListResponse()
        for service in self._statuses:
            reply.statuses[service].status = self.status(service)
        return reply

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """How one service is, now and after every change, until the watcher leaves.

        A slow watcher misses what was true only while it was slow, never the latest.
        """
        told = None
        while True:
            status = self.status(request.service)
            if status is told:
                await self._changed.park()
            else:
                told = status
                yield HEALTH.HealthCheckResponse(status=status)
