"""An HTTP/2 connection on a byte stream: one task reads, one writes, and calls use it without waiting.

    byte stream --> reader --> wire connection --> receivers (called in the reader's turn)
                                   |  queue
    byte stream <-- writer <-------+<---- send_* by anybody, then `touch` or `answered`

The reader handles at most `FRAMES_A_TURN` in one turn, so that a connection that floods cannot keep the
others from theirs; it takes more bytes a turn while large messages come, whose bytes cost little each.  It
never waits for a stream: one slow handler would stall every call on this connection.  It is held back only
while a server's peer leaves its answers unread; a client's reader never is, or two that both write could
wait for each other.

Nothing that the peer does leaves `run` as an exception.  Source: RFC 9113 sections 3.4, 5.4.1, 6.5.3, 6.8.
Knows nothing of gRPC.
"""

import logging
import math
from typing import Protocol

import attrs
import trio

from trio_serve.transport import freed_memory
from trio_serve.transport.alarms import Alarm, Alarms
from trio_serve.transport.byte_stream import GONE, ByteStream
from trio_serve.transport.keepalive import Keepalive, KeepaliveOptions, PingEnforcement
from trio_serve.transport.lifetime import Lifetime, LifetimeOptions
from trio_serve.transport.parking import ParkingPlace
from trio_serve.transport.window_loans import WindowLoans
from trio_serve.transport.writer import Writer, WriteStalled
from trio_serve.wire.http2 import (
    Connection,
    ConnectionEnded,
    ErrorCode,
    FieldBlock,
    Limits,
    Role,
    Stream,
    StreamReceiver,
)

logger = logging.getLogger("trio_serve.transport")

FRAMES_A_TURN = 256
LONG_TURN_S = 0.002
RECEIVE_BYTES_MAX = 256 * 1024
"""After a full read that was soon dealt with."""
RECEIVE_BYTES = 64 * 1024

UNREAD_ANSWERS_MAX = 1024 * 1024
LATE_RESET_S = 5.0
"""How long a client may take to end a stream whose answer it has; nginx gives it the same."""

LINGER_S = 1.0
LINGER_READS_MAX = 16


@attrs.frozen
class ConnectionOptions:
    """What a connection allows, in seconds; the wire's own limits are its `Limits`.

    Args:
        handshake_timeout_s: TLS, and then the peer's preface and SETTINGS, must have come by then.
        write_stall_s: a peer that takes no byte for so long, while there are some for it, is cut off.
        keepalive: signs of life, asked for and answered.
        lifetime: when it is drained.
        limits: what the peer may ask for.
    """

    handshake_timeout_s: float = 10.0
    write_stall_s: float = 60.0
    keepalive: KeepaliveOptions = attrs.field(factory=KeepaliveOptions)
    lifetime: LifetimeOptions = attrs.field(factory=LifetimeOptions)
    limits: Limits = attrs.field(factory=Limits)


class ConnectionOwner(Protocol):
    """Who uses the connection, server or channel.  Called in the reader's turn: must not wait or raise."""

    def request_received(
        self, connection: "Http2Connection", stream: Stream, block: FieldBlock, end_stream: bool
    ) -> StreamReceiver:
        """Server role: a peer opened a stream."""

    def settings_received(self, connection: "Http2Connection") -> None:
        """The peer's SETTINGS apply from now; the first time, the connection is ready for calls."""

    def stream_closed(self, connection: "Http2Connection") -> None:
        """A stream left the table: there is room for another."""

    def goaway_received(self, connection: "Http2Connection", code: int, debug: bytes) -> None:
        """The peer takes no more streams on this connection."""

    def connection_closed(self, connection: "Http2Connection", reason: str) -> None:
        """The connection is over; every stream on it has been reset."""


class Http2Connection:
    """One connection, either role.  `run` serves it; nothing else here waits."""

    __slots__ = (
        "_answered",
        "_data_sent",
        "_enforcement",
        "_handshake",
        "_held",
        "_keepalive",
        "_late_resets",
        "_lifetime",
        "_options",
        "_owner",
        "_reading",
        "_ready",
        "_reason",
        "_role",
        "alarms",
        "byte_stream",
        "last_read",
        "loans",
        "now",
        "state",
        "wire",
        "writer",
    )

    def __init__(
        self,
        role: Role,
        byte_stream: ByteStream,
        owner: ConnectionOwner,
        alarms: Alarms,
        options: ConnectionOptions = ConnectionOptions(),
    ) -> None:
        self.wire = Connection(role, self, options.limits)
        self.byte_stream = byte_stream
        self.writer = Writer(self.wire, byte_stream, options.write_stall_s)
        self.loans = WindowLoans(self.wire, self.writer.wake)
        self.alarms = alarms
        self.now = trio.lowlevel.current_clock().current_time
        """`trio.current_time`, without its detour through the run context."""
        self.last_read = self.now()
        self.state: object = None  # what the owner keeps with this connection
        self._role = role
        self._owner = owner
        self._options = options
        self._reading = trio.CancelScope()
        self._held = ParkingPlace()
        self._handshake: Alarm | None = None
        self._late_resets: Alarm | None = None
        self._keepalive = Keepalive(self, options.keepalive, alarms, self._peer_is_gone)
        self._enforcement = PingEnforcement(options.keepalive)
        self._lifetime = Lifetime(self, options.lifetime, alarms)
        self._answered = False
        self._data_sent = 0  # DATA frames up to the last PING
        self._ready = False
        self._reason = ""

    # What calls use.

    @property
    def peer(self) -> str:
        return self.byte_stream.peer

    @property
    def calls(self) -> int:
        """How many streams are open."""
        return len(self.wire.streams)

    @property
    def draining(self) -> bool:
        return self._lifetime.draining

    def touch(self) -> None:
        """Something was queued on the wire connection: it leaves in the next scheduler turn."""
        self._answered = True
        self.writer.wake()

    def answered(self) -> None:
        """A whole answer was queued: as `touch`, but several of them leave at once."""
        self._answered = True
        self.writer.answered(last=not self.wire.streams)

    def send_ping(self, payload: bytes) -> None:
        self.wire.send_ping(payload)
        self.writer.wake()

    # How it ends.

    def drain(self, grace_s: float = math.inf) -> None:
        """Take no more streams, let those in flight end within ``grace_s``, and close.  Loses no call."""
        self._lifetime.drain(grace_s)

    def close(self, reason: str, code: ErrorCode = ErrorCode.NO_ERROR, debug: bytes = b"") -> None:
        """Close once what is queued has left; streams still open are reset.  A second time does nothing."""
        if not self._reason:
            self._reason = reason
            self.wire.terminate(code, reason, debug)
            self._reading.cancel()

    async def run(self) -> None:
        """Serve the connection until either side ends it.  Cancelling drops it at once."""
        try:
            self._start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                with self._reading:
                    await self._read()
                self._end_streams()
                self.writer.finish()
                # What is queued may be a GOAWAY that nobody reads any more.
                nursery.cancel_scope.deadline = trio.current_time() + LINGER_S
            await self._linger()
        finally:
            self._end_streams()
            self._stop_alarms()
            await self.byte_stream.aclose()

    def _start(self) -> None:
        now = trio.current_time()
        freed_memory.keep()
        self.wire.start()
        self.writer.wake()
        self._handshake = self.alarms.at(now + self._options.handshake_timeout_s, self._handshake_is_late)
        self._keepalive.start()
        self._lifetime.start()

    def _stop_alarms(self) -> None:
        for alarm in (self._handshake, self._late_resets):
            if alarm is not None:
                alarm.cancel()
        self._keepalive.stop()
        self._lifetime.stop()

    def _end_streams(self) -> None:
        if self.wire.closed is None:
            self._reason = self._reason or "the connection was lost"
            self.wire.receive_eof()

    async def _read(self) -> None:
        wire, writer, receive_some = self.wire, self.writer, self.byte_stream.receive_some
        loans, now = self.loans, self.now
        size = RECEIVE_BYTES
        server = self._role is Role.SERVER
        try:
            while wire.closed is None:
                if wire.frames_wait:
                    await trio.lowlevel.checkpoint()
                    data = b""
                else:
                    data = await receive_some(size)
                    if not data:
                        self._reason = self._reason or "the peer closed the connection"
                        return
                self.last_read = started = now()
                answers = writer.answers
                writer.reading = True
                wire.receive_data(data, started, FRAMES_A_TURN)
                writer.reading = False
                if loans.waiting:
                    loans.lend()
                quick = not wire.frames_wait and now() - started <= LONG_TURN_S
                size = RECEIVE_BYTES_MAX if quick and len(data) >= size else RECEIVE_BYTES
                del data  # a waiting reader holds no bytes: there may be many, and one read is large
                if wire.unsent:
                    if writer.answers > answers:
                        # Calls refused in this very turn.  The next may be a handler's, and a long one.
                        writer.flush()
                    else:
                        writer.wake()
                while server and writer.backlog > UNREAD_ANSWERS_MAX:
                    writer.wake_when_room(self._held)
                    await self._held.park()
        except GONE as error:
            self._reason = self._reason or f"the connection was lost: {error}"

    async def _write(self) -> None:
        try:
            await self.writer.run()
        except (*GONE, WriteStalled) as error:
            self._reason = self._reason or f"the connection was lost: {error}"
            self._reading.cancel()

    async def _linger(self) -> None:
        """Give the peer a moment to take our last frames.

        Closing a socket with unread bytes makes the kernel send RST, which may overtake the GOAWAY that
        says what was wrong.
        """
        with trio.move_on_after(LINGER_S):
            try:
                await self.byte_stream.send_eof()
                for _ in range(LINGER_READS_MAX):
                    if not await self.byte_stream.receive_some(RECEIVE_BYTES_MAX):
                        return
            except GONE:
                return

    # Alarms.

    def _handshake_is_late(self) -> None:
        seconds = self._options.handshake_timeout_s
        if not self._ready:
            self.close(f"no HTTP/2 preface within handshake_timeout_s={seconds:g}", ErrorCode.PROTOCOL_ERROR)
        else:
            self.close(f"no SETTINGS ACK within handshake_timeout_s={seconds:g}", ErrorCode.SETTINGS_TIMEOUT)

    def _expect_late_resets(self) -> None:
        if self._late_resets is None and self.wire.late_resets:
            first = next(iter(self.wire.late_resets.values()))
            self._late_resets = self.alarms.at(first + LATE_RESET_S, self._send_late_resets)

    def _send_late_resets(self) -> None:
        self._late_resets = None
        self.wire.send_late_resets(self.now(), LATE_RESET_S)
        self.writer.wake()
        self._expect_late_resets()

    def _peer_is_gone(self) -> None:
        seconds = self._options.keepalive.timeout_s
        self.close(f"keepalive: no answer to PING within {seconds:g} s", debug=b"keepalive_timeout")

    # What the wire connection reports (ConnectionReceiver).

    def request_received(self, stream: Stream, block: FieldBlock, end_stream: bool) -> StreamReceiver:
        return self._owner.request_received(self, stream, block, end_stream)

    def settings_received(self) -> None:
        self._ready = True
        self._owner.settings_received(self)

    def settings_acknowledged(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()

    def ping_received(self) -> None:
        if self._role is Role.CLIENT:
            return
        # DATA also leaves without a call's doing, when the peer opens a window.
        data_sent = self.wire.data_frames_sent
        if self._answered or data_sent != self._data_sent:
            self._answered = False
            self._data_sent = data_sent
            self._enforcement.answered()
        if self._enforcement.ping_received(self.last_read):
            self.close("the peer sent too many PINGs", ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")

    def ping_acknowledged(self, payload: bytes) -> None:
        self._lifetime.ping_acknowledged(payload)

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self._owner.goaway_received(self, code, debug)

    def stream_closed(self, stream: Stream) -> None:
        if self.wire.late_resets:
            self._expect_late_resets()
        if not self.wire.streams:
            self._lifetime.last_stream_closed()
        self._owner.stream_closed(self)

    def connection_ended(self, error: ConnectionEnded) -> None:
        self._reason = self._reason or str(error)
        # Not after lingering: a channel must not count on this connection any more.
        self._owner.connection_closed(self, self._reason)
