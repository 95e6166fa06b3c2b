"""When a call is tried again: retries one after the other, hedges side by side.

    Retrying   attempt ──fails──> backoff ──> attempt ──fails──> longer backoff ──> attempt ──> answer
    Hedging    attempt ───────────────────────────────────────────────────────> dropped
                  └ hedging_delay ─> attempt ───────────────────> answer: committed

The server may push back: ``grpc-retry-pushback-ms`` says when the next attempt may come, or, being
negative or unreadable, that none may.  The channel's throttle stops both while too many calls fail.

Source: gRFC A6.
Knows nothing of streams and of requests.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import trio

from trio_serve.grpc.service_config import HedgingPolicy, MethodConfig, RetryPolicy, TokenBucket
from trio_serve.transport.alarms import Alarm, Alarms
from trio_serve.wire.grpc import Metadata, Status, Trailers

if TYPE_CHECKING:
    from trio_serve.grpc.outgoing_call import Again, OutgoingCall

__all__ = ["Hedging", "RetrySettings", "Retrying", "pushback_s"]

PUSHBACK = "grpc-retry-pushback-ms"


class RetrySettings:
    """What one channel's retries and hedges share: the clock, chance, and the throttle."""

    __slots__ = ("alarms", "rng", "throttle")

    def __init__(self, alarms: Alarms, rng: random.Random, throttle: TokenBucket | None) -> None:
        self.alarms = alarms
        self.rng = rng
        self.throttle = throttle

    def again(self, call: OutgoingCall, config: MethodConfig) -> Again | None:
        """The policy that ``config`` has for ``call``, if any."""
        if config.retry is not None:
            return Retrying(call, config.retry, self)
        if config.hedging is not None:
            return Hedging(call, config.hedging, self)
        return None

    def failed(self) -> None:
        if self.throttle is not None:
            self.throttle.failed()

    def succeeded(self) -> None:
        if self.throttle is not None:
            self.throttle.succeeded()

    @property
    def allowed(self) -> bool:
        return self.throttle is None or self.throttle.allows


def pushback_s(metadata: Metadata) -> float | None:
    """Seconds that the server asks to wait; ``inf`` for no further attempt, None if it is silent."""
    for key, value in metadata:
        if key == PUSHBACK:
            text = value if isinstance(value, str) else ""
            return int(text) / 1000 if text.isascii() and text.isdigit() else math.inf
    return None


class Retrying:
    """One call's retries (an ``Again``)."""

    __slots__ = ("_alarm", "_call", "_made", "_policy", "_settings", "_since_pushback")

    def __init__(self, call: OutgoingCall, policy: RetryPolicy, settings: RetrySettings) -> None:
        self._call = call
        self._policy = policy
        self._settings = settings
        self._made = 1
        self._since_pushback = 0
        self._alarm: Alarm | None = None

    def started(self) -> None:
        """The first attempt needs nothing from us."""

    def attempt_ended(self, end: Trailers, *, committed: bool, others: bool) -> bool:
        """Whether a retry follows; it is armed then."""
        if end.status not in self._policy.retryable_codes:
            if end.status is Status.OK:
                self._settings.succeeded()
            return False
        self._settings.failed()
        pushback = pushback_s(end.metadata)
        if committed or pushback == math.inf or self._made >= self._policy.max_attempts:
            return False
        if not self._settings.allowed:
            return False
        if pushback is None:
            delay_s = self._policy.backoff_s(self._since_pushback, self._settings.rng)
            self._since_pushback += 1
        else:
            delay_s = pushback
            self._since_pushback = 0
        self._alarm = self._settings.alarms.at(trio.current_time() + delay_s, self._retry)
        return True

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _retry(self) -> None:
        self._alarm = None
        self._made += 1
        self._call.try_now(self._made - 1)


class Hedging:
    """One call's hedges (an ``Again``)."""

    __slots__ = ("_alarm", "_call", "_made", "_policy", "_settings")

    def __init__(self, call: OutgoingCall, policy: HedgingPolicy, settings: RetrySettings) -> None:
        self._call = call
        self._policy = policy
        self._settings = settings
        self._made = 1
        self._alarm: Alarm | None = None

    def started(self) -> None:
        """Arm the second attempt."""
        self._arm(self._policy.hedging_delay_s)

    def attempt_ended(self, end: Trailers, *, committed: bool, others: bool) -> bool:
        """Whether the call goes on: another attempt is under way, or one will be."""
        if end.status not in self._policy.non_fatal_codes:
            if end.status is Status.OK:
                self._settings.succeeded()
            return False
        self._settings.failed()
        if committed:
            return False
        pushback = pushback_s(end.metadata)
        if pushback == math.inf:
            self._made = self._policy.max_attempts
            self.stop()
        else:
            self._arm(pushback or 0.0)
        return others or self._alarm is not None

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _arm(self, delay_s: float) -> None:
        self.stop()
        if self._call.end is None and self._made < self._policy.max_attempts and self._settings.allowed:
            self._alarm = self._settings.alarms.at(trio.current_time() + delay_s, self._hedge)

    def _hedge(self) -> None:
        self._alarm = None
        if self._settings.allowed:
            self._made += 1
            self._arm(self._policy.hedging_delay_s)
            self._call.try_now(self._made - 1)
