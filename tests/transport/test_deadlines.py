"""Deadlines that mostly do not come: exact when they do, forgotten at no cost when they do not."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_serve.transport.alarms import NEAR_S, SHELLS_KEPT, Alarms, Deadlines


class Call:
    """Notes when it expired."""

    def __init__(self, log: list["Call"], seconds: float) -> None:
        self.log = log
        self.deadline = trio.current_time() + seconds
        self.expired_at = math.inf

    def expire(self) -> None:
        self.expired_at = trio.current_time()
        self.log.append(self)


@asynccontextmanager
async def ringing() -> AsyncIterator[Alarms]:
    alarms = Alarms()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        await wait_all_tasks_blocked()
        yield alarms
        nursery.cancel_scope.cancel()


async def test_each_expires_at_its_deadline_and_in_order() -> None:
    """Near ones and far ones, watched in any order, two of them for the same time."""
    expired: list[Call] = []
    async with ringing() as alarms:
        calls = []
        for seconds in (30.0, 0.0, 5.0, 0.25, NEAR_S, 5.0, 1800.0, 5.5, NEAR_S / 2, 29.0):
            calls.append(Call(expired, seconds))
            alarms.deadlines.watch(calls[-1], seconds)
        await trio.sleep(4.9)
        late = Call(expired, 0.3)  # between two that were watched before
        alarms.deadlines.watch(late, 0.3)
        await trio.sleep(2000)

    assert expired == sorted([*calls, late], key=lambda call: call.deadline)
    assert all(call.expired_at == call.deadline for call in expired)


async def test_what_is_over_in_time_never_expires() -> None:
    expired: list[Call] = []
    async with ringing() as alarms:
        near, far, soon_near = (Call(expired, seconds) for seconds in (0.5, 60.0, 3.0))
        for call, seconds in ((near, 0.5), (far, 60.0), (soon_near, 3.0)):
            alarms.deadlines.watch(call, seconds)
        alarms.deadlines.forget(near)
        alarms.deadlines.forget(far)
        alarms.deadlines.forget(far)
        await trio.sleep(2.5)
        alarms.deadlines.forget(soon_near)
        await trio.sleep(100)

    assert expired == []
    assert len(alarms) == 0


async def test_a_call_may_forget_another_as_it_expires() -> None:
    expired: list[Call] = []
    async with ringing() as alarms:
        first, second = Call(expired, 5.0), Call(expired, 5.0)

        def expire() -> None:
            expired.append(first)
            alarms.deadlines.forget(second)

        first.expire = expire  # type: ignore[method-assign]
        alarms.deadlines.watch(first, 5.0)
        alarms.deadlines.watch(second, 5.0)
        await trio.sleep(10)

    assert expired == [first]


async def test_a_crowd_of_far_deadlines_is_looked_through_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However they are strewn: a peer must not be able to make each of them a walk over all."""
    expired: list[Call] = []
    async with ringing() as alarms:
        looks: list[float] = []
        look_through = Deadlines._look_through

        def looking(deadlines: Deadlines) -> None:
            looks.append(trio.current_time())
            look_through(deadlines)

        monkeypatch.setattr(Deadlines, "_look_through", looking)
        for number in range(2000):
            seconds = 10.0 - number / 250  # each earlier than all before
            alarms.deadlines.watch(Call(expired, seconds), seconds)
        await trio.sleep(20)

    assert len(expired) == 2000
    assert len(looks) <= 10
    assert len(alarms._heap) <= 2 * SHELLS_KEPT


async def test_calls_that_come_and_go_leave_nothing_behind() -> None:
    async with ringing() as alarms:
        for number in range(10_000):
            call = Call([], 20.0 + number % 7)
            alarms.deadlines.watch(call, 20.0 + number % 7)
            alarms.deadlines.forget(call)

        assert len(alarms._heap) <= 2 * SHELLS_KEPT
        assert not alarms.deadlines._far
