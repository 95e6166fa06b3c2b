"""Multiplexed models that go: which, when, once, and what their ``__del__`` may do."""

import gc
import warnings
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.serving.doubler import gather
from tests.serving.zoo import Model, Zoo, end, get_all, request_for
from trio_serve.serving import multiplexing
from trio_serve.serving.multiplexing import ModelCache, multiplexed
from trio_serve.serving.replica_scope import ReplicaStopped, open_replica_scope
from trio_serve.serving.request_context import current


async def test_del_is_called_exactly_once() -> None:
    zoo = Zoo()

    async with open_replica_scope():
        await get_all(zoo, "abc")
        gc.collect()
        assert zoo.log == ["+a", "+b", "-a", "+c"]

    gc.collect()
    assert sorted(zoo.log) == ["+a", "+b", "+c", "-a", "-b", "-c"]


async def test_del_is_called_though_somebody_still_holds_the_model() -> None:
    zoo = Zoo()

    async with open_replica_scope():
        held = await zoo.get("a")
        await get_all(zoo, "bc")
        assert zoo.log == ["+a", "+b", "-a", "+c"]
        assert isinstance(held, Model)
        del held

    assert zoo.log.count("-a") == 1


async def test_an_async_del_is_awaited_before_its_place_is_taken() -> None:
    zoo = Zoo()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with open_replica_scope():
            start = trio.current_time()
            await zoo.get_slow_to_go("a")
            await zoo.get_slow_to_go("b")
            assert trio.current_time() - start == pytest.approx(5)
            assert zoo.log == ["+a", "-a", "+b"]
        gc.collect()

    assert zoo.log == ["+a", "-a", "+b", "-b"]


async def test_a_caller_that_leaves_does_not_leave_a_model_half_unloaded() -> None:
    zoo = Zoo()

    async with open_replica_scope():
        await zoo.get_slow_to_go("a")
        with trio.move_on_after(1):
            await zoo.get_slow_to_go("b")
        assert zoo.log == ["+a", "-a"]
        assert zoo.get_slow_to_go.loaded_model_ids() == []


async def test_a_del_that_raises_or_hangs_is_told_and_holds_up_nobody_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Raising:
        def __del__(self) -> None:
            raise ValueError("at the end")

    class Hanging:
        async def __del__(self) -> None:
            await trio.sleep_forever()

    @multiplexed(max_num_models_per_replica=1)
    async def load(model_id: str) -> Any:
        return Raising() if model_id == "raises" else Hanging() if model_id == "hangs" else model_id

    async with open_replica_scope("shop#1"):
        start = trio.current_time()
        for model_id in ("raises", "hangs", "fine"):
            await load(model_id)
        assert trio.current_time() - start == pytest.approx(multiplexing.UNLOAD_TIMEOUT_S)

    assert [record.getMessage() for record in caplog.records] == [
        "shop#1: __del__ of model 'raises' raised",
        "shop#1: __del__ of model 'hangs' was given up after 30 s",
    ]


async def test_del_runs_where_the_replica_runs_plain_functions() -> None:
    zoo, ran = Zoo(), []

    async def run_sync(function: Any) -> Any:
        ran.append(function.__name__)
        return function()

    async with open_replica_scope(run_sync=run_sync):
        await get_all(zoo, "abc")
        assert ran == ["__del__"]


async def test_a_model_in_use_goes_after_those_that_are_not() -> None:
    """The request that uses the oldest model still runs; when it has ended, its model is the next to go."""
    zoo = Zoo()

    async with open_replica_scope():
        user = request_for("a")
        current.set(user)
        await zoo.get()
        current.set(None)
        await get_all(zoo, "bc")
        assert zoo.get.loaded_model_ids() == ["a", "c"]

        end(user)
        await zoo.get("d")
        assert zoo.get.loaded_model_ids() == ["c", "d"]


async def test_when_all_are_in_use_the_least_recently_used_goes_all_the_same() -> None:
    """One request asks for more models than there are places."""
    zoo = Zoo()

    async with open_replica_scope():
        current.set(request_for(""))
        await get_all(zoo, "abc")
        assert zoo.log == ["+a", "+b", "-a", "+c"]


async def test_users_that_have_ended_are_forgotten() -> None:
    zoo = Zoo()

    async with open_replica_scope() as scope:
        for _ in range(100):
            request = request_for("a")
            current.set(request)
            await zoo.get()
            end(request)
        (cache,) = scope.states(ModelCache)
        assert len(cache._models["a"]._users) < 20


async def test_all_models_are_unloaded_when_the_replica_stops() -> None:
    zoo = Zoo()

    async with open_replica_scope():
        await get_all(zoo, "ab")
        await zoo.get("a")
        assert zoo.log == ["+a", "+b"]

    assert zoo.log == ["+a", "+b", "-b", "-a"]


async def test_a_load_is_cancelled_when_the_replica_stops_and_its_callers_are_told() -> None:
    zoo = Zoo(load_s=100)
    outcomes: list[Any] = []

    async def call() -> None:
        outcomes.extend(await gather(zoo.get("a")))

    async with trio.open_nursery() as callers, open_replica_scope("shop#1"):
        callers.start_soon(call)
        await wait_all_tasks_blocked()

    (error,) = outcomes
    assert isinstance(error, ReplicaStopped)
    assert str(error) == "shop#1 stopped before model 'a' was loaded"
    assert zoo.log == ["+a", "xa"]
