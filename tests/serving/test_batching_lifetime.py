"""Who owns a batch: callers that leave, replicas that stop, instances that go, settings and contexts."""

import contextlib
import contextvars
import copy
import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.serving.doubler import FOREVER, Doubler, gather
from trio_serve.serving.batch_queue import BatchQueue
from trio_serve.serving.batching import batch
from trio_serve.serving.replica_scope import ReplicaStopped, open_replica_scope

model_id: contextvars.ContextVar[str] = contextvars.ContextVar("model_id", default="")


class Requests:
    """Model ids from a plain context variable; notes what a batch says of its members."""

    def __init__(self) -> None:
        self.entered: list[int] = []

    def model_id(self) -> str:
        return model_id.get()

    def enter_shared(self, members: Sequence[contextvars.Context]) -> None:
        self.entered.append(len(members))


# -- cancellation and deadlines --------------------------------------------------------------------


async def test_a_queued_member_that_leaves_makes_room() -> None:
    doubler = Doubler()

    async with open_replica_scope(), trio.open_nursery() as nursery:
        with trio.move_on_after(1) as gone:
            await doubler.pair(1)
        nursery.start_soon(doubler.pair, 2)
        await trio.sleep(1)
        assert doubler.batches == []
        assert await doubler.pair(3) == 6

    assert gone.cancelled_caught
    assert doubler.batches == [[2, 3]]


async def test_when_the_oldest_leaves_the_next_one_has_its_whole_wait() -> None:
    doubler, start = Doubler(), trio.current_time()

    async def impatient() -> None:
        with trio.move_on_after(0.5):
            await doubler.double(1)

    async with open_replica_scope(), trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        await trio.sleep(0.4)
        await doubler.double(2)

    assert doubler.batches == [[2]]
    assert trio.current_time() - start == pytest.approx(1.4)


async def test_a_running_member_that_leaves_does_so_at_once_and_leaves_the_others() -> None:
    doubler, start = Doubler(work_s=10), trio.current_time()
    left_at = 0.0

    async def impatient() -> None:
        nonlocal left_at
        with trio.move_on_after(3):
            await doubler.pair(1)
        left_at = trio.current_time() - start

    async with open_replica_scope(), trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        assert await doubler.pair(2) == 4

    assert left_at == pytest.approx(3)
    assert (doubler.batches, doubler.cancelled) == ([[1, 2]], 0) or doubler.batches == [[2, 1]]
    assert trio.current_time() - start == pytest.approx(10)


async def test_when_all_members_leave_the_batch_is_cancelled_and_the_last_sees_it_end() -> None:
    """Both have a deadline; the function needs two seconds to clean up after a cancel."""
    start = trio.current_time()
    ended_at = 0.0

    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def slow(items: list[int]) -> list[int]:
        nonlocal ended_at
        try:
            await trio.sleep(FOREVER)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            ended_at = trio.current_time() - start
        return items

    left_at = []

    async def call(deadline_s: float) -> None:
        with trio.move_on_after(deadline_s):
            await slow(1)
        left_at.append(trio.current_time() - start)

    async with open_replica_scope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 3)
            nursery.start_soon(call, 5)
        (queue,) = scope.states(BatchQueue)
        assert queue.counters.cancelled == 1
        assert queue.lanes == {}

    assert left_at == pytest.approx([3, 7])
    assert ended_at == pytest.approx(7)


async def test_after_a_cancelled_batch_and_after_an_error_the_next_one_works() -> None:
    doubler = Doubler(work_s=FOREVER)

    async with open_replica_scope():
        for _ in range(3):
            with trio.move_on_after(1):
                await gather(doubler.pair(1), doubler.pair(2))
        await gather(doubler.fail(1), doubler.fail(2))
        doubler.work_s = 0
        assert await gather(doubler.pair(1), doubler.pair(2)) == [2, 4]

    assert doubler.cancelled == 3


async def test_a_call_that_is_cancelled_before_it_begins_joins_nothing() -> None:
    doubler = Doubler()

    async with open_replica_scope() as scope:
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await doubler.single(1)
        await trio.sleep(1)
        assert list(scope.states(BatchQueue)) == []

    assert doubler.batches == []


async def test_the_function_does_not_see_its_members_deadlines() -> None:
    seen = []

    @batch(max_batch_size=1)
    async def look(items: list[int]) -> list[int]:
        seen.append(trio.current_effective_deadline())
        return items

    async with open_replica_scope():
        with trio.fail_after(5):
            await look(1)

    # 3600 s are what the test itself may take.
    assert seen[0] - trio.current_time() > 3000


async def test_callers_are_answered_when_the_replica_stops() -> None:
    """One batch runs, another call still waits."""
    doubler = Doubler(work_s=FOREVER)
    outcomes: list[Any] = []

    async def call(item: int) -> None:
        outcomes.extend(await gather(doubler.pair(item)))

    async with trio.open_nursery() as callers, open_replica_scope("shop#1"):
        for item in range(3):
            callers.start_soon(call, item)
        await wait_all_tasks_blocked()

    assert len(outcomes) == 3
    assert all(isinstance(error, ReplicaStopped) for error in outcomes)
    assert "shop#1 stopped before Doubler.pair had answered" in str(outcomes[0])
    assert doubler.cancelled == 1


async def test_an_error_while_the_replica_stops_reaches_the_callers_without_the_stops_own_cancel() -> None:
    outcomes: list[Any] = []

    async def untidy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("untidy")

    @batch(max_batch_size=1)
    async def work(items: list[int]) -> list[int]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(untidy)
            nursery.start_soon(trio.sleep_forever)
        return items

    async def call() -> None:
        outcomes.extend(await gather(work(1)))

    async with trio.open_nursery() as callers, open_replica_scope():
        callers.start_soon(call)
        await wait_all_tasks_blocked()

    (group,) = outcomes
    assert isinstance(group, ExceptionGroup)
    assert [str(error) for error in group.exceptions] == ["untidy"]


# -- model ids and contexts ------------------------------------------------------------------------


async def test_a_batch_has_one_model_id_and_one_models_batch_does_not_hold_up_anothers() -> None:
    doubler, requests, start = Doubler(work_s=10), Requests(), trio.current_time()
    seen: list[str] = []

    class Seeing:
        @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
        async def see(self, items: list[int]) -> list[int]:
            seen.append(model_id.get())
            return await doubler._double(items)

    seeing = Seeing()

    async def call(item: int, model: str) -> None:
        model_id.set(model)
        await seeing.see(item)

    async with open_replica_scope(requests=requests) as scope:
        async with trio.open_nursery() as nursery:
            for item, model in enumerate(["a", "b", "a", "b"]):
                nursery.start_soon(call, item, model)
        (queue,) = scope.states(BatchQueue)
        assert queue.lanes == {}, "model ids do not pile up"

    assert sorted(map(sorted, doubler.batches)) == [[0, 2], [1, 3]]
    assert sorted(seen) == ["a", "b"]
    assert requests.entered == [2, 2]
    assert trio.current_time() - start == pytest.approx(10)


async def test_context_variables_set_in_the_function_stay_there() -> None:
    inside: contextvars.ContextVar[str] = contextvars.ContextVar("inside", default="clean")
    found = []

    @batch(max_batch_size=1)
    async def scribble(items: list[int]) -> list[int]:
        found.append(inside.get())
        inside.set("dirty")
        return items

    async with open_replica_scope():
        for item in range(3):
            await scribble(item)

    assert found == ["clean"] * 3
    assert inside.get() == "clean"


async def test_context_variables_of_the_oldest_member_are_seen_in_its_batch() -> None:
    """The second batch is formed by a task that began for the first."""
    color: contextvars.ContextVar[str] = contextvars.ContextVar("color")
    seen = []

    @batch(max_batch_size=1)
    async def look(items: list[int]) -> list[int]:
        seen.append(color.get())
        await trio.sleep(10)
        return items

    async def call(mine: str) -> None:
        color.set(mine)
        await look(1)

    async with open_replica_scope(), trio.open_nursery() as nursery:
        for mine in ("red", "green", "blue"):
            nursery.start_soon(call, mine)
            await trio.sleep(1)

    assert seen == ["red", "green", "blue"]


# -- ownership and memory --------------------------------------------------------------------------


async def test_instances_do_not_share_batches_nor_do_replicas_share_a_functions() -> None:
    batches = []

    @batch(max_batch_size=2, batch_wait_timeout_s=1)
    async def note(items: list[int]) -> list[int]:
        batches.append(items)
        return items

    async def replica(items: list[int]) -> None:
        async with open_replica_scope():
            await gather(*map(note, items))

    one, other = Doubler(), Doubler()
    async with open_replica_scope():
        await gather(one.double(1), other.double(2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(replica, [1])
        nursery.start_soon(replica, [2])

    assert (one.batches, other.batches) == ([[1]], [[2]])
    assert sorted(batches) == [[1], [2]]


async def test_an_instance_is_forgotten_with_all_that_was_kept_for_it(request: pytest.FixtureRequest) -> None:
    gc.disable()
    request.addfinalizer(gc.enable)
    async with open_replica_scope() as scope:
        doubler = Doubler()
        doubler.double.set_max_batch_size(2)
        await gather(doubler.double(1), doubler.double(2))
        doubler.fail.set_batch_wait_timeout_s(0)
        for _ in range(2):
            with contextlib.suppress(ZeroDivisionError):
                await doubler.fail(1)
        assert len(list(scope.states(BatchQueue))) == 2
        reference = weakref.ref(doubler)
        await wait_all_tasks_blocked()  # Trio itself holds what it sent last until it sends again

        del doubler

        assert reference() is None, "no cycle keeps it"
        assert list(scope.states(BatchQueue)) == []


async def test_instances_that_cannot_be_hashed_or_have_only_slots() -> None:
    class Unhashable:
        __slots__ = ("__weakref__", "seen")
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

        @batch(max_batch_size=1)
        async def echo(self, items: list[int]) -> list[int]:
            self.seen = items
            return items

    class NoRoom:
        __slots__ = ()

        @batch
        async def echo(self, items: list[int]) -> list[int]:
            return items

    async with open_replica_scope():
        one, other = Unhashable(), Unhashable()
        assert await gather(one.echo(1), other.echo(2)) == [1, 2]
        assert (one.seen, other.seen) == ([1], [2])
        with pytest.raises(TypeError, match=r"add '__weakref__' to .*NoRoom.__slots__"):
            await NoRoom().echo(1)


async def test_a_copy_has_a_queue_of_its_own() -> None:
    async with open_replica_scope() as scope:
        one = Doubler()
        await one.single(1)
        other = copy.deepcopy(one)
        await other.single(2)

        assert len(list(scope.states(BatchQueue))) == 2


async def test_no_task_is_left_when_nobody_waits() -> None:
    doubler = Doubler()

    async with open_replica_scope():
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(20):
            await gather(doubler.double(1), doubler.pair(2), doubler.pair(3))
            await wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_batch_larger_than_the_replica_takes_requests_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    doubler = Doubler()

    async with open_replica_scope() as scope:
        scope.max_ongoing_requests = 2
        await doubler.double(1)
        await doubler.double(1)

    (record,) = caplog.records
    assert "max_ongoing_requests=2; raise it to 3" in record.getMessage()
