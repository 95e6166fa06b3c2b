"""A pair of byte streams with no socket between: client and server in one process, or one test.

    ours.send_all -->  | pipe, at most capacity bytes |  --> theirs.receive_some
    ours.receive_some <--  | pipe, at most capacity bytes |  <-- theirs.send_all

Real HTTP/2 bytes flow, in virtual time too, because nothing waits for the kernel.  Each pipe is bounded,
so that a peer who stops reading pushes back as a socket's buffers do.

Knows nothing of HTTP/2.
"""

import ssl

import trio

from trio_serve.transport.parking import ParkingPlace

PIPE_BYTES = 65536


def memory_pair(
    pipe_bytes: int = PIPE_BYTES, peer: str = "memory:"
) -> "tuple[MemoryByteStream, MemoryByteStream]":
    """Two connected byte streams; each direction holds at most ``pipe_bytes`` that nobody has read."""
    there, back = _Pipe(pipe_bytes), _Pipe(pipe_bytes)
    return MemoryByteStream(there, back, peer), MemoryByteStream(back, there, peer)


class _Pipe:
    """One direction: a bounded buffer, one reader and one writer."""

    __slots__ = ("buffer", "capacity", "ended", "has_bytes", "has_room")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buffer = bytearray()
        self.ended = False
        self.has_bytes = ParkingPlace()
        self.has_room = ParkingPlace()

    def put_nowait(self, data: bytes | memoryview) -> int:
        if self.ended:
            raise trio.BrokenResourceError("the memory stream is closed")
        taken = memoryview(data)[: self.capacity - len(self.buffer)]
        self.buffer += taken
        if taken:
            self.has_bytes.wake()
        return len(taken)

    async def get(self, size_max: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.buffer:
            if self.ended:
                return b""
            await self.has_bytes.park()
        data = bytes(self.buffer[:size_max])
        del self.buffer[:size_max]
        self.has_room.wake()
        return data

    def end(self, *, forget: bool) -> None:
        self.ended = True
        if forget:
            self.buffer.clear()
        self.has_bytes.wake()
        self.has_room.wake()


class MemoryByteStream:
    """One end of a `memory_pair`."""

    __slots__ = ("_incoming", "_outgoing", "closed", "peer")

    def __init__(self, outgoing: _Pipe, incoming: _Pipe, peer: str) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self.peer = peer
        self.closed = False

    @property
    def tls(self) -> ssl.SSLObject | None:
        return None

    async def receive_some(self, size_max: int) -> bytes:
        data = await self._incoming.get(size_max)
        if self.closed:
            raise trio.ClosedResourceError
        return data

    def send_nowait(self, data: bytes | memoryview) -> int:
        if self.closed:
            raise trio.ClosedResourceError
        return self._outgoing.put_nowait(data)

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while True:
            rest = rest[self.send_nowait(rest) :]
            if not rest:
                return
            await self._outgoing.has_room.park()

    async def send_eof(self) -> None:
        self._outgoing.end(forget=False)
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed = True
        self._outgoing.end(forget=False)
        self._incoming.end(forget=True)
        await trio.lowlevel.checkpoint()
