"""Multiplexed models in one replica: their ids, what is kept, and what is seen of it."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.serving.doubler import gather
from tests.serving.zoo import Zoo, end, get_all, request_for
from trio_serve.serving.batching import batch
from trio_serve.serving.multiplexing import ModelCache, ModelCounters, loaded_model_ids, multiplexed
from trio_serve.serving.replica_scope import open_replica_scope
from trio_serve.serving.request_context import current

# -- decoration ------------------------------------------------------------------------------------


def sync(model_id: str) -> None: ...


async def nothing() -> None: ...


async def too_much(model_id: str, version: int) -> None: ...


async def generator(model_id: str) -> Any:
    yield model_id


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (sync, "@multiplexed needs an 'async def': sync is a plain 'def'"),
        (generator, "generator is an async generator"),
        (Zoo, "@multiplexed decorates an 'async def' function or method; it got"),
        (nothing, r"write 'async def nothing\(model_id\)'"),
        (too_much, r"write 'async def too_much\(model_id\)'"),
    ],
)
def test_what_cannot_be_multiplexed_is_refused_at_decoration(function: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        multiplexed(function)
    with pytest.raises(TypeError, match=text):
        multiplexed(max_num_models_per_replica=1)(function)


@pytest.mark.parametrize(
    ("limit", "kind"), [("1", TypeError), (1.0, TypeError), (0, ValueError), (-2, ValueError)]
)
def test_wrong_limits_are_refused_at_decoration(limit: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"max_num_models_per_replica={limit!r}"):
        multiplexed(max_num_models_per_replica=limit)


def test_inspect_sees_the_function() -> None:
    assert inspect.iscoroutinefunction(Zoo().get)
    assert list(inspect.signature(Zoo().get).parameters) == ["model_id"]


async def test_outside_a_replica_the_error_tells_the_way_out() -> None:
    with pytest.raises(RuntimeError, match=r"Zoo.get\(\) was called outside a replica"):
        await Zoo().get("a")


# -- ids -------------------------------------------------------------------------------------------


async def test_the_id_is_the_requests_when_none_is_passed() -> None:
    zoo = Zoo()

    async with open_replica_scope():
        current.set(request_for("of the request"))
        assert (await zoo.get()).model_id == "of the request"
        assert (await zoo.get("passed")).model_id == "passed"
        assert (await zoo.get(model_id="by name")).model_id == "by name"


async def test_no_id_at_all_and_what_is_no_id() -> None:
    zoo = Zoo()

    async with open_replica_scope():
        for call in (zoo.get, functools.partial(zoo.get, "")):
            with pytest.raises(
                ValueError, match=r"Zoo.get\(\): the model id is empty; .*multiplexed_model_id"
            ):
                await call()
        with pytest.raises(TypeError, match="the model id must be a text, not 7"):
            await zoo.get(7)
        for wrong in (functools.partial(zoo.get, "a", "b"), functools.partial(zoo.get, other="a")):
            with pytest.raises(TypeError, match=r"Zoo.get\(\) takes the model id and nothing else"):
                await wrong()

    assert zoo.log == []


# -- what is kept ----------------------------------------------------------------------------------


async def test_a_model_is_loaded_once_and_kept() -> None:
    zoo = Zoo()

    async with open_replica_scope():
        first, second = await zoo.get("a"), await zoo.get("a")
        assert first is second
        assert zoo.log == ["+a"]


async def test_the_least_recently_used_goes_first() -> None:
    zoo = Zoo()

    async with open_replica_scope():
        await get_all(zoo, "abac")
        assert zoo.log == ["+a", "+b", "-b", "+c"]
        assert zoo.get.loaded_model_ids() == ["a", "c"]
        await get_all(zoo, "bc")
        assert zoo.log[4:] == ["-a", "+b"]


async def test_three_by_default_and_minus_one_for_any_number() -> None:
    zoo = Zoo()

    async with open_replica_scope():
        for model_id in "abcd":
            await zoo.get_one_of_three(model_id)
        for number in range(50):
            await zoo.get_any(str(number))
        assert zoo.get_one_of_three.loaded_model_ids() == ["b", "c", "d"]
        assert len(zoo.get_any.loaded_model_ids()) == 50


async def test_falsy_models_are_models() -> None:
    loads = []

    @multiplexed
    async def load(model_id: str) -> Any:
        loads.append(model_id)

    async with open_replica_scope():
        assert await load("a") is None
        assert await load("a") is None
        assert load.loaded_model_ids() == ["a"]

    assert loads == ["a"]


async def test_each_instance_and_each_replica_has_its_own() -> None:
    one, other = Zoo(), Zoo()

    async with open_replica_scope() as scope:
        await get_all(one, "ab")
        await get_all(other, "bc")
        assert one.get.loaded_model_ids() == ["a", "b"]
        assert other.get.loaded_model_ids() == ["b", "c"]
        assert loaded_model_ids(scope) == {"a", "b", "c"}
        async with open_replica_scope() as second:
            await one.get("a")
            assert loaded_model_ids(second) == {"a"}
            assert one.log == ["+a", "+b", "+a"]


# -- what balancing and metrics see ----------------------------------------------------------------


async def test_balancing_is_told_of_a_model_as_soon_as_it_begins_to_load() -> None:
    zoo, told = Zoo(load_s=1), list[frozenset[str]]()

    async with open_replica_scope(models_changed=told.append):
        await get_all(zoo, "ab")
        await zoo.get("a")
        await gather(zoo.get("bad"))

    def ids(*texts: str) -> list[frozenset[str]]:
        return [frozenset(text.split()) for text in texts]

    once_each = [
        now for now, before in zip(told, [frozenset({"none"}), *told], strict=False) if now != before
    ]
    assert once_each == ids("a", "a b", "a b bad", "a bad", "a", "")


async def test_the_counters_tell_what_was_done() -> None:
    zoo = Zoo(load_s=2)

    async with open_replica_scope() as scope:
        await get_all(zoo, "aab")
        await gather(zoo.get("bad"))
        await get_all(zoo, "c")
        (cache,) = scope.states(ModelCache)

        assert cache.counters == ModelCounters(
            requests=5, loads=4, load_errors=1, unloads=1, load_s=8, unload_s=0
        )


async def test_batches_get_their_model_by_the_id_that_they_share() -> None:
    class Service(Zoo):
        @batch(max_batch_size=2, batch_wait_timeout_s=1)
        async def predict(self, items: list[int]) -> list[tuple[str, int]]:
            model = await self.get()
            return [(model.model_id, item) for item in items]

    service, results = Service(), []

    async def call(item: int, model_id: str) -> None:
        current.set(request_for(model_id))
        results.append(await service.predict(item))

    async with open_replica_scope(), trio.open_nursery() as nursery:
        for item, model_id in enumerate("abab"):
            nursery.start_soon(call, item, model_id)

    assert sorted(results) == [("a", 0), ("a", 2), ("b", 1), ("b", 3)]
    assert sorted(service.log[:2]) == ["+a", "+b"]


# -- all of it at once -----------------------------------------------------------------------------

calls = st.lists(
    st.tuples(
        st.floats(0, 5),  # arrives after
        st.sampled_from("abcd") | st.just("bad"),
        st.sampled_from([0.0, 0.5, 3.0, 100.0]),  # gives up after
        st.floats(0, 3),  # uses the model for
    ),
    min_size=1,
    max_size=20,
)


class Counted:
    """A model that knows whether it is loaded."""

    in_memory = 0

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id
        self.loaded = True

    async def __del__(self) -> None:
        assert self.loaded, "unloaded twice"
        self.loaded = False
        await trio.sleep(0.2)
        Counted.in_memory -= 1


@settings(max_examples=60, deadline=None)
@given(calls, st.sampled_from([1, 2, 3, -1]), st.floats(0, 2))
def test_whatever_comes_the_limit_holds_and_every_model_goes_once(
    plan: Sequence[tuple[float, str, float, float]], limit: int, load_s: float
) -> None:
    """Random arrivals, impatience and failed loads."""
    Counted.in_memory = 0
    loading: set[str] = set()

    @multiplexed(max_num_models_per_replica=limit)
    async def load(model_id: str) -> Counted:
        assert model_id not in loading
        loading.add(model_id)
        Counted.in_memory += 1
        assert limit == -1 or Counted.in_memory <= limit
        whole = False
        try:
            await trio.sleep(load_s)
            if model_id == "bad":
                raise ValueError(model_id)
            whole = True
            return Counted(model_id)
        finally:
            loading.remove(model_id)
            if not whole:
                Counted.in_memory -= 1

    async def call(after_s: float, model_id: str, patience_s: float, use_s: float) -> None:
        await trio.sleep(after_s)
        request = request_for(model_id)
        current.set(request)
        with trio.move_on_after(patience_s):
            try:
                model = await load()
            except ValueError:
                assert model_id == "bad"
            else:
                assert model.model_id == model_id
                await trio.sleep(use_s)
        end(request)

    async def main() -> None:
        async with open_replica_scope() as scope:
            async with trio.open_nursery() as nursery:
                for one in plan:
                    nursery.start_soon(call, *one)
            await wait_all_tasks_blocked()
            assert not loading
            assert loaded_model_ids(scope) <= set("abcd")
            assert len(loaded_model_ids(scope)) == Counted.in_memory

    trio.run(main, clock=MockClock(autojump_threshold=0))

    assert Counted.in_memory == 0
