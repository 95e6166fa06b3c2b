"""Alarms ring at their time, in order, and cost nothing once they are cancelled."""

import math

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_serve.transport.alarms import SHELLS_KEPT, Alarms


async def test_alarms_ring_at_their_time_and_in_order() -> None:
    alarms = Alarms()
    start = trio.current_time()
    rang: list[tuple[str, float]] = []

    def ring(name: str) -> None:
        rang.append((name, trio.current_time() - start))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        await wait_all_tasks_blocked()
        for name, seconds in [("late", 9.0), ("early", 1.0), ("middle", 5.0), ("now", 0.0)]:
            alarms.at(start + seconds, lambda name=name: ring(name))  # type: ignore[misc]
        alarms.at(math.inf, lambda: ring("never"))
        await trio.sleep(100)
        nursery.cancel_scope.cancel()

    assert rang == [("now", 0.0), ("early", 1.0), ("middle", 5.0), ("late", 9.0)]


async def test_a_cancelled_alarm_never_rings() -> None:
    alarms = Alarms()
    rang: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        first = alarms.at(trio.current_time() + 1, lambda: rang.append(1))
        alarms.at(trio.current_time() + 2, lambda: rang.append(2))
        first.cancel()
        first.cancel()
        await trio.sleep(5)
        nursery.cancel_scope.cancel()

    assert rang == [2]
    assert len(alarms) == 0


async def test_an_alarm_that_sets_another_and_one_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    alarms = Alarms()
    rang: list[float] = []

    def again() -> None:
        rang.append(trio.current_time())
        alarms.at(trio.current_time() + 1, again)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        alarms.at(trio.current_time() + 0.5, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        alarms.at(trio.current_time() + 1, again)
        await trio.sleep(3.5)
        nursery.cancel_scope.cancel()

    assert len(rang) == 3
    assert "ZeroDivisionError" in caplog.text


async def test_cancelled_alarms_do_not_pile_up() -> None:
    alarms = Alarms()
    armed = [alarms.at(trio.current_time() + 1e6, lambda: None) for _ in range(10)]
    for _ in range(10_000):
        alarms.at(trio.current_time() + 100, lambda: None).cancel()

    assert len(alarms) == len(armed)
    assert len(alarms._heap) <= 2 * (SHELLS_KEPT + len(armed))
