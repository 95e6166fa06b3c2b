"""Children are started, restarted and stopped as OTP does it, but a crash loop only slows down."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_serve.actors import Backoff, Death, RestartIntensity, Supervisor


class Person:
    """A child that lives until its time comes, or until it is told to stop."""

    def __init__(self, name: str, log: list[str], lives_s: float = 1e9, born_s: float = 0) -> None:
        self.name, self.log, self.lives_s, self.born_s = name, log, lives_s, born_s
        self.stopped = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(self.born_s)
        if self.lives_s < 0:
            raise ValueError(f"{self.name} was not fit to live")
        task_status.started()
        self.log.append(f"{self.name} ready")
        with trio.move_on_after(self.lives_s) as scope:
            await self.stopped.wait()
        if scope.cancelled_caught:
            raise RuntimeError(f"{self.name} died")
        self.log.append(f"{self.name} stopped")

    async def stop(self) -> None:
        self.stopped.set()
        await trio.sleep(1)


class Chronicle:
    def __init__(self) -> None:
        self.deaths: list[tuple[float, Death]] = []
        self.births: list[float] = []

    def child_ready(self, child: Person) -> None:
        self.births.append(trio.current_time())

    def child_died(self, child: Person, death: Death) -> None:
        self.deaths.append((trio.current_time(), death))


@asynccontextmanager
async def supervising(
    restarts_max: int = 3, period_s: float = 100
) -> AsyncIterator[tuple[Supervisor[Person], Chronicle]]:
    chronicle = Chronicle()
    supervisor: Supervisor[Person] = Supervisor(
        chronicle, backoff=Backoff(0.1, 2, 10), intensity=RestartIntensity(restarts_max, period_s)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        yield supervisor, chronicle
        nursery.cancel_scope.cancel()


async def test_start_returns_when_the_child_is_ready() -> None:
    log: list[str] = []
    async with supervising() as (supervisor, _):
        begun = trio.current_time()
        await supervisor.start(lambda: Person("a", log, born_s=5))
        assert trio.current_time() == begun + 5


async def test_a_child_that_never_was_ready_raises_its_own_error_and_is_not_kept() -> None:
    async with supervising() as (supervisor, chronicle):
        with pytest.raises(ValueError, match="not fit to live"):
            await supervisor.start(lambda: Person("a", [], lives_s=-1))
        assert supervisor.children == []
        assert chronicle.deaths == []


async def test_cancelling_a_start_leaves_nothing() -> None:
    async with supervising() as (supervisor, _):
        with trio.move_on_after(1):
            await supervisor.start(lambda: Person("a", [], born_s=5))
        assert supervisor.children == []


async def test_a_dead_child_is_replaced_after_a_pause_that_grows() -> None:
    log: list[str] = []
    lives = iter([1.0, 0.0, -1.0, 1e9])
    async with supervising(restarts_max=10) as (supervisor, chronicle):
        supervised = await supervisor.start(lambda: Person("a", log, lives_s=next(lives)))
        first = supervised.child
        await trio.sleep(50)
        assert supervised.child is not first
        assert supervised.ready
        assert log == ["a ready"] * 3
        assert [round(death.retry_in_s, 3) for _, death in chronicle.deaths] == [0.1, 0.2, 0.4]
        assert not any(death.exhausted for _, death in chronicle.deaths)


async def test_a_crash_loop_uses_up_the_intensity_and_is_left_alone_for_its_period() -> None:
    async with supervising(restarts_max=3, period_s=100) as (supervisor, chronicle):
        await supervisor.start(lambda: Person("a", [], lives_s=0))
        await trio.sleep(1000)
        births = chronicle.births
        for number in range(len(births) - 4):
            assert births[number + 4] - births[number + 1] >= 100
        exhausted = [death for _, death in chronicle.deaths if death.exhausted]
        assert exhausted
        assert len(births) <= 35


async def test_a_child_that_had_lived_is_replaced_with_the_shortest_pause() -> None:
    lives = iter([0.0, 0.0, 0.0, 20.0, 1e9])
    async with supervising(restarts_max=10) as (supervisor, chronicle):
        await supervisor.start(lambda: Person("a", [], lives_s=next(lives)))
        await trio.sleep(100)
        assert [round(death.retry_in_s, 3) for _, death in chronicle.deaths] == [0.1, 0.2, 0.4, 0.1]


async def test_ones_death_touches_no_other() -> None:
    log: list[str] = []
    async with supervising() as (supervisor, _):
        await supervisor.start(lambda: Person("mortal", [], lives_s=1))
        other = await supervisor.start(lambda: Person("other", log))
        same = other.child
        await trio.sleep(50)
        assert other.child is same
        assert log == ["other ready"]


async def test_stop_all_stops_in_reverse_order_of_start() -> None:
    log: list[str] = []
    async with supervising() as (supervisor, chronicle):
        for name in "abc":
            await supervisor.start(lambda name=name: Person(name, log))  # type: ignore[misc]
        await supervisor.stop_all()
        assert log[3:] == ["c stopped", "b stopped", "a stopped"]
        assert supervisor.children == []
        await trio.sleep(1000)
        assert chronicle.deaths == []


async def test_a_child_stopped_during_its_pause_is_not_started_again() -> None:
    log: list[str] = []
    async with supervising(restarts_max=1, period_s=1000) as (supervisor, _):
        supervised = await supervisor.start(lambda: Person("a", log, lives_s=1))
        await trio.sleep(500)
        before = len(log)
        await supervisor.stop(supervised)
        await trio.sleep(2000)
        assert len(log) == before
