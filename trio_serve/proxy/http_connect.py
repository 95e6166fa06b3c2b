"""Connect's unary protocol: a gRPC method as a plain POST, in JSON or protobuf.

    curl -H 'content-type: application/json' -d '{"name": "you"}' host/helloworld.Greeter/SayHello
    {"message":"Hello you"}

    an error      HTTP status by its code, {"code": "not_found", "message": "...", "details": [...]}
    metadata      headers; what follows the answer has the prefix ``Trailer-``
    deadline      Connect-Timeout-Ms, or grpc-timeout

Source: the Connect protocol, "Unary RPCs"; protobuf's JSON mapping.
Knows the form only; the call itself is `GrpcRequest`'s.
"""

import base64
import json
from typing import Any

from google.protobuf import json_format
from grpclib.exceptions import GRPCError

from trio_serve.grpc.rpc_error import packed_details
from trio_serve.proxy.http_answer import HttpAnswer
from trio_serve.proxy.http_exchange import Receive
from trio_serve.proxy.http_grpc_call import Ending, GrpcRequest
from trio_serve.wire.grpc import Metadata, Status, encode_metadata

JSON = b"application/json"

HTTP_STATUS = {
    Status.CANCELLED: 499,
    Status.UNKNOWN: 500,
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.ALREADY_EXISTS: 409,
    Status.PERMISSION_DENIED: 403,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.FAILED_PRECONDITION: 400,
    Status.ABORTED: 409,
    Status.OUT_OF_RANGE: 400,
    Status.UNIMPLEMENTED: 501,
    Status.INTERNAL: 500,
    Status.UNAVAILABLE: 503,
    Status.DATA_LOSS: 500,
    Status.UNAUTHENTICATED: 401,
}


async def answer(request: GrpcRequest, receive: Receive, answer: HttpAnswer) -> None:
    """Answer one unary Connect request."""
    try:
        message = await _message(request, receive)
        timeout_s = _timeout_s(request)
    except GRPCError as error:
        await _send_error(answer, (), request.failed(error.status, error.message or ""))
        return
    async with request.call(message, timeout_s) as coming:
        replies = [reply async for reply in coming]
    ending = request.ending
    assert ending is not None
    if ending.status is not Status.OK or not replies:
        await _send_error(answer, request.initial_metadata, ending)
        return
    body = replies[0]
    if request.content_type == JSON:
        body = _to_json(request.method.reply_type, body)
    headers = [(b"content-type", request.content_type), *_metadata(request.initial_metadata, ending)]
    await answer.send_body(200, headers, body)


async def _message(request: GrpcRequest, receive: Receive) -> bytes:
    """The request message as protobuf.

    Raises:
        GRPCError: it is too large, it cannot be read, or there can be none.
    """
    method = request.method
    kind = method.cardinality.value
    if kind.client_streaming or kind.server_streaming:
        raise GRPCError(
            Status.UNIMPLEMENTED, f"{method.path} streams; call it over gRPC-Web or gRPC, not with plain HTTP"
        )
    encoding = (request.header(b"content-encoding") or b"identity").decode("latin-1")
    if encoding != "identity":
        raise GRPCError(Status.UNIMPLEMENTED, f"content-encoding {encoding!r} is not taken; send identity")
    body = await request.read_body(receive, request.message_bytes_max)
    if request.content_type != JSON:
        return body
    return _from_json(method.request_type, body)


def _from_json(kind: Any, body: bytes) -> bytes:
    _check_kind(kind)
    name, pool = kind.DESCRIPTOR.full_name, kind.DESCRIPTOR.file.pool
    try:
        value = json.loads(body)
        if not isinstance(value, dict) and not name.startswith("google.protobuf."):
            raise ValueError("it is no object")  # ParseDict would read a text as its letters
        message = json_format.ParseDict(value, kind(), ignore_unknown_fields=True, descriptor_pool=pool)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        text = f"the request is no JSON for {name}: {error}"
        raise GRPCError(Status.INVALID_ARGUMENT, text) from None
    return bytes(message.SerializeToString())


def _to_json(kind: Any, body: bytes) -> bytes:
    pool = kind.DESCRIPTOR.file.pool
    value = json_format.MessageToDict(kind.FromString(body), descriptor_pool=pool)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _check_kind(kind: Any) -> None:
    if not hasattr(kind, "DESCRIPTOR"):
        raise GRPCError(
            Status.UNIMPLEMENTED, "this method has serializers of its own; send application/proto to it"
        )


def _timeout_s(request: GrpcRequest) -> float | None:
    value = request.header(b"connect-timeout-ms")
    if value is None:
        return request.timeout_s()
    if not value.isdigit() or len(value) > 10:
        text = f"Connect-Timeout-Ms: {value.decode('latin-1')!r} is no number of at most 10 digits"
        raise GRPCError(Status.INVALID_ARGUMENT, text)
    return int(value) / 1000


async def _send_error(answer: HttpAnswer, initial_metadata: Metadata, ending: Ending) -> None:
    """An error, whatever the request's form was, is JSON."""
    if ending.status is Status.OK:  # and no reply: the server broke its own promise
        ending = Ending(Status.INTERNAL, "the method ended without a reply", ending.metadata)
    name = "canceled" if ending.status is Status.CANCELLED else ending.status.name.lower()
    error: dict[str, Any] = {"code": name}
    if ending.message:
        error["message"] = ending.message
    details = [
        {"type": type_url.rpartition("/")[2], "value": base64.b64encode(value).rstrip(b"=").decode()}
        for type_url, value in packed_details(ending.details)
    ]
    if details:
        error["details"] = details
    headers = [(b"content-type", JSON), *_metadata(initial_metadata, ending)]
    body = json.dumps(error, ensure_ascii=False, separators=(",", ":")).encode()
    await answer.send_body(HTTP_STATUS[ending.status], headers, body)


def _metadata(initial: Metadata, ending: Ending) -> list[tuple[bytes, bytes]]:
    trailing = [(b"trailer-" + name, value) for name, value in encode_metadata(ending.metadata)]
    return [*encode_metadata(initial), *trailing]
