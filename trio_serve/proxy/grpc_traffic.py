"""Traffic policy over gRPC: the key that a call is sticky by, and the copies of calls for shadows.

A call with one request message can be copied: each shadow gets a message of its own, and a context that looks
like the call and reaches nothing of it.  A stream of requests is not copied, and counts as dropped.
"""

import copy
from typing import Any, cast

import trio

from trio_serve.grpc.call import ServerCall
from trio_serve.proxy.grpc_context import RayServegRPCContext
from trio_serve.serving.request_context import RequestContext
from trio_serve.serving.running_application import RunningApplication
from trio_serve.serving.traffic_split import TrafficSplit
from trio_serve.wire.grpc import Metadata


def chosen_for(call: ServerCall, split: TrafficSplit) -> RunningApplication | None:
    """The application that answers ``call``."""
    sticky = split.policy.sticky
    if sticky is None:
        return split.choose()
    return split.choose(next((_text(value) for key, value in call.metadata if key == sticky), None))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def send_copies(
    call: ServerCall, split: TrafficSplit, request: RequestContext, loop: trio.lowlevel.TrioToken
) -> None:
    """Send the shadows of ``split`` a copy of ``call``, whose own work ``request`` is about; never raises."""
    rpc = call.method
    for target in split.shadow_targets():
        if rpc.cardinality.value.client_streaming:
            split.shadows.dropped += 1
            continue
        context = None
        method = target.ingress.spec.methods.get(rpc.name)
        if method is None or method.takes_grpc_context:
            looks_like = cast(ServerCall, _CopiedCall(call))
            context = RayServegRPCContext(
                looks_like, target.name, request.request_id, request.multiplexed_model_id, loop
            )
        split.shadow(
            target,
            rpc.name,
            lambda: (copy.deepcopy(call.request),),
            request,
            grpc_context=context,
            stream=rpc.cardinality.value.server_streaming,
        )


class _CopiedCall:
    """What a shadow's context may look at; what it sets goes nowhere."""

    __slots__ = ("_identity", "metadata", "over", "path", "peer")

    def __init__(self, call: ServerCall) -> None:
        self.metadata: Metadata = call.metadata
        self.path = call.path
        self.peer = call.peer
        self.over = False
        self._identity = call.auth_context

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._identity()

    def time_remaining(self) -> None:
        """A copy has a time limit of its own, which is none of the client's."""

    def set_compression(self, compression: Any) -> None:
        pass

    def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        pass
