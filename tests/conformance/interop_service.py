"""The service that gRPC's interoperability tests call, for any server with grpc.aio's interface.

Ours has it, so the same handlers run on both, and the same tests say whether both mean the same.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from tests.conformance import schema
from tests.conformance.schema import Empty, InputResponse, OutputResponse, SimpleResponse

INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


class TestService:
    """``sleep(seconds)`` is the event loop's."""

    __test__ = False  # pytest: its name is gRPC's

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep = sleep

    async def EmptyCall(self, request: Any, context: Any) -> Any:
        await self._echo_metadata(context)
        return Empty()

    async def UnaryCall(self, request: Any, context: Any) -> Any:
        await self._echo_metadata(context)
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        self._echo_status(request, context)
        return SimpleResponse(payload={"body": bytes(request.response_size)})

    async def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if any(parameters.compressed.value for parameters in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        async for response in self._responses(request):
            yield response

    async def StreamingInputCall(self, requests: Any, context: Any) -> Any:
        size = 0
        async for request in requests:
            size += len(request.payload.body)
        return InputResponse(aggregated_payload_size=size)

    async def FullDuplexCall(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        await self._echo_metadata(context)
        async for request in requests:
            if request.HasField("response_status"):
                self._echo_status(request, context)
                return
            async for response in self._responses(request):
                yield response

    async def HalfDuplexCall(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        for request in [request async for request in requests]:
            async for response in self._responses(request):
                yield response

    async def _responses(self, request: Any) -> AsyncIterator[Any]:
        for parameters in request.response_parameters:
            if parameters.interval_us:
                await self._sleep(parameters.interval_us / 1e6)
            yield OutputResponse(payload={"body": bytes(parameters.size)})

    async def _echo_metadata(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        if INITIAL in metadata:
            await context.send_initial_metadata(((INITIAL, metadata[INITIAL]),))
        if TRAILING in metadata:
            context.set_trailing_metadata(((TRAILING, metadata[TRAILING]),))

    def _echo_status(self, request: Any, context: Any) -> None:
        if request.HasField("response_status"):
            context.set_code(_STATUS_BY_NUMBER[request.response_status.code])
            context.set_details(request.response_status.message)


_STATUS_BY_NUMBER = {status.value[0]: status for status in grpc.StatusCode}

_KINDS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def add_to_server(service: TestService, server: Any) -> None:
    """Register the service as grpcio's generated code would."""
    handlers = {}
    for name in vars(TestService):
        if name.endswith("Call"):
            method = schema.method(name)
            kind = _KINDS[tuple(method.cardinality.value)]
            handlers[name] = kind(getattr(service, name), method.deserialize, method.serialize)
    generic = grpc.method_handlers_generic_handler("grpc.testing.TestService", handlers)
    server.add_generic_rpc_handlers((generic,))
