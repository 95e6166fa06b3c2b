"""``@ingress(app)``: FastAPI, Starlette and any ASGI application in front of a deployment."""

import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fastapi
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from trio.testing import wait_all_tasks_blocked

import trio_serve as serve
from tests.proxy.http_client import serving


class Log(list[Any]):
    """A list that bind() hands through as it is."""


def inline(cls: type) -> serve.Deployment:
    return serve.deployment(sync_methods="inline")(cls)


async def test_views_get_the_replicas_instance_and_what_fastapi_gives_them() -> None:
    app = fastapi.FastAPI()

    @app.get("/before/{x}")
    async def first_come(x: int) -> str:
        return "the function, because it was declared before"

    @inline
    @serve.ingress(app)
    class Shop:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @app.get("/before/{x}")
        async def never(self, x: int) -> int:
            return 0

        @app.get("/times/{x}", status_code=203, tags=["kept"])
        async def times(self, x: int, plus: int = 0) -> int:
            return x * self.factor + plus

        @app.post("/body")
        def body(self, items: list[int]) -> dict[str, int]:
            return {"sum": sum(items) * self.factor}

        async def no_view(self) -> int:
            return self.factor

    async with serving(shop=Shop.bind(3), other=Shop.bind(5)) as served:
        answers = [
            await served.ask("/shop/times/4?plus=1"),
            await served.ask("/other/times/4"),
            await served.ask("/shop/body", "POST", b"[1,2]", content_type="application/json"),
            await served.ask("/shop/times/four"),
            await served.ask("/shop/before/1"),
            await served.ask("/shop/nope"),
        ]
        schema = json.loads((await served.ask("/shop/openapi.json")).text)
        handle = served.controller.get_app_handle("shop")

        assert [(each.status, each.text[:40]) for each in answers[:3]] == [
            (203, "13"),
            (203, "20"),
            (200, '{"sum":9}'),
        ]
        assert [each.status for each in answers[3:]] == [422, 200, 404]
        assert "declared before" in answers[4].text
        assert await handle.no_view.remote() == 3
    parameters = schema["paths"]["/times/{x}"]["get"]["parameters"]
    assert [each["name"] for each in parameters] == ["x", "plus"]
    assert schema["paths"]["/times/{x}"]["get"]["tags"] == ["kept"]
    assert schema["servers"] == [{"url": "/shop"}]


@pytest.mark.real_clock
async def test_plain_views_run_in_the_replicas_thread_one_at_a_time() -> None:
    app = fastapi.FastAPI()
    seen = Log()

    @serve.deployment
    @serve.ingress(app)
    class Shop:
        def __init__(self) -> None:
            seen.append(threading.current_thread().name)

        @app.get("/")
        def view(self) -> str:
            seen.append(threading.current_thread().name)
            return serve.get_replica_context().replica_tag

    async with serving(Shop.bind()) as served:
        tag = json.loads((await served.ask("/")).text)

    assert seen == [tag, tag]


async def test_a_view_of_another_class_is_refused_by_name(caplog: pytest.LogCaptureFixture) -> None:
    app = fastapi.FastAPI()

    @inline
    @serve.ingress(app)
    class One:
        @app.get("/one")
        async def view(self) -> None: ...

    @inline
    @serve.ingress(app)
    class Two: ...

    async with serving(two=Two.bind(), one=One.bind()) as served:
        assert (await served.ask("/one/one")).status == 200
        assert (await served.ask("/two/one")).status == 500

    assert "One.view is a view of One, and the replica that was asked is a Two; give each" in caplog.text


async def test_the_lifespan_runs_with_the_replica() -> None:
    log = Log()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        log.append("up")
        yield {"of": len(log)}
        log.append("down")

    async def state(request: Request) -> JSONResponse:
        return JSONResponse(request.state.of)

    @inline
    @serve.ingress(Starlette(routes=[Route("/", state)], lifespan=lifespan))
    class Shop:
        def __init__(self) -> None:
            log.append("made")

        def __del__(self) -> None:
            log.append("gone")

    async with serving(Shop.bind()) as served:
        assert log == ["made", "up"]
        assert (await served.ask("/")).text == "2"
        await served.controller.delete("default")
        assert log == ["made", "up", "down", "gone"]


async def test_a_lifespan_that_does_not_start_fails_the_deployment_with_its_own_error() -> None:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    @serve.deployment(sync_methods="inline", max_constructor_retry_count=1)
    @serve.ingress(Starlette(lifespan=lifespan))
    class Shop: ...

    async with serving() as served:
        with pytest.raises(LookupError, match="no database"):
            await served.controller.deploy(Shop.bind())


async def test_an_application_without_a_lifespan_is_served_all_the_same() -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["root_path"].encode()})

    @inline
    @serve.ingress(bare)
    class Bare: ...

    async with serving(bare=Bare.bind()) as served:
        assert (await served.ask("/bare/x")).text == "/bare"


async def test_a_function_that_makes_an_application_gives_each_replica_its_own() -> None:
    made = Log()

    async def count() -> int:
        return len(made)

    def build() -> fastapi.FastAPI:
        app = fastapi.FastAPI()
        made.append(app)
        app.add_api_route("/", count)
        return app

    @serve.deployment(sync_methods="inline", num_replicas=3)
    @serve.ingress(build)
    class Shop: ...

    async with serving(Shop.bind()) as served:
        assert (await served.ask("/")).text == "3"

    assert len(set(map(id, made))) == 3


async def test_what_an_application_raises_is_500_and_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = fastapi.FastAPI()

    @inline
    @serve.ingress(app)
    class Shop:
        @app.get("/")
        async def view(self) -> None:
            raise LookupError("the reason")

    async with serving(Shop.bind()) as served:
        answer = await served.ask("/", x_request_id="the-id")

    assert (answer.status, answer.text) == (500, "Internal Server Error")
    assert answer.headers["x-request-id"] == "the-id"
    assert caplog.text.count("LookupError: the reason") == 1


@pytest.mark.parametrize(
    "app, target, told",
    [
        ("module:app", object, r"ingress\(\) got 'module:app'; it takes an ASGI application"),
        (fastapi.FastAPI, object, r"got <class 'fastapi.*it takes an ASGI application"),
        (fastapi.FastAPI(), print, r"@ingress\(app\) got <built-in function print>; it decorates a class"),
    ],
)
def test_what_it_cannot_take_is_told_at_once(app: Any, target: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        serve.ingress(app)(target)


def test_it_stands_below_deployment_and_answers_for_the_whole_class() -> None:
    with pytest.raises(TypeError, match="stands below @deployment"):

        @serve.ingress(fastapi.FastAPI())  # type: ignore[type-var]
        @serve.deployment
        class Above: ...

    with pytest.raises(TypeError, match="Callable has a __call__, which no request would reach"):

        @serve.ingress(fastapi.FastAPI())
        class Callable:
            def __call__(self) -> None: ...


# -- WebSockets ----------------------------------------------------------------------------------------------


def chat(log: Log) -> serve.Application:
    app = fastapi.FastAPI()

    @inline
    @serve.ingress(app)
    class Chat:
        @app.websocket("/echo/{word}")
        async def echo(self, ws: fastapi.WebSocket, word: str) -> None:
            await ws.accept()
            try:
                async for text in ws.iter_text():
                    await ws.send_text(f"{word} {text}")
                log.append("left")
            except trio.Cancelled:
                log.append("cancelled")
                raise

        @app.websocket("/deaf")
        async def deaf(self, ws: fastapi.WebSocket) -> None:
            await ws.accept()
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                log.append("cancelled")
                raise

        @app.websocket("/slow")
        async def slow(self, ws: fastapi.WebSocket) -> None:
            await self.deaf_before(ws)

        async def deaf_before(self, ws: fastapi.WebSocket) -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                log.append("cancelled")
                raise

        @app.websocket("/refuses")
        async def refuses(self, ws: fastapi.WebSocket) -> None:
            await ws.close(code=1008)

        @app.websocket("/raises")
        async def raises(self, ws: fastapi.WebSocket) -> None:
            raise LookupError("the reason")

    return Chat.bind()


class WebSocketClient:
    """wsproto's client over one connection."""

    def __init__(self, stream: Any) -> None:
        import wsproto

        self.stream = stream
        self.ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)

    async def open(self, target: str) -> Any:
        from wsproto.events import Request

        return await self.ask(Request(host="test", target=target))

    async def ask(self, event: Any) -> Any:
        await self.stream.send_all(self.ws.send(event))
        return await self.event()

    async def event(self) -> Any:
        while True:
            for event in self.ws.events():
                return event
            self.ws.receive_data(await self.stream.receive_some(65536) or None)


async def test_a_websocket_reaches_the_application_and_is_told_when_the_client_leaves() -> None:
    from wsproto.events import AcceptConnection, CloseConnection, TextMessage

    log = Log()
    async with serving(chat=chat(log)) as served:
        client = WebSocketClient(served.connect().stream)
        accepted = await client.open("/chat/echo/hi")
        answers = [(await client.ask(TextMessage(data=text))).data for text in ("one", "two")]
        closed = await client.ask(CloseConnection(code=1000))
        await wait_all_tasks_blocked()

    assert isinstance(accepted, AcceptConnection)
    assert b"x-request-id" in dict(accepted.extra_headers)
    assert answers == ["hi one", "hi two"]
    assert isinstance(closed, CloseConnection)
    assert log == ["left"]


async def test_one_that_does_not_listen_is_cancelled_a_second_after_the_client_has_gone() -> None:
    log = Log()
    async with serving(chat=chat(log)) as served:
        client = WebSocketClient(served.connect().stream)
        await client.open("/chat/deaf")
        await wait_all_tasks_blocked()
        await client.stream.aclose()
        await trio.sleep(0.5)
        assert log == []
        await trio.sleep(1)
        assert log == ["cancelled"]


async def test_a_websocket_has_no_deadline_but_a_drain_ends_it_and_says_so() -> None:
    log = Log()
    async with serving(chat=chat(log), request_timeout_s=2) as served:
        client = WebSocketClient(served.connect().stream)
        await client.open("/chat/echo/hi")
        await trio.sleep(10)
        await served.server.drain(3)

        closed = await client.event()
        assert closed.code == 1012
        assert log == ["cancelled"]


@pytest.mark.parametrize(
    "target, status", [("/chat/refuses", 403), ("/chat/nope", 403), ("/chat/raises", 500), ("/nope", 404)]
)
async def test_a_websocket_that_is_not_accepted_gets_an_answer(target: str, status: int) -> None:
    from wsproto.events import RejectConnection

    async with serving(chat=chat(Log())) as served:
        client = WebSocketClient(served.connect().stream)
        refused = await client.open(target)

    assert isinstance(refused, RejectConnection)
    assert refused.status_code == status


async def test_a_plain_deployment_takes_no_websockets() -> None:
    @serve.deployment
    async def plain(request: Request) -> None: ...

    async with serving(plain.bind()) as served:
        refused = await WebSocketClient(served.connect().stream).open("/")

    assert refused.status_code == 404


async def test_garbage_on_a_websocket_ends_it_alone() -> None:
    log = Log()
    async with serving(chat=chat(log)) as served:
        client = WebSocketClient(served.connect().stream)
        await client.open("/chat/echo/hi")
        await client.stream.send_all(b"\xff\xff\xff\xff\xff\xff")
        while await client.stream.receive_some(65536):
            pass
        assert (await served.ask("/chat/nope")).status == 404
        await wait_all_tasks_blocked()
        assert served.server.connection_errors == 0
        assert served.proxy.counters.ongoing == 0


async def test_a_client_that_talks_before_it_was_accepted_leaves_nothing_behind() -> None:
    from wsproto.events import Request as Opening

    log = Log()
    async with serving(chat=chat(log)) as served:
        client = WebSocketClient(served.connect().stream)
        await client.stream.send_all(client.ws.send(Opening(host="test", target="/chat/slow")))
        await wait_all_tasks_blocked()
        await client.stream.send_all(b"\x81\x80\x00\x00\x00\x00")
        while await client.stream.receive_some(65536):
            break
        await client.stream.aclose()
        await trio.sleep(2)

        assert log == ["cancelled"]
        assert served.server.connections == set()
