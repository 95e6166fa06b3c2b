"""Batching of coroutine functions and methods, in virtual time, with no deployment around."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.serving.doubler import FOREVER, Doubler, gather
from trio_serve.serving.batch_queue import BatchQueue
from trio_serve.serving.batching import batch
from trio_serve.serving.replica_scope import open_replica_scope

# -- decoration ------------------------------------------------------------------------------------


def test_the_defaults_are_rays() -> None:
    @batch
    async def plain(items: list[int]) -> list[int]:
        return items

    @batch()
    async def called(items: list[int]) -> list[int]:
        return items

    for function in (plain, called):
        assert function.get_max_batch_size() == 10
        assert function.get_batch_wait_timeout_s() == 0.01
        assert function.get_max_concurrent_batches() == 1


def sync(items: list[int]) -> list[int]:
    return items


async def no_items() -> list[int]:
    return []


async def only_keywords(*, items: list[int]) -> list[int]:
    return items


async def any_number(*items: list[int]) -> list[int]:
    return []


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (sync, "needs an 'async def': sync is a plain 'def'"),
        (Doubler, "decorates an 'async def' function or method; it got"),
        (7, "it got 7 of type int"),
        (no_items, r"write 'async def no_items\(items\)'"),
        (only_keywords, r"write 'async def only_keywords\(items\)'"),
        (any_number, "it takes no .args"),
    ],
)
def test_what_cannot_be_batched_is_refused_at_decoration(function: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        batch(max_batch_size=2)(function)
    with pytest.raises(TypeError, match=text):
        batch(function)


def test_a_method_needs_a_parameter_beside_self() -> None:
    with pytest.raises(TypeError, match=r"async def lonely\(self, items\)"):

        class Lonely:
            @batch
            async def lonely(self) -> list[int]:
                return []


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"max_batch_size": 0}, ValueError),
        ({"max_batch_size": 1.1}, TypeError),
        ({"max_batch_size": "3"}, TypeError),
        ({"max_batch_size": True}, TypeError),
        ({"batch_wait_timeout_s": -0.1}, ValueError),
        ({"batch_wait_timeout_s": float("nan")}, ValueError),
        ({"batch_wait_timeout_s": "a"}, TypeError),
        ({"max_concurrent_batches": 0}, ValueError),
        ({"max_concurrent_batches": None}, TypeError),
        ({"batch_size_fn": 3}, TypeError),
    ],
)
def test_wrong_options_are_named_at_decoration(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=next(iter(options))):
        batch(**options)


@pytest.mark.parametrize("options", [{"max_batch_size": 1.0}, {"batch_wait_timeout_s": 0}])
def test_whole_floats_and_zero_seconds_are_fine(options: dict[str, Any]) -> None:
    batch(**options)(no_items_but_one)


async def no_items_but_one(items: list[int]) -> list[int]:
    return items


def test_inspect_sees_the_function() -> None:
    doubler = Doubler()

    assert inspect.iscoroutinefunction(doubler.double)
    assert inspect.iscoroutinefunction(Doubler.double)
    assert not inspect.isasyncgenfunction(doubler.double)
    assert list(inspect.signature(doubler.double).parameters) == ["items"]
    assert list(inspect.signature(Doubler.double).parameters) == ["self", "items"]
    assert doubler.double.__name__ == "double"  # type: ignore[attr-defined]
    assert callable(doubler.double)


async def test_outside_a_replica_the_error_tells_the_way_out() -> None:
    with pytest.raises(
        RuntimeError, match=r"Doubler.double\(\) was called outside a replica; .*open_replica"
    ):
        await Doubler().double(1)


# -- gathering -------------------------------------------------------------------------------------


async def test_a_full_batch_runs_at_once() -> None:
    doubler, start = Doubler(), trio.current_time()

    async with open_replica_scope():
        assert await gather(*map(doubler.double, [1, 2, 3])) == [2, 4, 6]

    assert doubler.batches == [[1, 2, 3]]
    assert trio.current_time() == start


async def test_a_batch_that_does_not_fill_runs_when_its_oldest_has_waited_long_enough() -> None:
    doubler, start = Doubler(), trio.current_time()

    async with open_replica_scope(), trio.open_nursery() as nursery:
        nursery.start_soon(doubler.double, 1)
        await trio.sleep(0.9)
        assert await doubler.double(2) == 4

    assert doubler.batches == [[1, 2]]
    assert trio.current_time() - start == pytest.approx(1)


async def test_the_wait_begins_with_the_first_item_not_with_the_last_batch() -> None:
    """The queue was empty for longer than the wait, twice."""
    doubler = Doubler()

    async with open_replica_scope():
        for _ in range(2):
            await gather(*map(doubler.double, [1, 2, 3]))
            await trio.sleep(5)
            start = trio.current_time()
            await doubler.double(4)
            assert trio.current_time() - start == pytest.approx(1)


async def test_a_size_of_one_never_waits() -> None:
    doubler, start = Doubler(), trio.current_time()

    async with open_replica_scope():
        assert await gather(*map(doubler.single, [1, 2])) == [2, 4]

    assert doubler.batches == [[1], [2]]
    assert trio.current_time() == start


async def test_with_no_wait_those_who_are_there_go_together() -> None:
    """The first goes alone; the two that come while it runs share a batch."""
    doubler = Doubler(work_s=5)

    async with open_replica_scope(), trio.open_nursery() as nursery:
        nursery.start_soon(doubler.at_once, 1)
        await trio.sleep(1)
        await gather(doubler.at_once(2), doubler.at_once(3))

    assert doubler.batches == [[1], [2, 3]]


async def test_more_calls_than_a_batch_holds_make_several() -> None:
    doubler = Doubler()

    async with open_replica_scope():
        assert await gather(*map(doubler.pair, range(10))) == [2 * item for item in range(10)]

    assert doubler.batches == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


async def test_as_many_batches_at_once_as_allowed_and_no_more() -> None:
    doubler = Doubler(work_s=1)

    async with open_replica_scope():
        start = trio.current_time()
        await gather(*map(doubler.two_at_a_time, range(8)))
        assert trio.current_time() - start == pytest.approx(2)
        assert doubler.most_running == 2

        await gather(*map(doubler.pair, range(4)))
        assert trio.current_time() - start == pytest.approx(4)


async def test_a_batch_goes_on_filling_while_no_place_is_free() -> None:
    """The wait of two late calls is over long before the place is free; a third still joins them."""
    doubler = Doubler(work_s=10)

    async with open_replica_scope(), trio.open_nursery() as nursery:
        for item, arrives_at in [(1, 0), (2, 0), (3, 0), (4, 1), (5, 2), (6, 8)]:
            nursery.start_soon(arrive, doubler.double, item, arrives_at)

    assert list(map(sorted, doubler.batches)) == [[1, 2, 3], [4, 5, 6]]


async def arrive(call: Callable[[Any], Awaitable[Any]], item: Any, after_s: float) -> None:
    await trio.sleep(after_s)
    await call(item)


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_method", [True, False])
async def test_every_parameter_becomes_a_list(as_method: bool) -> None:
    class Zipper:
        @batch(max_batch_size=5, batch_wait_timeout_s=FOREVER)
        async def zip(self, key1: list[str], key2: list[str]) -> list[tuple[str, str]]:
            return list(zip(key1, key2, strict=True))

    @batch(max_batch_size=5, batch_wait_timeout_s=FOREVER)
    async def zip_all(key1: list[str], key2: list[str]) -> list[tuple[str, str]]:
        return list(zip(key1, key2, strict=True))

    call = Zipper().zip if as_method else zip_all
    async with open_replica_scope():
        results = await gather(
            call("a", "b"),
            call(key1="c", key2="d"),
            call("e", key2="f"),
            call(key2="h", key1="g"),
            call("i", "j"),
        )

    assert results == [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h"), ("i", "j")]


async def test_defaults_and_keyword_only_parameters_are_filled_in_for_each_caller() -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def show(items: Any, scale: Any = 1, *, unit: Any = "m") -> list[Any]:
        return list(zip(items, scale, unit, strict=True))

    async with open_replica_scope():
        results = await gather(show("a", unit="s"), show("b", 3))

    assert results == [("a", 1, "s"), ("b", 3, "m")]


async def test_wrong_arguments_are_an_error_of_their_caller_alone() -> None:
    doubler = Doubler()

    async with open_replica_scope():
        with pytest.raises(TypeError, match=r"Doubler.double\(\): .*item"):
            await doubler.double(item=1)
        with pytest.raises(TypeError, match=r"Doubler.double\(\): "):
            await doubler.double(1, 2)
        with pytest.raises(TypeError, match="call it on an instance"):
            await Doubler.double()
        assert await doubler.double(3) == 6
        assert await Doubler.double(doubler, 4) == 8


async def test_methods_of_other_kinds() -> None:
    class Kinds:
        @staticmethod
        @batch(max_batch_size=2, batch_wait_timeout_s=0)
        async def static(items: list[int]) -> list[int]:
            return items

        @classmethod
        @batch(max_batch_size=2, batch_wait_timeout_s=0)
        async def of_class(cls, items: list[int]) -> list[Any]:
            return [(cls.__name__, item) for item in items]

    class Heir(Kinds):
        pass

    async with open_replica_scope():
        assert await Kinds().static(1) == 1
        assert await Heir.of_class(2) == ("Heir", 2)


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "kind", "text"),
    [
        (2, TypeError, "returned.* gave a int for a batch of 2"),
        ("ab", TypeError, "gave a str"),
        ({1: 2, 3: 4}, TypeError, "gave a dict"),
        (None, TypeError, "gave a NoneType"),
        ([1], ValueError, "got a list of 2 and gave a list of 1"),
        ([1, 2, 3], ValueError, "got a list of 2 and gave a list of 3"),
    ],
)
async def test_what_is_no_list_of_one_for_each_is_an_error_for_all(
    returned: Any, kind: type[Exception], text: str
) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def returned_as_told(items: list[int]) -> Any:
        return returned

    async with open_replica_scope():
        errors = await gather(returned_as_told(1), returned_as_told(2))

    for error in errors:
        assert isinstance(error, kind)
        assert "returned_as_told" in str(error)
        assert text.rpartition("* ")[2] in str(error)


async def test_any_sequence_of_results_will_do() -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def as_tuple(items: list[int]) -> tuple[int, ...]:
        return tuple(items)

    async with open_replica_scope():
        assert await gather(as_tuple(1), as_tuple(2)) == [1, 2]


async def test_an_error_reaches_every_member_and_no_later_batch() -> None:
    doubler = Doubler()

    async with open_replica_scope() as scope:
        first = await gather(doubler.fail(1), doubler.fail(2))
        second = await gather(doubler.fail(3), doubler.fail(4))
        (queue,) = scope.states(BatchQueue)

    assert [str(error) for error in first] == ["with [1, 2]"] * 2
    assert [str(error) for error in second] == ["with [3, 4]"] * 2
    assert (queue.counters.batches, queue.counters.items, queue.counters.errors) == (2, 4, 2)


async def test_the_hundredth_member_sees_no_longer_a_traceback_than_the_first() -> None:
    @batch(max_batch_size=100, batch_wait_timeout_s=FOREVER)
    async def fail(items: list[int]) -> list[int]:
        raise ValueError

    lengths = []

    async def call() -> None:
        try:
            await fail(1)
        except ValueError as error:
            lengths.append(len(list(inspect.getinnerframes(error.__traceback__))))  # type: ignore[arg-type]

    async with open_replica_scope(), trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(call)

    assert len(lengths) == 100
    assert len(set(lengths)) == 1


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), BaseExceptionGroup("g", [SystemExit(3)])]
)
async def test_whatever_the_function_raises_is_raised_by_its_callers_and_not_by_the_replica(
    error: BaseException,
) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=0)
    async def leave(items: list[int]) -> list[int]:
        raise error

    async with open_replica_scope():
        with pytest.raises(type(error)):
            await leave(1)
        with pytest.raises(type(error)):
            await leave(2)
