"""PING as gRPC uses it: is the peer still there, and does it ask too often?

    Keepalive         ours:   nothing read for time_s --> PING --> nothing read for timeout_s --> gone
    PingEnforcement   theirs: more than strikes_max PINGs sooner than interval_min_s --> too_many_pings

Source: gRFC A8 (client-side keepalive) and A9 (server-side connection management).
Knows nothing of sockets; the connection tells it what arrived.
"""

import math
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from trio_serve.transport.alarms import Alarm, Alarms

KEEPALIVE_PING = b"alive? \x00"
LATE_S = 1.0
"""Who looks so late was held up himself, suspended perhaps: the peer's answer may be here, unread."""


@attrs.frozen
class KeepaliveOptions:
    """When to ask whether the peer lives, and how often it may ask us.  Seconds.

    Args:
        time_s: nothing read for so long: a PING is sent; infinity: never.
        timeout_s: nothing read for so long after it: the connection is closed.
        without_calls: ask also while there is no call.
        interval_min_s: PINGs of the peer should be so far apart, unless we sent it something meanwhile.
        strikes_max: so many may come sooner; one more, and it gets GOAWAY "too_many_pings".
    """

    time_s: float = math.inf
    timeout_s: float = 20.0
    without_calls: bool = False
    interval_min_s: float = 10.0
    strikes_max: int = 2


class Watched(Protocol):
    """What keepalive needs of a connection."""

    last_read: float

    @property
    def calls(self) -> int: ...
    def send_ping(self, payload: bytes) -> None: ...


class Keepalive:
    """Asks the peer for a sign of life when nothing came from it for a while."""

    __slots__ = ("_alarm", "_alarms", "_asked_at", "_connection", "_dead", "_due", "_options")

    def __init__(
        self, connection: Watched, options: KeepaliveOptions, alarms: Alarms, dead: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._options = options
        self._alarms = alarms
        self._dead = dead
        self._asked_at = math.inf
        self._due = math.inf
        self._alarm: Alarm | None = None

    def start(self) -> None:
        if self._options.time_s != math.inf:
            self._look_at(trio.current_time() + self._options.time_s)

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _look(self) -> None:
        now = trio.current_time()
        if self._connection.last_read >= self._asked_at:
            self._asked_at = math.inf  # any frame is a sign of life, not only the answer to our PING
        if self._asked_at != math.inf:
            if now - self._due > LATE_S:
                self._look_at(now + LATE_S)
            else:
                self._dead()
            return
        due = self._connection.last_read + self._options.time_s
        if not self._options.without_calls and self._connection.calls == 0:
            due = now + self._options.time_s
        elif due <= now:
            self._asked_at = now
            self._connection.send_ping(KEEPALIVE_PING)
            due = now + self._options.timeout_s
        self._look_at(due)

    def _look_at(self, time: float) -> None:
        self._due = time
        self._alarm = self._alarms.at(time, self._look)


class PingEnforcement:
    """Counts the PINGs that come too soon."""

    __slots__ = ("_interval_min_s", "_last", "_strikes", "_strikes_max")

    def __init__(self, options: KeepaliveOptions) -> None:
        self._interval_min_s = options.interval_min_s
        self._strikes_max = options.strikes_max
        self._last = -math.inf
        self._strikes = 0

    def answered(self) -> None:
        """We sent HEADERS or DATA: a peer that measures its link by PINGs may do so now."""
        self._strikes = 0
        self._last = -math.inf

    def ping_received(self, now: float) -> bool:
        """Count a PING, and return whether it is one too many."""
        if now - self._last >= self._interval_min_s:
            self._last = now
            return False
        self._strikes += 1
        return self._strikes > self._strikes_max
