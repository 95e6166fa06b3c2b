"""gRPC services over HTTP: gRPC-Web in both its forms, JSON and Connect, CORS; with raw clients."""

import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from starlette.requests import Request
from trio.testing import wait_all_tasks_blocked

import trio_serve as serve
from tests.proxy.http_client import Response, Served
from trio_serve.grpc.methods import methods_from
from trio_serve.grpc.server import Server
from trio_serve.proxy.grpc_proxy import GrpcProxy
from trio_serve.proxy.http_grpc import GrpcOverHttp
from trio_serve.proxy.http_proxy import HttpProxy
from trio_serve.proxy.http_server import HttpServer
from trio_serve.serving.controller import open_controller

METHODS = {method.name: method for method in methods_from("protos/helloworld.proto")}
HelloRequest: Any = METHODS["SayHello"].request_type
HelloReply: Any = METHODS["SayHello"].reply_type
SAY_HELLO = METHODS["SayHello"].path
STREAM = METHODS["SayHelloStreamReply"].path


@serve.deployment
class Greeter:
    def __init__(self) -> None:
        self.log: list[str] = []

    async def SayHello(self, message: Any, grpc_context: Any) -> Any:
        if message.name == "sleeper":
            try:
                await trio.sleep(60)
            except trio.Cancelled:
                self.log.append("cancelled")
                raise
        if message.name == "nobody":
            from google.protobuf.wrappers_pb2 import StringValue

            raise GRPCError(Status.NOT_FOUND, "there is nöbody", [StringValue(value="why")])
        if message.name == "late":
            grpc_context.send_initial_metadata((("first", "word"),))
            raise GRPCError(Status.ABORTED, "too late")
        grpc_context.set_trailing_metadata([("mine", "kept"), ("raw-bin", b"\x00\xff")])
        given = dict(grpc_context.invocation_metadata())
        return HelloReply(message=f"Hello {message.name}{given.get('suffix', '')}")

    async def SayHelloStreamReply(self, message: Any) -> AsyncIterator[Any]:
        try:
            for number in range(10**6 if message.name == "for ever" else 3):
                self.log.append(str(number))
                yield HelloReply(message=f"{number} {message.name}" * (1000 if message.name[0] == "f" else 1))
            if message.name == "fails":
                raise LookupError("the reason")
        finally:
            self.log.append("closed")

    async def __call__(self, request: Request) -> str:
        return f"the application got {request.method} {request.url.path}"


@asynccontextmanager
async def serving(*cors_origins: str) -> AsyncIterator[Served]:
    """`Greeter` behind both proxies, in memory."""
    async with open_controller() as controller, trio.open_nursery() as nursery:
        await controller.deploy(Greeter.options(sync_methods="inline").bind(), name="app")
        server = Server(message_bytes_max=10_000)
        GrpcProxy(server, controller, METHODS.values())
        await nursery.start(server.serve_listeners)
        translator = GrpcOverHttp(server, cors_origins)
        await nursery.start(translator.run)
        proxy = HttpProxy(controller, grpc=translator)
        http = HttpServer(proxy)
        await nursery.start(http.serve_listeners)
        yield Served(proxy, http, controller)
        nursery.cancel_scope.cancel()


def log_of(served: Served) -> list[str]:
    (replica,) = served.controller.applications["app"].ingress.receiving
    log: list[str] = replica.context.servable_object.log
    return log


def frame(payload: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(payload)) + payload


def read_frames(body: bytes) -> tuple[list[bytes], dict[str, str]]:
    """The messages and the trailers of a gRPC-Web body."""
    messages, trailers = [], {}
    while body:
        flag, size = struct.unpack(">BI", body[:5])
        part, body = body[5 : 5 + size], body[5 + size :]
        if flag == 0x80:
            assert not body, "the trailers come last"
            trailers = dict(line.split(": ", 1) for line in part.decode().splitlines())
        else:
            messages.append(part)
    return messages, trailers


async def ask_web(
    served: Served, path: str, name: str, content_type: str = "application/grpc-web+proto", **headers: str
) -> tuple[Response, list[str], dict[str, str]]:
    body = frame(HelloRequest(name=name).SerializeToString())
    if "text" in content_type:
        body = base64.b64encode(body)
    response = await served.ask(path, "POST", body, content_type=content_type, **headers)
    raw = response.body
    if "text" in content_type:
        raw = b"".join(base64.b64decode(part + b"==") for part in raw.replace(b"=", b" ").split())
    messages, trailers = read_frames(raw)
    return response, [HelloReply.FromString(message).message for message in messages], trailers


FORMS = pytest.mark.parametrize(
    "form",
    [
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpc-web-text+proto; charset=utf-8",
    ],
)


# -- gRPC-Web ------------------------------------------------------------------------------------------------


@FORMS
async def test_a_unary_call_over_grpc_web(form: str) -> None:
    async with serving() as served:
        response, messages, trailers = await ask_web(served, SAY_HELLO, "web", form, x_request_id="mine")

    assert response.status == 200
    assert response.headers["content-type"] == form.partition(";")[0]
    assert messages == ["Hello web"]
    assert trailers == {"grpc-status": "0", "request_id": "mine", "mine": "kept", "raw-bin": "AP8"}
    assert response.headers["x-request-id"] == "mine"


@FORMS
async def test_a_stream_of_replies_over_grpc_web(form: str) -> None:
    async with serving() as served:
        _, messages, trailers = await ask_web(served, STREAM, "web", form)

    assert messages == ["0 web", "1 web", "2 web"]
    assert trailers["grpc-status"] == "0"


async def test_an_error_after_messages_is_told_in_the_trailers() -> None:
    async with serving() as served:
        response, messages, trailers = await ask_web(served, STREAM, "fails")

    assert (response.status, len(messages), trailers["grpc-status"]) == (200, 3, "13")
    assert trailers["grpc-message"].endswith("LookupError: the reason")


async def test_the_headers_of_an_answer_without_messages_are_told_too() -> None:
    async with serving() as served:
        response, messages, trailers = await ask_web(served, SAY_HELLO, "late")

    assert response.headers["first"] == "word"
    assert (messages, trailers["grpc-status"]) == ([], "10")


async def test_an_encoding_that_we_do_not_speak_is_unimplemented() -> None:
    async with serving() as served:
        _, _, trailers = await ask_web(served, SAY_HELLO, "web", grpc_encoding="snappy")

    assert trailers["grpc-status"] == "12"
    assert "unknown message encoding 'snappy'" in trailers["grpc-message"]


async def test_metadata_is_what_the_headers_say() -> None:
    async with serving() as served:
        _, messages, _ = await ask_web(served, SAY_HELLO, "web", suffix="!")
        _, none, unknown = await ask_web(served, SAY_HELLO, "web", application="nope")

    assert messages == ["Hello web!"]
    assert (none, unknown["grpc-status"]) == ([], "5")
    assert unknown["grpc-message"].startswith("Application 'nope' not found.")


async def test_a_deadline_holds_over_grpc_web_and_cancels_the_work() -> None:
    async with serving() as served:
        began = trio.current_time()
        _, messages, trailers = await ask_web(
            served, SAY_HELLO, "sleeper", grpc_timeout="500m", x_request_id="mine"
        )

        assert (messages, trailers["grpc-status"], trailers["request_id"]) == ([], "4", "mine")
        assert trailers["grpc-message"] == "Request timed out after 0.5s."
        assert trio.current_time() - began == 0.5
        await wait_all_tasks_blocked()
        assert log_of(served) == ["cancelled"]


@pytest.mark.parametrize(
    "path, body, status, told",
    [
        ("/helloworld.Greeter/Nope", frame(b""), "12", "Method not found!"),
        ("/nope", frame(b""), "12", "Method not found!"),
        (SAY_HELLO, b"", "12", "takes one request message; 0 came"),
        (SAY_HELLO, frame(b"") * 2, "12", "takes one request message; 2 came"),
        (SAY_HELLO, frame(b"")[:3], "13", ""),
        (SAY_HELLO, frame(b"\xff\xff"), "3", "cannot be parsed as helloworld.HelloRequest"),
        (SAY_HELLO, frame(b"x" * 10_001), "8", "message_bytes_max=10000"),
        (METHODS["SayHelloClientStream"].path, frame(b""), "12", "which gRPC-Web does not have; use gRPC"),
    ],
)
async def test_what_is_wrong_over_grpc_web_has_a_status(path: str, body: bytes, status: str, told: str) -> None:
    async with serving() as served:
        response = await served.ask(path, "POST", body, content_type="application/grpc-web+proto")
        _, trailers = read_frames(response.body)

    assert (response.status, trailers["grpc-status"]) == (200, status)
    assert told in trailers.get("grpc-message", "")
    assert trailers.get("request_id", response.headers["x-request-id"]) == response.headers["x-request-id"]


async def test_text_that_is_no_base64_is_told() -> None:
    async with serving() as served:
        response = await served.ask(SAY_HELLO, "POST", b"!!!!", content_type="application/grpc-web-text")
        _, trailers = read_frames(base64.b64decode(response.body))

    assert trailers["grpc-status"] == "13"


async def test_a_browser_that_leaves_cancels_the_call() -> None:
    async with serving() as served:
        client = served.connect()
        body = frame(HelloRequest(name="sleeper").SerializeToString())
        await client.send(SAY_HELLO, "POST", body, content_type="application/grpc-web")
        await wait_all_tasks_blocked()
        assert log_of(served) == []
        await client.leave()
        await wait_all_tasks_blocked()

        assert log_of(served) == ["cancelled"]


async def test_a_browser_that_reads_slowly_parks_the_producer() -> None:
    async with serving() as served:
        client = served.connect()
        body = frame(HelloRequest(name="for ever").SerializeToString())
        await client.send(STREAM, "POST", body, content_type="application/grpc-web")
        await client.head()
        await trio.sleep(1)
        parked_at = len(log_of(served))
        await trio.sleep(30)
        assert len(log_of(served)) == parked_at < 200, "10 kB each: two pipes' and a window's worth"
        await client.leave()
        await wait_all_tasks_blocked()
        assert log_of(served)[-1] == "closed"


async def test_more_calls_at_once_than_one_connection_takes() -> None:
    async with serving() as served:
        done = 0

        async def ask() -> None:
            nonlocal done
            await ask_web(served, SAY_HELLO, "sleeper", grpc_timeout="5S")
            done += 1

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(250):
                nursery.start_soon(ask)

        assert (done, trio.current_time() - began) == (250, 5)


# -- JSON, and Connect ---------------------------------------------------------------------------------------


async def ask_json(served: Served, path: str, value: object, **headers: str) -> Response:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return await served.ask(path, "POST", body, **{"content_type": "application/json", **headers})


async def test_a_method_is_called_with_json() -> None:
    async with serving() as served:
        answer = await ask_json(served, SAY_HELLO, {"name": "cürl", "unknown": 1}, x_request_id="mine")

    assert (answer.status, answer.text) == (200, '{"message":"Hello cürl"}')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["trailer-request_id"] == answer.headers["x-request-id"] == "mine"
    assert (answer.headers["trailer-mine"], answer.headers["trailer-raw-bin"]) == ("kept", "AP8")


async def test_and_with_protobuf() -> None:
    async with serving() as served:
        body = HelloRequest(name="proto").SerializeToString()
        answer = await served.ask(
            SAY_HELLO, "POST", body, content_type="application/proto", connect_protocol_version="1"
        )

    assert HelloReply.FromString(answer.body).message == "Hello proto"
    assert answer.headers["content-type"] == "application/proto"


async def test_an_error_is_connects_json_with_its_details() -> None:
    async with serving() as served:
        answer = await ask_json(served, SAY_HELLO, {"name": "nobody"})

    error = json.loads(answer.text)
    assert answer.status == 404
    assert (error["code"], error["message"]) == ("not_found", "there is nöbody")
    (detail,) = error["details"]
    assert detail["type"] == "google.protobuf.StringValue"
    assert base64.b64decode(detail["value"] + "==") == b"\x0a\x03why"


@pytest.mark.parametrize(
    "path, body, headers, status, code",
    [
        (SAY_HELLO, b"no json", {}, 400, "invalid_argument"),
        (SAY_HELLO, b'{"name": 5}', {}, 400, "invalid_argument"),
        (SAY_HELLO, b'"text"', {}, 400, "invalid_argument"),
        (SAY_HELLO, b"\xff", {}, 400, "invalid_argument"),
        (SAY_HELLO, b'{"name":' + b"[" * 5000, {}, 400, "invalid_argument"),
        (SAY_HELLO, b"{}", {"connect_timeout_ms": "soon"}, 400, "invalid_argument"),
        (SAY_HELLO, b"{}", {"content_encoding": "br"}, 501, "unimplemented"),
        (SAY_HELLO, b"{}", {"application": "nope"}, 404, "not_found"),
        (SAY_HELLO, b'{"name": "sleeper"}', {"connect_timeout_ms": "20"}, 504, "deadline_exceeded"),
        (SAY_HELLO, b'{"name": "sleeper"}', {"grpc_timeout": "20m"}, 504, "deadline_exceeded"),
        (SAY_HELLO, b" " * 10_001, {}, 429, "resource_exhausted"),
        (STREAM, b"{}", {}, 501, "unimplemented"),
        (METHODS["SayHelloClientStream"].path, b"{}", {}, 501, "unimplemented"),
    ],
)
async def test_what_is_wrong_has_a_status_and_a_code(
    path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with serving() as served:
        answer = await ask_json(served, path, body, **headers)

    assert (answer.status, json.loads(answer.text)["code"]) == (status, code)


async def test_what_every_server_has_is_served_too() -> None:
    async with serving() as served:
        health = await ask_json(served, "/grpc.health.v1.Health/Check", {})
        names = await ask_json(served, "/ray.serve.RayServeAPIService/ListApplications", {})

    assert health.text == '{"status":"SERVING"}'
    assert names.text == '{"applicationNames":["app"]}'


@pytest.mark.parametrize(
    "path, method, content_type",
    [
        ("/other", "POST", "application/json"),
        (SAY_HELLO, "GET", "application/json"),
        (SAY_HELLO, "POST", "text/plain"),
        (SAY_HELLO, "OPTIONS", "application/json"),
    ],
)
async def test_everything_else_is_for_applications(path: str, method: str, content_type: str) -> None:
    async with serving() as served:
        answer = await served.ask(path, method, content_type=content_type)

    assert answer.text == f"the application got {method} {path}"


async def test_a_method_with_a_content_type_of_nobody_is_415_where_no_application_answers() -> None:
    async with serving() as served:
        await served.controller.delete("app")
        wrong = await served.ask(SAY_HELLO, "POST", content_type="text/plain")
        missing = await served.ask("/other", "POST", content_type="text/plain")

    assert (wrong.status, missing.status) == (415, 404)
    assert "application/grpc-web-text+proto, not text/plain." in wrong.text


async def test_who_forgets_the_content_type_is_told_it_where_nothing_else_would_answer() -> None:
    @serve.deployment
    class Mute:
        async def SayHello(self, message: Any) -> None: ...

    async with serving() as served:
        await served.controller.deploy(Mute.bind(), name="app")
        answer = await served.ask(SAY_HELLO, "POST", body=b"{}")

    assert answer.status == 501
    assert answer.text.endswith("gRPC methods are called here by POST with 'content-type: application/json'.")


async def test_invented_methods_are_no_labels() -> None:
    async with serving() as served:
        for number in range(5):
            await ask_web(served, f"/invented/{number}", "x")
        await ask_web(served, SAY_HELLO, "x")
        routes = {route for route, _, _ in served.proxy.counters.by_route}

    assert routes == {"_OTHER", SAY_HELLO}


# -- CORS ----------------------------------------------------------------------------------------------------

PREFLIGHT = {
    "origin": "https://shop.example",
    "access_control_request_method": "POST",
    "access_control_request_headers": "content-type,x-grpc-web",
}


async def test_no_page_may_call_until_origins_are_named() -> None:
    async with serving() as served:
        preflight = await served.ask(SAY_HELLO, "OPTIONS", **PREFLIGHT)
        call, _, _ = await ask_web(served, SAY_HELLO, "web", origin="https://shop.example")

    for answer in (preflight, call):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("allowed", ["https://shop.example", "*"])
async def test_a_page_of_a_named_origin_may(allowed: str) -> None:
    async with serving(allowed) as served:
        preflight = await served.ask(SAY_HELLO, "OPTIONS", **PREFLIGHT)
        call, messages, _ = await ask_web(served, SAY_HELLO, "web", origin="https://shop.example")

    assert preflight.status == 204
    assert {
        name: value for name, value in preflight.headers.items() if name.startswith("access-control-")
    } == {
        "access-control-allow-origin": "https://shop.example",
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "content-type,x-grpc-web",
        "access-control-max-age": "7200",
    }
    assert call.headers["access-control-allow-origin"] == "https://shop.example"
    assert call.headers["access-control-expose-headers"] == "*"
    assert "access-control-allow-credentials" not in call.headers
    assert messages == ["Hello web"]


async def test_a_page_of_another_origin_may_not() -> None:
    async with serving("https://shop.example") as served:
        preflight = await served.ask(SAY_HELLO, "OPTIONS", **{**PREFLIGHT, "origin": "https://evil.example"})

    assert preflight.headers["vary"] == "origin"
    assert not [name for name in preflight.headers if name.startswith("access-control-")]
