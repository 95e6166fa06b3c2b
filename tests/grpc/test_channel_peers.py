"""The channel against grpcio's server on real sockets: plain, TLS, Unix; unary, streams, errors, limits."""

import ssl
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import trio
import trustme

from tests.grpc.client_peers import grpcio_stubs, grpclib_stubs, pb2
from tests.patience import PATIENCE_S
from trio_serve.grpc import RpcError, Status, open_channel

pytestmark = pytest.mark.real_clock


def greeter() -> Any:
    class Greeter(grpcio_stubs().GreeterServicer):  # type: ignore[misc]
        def SayHello(self, request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            context.send_initial_metadata((("peer", context.peer().partition(":")[0]),))
            context.set_trailing_metadata((("seen", metadata.get("ask", "")), ("raw-bin", b"\x00\xff")))
            if request.name == "nobody":
                context.abort(grpc.StatusCode.NOT_FOUND, "no such person: é")
            if request.name == "slow":
                gone = threading.Event()
                if context.add_callback(gone.set):
                    gone.wait(PATIENCE_S)
            return pb2().HelloReply(message=f"Hello {request.name}")

        def SayHelloStreamReply(self, request: Any, context: Any) -> Iterator[Any]:
            for number in range(int(request.name)):
                yield pb2().HelloReply(message=str(number))

        def SayHelloClientStream(self, requests: Any, context: Any) -> Any:
            return pb2().HelloReply(message=str(sum(len(request.name) for request in requests)))

        def SayHelloBidiStream(self, requests: Any, context: Any) -> Iterator[Any]:
            for request in requests:
                yield pb2().HelloReply(message=request.name * 2)

    return Greeter()


@contextmanager
def grpcio_server(
    bind: str, credentials: Any = None, options: tuple[tuple[str, Any], ...] = ()
) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(8), options=options)
    grpcio_stubs().add_GreeterServicer_to_server(greeter(), server)
    port = server.add_secure_port(bind, credentials) if credentials else server.add_insecure_port(bind)
    server.start()
    try:
        yield int(port)
    finally:
        server.stop(0).wait()


def hello(name: str) -> Any:
    return pb2().HelloRequest(name=name)


async def all_kinds(channel: Any) -> None:
    stub = grpcio_stubs().GreeterStub(channel)
    call = stub.SayHello(hello("you"), metadata=(("ask", "it"),), timeout=PATIENCE_S)
    assert (await call).message == "Hello you"
    assert dict(await call.initial_metadata())["peer"] in ("ipv4", "ipv6", "unix")
    assert await call.trailing_metadata() == (("seen", "it"), ("raw-bin", b"\x00\xff"))
    assert [reply.message async for reply in stub.SayHelloStreamReply(hello("500"))] == [
        str(number) for number in range(500)
    ]
    names = [hello("x" * 1000) for _ in range(500)]
    assert (await stub.SayHelloClientStream(names)).message == "500000"
    doubled = [reply.message async for reply in stub.SayHelloBidiStream(hello(str(n)) for n in range(100))]
    assert doubled == [str(number) * 2 for number in range(100)]
    with pytest.raises(RpcError) as caught:
        await stub.SayHello(hello("nobody"))
    assert (caught.value.status, caught.value.message) == (Status.NOT_FOUND, "no such person: é")
    large = "x" * 3_000_000
    assert (await stub.SayHello(hello(large), compression="gzip")).message == "Hello " + large
    assert (await stub.SayHello(hello(large))).message == "Hello " + large


async def test_all_kinds_of_call_in_plain_text() -> None:
    with grpcio_server("127.0.0.1:0") as port:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            await all_kinds(channel)
            grpclib = grpclib_stubs().GreeterStub(channel)
            assert (await grpclib.SayHello(hello("you"))).message == "Hello you"
            assert len(await grpclib.SayHelloStreamReply(hello("50"))) == 50


async def test_all_kinds_of_call_over_tls() -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("greeter.test")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials(((issued.private_key_pem.bytes(), chain),))
    trusting, distrusting = ssl.create_default_context(), ssl.create_default_context()
    authority.configure_trust(trusting)
    with grpcio_server("127.0.0.1:0", credentials) as port:
        target = f"127.0.0.1:{port}"
        async with open_channel(target, tls=trusting, authority="greeter.test") as channel:
            await all_kinds(channel)
        async with open_channel(target, tls=trusting) as channel:
            with pytest.raises(RpcError, match=r"UNAVAILABLE.*(IP address mismatch|doesn't match)"):
                await grpcio_stubs().GreeterStub(channel).SayHello(hello("you"))
        async with open_channel(target, tls=distrusting, authority="greeter.test") as channel:
            with pytest.raises(RpcError, match=r"UNAVAILABLE.*certificate verify failed"):
                await grpcio_stubs().GreeterStub(channel).SayHello(hello("you"))
        async with open_channel(target) as channel:
            with pytest.raises(RpcError, match="UNAVAILABLE"):
                await grpcio_stubs().GreeterStub(channel).SayHello(hello("you"))


async def test_all_kinds_of_call_over_a_unix_socket(tmp_path: Path) -> None:
    with grpcio_server(f"unix:{tmp_path}/s"):
        async with open_channel(f"unix:{tmp_path}/s") as channel:
            await all_kinds(channel)


async def test_a_port_that_nobody_listens_on_fails_fast_with_its_name() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with open_channel(f"localhost:{port}") as channel:
        with pytest.raises(RpcError, match=rf"UNAVAILABLE.*127.0.0.1:{port}: Connection refused"):
            await grpcio_stubs().GreeterStub(channel).SayHello(hello("you"))


async def test_a_deadline_ends_the_call_and_the_servers_handler() -> None:
    with grpcio_server("127.0.0.1:0") as port:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            stub = grpcio_stubs().GreeterStub(channel)
            with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
                await stub.SayHello(hello("slow"), timeout=0.2)
            with trio.move_on_after(0.2) as scope:
                await stub.SayHello(hello("slow"))
            assert scope.cancelled_caught
            assert (await stub.SayHello(hello("you"))).message == "Hello you"


async def test_more_calls_than_streams_are_allowed_all_succeed() -> None:
    with grpcio_server("127.0.0.1:0", options=(("grpc.max_concurrent_streams", 5),)) as port:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            stub = grpcio_stubs().GreeterStub(channel)
            replies = []

            async def ask(number: int) -> None:
                replies.append((await stub.SayHello(hello(str(number)))).message)

            async with trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(ask, number)
            assert len(set(replies)) == 200


async def test_calls_survive_a_server_that_ages_its_connections() -> None:
    """max_connection_age of grpcio: GOAWAY twice, every half second, under load; no call fails."""
    options = (("grpc.max_connection_age_ms", 400), ("grpc.max_connection_age_grace_ms", 2000))
    with grpcio_server("127.0.0.1:0", options=options) as port:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            stub = grpcio_stubs().GreeterStub(channel)
            made = 0

            async def keep_asking() -> None:
                nonlocal made
                while trio.current_time() < end or made <= 100:
                    await stub.SayHello(hello("you"))
                    made += 1

            end = trio.current_time() + 2
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(keep_asking)
            assert made > 100


async def test_a_server_that_goes_and_comes_back_is_found_again() -> None:
    with grpcio_server("127.0.0.1:0") as port:
        pass
    async with open_channel(f"127.0.0.1:{port}") as channel:
        stub = grpcio_stubs().GreeterStub(channel)
        with pytest.raises(RpcError, match="UNAVAILABLE"):
            await stub.SayHello(hello("you"))
        for name in ("you", "again"):
            with grpcio_server(f"127.0.0.1:{port}"):
                reply = await stub.SayHello(hello(name), wait_for_ready=True, timeout=PATIENCE_S)
                assert reply.message == f"Hello {name}"
