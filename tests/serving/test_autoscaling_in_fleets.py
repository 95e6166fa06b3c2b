"""Autoscaling behind handles: real replicas, real queues, virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio

from trio_serve.serving.application import Application
from trio_serve.serving.controller import Controller, open_controller
from trio_serve.serving.deployment import deployment

MINUTE = 60


@asynccontextmanager
async def serving(application: Application) -> AsyncIterator[tuple[Controller, Any]]:
    async with open_controller(random=Random(1)) as controller:
        yield controller, await controller.deploy(application)


class Census:
    """Counts the replicas alive."""

    alive = 0
    most = 0
    start_s = 0.0

    async def __init__(self) -> None:  # type: ignore[misc]
        await trio.sleep(Census.start_s)
        Census.alive += 1
        Census.most = max(Census.most, Census.alive)

    async def __del__(self) -> None:
        Census.alive -= 1

    async def __call__(self, seconds: float = 0) -> float:
        await trio.sleep(seconds)
        return seconds


@pytest.fixture(autouse=True)
def no_census() -> None:
    Census.alive = Census.most = 0
    Census.start_s = 0.0


def scaled(**config: Any) -> Application:
    options = {"min_replicas": 0, "max_replicas": 4, "downscale_delay_s": 60, "look_back_period_s": 10}
    return deployment(max_ongoing_requests=2, autoscaling_config={**options, **config})(Census).bind()


async def test_the_call_that_wakes_a_deployment_is_answered() -> None:
    Census.start_s = 7
    async with serving(scaled()) as (_, handle):
        await trio.sleep(MINUTE)
        assert Census.alive == 0

        start = trio.current_time()
        assert await handle.remote(1.5) == 1.5
        assert trio.current_time() - start == pytest.approx(8.5, abs=0.1)
        assert Census.alive == 1


async def test_to_zero_and_back_again_and_again() -> None:
    async with serving(scaled()) as (_, handle):
        for _ in range(10):
            assert await handle.remote(1) == 1
            await trio.sleep(3 * MINUTE)
            assert Census.alive == 0


async def test_replicas_follow_the_load_up_and_down() -> None:
    async with serving(scaled(min_replicas=1)) as (_, handle):
        calls = [handle.remote(3 * MINUTE) for _ in range(8)]
        await trio.sleep(2 * MINUTE)
        assert Census.alive == 4
        for call in calls:
            await call
        await trio.sleep(10 * MINUTE)
        assert Census.alive == 1


async def test_calls_that_come_while_the_last_replica_goes_are_answered_soon() -> None:
    """Bursts around each moment at which the last replica may be going, more than it can take at once."""
    for offset in range(20):
        async with serving(scaled(min_replicas=0)) as (_, handle):
            await handle.remote(0)
            await trio.sleep(59.8 + offset * 0.7)
            start = trio.current_time()
            calls = [handle.remote(1) for _ in range(6)]
            for call in calls:
                assert await call == 1
            assert trio.current_time() - start < 5


async def test_a_call_that_waits_as_the_last_replica_goes_wakes_the_deployment_in_that_moment() -> None:
    """It came while there was a replica, so its own arrival has asked for none."""
    async with serving(scaled()) as (controller, handle):
        at_work = [handle.remote(10), handle.remote(10)]
        waiting = handle.remote(1)
        await trio.sleep(1.1)
        (fleet,) = controller.applications["default"].fleets.values()

        fleet.set_target_replicas(0)
        start = trio.current_time()

        assert await waiting == 1
        assert trio.current_time() - start == pytest.approx(1, abs=0.01)
        for call in at_work:
            assert await call == 10
