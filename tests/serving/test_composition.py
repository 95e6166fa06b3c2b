"""Responses as arguments of other calls: chains and trees of calls, sent at once and awaited in any order."""

from typing import Any

import pytest
import trio

from tests.serving.test_handle import Worker, serving
from trio_serve.actors import ActorStopped, CallCancelled
from trio_serve.serving.deployment import deployment


async def test_a_response_as_an_argument_is_waited_for_on_the_way() -> None:
    async with serving(Worker.bind()) as (_, handle):
        begun = trio.current_time()
        a = handle.sleep.remote(2, "a")
        b = handle.sleep.remote(3, "b")
        pair = handle.pair.remote(a, "plain", c=b)
        again = handle.pair.remote(a, a)
        assert trio.current_time() == begun
        assert await pair == ("a", "plain", "b")
        assert await again == ("a", "a", None)
        assert trio.current_time() == begun + 3


async def test_a_call_that_waits_for_its_arguments_takes_no_slot() -> None:
    """Two slots, both needed by what the waiting calls wait for."""
    async with serving(Worker.bind()) as (_, handle):
        chain = handle.sleep.remote(1, 0)
        for _ in range(20):
            chain = handle.pair.remote(chain, 1)
        with trio.fail_after(10):
            await handle.remote("others are served meanwhile")
            assert (await chain)[1] == 1


async def test_an_arguments_error_is_the_calls_error_and_the_method_does_not_run() -> None:
    async with serving(Worker.bind()) as (_, handle):
        with pytest.raises(ValueError, match="broken"):
            await handle.sleep.remote(0, result=handle.fail.remote("broken"))
        assert await handle.get_log.remote() == []


async def test_a_call_cancelled_while_it_waits_for_an_argument_never_runs() -> None:
    async with serving(Worker.bind()) as (_, handle):
        argument = handle.sleep.remote(5, "argument")
        call = handle.sleep.remote(0, argument)
        call.cancel()
        with pytest.raises(CallCancelled):
            await call
        assert await argument == "argument"
        assert [entry for entry in await handle.get_log.remote() if entry[1] != "argument"] == []


async def test_a_response_within_a_list_is_passed_as_it_is() -> None:
    """Only arguments themselves are waited for, as in Ray Serve."""
    async with serving(Worker.bind()) as (_, handle):
        inner = handle.remote(3)
        [same] = await handle.remote([inner])
        assert same is inner


async def test_a_stream_is_no_argument() -> None:
    async with serving(Worker.bind()) as (_, handle):
        stream = handle.options(stream=True).get_log.remote()
        with pytest.raises(TypeError, match="argument 0 is a stream of items"):
            await handle.remote(stream)


async def test_an_arguments_error_is_told_at_once_though_another_is_still_on_its_way() -> None:
    async with serving(Worker.bind()) as (_, handle):
        begun = trio.current_time()
        with pytest.raises(ValueError, match="broken"):
            await handle.pair.remote(handle.sleep.remote(10), handle.fail.remote("broken"))
        assert trio.current_time() == begun


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_a_chain_may_be_awaited_in_any_order(order: str) -> None:
    async with serving(Worker.bind()) as (_, handle):
        a = handle.sleep.remote(1, "a")
        b = handle.pair.remote(a, "b")
        calls = {"a": a, "b": b}
        answers = {name: await calls[name] for name in order}
        assert answers == {"a": "a", "b": ("a", "b", None)}


async def test_a_crash_in_one_link_of_a_chain_takes_no_other_replica() -> None:
    @deployment
    class Link:
        async def __call__(self, number: int, crash: bool = False) -> int:
            if crash:
                task = trio.lowlevel.current_task()
                assert task.parent_nursery is not None
                task.parent_nursery.cancel_scope.cancel()
                await trio.sleep_forever()
            return number + 1

    @deployment
    class Ingress:
        def __init__(self, *links: Any) -> None:
            self.links = links

        async def __call__(self, crash_at: int = -1) -> int:
            answer: Any = 0
            for number, link in enumerate(self.links):
                answer = link.remote(answer, crash=number == crash_at)
            return int(await answer)

    links = [Link.options(name=f"Link{number}").bind() for number in range(3)]
    async with serving(Ingress.bind(*links)) as (controller, handle):
        fleets = controller.applications["default"].fleets
        before = {name: fleet.replicas()[0].tag for name, fleet in fleets.items()}
        assert await handle.remote() == 3
        with pytest.raises(ActorStopped, match="Link1#"):
            await handle.remote(1)
        assert await handle.remote() == 3
        after = {name: fleet.replicas()[0].tag for name, fleet in fleets.items()}
        assert [name for name in before if before[name] != after[name]] == ["Link1"]
