"""One server address, or several that stand for one server, and the connection to it.

           connect()            dialed, SETTINGS came
    IDLE ------------> CONNECTING ------------------> READY
      ^                    |  ^                         |
      |             failed |  | backoff is over         | GOAWAY, idle, lost
      |                    v  |                         |
      |             TRANSIENT_FAILURE                   |
      +-------------------------------------------------+

A failed subchannel tries again by itself, after gRPC's backoff.  A connection that got GOAWAY serves its
calls to their end while the next one is made.

Source: gRPC "Connectivity Semantics and API" and "Connection Backoff Protocol".
Knows nothing of calls, names and balancing.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import attrs
import trio

from trio_serve.transport.alarms import Alarms
from trio_serve.transport.byte_stream import GONE, ByteStream
from trio_serve.transport.connection import ConnectionOptions, Http2Connection
from trio_serve.transport.dialing import Backoff, BackoffOptions
from trio_serve.wire.http2 import FieldBlock, Role, Stream, StreamReceiver

__all__ = ["Connectivity", "Subchannel", "SubchannelOptions"]


class Connectivity(enum.Enum):
    """Where a channel stands; equal by name to grpcio's ``ChannelConnectivity``."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    TRANSIENT_FAILURE = "transient failure"
    SHUTDOWN = "shutdown"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, enum.Enum) and type(other).__name__ in ("Connectivity", "ChannelConnectivity"):
            return self.name == other.name
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)


@attrs.frozen
class SubchannelOptions:
    """How connections are made, the same for all of a channel's subchannels."""

    connection: ConnectionOptions
    backoff: BackoffOptions
    rng: random.Random


class SubchannelOwner(Protocol):
    """Who uses the subchannel.  Called synchronously; must not wait or raise."""

    def subchannel_changed(self, subchannel: Subchannel) -> None:
        """The state is another one, or so is the failure."""

    def subchannel_has_room(self, subchannel: Subchannel) -> None:
        """A stream ended or the peer's settings changed: another stream may be possible."""


class Subchannel:
    """Keeps at most one connection that takes new calls (a ConnectionOwner)."""

    def __init__(
        self,
        name: str,
        dial: Callable[[], Awaitable[ByteStream]],
        owner: SubchannelOwner,
        alarms: Alarms,
        options: SubchannelOptions,
    ) -> None:
        self.name = name
        self.state = Connectivity.IDLE
        self.failure = ""
        self._dial = dial
        self._owner = owner
        self._alarms = alarms
        self._options = options
        self.connection: Http2Connection | None = None
        """The connection that takes new calls now, if there is one."""
        self._newest: Http2Connection | None = None  # the same, or the one that is being made
        self._all: set[Http2Connection] = set()
        self._making = trio.CancelScope()
        self._wanted = trio.Event()
        self._turned = trio.Event()  # the connection that is being made, or is made, is ready or over

    def connect(self) -> None:
        """Make a connection, unless there is one or one is being made; never waits."""
        self._wanted.set()

    def close(self) -> None:
        """Close every connection as soon as what is queued has left; calls on them end."""
        self._making.cancel()
        self._newest = self.connection = None
        for connection in list(self._all):
            connection.close("the channel was closed")

    def retire(self) -> None:
        """Make no more connections; those that there are serve their calls to the end."""
        self._making.cancel()
        self._newest = self.connection = None
        for connection in list(self._all):
            if not connection.calls:
                connection.close("its address is no longer one of the server's")

    async def run(self) -> None:
        """Make connections as they are wanted; returns once it was closed and they are gone."""
        async with trio.open_nursery() as nursery:
            with self._making:
                await self._make_connections(nursery)

    async def _make_connections(self, nursery: trio.Nursery) -> None:
        backoff = Backoff(self._options.backoff, self._options.rng)
        short_lived = 0
        while True:
            await self._wanted.wait()
            next_attempt_at = trio.current_time() + backoff.next_delay_s()
            if self.state is not Connectivity.TRANSIENT_FAILURE:
                self._become(Connectivity.CONNECTING)
            failure = await self._connect(nursery)
            if failure:
                self._become(Connectivity.TRANSIENT_FAILURE, failure)
                await trio.sleep_until(next_attempt_at)
                continue
            while self._newest is not None:
                await self._turned.wait()
                self._turned = trio.Event()
            if trio.current_time() >= next_attempt_at:
                backoff.reset()
                short_lived = 0
                continue
            # Once may be bad luck, but a server that drops every connection at once must not be
            # dialed in a circle.
            short_lived += 1
            if short_lived > 1:
                await trio.sleep_until(next_attempt_at)

    async def _connect(self, nursery: trio.Nursery) -> str:
        """Dial and shake hands; return why it failed, or an empty text."""
        seconds = self._options.backoff.connect_timeout_s
        with trio.move_on_after(seconds) as patience:
            try:
                byte_stream = await self._dial()
            except GONE as error:
                return str(error) or type(error).__name__
            connection = Http2Connection(
                Role.CLIENT, byte_stream, self, self._alarms, self._options.connection
            )
            self._newest = connection
            self._all.add(connection)
            nursery.start_soon(connection.run)
            while self._newest is connection and connection.state is not Connectivity.READY:
                await self._turned.wait()
                self._turned = trio.Event()
        if patience.cancelled_caught:
            if self._newest is not None:
                self._newest.close("the connection was not ready in time")
                self._newest = None
            return f"{self.name}: no connection within connect_timeout_s={seconds:g}"
        # It may have been ready and be over again before this task ran.
        return "" if connection.state is Connectivity.READY else self.failure

    def _become(self, state: Connectivity, failure: str = "") -> None:
        self.failure = failure
        self.state = state
        self._owner.subchannel_changed(self)

    # What connections report (ConnectionOwner).

    def request_received(
        self, connection: Http2Connection, stream: Stream, block: FieldBlock, end_stream: bool
    ) -> StreamReceiver:
        raise AssertionError("a server opens no streams")

    def settings_received(self, connection: Http2Connection) -> None:
        if connection is not self._newest:
            return
        if connection.state is Connectivity.READY:
            self._owner.subchannel_has_room(self)
        else:
            connection.state = Connectivity.READY
            self.connection = connection
            self._become(Connectivity.READY)
            self._turned.set()

    def stream_closed(self, connection: Http2Connection) -> None:
        if connection is self._newest:
            self._owner.subchannel_has_room(self)
        elif not connection.calls:
            connection.close("its last call has ended")

    def goaway_received(self, connection: Http2Connection, code: int, debug: bytes) -> None:
        self._leave(connection, f"{self.name}: the server sent GOAWAY ({code}: {debug[:200]!r})")
        if not connection.calls:
            connection.close("the server sent GOAWAY")

    def connection_closed(self, connection: Http2Connection, reason: str) -> None:
        self._all.discard(connection)
        self._leave(connection, f"{self.name}: {reason}")

    def _leave(self, connection: Http2Connection, failure: str) -> None:
        if connection is self._newest:
            self._newest = self.connection = None
            self.failure = failure
            self._turned.set()
            if self.state is Connectivity.READY:
                self._wanted = trio.Event()
                self._become(Connectivity.IDLE, failure)
