"""More calls than can be served: the refused are told at once, and what is served is served in time."""

from typing import Any

import trio

from trio_serve.actors.errors import DeadlinePassed
from trio_serve.serving.application import Application
from trio_serve.serving.controller import open_controller
from trio_serve.serving.deployment import deployment
from trio_serve.serving.errors import BackPressureError
from trio_serve.serving.handle import DeploymentHandle

WORK_S = 0.005
DEADLINE_S = 1.0


class Seen:
    """What became of the calls, and how long the refused waited for that."""

    def __init__(self) -> None:
        self.good = 0
        self.late = 0
        self.refused_after: list[float] = []
        self.refusals: list[str] = []


def worker(begun_too_late: list[float], max_queued_requests: int = 10_000) -> Application:
    class Worker:
        async def __call__(self, deadline: float) -> None:
            if trio.current_time() >= deadline:
                begun_too_late.append(trio.current_time() - deadline)
            await trio.sleep(WORK_S)

    return deployment(name="Worker", max_ongoing_requests=1, max_queued_requests=max_queued_requests)(
        Worker
    ).bind()


async def load(handle: DeploymentHandle[Any], times: float, seconds: float) -> Seen:
    """Send so many times what can be served, whatever becomes of it; return when all is answered."""
    seen = Seen()

    async def call() -> None:
        sent = trio.current_time()
        try:
            await handle.remote(sent + DEADLINE_S)
            seen.good += 1
        except BackPressureError as error:
            seen.refused_after.append(trio.current_time() - sent)
            seen.refusals.append(str(error))
        except DeadlinePassed:
            seen.late += 1

    async with trio.open_nursery() as nursery:
        for _ in range(int(seconds * times / WORK_S)):
            nursery.start_soon(call)
            await trio.sleep(WORK_S / times)
    return seen


async def test_with_the_default_queue_the_work_stays_useful_at_any_load() -> None:
    """10,000 places are no bound where a call has 1 s: the wait that is to be expected is."""
    begun_too_late: list[float] = []
    async with open_controller() as controller:
        handle = (await controller.deploy(worker(begun_too_late))).options(timeout_s=DEADLINE_S)
        for times in (2, 5, 10):
            seen = await load(handle, times, 5)
            assert seen.good >= 0.95 * 5 / WORK_S
            assert max(seen.refused_after) == 0.0
            assert seen.late == 0
            assert seen.refusals[0].startswith("Request dropped due to backpressure (num_queued_requests=")
            assert "s left to its deadline." in seen.refusals[0]

            after = await load(handle, 0.8, 1)
            assert not after.refusals
            assert after.late == 0
    assert begun_too_late == []


async def test_a_short_queue_keeps_the_admitted_fast() -> None:
    begun_too_late: list[float] = []
    async with open_controller() as controller:
        application = worker(begun_too_late, max_queued_requests=8)
        handle = (await controller.deploy(application)).options(timeout_s=DEADLINE_S)
        seen = await load(handle, 10, 5)

    assert seen.good >= 0.95 * 5 / WORK_S
    assert set(seen.refusals) == {
        "Request dropped due to backpressure (num_queued_requests=8, max_queued_requests=8)."
    }
    assert max(seen.refused_after) == 0.0
    assert begun_too_late == []


async def test_calls_without_a_deadline_are_queued_as_far_as_the_queue_goes() -> None:
    """However long the wait: nobody said that it matters."""
    async with open_controller() as controller:
        handle = await controller.deploy(worker([], max_queued_requests=300))
        seen = await load(handle, 2, 2)

    assert seen.good == 2 * 2 / WORK_S - len(seen.refusals)
    assert len(seen.refusals) < 2 / WORK_S
    assert all("max_queued_requests=300" in text for text in seen.refusals)


async def test_a_call_with_more_time_is_queued_where_one_with_less_is_refused() -> None:
    async with open_controller() as controller:
        handle = await controller.deploy(worker([]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load, handle, 2, 2)  # 200 wait in the end, for 1 s
            await trio.sleep(1.9)

            refused = handle.options(timeout_s=1.0).remote(trio.current_time() + 1)
            queued = handle.options(timeout_s=10.0).remote(trio.current_time() + 10)
            await queued

            try:
                await refused
            except BackPressureError as error:
                assert error.why
            else:
                raise AssertionError("it was queued behind a second's work, with a second left")
