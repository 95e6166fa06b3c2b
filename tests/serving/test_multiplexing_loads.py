"""Loads of multiplexed models: shared, side by side, given up, failed."""

from math import inf
from typing import Any

import pytest
import trio

from tests.serving.doubler import gather
from tests.serving.zoo import Zoo, get_all, request_for
from trio_serve.serving.multiplexing import loaded_model_ids, multiplexed
from trio_serve.serving.replica_scope import open_replica_scope
from trio_serve.serving.request_context import current


async def test_loads_of_one_id_run_once() -> None:
    zoo, start = Zoo(load_s=10), trio.current_time()

    async with open_replica_scope():
        models = await gather(*(zoo.get("a") for _ in range(5)))
        assert len(set(map(id, models))) == 1
        assert zoo.log == ["+a"]

    assert trio.current_time() - start == pytest.approx(10)


async def test_different_ids_load_side_by_side_up_to_the_limit() -> None:
    zoo, start = Zoo(load_s=10), trio.current_time()

    async with open_replica_scope():
        models = await gather(*map(zoo.get, "abcd"))
        assert [model.model_id for model in models] == list("abcd")
        assert zoo.most_loading == 2
        assert sorted(zoo.get.loaded_model_ids()) == ["c", "d"]

    assert trio.current_time() - start == pytest.approx(20)


async def test_a_failed_load_is_raised_to_all_who_wait_and_is_not_kept() -> None:
    zoo = Zoo(load_s=1)

    async with open_replica_scope() as scope:
        errors = await gather(zoo.get("bad"), zoo.get("bad"))
        assert [str(error) for error in errors] == ["no model bad"] * 2
        assert zoo.log == ["+bad"]
        assert loaded_model_ids(scope) == frozenset()

        await gather(zoo.get("bad"), zoo.get("bad"))
        assert zoo.log == ["+bad", "+bad"]
        await get_all(zoo, "ab")
        assert sorted(zoo.get.loaded_model_ids()) == ["a", "b"], "a failed load gives its place back"


async def test_a_caller_that_leaves_a_load_leaves_it_to_the_others() -> None:
    zoo, start = Zoo(load_s=10), trio.current_time()
    left_at = 0.0

    async def impatient() -> None:
        nonlocal left_at
        with trio.move_on_after(3):
            await zoo.get("a")
        left_at = trio.current_time() - start

    async with open_replica_scope():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient)
            await trio.sleep(1)
            assert (await zoo.get("a")).model_id == "a"
        assert zoo.log == ["+a"]

    assert left_at == pytest.approx(3)


async def test_when_all_have_left_the_load_is_cancelled_and_the_next_caller_loads_anew() -> None:
    """The third comes while the cancelled load still needs two seconds to clean up."""
    log = []

    @multiplexed(max_num_models_per_replica=1)
    async def load(model_id: str) -> str:
        log.append("begins")
        try:
            await trio.sleep(10)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            log.append("ends")
        return model_id

    async def impatient(patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            await load("a")

    async with open_replica_scope():
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient, 3)
            nursery.start_soon(impatient, 4)
            await trio.sleep(5)
            assert await load("a") == "a"
        assert log == ["begins", "ends", "begins", "ends"]
        assert trio.current_time() - start == pytest.approx(6 + 12)


async def test_a_load_does_not_see_its_callers_deadlines_but_their_model_id() -> None:
    seen: list[Any] = []

    @multiplexed
    async def load(model_id: str) -> str:
        request = current.get()
        assert request is not None
        seen.extend([request.multiplexed_model_id, request.deadline, request.envelope])
        seen.append(trio.current_effective_deadline() - trio.current_time() > 3000)
        return model_id

    async with open_replica_scope():
        request = request_for("a")
        request.deadline = trio.current_time() + 5
        current.set(request)
        with trio.fail_after(5):
            await load()

    assert seen == ["a", inf, None, True]


async def test_waiting_for_a_place_can_be_given_up() -> None:
    zoo = Zoo(load_s=10)

    async with open_replica_scope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(zoo.get, "a")
            nursery.start_soon(zoo.get, "b")
            await trio.sleep(1)
            with trio.move_on_after(1):
                await zoo.get("c")
            assert loaded_model_ids(scope) == {"a", "b"}
        assert "+c" not in zoo.log
        assert (await zoo.get("d")).model_id == "d"
