"""A real browser calls gRPC services: headless Chromium, with fetch() and with the npm package grpc-web.

    page (one origin) ──CORS──> HTTP proxy (another) ──> the guide's service
         └──POST /result──> this test

It runs where Chromium is installed; the part with grpc-web also wants the package:
``npm i grpc-web`` in the checkout, or ``GRPC_WEB_JS=/path/to/grpc-web/index.js``.
"""

import http.server
import json
import os
import pathlib
import queue
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

import trio_serve as serve
from trio_serve.grpc.methods import methods_from

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = pathlib.Path(__file__).parent.parent.parent
GRPC_WEB = pathlib.Path(os.environ.get("GRPC_WEB_JS", ROOT / "node_modules" / "grpc-web" / "index.js"))
PROTO = str(ROOT / "protos" / "helloworld.proto")

pytestmark = [
    pytest.mark.real_clock,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)"),
]

METHODS = {method.name: method for method in methods_from(PROTO)}
HelloReply: Any = METHODS["SayHello"].reply_type


@serve.deployment
class Greeter:
    async def SayHello(self, message: Any, grpc_context: Any) -> Any:
        if message.name == "nobody":
            grpc_context.abort(5, "there is nobody")
        return HelloReply(message=f"Hello {message.name}")

    async def SayHelloStreamReply(self, message: Any) -> AsyncIterator[Any]:
        for number in range(3):
            yield HelloReply(message=f"{number} {message.name}")


FETCH = """
<script>
async function call(name) {
    try {
        const answer = await fetch(HOST + "/helloworld.Greeter/SayHello", {
            method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({name})});
        return [answer.status, await answer.json(), answer.headers.has("x-request-id")];
    } catch (error) { return error.name; }
}
(async () => {
    const result = [await call("fetch"), await call("nobody")];
    await fetch("/result", {method: "POST", body: JSON.stringify(result)});
})();
</script>
"""

GRPC_WEB_CLIENT = """
<script>var module = {exports: {}}, exports = module.exports;</script>
<script src="/grpc-web.js"></script>
<script>
const web = module.exports;
const write = name => new Uint8Array([10, name.length, ...new TextEncoder().encode(name)]);
const read = bytes => new TextDecoder().decode(bytes.slice(2));
const method = (name, type) => new web.MethodDescriptor(
    "/helloworld.Greeter/" + name, type, String, String, write, read);
const unary = method("SayHello", web.MethodType.UNARY);
const stream = method("SayHelloStreamReply", web.MethodType.SERVER_STREAMING);

function ask(client, name) {
    return new Promise(resolve => client.rpcCall(
        HOST + unary.name, name, {request_id: "from-" + name}, unary,
        (error, reply) => resolve(error ? [error.code, error.message] : reply)));
}
function watch(client, name) {
    return new Promise(resolve => {
        const replies = [];
        const call = client.serverStreaming(HOST + stream.name, name, {}, stream);
        call.on("data", reply => replies.push(reply));
        call.on("status", status => replies.push(status.code));
        call.on("error", error => resolve([error.code, error.message]));
        call.on("end", () => resolve(replies));
    });
}
(async () => {
    const result = {};
    for (const format of ["text", "binary"]) {
        const client = new web.GrpcWebClientBase({format});
        result[format] = [
            await ask(client, format), await ask(client, "nobody"), await watch(client, format)];
    }
    await fetch("/result", {method: "POST", body: JSON.stringify(result)});
})();
</script>
"""


@contextmanager
def page_at(html: str) -> Iterator[tuple[int, "queue.SimpleQueue[str]"]]:
    """Serve a page on a port of its own, and collect what it posts to ``/result``."""
    results: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script = self.path == "/grpc-web.js"
            body = GRPC_WEB.read_bytes() if script else html.encode()
            self.send_response(200)
            self.send_header("content-type", "text/javascript" if script else "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            results.put(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], results
        finally:
            server.shutdown()
            thread.join()


async def what_a_browser_gets(script: str, profile: pathlib.Path, *, allowed: bool = True) -> Any:
    """Open a page with ``script`` in Chromium; what it posts."""
    options = {"port": 0, "cors_origins": ["*"] if allowed else []}
    async with serve.open_instance(
        http_options=options, grpc_options={"port": 0, "protos": [PROTO]}
    ) as instance:
        await instance.run(Greeter.bind())
        host = f"<script>const HOST = 'http://127.0.0.1:{instance.http_port}';</script>"
        with page_at(f"<!doctype html>{host}{script}") as (port, results):
            origin = f"http://127.0.0.1:{port}"
            assert CHROMIUM is not None
            browser = await trio.lowlevel.open_process(
                [
                    *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                    *(f"--user-data-dir={profile}", "--remote-debugging-port=0", origin),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                result = await trio.to_thread.run_sync(results.get, abandon_on_cancel=True)
            finally:
                browser.terminate()
                with trio.CancelScope(shield=True):
                    await browser.wait()
    return json.loads(result)


async def test_fetch_calls_a_method_with_json(tmp_path: pathlib.Path) -> None:
    assert await what_a_browser_gets(FETCH, tmp_path) == [
        [200, {"message": "Hello fetch"}, True],
        [404, {"code": "not_found", "message": "there is nobody"}, True],
    ]


async def test_a_page_that_was_not_allowed_gets_nothing(tmp_path: pathlib.Path) -> None:
    assert await what_a_browser_gets(FETCH, tmp_path, allowed=False) == ["TypeError", "TypeError"]


@pytest.mark.skipif(not GRPC_WEB.exists(), reason="needs the npm package (npm i grpc-web, or GRPC_WEB_JS)")
async def test_the_grpc_web_client_calls_and_streams_in_both_forms(tmp_path: pathlib.Path) -> None:
    result = await what_a_browser_gets(GRPC_WEB_CLIENT, tmp_path)

    assert result["text"] == ["Hello text", [5, "there is nobody"], ["0 text", "1 text", "2 text", 0]]
    assert result["binary"] == [
        "Hello binary",
        [5, "there is nobody"],
        ["0 binary", "1 binary", "2 binary", 0],
    ]
