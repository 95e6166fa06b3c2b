"""Our client for Connect's conformance suite: makes the calls that it reads from stdin.

Source: the comments of the suite's client_compat.proto say what each field asks for.
"""

import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from tests.conformance import connect_protocol as protocol
from trio_serve.grpc import RpcError
from trio_serve.grpc.channel import open_channel

COMPRESSIONS = {0: None, 1: None, 2: "gzip", 5: "deflate"}
FULL_DUPLEX = 5
AT_ONCE = 8

Request = protocol.message("ClientCompatRequest")
Response = protocol.message("ClientCompatResponse")
Result = protocol.message("ClientResponseResult")


class Asked:
    """One call that the suite asks for, and what is seen of it."""

    def __init__(self, channel: Any, wanted: Any) -> None:
        descriptor = protocol.method(wanted.method)
        streams = ("unary", "stream")
        kind = f"{streams[descriptor.client_streaming]}_{streams[descriptor.server_streaming]}"
        self._wanted = wanted
        self._requests = [protocol.unpacked(request) for request in wanted.request_messages]
        self._stub = getattr(channel, kind)(
            f"/{wanted.service}/{wanted.method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=protocol.message(descriptor.output_type.name).FromString,
        )
        self._options = {
            "metadata": tuple(protocol.metadata(wanted.request_headers)),
            "timeout": wanted.timeout_ms / 1000 if wanted.HasField("timeout_ms") else None,
        }
        self._work: Callable[[], Any] = getattr(self, f"_{kind}")
        self._call: Any = None
        self.result = Result()

    async def run(self) -> Any:
        try:
            await self._work()
            # A streamed call that failed says so by its status, too.
            if await self._call.code() and (await self._call.code()).name != "OK":
                await self._call
        except RpcError as error:
            self._failed(error)
        self.result.response_headers.extend(protocol.headers(await self._call.initial_metadata()))
        self.result.response_trailers.extend(protocol.headers(await self._call.trailing_metadata()))
        return self.result

    def _failed(self, error: RpcError) -> None:
        self.result.error.code = error.status.value
        self.result.error.message = error.message or ""
        details: Any = error.details
        self.result.error.details.extend(protocol.packed(detail) for detail in details)

    def _received(self, reply: Any) -> None:
        if hasattr(reply, "payload"):
            self.result.payloads.append(reply.payload)
        if self._cancel == "after_num_responses" and len(self.result.payloads) == self._timing:
            self._call.cancel()

    @property
    def _cancel(self) -> str | None:
        cancel: str | None = self._wanted.cancel.WhichOneof("cancel_timing")
        return cancel

    @property
    def _timing(self) -> int:
        return int(getattr(self._wanted.cancel, self._cancel or ""))

    async def _unary_unary(self) -> None:
        self._call = self._stub(self._requests[0], **self._options)
        await self._cancel_after_close()
        self._received(await self._call)

    async def _unary_stream(self) -> None:
        self._call = self._stub(self._requests[0], **self._options)
        await self._cancel_after_close()
        await self._read_all()

    async def _stream_unary(self) -> None:
        self._call = self._stub(**self._options)
        for sent, request in enumerate(self._requests):
            await trio.sleep(self._wanted.request_delay_ms / 1000)
            if not await self._write(request):
                self.result.num_unsent_requests = len(self._requests) - sent
                break
        await self._close()
        self._received(await self._call)

    async def _stream_stream(self) -> None:
        self._call = self._stub(**self._options)
        for sent, request in enumerate(self._requests):
            await trio.sleep(self._wanted.request_delay_ms / 1000)
            if not await self._write(request):
                self.result.num_unsent_requests = len(self._requests) - sent
                break
            if self._wanted.stream_type == FULL_DUPLEX:
                reply = await self._call.read()
                if not reply:
                    break
                self._received(reply)
        await self._close()
        await self._read_all()

    async def _write(self, request: Any) -> bool:
        try:
            await self._call.write(request)
        except RpcError:
            return False
        return True

    async def _close(self) -> None:
        if self._cancel == "before_close_send":
            self._call.cancel()
        if not self._call.done():
            await self._call.done_writing()
        await self._cancel_after_close()

    async def _cancel_after_close(self) -> None:
        if self._cancel == "after_close_send_ms":
            await trio.sleep(self._timing / 1000)
            self._call.cancel()

    async def _read_all(self) -> None:
        while reply := await self._call.read():
            self._received(reply)


def tls_of(wanted: Any) -> ssl.SSLContext | None:
    if not wanted.server_tls_cert:
        return None
    context = ssl.create_default_context(cadata=wanted.server_tls_cert.decode())
    if wanted.HasField("client_tls_creds"):
        with tempfile.TemporaryDirectory() as directory:
            certificate, key = Path(directory, "certificate"), Path(directory, "key")
            certificate.write_bytes(wanted.client_tls_creds.cert)
            key.write_bytes(wanted.client_tls_creds.key)
            context.load_cert_chain(certificate, key)
    return context


async def make(wanted: Any, room: trio.Semaphore) -> None:
    options = {"tls": tls_of(wanted), "compression": COMPRESSIONS[wanted.compression]}
    if wanted.message_receive_limit:
        options["message_bytes_max"] = wanted.message_receive_limit
    answer = Response(test_name=wanted.test_name)
    try:
        async with open_channel(f"{wanted.host}:{wanted.port}", **options) as channel:
            answer.response.CopyFrom(await Asked(channel, wanted).run())
    except Exception as error:  # the suite shows it beside the case
        answer.error.message = repr(error)
    finally:
        room.release()
    protocol.write(answer)


async def main() -> None:
    room = trio.Semaphore(AT_ONCE)
    async with trio.open_nursery() as nursery:
        while (wanted := await trio.to_thread.run_sync(protocol.read, Request)) is not None:
            await room.acquire()
            nursery.start_soon(make, wanted, room)


if __name__ == "__main__":
    trio.run(main)
