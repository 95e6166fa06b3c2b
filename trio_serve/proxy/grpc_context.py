"""The gRPC context: what a deployment's method may ask and set about the call that it answers.

A method gets one when it has a parameter named ``grpc_context``.  What it sets (code, details, trailing
metadata) leaves with the answer; a call that fails with an exception keeps only the trailing metadata.

Source: Ray Serve's guide "Set Up a gRPC Service", section "Use gRPC context".  ``abort``,
``send_initial_metadata``, ``time_remaining`` and ``is_active`` are ours.
"""

from typing import NoReturn

import trio

from trio_serve.grpc.call import ServerCall
from trio_serve.grpc.context import CallContext
from trio_serve.wire.grpc import Metadata, MetadataLike, encode_metadata


class RayServegRPCContext(CallContext):
    """One call, seen from the method that answers it.

    Everything here may be used from async methods and from the threads of sync methods; nothing waits.
    """

    __slots__ = ("_application", "_loop", "_model_id", "_request_id")

    def __init__(
        self,
        call: ServerCall,
        application: str,
        request_id: str,
        model_id: str,
        loop: trio.lowlevel.TrioToken,
    ) -> None:
        super().__init__(call)
        self._application = application
        self._request_id = request_id
        self._model_id = model_id
        self._loop = loop

    def abort(self, code: object, details: str = "", trailing_metadata: MetadataLike = ()) -> NoReturn:
        """End the call here with ``code``: raises, so that the method goes no further.

        Raises:
            AbortError: always, where the arguments are good.
            TypeError, ValueError: ``code`` is no status or is OK, or metadata that cannot be sent.
        """
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        self._abort(code, details, ())

    def send_initial_metadata(self, initial_metadata: MetadataLike) -> None:
        """Send the response headers with these pairs now, ahead of the first message.

        Raises:
            ValueError, TypeError: metadata that cannot be sent.
        """
        pairs: Metadata = tuple(dict(initial_metadata).items())
        encode_metadata(pairs)
        if trio.lowlevel.in_trio_run():
            self._call.send_initial_metadata(pairs)
        else:
            self._loop.run_sync_soon(self._call.send_initial_metadata, pairs)

    def application(self) -> str:
        """The name of the application that answers."""
        return self._application

    def request_id(self) -> str:
        """The client's request id, or the one made for it."""
        return self._request_id

    def multiplexed_model_id(self) -> str:
        """The model id that the client asked for, or ''."""
        return self._model_id

    def traceparent(self) -> str | None:
        """The W3C trace context that the client sent, or None."""
        return next((str(value) for key, value in self._call.metadata if key == "traceparent"), None)
