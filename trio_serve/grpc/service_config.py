"""Service config: what a service's owner recommends to its clients, in gRPC's JSON form.

    {"methodConfig": [{"name": [{"service": "pkg.Greeter"}],
                       "timeout": "1.5s", "waitForReady": true,
                       "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s",
                                       "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}],
     "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
     "loadBalancingConfig": [{"round_robin": {}}]}

Read once, at the door, with every mistake in one error.  The lookup goes from the method over its
service to the default entry, and the first that is there decides alone.

Source: gRPC "Service Config", gRFC A6 (retries and hedging), A2 (names and defaults).
Knows nothing of calls, time or connections.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
from grpclib.const import Status

__all__ = [
    "HedgingPolicy",
    "MethodConfig",
    "RetryPolicy",
    "RetryThrottling",
    "ServiceConfig",
    "TokenBucket",
    "read_service_config",
]

ATTEMPTS_MAX = 5  # gRFC A6: "clients ... treat values greater than 5 as if they were 5"
DURATION = re.compile(r"(\d+)(\.\d{1,9})?s")

T = TypeVar("T")


@attrs.frozen
class RetryPolicy:
    """Try again after a failure, one attempt at a time (gRFC A6, "Retry Policy").  Times in seconds."""

    max_attempts: int
    initial_backoff_s: float
    max_backoff_s: float
    backoff_multiplier: float
    retryable_codes: frozenset[Status]

    def backoff_s(self, retries: int, rng: random.Random) -> float:
        """Seconds to wait before the next retry, after ``retries`` of them since the last pushback."""
        steady = min(self.initial_backoff_s * self.backoff_multiplier**retries, self.max_backoff_s)
        return steady * rng.uniform(0.8, 1.2)


@attrs.frozen
class HedgingPolicy:
    """Send the same call again before an answer came (gRFC A6, "Hedging Policy").  Delay in seconds."""

    max_attempts: int
    hedging_delay_s: float
    non_fatal_codes: frozenset[Status]


@attrs.frozen
class MethodConfig:
    """What applies to one call: ``None`` leaves the choice to the caller."""

    timeout_s: float | None = None
    wait_for_ready: bool | None = None
    request_bytes_max: int | None = None
    reply_bytes_max: int | None = None
    retry: RetryPolicy | None = None
    hedging: HedgingPolicy | None = None


@attrs.frozen
class RetryThrottling:
    """When so many calls fail that further attempts would only add load (gRFC A6, "Throttling")."""

    max_tokens: float
    token_ratio: float


@attrs.frozen
class ServiceConfig:
    """A whole service config; ``for_method`` finds what applies to a path."""

    methods: Mapping[tuple[str, str], MethodConfig] = attrs.field(factory=dict)
    throttling: RetryThrottling | None = None
    balancing: str | None = None

    def for_method(self, path: str) -> MethodConfig:
        """The entry for ``/pkg.Service/Method``: its own, else its service's, else the default one."""
        service, _, method = path.lstrip("/").rpartition("/")
        for name in ((service, method), (service, ""), ("", "")):
            if name in self.methods:
                return self.methods[name]
        return NO_CONFIG


NO_CONFIG = MethodConfig()


class TokenBucket:
    """One channel's retry throttle: failures take a token, successes give ``token_ratio`` back."""

    __slots__ = ("_max", "_ratio", "tokens")

    def __init__(self, throttling: RetryThrottling) -> None:
        self._max = throttling.max_tokens
        self._ratio = throttling.token_ratio
        self.tokens = throttling.max_tokens

    @property
    def allows(self) -> bool:
        """Whether another attempt may be made now."""
        return self.tokens > self._max / 2

    def failed(self) -> None:
        self.tokens = max(0.0, self.tokens - 1)

    def succeeded(self) -> None:
        self.tokens = min(self._max, self.tokens + self._ratio)


def read_service_config(source: str | Mapping[str, Any] | ServiceConfig | None) -> ServiceConfig:
    """Read gRPC's JSON form, as text or already decoded.

    Raises:
        ValueError: with every mistake, one a line, each with its place.
    """
    if isinstance(source, ServiceConfig):
        return source
    if source is None:
        return ServiceConfig()
    mistakes: list[str] = []
    if isinstance(source, str):
        try:
            source = json.loads(source)
        except ValueError as error:
            raise ValueError(f"service config is no JSON: {error}") from None
    config = _Reader("", source, mistakes).service_config()
    if mistakes:
        raise ValueError("service config: " + "\n".join(mistakes))
    return config


class _Reader:
    """One JSON object and where it stands; mistakes are collected, reading goes on."""

    def __init__(self, place: str, value: Any, mistakes: list[str]) -> None:
        self.place = place
        self.mistakes = mistakes
        if not isinstance(value, Mapping):
            self.wrong("", f"must be an object, not {value!r}")
            value = {}
        self.value: Mapping[str, Any] = value

    def wrong(self, key: str, text: str) -> None:
        where = ".".join(part for part in (self.place, key) if part)
        self.mistakes.append(f"{where}: {text}" if where else text)

    def get(self, key: str, read: Callable[[Any], T], wanted: str, default: T) -> T:
        """``read`` the value of ``key``; without one, or with a wrong one, ``default``."""
        value = self.value.get(key)
        if value is None:
            return default
        try:
            return read(value)
        except (ValueError, TypeError, AttributeError):
            self.wrong(key, f"must be {wanted}, not {value!r}")
            return default

    def need(self, key: str, read: Callable[[Any], T], wanted: str, default: T) -> T:
        if self.value.get(key) is None:
            self.wrong(key, f"is missing; it must be {wanted}")
        return self.get(key, read, wanted, default)

    def inside(self, key: str) -> _Reader | None:
        if self.value.get(key) is None:
            return None
        return _Reader(".".join(part for part in (self.place, key) if part), self.value[key], self.mistakes)

    def each(self, key: str) -> list[_Reader]:
        nothing: list[Any] = []
        items = self.get(key, _list, "a list", nothing)
        here = ".".join(part for part in (self.place, key) if part)
        return [_Reader(f"{here}[{number}]", item, self.mistakes) for number, item in enumerate(items)]

    def service_config(self) -> ServiceConfig:
        methods: dict[tuple[str, str], MethodConfig] = {}
        for entry in self.each("methodConfig"):
            config = entry.method_config()
            for name in entry.each("name"):
                names = (name.get("service", _text, "text", ""), name.get("method", _text, "text", ""))
                if names[1] and not names[0]:
                    name.wrong("method", f"{names[1]!r} needs a service beside it")
                if names in methods:
                    name.wrong("", f"{'/'.join(names)!r} has an entry already")
                methods[names] = config
        throttling = self.inside("retryThrottling")
        return ServiceConfig(methods, throttling.retry_throttling() if throttling else None, self.balancing())

    def balancing(self) -> str | None:
        """The first balancing that we have, of ``loadBalancingConfig`` or the older policy's name."""
        wanted = [name for entry in self.each("loadBalancingConfig") for name in entry.value]
        wanted += [self.get("loadBalancingPolicy", _text, "text", "").lower()]
        wanted = [name for name in wanted if name]
        known = [name for name in wanted if name in ("pick_first", "round_robin")]
        if wanted and not known:
            self.wrong("loadBalancingConfig", f"{wanted} has neither 'pick_first' nor 'round_robin'")
        return known[0] if known else None

    def retry_throttling(self) -> RetryThrottling:
        return RetryThrottling(
            self.need("maxTokens", _within(0, 1000), "a number over 0 and at most 1000", 1.0),
            self.need("tokenRatio", _within(0, math.inf), "a number over 0", 1.0),
        )

    def method_config(self) -> MethodConfig:
        retry, hedging = self.inside("retryPolicy"), self.inside("hedgingPolicy")
        if retry and hedging:
            self.wrong("", "has a retryPolicy and a hedgingPolicy; keep one of them")
        return MethodConfig(
            self.get("timeout", _seconds, "seconds such as '1.5s'", None),
            self.get("waitForReady", _truth, "true or false", None),
            self.get("maxRequestMessageBytes", _size, "a number of bytes", None),
            self.get("maxResponseMessageBytes", _size, "a number of bytes", None),
            retry.retry_policy() if retry else None,
            hedging.hedging_policy() if hedging else None,
        )

    def retry_policy(self) -> RetryPolicy:
        duration = "seconds over zero such as '0.1s'"
        policy = RetryPolicy(
            self.need("maxAttempts", _attempts, "a whole number over 1", 2),
            self.need("initialBackoff", _some_seconds, duration, 1.0),
            self.need("maxBackoff", _some_seconds, duration, 1.0),
            self.need("backoffMultiplier", _within(0, math.inf), "a number over 0", 1.0),
            self.need("retryableStatusCodes", _codes, "a list of status codes", frozenset()),
        )
        if self.value.get("retryableStatusCodes") == []:
            self.wrong("retryableStatusCodes", "is empty, so nothing would ever be retried")
        return policy

    def hedging_policy(self) -> HedgingPolicy:
        return HedgingPolicy(
            self.need("maxAttempts", _attempts, "a whole number over 1", 2),
            self.get("hedgingDelay", _seconds, "seconds such as '0.5s'", None) or 0.0,
            self.get("nonFatalStatusCodes", _codes, "a list of status codes", frozenset()),
        )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return list(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _truth(value: Any) -> bool | None:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _seconds(value: Any) -> float | None:
    match = DURATION.fullmatch(value)
    if match is None:
        raise ValueError
    return float(match[1]) + float(match[2] or 0)


def _some_seconds(value: Any) -> float:
    seconds = _seconds(value)
    if not seconds:
        raise ValueError
    return seconds


def _size(value: Any) -> int | None:
    # protobuf's JSON mapping writes 64-bit numbers as text
    if isinstance(value, bool) or int(value) < 0 or int(value) != float(value):
        raise ValueError
    return int(value)


def _attempts(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 2:
        raise ValueError
    return min(value, ATTEMPTS_MAX)


def _within(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value <= high:
            raise ValueError
        return float(value)

    return read


def _codes(value: Any) -> frozenset[Status]:
    by_name = Status.__members__
    codes = []
    for code in _list(value):
        if isinstance(code, str) and code.upper() in by_name:
            codes.append(by_name[code.upper()])
        elif isinstance(code, int) and not isinstance(code, bool):
            codes.append(Status(code))
        else:
            raise ValueError
    return frozenset(codes)
