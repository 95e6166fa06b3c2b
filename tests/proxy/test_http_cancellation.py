"""A client that leaves, and one that reads slowly: felt at the deepest call, through any kind of ingress."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import fastapi
import pytest
import trio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from trio.testing import wait_all_tasks_blocked

import trio_serve as serve
from tests.proxy.http_client import serving


class Log(list[str]):
    """A list that bind() hands through as it is."""


@serve.deployment
class Deep:
    """Sleeps, or counts for ever, until it is cancelled."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def sleep(self) -> None:
        self.log.append("started")
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.log.append("cancelled")
            raise

    async def count(self) -> AsyncIterator[str]:
        try:
            for number in range(10**9):
                self.log.append(str(number))
                yield f"{number:8}" * 1024
        finally:
            self.log.append("closed")


@serve.deployment
class Middle:
    def __init__(self, deep: Any) -> None:
        self.deep = deep

    async def __call__(self) -> Any:
        return await self.deep.sleep.remote()

    async def stream(self) -> AsyncIterator[str]:
        async for item in self.deep.options(stream=True).count.remote():
            yield item


def plain(log: Log) -> serve.Application:
    @serve.deployment
    class Plain:
        def __init__(self, middle: Any) -> None:
            self.middle = middle

        async def __call__(self, request: Request) -> Any:
            if request.url.path == "/stream":
                return StreamingResponse(self.middle.options(stream=True).stream.remote())
            return await self.middle.remote()

    return Plain.options(sync_methods="inline").bind(middle(log))


def generator(log: Log) -> serve.Application:
    @serve.deployment
    class Generator:
        def __init__(self, middle: Any) -> None:
            self.middle = middle

        async def __call__(self, request: Request) -> AsyncIterator[str]:
            if request.url.path == "/stream":
                async for item in self.middle.options(stream=True).stream.remote():
                    yield item
            else:
                yield await self.middle.remote()

    return Generator.options(sync_methods="inline").bind(middle(log))


def with_fastapi(log: Log) -> serve.Application:
    app = fastapi.FastAPI()

    @serve.deployment
    @serve.ingress(app)
    class Views:
        def __init__(self, middle: Any) -> None:
            self.middle = middle

        @app.get("/")
        async def wait(self) -> Any:
            return await self.middle.remote()

        @app.get("/stream")
        async def stream(self) -> StreamingResponse:
            return StreamingResponse(self.middle.options(stream=True).stream.remote())

    return Views.options(sync_methods="inline").bind(middle(log))


def with_starlette(log: Log) -> serve.Application:
    async def wait(request: Request) -> Any:
        return await serve.get_replica_context().servable_object.middle.remote()

    async def stream(request: Request) -> Any:
        items = serve.get_replica_context().servable_object.middle.options(stream=True).stream.remote()
        return StreamingResponse(items)

    @serve.deployment
    @serve.ingress(Starlette(routes=[Route("/", wait), Route("/stream", stream)]))
    class Views:
        def __init__(self, middle: Any) -> None:
            self.middle = middle

    return Views.options(sync_methods="inline").bind(middle(log))


def middle(log: Log) -> serve.Application:
    return Middle.options(sync_methods="inline").bind(Deep.options(sync_methods="inline").bind(log))


Ingress = Callable[[Log], serve.Application]
INGRESSES = pytest.mark.parametrize("ingress", [plain, generator, with_fastapi, with_starlette])


@INGRESSES
async def test_a_client_that_leaves_cancels_the_deepest_call(ingress: Ingress) -> None:
    log = Log()
    async with serving(ingress(log)) as served:
        client = served.connect()
        await client.send("/")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await client.leave()
        await wait_all_tasks_blocked()

        assert log == ["started", "cancelled"]
        assert trio.current_time() == began
        assert all(
            fleet.state.ongoing == 0 for fleet in served.controller.applications["default"].fleets.values()
        )


@INGRESSES
async def test_a_timeout_cancels_it_too(ingress: Ingress) -> None:
    log = Log()
    async with serving(ingress(log), request_timeout_s=3) as served:
        if ingress is generator:  # its head has left before: the response is cut short
            with pytest.raises(Exception, match=r"incomplete|closed connection"):
                await served.ask("/")
        else:
            assert (await served.ask("/")).status == 408
        await wait_all_tasks_blocked()

    assert log == ["started", "cancelled"]


@INGRESSES
async def test_a_slow_reader_parks_the_deepest_producer(ingress: Ingress) -> None:
    log = Log()
    async with serving(ingress(log)) as served:
        client = served.connect()
        await client.send("/stream")
        await client.head()
        await wait_all_tasks_blocked()
        parked_at = len(log)
        await trio.sleep(30)
        assert len(log) == parked_at < 30, "8 KiB each: what a pipe takes, and no more"

        received = 0
        while received < 500_000:
            received += len((await client.event()).data)
        await wait_all_tasks_blocked()
        assert parked_at + 40 < len(log) < parked_at + 90

        await client.leave()
        await wait_all_tasks_blocked()
        assert log[-1] == "closed"


async def test_a_reader_that_takes_nothing_for_a_minute_is_dropped() -> None:
    log = Log()
    async with serving(plain(log)) as served:
        client = served.connect()
        await client.send("/stream")
        await wait_all_tasks_blocked()
        await trio.sleep(59)
        assert log[-1] != "closed"
        await trio.sleep(2)
        await wait_all_tasks_blocked()
        assert log[-1] == "closed"


async def test_a_client_that_leaves_while_its_body_is_not_read_is_noticed() -> None:
    """The body is larger than what is read ahead of the application, and lies there, unread."""
    log = Log()
    async with serving(plain(log)) as served:
        client = served.connect()
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
        await client.stream.send_all(head + b"x" * 100_000)
        await wait_all_tasks_blocked()
        assert log == ["started"]
        await client.leave()
        await wait_all_tasks_blocked()

        assert log == ["started", "cancelled"]


async def test_a_client_that_leaves_with_a_pipelined_request_waiting_is_noticed() -> None:
    log = Log()
    async with serving(plain(log)) as served:
        client = served.connect()
        await client.stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
        await wait_all_tasks_blocked()
        await client.leave()
        await wait_all_tasks_blocked()

        assert log == ["started", "cancelled"]


async def test_background_tasks_go_on_when_the_client_has_its_answer_and_leaves() -> None:
    log = Log()

    async def later() -> None:
        await trio.sleep(5)
        log.append("later")

    @serve.deployment
    async def answers(request: Request) -> Any:
        return PlainTextResponse("done", background=BackgroundTask(later))

    async with serving(answers.bind()) as served:
        assert (await served.ask("/")).text == "done"
        await wait_all_tasks_blocked()
        assert log == []
        assert served.controller.applications["default"].ingress.ongoing == 1
        await trio.sleep(6)
        assert log == ["later"]


async def test_a_streaming_response_counts_as_work_of_its_replica() -> None:
    log = Log()
    async with serving(plain(log)) as served:
        clients = [served.connect() for _ in range(6)]
        for client in clients:
            await client.send("/stream")
        await wait_all_tasks_blocked()
        ingress = served.controller.applications["default"].ingress
        assert (ingress.ongoing, ingress.queued) == (5, 1)
        for client in clients:
            await client.leave()


async def test_a_body_that_fails_half_way_cuts_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    @serve.deployment
    async def fails(request: Request) -> AsyncIterator[str]:
        yield "half"
        raise LookupError("the reason")

    async with serving(fails.bind()) as served:
        client = served.connect()
        with pytest.raises(Exception, match=r"incomplete chunked read|closed connection"):
            await client.ask("/")

    assert "the reason" in caplog.text
    assert len(caplog.records) == 1
