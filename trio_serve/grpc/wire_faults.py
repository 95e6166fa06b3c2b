"""A server with faults, on request: what networks and peers do to connections, by chance and from a seed.

    latency_s, latency_jitter_s    each read of the server's waits so long, and a drawn part of the jitter
    cut_after_bytes                the connection breaks after so many bytes to the client, within a frame too
    stall_after_bytes              the client takes no more than so many bytes, as one that stopped reading
    reset_share, reset_code        such a share of the calls is answered with RST_STREAM
    goaway_after_calls             each connection gets GOAWAY with its n-th call

`FaultyServer` is a server of its own, so that one without faults has no line of this in its way.

Knows nothing of what is served.
"""

import logging
import secrets
from random import Random
from ssl import SSLObject
from typing import Any
from weakref import WeakKeyDictionary

import attrs
import trio

from trio_serve.grpc.answering import IGNORED
from trio_serve.grpc.server import Server
from trio_serve.transport.byte_stream import ByteStream
from trio_serve.transport.connection import Http2Connection
from trio_serve.wire.http2 import ErrorCode, FieldBlock, Stream, StreamReceiver

logger = logging.getLogger("trio_serve.grpc")


@attrs.frozen(kw_only=True)
class WireFaults:
    """Which faults, each off unless set.  Chance is drawn from ``seed``; None draws a seed, and logs it."""

    seed: int | None = None
    latency_s: float = 0.0
    latency_jitter_s: float = 0.0
    cut_after_bytes: int | None = None
    stall_after_bytes: int | None = None
    reset_share: float = 0.0
    reset_code: str = "INTERNAL_ERROR"
    goaway_after_calls: int | None = None


class FaultyServer(Server):
    """A `Server` whose connections and calls have ``faults``."""

    def __init__(self, *services: object, faults: WireFaults, **options: Any) -> None:
        super().__init__(*services, **options)
        if faults.seed is None:
            faults = attrs.evolve(faults, seed=secrets.randbelow(2**32))
        logger.warning("this server makes faults: %s", faults)
        self.faults = faults
        self._random = Random(faults.seed)
        self._calls: WeakKeyDictionary[_FaultyByteStream, int] = WeakKeyDictionary()

    async def serve_stream(self, byte_stream: ByteStream) -> None:
        await super().serve_stream(_FaultyByteStream(byte_stream, self.faults, self._random))

    def request_received(
        self, connection: Http2Connection, stream: Stream, block: FieldBlock, end_stream: bool
    ) -> StreamReceiver:
        faults = self.faults
        assert isinstance(connection.byte_stream, _FaultyByteStream)
        calls = self._calls[connection.byte_stream] = self._calls.get(connection.byte_stream, 0) + 1
        if calls == faults.goaway_after_calls:
            connection.drain()
        if faults.reset_share and self._random.random() < faults.reset_share:
            connection.wire.reset_stream(stream, ErrorCode[faults.reset_code])
            connection.touch()
            return IGNORED
        return super().request_received(connection, stream, block, end_stream)


class _FaultyByteStream:
    """The server's end of a connection, between it and the real byte stream."""

    __slots__ = ("__weakref__", "_faults", "_inner", "_random", "_sent", "peer")

    def __init__(self, inner: ByteStream, faults: WireFaults, random: Random) -> None:
        self.peer = inner.peer
        self._inner = inner
        self._faults = faults
        self._random = random
        self._sent = 0

    @property
    def tls(self) -> SSLObject | None:
        return self._inner.tls

    @property
    def _is_cut(self) -> bool:
        limit = self._faults.cut_after_bytes
        return limit is not None and self._sent >= limit

    async def receive_some(self, size_max: int) -> bytes:
        data = await self._inner.receive_some(size_max)
        faults = self._faults
        if faults.latency_s or faults.latency_jitter_s:
            await trio.sleep(faults.latency_s + self._random.uniform(0, faults.latency_jitter_s))
        return data

    def _allowed(self, data: bytes | memoryview) -> memoryview:
        """The part of ``data`` that may leave now; raises where the connection is cut."""
        if self._is_cut:
            raise trio.BrokenResourceError(f"a fault: cut_after_bytes={self._faults.cut_after_bytes}")
        limits = (self._faults.cut_after_bytes, self._faults.stall_after_bytes)
        room = min((limit - self._sent for limit in limits if limit is not None), default=len(data))
        return memoryview(data)[: max(room, 0)]

    def send_nowait(self, data: bytes | memoryview) -> int:
        sent = self._inner.send_nowait(self._allowed(data))
        self._sent += sent
        return sent

    async def send_all(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            part = self._allowed(rest)
            if not part:
                await trio.sleep_forever()
            await self._inner.send_all(part)
            self._sent += len(part)
            rest = rest[len(part) :]

    async def send_eof(self) -> None:
        if self._is_cut:
            raise trio.BrokenResourceError("the connection is cut")
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()
