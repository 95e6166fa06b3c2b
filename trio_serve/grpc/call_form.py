"""What all calls of one method with the same options share: made once, and read by each of them.

    request --> frame() --> | prefix | bytes |  ... the wire ...  bytes --> read_reply() --> reply

Knows nothing of calls and channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from trio_serve.grpc.rpc_error import RpcError
from trio_serve.wire.grpc import Fields, Status, frame_message
from trio_serve.wire.grpc.compression import Compress

__all__ = ["CallForm"]


@attrs.frozen
class CallForm:
    """How the calls of one method are put on the wire.

    Args:
        path: the method, as ``/package.Service/Method``.
        prefix: the header fields that are the same each time.
        serialize, deserialize: of its messages; None where they are bytes already.
        compress: for each request, None for none.
        request_bytes_max: from the service config, if it has one.
        reply_bytes_max: the largest reply taken.
        wait_for_ready: wait out failures to connect.
    """

    path: str
    prefix: Fields
    serialize: Callable[[Any], bytes] | None
    deserialize: Callable[[bytes], Any] | None
    compress: Compress | None
    request_bytes_max: int | None
    reply_bytes_max: int
    wait_for_ready: bool

    def frame(self, request: Any) -> bytes:
        """``request`` as it goes over the wire.

        Raises:
            RpcError: RESOURCE_EXHAUSTED, when it is over the service config's limit.
            TypeError: it is nothing that the rpc's serializer takes.
        """
        try:
            payload = request if self.serialize is None else self.serialize(request)
        except TypeError as error:
            kind = type(request).__name__
            raise TypeError(f"{self.path} got a request of type {kind}, which is no message of it") from error
        limit = self.request_bytes_max
        if limit is not None and len(payload) > limit:
            raise RpcError(
                Status.RESOURCE_EXHAUSTED,
                f"request message of {len(payload)} bytes is over maxRequestMessageBytes={limit} "
                "(set in the service config)",
            )
        compress = self.compress
        return frame_message(payload) if compress is None else frame_message(compress(payload), True)

    def read_reply(self, payload: bytes) -> Any:
        """The reply in ``payload``.

        Raises:
            RpcError: INTERNAL, when the deserializer does not take it.
        """
        if self.deserialize is None:
            return payload
        try:
            return self.deserialize(payload)
        except Exception as error:
            text = f"reply message of {self.path} does not parse: {error}"
            raise RpcError(Status.INTERNAL, text) from error
