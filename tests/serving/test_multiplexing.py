"""Multiplexed models in one replica: what is kept, what is loaded once, what goes and when."""

import contextvars
import functools
import gc
import inspect
import warnings
from collections.abc import Sequence
from math import inf
from typing import Any

import outcome
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.serving.doubler import gather
from trio_serve.actors import Envelope
from trio_serve.serving import multiplexing
from trio_serve.serving.batching import batch
from trio_serve.serving.multiplexing import ModelCache, ModelCounters, loaded_model_ids, multiplexed
from trio_serve.serving.replica_scope import ReplicaStopped, open_replica_scope
from trio_serve.serving.request_context import RequestContext, current


class Zoo:
    """Loads models; keeps a log of what was loaded and unloaded."""

    def __init__(self, load_s: float = 0) -> None:
        self.load_s = load_s
        self.log: list[str] = []
        self.loading = self.most_loading = 0

    async def load(self, model_id: str) -> "Model":
        self.log.append(f"+{model_id}")
        self.loading += 1
        self.most_loading = max(self.loading, self.most_loading)
        try:
            await trio.sleep(self.load_s)
        except trio.Cancelled:
            self.log.append(f"x{model_id}")
            raise
        finally:
            self.loading -= 1
        if "bad" in model_id:
            raise ValueError(f"no model {model_id}")
        return Model(model_id, self.log)

    @multiplexed(max_num_models_per_replica=2)
    async def get(self, model_id: str) -> "Model":
        return await self.load(model_id)

    @multiplexed
    async def get_one_of_three(self, model_id: str) -> "Model":
        return await self.load(model_id)

    @multiplexed(max_num_models_per_replica=-1)
    async def get_any(self, model_id: str) -> "Model":
        return await self.load(model_id)

    @multiplexed(max_num_models_per_replica=1)
    async def get_slow_to_go(self, model_id: str) -> "SlowModel":
        self.log.append(f"+{model_id}")
        return SlowModel(model_id, self.log)


class Model:
    def __init__(self, model_id: str, log: list[str]) -> None:
        self.model_id = model_id
        self.log = log

    def __del__(self) -> None:
        self.log.append(f"-{self.model_id}")


class SlowModel(Model):
    async def __del__(self) -> None:  # type: ignore[override]
        await trio.sleep(5)
        self.log.append(f"-{self.model_id}")


async def get_all(zoo: Zoo, ids: str) -> list[str]:
    return [(await zoo.get(model_id)).model_id for model_id in ids]


def request_for(model_id: str) -> RequestContext:
    """A request under way that asks for a model, with its envelope."""

    class Nowhere:
        def finish(self, result: Any, /) -> None: ...
        async def send(self, item: Any, /) -> None: ...

    request = RequestContext("id", "app", model_id)
    request.envelope = Envelope(None, Nowhere(), contextvars.copy_context())
    return request


def end(request: RequestContext) -> None:
    assert request.envelope is not None
    request.envelope.finish(outcome.Value(None))
    request.envelope.release()


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


# -- loads that are shared -------------------------------------------------------------------------


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


# -- unloading -------------------------------------------------------------------------------------


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
