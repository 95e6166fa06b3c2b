"""The loop that scales one deployment, in virtual time: when it acts, and that waking loses nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from trio_serve.serving.autoscaling import Autoscaler, AutoscalingConfig

MINUTE = 60


class Workshop:
    """A deployment as the loop sees it: replicas take ``start_s`` to start, requests wait for one."""

    def __init__(self, nursery: trio.Nursery, target: int, start_s: float = 0) -> None:
        self.nursery = nursery
        self.start_s = start_s
        self.ongoing = 0
        self.queued = 0
        self.running = self.target = target
        self.changes: list[tuple[float, int]] = []
        self.autoscaler: Autoscaler | None = None

    def load(self) -> int:
        return self.ongoing + self.queued

    def running_replicas(self) -> int:
        return self.running

    def target_replicas(self) -> int:
        return self.target

    def set_target_replicas(self, replicas: int) -> None:
        self.changes.append((trio.current_time(), replicas))
        self.target = replicas
        self.running = min(self.running, replicas)
        if self.start_s:
            self.nursery.start_soon(self._start, replicas)
        else:
            self._started(replicas)

    async def _start(self, replicas: int) -> None:
        await trio.sleep(self.start_s)
        self._started(min(replicas, self.target))

    def _started(self, running: int) -> None:
        self.running = running
        if running:
            self.ongoing, self.queued = self.ongoing + self.queued, 0

    def send_request(self) -> None:
        if self.running:
            self.ongoing += 1
        else:
            self.queued += 1
            assert self.autoscaler is not None
            self.autoscaler.wake()


@asynccontextmanager
async def autoscaled(
    config: AutoscalingConfig, target: int | None = None, start_s: float = 0
) -> AsyncIterator[Workshop]:
    async with trio.open_nursery() as nursery:
        workshop = Workshop(nursery, config.first_target(target), start_s)
        workshop.autoscaler = Autoscaler(config, workshop)
        nursery.start_soon(workshop.autoscaler.run)
        yield workshop
        nursery.cancel_scope.cancel()


def since(start: float, workshop: Workshop) -> list[tuple[float, int]]:
    return [(round(time - start, 6), replicas) for time, replicas in workshop.changes]


async def test_half_an_hour_of_silence_scales_down_in_milliseconds() -> None:
    """From 8 replicas, 15 minutes each to one and to none, to the very second."""
    config = AutoscalingConfig(min_replicas=0, max_replicas=8, downscale_delay_s=15 * MINUTE)
    start = trio.current_time()

    async with autoscaled(config, target=8) as workshop:
        await trio.sleep(31 * MINUTE)

    assert since(start, workshop) == [(15 * MINUTE, 1), (30 * MINUTE, 0)]


async def test_a_steady_load_is_met_after_the_upscale_delay() -> None:
    config = AutoscalingConfig(max_replicas=10, target_ongoing_requests=2, upscale_delay_s=30)
    start = trio.current_time()

    async with autoscaled(config) as workshop:
        workshop.ongoing = 12
        await trio.sleep(5 * MINUTE)

    assert since(start, workshop) == [(30, 6)]


async def test_the_delay_ends_between_two_decisions_and_is_acted_upon_then() -> None:
    config = AutoscalingConfig(max_replicas=10, upscale_delay_s=13.7, metrics_interval_s=10)
    start = trio.current_time()

    async with autoscaled(config) as workshop:
        workshop.ongoing = 8
        await trio.sleep(MINUTE)

    assert since(start, workshop) == [(13.7, 4)]


async def test_a_short_burst_changes_nothing() -> None:
    """Three seconds over the target, seen by one decision, forgotten before the delay ends."""
    config = AutoscalingConfig(max_replicas=10, target_ongoing_requests=2)

    async with autoscaled(config) as workshop:
        await trio.sleep(8)
        workshop.ongoing = 8
        await trio.sleep(3)
        workshop.ongoing = 0
        await trio.sleep(5 * MINUTE)

    assert workshop.changes == []


async def test_the_look_back_period_decides_how_fast_a_new_load_is_believed() -> None:
    """With no delay, the number follows the average over the last 20 s, decision by decision."""
    config = AutoscalingConfig(
        max_replicas=100,
        target_ongoing_requests=1,
        look_back_period_s=20,
        metrics_interval_s=5,
        upscale_delay_s=0,
    )
    start = trio.current_time()

    async with autoscaled(config) as workshop:
        await trio.sleep(20.25)
        workshop.ongoing = 40
        await trio.sleep(MINUTE)

    # The load is looked at every half second, so it is known from 20.5 s on.
    assert since(start, workshop) == [(25, 9), (30, 19), (35, 29), (40, 39), (45, 40)]


async def test_the_request_that_wakes_an_idle_deployment_is_served() -> None:
    """Nothing runs; a request comes between two decisions; it is served as soon as a replica has started."""
    config = AutoscalingConfig(min_replicas=0, max_replicas=3)
    start = trio.current_time()

    async with autoscaled(config, start_s=2) as workshop:
        await trio.sleep(1234.5)
        workshop.send_request()
        assert workshop.queued == 1
        await trio.sleep(1.9)
        assert workshop.queued == 1
        await trio.sleep(0.2)

        assert (workshop.queued, workshop.ongoing) == (0, 1)
    assert since(start, workshop) == [(1234.5, 1)]


async def test_a_request_queued_just_as_the_last_replica_went_is_found_within_half_a_second() -> None:
    """When it was queued the replica was still there, so nobody called wake."""
    config = AutoscalingConfig(min_replicas=0, max_replicas=3, metrics_interval_s=60)
    start = trio.current_time()

    async with autoscaled(config) as workshop:
        await trio.sleep(100.1)
        workshop.queued = 1
        await trio.sleep(1)

        assert workshop.ongoing == 1
    ((time, replicas),) = since(start, workshop)
    assert replicas == 1
    assert 100.1 <= time <= 100.6


async def test_a_second_request_while_waking_asks_for_nothing_more() -> None:
    config = AutoscalingConfig(min_replicas=0, max_replicas=3)

    async with autoscaled(config, start_s=2) as workshop:
        workshop.send_request()
        workshop.send_request()
        await trio.sleep(5)

        assert workshop.ongoing == 2
    assert [replicas for _, replicas in workshop.changes] == [1]


async def test_down_to_zero_and_back_again_and_again() -> None:
    config = AutoscalingConfig(min_replicas=0, max_replicas=2, downscale_delay_s=60, look_back_period_s=10)
    served = 0

    async with autoscaled(config, start_s=1) as workshop:
        for _ in range(25):
            workshop.send_request()
            await trio.sleep(5)
            served += workshop.ongoing
            workshop.ongoing = 0
            await trio.sleep(2 * MINUTE)
            assert workshop.running == 0

    assert served == 25
    assert [replicas for _, replicas in workshop.changes] == [1, 0] * 25


async def test_the_last_replica_is_kept_for_a_request_of_this_very_moment() -> None:
    """The request arrives at the second at which the last replica would have gone."""
    config = AutoscalingConfig(min_replicas=0, max_replicas=1, downscale_delay_s=60)

    async with autoscaled(config, target=1) as workshop:
        await trio.sleep(59.9)
        workshop.send_request()
        await trio.sleep(600)

        assert workshop.ongoing == 1
    assert workshop.changes == []


async def test_slow_starts_do_not_pile_up_replicas() -> None:
    """Replicas need 100 s to start; the same shortage seen at each decision is not added up."""
    config = AutoscalingConfig(max_replicas=50, upscale_delay_s=0, look_back_period_s=5)

    async with autoscaled(config, start_s=100) as workshop:
        workshop.ongoing = 20
        await trio.sleep(90)

    assert [replicas for _, replicas in workshop.changes] == [10]


async def test_new_bounds_are_obeyed_at_once_and_the_old_delay_is_forgotten() -> None:
    config = AutoscalingConfig(max_replicas=10, upscale_delay_s=30)
    start = trio.current_time()

    async with autoscaled(config) as workshop:
        workshop.ongoing = 20
        await trio.sleep(25)
        assert workshop.autoscaler is not None
        workshop.autoscaler.reconfigure(attrs.evolve(config, min_replicas=2))
        await trio.sleep(MINUTE)

    assert since(start, workshop)[0] == (25, 2)
    time, replicas = since(start, workshop)[1]
    assert replicas == 10
    assert 55 <= time <= 56, "thirty seconds after the change"


async def test_the_counters_tell_what_was_decided() -> None:
    config = AutoscalingConfig(
        max_replicas=4, upscale_delay_s=0, downscale_delay_s=0, look_back_period_s=1, metrics_interval_s=1
    )

    async with autoscaled(config) as workshop:
        workshop.ongoing = 8
        await trio.sleep(5)
        workshop.ongoing = 2
        await trio.sleep(5)

        assert workshop.autoscaler is not None
        scaler = workshop.autoscaler
        assert (scaler.upscales, scaler.downscales) == (1, len(workshop.changes) - 1)
        assert scaler.decisions >= 10
        assert workshop.target == 1


@pytest.mark.parametrize("start_s", [0, 7])
async def test_a_deployment_that_refuses_is_not_asked_in_a_hot_loop(start_s: float) -> None:
    """Being deleted, it ignores the number; the loop goes on at its own pace."""
    config = AutoscalingConfig(max_replicas=4, upscale_delay_s=0)

    async with autoscaled(config, start_s=start_s) as workshop:
        workshop.set_target_replicas = lambda replicas: workshop.changes.append((0, replicas))  # type: ignore[method-assign]
        workshop.ongoing = 8
        await trio.sleep(MINUTE)

    assert len(workshop.changes) <= 3 * 7
