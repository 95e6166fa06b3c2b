"""More calls than can be served: the refused are told at once, and what is served is served in time.

Which calls are queued is `test_admission`'s; here are deployments that keep to it.
"""

from typing import Any

import pytest
import trio

from trio_serve.actors.errors import DeadlinePassed
from trio_serve.serving.application import Application
from trio_serve.serving.controller import Controller, open_controller
from trio_serve.serving.deployment import deployment
from trio_serve.serving.errors import BackPressureError
from trio_serve.serving.handle import DeploymentHandle

WORK_S = 0.02
DEADLINE_S = 1.0
ONSET_S = 3.5
"""When the queue of the first seconds is gone."""


class Seen:
    """What became of the calls: when each was sent, and how long its answer took."""

    def __init__(self) -> None:
        self.good: list[tuple[float, float]] = []
        self.late = 0
        self.refused_after: list[float] = []
        self.refusals: list[str] = []

    def answered(self, until: float) -> int:
        return sum(1 for sent, took in self.good if sent + took < until)

    def p99(self, sent_from: float = 0.0) -> float:
        times = sorted(took for sent, took in self.good if sent >= sent_from)
        return times[int(0.99 * len(times))]


def worker(begun_too_late: list[float] | None = None, **options: Any) -> Application:
    class Worker:
        async def __call__(self, deadline: float) -> None:
            if trio.current_time() >= deadline and begun_too_late is not None:
                begun_too_late.append(trio.current_time() - deadline)
            await trio.sleep(WORK_S)

    return deployment(**{"name": "Worker", "max_ongoing_requests": 1, **options})(Worker).bind()


async def deploy(controller: Controller, application: Application) -> DeploymentHandle[Any]:
    return (await controller.deploy(application)).options(timeout_s=DEADLINE_S)


async def load(handle: DeploymentHandle[Any], times: float, seconds: float) -> Seen:
    """Send so many times what can be served, whatever becomes of it; return when all are answered."""
    seen = Seen()
    began = trio.current_time()

    async def call() -> None:
        sent = trio.current_time()
        try:
            await handle.remote(sent + DEADLINE_S)
            seen.good.append((sent - began, trio.current_time() - sent))
        except BackPressureError as error:
            seen.refused_after.append(trio.current_time() - sent)
            seen.refusals.append(str(error))
        except DeadlinePassed:
            seen.late += 1

    async with trio.open_nursery() as nursery:
        for k in range(int(seconds * times / WORK_S)):
            await trio.sleep_until(began + k * WORK_S / times)
            nursery.start_soon(call)
    return seen


@pytest.mark.parametrize("options", [{}, {"num_replicas": 2, "max_ongoing_requests": 2}])
async def test_with_the_default_queue_the_work_stays_useful_and_the_answers_quick(
    options: dict[str, Any],
) -> None:
    """10,000 places are no bound where a call has 1 s: a queue that does not go away is."""
    slots = options.get("num_replicas", 1) * options.get("max_ongoing_requests", 1)
    begun_too_late: list[float] = []
    async with open_controller() as controller:
        handle = await deploy(controller, worker(begun_too_late, **options))
        seen = await load(handle, 3 * slots, 6 if slots == 1 else 4)

        assert seen.answered(4) >= 0.95 * slots * 4 / WORK_S
        assert seen.p99(ONSET_S) <= 0.1
        assert max(seen.refused_after) == 0.0
        assert seen.late == 0
        assert seen.refusals[0].startswith("Request dropped due to backpressure (num_queued_requests=")
        assert "in a queue that does not go away." in seen.refusals[-1]

        after = await load(handle, 0.8 * slots, 1)
        assert not after.refusals
        assert after.late == 0
    assert begun_too_late == []


async def test_calls_that_wait_for_the_first_replica_are_no_overload() -> None:
    """It takes 5 s to start while calls wait; those that come next are not refused for that."""

    @deployment(
        name="Slow", max_ongoing_requests=1, num_replicas="auto", autoscaling_config={"min_replicas": 0}
    )
    class Slow:
        async def __init__(self) -> None:
            await trio.sleep(5)

        async def __call__(self, deadline: float) -> None:
            await trio.sleep(WORK_S)

    refused = []
    async with open_controller() as controller:
        handle = (await controller.deploy(Slow.bind())).options(timeout_s=1.0)
        patient = [handle.options(timeout_s=60.0).remote(trio.current_time() + 60) for _ in range(20)]
        await patient[0]
        for _ in range(20):
            try:
                await handle.remote(trio.current_time() + 1)
            except BackPressureError as error:
                refused.append(error)

    assert refused == []


async def test_a_short_queue_keeps_the_admitted_fast_from_the_first() -> None:
    begun_too_late: list[float] = []
    async with open_controller() as controller:
        handle = await deploy(controller, worker(begun_too_late, max_queued_requests=2))
        seen = await load(handle, 10, 5)

    assert seen.answered(5) >= 0.95 * 5 / WORK_S
    assert seen.p99() <= 0.1
    assert set(seen.refusals) == {
        "Request dropped due to backpressure (num_queued_requests=2, max_queued_requests=2)."
    }
    assert max(seen.refused_after) == 0.0
    assert begun_too_late == []


async def test_without_load_shedding_only_a_full_queue_refuses() -> None:
    async with open_controller() as controller:
        application = worker(load_shedding=False, max_queued_requests=45)
        handle = await deploy(controller, application)
        seen = await load(handle, 2, 5)

    assert set(seen.refusals) == {
        "Request dropped due to backpressure (num_queued_requests=45, max_queued_requests=45)."
    }
    assert seen.p99() > 0.9 * DEADLINE_S


async def test_calls_without_a_deadline_are_queued_as_far_as_the_queue_goes() -> None:
    """However long the wait: nobody said that it matters."""
    async with open_controller() as controller:
        handle = await controller.deploy(worker(max_queued_requests=150))
        seen = await load(handle, 2, 4)

    assert len(seen.good) == 2 * 4 / WORK_S - len(seen.refusals)
    assert len(seen.refusals) < 2 / WORK_S
    assert all("max_queued_requests=150" in text for text in seen.refusals)


async def test_a_call_with_more_time_is_queued_where_one_with_less_is_refused() -> None:
    async with open_controller() as controller:
        handle = await controller.deploy(worker())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, handle, 2, 2)  # 50 wait in the end, for 1 s
            await trio.sleep(1.9)

            refused = handle.options(timeout_s=1.0).remote(trio.current_time() + 1)
            queued = handle.options(timeout_s=10.0).remote(trio.current_time() + 10)
            await queued

            with pytest.raises(BackPressureError) as caught:
                await refused
            assert "s left to its deadline." in caught.value.why
