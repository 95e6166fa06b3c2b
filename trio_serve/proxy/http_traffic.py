"""Traffic policy over HTTP: the header that a request is sticky by, and the copies of requests for shadows.

    client ── body ──> the application that answers
                │ kept as it reads, up to a limit
                └──> shadows, once it has read all of it

The body is copied as the answering application reads it, so nothing waits for a shadow.  A body that is not
read to its end, or is longer than ``SHADOW_BODY_BYTES_MAX``, is not copied, and counts as dropped; so does a
WebSocket.
"""

import functools
from collections.abc import Iterable

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request

from trio_serve.proxy.http_exchange import Message, Receive, Scope
from trio_serve.proxy.http_response import send_response
from trio_serve.serving.endpoint import Endpoint
from trio_serve.serving.request_context import RequestContext
from trio_serve.serving.running_application import RunningApplication
from trio_serve.serving.traffic_split import TrafficSplit

SHADOW_BODY_BYTES_MAX = 1 << 20


def answering(scope: Scope, door: RunningApplication | Endpoint) -> RunningApplication:
    """The application that answers a request to ``door``.

    Raises:
        HTTPException: an endpoint that does not take the method, or has no backend left.
    """
    if isinstance(door, RunningApplication):
        return door if door.traffic is None else _chosen_for(scope, door.traffic) or door
    if scope["type"] == "http" and scope["method"] not in door.methods:
        raise HTTPException(405, f"{door.route_prefix!r} takes {', '.join(door.methods)} only.")
    chosen = _chosen_for(scope, door.traffic)
    if chosen is None:
        raise HTTPException(503, f"Endpoint {door.name!r} has no backend left.")
    return chosen


def _chosen_for(scope: Scope, split: TrafficSplit) -> RunningApplication | None:
    sticky = split.policy.sticky
    if sticky is None:
        return split.choose()
    name = sticky.encode()
    value = next((value for key, value in scope["headers"] if key == name), None)
    return split.choose(None if value is None else value.decode("latin-1"))


class CopiedRequest:
    """A request on its way, of which shadows are to get copies; the answer's ``receive`` is this one's."""

    __slots__ = ("_body", "_context", "_receive", "_scope", "_split", "_targets")

    def __init__(
        self,
        split: TrafficSplit,
        targets: Iterable[RunningApplication],
        scope: Scope,
        receive: Receive,
        context: RequestContext,
    ) -> None:
        self._split = split
        self._targets = list(targets)
        self._scope = scope
        self._receive = receive
        self._context = context
        self._body = b""

    async def receive(self) -> Message:
        """The next message for the application that answers."""
        message = await self._receive()
        if self._targets and message["type"] == "http.request":
            self._body += message.get("body", b"")
            if len(self._body) > SHADOW_BODY_BYTES_MAX:
                self.end()
            elif not message.get("more_body", False):
                self._send()
        return message

    def begin(self) -> None:
        """The request is on its way; one without a body can be copied at once."""
        if self._scope["type"] != "http":
            self.end()
        elif not _has_body(self._scope):
            self._send()

    def end(self) -> None:
        """The request has been answered, or there is too much of it."""
        self._split.shadows.dropped += len(self._targets)
        self._targets.clear()
        self._body = b""

    def _send(self) -> None:
        targets, self._targets = self._targets, []
        for target in targets:
            scope = {**self._scope, "state": dict(self._scope.get("state", {}))}
            receive = _body_once(self._body)
            self._split.shadow(
                target,
                "__call__",
                functools.partial(_arguments, scope, receive),
                self._context,
                respond=functools.partial(send_response, scope, receive, _drop),
            )
        self._body = b""


def _arguments(scope: Scope, receive: Receive) -> tuple[Request]:
    return (Request(scope, receive, _drop),)


def _has_body(scope: Scope) -> bool:
    return any(
        key == b"transfer-encoding" or (key == b"content-length" and value.strip() != b"0")
        for key, value in scope["headers"]
    )


def _body_once(body: bytes) -> Receive:
    """A client that sends ``body`` and then stays to the end."""
    parts = [body]

    async def receive() -> Message:
        if not parts:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": parts.pop(), "more_body": False}

    return receive


async def _drop(message: Message) -> None:
    await trio.lowlevel.checkpoint()
