"""Batching and multiplexing behind handles: the parts meet the replicas that own them."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio

from trio_serve.actors import CallCancelled, DeadlinePassed
from trio_serve.serving.application import Application
from trio_serve.serving.batching import batch
from trio_serve.serving.controller import Controller, open_controller
from trio_serve.serving.deployment import deployment
from trio_serve.serving.multiplexing import multiplexed
from trio_serve.serving.request_context import current_request, get_multiplexed_model_id, get_replica_context

FOREVER = 1000


@asynccontextmanager
async def serving(application: Application) -> AsyncIterator[tuple[Controller, Any]]:
    async with open_controller(random=Random(1)) as controller:
        yield controller, await controller.deploy(application)


@deployment(max_ongoing_requests=100)
class Batcher:
    def __init__(self, work_s: float = 0) -> None:
        self.work_s = work_s
        self.batches: list[list[Any]] = []
        self.cancelled = 0

    async def __call__(self, item: int) -> int:
        return await self.double(item)

    @batch(max_batch_size=3, batch_wait_timeout_s=FOREVER)
    async def double(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        try:
            await trio.sleep(self.work_s)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return [2 * item for item in items]

    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def count(self, limits: list[int]) -> AsyncGenerator[list[Any], None]:
        for number in range(10):
            yield [number if number < limit else StopIteration for limit in limits]

    @batch(max_batch_size=2, batch_wait_timeout_s=FOREVER)
    async def look(self, items: list[int]) -> list[Any]:
        request = current_request()
        assert request is not None
        told = (get_replica_context().deployment, get_multiplexed_model_id(), request.request_id)
        return [(*told, len(items)) for _ in items]

    async def report(self) -> tuple[list[list[Any]], int]:
        return self.batches, self.cancelled

    def reconfigure(self, config: dict[str, int]) -> None:
        self.double.set_max_batch_size(config["size"])


async def test_calls_by_handle_share_a_batch() -> None:
    async with serving(Batcher.bind()) as (_, handle):
        responses = [handle.remote(item) for item in range(6)]

        assert [await response for response in responses] == [0, 2, 4, 6, 8, 10]
        batches, _ = await handle.report.remote()
        assert sorted(map(len, batches)) == [3, 3]


async def test_one_cancelled_and_one_late_call_leave_the_third() -> None:
    async with serving(Batcher.bind(work_s=10)) as (_, handle):
        cancelled, late = handle.remote(1), handle.options(timeout_s=5).remote(2)
        third = handle.remote(3)
        await trio.sleep(1)
        cancelled.cancel()

        results = []
        for response in (cancelled, late, third):
            try:
                results.append(await response)
            except Exception as error:
                results.append(type(error))

        assert results[2] == 6
        assert results[0] is CallCancelled
        assert results[1] is DeadlinePassed
        assert (await handle.report.remote())[1] == 0


async def test_the_slots_are_free_once_a_batch_that_nobody_wants_has_ended() -> None:
    async with serving(Batcher.bind(work_s=FOREVER)) as (_, handle):
        responses = [handle.remote(item) for item in range(3)]
        await trio.sleep(1)
        for response in responses:
            response.cancel()
        await trio.sleep(1)

        assert (await handle.report.remote())[1] == 1


async def test_batched_streams_by_handle() -> None:
    async with serving(Batcher.bind()) as (_, handle):
        counting = handle.options(stream=True).count
        streams = [counting.remote(limit) for limit in (2, 4)]
        read: list[list[int]] = [[], []]

        async def reader(index: int) -> None:
            async for number in streams[index]:
                read[index].append(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, 0)
            nursery.start_soon(reader, 1)

        assert read == [[0, 1], [0, 1, 2, 3]]


async def test_a_batch_knows_its_replica_and_model_but_is_no_single_request() -> None:
    async with serving(Batcher.bind()) as (_, handle):
        for_a = handle.options(multiplexed_model_id="a")
        responses = [for_a.look.remote(1), for_a.look.remote(2)]

        assert [await response for response in responses] == [("Batcher", "a", "", 2)] * 2


async def test_reconfigure_sets_the_size_of_its_own_replica() -> None:
    async with serving(Batcher.options(user_config={"size": 2}).bind()) as (_, handle):
        responses = [handle.remote(item) for item in range(4)]

        assert [await response for response in responses] == [0, 2, 4, 6]
        assert [len(items) for items in (await handle.report.remote())[0]] == [2, 2]


class Model:
    log: list[str] = []

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    async def __del__(self) -> None:
        Model.log.append(f"-{self.model_id}")


@deployment(num_replicas=3, max_ongoing_requests=10)
class Multiplexer:
    @multiplexed(max_num_models_per_replica=2)
    async def get(self, model_id: str) -> Model:
        Model.log.append(f"+{model_id}")
        await trio.sleep(1)
        return Model(model_id)

    async def __call__(self) -> tuple[str, str]:
        model = await self.get()
        return model.model_id, get_replica_context().replica_tag

    async def loaded(self) -> list[str]:
        return self.get.loaded_model_ids()


async def test_the_same_model_id_goes_to_the_same_replica() -> None:
    Model.log.clear()
    async with serving(Multiplexer.bind()) as (_, handle):
        tags: dict[str, set[str]] = {"a": set(), "b": set()}
        for _ in range(10):
            for model_id, seen in tags.items():
                found, tag = await handle.options(multiplexed_model_id=model_id).remote()
                assert found == model_id
                seen.add(tag)

        assert [len(seen) for seen in tags.values()] == [1, 1]
        assert sorted(Model.log) == ["+a", "+b"]
        assert get_multiplexed_model_id() == "", "the id does not leak into the caller"
    assert sorted(Model.log) == ["+a", "+b", "-a", "-b"], "unloaded at the replicas' stop"


async def test_the_same_model_id_goes_elsewhere_while_its_replica_is_full() -> None:
    """The first call has no model loaded yet when the second one comes."""

    @deployment(num_replicas=2, max_ongoing_requests=1)
    class Slow:
        async def __call__(self) -> str:
            await trio.sleep(10)
            return get_replica_context().replica_tag

    async with serving(Slow.bind()) as (_, handle):
        begun = trio.current_time()
        calls = [handle.options(multiplexed_model_id="a").remote() for _ in range(2)]
        assert len({await call for call in calls}) == 2
        assert trio.current_time() == begun + 10


async def test_models_can_be_loaded_before_the_first_call() -> None:
    """In an async constructor and in reconfigure, when nothing is served yet."""

    @deployment
    class Eager:
        async def __init__(self) -> None:  # type: ignore[misc]
            await self.get("from the constructor")

        async def reconfigure(self, config: dict[str, str]) -> None:
            await self.get(config["model"])

        @multiplexed
        async def get(self, model_id: str) -> str:
            return model_id

        async def __call__(self) -> list[str]:
            return self.get.loaded_model_ids()

    with_config = Eager.options(user_config={"model": "from the config"})
    async with serving(with_config.bind()) as (_, handle):
        assert await handle.remote() == ["from the constructor", "from the config"]
