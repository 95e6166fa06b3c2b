"""Calling by handle: dispatch, answers, errors, arguments, options; from tasks and from threads."""

import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_serve.actors import CallCancelled, DeadlinePassed
from trio_serve.serving.application import Application
from trio_serve.serving.controller import Controller, NoSuchApplication, open_controller
from trio_serve.serving.deployment import deployment
from trio_serve.serving.errors import (
    BackPressureError,
    DeploymentUnavailable,
    MethodNotFound,
    WrongMethodKind,
)
from trio_serve.serving.request_context import current_request


@deployment(max_ongoing_requests=2)
class Worker:
    def __init__(self) -> None:
        self.log: list[Any] = []

    async def __call__(self, x: Any = None) -> Any:
        return x

    async def sleep(self, seconds: float, result: Any = None) -> Any:
        self.log.append(("begun", result))
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.log.append(("cancelled", result))
            raise
        self.log.append(("ended", result))
        return result

    async def fail(self, text: str = "no") -> None:
        raise ValueError(text)

    async def get_log(self) -> list[Any]:
        return self.log

    async def pair(self, a: Any, b: Any, *, c: Any = None) -> Any:
        return a, b, c

    def sync(self, x: Any) -> Any:
        return x


@asynccontextmanager
async def serving(application: Application, **kwargs: Any) -> AsyncIterator[tuple[Controller, Any]]:
    async with open_controller(random=Random(1)) as controller:
        yield controller, await controller.deploy(application, **kwargs)


async def test_a_call_is_on_its_way_before_anybody_awaits_it() -> None:
    async with serving(Worker.bind()) as (_, handle):
        response = handle.sleep.remote(0, "x")
        await wait_all_tasks_blocked()
        assert await handle.get_log.remote() == [("begun", "x"), ("ended", "x")]
        assert await response == "x"


async def test_a_response_may_be_awaited_again_and_by_several_tasks() -> None:
    async with serving(Worker.bind()) as (_, handle):
        response = handle.sleep.remote(1, "x")
        seen: list[Any] = []

        async def wait() -> None:
            seen.append(await response)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
        assert [*seen, await response, await response] == ["x"] * 5


async def test_an_error_arrives_as_it_was_raised_each_time_with_the_callees_frames() -> None:
    async with serving(Worker.bind()) as (_, handle):
        response = handle.fail.remote("broken")
        depths = []
        for _ in range(3):
            with pytest.raises(ValueError, match="broken") as caught:
                await response
            names = [entry.name for entry in caught.traceback]
            assert "fail" in names
            depths.append(len(names))
        assert len(set(depths)) == 1


async def test_an_error_leaves_no_reference_cycle() -> None:
    """Under a flood of errors, garbage would pile up between two collections."""

    class Odd(Exception): ...

    @deployment
    class Failing:
        async def __call__(self) -> None:
            raise Odd

        async def items(self) -> AsyncIterator[int]:
            raise Odd
            yield 1

        def sync(self) -> None:
            raise Odd

    async def error_of(call: Callable[[], Any]) -> "weakref.ref[BaseException]":
        try:
            await call()
        except Odd as error:
            return weakref.ref(error)
        raise AssertionError

    async with serving(Failing.bind()) as (_, handle):
        gc.disable()
        try:
            one = await error_of(handle.remote)
            stream = await error_of(lambda: anext(handle.options(stream=True).items.remote()))
            await wait_all_tasks_blocked()
            assert one() is None
            assert stream() is None
            sync = await error_of(handle.sync.remote)
            await wait_all_tasks_blocked()
            assert sync() is None
        finally:
            gc.enable()


async def test_calls_leave_nothing_for_the_garbage_collector() -> None:
    async with serving(Worker.bind()) as (_, handle):
        for _ in range(2):  # the first round fills caches
            await wait_all_tasks_blocked()
            gc.collect()
            gc.disable()
            try:
                for number in range(50):
                    await handle.remote(number)
                    await handle.pair.remote(handle.remote(1), 2)
                    handle.remote(3)
                    with trio.move_on_after(1):
                        await handle.sleep.remote(10)
                    cancelled = handle.sleep.remote(10)
                    cancelled.cancel()
                del cancelled
                await wait_all_tasks_blocked()
                garbage = gc.collect()
            finally:
                gc.enable()
        assert garbage <= 50  # Trio's own: some for each Cancelled


async def test_a_missing_method_is_named_with_those_that_are_there() -> None:
    async with serving(Worker.bind()) as (_, handle):
        with pytest.raises(MethodNotFound) as caught:
            await handle.slep.remote()
        assert str(caught.value) == (
            "deployment 'Worker' has no method 'slep'; it has __call__, fail, get_log, pair, sleep, sync"
        )
        with pytest.raises(MethodNotFound):
            await handle.options(method_name="__init__").remote()


async def test_methods_that_only_the_instance_has_can_be_called() -> None:
    @deployment
    class Dynamic:
        def __init__(self) -> None:
            self.doubled = lambda x: 2 * x

    async with serving(Dynamic.bind()) as (_, handle):
        assert await handle.doubled.remote(4) == 8


async def test_a_wrong_argument_is_a_type_error_of_the_method() -> None:
    async with serving(Worker.bind()) as (_, handle):
        with pytest.raises(TypeError, match="unexpected keyword argument 'y'"):
            await handle.remote(y=3)


async def test_generators_want_stream_true_and_others_do_not() -> None:
    ran = []

    @deployment
    class Mixed:
        async def items(self) -> AsyncIterator[int]:
            ran.append("body")
            yield 1

        def sync_items(self) -> Any:
            ran.append("body")
            yield 1

        async def plain(self) -> int:
            return 1

        def hidden(self) -> Any:
            return (x for x in [1])

    async with serving(Mixed.bind()) as (_, handle):
        for name in ("items", "sync_items", "hidden"):
            with pytest.raises(WrongMethodKind) as caught:
                await handle.options(method_name=name).remote()
            assert str(caught.value) == (
                f"Mixed.{name} is a generator; its items are streamed, so call it with stream=True: "
                f"handle.options(stream=True).{name}.remote(...)"
            )
        assert ran == []
        stream = handle.options(stream=True)
        with pytest.raises(WrongMethodKind, match=r"Mixed.plain returned int, which is no generator"):
            async for _ in stream.plain.remote():
                pass
        assert [x async for x in stream.hidden.remote()] == [1]
        with pytest.raises(TypeError, match="answers with a stream: read it with 'async for'"):
            await stream.items.remote()


async def test_options_are_chained_and_change_no_other_handle() -> None:
    @deployment
    class Ids:
        async def model(self) -> str:
            request = current_request()
            assert request is not None
            return request.multiplexed_model_id

    async with serving(Ids.bind()) as (_, handle):
        a = handle.options(multiplexed_model_id="a")
        b = a.options(method_name="model").options(multiplexed_model_id="b")
        assert await a.model.remote() == "a"
        assert await b.remote() == "b"
        assert await handle.model.remote() == ""


async def test_handles_that_call_the_same_thing_in_the_same_way_are_equal() -> None:
    async with serving(Worker.bind()) as (controller, handle), serving(Worker.bind()) as (_, elsewhere):
        again = controller.get_app_handle("default")
        assert again is not handle
        assert again == handle == handle.options(stream=False)
        assert hash(again) == hash(handle)
        assert handle.sleep == again.sleep == handle.options(method_name="sleep")
        for other in (handle.sleep, handle.options(stream=True), handle.options(timeout_s=1), elsewhere, "x"):
            assert other != handle


async def test_bad_options_are_refused_at_once() -> None:
    async with serving(Worker.bind()) as (_, handle):
        with pytest.raises(TypeError, match="unexpected keyword argument 'metod_name'"):
            handle.options(metod_name="x")
        with pytest.raises(TypeError, match="stream=3"):
            handle.options(stream=3)
        with pytest.raises(ValueError, match="timeout_s=0"):
            handle.options(timeout_s=0)


# -- bounds --------------------------------------------------------------------------------------------


async def test_a_full_queue_refuses_with_the_contracts_text() -> None:
    limited = Worker.options(max_ongoing_requests=1, max_queued_requests=1)
    async with serving(limited.bind()) as (_, handle):
        running = handle.sleep.remote(1)
        waiting = handle.sleep.remote(1)
        with pytest.raises(BackPressureError) as caught:
            await handle.remote()
        assert str(caught.value) == (
            "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1)."
        )
        await running
        await waiting
        await handle.remote()


async def test_timeout_s_bounds_a_call_at_work_and_in_the_queue() -> None:
    async with serving(Worker.options(max_ongoing_requests=1).bind()) as (_, handle):
        begun = trio.current_time()
        bounded = handle.options(timeout_s=2)
        at_work = bounded.sleep.remote(10, "at work")
        queued = bounded.sleep.remote(10, "queued")
        for response in (at_work, queued):
            with pytest.raises(DeadlinePassed):
                await response
        assert trio.current_time() == begun + 2
        assert await handle.get_log.remote() == [("begun", "at work"), ("cancelled", "at work")]


async def test_an_answer_does_not_wait_for_work_that_shields_itself() -> None:
    @deployment(max_ongoing_requests=1)
    class Stubborn:
        async def __call__(self) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)

    async with serving(Stubborn.bind()) as (_, handle):
        begun = trio.current_time()
        with pytest.raises(DeadlinePassed):
            await handle.options(timeout_s=2).remote()
        assert trio.current_time() == begun + 2
        await handle.remote()  # its slot was taken until the work had ended
        assert trio.current_time() == begun + 20


async def test_cancel_ends_the_work_and_tells_who_waits() -> None:
    async with serving(Worker.bind()) as (_, handle):
        response = handle.sleep.remote(10, "x")
        await wait_all_tasks_blocked()
        assert not response.cancelled()
        response.cancel()
        response.cancel()
        assert response.cancelled()
        with pytest.raises(CallCancelled, match=response.request_id):
            await response
        assert await handle.get_log.remote() == [("begun", "x"), ("cancelled", "x")]


async def test_cancel_after_the_answer_changes_nothing() -> None:
    async with serving(Worker.bind()) as (_, handle):
        response = handle.remote(3)
        assert await response == 3
        response.cancel()
        assert not response.cancelled()
        assert await response == 3


async def test_giving_up_the_only_wait_cancels_the_call() -> None:
    async with serving(Worker.bind()) as (_, handle):
        with trio.move_on_after(1):
            await handle.sleep.remote(10, "x")
        await wait_all_tasks_blocked()
        assert await handle.get_log.remote() == [("begun", "x"), ("cancelled", "x")]


async def test_giving_up_one_of_two_waits_does_not() -> None:
    async with serving(Worker.bind()) as (_, handle):
        response = handle.sleep.remote(3, "x")
        async with trio.open_nursery() as nursery:

            async def impatient() -> None:
                with trio.move_on_after(1):
                    await response

            nursery.start_soon(impatient)
            assert await response == "x"


async def test_a_handle_that_is_kept_finds_the_deployment_of_the_day() -> None:
    async with open_controller() as controller:
        handle = await controller.deploy(Worker.bind())
        assert await handle.remote(1) == 1
        await controller.delete("default")
        with pytest.raises(DeploymentUnavailable, match="no application of this name is deployed"):
            await handle.remote(1)
        await controller.deploy(Worker.bind())
        assert await handle.remote(2) == 2


async def test_handles_are_looked_up_by_name() -> None:
    async with serving(Worker.bind(), name="app") as (controller, _):
        assert await controller.get_app_handle("app").remote(1) == 1
        assert await controller.get_deployment_handle("Worker", "app").remote(1) == 1
        with pytest.raises(NoSuchApplication, match="no application 'nope' is deployed; there are: app"):
            controller.get_app_handle("nope")
        with pytest.raises(DeploymentUnavailable, match="no such deployment; it has Worker"):
            controller.get_deployment_handle("Nope", "app")


# -- threads -------------------------------------------------------------------------------------------


async def in_thread(fn: Any) -> Any:
    """What ``fn`` returns in a thread that is none of ours; virtual time may pass meanwhile."""
    return await trio.to_thread.run_sync(fn)


@pytest.mark.real_clock
async def test_calls_from_another_thread() -> None:
    async with serving(Worker.options(graceful_shutdown_timeout_s=0).bind()) as (_, handle):

        def work() -> Any:
            first = handle.remote(1)
            second = handle.pair.remote(first, 2)
            with pytest.raises(ValueError, match="broken"):
                handle.fail.remote("broken").result()
            with pytest.raises(TimeoutError):
                handle.sleep.remote(30).result(timeout_s=0.01)
            with pytest.raises(RuntimeError, match=r"use response.result\(\) here"):
                first.__await__().send(None)
            return second.result(timeout_s=10)

        assert await in_thread(work) == (1, 2, None)


@pytest.mark.real_clock
async def test_cancelling_from_another_thread() -> None:
    async with serving(Worker.bind()) as (_, handle):

        def work() -> None:
            response = handle.sleep.remote(30, "x")
            response.cancel()
            assert response.cancelled()
            with pytest.raises(CallCancelled):
                response.result(timeout_s=10)

        await in_thread(work)


@pytest.mark.real_clock
async def test_streams_are_read_from_another_thread() -> None:
    @deployment
    class Counter:
        async def up_to(self, n: int) -> AsyncIterator[int]:
            for number in range(n):
                yield number
            if n == 3:
                raise ValueError("three")

    async with serving(Counter.bind()) as (_, handle):
        stream = handle.options(stream=True).up_to

        def work() -> None:
            assert list(stream.remote(5)) == [0, 1, 2, 3, 4]
            seen = []
            with pytest.raises(ValueError, match="three"):
                for number in stream.remote(3):
                    seen.append(number)  # noqa: PERF402 - what came before the error counts
            assert seen == [0, 1, 2]
            endless = iter(stream.remote(10**9))
            assert [next(endless), next(endless)] == [0, 1]

        await in_thread(work)


async def test_blocking_in_the_loops_own_thread_is_refused() -> None:
    async with serving(Worker.bind()) as (_, handle):
        with pytest.raises(RuntimeError, match=r"would block the event loop .*; await the response instead"):
            handle.remote(1).result()
        with pytest.raises(RuntimeError, match="use 'async for' instead"):
            next(handle.options(stream=True).remote(1))


async def test_a_sync_method_waits_for_calls_of_its_own_while_virtual_time_passes() -> None:
    @deployment
    class Blocking:
        def __init__(self, worker: Any) -> None:
            self.worker = worker

        def __call__(self) -> Any:
            return self.worker.sleep.remote(500, "slept").result()

    async with serving(Blocking.bind(Worker.bind())) as (_, handle):
        begun = trio.current_time()
        assert await handle.remote() == "slept"
        assert trio.current_time() == pytest.approx(begun + 500)


@pytest.mark.real_clock
async def test_after_the_instance_has_ended_threads_are_told_so() -> None:
    finished: list[BaseException] = []
    handles: list[Any] = []

    def instance() -> None:
        async def main() -> None:
            async with open_controller() as controller:
                handles.append(await controller.deploy(Worker.bind()))

        trio.run(main)

    def work() -> None:
        thread = threading.Thread(target=instance)
        thread.start()
        thread.join()
        try:
            handles[0].remote(1).result()
        except Exception as error:
            finished.append(error)

    await in_thread(work)
    assert "has ended; start it again" in str(finished[0])
