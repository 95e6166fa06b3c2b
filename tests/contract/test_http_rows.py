"""The contract's HTTP section, row by row: what a client of the HTTP proxy sees."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import h11
import pytest
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, StreamingResponse

import trio_serve as serve
from tests.proxy.http_client import Served, serving

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@serve.deployment
class Tells:
    async def __call__(self, request: Request) -> Any:
        return {
            "method": request.method,
            "path": request.url.path,
            "root": request.scope["root_path"],
            "query": dict(request.query_params),
            "body": (await request.body()).decode(),
            "model": serve.get_multiplexed_model_id(),
        }


def returning(value: Any) -> serve.Application:
    @serve.deployment
    async def returns(request: Request) -> Any:
        return value() if callable(value) else value

    return returns.bind()


async def told(served: Served, target: str, **more: str) -> Any:
    return json.loads((await served.ask(target, **more)).text)


# -- routes --------------------------------------------------------------------------------------------------


async def test_the_proxy_tells_its_routes_and_that_it_is_well() -> None:
    async with serving(f=Tells.bind(), g=Tells.bind()) as served:
        routes, health = await served.ask("/-/routes"), await served.ask("/-/healthz")

    assert (routes.status, routes.text) == (200, '{"/f":"f","/g":"g"}')
    assert routes.headers["content-type"] == "application/json"
    assert (health.status, health.text) == (200, "success")


async def test_the_longest_prefix_wins_and_ends_where_a_segment_does() -> None:
    async with serving(f=Tells.bind(), **{"f/g": Tells.bind()}) as served:
        roots = {
            path: (await told(served, path))["root"] for path in ("/f", "/f/x", "/f/g", "/f/g/x", "/f/gx")
        }
        unmatched = await served.ask("/ff")

    assert roots == {"/f": "/f", "/f/x": "/f", "/f/g": "/f/g", "/f/g/x": "/f/g", "/f/gx": "/f"}
    assert unmatched.status == 404


async def test_a_path_that_leads_nowhere_is_404_and_tells_where_to_look() -> None:
    async with serving(f=Tells.bind()) as served:
        answer = await served.ask("/nope")

    assert answer.status == 404
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "Path '/nope' not found. Ping http://.../-/routes for available routes."


async def test_an_application_without_a_prefix_is_not_reached() -> None:
    async with serving() as served:
        await served.controller.deploy(Tells.bind(), route_prefix=None)

        assert (await served.ask("/")).status == 404
        assert (await served.ask("/-/routes")).text == "{}"


async def test_the_root_path_stands_before_every_route() -> None:
    async with serving(root_path="/api", f=Tells.bind()) as served:
        answer = await told(served, "/api/f/x")

        assert (answer["path"], answer["root"]) == ("/api/f/x", "/api/f")
        assert (await served.ask("/f/x")).status == 404
        assert (await served.ask("/api/-/healthz")).text == "success"


# -- requests and answers ------------------------------------------------------------------------------------


async def test_a_deployment_gets_a_starlette_request() -> None:
    async with serving(f=Tells.bind()) as served:
        answer = await served.ask("/f/x?a=1", "POST", b"the body")

    assert json.loads(answer.text) == {
        "method": "POST",
        "path": "/f/x",
        "root": "/f",
        "query": {"a": "1"},
        "body": "the body",
        "model": "",
    }


@pytest.mark.parametrize(
    "value, content_type, body",
    [
        ("text ü", "text/plain; charset=utf-8", "text ü".encode()),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        ({"a": [1, None]}, "application/json", b'{"a":[1,null]}'),
        ([1, "b"], "application/json", b'[1,"b"]'),
        ((1, 2), "application/json", b"[1,2]"),
        (7, "application/json", b"7"),
        (1.5, "application/json", b"1.5"),
        (True, "application/json", b"true"),
        (None, None, b""),
    ],
)
async def test_a_value_becomes_a_response(value: Any, content_type: str | None, body: bytes) -> None:
    async with serving(returning(value)) as served:
        answer = await served.ask("/")

    assert (answer.status, answer.headers.get("content-type"), answer.body) == (200, content_type, body)


async def test_a_starlette_response_is_sent_as_it_is() -> None:
    async with serving(
        one=returning(lambda: PlainTextResponse("made", 201, {"x-mine": "kept"})),
        two=returning(lambda: RedirectResponse("/elsewhere")),
    ) as served:
        one, two = await served.ask("/one"), await served.ask("/two")

    assert (one.status, one.text, one.headers["x-mine"]) == (201, "made", "kept")
    assert (two.status, two.headers["location"]) == (307, "/elsewhere")


async def test_a_streaming_response_comes_chunk_by_chunk() -> None:
    async def chunks() -> AsyncIterator[str]:
        for number in range(3):
            yield f"{number} "
            await trio.sleep(10)

    async with serving(returning(lambda: StreamingResponse(chunks()))) as served:
        client = served.connect()
        await client.send("/")
        await client.head()
        arrivals = [(bytes((await client.event()).data), trio.current_time()) for _ in range(3)]

    began = arrivals[0][1]
    assert [(data, round(at - began)) for data, at in arrivals] == [(b"0 ", 0), (b"1 ", 10), (b"2 ", 20)]


async def test_generators_are_streamed_too() -> None:
    """Ours: Ray Serve wants a StreamingResponse around them."""

    @serve.deployment(sync_methods="inline")
    class Streams:
        async def __call__(self, request: Request) -> AsyncIterator[Any]:
            yield "text "
            yield b"bytes"

    @serve.deployment(sync_methods="inline")
    class Steps:
        def __call__(self, request: Request) -> Iterator[str]:
            yield from "abc"

    async with serving(a=Streams.bind(), b=Steps.bind()) as served:
        one, two = await served.ask("/a"), await served.ask("/b")

    assert (one.text, one.headers["content-type"]) == ("text bytes", "text/plain; charset=utf-8")
    assert two.text == "abc"


# -- what goes wrong -----------------------------------------------------------------------------------------


async def test_what_raises_is_500_and_only_the_log_tells_why(caplog: pytest.LogCaptureFixture) -> None:
    @serve.deployment
    async def raises(request: Request) -> None:
        raise LookupError("the secret reason")

    async with serving(raises.bind()) as served:
        answer = await served.ask("/", x_request_id="my-id")

    assert (answer.status, answer.text) == (500, "Internal Server Error")
    assert answer.headers["x-request-id"] == "my-id"
    assert "the secret reason" in caplog.text
    assert "GET '/' failed, request_id=my-id" in caplog.text


async def test_what_has_no_form_in_http_is_500_and_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(returning(object())) as served:
        answer = await served.ask("/")

    assert (answer.status, answer.text) == (500, "Internal Server Error")
    assert "a object was returned, which has no form in HTTP; return None, str, bytes," in caplog.text


async def test_a_request_that_takes_too_long_is_408_with_its_id() -> None:
    @serve.deployment
    async def sleeps(request: Request) -> None:
        await trio.sleep(60)

    async with serving(sleeps.bind(), request_timeout_s=2.0) as served:
        began = trio.current_time()
        answer = await served.ask("/", x_request_id="slow")
        took_s = trio.current_time() - began

        assert (answer.status, answer.text) == (408, "Request slow timed out after 2.0s.")
        assert took_s == 2.0


@pytest.mark.parametrize("asked, gets_s", [("0.5", 0.5), ("100", 2.0)])
async def test_a_client_may_wait_less_than_the_server_allows_but_not_more(asked: str, gets_s: float) -> None:
    @serve.deployment
    async def sleeps(request: Request) -> None:
        await trio.sleep(60)

    async with serving(sleeps.bind(), request_timeout_s=2.0) as served:
        answer = await served.ask("/", x_request_id="i", x_request_timeout_seconds=asked)

    assert (answer.status, answer.text) == (408, f"Request i timed out after {gets_s}s.")


@pytest.mark.parametrize("asked", ["soon", "0", "-1", "nan", "inf"])
async def test_a_timeout_that_is_none_is_400(asked: str) -> None:
    async with serving(Tells.bind()) as served:
        answer = await served.ask("/", x_request_timeout_seconds=asked)

    assert (answer.status, answer.text) == (
        400,
        f"X-Request-Timeout-Seconds: {asked!r} is no number of seconds over 0.",
    )


async def test_a_full_queue_is_503_at_once() -> None:
    @serve.deployment(max_ongoing_requests=1, max_queued_requests=1)
    async def sleeps(request: Request) -> None:
        await trio.sleep(60)

    async with serving(sleeps.bind()) as served:
        for client in (served.connect(), served.connect()):
            await client.send("/")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        answer = await served.ask("/")

        assert (answer.status, answer.text) == (
            503,
            "Request dropped due to backpressure (num_queued_requests=1, max_queued_requests=1).",
        )
        assert trio.current_time() == began


async def test_an_application_that_failed_to_deploy_is_503_and_says_why() -> None:
    @serve.deployment(max_constructor_retry_count=1, sync_methods="inline")
    class Broken:
        def __init__(self) -> None:
            raise LookupError("no model")

        async def __call__(self, request: Request) -> None: ...

    async with serving() as served:
        with pytest.raises(LookupError):
            await served.controller.deploy(Broken.bind())
        answer = await served.ask("/")

    assert answer.status == 503
    assert answer.text.startswith(
        "deployment 'Broken' of application 'default' is unavailable: deployment 'Broken': LookupError: no"
    )


async def test_a_deployment_that_does_not_speak_http_is_501() -> None:
    @serve.deployment
    class Greeter:
        async def SayHello(self, message: Any) -> None: ...

    async with serving(Greeter.bind()) as served:
        answer = await served.ask("/")

    assert (answer.status, answer.text) == (
        501,
        "Deployment 'Greeter' has no '__call__', which would answer over HTTP.",
    )


# -- ids -----------------------------------------------------------------------------------------------------


async def test_a_request_id_is_echoed_or_made_and_the_same_inside() -> None:
    @serve.deployment
    class Inner:
        async def __call__(self) -> str:
            from trio_serve.serving.request_context import current_request

            request = current_request()
            assert request is not None
            return request.request_id

    @serve.deployment
    class Outer:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self, request: Request) -> Any:
            return await self.inner.remote()

    outer = Outer.options(sync_methods="inline").bind(Inner.bind())
    async with serving(outer) as served:
        given = await served.ask("/", x_request_id="given by me")
        made = await served.ask("/")
        missed = await served.ask("/-/nothing", x_request_id="kept on errors")

    assert given.text == given.headers["x-request-id"] == "given by me"
    assert re.fullmatch(UUID4, made.text)
    assert made.headers["x-request-id"] == made.text
    assert missed.headers["x-request-id"] == "kept on errors"


@pytest.mark.parametrize("header", ["serve_multiplexed_model_id", "serve-multiplexed-model-id"])
async def test_a_model_id_is_read_under_both_names(header: str) -> None:
    async with serving(Tells.bind()) as served:
        client = served.connect()
        await client.stream.send_all(f"GET / HTTP/1.1\r\nhost: x\r\n{header}: m7\r\n\r\n".encode())
        client.connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        answer = await client.response()

    assert json.loads(answer.text)["model"] == "m7"


# -- drain ---------------------------------------------------------------------------------------------------


async def test_a_draining_node_says_so_on_connections_that_are_open() -> None:
    """Two requests are on their way, as the drain begins, for which the node tells that it is draining."""
    async with serving(f=Tells.bind()) as served:
        clients = []
        for path in ("/-/healthz", "/-/routes"):
            client = served.connect()
            await client.stream.send_all(f"GET {path} HTTP/1.1\r\n".encode())
            clients.append(client)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            served.proxy.draining = True
            nursery.start_soon(served.server.drain)
            await trio.testing.wait_all_tasks_blocked()
            for client in clients:
                await client.stream.send_all(b"host: x\r\n\r\n")
                data = await client.stream.receive_some(65536)
                assert data.startswith(b"HTTP/1.1 503 ")
                assert data.endswith(b"\r\n\r\nThis node is being drained.")
                assert b"connection: close" in data.lower()
                assert await client.stream.receive_some(1) == b""
