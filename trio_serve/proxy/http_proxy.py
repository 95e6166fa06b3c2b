"""The HTTP proxy: from a request to a deployment's mailbox, and its answer back.

    request --path--> application --> its ingress' mailbox --> replica: the method, then its result sent
       ^                                                                                          |
       +---------- what the connection's task waits for: the end, the deadline, the client -------+

The response leaves from within the call: iterating a streamed body, waiting for a slow client and being
cancelled are all part of it, and so are the calls that a body makes by handle.

Own paths: ``/-/routes`` and ``/-/healthz``.  Source: Ray Serve's documentation of its HTTP proxy.
Knows ASGI, and nothing of bytes and sockets.
"""

import functools
import json
import logging
from collections.abc import Mapping
from math import inf

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.websockets import WebSocket

from trio_serve.actors import ActorStopped, CallCancelled, DeadlinePassed, Envelope
from trio_serve.proxy import routes
from trio_serve.proxy.access_log import AccessLog
from trio_serve.proxy.http_answer import HttpAnswer
from trio_serve.proxy.http_counters import HttpCounters
from trio_serve.proxy.http_exchange import ClientGone, Receive, ResponseCut, Scope, Send
from trio_serve.proxy.http_grpc import GrpcOverHttp
from trio_serve.proxy.http_head import RequestHead, read_head
from trio_serve.proxy.http_response import send_response
from trio_serve.proxy.http_traffic import CopiedRequest, answering
from trio_serve.serving.controller import Controller
from trio_serve.serving.endpoint import Endpoint
from trio_serve.serving.errors import BackPressureError, DeploymentUnavailable, MethodNotFound
from trio_serve.serving.replies import UnaryReply
from trio_serve.serving.request_context import RequestContext
from trio_serve.serving.running_application import RunningApplication

logger = logging.getLogger("trio_serve.proxy")

DRAINING = "This node is being drained."
OWN_PATHS = ("/-/routes", "/-/healthz")
CLIENT_CLOSED_REQUEST = 499
"""Counted, never sent: nginx' number for a client that left."""


class HttpProxy:
    """An ASGI application that leads to the applications of ``controller``.

    Its task is to be cancelled when the client leaves: that cancels the call.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        root_path: str = "",
        request_timeout_s: float | None = None,
        grpc: GrpcOverHttp | None = None,
    ) -> None:
        self.draining = False
        self._grpc = grpc
        self.counters = HttpCounters()
        self.access_log = AccessLog(controller.applications)
        self._applications: Mapping[str, RunningApplication] = controller.applications
        self._endpoints: Mapping[str, Endpoint] = controller.endpoints
        self._root_path = root_path
        self._timeout_s = inf if request_timeout_s is None else request_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket to its end."""
        head = read_head(scope["headers"])
        answer = HttpAnswer(scope, send, head.request_id)
        path = self._below_root(scope["path"])
        translator = self._translator(scope, path)
        route = None if path is None else self._route_of(path)
        prefix, application = route or ("", "")
        if translator is not None:
            prefix, application = translator.label(path or ""), ""
        method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
        counters = self.counters.of(prefix, application, method)
        counters.ongoing += 1
        begun = trio.current_time()
        try:
            if path in OWN_PATHS:
                await self._answer_own(path, answer)
            elif translator is not None:
                await translator.answer(scope, path or "", receive, answer, head.request_id)
            elif route is None:
                wrong_type = self._grpc.wrong_type(scope, path or "") if self._grpc is not None else None
                if wrong_type is not None:
                    await answer.send_text(415, wrong_type)
                else:
                    await answer.send_text(404, _not_found(scope["path"]))
            elif head.problem:
                await answer.send_text(400, head.problem)
            else:
                await self._ask(route, scope, receive, answer, head)
        finally:
            counters.ongoing -= 1
            status, seconds = answer.status or CLIENT_CLOSED_REQUEST, trio.current_time() - begun
            counters.ended(status, seconds)
            if self.access_log.enabled and path not in OWN_PATHS:
                self.access_log.http(
                    method, scope["path"], status, seconds, application, prefix, head.request_id
                )

    def _translator(self, scope: Scope, path: str | None) -> GrpcOverHttp | None:
        grpc = self._grpc
        return grpc if grpc is not None and path is not None and grpc.takes(scope, path) else None

    def _below_root(self, path: str) -> str | None:
        """``path`` as routes know it; None where it does not lie below ``root_path``."""
        root = self._root_path
        if not root:
            return path
        return (path[len(root) :] or "/") if routes.lies_below(path, root) else None

    def _route_of(self, path: str) -> routes.Route | None:
        route = routes.match(path, self._applications)
        if not self._endpoints:
            return route
        other = routes.match(path, self._endpoints)
        return max(filter(None, (route, other)), key=lambda found: len(found.prefix), default=None)

    def _door_at(self, route: routes.Route) -> RunningApplication | Endpoint:
        """What lies at ``route``: an application and an endpoint may share a name, but never a prefix."""
        endpoint = self._endpoints.get(route.application)
        if endpoint is not None and endpoint.route_prefix == route.prefix:
            return endpoint
        return self._applications[route.application]

    async def _answer_own(self, path: str, answer: HttpAnswer) -> None:
        if self.draining:
            await answer.send_text(503, DRAINING)
        elif path == "/-/healthz":
            await answer.send_text(200, "success")
        else:
            table = routes.table([*self._applications.items(), *self._endpoints.items()])
            text = json.dumps(table, separators=(",", ":"))
            await answer.send_text(200, text, b"application/json")

    # Deployments.

    async def _ask(
        self, route: routes.Route, scope: Scope, receive: Receive, answer: HttpAnswer, head: RequestHead
    ) -> None:
        is_websocket = scope["type"] == "websocket"
        door = self._door_at(route)
        try:
            application = answering(scope, door)
        except HTTPException as refused:
            await answer.send_text(refused.status_code, refused.detail)
            return
        ingress = application.ingress
        if is_websocket and not getattr(ingress.spec.target, "__serve_asgi__", False):
            await answer.send_text(404, f"{route.application!r} takes no WebSockets; @ingress(app) does.")
            return
        timeout_s = inf if is_websocket else min(self._timeout_s, head.timeout_s)
        deadline = trio.current_time() + timeout_s
        context = RequestContext(
            head.request_id, application.name, head.multiplexed_model_id, deadline, route.prefix
        )
        prefix = "" if route.prefix == "/" else route.prefix
        scope = {**scope, "root_path": self._root_path + prefix}
        copied = None
        if door.traffic is not None and (shadows := door.traffic.shadow_targets()):
            copied = CopiedRequest(door.traffic, shadows, scope, receive, context)
            receive = copied.receive
        connection = WebSocket if is_websocket else Request
        reply = UnaryReply()
        try:
            envelope = ingress.call(
                "__call__",
                (connection(scope, receive, answer.send),),
                {},
                request=context,
                reply=reply,
                deadline=deadline,
                respond=functools.partial(send_response, scope, receive, answer.send),
            )
            if copied is not None:
                copied.begin()
            await _outcome(envelope, reply)
        except Exception as error:
            answer.take_over()
            if isinstance(error, DeadlinePassed) and trio.current_time() >= deadline:
                error = _TimedOut(head.request_id, timeout_s)
            await self._fail(scope, answer, head, error)
        finally:
            if copied is not None:
                copied.end()

    async def _fail(self, scope: Scope, answer: HttpAnswer, head: RequestHead, error: Exception) -> None:
        """Answer with the status that ``error`` means; where an answer has begun, cut it short."""
        if isinstance(error, ClientGone):
            return
        status, text = _status_of(error)
        if status == 501 and self._grpc is not None:
            text += " gRPC methods are called here by POST with 'content-type: application/json'."
        if status == 500:
            logger.error(
                "%s %r failed, request_id=%s",
                scope.get("method", "WEBSOCKET"),
                scope["path"],
                head.request_id,
                exc_info=error,
            )
        if answer.status:
            raise ResponseCut
        await answer.send_text(status, text)


async def _outcome(envelope: Envelope, reply: UnaryReply) -> None:
    """Wait for the end of the call; whoever waits no longer, by deadline or cancellation, takes it back.

    Raises:
        Exception: what the method raised, or sending its result.
        DeadlinePassed: at the deadline, also where the work cannot be interrupted.
    """
    ended = trio.Event()
    reply.listen(lambda _: ended.set())
    try:
        with trio.CancelScope(deadline=envelope.deadline) as patience:
            await ended.wait()
    except trio.Cancelled:
        envelope.cancel(CallCancelled("the client has gone"))
        raise
    if patience.cancelled_caught:
        envelope.cancel(DeadlinePassed("the deadline passed before the answer had left"))
    reply.unwrap()


class _TimedOut(Exception):
    def __init__(self, request_id: str, timeout_s: float) -> None:
        super().__init__(f"Request {request_id} timed out after {timeout_s}s.")


def _status_of(error: Exception) -> tuple[int, str]:
    """The status and the text for ``error``; of an error in the server's code, a client learns nothing."""
    if isinstance(error, _TimedOut):
        return 408, str(error)
    if isinstance(error, BackPressureError | DeploymentUnavailable):
        return 503, str(error)
    if isinstance(error, ActorStopped | CallCancelled):
        return 503, f"The request was cut off: {error}."
    if isinstance(error, MethodNotFound) and error.method == "__call__":
        return 501, f"Deployment {error.deployment!r} has no '__call__', which would answer over HTTP."
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    return 500, "Internal Server Error"


def _not_found(path: str) -> str:
    return f"Path {path!r} not found. Ping http://.../-/routes for available routes."
