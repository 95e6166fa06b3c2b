"""Settings changed at run time, size functions, and everything at random at once."""

import contextvars
import functools
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.serving.doubler import FOREVER, Doubler, gather
from trio_serve.serving.batch_queue import BatchQueue
from trio_serve.serving.batching import batch
from trio_serve.serving.replica_scope import open_replica_scope

model_id: contextvars.ContextVar[str] = contextvars.ContextVar("model_id", default="")


class Requests:
    """Model ids from a plain context variable; notes what a batch says of its members."""

    def __init__(self) -> None:
        self.entered: list[int] = []

    def model_id(self) -> str:
        return model_id.get()

    def enter_shared(self, members: Sequence[contextvars.Context]) -> None:
        self.entered.append(len(members))


# -- settings at run time --------------------------------------------------------------------------


async def test_settings_belong_to_the_instance() -> None:
    one, other = Doubler(), Doubler()

    one.pair.set_max_batch_size(3)
    one.pair.set_batch_wait_timeout_s(7)
    one.pair.set_max_concurrent_batches(4)

    def of(doubler: Doubler) -> tuple[float, ...]:
        pair = doubler.pair
        return pair.get_max_batch_size(), pair.get_batch_wait_timeout_s(), pair.get_max_concurrent_batches()

    assert of(one) == (3, 7, 4)
    assert of(other) == (2, FOREVER, 1)
    assert one.pair._get_max_batch_size() == 3  # type: ignore[attr-defined]
    assert one.pair._get_batch_wait_timeout_s() == 7  # type: ignore[attr-defined]
    async with open_replica_scope():
        assert await gather(*map(one.pair, [1, 2, 3])) == [2, 4, 6]
        assert await gather(*map(other.pair, [1, 2])) == [2, 4]


async def test_settings_of_the_function_are_for_every_instance_that_has_not_its_own() -> None:
    class Echo:
        @batch(max_batch_size=2)
        async def echo(self, items: list[int]) -> list[int]:
            return items

    early, own = Echo(), Echo()
    own.echo.set_max_batch_size(5)
    assert early.echo.get_max_batch_size() == 2

    Echo.echo.set_max_batch_size(8)

    assert early.echo.get_max_batch_size() == 8
    assert Echo().echo.get_max_batch_size() == 8
    assert own.echo.get_max_batch_size() == 5


@pytest.mark.parametrize("wrong", [0, -1, "2", 1.5])
def test_setters_check_as_the_decorator_does(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_batch_size"):
        Doubler().pair.set_max_batch_size(wrong)


async def test_a_batch_that_is_filling_keeps_the_settings_it_began_with() -> None:
    doubler = Doubler()
    doubler.pair.set_max_batch_size(3)

    async with open_replica_scope(), trio.open_nursery() as nursery:
        nursery.start_soon(doubler.pair, 1)
        nursery.start_soon(doubler.pair, 2)
        await trio.sleep(0.1)
        doubler.pair.set_max_batch_size(1)
        doubler.pair.set_batch_wait_timeout_s(0)
        await trio.sleep(0.1)
        assert doubler.batches == []

        await doubler.pair(3)
        assert len(doubler.batches) == 1
        assert await doubler.pair(4) == 8

    assert sorted(doubler.batches[0]) == [1, 2, 3]
    assert doubler.batches[1:] == [[4]]


async def test_more_places_are_used_at_once() -> None:
    doubler = Doubler(work_s=10)

    async with open_replica_scope(), trio.open_nursery() as nursery:
        for item in range(4):
            nursery.start_soon(doubler.pair, item)
        await trio.sleep(1)
        assert doubler.running == 1
        doubler.pair.set_max_concurrent_batches(2)
        await trio.sleep(1)
        assert doubler.running == 2


# -- size functions --------------------------------------------------------------------------------


def tokens(texts: list[str]) -> int:
    return sum(map(len, texts))


class Reader:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    @batch(max_batch_size=10, batch_wait_timeout_s=1, batch_size_fn=tokens)
    async def read(self, texts: list[str]) -> list[int]:
        self.batches.append(texts)
        return list(map(len, texts))


async def test_a_size_function_measures_what_fits() -> None:
    reader, start = Reader(), trio.current_time()

    async with open_replica_scope():
        await gather(*map(reader.read, ["aaaa", "bbbb", "cc", "dddddd", "eeeee"]))

    assert reader.batches == [["aaaa", "bbbb", "cc"], ["dddddd"], ["eeeee"]]
    assert trio.current_time() - start == pytest.approx(1), "only the last did not fill"


async def test_an_item_over_the_limit_is_refused_alone() -> None:
    reader = Reader()

    async with open_replica_scope():
        small, big = await gather(reader.read("ok"), reader.read("x" * 11))

    assert small == 2
    assert isinstance(big, RuntimeError)
    assert "measures this item alone as 11, over max_batch_size=10" in str(big)


async def test_an_error_of_the_size_function_is_its_callers_alone() -> None:
    reader = Reader()

    async with open_replica_scope():
        fine, broken, fine_too = await gather(*map(reader.read, ["ok", 3, "okay"]))

    assert (fine, fine_too) == (2, 4)
    assert isinstance(broken, TypeError)


async def test_a_smaller_limit_set_meanwhile_holds_nobody_for_ever() -> None:
    reader = Reader()

    async with open_replica_scope(), trio.open_nursery() as nursery:
        nursery.start_soon(reader.read, "x" * 6)
        await wait_all_tasks_blocked()
        nursery.start_soon(reader.read, "x" * 7)
        reader.read.set_max_batch_size(3)

    assert sorted(map(tokens, reader.batches)) == [6, 7]


# -- all of it at once -----------------------------------------------------------------------------

calls = st.lists(
    st.tuples(
        st.floats(0, 5),  # arrives after
        st.sampled_from([0.0, 0.3, 2.0, 100.0]),  # gives up after
        st.sampled_from(["", "a", "b"]),  # model id
        st.booleans(),  # poisons its batch
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(calls, st.integers(1, 4), st.sampled_from([0.0, 0.5, 3.0]), st.integers(1, 3), st.floats(0, 2))
def test_whatever_comes_each_caller_has_its_own_answer_and_the_limits_hold(
    plan: list[tuple[float, float, str, bool]], size: int, wait_s: float, places: int, work_s: float
) -> None:
    """Random arrivals, model ids, impatience and errors."""
    running: dict[str, int] = {}
    answers: dict[int, Any] = {}

    @batch(max_batch_size=size, batch_wait_timeout_s=wait_s, max_concurrent_batches=places)
    async def work(items: list[tuple[int, str, bool]]) -> list[int]:
        assert 1 <= len(items) <= size
        assert len({model for _, model, _ in items}) == 1
        model = items[0][1]
        assert model_id.get() == model
        running[model] = running.get(model, 0) + 1
        assert running[model] <= places
        try:
            await trio.sleep(work_s)
            if any(poisoned for _, _, poisoned in items):
                raise ValueError("poisoned")
            return [number for number, _, _ in items]
        finally:
            running[model] -= 1

    async def call(number: int) -> None:
        after_s, patience_s, model, poisoned = plan[number]
        model_id.set(model)
        await trio.sleep(after_s)
        answers[number] = "gave up"
        with trio.move_on_after(patience_s):
            try:
                answers[number] = await work((number, model, poisoned))
            except ValueError:
                answers[number] = "poisoned"

    async def main() -> None:
        async with open_replica_scope(requests=Requests()) as scope:
            async with trio.open_nursery() as nursery:
                for number in range(len(plan)):
                    nursery.start_soon(call, number)
            await wait_all_tasks_blocked()
            for queue in scope.states(BatchQueue):
                assert queue.lanes == {}
                assert queue.waiting == 0

    with_clock = functools.partial(trio.run, clock=MockClock(autojump_threshold=0))
    with_clock(main)

    assert sorted(answers) == list(range(len(plan)))
    for number, (_, patience_s, _, poisoned) in enumerate(plan):
        assert answers[number] in (number, "gave up", "poisoned")
        assert not (poisoned and answers[number] == number)
        if patience_s == 100.0:
            assert answers[number] != "gave up" or len(plan) * (work_s + wait_s) > 100
    assert not any(running.values())
