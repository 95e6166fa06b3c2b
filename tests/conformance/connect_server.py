"""Our server for Connect's conformance suite: reads what to be from stdin, says where on stdout.

Source: the comments of the suite's service.proto say what each method must do.
"""

import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from google.protobuf import any_pb2
from grpclib.const import Cardinality, Status

from tests.conformance import connect_protocol as protocol
from trio_serve.grpc import CallEnded, Method, Server, ServerCall
from trio_serve.grpc.inbox import EndOfStream
from trio_serve.grpc.rpc_error import pack_details
from trio_serve.proxy.http_grpc import GrpcOverHttp
from trio_serve.proxy.http_proxy import HttpProxy
from trio_serve.proxy.http_server import HttpServer
from trio_serve.serving.controller import open_controller
from trio_serve.transport.listener import open_listeners, server_tls

Payload = protocol.message("ConformancePayload")
GRPC_WEB = 3
"""The suite's PROTOCOL_GRPC_WEB."""


def request_info(call: ServerCall, requests: list[any_pb2.Any]) -> Any:
    info = Payload.RequestInfo(request_headers=protocol.headers(call.metadata), requests=requests)
    left = call.time_remaining()
    if left is not None:
        info.timeout_ms = int(1000 * left)
    return info


def fail(call: ServerCall, error: Any, trailing: protocol.HeaderPairs, info: Any | None) -> None:
    """End the call with the error that was asked for; ``info`` goes into its details."""
    status = Status(error.code)
    details = [protocol.unpacked(detail) for detail in error.details]
    details += [info] if info is not None else []
    rich = pack_details(status, error.message, details) if details else b""
    call.finish(status, error.message, tuple(trailing), rich)


async def answer_unary(call: ServerCall) -> None:
    """Unary, ClientStream and IdempotentUnary: gather the requests, and do as the first one says."""
    requests: list[any_pb2.Any] = []
    definition = None
    while True:
        try:
            request = await call.receive_message()
        except EndOfStream:
            break
        if not requests and request.HasField("response_definition"):
            definition = request.response_definition
        requests.append(protocol.packed(request))
    info = request_info(call, requests)
    reply = call.method.reply_type
    assert reply is not None
    if definition is None:
        call.reply(reply(payload=Payload(request_info=info)))
        return
    call.send_initial_metadata(tuple(protocol.metadata(definition.response_headers)))
    await trio.sleep(definition.response_delay_ms / 1000)
    trailing = protocol.metadata(definition.response_trailers)
    if definition.HasField("error"):
        fail(call, definition.error, trailing, info)
    else:
        payload = Payload(request_info=info, data=definition.response_data)
        call.reply(reply(payload=payload), trailing_metadata=tuple(trailing))


async def answer_stream(call: ServerCall) -> None:
    """ServerStream and BidiStream, half or full duplex: one reply for each request, then what is left."""
    replying = Replying(call)
    requests: list[any_pb2.Any] = []
    first = None
    while True:
        try:
            request = await call.receive_message()
        except EndOfStream:
            break
        requests.append(protocol.packed(request))
        if first is None:
            first = request
            replying.define(request)
        if getattr(first, "full_duplex", False):
            if not replying.left:
                break
            await replying.send(requests)
            requests = []
    while replying.left:
        await replying.send(requests)
        requests = []
    replying.end(requests)


class Replying:
    """The replies that the first request asked for."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._definition: Any = None
        self._sent = 0

    @property
    def left(self) -> int:
        return len(self._definition.response_data) - self._sent if self._definition is not None else 0

    def define(self, first: Any) -> None:
        if first.HasField("response_definition"):
            self._definition = first.response_definition
            self._call.send_initial_metadata(tuple(protocol.metadata(self._definition.response_headers)))

    async def send(self, requests: list[any_pb2.Any]) -> None:
        """The next reply; the first tells all about the call, later ones only the requests since."""
        await trio.sleep(self._definition.response_delay_ms / 1000)
        payload = Payload(data=self._definition.response_data[self._sent])
        if self._sent == 0:
            payload.request_info.CopyFrom(request_info(self._call, requests))
        elif requests:
            payload.request_info.requests.extend(requests)
        self._sent += 1
        reply = self._call.method.reply_type
        assert reply is not None
        await self._call.send_message(reply(payload=payload))

    def end(self, requests: list[any_pb2.Any]) -> None:
        definition = self._definition
        trailing = protocol.metadata(definition.response_trailers) if definition is not None else []
        if definition is not None and definition.HasField("error"):
            info = None if self._sent else request_info(self._call, requests)
            fail(self._call, definition.error, trailing, info)
        else:
            self._call.finish(trailing_metadata=tuple(trailing))


CARDINALITIES = {tuple(cardinality.value): cardinality for cardinality in Cardinality}

ANSWERS = {
    "Unary": answer_unary,
    "IdempotentUnary": answer_unary,
    "ClientStream": answer_unary,
    "ServerStream": answer_stream,
    "BidiStream": answer_stream,
}


def methods() -> list[tuple[Method, Any]]:
    found = []
    for name, answer in ANSWERS.items():
        descriptor = protocol.method(name)
        request = protocol.message(descriptor.input_type.name)
        reply = protocol.message(descriptor.output_type.name)
        cardinality = CARDINALITIES[descriptor.client_streaming, descriptor.server_streaming]
        method = Method(
            path=f"/{protocol.SERVICE}/{name}",
            service=protocol.SERVICE,
            name=name,
            cardinality=cardinality,
            request_type=request,
            reply_type=reply,
            deserialize=request.FromString,
            serialize=reply.SerializeToString,
            handler=None,
        )
        found.append((method, answer))
    return found


async def run_until_over(answer: Any, call: ServerCall) -> None:
    with trio.CancelScope() as scope:
        call.on_cancel = lambda _reason: scope.cancel()
        try:
            await answer(call)
        except CallEnded:
            return  # the peer cancelled, or the deadline passed
        except Exception as error:
            if not call.over:
                call.finish(getattr(error, "status", Status.INTERNAL), str(error))


def tls_of(wanted: Any, directory: Path) -> ssl.SSLContext:
    certificate, key, client_ca = directory / "certificate", directory / "key", directory / "client-ca"
    certificate.write_bytes(wanted.server_creds.cert)
    key.write_bytes(wanted.server_creds.key)
    client_ca.write_bytes(wanted.client_tls_cert)
    return server_tls(str(certificate), str(key), str(client_ca) if wanted.client_tls_cert else None)


@asynccontextmanager
async def over_http(server: Server, nursery: trio.Nursery) -> AsyncIterator[int]:
    """The HTTP port beside ``server``, where gRPC-Web is spoken; its port."""
    await nursery.start(lambda task_status: server.serve_listeners(task_status=task_status))
    translator = GrpcOverHttp(server)
    await nursery.start(translator.run)
    async with open_controller() as controller:
        http = HttpServer(HttpProxy(controller, grpc=translator))
        listeners = await open_listeners("127.0.0.1", 0)
        yield await nursery.start(
            lambda task_status: http.serve_listeners(listeners, task_status=task_status)
        )


@asynccontextmanager
async def over_http2(server: Server, tls: ssl.SSLContext | None, nursery: trio.Nursery) -> AsyncIterator[int]:
    yield await nursery.start(
        lambda task_status: server.serve("127.0.0.1", 0, tls=tls, task_status=task_status)
    )


async def main() -> None:
    wanted = protocol.read(protocol.message("ServerCompatRequest"))
    assert wanted is not None
    limit = {"message_bytes_max": wanted.message_receive_limit} if wanted.message_receive_limit else {}
    server = Server(**limit)
    with tempfile.TemporaryDirectory() as directory:
        tls = tls_of(wanted, Path(directory)) if wanted.use_tls else None
        async with trio.open_nursery() as nursery:

            def dispatch_to(answer: Any) -> Callable[[ServerCall], None]:
                return lambda call: nursery.start_soon(run_until_over, answer, call)

            for method, answer in methods():
                server.register(method, dispatch_to(answer))
            web = wanted.protocol == GRPC_WEB
            async with over_http(server, nursery) if web else over_http2(server, tls, nursery) as port:
                where = protocol.message("ServerCompatResponse")(host="127.0.0.1", port=port)
                where.pem_cert = wanted.server_creds.cert if wanted.use_tls else b""
                protocol.write(where)
                await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
