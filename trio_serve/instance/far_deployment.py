"""A deployment in another process, as handles in this one see it: an envelope in, a call over a channel out.

    handle ──envelope──> FarDeployment ──gRPC over the owner's Unix socket──> the instance ──> the deployment
                                       <── the answer, or item for item ──

Cancelling the envelope resets the call, and that cancels the work.  The deadline goes with it.  Of a stream,
as much is on its way as the windows of HTTP/2 allow.

Knows nothing of who makes calls.
"""

import pickle
from collections.abc import Callable
from contextvars import Context
from math import inf
from typing import Any, Protocol

import attrs
import outcome
import trio

from trio_serve.actors import DeadlinePassed, Envelope, Reply
from trio_serve.grpc import Channel, RpcError
from trio_serve.instance.parcels import fitting, pack, unpack_outcome
from trio_serve.serving.calls import Call
from trio_serve.serving.handle import DeploymentHandle
from trio_serve.serving.request_context import RequestContext
from trio_serve.serving.responses import InstanceEnded

CALL = "/trio_serve.Code/Call"
STREAM = "/trio_serve.Code/Stream"
ASK = "/trio_serve.Code/Ask"


Address = tuple[type, dict[str, Any]]
"""A kind of handle, and what makes one: ``kind(directory, **rest)``."""


@attrs.frozen
class FarCall:
    """Which handle is called, over there, and for which request; ``parcel`` has the arguments."""

    to: Address
    request_id: str
    parcel: bytes


class Far(Protocol):
    """What a far deployment needs of the connection to its instance."""

    channel: Channel
    nursery: trio.Nursery

    def handle_to(self, kind: type, address: dict[str, Any]) -> Any:
        """A handle to something over there."""

    def error_of(self, error: RpcError) -> Exception:
        """What ``error`` means to who has made the call."""


class FarDeployment:
    """Where the calls of some handles go; ``address_of`` says to whom, over there, each of them is."""

    def __init__(self, far: Far, address_of: Callable[[Call], Address]) -> None:
        self.gone = False
        self.by_handles = 0
        self._far = far
        self._address_of = address_of

    def prepare(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        request: RequestContext,
        reply: Reply,
        deadline: float,
        stream: bool,
        parent: Envelope | None,
        context: Context,
    ) -> Envelope:
        """Make the envelope of a call, to be placed later; whether there is such a method is seen there."""
        return Envelope(Call(method, args, kwargs, request, stream), reply, context, deadline, parent)

    def place(self, envelope: Envelope) -> None:
        """Send it on its way."""
        self._far.nursery.start_soon(self._carry, envelope)

    async def _carry(self, envelope: Envelope) -> None:
        try:
            with trio.CancelScope() as scope:
                if not envelope.start(scope):
                    return
                try:
                    await self._send(envelope)
                except RpcError as error:
                    envelope.fail(self._far.error_of(error))
                except Exception as error:
                    envelope.fail(error)
            if not envelope.answered:
                envelope.cancel(DeadlinePassed("the deadline passed before the answer came"))
        finally:
            envelope.stop()
            envelope.fail(InstanceEnded())  # the connection was closed
            envelope.release()

    async def _send(self, envelope: Envelope) -> None:
        """Make the call, and answer the envelope with what comes of it.

        Raises:
            RpcError: it did not come so far.
            CannotCross: an argument cannot be sent.
            Exception: what a stream ended with.
        """
        call: Call = envelope.message
        far = self._far
        parcel = pack((call.args, call.kwargs))
        request = pickle.dumps(FarCall(self._address_of(call), call.request.request_id, parcel))
        timeout = None if envelope.deadline == inf else envelope.deadline - trio.current_time()
        if not call.stream:
            reply = await far.channel.unary_unary(CALL)(fitting(request), timeout)
            result = unpack_outcome(reply, far.handle_to)
            if isinstance(result, outcome.Error):
                envelope.fail(result.error)
            else:
                envelope.succeed(result.unwrap())
            return
        async with far.channel.unary_stream(STREAM)(fitting(request), timeout) as replies:
            async for each in replies:
                await envelope.reply.send(unpack_outcome(each, far.handle_to).unwrap())
        envelope.succeed(None)


def deployment_address(app_name: str, deployment_name: str) -> Callable[[Call], Address]:
    """To whom the calls of a `DeploymentHandle` are."""

    def address_of(call: Call) -> Address:
        return DeploymentHandle, {
            "app_name": app_name,
            "deployment_name": deployment_name,
            "method": call.method,
            "model_id": call.request.multiplexed_model_id,
            "stream": call.stream,
        }

    return address_of
