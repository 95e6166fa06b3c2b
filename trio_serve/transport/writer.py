"""The only task that writes to a connection's byte stream.

    a call answers --+
    a call sends ----+--> wire connection's queue --(one send per scheduler turn)--> byte stream
    the reader acks -+         |
                               +--> eight answers wait, or the last call's, or the reader has
                                    refused calls: sent at once, without the task

The task is parked while there is nothing to send.  Whoever queues something wakes it, and it runs in the next
scheduler turn: everything that the tasks of one turn queue leaves in one system call.  The answers that make
up a long turn go early, so that the peer can work on them meanwhile; and with no other call open there is
nothing to wait for, so that a peer with one call at a time is spared a turn for each.

The peer may stop reading.  What it has not taken is `backlog`; senders wait in the crowd while it is above
`BACKLOG_HIGH`, and a peer that takes nothing at all for ``stall_s`` seconds is cut off.

Knows nothing of frames.
"""

import math
from typing import Protocol

import trio

from trio_serve.transport.byte_stream import GONE, ByteStream
from trio_serve.transport.parking import ParkingPlace

ANSWERS_AT_ONCE = 8
BACKLOG_HIGH = 256 * 1024
BACKLOG_LOW = 64 * 1024
CHUNK_BYTES = 64 * 1024
PART_BYTES = 128 * 1024
"""So much is joined at a time: less than the processor's cache, more than a send costs."""


class WriteStalled(Exception):
    """The peer has taken nothing for the whole of ``write_stall_s``."""


class Outgoing(Protocol):
    """Where the bytes come from: a wire connection."""

    unsent: int

    def data_to_send(self, bytes_max: int | None = None) -> bytes: ...


class Wakeable(Protocol):
    """What may wait for room: a `ParkingPlace`, or anything else that has to look again."""

    def wake(self) -> object: ...


class Writer:
    """Moves what ``source`` has queued to ``byte_stream``."""

    __slots__ = (
        "_byte_stream",
        "_crowd",
        "_finishing",
        "_place",
        "_rest",
        "_sending",
        "_source",
        "_stall_s",
        "answers",
        "reading",
    )

    def __init__(self, source: Outgoing, byte_stream: ByteStream, stall_s: float = math.inf) -> None:
        self._source = source
        self._byte_stream = byte_stream
        self._stall_s = stall_s
        self._place = ParkingPlace()
        self._crowd: list[Wakeable] = []
        self._rest: bytes | memoryview = b""
        self._sending = 0
        self.answers = 0
        """Whole answers among what is queued."""
        self.reading = False
        """Whether the reader is at its turn, after which it flushes the answers that were given in it."""
        self._finishing = False

    @property
    def backlog(self) -> int:
        """Bytes that the peer's side of the byte stream has not taken yet."""
        return self._source.unsent + self._sending + len(self._rest)

    def wake(self) -> None:
        """Something was queued; it leaves in the next scheduler turn."""
        self._place.wake()

    def answered(self, last: bool = False) -> None:
        """A whole answer was queued: as `wake`, and early when several are waiting or it is the ``last``."""
        if not self.reading:
            if last:
                self.flush()
                return
            if self._place.wake():
                self.answers = 1
                return
        self.answers += 1
        if self.answers >= ANSWERS_AT_ONCE:
            self._send_early()

    def flush(self) -> None:
        """Send what is queued now, as far as the peer takes it; the task sends the rest."""
        if self._source.unsent <= PART_BYTES:
            self._send_early()
        if self._source.unsent:
            self._place.wake()

    def finish(self) -> None:
        """Let `run` return once all that is queued has left."""
        self._finishing = True
        self._place.wake()

    def wake_when_room(self, place: Wakeable) -> None:
        """Wake ``place`` once, when the backlog has fallen to `BACKLOG_LOW` or the writer is gone."""
        self._crowd.append(place)

    async def run(self) -> None:
        """Write until `finish`.  Cancelling may leave a frame cut in two, so the connection is then over.

        Raises:
            WriteStalled: the peer took nothing for ``stall_s``.
            OSError, trio.BrokenResourceError, ...: the byte stream is gone (`byte_stream.GONE`).
        """
        try:
            while True:
                data = self._rest or self._source.data_to_send(PART_BYTES)
                self._rest = b""
                if data:
                    await self._send(data)
                elif self._finishing:
                    return
                else:
                    await self._place.park()
        finally:
            self._finishing = True
            self._let_in()

    async def _send(self, data: bytes | memoryview) -> None:
        self.answers = 0
        sent = self._byte_stream.send_nowait(data)
        if sent < len(data):
            await self._send_slowly(memoryview(data)[sent:])
        if self._crowd and self.backlog <= BACKLOG_LOW:
            self._let_in()

    async def _send_slowly(self, rest: memoryview) -> None:
        self._sending = len(rest)
        try:
            for start in range(0, len(rest), CHUNK_BYTES):
                chunk = rest[start : start + CHUNK_BYTES]
                with trio.move_on_after(self._stall_s) as patience:
                    await self._byte_stream.send_all(chunk)
                if patience.cancelled_caught:
                    raise WriteStalled(f"the peer took no bytes for write_stall_s={self._stall_s:g}")
                self._sending -= len(chunk)
        finally:
            self._sending = 0

    def _send_early(self) -> None:
        if self._sending or self._rest or self._finishing:
            return
        self.answers = 0
        data = self._source.data_to_send()
        try:
            sent = self._byte_stream.send_nowait(data)
        except GONE:
            # The handler whose answer this is has done nothing wrong.  The task meets the same error
            # when it sends the rest, and that ends the connection.
            sent = 0
        if sent < len(data):
            self._rest = memoryview(data)[sent:]
            self._place.wake()

    def _let_in(self) -> None:
        crowd, self._crowd = self._crowd, []
        for place in crowd:
            place.wake()
