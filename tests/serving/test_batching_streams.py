"""Batches of async generators: a stream for each caller, from one generator."""

import contextlib
import gc
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_serve.serving import batch_streams
from trio_serve.serving.batch_queue import BatchQueue
from trio_serve.serving.batching import batch
from trio_serve.serving.replica_scope import ReplicaStopped, open_replica_scope

FOREVER = 1000


class Counter:
    """Counts up for each caller; notes how far it got and how it ended."""

    def __init__(self, length: int = 5, step_s: float = 0) -> None:
        self.length = length
        self.step_s = step_s
        self.steps = 0
        self.ended: str | None = None
        self.batches: list[list[str]] = []

    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def count(self, names: list[str]) -> AsyncGenerator[list[tuple[str, int]], None]:
        self.batches.append(names)
        self.steps = 0
        try:
            while self.steps < self.length:
                await trio.sleep(self.step_s)
                self.steps += 1
                yield [(name, self.steps) for name in names]
            self.ended = "by itself"
        except trio.Cancelled:
            self.ended = "cancelled"
            raise
        except GeneratorExit:
            self.ended = "closed"
            raise


async def read(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


def numbered(name: str, length: int) -> list[tuple[str, int]]:
    return [(name, number) for number in range(1, length + 1)]


def test_inspect_sees_an_async_generator_function() -> None:
    assert inspect.isasyncgenfunction(Counter().count)
    assert inspect.isasyncgenfunction(Counter.count)
    assert not inspect.iscoroutinefunction(Counter.count)


@pytest.mark.parametrize("length", [0, 2, 5])
async def test_each_caller_has_a_stream_of_its_own(length: int) -> None:
    """Read one after the other: what the second has not read is kept for it."""
    counter = Counter(length)

    async with open_replica_scope():
        a, b = counter.count("a"), counter.count("b")
        assert await read(a) == numbered("a", length)
        assert await read(b) == numbered("b", length)

    assert counter.batches == [["a", "b"]]
    assert counter.ended == "by itself"


async def test_functions_stream_too_and_every_parameter_becomes_a_list() -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def pairs(key1: list[str], key2: list[str]) -> AsyncGenerator[list[tuple[str, str]], None]:
        for _ in range(2):
            yield list(zip(key1, key2, strict=True))

    async with open_replica_scope():
        streams = pairs("a", key2="b"), pairs(key2="d", key1="c")
        assert [await read(stream) for stream in streams] == [[("a", "b")] * 2, [("c", "d")] * 2]


async def test_a_call_joins_its_batch_before_it_is_read() -> None:
    counter, start = Counter(), trio.current_time()

    async with open_replica_scope():
        stream = counter.count("a")
        counter.count.set_batch_wait_timeout_s(3)
        await trio.sleep(2)
        other = counter.count("b")
        await read(stream)
        await other.aclose()

    assert counter.batches == [["a", "b"]]
    assert trio.current_time() - start == pytest.approx(2)


async def test_results_that_cannot_be_compared_or_hashed() -> None:
    class Array(list[Any]):
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth of an array is ambiguous")

    @batch(max_batch_size=1)
    async def arrays(items: list[int]) -> AsyncGenerator[list[Any], None]:
        yield [Array()]
        yield [{"value": 1}]

    async with open_replica_scope():
        assert len(await read(arrays(1))) == 2


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [StopIteration, StopAsyncIteration, StopIteration()])
async def test_callers_end_one_after_another(end: Any) -> None:
    """Each step ends one more caller; the last step is not run to its end, because nobody is left."""
    closed = False

    @batch(max_batch_size=4, batch_wait_timeout_s=FOREVER)
    async def terminate(ids: list[int]) -> AsyncGenerator[list[Any], None]:
        nonlocal closed
        try:
            for gone in range(10):
                yield [end if number < gone else number for number in ids]
        finally:
            closed = True

    async with open_replica_scope():
        streams = [terminate(number) for number in range(4)]
        assert [await read(stream) for stream in streams] == [[0], [1] * 2, [2] * 3, [3] * 4]
        await wait_all_tasks_blocked()
        assert closed


@pytest.mark.parametrize("wrong", ["raises", "yields too many", "yields no list"])
async def test_an_error_reaches_every_caller_after_what_came_before(wrong: str) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def break_down(names: list[str]) -> AsyncGenerator[Any, None]:
        yield names
        yield names
        if wrong == "raises":
            raise RuntimeError("broken")
        yield names * 2 if wrong == "yields too many" else 7

    kind, text = {
        "raises": (RuntimeError, "broken"),
        "yields too many": (ValueError, "got a list of 2 and gave a list of 4"),
        "yields no list": (TypeError, "gave a int for a batch of 2"),
    }[wrong]
    async with open_replica_scope():
        for stream in [break_down("a"), break_down("b")]:
            assert len({await anext(stream), await anext(stream)}) == 1
            with pytest.raises(kind, match=text):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_a_caller_that_closes_its_stream_leaves_the_other() -> None:
    counter = Counter()

    async with open_replica_scope():
        a, b = counter.count("a"), counter.count("b")
        await anext(a)
        await a.aclose()
        await a.aclose()
        assert await read(a) == []
        assert await read(b) == numbered("b", 5)

    assert counter.ended == "by itself"


async def test_a_caller_cancelled_while_it_waits_leaves_the_other() -> None:
    counter, start = Counter(length=3, step_s=10), trio.current_time()

    async with open_replica_scope():
        a, b = counter.count("a"), counter.count("b")
        with trio.move_on_after(5):
            await anext(a)
        assert trio.current_time() - start == pytest.approx(5)
        assert await read(b) == numbered("b", 3)
        assert await read(a) == []

    assert counter.ended == "by itself"


async def test_when_all_have_left_the_generator_is_cancelled_and_the_last_sees_it_end() -> None:
    """It is in the middle of a step; the last to leave waits for no item but closes its stream."""
    counter = Counter(step_s=10)

    async with open_replica_scope() as scope:
        a, b = counter.count("a"), counter.count("b")
        with trio.move_on_after(5):
            await anext(a)
        await b.aclose()
        assert counter.ended == "cancelled"
        (queue,) = scope.states(BatchQueue)
        assert (queue.counters.cancelled, queue.lanes) == (1, {})


async def test_when_the_rest_had_ended_the_one_that_leaves_is_the_last() -> None:
    ended = trio.Event()

    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def one_ends(names: list[str]) -> AsyncGenerator[list[Any], None]:
        try:
            yield [StopIteration, "more"]
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_replica_scope():
        a, b = one_ends("a"), one_ends("b")
        assert await read(a) == []
        assert await anext(b) == "more"
        with trio.move_on_after(5):
            await anext(b)
        assert ended.is_set()


async def test_when_the_last_reader_is_cancelled_it_stays_until_the_generator_has_ended() -> None:
    counter = Counter(step_s=10)
    counter.count.set_max_batch_size(1)

    async with open_replica_scope():
        stream = counter.count("a")
        with trio.move_on_after(5) as gone:
            await anext(stream)
        assert gone.cancelled_caught
        assert counter.ended == "cancelled"


async def test_a_stream_that_is_dropped_without_a_word_leaves_its_batch() -> None:
    counter = Counter()

    async with open_replica_scope() as scope:
        counter.count("never read")
        gc.collect()
        await wait_all_tasks_blocked()
        (queue,) = scope.states(BatchQueue)
        assert queue.waiting == 0

        a, b = counter.count("a"), counter.count("b")
        await anext(a)
        del a
        gc.collect()
        assert await read(b) == numbered("b", 5)

    assert counter.batches == [["a", "b"]]


async def test_leaving_the_loop_early_and_closing_is_enough() -> None:
    counter = Counter(length=1_000_000)
    counter.count.set_max_batch_size(1)

    async with open_replica_scope():
        async with contextlib.aclosing(counter.count("a")) as stream:
            async for _, number in stream:
                if number == 3:
                    break
        assert counter.ended in ("cancelled", "closed")
        assert counter.steps == 3


async def test_streams_end_with_an_error_when_the_replica_stops() -> None:
    counter = Counter(step_s=10)
    errors: list[Exception] = []

    async def reader(stream: AsyncIterator[Any]) -> None:
        try:
            await read(stream)
        except ReplicaStopped as error:
            errors.append(error)

    async with trio.open_nursery() as readers, open_replica_scope():
        for name in "abc":  # two in a batch that runs, one that waits
            readers.start_soon(reader, counter.count(name))
        await trio.sleep(15)

    assert len(errors) == 3


# -- pace ------------------------------------------------------------------------------------------


async def test_the_generator_rests_while_nobody_reads() -> None:
    counter = Counter(length=1000)

    async with open_replica_scope():
        a, b = counter.count("a"), counter.count("b")
        for _ in range(3):
            await anext(a)
        await trio.sleep(100)
        assert counter.steps == 3
        await anext(b)
        assert counter.steps == 3
        await a.aclose()
        await b.aclose()


async def test_the_fast_wait_for_the_slow_once_too_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_streams, "STREAM_AHEAD_MAX", 10)
    counter, start = Counter(length=30), trio.current_time()
    read_by: dict[str, int] = {"fast": 0, "slow": 0}

    async def reader(name: str, pause_s: float) -> None:
        async for _ in counter.count(name):
            read_by[name] += 1
            assert counter.steps - read_by["slow"] <= 11
            await trio.sleep(pause_s)

    async with open_replica_scope(), trio.open_nursery() as nursery:
        nursery.start_soon(reader, "fast", 0)
        nursery.start_soon(reader, "slow", 1)

    assert read_by == {"fast": 30, "slow": 30}
    assert trio.current_time() - start == pytest.approx(30)


async def test_a_slow_reader_that_leaves_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_streams, "STREAM_AHEAD_MAX", 2)
    counter = Counter(length=30)

    async with open_replica_scope(), trio.open_nursery() as nursery:
        a, b = counter.count("a"), counter.count("b")
        await anext(b)
        nursery.start_soon(read, a)
        await wait_all_tasks_blocked()
        assert counter.steps == 3
        await b.aclose()

    assert counter.ended == "by itself"


async def test_settings_change_while_a_batch_streams() -> None:
    counter = Counter(length=3)

    async with open_replica_scope():
        a, b = counter.count("a"), counter.count("b")
        await anext(a)
        counter.count.set_max_batch_size(3)
        counter.count.set_max_concurrent_batches(2)
        others = [counter.count(name) for name in "cde"]
        assert [len(await read(stream)) for stream in [a, b, *others]] == [2, 3, 3, 3, 3]

    assert counter.batches == [["a", "b"], ["c", "d", "e"]]


# -- the generator's other methods -----------------------------------------------------------------


async def test_two_readers_of_one_stream_are_refused() -> None:
    counter = Counter(step_s=10)
    counter.count.set_max_batch_size(1)

    async with open_replica_scope(), trio.open_nursery() as nursery:
        stream = counter.count("a")
        nursery.start_soon(read, stream)
        await trio.sleep(1)
        with pytest.raises(RuntimeError, match="being read by another task"):
            await anext(stream)
        with pytest.raises(RuntimeError, match="being read by another task"):
            await stream.aclose()


async def test_nothing_can_be_sent_and_what_is_thrown_ends_this_stream_alone() -> None:
    counter = Counter(length=2)

    async with open_replica_scope():
        a, b = counter.count("a"), counter.count("b")
        assert await a.asend(None) == ("a", 1)
        with pytest.raises(TypeError, match="takes no values"):
            await a.asend(1)  # type: ignore[arg-type]
        with pytest.raises(KeyError):
            await a.athrow(KeyError("x"))
        assert await read(a) == []
        assert await read(b) == numbered("b", 2)


async def test_no_instance_is_kept_by_a_stream_that_was_read() -> None:
    async with open_replica_scope() as scope:
        counter = Counter()
        counter.count.set_max_batch_size(1)
        await read(counter.count("a"))
        await wait_all_tasks_blocked()
        assert len(list(scope.states(BatchQueue))) == 1
        del counter
        assert list(scope.states(BatchQueue)) == []
