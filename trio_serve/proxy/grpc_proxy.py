"""The gRPC proxy: from a call on the wire to a deployment's mailbox, in the reader's own turn.

    ServerCall --metadata--> application --rpc name--> its ingress' mailbox
         ^                                                     |
         +------------------- GrpcReply <----------------------+

Which application answers is decided by the metadata key ``application``; where it is missing and there is
one application only, by that; where it has a traffic policy, that decides who answers in its place.
``request_id`` is echoed or made; ``multiplexed_model_id`` rides along.

Nothing here waits and no task is started: the call's deadline, cancellation and backpressure are those of
the envelope.  Source: Ray Serve's guide "Set Up a gRPC Service".
"""

import math
from collections.abc import Iterable
from typing import Any

import trio

from trio_serve.grpc.call import ServerCall
from trio_serve.grpc.call_facts import CallFacts
from trio_serve.grpc.methods import Method, methods_of_service
from trio_serve.grpc.server import Server
from trio_serve.grpc.standard import SERVE_API
from trio_serve.proxy.access_log import AccessLog
from trio_serve.proxy.counters import OTHER, ProxyCounters
from trio_serve.proxy.grpc_context import RayServegRPCContext
from trio_serve.proxy.grpc_reply import GrpcReply
from trio_serve.proxy.grpc_traffic import chosen_for, send_copies
from trio_serve.proxy.request_stream import gRPCInputStream
from trio_serve.serving.controller import Controller
from trio_serve.serving.deployment_state import DeploymentState
from trio_serve.serving.errors import ServeError
from trio_serve.serving.request_context import RequestContext
from trio_serve.serving.request_ids import new_request_id
from trio_serve.wire.grpc import Metadata, RequestHead, Status

_PING = "Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
DRAINING = "This node is being drained."
_NO_KWARGS: dict[str, Any] = {}


class GrpcProxy:
    """Serves ``methods`` on ``server`` with the applications of ``controller``."""

    def __init__(
        self,
        server: Server,
        controller: Controller,
        methods: Iterable[Method],
        *,
        expose_tracebacks: bool = True,
    ) -> None:
        self.server = server
        self.draining = False
        self.counters = ProxyCounters()
        self.access_log = AccessLog(controller.applications)
        self._applications = controller.applications
        self._expose_tracebacks = expose_tracebacks
        self._loop = trio.lowlevel.current_trio_token()
        for method in methods:
            server.register(method, self._dispatch, _request_id_metadata, self._ended, parses=False)
        server.on_refusal = self._refused
        api = {"ListApplications": self._list_applications, "Healthz": self._healthz}
        for service in SERVE_API.services:
            for method in methods_of_service(service):
                server.register(method, api[method.name], _request_id_metadata)

    async def drain(self, timeout_s: float = math.inf) -> None:
        """Refuse health checks, take no new connections, and wait for the calls in flight.

        Those that still run after ``timeout_s`` seconds are ended with UNAVAILABLE.
        """
        self.draining = True
        await self.server.drain(timeout_s)

    # Deployments' methods.

    def _dispatch(self, call: ServerCall) -> None:
        application = request_id = model_id = ""
        head = call.head
        for name, value in head.extra:
            if name == b"application":
                application = value.decode()
            elif name == b"request_id":
                request_id = value.decode()
            elif name == b"multiplexed_model_id":
                model_id = value.decode()
        applications = self._applications
        if not application and len(applications) == 1:
            (application,) = applications
        reply = GrpcReply(call, request_id or new_request_id(), self._expose_tracebacks, application)
        call.context = reply
        record = applications.get(application)
        if record is None:
            call.finish(Status.NOT_FOUND, _not_found(application), reply.trailing_metadata())
            return
        path = head.path
        reply.counters = self.counters.of(path, application, path)
        split = record.traffic
        if split is not None:
            record = chosen_for(call, split) or record
        refusal = record.ingress.refusal(call.deadline, call.connection.last_read)
        if refusal is not None:
            reply.refuse(refusal)
            return
        request = RequestContext(reply.request_id, record.name, model_id, call.deadline, path)
        try:
            self._send(call, record.ingress, request, reply)
        except ServeError as error:
            reply.fail(error)
        if split is not None:
            send_copies(call, split, request, self._loop)

    def _send(
        self, call: ServerCall, ingress: DeploymentState, request: RequestContext, reply: GrpcReply
    ) -> None:
        rpc = call.registration
        name = rpc.method.name
        method = ingress.spec.methods.get(name)
        if method is None or method.takes_grpc_context:
            reply.context = request.grpc_context = RayServegRPCContext(
                call, request.application, request.request_id, request.multiplexed_model_id, self._loop
            )
        message = gRPCInputStream(call, self._loop) if rpc.streams_requests else call.parse_request()
        # By position: with names, the interpreter cannot step straight into the function.
        reply.envelope = envelope = ingress.call(
            name, (message,), _NO_KWARGS, request, reply, call.deadline, rpc.streams_replies
        )
        envelope.watched = True  # by the server, which calls this at the deadline, too
        call.on_cancel = reply

    # What is counted and logged of each call.

    def _ended(self, call: CallFacts, status: int, seconds: float) -> None:
        reply: GrpcReply | None = call.context
        counters = None if reply is None else reply.counters
        if counters is None:  # it never found an application, whose name then is anybody's invention
            path = call.method.path
            counters = self.counters.of(path, OTHER, path)
        counters.ended(status, seconds)
        if self.access_log.enabled:
            application, request_id = ("", "") if reply is None else (reply.application, reply.request_id)
            self.access_log.grpc(call.path, application, Status(status).name, seconds, request_id)

    def _refused(self, head: RequestHead, status: Status) -> None:
        """A call of a method that nobody registered."""
        self.counters.of(OTHER, OTHER, OTHER).ended(status.value, 0.0)
        if self.access_log.enabled:
            self.access_log.grpc(head.path, "", status.name, 0.0, _given_request_id(head.metadata))

    # The proxy's own service, /ray.serve.RayServeAPIService.

    def _list_applications(self, call: ServerCall) -> None:
        if self._refuse_while_draining(call):
            return
        names = list(self._applications)
        call.reply(SERVE_API.ListApplicationsResponse(application_names=names))

    def _healthz(self, call: ServerCall) -> None:
        if not self._refuse_while_draining(call):
            call.reply(SERVE_API.HealthzResponse(message="success"))

    def _refuse_while_draining(self, call: ServerCall) -> bool:
        if self.draining:
            call.finish(Status.UNAVAILABLE, DRAINING)
        return self.draining


def _not_found(application: str) -> str:
    if application:
        return f"Application {application!r} not found. {_PING}"
    return f"Application metadata not set. {_PING}"


def _request_id_metadata(call: CallFacts) -> Metadata:
    """The trailing metadata of a call that the server answers itself, before or instead of a deployment."""
    reply: GrpcReply | None = call.context
    if reply is not None:
        return reply.trailing_metadata()
    return (("request_id", _given_request_id(call.metadata) or new_request_id()),)


def _given_request_id(metadata: Metadata) -> str:
    return next((str(value) for key, value in metadata if key == "request_id"), "")
