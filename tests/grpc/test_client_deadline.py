"""Alarms ring at their time, once, and those that nobody needs any more take no room."""

import math

import trio
import trio.testing

from trio_serve.grpc.deadline import Alarms, current_deadline, inherited_deadline


class Bell:
    def __init__(self) -> None:
        self.over = False
        self.rung: list[float] = []

    def ring(self) -> None:
        self.rung.append(trio.current_time())


async def test_alarms_ring_at_their_time_in_order() -> None:
    """The earliest is set last, while the clock already waits for a later one."""
    alarms = Alarms()
    late, early = Bell(), Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        alarms.set(5.5, late)
        await trio.testing.wait_all_tasks_blocked()
        alarms.set(1.25, early)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert (early.rung, late.rung) == ([1.25], [5.5])


async def test_an_alarm_that_is_over_does_not_ring() -> None:
    alarms = Alarms()
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        alarms.set(1, bell)
        bell.over = True
        alarms.unset()
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert bell.rung == []


async def test_a_hundred_thousand_unneeded_alarms_take_the_room_of_a_few() -> None:
    """Every call of a busy client sets a far deadline and ends long before it."""
    alarms = Alarms()
    for _ in range(100_000):
        bell = Bell()
        alarms.set(3000, bell)
        bell.over = True
        alarms.unset()
        assert len(alarms) <= 130
    living = Bell()
    alarms.set(7, living)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        await trio.sleep(8)
        nursery.cancel_scope.cancel()
    assert living.rung == [7]


async def test_the_deadline_inherited_is_the_earlier_of_the_call_and_the_scope() -> None:
    assert inherited_deadline() == 3600  # the bound of every test, from conftest
    token = current_deadline.set(20)
    assert inherited_deadline() == 20
    with trio.CancelScope(deadline=10):
        assert inherited_deadline() == 10
        await trio.lowlevel.checkpoint()
    current_deadline.reset(token)
    assert current_deadline.get() == math.inf
