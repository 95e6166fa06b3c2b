"""Strictness: what is found fails the test, with the place; what is fine passes."""

import socket
import threading

import pytest
import trio

import trio_serve as serve
from trio_serve.testing import Leaked, Strict, WouldNotSurvive, serving

from .greeting import PROTO, Greeter, hello


class Picture:
    def __init__(self, lock):
        self.meta = {"size": 3, "guards": [lock]}


@serve.deployment
class Ranker:
    async def rank(self, picture):
        return 1

    async def echo(self, value):
        value.append("theirs")
        return value

    def items(self, count):
        for index in range(count):
            yield threading.Lock() if index == 2 else index

    async def fail(self):
        raise NoCopy("a", "b")


class NoCopy(Exception):
    def __init__(self, one, two):
        super().__init__(one)


async def found_in(call, app=None):
    with pytest.raises(WouldNotSurvive) as info:
        async with serving(app or Ranker.bind(), strict=Strict(leaks=False)) as service:
            await call(service.handle)
    return str(info.value)


async def test_an_argument_that_cannot_be_pickled_is_named_with_its_path() -> None:
    async def call(handle):
        await handle.rank.remote(Picture(threading.Lock()))

    text = await found_in(call)

    assert "Ranker.rank: argument 0.meta['guards'][0]: TypeError: cannot pickle '_thread.lock'" in text


async def test_a_reply_and_an_item_of_a_stream_are_found() -> None:
    async def call(handle):
        async for _ in handle.items.options(stream=True).remote(3):
            pass

    assert "Ranker.items: reply: TypeError: cannot pickle '_thread.lock'" in await found_in(call)


async def test_an_error_that_cannot_be_made_again_is_found() -> None:
    async def call(handle):
        with pytest.raises(NoCopy):
            await handle.fail.remote()

    assert "Ranker.fail: error NoCopy: TypeError: NoCopy.__init__() missing" in await found_in(call)


async def test_an_argument_of_a_constructor_is_found() -> None:
    @serve.deployment
    class Store:
        def __init__(self, lock):
            pass

    async def call(handle):
        pass

    text = await found_in(call, Store.bind(lock=threading.Lock()))

    assert "Store.bind(): argument 'lock': TypeError" in text


async def test_all_is_told_together_and_each_thing_once() -> None:
    async def call(handle):
        for _ in range(3):
            await handle.rank.remote(threading.Lock())
            await handle.rank.remote([threading.Lock()])

    assert len((await found_in(call)).splitlines()) == 3


async def test_what_one_side_changes_the_other_does_not_see() -> None:
    mine = ["mine"]
    async with serving(Ranker.bind(), strict=True) as service:
        theirs = await service.handle.echo.remote(mine)

    assert mine == ["mine"]
    assert theirs == ["mine", "theirs"]


async def test_messages_handles_and_contexts_of_a_sound_application_pass() -> None:
    @serve.deployment
    class Outer:
        def __init__(self, ranker):
            self._ranker = ranker

        async def SayHello(self, request, grpc_context):
            rank = await self._ranker.rank.remote(request)
            return PROTO.HelloReply(message=f"{request.name} {rank}")

    async with serving(Outer.bind(Ranker.bind()), services=[PROTO], strict=True) as service:
        assert await hello(service) == "you 1"


async def test_a_test_that_fails_anyway_keeps_its_own_error_and_has_the_findings_as_notes() -> None:
    with pytest.raises(AssertionError) as info:
        async with serving(Ranker.bind(), strict=True) as service:
            await service.handle.rank.remote(threading.Lock())
            raise AssertionError("mine")

    assert info.value.args == ("mine",)
    assert any("would not survive" in note for note in info.value.__notes__)


# -- leaks ---------------------------------------------------------------------------------------------------


async def leaked_by(work, deployment=Greeter):
    with pytest.raises(Leaked) as info:
        async with serving(deployment.bind(), services=[PROTO], strict=True) as service:
            await work(service)
    return str(info.value)


async def test_a_response_that_nobody_awaits_is_a_leak() -> None:
    async def work(service):
        service.handle.SayHello.remote(PROTO.HelloRequest(name="x"))

    text = await leaked_by(work)

    assert "the response of a call was never awaited, made at " in text
    assert f"{__file__}:" in text
    assert "in work" in text


async def test_responses_that_are_awaited_passed_on_or_cancelled_are_none() -> None:
    async with serving(Ranker.bind(), strict=True) as service:
        handle = service.handle
        await handle.rank.remote(handle.rank.remote(1))
        given_up = handle.rank.remote(2)
        given_up.cancel()


async def test_a_system_task_is_a_leak() -> None:
    async def work(service):
        tasks.append(trio.lowlevel.spawn_system_task(ending.wait))

    ending, tasks = trio.Event(), []
    text = await leaked_by(work)
    ending.set()

    assert "task Event.wait is still running" in text or "wait is still running" in text
    assert "in work" in text


@pytest.mark.real_clock
async def test_a_thread_is_a_leak_as_long_as_it_runs() -> None:
    ending = threading.Event()

    async def work(service):
        threading.Thread(target=ending.wait, name="mine", daemon=True).start()
        short = threading.Thread(target=int)
        short.start()
        short.join()

    text = await leaked_by(work)
    ending.set()

    assert "thread 'mine' is still running, made at " in text
    assert len(text.splitlines()) == 2


async def test_a_socket_is_a_leak_until_it_is_closed() -> None:
    kept = []

    async def work(service):
        kept.append(socket.socket())
        socket.socket().close()

    text = await leaked_by(work)
    kept[0].close()

    assert "is still open, made at " in text
    assert len(text.splitlines()) == 2


@pytest.mark.real_clock
async def test_what_was_there_before_is_no_leak() -> None:
    with socket.socket():
        async with serving(Greeter.bind(), services=[PROTO], strict=True) as service:
            await hello(service)
            await trio.to_thread.run_sync(int)


async def test_nothing_is_watched_after_the_block() -> None:
    from trio_serve.serving import responses
    from trio_serve.serving.replies import UnaryReply

    async with serving(Greeter.bind(), services=[PROTO], strict=True):
        pass

    assert responses.UnaryReply is UnaryReply
