r"""gRPC-Web: gRPC for browsers, whose trailers come as the last part of the body.

    | 0 | length | message |  ...  | 0x80 | length | grpc-status: 0\r\ngrpc-message: ...\r\n |

``application/grpc-web-text`` is the same in base64, each part by itself, so that a browser can read it as
it comes.  There is no streaming of requests: browsers cannot.

Source: PROTOCOL-WEB.md of the gRPC project.
Knows framing only; the call itself is `GrpcRequest`'s.
"""

import base64
import binascii
import struct

from grpclib.exceptions import GRPCError

from trio_serve.proxy.http_answer import HttpAnswer
from trio_serve.proxy.http_exchange import Receive
from trio_serve.proxy.http_grpc_call import Ending, GrpcRequest
from trio_serve.wire.grpc import (
    PREFIX_BYTES,
    MessageReader,
    Metadata,
    Status,
    decompressor,
    encode_metadata,
    frame_message,
    trailers,
)

TRAILERS = 0x80


async def answer(request: GrpcRequest, receive: Receive, answer: HttpAnswer) -> None:
    """Answer one gRPC-Web request; its status is in the body, so HTTP's is always 200."""
    text = b"-text" in request.content_type
    response = _Response(request.content_type, text, answer)
    try:
        message = await _message(request, receive, text)
        timeout_s = request.timeout_s()
    except GRPCError as error:
        await response.end((), request.failed(error.status, error.message or ""))
        return
    async with request.call(message, timeout_s) as replies:
        async for reply in replies:
            await response.start(request.initial_metadata)
            await response.send(frame_message(reply))
    assert request.ending is not None
    await response.end(request.initial_metadata, request.ending)


async def _message(request: GrpcRequest, receive: Receive, text: bool) -> bytes:
    """The one message of the request.

    Raises:
        GRPCError: there is none, or another number; it is too large; it cannot be read.
    """
    if request.method.cardinality.value.client_streaming:
        raise GRPCError(
            Status.UNIMPLEMENTED,
            f"{request.method.path} takes a stream of requests, which gRPC-Web does not have; use gRPC",
        )
    bytes_max = request.message_bytes_max + PREFIX_BYTES
    body = await request.read_body(receive, bytes_max * 4 // 3 + 4 if text else bytes_max)
    encoding = (request.header(b"grpc-encoding") or b"identity").decode("latin-1")
    try:
        decompress = decompressor(encoding)
    except ValueError as error:
        raise GRPCError(Status.UNIMPLEMENTED, str(error)) from None
    try:
        reader = MessageReader(request.message_bytes_max, decompress)
        messages = reader.receive(from_text(body) if text else body)
        reader.end()
    except ValueError as error:
        raise GRPCError(Status.INTERNAL, str(error)) from None
    if len(messages) != 1:
        raise GRPCError(
            Status.UNIMPLEMENTED, f"{request.method.path} takes one request message; {len(messages)} came"
        )
    return messages[0]


def from_text(body: bytes) -> bytes:
    """Decode base64 that may have been made in several parts, each padded.

    Raises:
        ValueError: it is none.
    """
    parts = body.replace(b"=", b" ").split()
    try:
        return b"".join(
            binascii.a2b_base64(part + b"=" * (-len(part) % 4), strict_mode=True) for part in parts
        )
    except binascii.Error as error:
        raise ValueError(f"the body of a grpc-web-text request is not base64: {error}") from None


class _Response:
    """The parts of one answer, in their order; each waits while the client takes no more."""

    def __init__(self, content_type: bytes, text: bool, answer: HttpAnswer) -> None:
        self._content_type = content_type
        self._text = text
        self._answer = answer

    async def start(self, initial_metadata: Metadata) -> None:
        if not self._answer.status:
            own = ((b"content-type", self._content_type),)
            await self._answer.send_head(200, [*own, *encode_metadata(initial_metadata)])

    async def send(self, part: bytes) -> None:
        await self._answer.send_part(base64.b64encode(part) if self._text else part)

    async def end(self, initial_metadata: Metadata, ending: Ending) -> None:
        await self.start(initial_metadata)
        fields = trailers(ending.status, ending.message, ending.metadata, ending.details)
        block = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        await self.send(struct.pack(">BI", TRAILERS, len(block)) + block)
        await self._answer.send_part(b"", more=False)
