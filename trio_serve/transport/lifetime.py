"""How long a connection lives, and how it ends without losing a call.

    GOAWAY(2^31-1) + PING --> PING ACK (or 5 s) --> GOAWAY(last stream) --> last stream ends --> closed
       "send no more"            calls that were on their way have arrived by now

A single GOAWAY would refuse the calls that the peer had sent before it read it.  Draining starts on
request, at ``age_max_s`` (spread by 10 %, so that clients who came together do not come back together), or
after ``idle_max_s`` without a call.

Source: RFC 9113 section 6.8; gRFC A9.
"""

import math
import random
from typing import Protocol

import attrs
import trio

from trio_serve.transport.alarms import Alarm, Alarms
from trio_serve.wire.http2 import Connection, ErrorCode

DRAIN_PING = b"drain\x00\x00\x00"
DRAIN_PING_TIMEOUT_S = 5.0
LAST_STREAM_ID_MAX = 2**31 - 1
AGE_SPREAD = 0.1


@attrs.frozen
class LifetimeOptions:
    """How old a connection gets.  Seconds; infinity: for ever.

    Args:
        age_max_s: drained at this age, varied by 10 %.
        age_grace_s: how long calls may go on then, before they are cut off.
        idle_max_s: drained when it had no call for so long.
        spread: draws the variation.
    """

    age_max_s: float = math.inf
    age_grace_s: float = math.inf
    idle_max_s: float = math.inf
    spread: random.Random = attrs.field(factory=random.Random, repr=False, eq=False)


class Mortal(Protocol):
    """What a lifetime needs of a connection."""

    wire: Connection

    @property
    def calls(self) -> int: ...
    def send_ping(self, payload: bytes) -> None: ...
    def touch(self) -> None: ...
    def close(self, reason: str, code: ErrorCode = ..., debug: bytes = ...) -> None: ...


class Lifetime:
    """Drains one connection when its time has come."""

    __slots__ = ("_age", "_alarms", "_connection", "_grace", "_idle", "_last_chance", "_options", "draining")

    def __init__(self, connection: Mortal, options: LifetimeOptions, alarms: Alarms) -> None:
        self._connection = connection
        self._options = options
        self._alarms = alarms
        self.draining = False
        self._age: Alarm | None = None
        self._idle: Alarm | None = None
        self._last_chance: Alarm | None = None
        self._grace: Alarm | None = None

    def start(self) -> None:
        options = self._options
        if options.age_max_s != math.inf:
            age_s = options.age_max_s * options.spread.uniform(1 - AGE_SPREAD, 1 + AGE_SPREAD)
            self._age = self._alarms.at(trio.current_time() + age_s, self._grow_old)
        self._wait_idle()

    def stop(self) -> None:
        for alarm in (self._age, self._idle, self._last_chance, self._grace):
            if alarm is not None:
                alarm.cancel()

    def drain(self, grace_s: float) -> None:
        """Begin, or shorten the grace of a drain under way."""
        if grace_s != math.inf:
            if self._grace is not None:
                self._grace.cancel()
            self._grace = self._alarms.at(trio.current_time() + grace_s, self._grace_is_over)
        if self.draining:
            return
        self.draining = True
        self._connection.wire.send_goaway(last_stream_id=LAST_STREAM_ID_MAX)
        self._connection.send_ping(DRAIN_PING)
        self._last_chance = self._alarms.at(trio.current_time() + DRAIN_PING_TIMEOUT_S, self._second_goaway)

    def ping_acknowledged(self, payload: bytes) -> None:
        if payload == DRAIN_PING and self._last_chance is not None and self._last_chance.action is not None:
            self._last_chance.cancel()
            self._second_goaway()

    def last_stream_closed(self) -> None:
        if not self.draining:
            self._wait_idle()
        elif self._last_chance is not None and self._last_chance.action is None:
            self._connection.close("drained")

    def _wait_idle(self) -> None:
        if self._options.idle_max_s != math.inf:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = self._alarms.at(trio.current_time() + self._options.idle_max_s, self._go_if_idle)

    def _go_if_idle(self) -> None:
        if not self._connection.calls:
            self.drain(math.inf)

    def _grow_old(self) -> None:
        self.drain(self._options.age_grace_s)

    def _second_goaway(self) -> None:
        if self._connection.calls:
            self._connection.wire.send_goaway()
            self._connection.touch()
        else:
            self._connection.close("drained")

    def _grace_is_over(self) -> None:
        self._connection.close("the grace of its drain is over")
