"""Shadow calls: copies of calls, made to see how another application fares with them.

    the call ──> its application ──> the client
       └─ copy ─> a shadow       ──> counted, and dropped

Nothing of a shadow reaches the call that it copies: no error, no wait, no cancellation either way.  Its work
has a budget of its own: so many copies at the same time, each with a time limit; what is beyond is dropped at
once and counted.

Knows nothing of how a call came in; everything here belongs to the Trio thread.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from trio_serve.serving.request_context import RequestContext

if TYPE_CHECKING:
    from trio_serve.serving.deployment_state import DeploymentState

_log = logging.getLogger("trio_serve.serving")

SHADOW_TIMEOUT_S = 60.0
"""Seconds after which a copy is cancelled, in the queue or at work."""


class ShadowCalls:
    """The copies that one split sends, and what became of them.

    ``sent`` were begun; of these ``succeeded`` and ``failed`` have ended, and ``ongoing`` have not.
    ``dropped`` never began: the budget was used up, or the call could not be copied.
    """

    __slots__ = ("dropped", "failed", "ongoing", "sent", "succeeded")

    def __init__(self) -> None:
        self.ongoing = 0
        self.sent = 0
        self.succeeded = 0
        self.failed = 0
        self.dropped = 0

    def send(
        self,
        ingress: "DeploymentState",
        method: str,
        copy: Callable[[], tuple[Any, ...]],
        request: RequestContext,
        most: int,
        *,
        stream: bool = False,
        respond: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        """Call ``method`` with what ``copy()`` returns, unless ``most`` are under way; never raises.

        ``request`` is the copy's own; its deadline is set here.
        """
        if self.ongoing >= most:
            self.dropped += 1
            return
        try:
            args = copy()
        except Exception:
            self.dropped += 1
            _log.debug("a call to %s could not be copied", ingress.name, exc_info=True)
            return
        self.sent += 1
        self.ongoing += 1
        request.deadline = trio.current_time() + SHADOW_TIMEOUT_S
        reply = _Dropped(self, ingress.name)
        try:
            ingress.call(
                method,
                args,
                {},
                request=request,
                reply=reply,
                deadline=request.deadline,
                stream=stream,
                respond=respond,
            )
        except Exception as error:  # it was refused, and the reply hears nothing
            reply.fail(error)


class _Dropped:
    """Where the answer of a copy ends."""

    __slots__ = ("_calls", "_deployment")

    def __init__(self, calls: ShadowCalls, deployment: str) -> None:
        self._calls = calls
        self._deployment = deployment

    def succeed(self, value: Any, /) -> None:
        self._calls.ongoing -= 1
        self._calls.succeeded += 1

    def fail(self, error: BaseException, /) -> None:
        self._calls.ongoing -= 1
        self._calls.failed += 1
        _log.debug("a shadow call to %s failed", self._deployment, exc_info=error)

    async def send(self, item: Any, /) -> None:
        await trio.lowlevel.checkpoint()
