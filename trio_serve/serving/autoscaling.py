"""Autoscaling: how many replicas a deployment should have, from how many requests it holds.

    load (ongoing + queued) --> LoadWindow --> average --> wanted_replicas --> decide --> set_target_replicas
      every RECORD_INTERVAL_S    look_back_period_s         Ray's formula       delays      the controller's

Three parts, each usable alone: :class:`AutoscalingConfig` (the options, checked all at once), the pure
functions :func:`wanted_replicas` and :func:`decide` (no clock, no state of their own), and
:class:`Autoscaler`, the loop that feeds them and drives one deployment.

Scaling to zero loses nothing: the request that finds no replica stays in the deployment's mailbox, and
:meth:`Autoscaler.wake` asks for replicas in the same moment, not at the next decision.

Source: Ray Serve's documentation of ``autoscaling_config``, and its observed decisions.
Knows nothing of actors, mailboxes or how a replica is started.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from sys import float_info
from typing import Any, Protocol

import attrs
import trio

RECORD_INTERVAL_S = 0.5
"""Seconds between two looks at the load; never more than ``metrics_interval_s``."""

AUTO_MAX_REPLICAS = 100
"""What ``num_replicas="auto"`` allows when ``max_replicas`` is not given, as in Ray."""

_HAIR = 1e-9
"""An average of floats may exceed a whole number by rounding; that must not cost a replica."""

_AGGREGATIONS = ("mean", "max", "min")


class AutoscalingConfigError(ValueError):
    """An ``autoscaling_config`` that cannot be used; ``problems`` holds every reason, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("autoscaling_config: " + "; ".join(problems))
        self.problems = tuple(problems)


@attrs.frozen(kw_only=True)
class AutoscalingConfig:
    """The options of a deployment that scales itself; Ray's names and defaults.

    Args:
        min_replicas: never fewer; 0 lets an idle deployment go away until the next request.
        initial_replicas: how many to start with; None: ``min_replicas``.
        max_replicas: never more.
        target_ongoing_requests: requests, running and queued, that one replica should hold on average.
        metrics_interval_s: seconds between two decisions.
        look_back_period_s: seconds over which the load is averaged.
        upscaling_factor: share of the missing replicas added by one decision; None: 1.
        downscaling_factor: share of the surplus replicas removed by one decision; None: 1.
        upscale_delay_s: seconds that more replicas must have been wanted without a break.
        downscale_delay_s: seconds that fewer must have been wanted without a break.
        downscale_to_zero_delay_s: the same for the last replica; None: ``downscale_delay_s``.
        aggregation_function: "mean", "max" or "min" of the load within the look-back period.
        smoothing_factor: an older name for both factors; the newer names win.
        upscale_smoothing_factor: an older name of ``upscaling_factor``, over ``smoothing_factor``.
        downscale_smoothing_factor: an older name of ``downscaling_factor``, over ``smoothing_factor``.

    Raises:
        AutoscalingConfigError: with every problem at once.
    """

    min_replicas: int = 1
    initial_replicas: int | None = None
    max_replicas: int = 1
    target_ongoing_requests: float = 2
    metrics_interval_s: float = 10.0
    look_back_period_s: float = 30.0
    upscaling_factor: float | None = None
    downscaling_factor: float | None = None
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    downscale_to_zero_delay_s: float | None = None
    aggregation_function: str = "mean"
    smoothing_factor: float | None = None
    upscale_smoothing_factor: float | None = None
    downscale_smoothing_factor: float | None = None

    def __attrs_post_init__(self) -> None:
        if problems := list(_problems(self)):
            raise AutoscalingConfigError(problems)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> AutoscalingConfig:
        """Read the options as YAML or a dict gives them; an unknown name is one more problem.

        Raises:
            AutoscalingConfigError: with every problem at once.
        """
        known = {field.name for field in attrs.fields(cls)}
        unknown = [name for name in options if name not in known]
        try:
            config = cls(**{name: value for name, value in options.items() if name in known})
        except AutoscalingConfigError as error:
            problems = list(error.problems)
        else:
            if not unknown:
                return config
            problems = []
        has = ", ".join(sorted(known))
        problems += [f"there is no option {name!r}; it has {has}" for name in unknown]
        raise AutoscalingConfigError(problems)

    @classmethod
    def auto(cls, options: Mapping[str, Any] | None = None) -> AutoscalingConfig:
        """What ``num_replicas="auto"`` means: 1 to 100 replicas, and whatever ``options`` say instead."""
        return cls.from_mapping({"max_replicas": AUTO_MAX_REPLICAS, **(options or {})})

    @property
    def up_factor(self) -> float:
        """The share of missing replicas that one decision adds, by whichever name it was given."""
        return _first(self.upscaling_factor, self.upscale_smoothing_factor, self.smoothing_factor)

    @property
    def down_factor(self) -> float:
        """The share of surplus replicas that one decision removes, by whichever name it was given."""
        return _first(self.downscaling_factor, self.downscale_smoothing_factor, self.smoothing_factor)

    def clamp(self, replicas: int) -> int:
        """The number of replicas nearest to ``replicas`` that min and max allow."""
        return max(self.min_replicas, min(self.max_replicas, replicas))

    def first_target(self, running: int | None = None) -> int:
        """How many replicas to begin with; a redeployment keeps the ``running`` ones within the bounds."""
        if running is not None:
            return self.clamp(running)
        return self.min_replicas if self.initial_replicas is None else self.initial_replicas


def _first(*factors: float | None) -> float:
    return next((factor for factor in factors if factor is not None), 1.0)


_WHOLE = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 1}
_OVER_ZERO = (
    "target_ongoing_requests",
    "metrics_interval_s",
    "look_back_period_s",
    "upscaling_factor",
    "downscaling_factor",
    "smoothing_factor",
    "upscale_smoothing_factor",
    "downscale_smoothing_factor",
)
_NOT_NEGATIVE = ("upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s")
_MAY_BE_NONE = {field.name for field in attrs.fields(AutoscalingConfig) if field.default is None}


def _problems(config: AutoscalingConfig) -> Iterator[str]:
    whole = True
    for name, least in _WHOLE.items():
        value = getattr(config, name)
        if value is None and name in _MAY_BE_NONE:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            whole = False
            yield f"{name}={value!r} must be a whole number of {least} or more"
    for name in _OVER_ZERO + _NOT_NEGATIVE:
        value = getattr(config, name)
        if value is None and name in _MAY_BE_NONE:
            continue
        bound = "over 0" if name in _OVER_ZERO else "of 0 or more"
        no_number = isinstance(value, bool) or not isinstance(value, Real) or not value <= float_info.max
        if no_number or value < 0 or (value == 0 and name in _OVER_ZERO):
            yield f"{name}={value!r} must be a number {bound}"
    if config.aggregation_function not in _AGGREGATIONS:
        allowed = ", ".join(_AGGREGATIONS)
        yield f"aggregation_function={config.aggregation_function!r} must be one of {allowed}"
    if whole:
        yield from _contradictions(config)


def _contradictions(config: AutoscalingConfig) -> Iterator[str]:
    least, most, first = config.min_replicas, config.max_replicas, config.initial_replicas
    if most < least:
        yield f"max_replicas={most} is below min_replicas={least}"
    elif first is not None and not least <= first <= most:
        yield f"initial_replicas={first} is not between min_replicas={least} and max_replicas={most}"


class LoadWindow:
    """The load of the last ``period_s`` seconds, each sample weighted by how long it held.

    The load is taken to stay as recorded until the next record.  What is older than the period is
    forgotten, so memory is bounded by the period over the interval of the records.
    """

    __slots__ = ("_samples", "period_s")

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self._samples: deque[tuple[float, float]] = deque()

    def record(self, now: float, load: float) -> None:
        """Note the load at ``now`` (seconds, never going back)."""
        self._samples.append((now, load))
        self._forget(now - self.period_s)

    def aggregate(self, now: float, function: str = "mean") -> float:
        """Mean, max or min of the load within the period that ends at ``now``; 0 with no record."""
        if not self._samples:
            return 0.0
        self._forget(now - self.period_s)
        if function == "max":
            return max(load for _, load in self._samples)
        if function == "min":
            return min(load for _, load in self._samples)
        return self._mean(now)

    def _forget(self, edge: float) -> None:
        # The newest sample at or before the edge still tells what held at the edge.
        while len(self._samples) > 1 and self._samples[1][0] <= edge:
            self._samples.popleft()

    def _mean(self, now: float) -> float:
        start = max(self._samples[0][0], now - self.period_s)
        if now <= start:
            return self._samples[-1][1]
        area, until = 0.0, now
        for since, load in reversed(self._samples):
            area += load * (until - max(since, start))
            until = since
        return area / (now - start)


@attrs.frozen
class Streak:
    """Since when every decision has wanted to go the same way."""

    up: bool
    since: float


@attrs.frozen
class Decision:
    """What to do now.

    ``target`` is how many replicas there should be.  While a delay runs, ``streak`` is to be handed to
    the next decision, and ``due`` is when that decision may act (infinity: no delay is running).
    """

    target: int
    streak: Streak | None = None
    due: float = math.inf


def wanted_replicas(config: AutoscalingConfig, requests: float, running: int) -> int:
    """How many replicas the load asks for, with no delay.

    ``running + factor * (requests / target_ongoing_requests - running)``, rounded up and kept within
    the bounds.  A factor below 1 never rounds a surplus away: at least one replica goes.
    """
    ideal = requests / config.target_ongoing_requests
    factor = config.up_factor if ideal > running else config.down_factor
    wanted = math.ceil(running + factor * (ideal - running) - _HAIR)
    if wanted == running and math.ceil(ideal - _HAIR) < running:
        wanted -= 1
    return config.clamp(wanted)


def decide(
    config: AutoscalingConfig,
    *,
    now: float,
    requests: float,
    load: int,
    running: int,
    target: int,
    streak: Streak | None = None,
) -> Decision:
    """Decide on the number of replicas from what is known at ``now``; pure.

    Args:
        config: the deployment's options.
        now: seconds on any clock that does not go back.
        requests: requests ongoing and queued, averaged over the look-back period.
        load: requests ongoing and queued at ``now``; while there is one, the last replica stays.
        running: replicas that serve at ``now``; those still starting do not count.
        target: the replicas that are to be there, by the last decision.
        streak: what the last decision returned.

    A new number is acted upon when it has been wanted, in the same direction, at every decision for the
    delay of that direction.  Three exceptions, as in Ray: with no replica running and a request there,
    replicas are asked for at once; the last replica goes by ``downscale_to_zero_delay_s``, never
    together with others; and a target outside the bounds (they were changed) is corrected at once.
    """
    if target != config.clamp(target):
        return Decision(config.clamp(target))
    if running == 0:
        return Decision(cold_start(config, target) if load else target)
    wanted = max(wanted_replicas(config, requests, running), 1 if load else 0)
    if wanted == target:
        return Decision(target)
    up = wanted > target
    if streak is None or streak.up != up:
        streak = Streak(up, now)
    if not up and target > 1:
        wanted = max(wanted, 1)
    due = streak.since + _delay_s(config, up, target)
    if now >= due:
        return Decision(wanted)
    return Decision(target, streak, due)


def cold_start(config: AutoscalingConfig, target: int) -> int:
    """How many replicas a request asks for that finds none."""
    return max(config.clamp(math.ceil(config.up_factor)), target)


def _delay_s(config: AutoscalingConfig, up: bool, target: int) -> float:
    if up:
        return config.upscale_delay_s
    if target == 1 and config.downscale_to_zero_delay_s is not None:
        return config.downscale_to_zero_delay_s
    return config.downscale_delay_s


class Scalable(Protocol):
    """What the loop asks of a deployment; every method returns at once."""

    def load(self) -> int:
        """Requests running and queued now."""

    def running_replicas(self) -> int:
        """Replicas that serve now."""

    def target_replicas(self) -> int:
        """Replicas that are to be there, by the last ``set_target_replicas``."""

    def set_target_replicas(self, replicas: int) -> None:
        """Begin to start or stop replicas until there are so many."""


class Autoscaler:
    """The loop that keeps one deployment at the size that its load asks for.

    The counters are for whoever exports metrics: ``decisions`` taken, and how many of them changed the
    number of replicas, ``upscales`` and ``downscales``.
    """

    __slots__ = (
        "_config",
        "_decide_at",
        "_deployment",
        "_due",
        "_streak",
        "_window",
        "decisions",
        "downscales",
        "upscales",
    )

    def __init__(self, config: AutoscalingConfig, deployment: Scalable) -> None:
        self._config = config
        self._deployment = deployment
        self._window = LoadWindow(config.look_back_period_s)
        self._streak: Streak | None = None
        self._due = math.inf
        self._decide_at = -math.inf
        self.decisions = self.upscales = self.downscales = 0

    @property
    def config(self) -> AutoscalingConfig:
        """The options now in force."""
        return self._config

    async def run(self) -> None:
        """Watch the load and decide, until cancelled.

        A decision falls every ``metrics_interval_s`` and at the very moment when a delay has passed.
        """
        while True:
            now, load = trio.current_time(), self._deployment.load()
            self._window.record(now, load)
            if load:
                # A request may have been queued behind the last replica just as it went: nobody woke us.
                self.wake()
            if now >= min(self._decide_at, self._due):
                self._decide(now)
            record_every = min(RECORD_INTERVAL_S, self._config.metrics_interval_s)
            await trio.sleep_until(min(now + record_every, self._decide_at, self._due))

    def wake(self) -> None:
        """Ask for replicas at once because a request found none; otherwise nothing happens.

        To be called, from the Trio thread, whenever a request is queued on a deployment whose target is
        0.  Works whether or not :meth:`run` has begun.
        """
        if self._deployment.target_replicas() == 0:
            self._move(cold_start(self._config, 0))
            self._forget_streak()

    def reconfigure(self, config: AutoscalingConfig) -> None:
        """Use other options from now on; a target outside the new bounds is corrected at once."""
        self._config = config
        self._window.period_s = config.look_back_period_s
        self._forget_streak()
        self._decide_at = -math.inf
        self._move(config.clamp(self._deployment.target_replicas()))

    def _decide(self, now: float) -> None:
        self._decide_at = now + self._config.metrics_interval_s
        # Once a number has changed, the next delay starts to run now and not an interval later.  With
        # delays of 0 the longest way is from many to one, to none.
        for _ in range(3):
            if not self._decide_once(now):
                break

    def _decide_once(self, now: float) -> bool:
        target = self._deployment.target_replicas()
        decision = decide(
            self._config,
            now=now,
            requests=self._window.aggregate(now, self._config.aggregation_function),
            load=self._deployment.load(),
            running=self._deployment.running_replicas(),
            target=target,
            streak=self._streak,
        )
        self.decisions += 1
        self._streak, self._due = decision.streak, decision.due
        self._move(decision.target)
        return decision.target != target

    def _move(self, target: int) -> None:
        before = self._deployment.target_replicas()
        if target == before:
            return
        if target > before:
            self.upscales += 1
        else:
            self.downscales += 1
        self._deployment.set_target_replicas(target)

    def _forget_streak(self) -> None:
        self._streak, self._due = None, math.inf
