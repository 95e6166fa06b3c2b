"""A client of frames: what a test wants a peer to do, right or wrong, to the byte.

It speaks through the wire engine, in client role, over one end of a memory pair.  Windows are opened only
by hand unless ``reads`` is true.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.grpc.echo import Note
from trio_serve.grpc import Server
from trio_serve.wire.grpc import (
    MessageReader,
    Trailers,
    build_request_fields,
    encode_metadata,
    frame_message,
    read_trailers,
    request_prefix,
)
from trio_serve.wire.http2 import (
    Connection,
    ConnectionEnded,
    ErrorCode,
    FieldBlock,
    Limits,
    Role,
    Stream,
    StreamEnded,
)

LIMITS = Limits(stream_window_bytes_max=65535)


class RawCall:
    """One stream, and all that came on it."""

    def __init__(self, client: "RawClient") -> None:
        self.client = client
        self.stream: Stream
        self.blocks: list[FieldBlock] = []
        self.data = bytearray()
        self.ended = False
        self.error: StreamEnded | None = None
        self.changed = trio.Event()

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None:
        self.blocks.append(block)
        self._changed(end_stream)

    def data_received(self, data: bytes, end_stream: bool) -> None:
        self.data += data
        if self.client.reads:
            self.client.wire.acknowledge(self.stream, len(data))
        self._changed(end_stream)

    def writable(self) -> None:
        self._changed(False)

    def reset(self, error: StreamEnded) -> None:
        self.error = error
        self._changed(True)

    def _changed(self, ended: bool) -> None:
        self.ended = self.ended or ended
        self.changed.set()
        self.changed = trio.Event()

    async def send(self, *messages: Any, end: bool = False) -> None:
        for number, message in enumerate(messages):
            last = end and number == len(messages) - 1
            await self.send_bytes(frame_message(message.SerializeToString()), end=last)
        if end and not messages:
            await self.send_bytes(b"", end=True)

    async def send_bytes(self, data: bytes, end: bool = False) -> None:
        self.client.wire.send_data(self.stream, data, end)
        await self.client.flush()

    async def cancel(self) -> None:
        self.client.wire.reset_stream(self.stream, ErrorCode.CANCEL)
        await self.client.flush()

    async def messages(self, count: int) -> list[Any]:
        """Wait until ``count`` messages are here, and return all that are."""
        while len(found := self.parsed()) < count:
            assert not self.ended, f"{count} wanted, {len(found)} came, then {self.status()}"
            await self.changed.wait()
        return found

    async def done(self) -> Trailers:
        """Wait for the call's end, and return its trailers."""
        while not self.ended:
            await self.changed.wait()
        return self.status()

    def parsed(self) -> list[Any]:
        reader = MessageReader(1 << 30)
        return [Note.FromString(payload) for payload in reader.receive(bytes(self.data))]

    def status(self) -> Trailers:
        # RST_STREAM(NO_ERROR) after the trailers only says that the rest of the request is not wanted.
        assert self.error is None or (self.error.by_peer and not self.error.code), self.error
        assert self.blocks, "no headers came"
        return read_trailers(self.blocks[-1])

    def header(self, name: bytes) -> bytes | None:
        return dict(self.blocks[0].fields).get(name)


class RawClient:
    """One connection in client role."""

    def __init__(self, byte_stream: Any, reads: bool = True, limits: Limits = LIMITS) -> None:
        self.byte_stream = byte_stream
        self.reads = reads
        self.wire = Connection(Role.CLIENT, self, limits)
        self.goaways: list[tuple[int, int, bytes]] = []
        self.pongs = 0
        self.closed = trio.Event()
        self.ready = trio.Event()
        self._sending = trio.Lock()
        self._received = trio.Event()
        self._reading = trio.Event()
        self._reading.set()

    def stop_reading(self) -> None:
        """Take nothing more from the byte stream, but for the one read that may be under way."""
        self._reading = trio.Event()

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        self.wire.start()
        async with trio.open_nursery() as nursery:
            # Reading never waits for writing, or client and server could wait for each other.
            nursery.start_soon(self._answer)
            task_status.started()
            try:
                while data := await self.byte_stream.receive_some(65536):
                    self.wire.receive_data(data, trio.current_time())
                    self._received.set()
                    await self._reading.wait()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            self.wire.receive_eof()
            self.closed.set()
            await self.byte_stream.aclose()
            nursery.cancel_scope.cancel()

    async def _answer(self) -> None:
        while True:
            await self.flush()
            await self._received.wait()
            self._received = trio.Event()

    async def flush(self) -> None:
        async with self._sending:
            try:
                await self.byte_stream.send_all(self.wire.data_to_send())
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the reader says so too

    async def call(
        self,
        path: str,
        *messages: Any,
        end: bool = True,
        timeout_s: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        **prefix: Any,
    ) -> RawCall:
        """Open a stream, and send ``messages`` on it, and END_STREAM if ``end``."""
        fields = request_prefix(path, "test", **prefix)
        return await self.request(
            build_request_fields(fields, timeout_s, encode_metadata(metadata)), *messages, end=end
        )

    async def request(self, fields: Any, *messages: Any, end: bool = True) -> RawCall:
        await self.ready.wait()
        call = RawCall(self)
        call.stream = self.wire.open_stream(fields, call, end_stream=end and not messages)
        if messages:
            await call.send(*messages, end=end)
        await self.flush()
        return call

    # ConnectionReceiver

    def request_received(self, stream: Stream, block: FieldBlock, end_stream: bool) -> Any:
        raise AssertionError("a client is asked nothing")

    def settings_received(self) -> None:
        self.ready.set()

    def settings_acknowledged(self) -> None: ...

    def ping_received(self) -> None: ...

    def ping_acknowledged(self, payload: bytes) -> None:
        self.pongs += 1

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.goaways.append((last_stream_id, code, debug))

    def stream_closed(self, stream: Stream) -> None: ...

    def connection_ended(self, error: ConnectionEnded) -> None: ...


@asynccontextmanager
async def connected(server: Server, **options: Any) -> AsyncIterator[RawClient]:
    """``server`` serving, and a client connected to it in memory."""
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners)
        client = RawClient(server.connect(), **options)
        await nursery.start(client.run)
        yield client
        nursery.cancel_scope.cancel()
