"""What transport's tests need beside a connection: an owner that keeps what it is told, a bare wire peer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_serve.transport.alarms import Alarms
from trio_serve.transport.connection import ConnectionOptions, Http2Connection
from trio_serve.transport.memory import MemoryByteStream, memory_pair
from trio_serve.wire.http2 import Connection, FieldBlock, Role, Stream, StreamEnded

RESPONSE = ((b":status", b"200"),)
REQUEST = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"test"))


class Received:
    """A stream's receiver that keeps what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.blocks: list[FieldBlock] = []
        self.ended = False
        self.error: StreamEnded | None = None

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None:
        self.blocks.append(block)
        self.ended = self.ended or end_stream

    def data_received(self, data: bytes, end_stream: bool) -> None:
        self.data += data
        self.ended = self.ended or end_stream

    def writable(self) -> None: ...

    def reset(self, error: StreamEnded) -> None:
        self.error = error


class Owner:
    """Accepts every stream, answers none."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.receivers: list[Received] = []
        self.reasons: list[str] = []
        self.goaways: list[tuple[int, bytes]] = []
        self.closed = trio.Event()

    def request_received(self, connection: Any, stream: Stream, block: FieldBlock, end_stream: bool) -> Any:
        self.streams.append(stream)
        self.receivers.append(Received())
        return self.receivers[-1]

    def settings_received(self, connection: Any) -> None: ...

    def stream_closed(self, connection: Any) -> None: ...

    def goaway_received(self, connection: Any, code: int, debug: bytes) -> None:
        self.goaways.append((code, debug))

    def connection_closed(self, connection: Any, reason: str) -> None:
        self.reasons.append(reason)
        self.closed.set()


class Peer:
    """The other side: a wire connection whose bytes the test moves by hand."""

    def __init__(self, role: Role, byte_stream: MemoryByteStream) -> None:
        self.byte_stream = byte_stream
        self.wire = Connection(role, self)  # type: ignore[arg-type]
        self.pings = 0
        self.pongs: list[bytes] = []
        self.goaways: list[tuple[int, int, bytes]] = []
        self.sends = 0
        self.received_eof = False

    async def start(self) -> None:
        self.wire.start()
        await self.exchange()

    async def exchange(self) -> None:
        """Send what is queued, and take what comes within a moment."""
        await self.byte_stream.send_all(self.wire.data_to_send())
        with trio.move_on_after(0.001):
            while True:
                data = await self.byte_stream.receive_some(65536)
                if not data:
                    self.received_eof = True
                    return
                self.sends += 1
                self.wire.receive_data(data)
                await self.byte_stream.send_all(self.wire.data_to_send())

    def request_received(self, *args: Any) -> Any: ...
    def settings_received(self) -> None: ...
    def settings_acknowledged(self) -> None: ...
    def stream_closed(self, stream: Stream) -> None: ...
    def connection_ended(self, error: Any) -> None: ...

    def ping_received(self) -> None:
        self.pings += 1

    def ping_acknowledged(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.goaways.append((last_stream_id, code, debug))


@asynccontextmanager
async def connected(
    role: Role = Role.SERVER,
    options: ConnectionOptions | None = None,
    started: bool = True,
    owner: Owner | None = None,
) -> AsyncIterator[tuple[Http2Connection, Owner, Peer]]:
    """Our connection, running in ``role``, its owner, and the peer, connected in memory."""
    ours, theirs = memory_pair()
    owner, alarms = owner or Owner(), Alarms()
    connection = Http2Connection(role, ours, owner, alarms, options or ConnectionOptions())
    peer = Peer(Role.CLIENT if role is Role.SERVER else Role.SERVER, theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        nursery.start_soon(connection.run)
        if started:
            await peer.start()
        yield connection, owner, peer
        nursery.cancel_scope.cancel()
