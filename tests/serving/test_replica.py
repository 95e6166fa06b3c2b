"""How a replica runs its methods, and what it asks of the class that it serves."""

import contextvars
import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.actors.recording import Recorded
from tests.serving.test_handle import serving
from trio_serve.actors import CallCancelled, DeadlinePassed, HandlerExited
from trio_serve.serving.deployment import deployment
from trio_serve.serving.request_context import (
    RequestContext,
    current_request,
    get_multiplexed_model_id,
    get_replica_context,
)


async def test_sync_methods_run_one_at_a_time_in_the_constructors_thread() -> None:
    @deployment(max_ongoing_requests=10)
    class Sync:
        def __init__(self) -> None:
            self.threads = {threading.get_ident()}
            self.inside = 0
            self.most = 0

        def __call__(self) -> None:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.threads.add(threading.get_ident())
            time.sleep(0.001)
            self.inside -= 1

        async def look(self) -> Any:
            return self.threads, self.most, threading.get_ident()

    async with serving(Sync.bind()) as (_, handle):
        for response in [handle.remote() for _ in range(20)]:
            await response
        threads, most, loop_thread = await handle.look.remote()
        assert most == 1
        assert len(threads) == 1
        assert loop_thread not in threads


async def test_inline_runs_sync_methods_on_the_loop() -> None:
    @deployment(sync_methods="inline")
    class Inline:
        def __init__(self) -> None:
            self.thread = threading.get_ident()

        def __call__(self) -> list[int]:
            return [self.thread, threading.get_ident()]

        def items(self) -> Iterator[int]:
            yield threading.get_ident()

        def check_health(self) -> None:
            assert threading.get_ident() == self.thread

    async with serving(Inline.options(health_check_period_s=1).bind()) as (_, handle):
        here = threading.get_ident()
        assert await handle.remote() == [here, here]
        assert [x async for x in handle.options(stream=True).items.remote()] == [here]
        await trio.sleep(10)


async def test_functions_are_deployments_too() -> None:
    @deployment
    async def twice(x: int) -> int:
        return 2 * x

    @deployment
    def thrice(x: int) -> int:
        return 3 * x

    @deployment
    async def count(n: int) -> Any:
        for number in range(n):
            yield number

    async with serving(twice.bind()) as (controller, handle):
        assert await handle.remote(2) == 4
        handle = await controller.deploy(thrice.bind(), name="b")
        assert await handle.remote(2) == 6
        handle = await controller.deploy(count.bind(), name="c")
        assert [x async for x in handle.options(stream=True).remote(3)] == [0, 1, 2]


async def test_async_constructors_are_awaited() -> None:
    @deployment
    class Slow:
        async def __init__(self, seconds: float) -> None:  # type: ignore[misc]
            await trio.sleep(seconds)
            self.ready = True

        async def __call__(self) -> bool:
            return self.ready

    begun = trio.current_time()
    async with serving(Slow.bind(5)) as (_, handle):
        assert trio.current_time() == begun + 5
        assert await handle.remote()


async def test_an_async_function_behind_a_plain_decorator_is_awaited() -> None:
    def plain(function: Any) -> Any:
        def inner(*args: Any) -> Any:
            return function(*args)

        return inner

    @deployment
    class Wrapped:
        @plain
        async def __call__(self) -> str:
            await trio.sleep(1)
            return "awaited"

    async with serving(Wrapped.bind()) as (_, handle):
        assert await handle.remote() == "awaited"


async def test_grpc_context_is_given_to_those_who_ask_for_it_and_is_not_handed_on() -> None:
    @deployment
    class Inner:
        async def __call__(self, grpc_context: Any = None) -> Any:
            return grpc_context

    @deployment
    class Outer:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def asks(self, x: int, grpc_context: Any) -> Any:
            return x, grpc_context, await self.inner.remote()

        def sync_asks(self, grpc_context: Any) -> Any:
            return grpc_context

        async def does_not(self, x: int) -> int:
            return x

    async with serving(Outer.bind(Inner.bind())) as (controller, _):
        ingress = controller.applications["default"].ingress

        async def call(method: str, *args: Any) -> Any:
            reply = Recorded()
            request = RequestContext("id", "default", grpc_context="the context")
            ingress.call(method, args, {}, request=request, reply=reply)
            return await reply.wait()

        assert await call("asks", 3) == (3, "the context", None)
        assert await call("sync_asks") == "the context"
        assert await call("does_not", 3) == 3


async def test_what_a_method_raises_never_ends_the_replica() -> None:
    @deployment
    class Bad:
        async def leave(self) -> None:
            raise SystemExit(3)

        def sync_leave(self) -> None:
            raise SystemExit(3)

        async def __call__(self) -> str:
            return get_replica_context().replica_tag

    async with serving(Bad.bind()) as (_, handle):
        before = await handle.remote()
        for method in ("leave", "sync_leave"):
            with pytest.raises(HandlerExited, match=r"SystemExit\(3\)"):
                await handle.options(method_name=method).remote()
        assert await handle.remote() == before


# -- context -------------------------------------------------------------------------------------------


async def test_the_replicas_context_is_known_in_constructor_methods_threads_and_tasks() -> None:
    seen: dict[str, Any] = {}

    @deployment
    class Curious:
        def __init__(self) -> None:
            seen["constructor"] = get_replica_context()

        async def __call__(self) -> None:
            seen["method"] = get_replica_context()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.task)

        async def task(self) -> None:
            seen["task"] = get_replica_context()

        def sync(self) -> None:
            seen["thread"] = get_replica_context()

    async with serving(Curious.bind(), name="app") as (_, handle):
        await handle.remote()
        await handle.sync.remote()
        assert len(seen) == 4
        assert len({context.replica_tag for context in seen.values()}) == 1
        context = seen["method"]
        assert (context.app_name, context.deployment) == ("app", "Curious")
        assert context.replica_tag == f"Curious#{context.replica_id}"
        assert len(context.replica_id) == 6
        assert type(context.servable_object).__name__ == "Curious"
    with pytest.raises(RuntimeError, match="outside a replica"):
        get_replica_context()


async def test_a_model_id_is_seen_by_its_call_only() -> None:
    @deployment
    class Inner:
        async def __call__(self) -> str:
            return get_multiplexed_model_id()

    @deployment
    class Outer:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self) -> Any:
            before = get_multiplexed_model_id()
            plain = await self.inner.remote()
            other = await self.inner.options(multiplexed_model_id="other").remote()
            return before, plain, other, get_multiplexed_model_id()

        def sync(self) -> str:
            return get_multiplexed_model_id()

    async with serving(Outer.bind(Inner.bind())) as (_, handle):
        outer = handle.options(multiplexed_model_id="mine")
        assert await outer.remote() == ("mine", "", "other", "mine")
        assert await outer.sync.remote() == "mine"
        assert get_multiplexed_model_id() == ""


async def test_the_request_id_goes_with_all_calls_of_a_request() -> None:
    @deployment
    class Inner:
        async def __call__(self) -> Any:
            request = current_request()
            assert request is not None
            return request.request_id, request.application

    @deployment
    class Outer:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self) -> Any:
            return await self.inner.remote()

    async with serving(Outer.bind(Inner.bind()), name="app") as (_, handle):
        first, second = handle.remote(), handle.remote()
        assert await first == (first.request_id, "app")
        assert await second == (second.request_id, "app")
        assert first.request_id != second.request_id


async def test_nothing_that_a_method_sets_is_seen_by_its_caller_or_by_the_next_call() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")

    @deployment
    class Setter:
        async def __call__(self) -> str:
            before = variable.get()
            variable.set("set by a method")
            return before

    async with serving(Setter.bind()) as (_, handle):
        variable.set("the caller's")
        assert [await handle.remote() for _ in range(3)] == ["the caller's"] * 3
        assert variable.get() == "the caller's"


# -- ownership -----------------------------------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.entries: list[str] = []


def chain(log: Log, depth: int) -> Any:
    """Deployments that call each other to a depth; the deepest sleeps."""

    @deployment
    class Link:
        def __init__(self, name: str, inner: Any) -> None:
            self.name, self.inner = name, inner

        async def __call__(self, seconds: float) -> float:
            log.entries.append(f"{self.name} begun")
            try:
                if self.inner is None:
                    await trio.sleep(seconds)
                    return seconds
                return float(await self.inner.remote(seconds))
            except trio.Cancelled:
                log.entries.append(f"{self.name} cancelled")
                raise

        async def forgets(self, seconds: float) -> str:
            self.inner.remote(seconds)
            self.inner.remote(seconds)
            await trio.sleep(1)
            return "done"

    app = Link.options(name="L0").bind("L0", None)
    for number in range(1, depth):
        app = Link.options(name=f"L{number}").bind(f"L{number}", app)
    return app


async def test_a_cancel_reaches_the_deepest_call_in_the_same_moment() -> None:
    log = Log()
    async with serving(chain(log, 5)) as (_, handle):
        response = handle.remote(100)
        await trio.sleep(1)
        response.cancel()
        await wait_all_tasks_blocked()
        assert sorted(log.entries) == sorted(
            [f"L{n} begun" for n in range(5)] + [f"L{n} cancelled" for n in range(5)]
        )


async def test_a_deadline_is_inherited_by_all_calls() -> None:
    log = Log()
    async with serving(chain(log, 4)) as (controller, handle):
        begun = trio.current_time()
        with pytest.raises(DeadlinePassed):
            await handle.options(timeout_s=3).remote(100)
        await wait_all_tasks_blocked()
        assert trio.current_time() == begun + 3
        assert sum("cancelled" in entry for entry in log.entries) == 4
        for fleet in controller.applications["default"].fleets.values():
            assert fleet.load() == 0


async def test_calls_that_were_never_awaited_are_cancelled_when_their_request_ends() -> None:
    log = Log()
    async with serving(chain(log, 2)) as (controller, handle):
        begun = trio.current_time()
        assert await handle.forgets.remote(100) == "done"
        assert trio.current_time() == begun + 1
        await wait_all_tasks_blocked()
        assert log.entries == ["L0 begun", "L0 begun", "L0 cancelled", "L0 cancelled"]
        assert controller.applications["default"].fleets["L0"].load() == 0


async def test_a_task_that_outlives_its_request_calls_on_its_own_account() -> None:
    @deployment
    class Inner:
        async def __call__(self) -> str:
            await trio.sleep(1)
            return "answer"

    answers: list[Any] = []

    @deployment
    class Outer:
        def __init__(self, inner: Any, nursery: Any) -> None:
            self.inner, self.nursery = inner, nursery

        async def __call__(self) -> None:
            self.nursery.start_soon(self.later)

        async def later(self) -> None:
            await trio.sleep(10)
            answers.append(await self.inner.remote())

    async with trio.open_nursery() as nursery, serving(Outer.bind(Inner.bind(), nursery)) as (_, handle):
        await handle.options(timeout_s=5).remote()
        await trio.sleep(20)
    assert answers == ["answer"]


async def test_a_cancelled_request_can_start_no_more_calls() -> None:
    errors: list[BaseException] = []

    @deployment
    class Inner:
        async def __call__(self) -> None:
            raise AssertionError("it must not run")

    @deployment
    class Outer:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self) -> None:
            try:
                await trio.sleep(100)
            finally:
                with trio.CancelScope(shield=True):
                    try:
                        await self.inner.remote()
                    except CallCancelled as error:
                        errors.append(error)

    async with serving(Outer.bind(Inner.bind())) as (_, handle):
        response = handle.remote()
        await trio.sleep(1)
        response.cancel()
        await wait_all_tasks_blocked()
        assert "has been cancelled" in str(errors[0])


@pytest.mark.real_clock
async def test_the_answer_leaves_at_the_deadline_while_the_thread_still_counts() -> None:
    release = threading.Event()

    @deployment(max_ongoing_requests=1)
    class Stuck:
        def __call__(self) -> None:
            release.wait()

        async def free(self) -> str:
            return "free"

    async with serving(Stuck.bind()) as (controller, handle):
        with trio.fail_after(10), pytest.raises(DeadlinePassed):
            await handle.options(timeout_s=0.05).remote()
        fleet = controller.applications["default"].fleets["Stuck"]
        assert fleet.load() == 1
        waiting = handle.free.remote()
        await trio.sleep(0.02)
        assert fleet.load() == 2
        release.set()
        assert await waiting == "free"


# -- reconfigure, health, goodbye ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_user_config_reaches_reconfigure_before_the_first_call(kind: str) -> None:
    @deployment(user_config={"factor": 3})
    class Sync:
        def reconfigure(self, config: Any) -> None:
            self.factor = config["factor"]

        async def __call__(self, x: int) -> int:
            return self.factor * x

    @deployment(user_config={"factor": 3})
    class Async:
        async def reconfigure(self, config: Any) -> None:
            await trio.sleep(1)
            self.factor = config["factor"]

        async def __call__(self, x: int) -> int:
            return self.factor * x

    async with serving({"sync": Sync, "async": Async}[kind].bind()) as (_, handle):
        assert await handle.remote(2) == 6


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_goodbye_is_said_once_where_other_methods_run(kind: str) -> None:
    said: list[int] = []

    @deployment
    class Sync:
        def __init__(self) -> None:
            self.thread = threading.get_ident()

        def __del__(self) -> None:
            said.append(threading.get_ident() - self.thread)

    @deployment
    class Async:
        async def __del__(self) -> None:  # type: ignore[override]
            await trio.sleep(1)
            said.append(0)

    async with serving({"sync": Sync, "async": Async}[kind].bind()):
        assert said == []
    gc.collect()
    assert said == [0]


async def test_a_goodbye_that_raises_or_hangs_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    @deployment(graceful_shutdown_timeout_s=5)
    class Raising:
        async def __del__(self) -> None:  # type: ignore[override]
            raise ValueError("goodbye")

    @deployment(graceful_shutdown_timeout_s=5)
    class Hanging:
        async def __del__(self) -> None:  # type: ignore[override]
            await trio.sleep_forever()

    begun = trio.current_time()
    async with serving(Raising.bind()) as (controller, _):
        await controller.deploy(Hanging.bind(), name="b")
    assert trio.current_time() == begun + 5
    assert "__del__ raised" in caplog.text
