"""The HTTP proxy of an instance, on real sockets: beside gRPC and without, with TLS, and clients not ours."""

import pathlib
import socket
import ssl
import subprocess
import sys
from typing import Any

import httpx
import pytest
import trio
import trustme
from starlette.requests import Request

import trio_serve as serve
from tests.patience import PATIENCE_S
from trio_serve.grpc import methods_from, open_channel
from trio_serve.instance.settings import Mistakes
from trio_serve.serving.request_context import current_request
from trio_serve.serving.status import ProxyStatus

pytestmark = pytest.mark.real_clock

PROTO = str(pathlib.Path(__file__).parent.parent.parent / "protos" / "helloworld.proto")
ANY_PORT = {"port": 0}


@serve.deployment
class Both:
    """One class for gRPC (``SayHello``) and for HTTP (``__call__``)."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def note(self) -> None:
        request = current_request()
        assert request is not None
        self.ids.append(request.request_id)

    async def SayHello(self, message: Any) -> Any:
        self.note()
        (method,) = (each for each in methods_from(PROTO) if each.name == "SayHello")
        assert method.reply_type is not None
        return method.reply_type(message=f"Hello {message.name}")

    async def __call__(self, request: Request) -> Any:
        self.note()
        return self.ids


async def test_both_proxies_share_applications_replicas_and_request_ids() -> None:
    (method,) = (each for each in methods_from(PROTO) if each.name == "SayHello")
    options = {"port": 0, "protos": [PROTO]}
    async with serve.open_instance(http_options=ANY_PORT, grpc_options=options) as instance:
        await instance.run(Both.bind())
        async with open_channel(f"127.0.0.1:{instance.grpc_port}") as channel:
            say_hello = channel.unary_unary(
                method.path,
                request_serializer=method.request_type.SerializeToString,  # type: ignore[union-attr]
                response_deserializer=method.reply_type.FromString,  # type: ignore[union-attr]
            )
            reply = await say_hello(method.request_type(name="you"), metadata=[("request_id", "over-grpc")])  # type: ignore[misc]
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{instance.http_port}", timeout=PATIENCE_S
        ) as client:
            answer = await client.get("/", headers={"x-request-id": "over-http"})

        assert reply.message == "Hello you"
        assert answer.json() == ["over-grpc", "over-http"]
        assert instance.status().proxies == {"grpc": ProxyStatus.HEALTHY, "http": ProxyStatus.HEALTHY}
        assert instance.addresses["http"] == f"127.0.0.1:{instance.http_port}"


async def test_http_is_served_without_grpc() -> None:
    async with serve.open_instance(http_options=ANY_PORT) as instance:
        await instance.run(Both.bind(), route_prefix="/both")
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{instance.http_port}", timeout=PATIENCE_S
        ) as client:
            assert (await client.get("/-/routes")).json() == {"/both": "default"}
            assert len((await client.get("/both")).json()) == 1

    assert instance.grpc_port is None


def test_grpc_is_served_without_importing_what_http_needs() -> None:
    program = f"""
import sys, trio, trio_serve as serve

async def main():
    async with serve.open_instance(grpc_options={{"port": 0, "protos": [{PROTO!r}]}}):
        print([name for name in ("starlette", "hypercorn", "h11", "fastapi") if name in sys.modules])

trio.run(main)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


async def test_a_client_that_drops_its_socket_cancels_the_work() -> None:
    cancelled = trio.Event()
    started = trio.Event()

    @serve.deployment
    async def waits(request: Request) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serve.open_instance(http_options=ANY_PORT) as instance:
        await instance.run(waits.bind())
        stream = await trio.open_tcp_stream("127.0.0.1", instance.http_port)  # type: ignore[arg-type]
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await started.wait()
        await stream.aclose()
        await cancelled.wait()


async def test_a_drain_answers_what_is_under_way_and_closes_the_port() -> None:
    started = trio.Event()

    @serve.deployment
    async def sleeps(request: Request) -> str:
        started.set()
        await trio.sleep(0.2)
        return "done"

    answers: list[httpx.Response] = []
    async with serve.open_instance(http_options=ANY_PORT) as instance:
        await instance.run(sleeps.bind())
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{instance.http_port}", timeout=PATIENCE_S
        ) as client:

            async def ask() -> None:
                answers.append(await client.get("/"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await started.wait()
                assert instance.calls_in_flight == 1
                await instance.drain()
            assert instance.status().proxies == {"http": ProxyStatus.DRAINING}
            with pytest.raises(httpx.ConnectError):
                await client.get("/")

    assert [answer.text for answer in answers] == ["done"]
    assert answers[0].headers["connection"] == "close"


async def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"port {port} on 127.0.0.1 is in use by another program; stop it"):
            async with serve.open_instance(http_options={"port": port}):
                raise AssertionError("it opened")


async def test_tls_is_http_1_only(tmp_path: pathlib.Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    files = {"ssl_keyfile": str(tmp_path / "key.pem"), "ssl_certfile": str(tmp_path / "cert.pem")}
    async with serve.open_instance(http_options={**ANY_PORT, **files}) as instance:
        await instance.run(Both.bind())
        async with httpx.AsyncClient(verify=trusting, timeout=PATIENCE_S) as client:
            answer = await client.get(f"https://127.0.0.1:{instance.http_port}/-/healthz")
        trusting.set_alpn_protocols(["h2", "http/1.1"])
        tcp = await trio.open_tcp_stream("127.0.0.1", instance.http_port)  # type: ignore[arg-type]
        tls = trio.SSLStream(tcp, trusting, server_hostname="127.0.0.1")
        await tls.do_handshake()
        chosen = tls.selected_alpn_protocol()
        await trio.aclose_forcefully(tls)
        plain = await trio.open_tcp_stream("127.0.0.1", instance.http_port)  # type: ignore[arg-type]
        await plain.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        with pytest.raises((trio.BrokenResourceError, EOFError)):
            if not await plain.receive_some():
                raise EOFError
        await plain.aclose()

    assert (answer.text, answer.http_version, chosen) == ("success", "HTTP/1.1", "http/1.1")


async def test_certificates_that_cannot_be_read_are_told() -> None:
    options = {**ANY_PORT, "ssl_keyfile": "nope.key", "ssl_certfile": "nope.pem"}
    with pytest.raises(
        Mistakes, match=r"^http_options.ssl_certfile: cannot serve TLS with nope.pem, nope.key: No"
    ):
        async with serve.open_instance(http_options=options):
            raise AssertionError("it opened")


async def test_many_clients_at_once_get_their_own_answers() -> None:
    @serve.deployment(num_replicas=2, max_ongoing_requests=50)
    async def echo(request: Request) -> bytes:
        return await request.body()

    async with serve.open_instance(http_options=ANY_PORT) as instance:
        await instance.run(echo.bind())
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{instance.http_port}", timeout=PATIENCE_S
        ) as client:
            wrong = 0

            async def ask(number: int) -> None:
                nonlocal wrong
                body = f"{number} ".encode() * 10_000
                wrong += (await client.post("/", content=body)).content != body

            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(ask, number)

    assert wrong == 0


async def test_an_answer_given_before_the_body_was_read_is_not_lost_to_a_reset() -> None:
    @serve.deployment
    async def refuses(request: Request) -> str:
        return "not read"

    request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 1_000_000
    async with serve.open_instance(http_options=ANY_PORT) as instance:
        await instance.run(refuses.bind())
        for _ in range(5):
            async with await trio.open_tcp_stream("127.0.0.1", instance.http_port) as stream:  # type: ignore[arg-type]
                await stream.send_all(request)
                await trio.sleep(0.05)
                assert (await stream.receive_some()).endswith(b"not read")
