"""Seeded scheduling: an order of tasks that can be had again, and races that come out."""

import pytest
import trio

import trio_serve as serve
from trio_serve.testing import run_in_virtual_time, seeded_scheduling, serving, shake

from .greeting import PROTO, Greeter, hello


async def orders():
    """In which order ten tasks come to the fore, five times; through a service, too."""
    found = []
    async with serving(Greeter.options(num_replicas=3).bind(), services=[PROTO]) as service:

        async def call(number):
            await hello(service, f"n{number}")
            found.append(number)

        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(call, number)
    return found


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    first = run_in_virtual_time(orders, seed=1)

    assert run_in_virtual_time(orders, seed=1) == first
    assert run_in_virtual_time(orders, seed=2) != first


@serve.deployment(max_ongoing_requests=10)
class Racy:
    """Two tasks fill what a third reads, and nobody waits for the second."""

    async def SayHello(self, request):
        seen = []

        async def write(word):
            await trio.lowlevel.checkpoint()
            seen.append(word)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "one")
            nursery.start_soon(write, "two")
        return PROTO.HelloReply(message=seen[-1])


async def test_of_the_race():
    async with serving(Racy.bind(), services=[PROTO]) as service:
        assert await hello(service) == "two"


test_of_the_race.__test__ = False


def test_shaking_finds_a_race_and_tells_the_seed_that_shows_it_again() -> None:
    with pytest.raises(AssertionError) as info:
        shake(test_of_the_race, seeds=50)

    (note,) = [note for note in info.value.__notes__ if note.startswith("scheduling seed: ")]
    seed = int(note.removeprefix("scheduling seed: "))
    with pytest.raises(AssertionError):
        run_in_virtual_time(test_of_the_race, seed=seed)


async def test_it_works_from_within_a_test_that_runs_already() -> None:
    with seeded_scheduling(5) as seed:
        first = await orders()
    with seeded_scheduling(5):
        second = await orders()

    assert seed == 5
    assert first == second


def test_trio_is_left_as_it_was() -> None:
    from trio._core import _run

    before = (_run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate())
    with seeded_scheduling():
        pass

    assert (_run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()) == before
