"""A method, and what happens to its calls.

    register(method, dispatch) --> Registration <-- request_received: found by its path, once for each call

Knows nothing of connections.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from trio_serve.grpc.counters import MethodCounters
from trio_serve.wire.grpc import Metadata

if TYPE_CHECKING:
    from trio_serve.grpc.call import ServerCall
    from trio_serve.grpc.call_facts import CallFacts
    from trio_serve.grpc.methods import Method

Dispatch = Callable[["ServerCall"], None]
TrailingMetadata = Callable[["CallFacts"], Metadata]
OnEnd = Callable[["CallFacts", int, float], None]


class Registration:
    """A method and what happens to its calls: resolved once, so that a call looks nothing up.

    ``trailing_metadata(call)`` is what leaves with a status that the server itself decides: for a passed
    deadline, or a request that cannot be read.  ``on_end(call, status number, seconds)`` hears of every end.
    ``parses``: whether a unary request is parsed before it is dispatched.
    """

    __slots__ = (
        "counters",
        "deserialize",
        "dispatch",
        "message_bytes_max",
        "method",
        "on_end",
        "parses",
        "serialize",
        "streams_replies",
        "streams_requests",
        "trailing_metadata",
    )

    def __init__(
        self,
        method: "Method",
        dispatch: Dispatch,
        message_bytes_max: int,
        counters: MethodCounters,
        trailing_metadata: TrailingMetadata | None = None,
        on_end: OnEnd | None = None,
        parses: bool = True,
    ) -> None:
        self.method = method
        self.deserialize = method.deserialize
        self.serialize = method.serialize
        self.dispatch = dispatch
        self.trailing_metadata = trailing_metadata
        self.on_end = on_end
        self.parses = parses
        self.message_bytes_max = message_bytes_max
        self.counters = counters
        self.streams_requests: bool = method.cardinality.value.client_streaming
        self.streams_replies: bool = method.cardinality.value.server_streaming
