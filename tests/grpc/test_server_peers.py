"""Real clients on real sockets: grpcio, grpc.aio and grpclib, each in its thread, with TLS and without."""

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
import trustme
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.grpc.echo import Echo, Note, grpcio, grpclib, serving
from tests.patience import PATIENCE_S
from trio_serve.grpc import Server
from trio_serve.transport.listener import open_listeners, open_unix_listener, server_tls

pytestmark = pytest.mark.real_clock


@asynccontextmanager
async def listening(server: Server, **options: Any) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(
            lambda task_status: server.serve("127.0.0.1", 0, task_status=task_status, **options)
        )
        await server.drain(timeout_s=5)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


def every_kind(target: str, credentials: Any = None) -> None:
    """One call of each kind with grpcio's blocking client."""
    channel = (
        grpc.secure_channel(target, credentials) if credentials is not None else grpc.insecure_channel(target)
    )
    with channel:
        stub = grpcio.EchoStub(channel)
        reply, call = stub.One.with_call(
            Note(text="hi"), timeout=PATIENCE_S, metadata=(("k", "v"), ("b-bin", b"\x00"))
        )
        assert reply.text == "hi"
        assert call.code() is grpc.StatusCode.OK
        assert [note.number for note in stub.Many(Note(number=500), timeout=PATIENCE_S)] == list(range(500))
        assert (
            stub.Sum(iter([Note(number=number) for number in range(100)]), timeout=PATIENCE_S).number == 4950
        )
        notes = [Note(number=number, blob=bytes(1000)) for number in range(300)]
        assert [note.number for note in stub.Chat(iter(notes), timeout=PATIENCE_S)] == list(range(300))
        blob = os.urandom(3_000_000)
        assert stub.One(Note(blob=blob), timeout=PATIENCE_S).blob == blob
        assert stub.One(Note(blob=bytes(100_000)), timeout=PATIENCE_S, compression=grpc.Compression.Gzip).blob
        with pytest.raises(grpc.RpcError) as failure:
            channel.unary_unary("/tests.server.Echo/Two")(b"", timeout=PATIENCE_S)
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_grpcio_calls_every_kind() -> None:
    async with listening(serving(Echo())) as port:
        await in_thread(every_kind, f"127.0.0.1:{port}")


class SyncEcho(grpcio.EchoServicer):  # type: ignore[name-defined,misc]
    """As people write servicers for grpc.server: blocking functions and generators."""

    def __init__(self) -> None:
        self.threads: set[str] = set()
        self.closed = 0

    def One(self, request: Any, context: Any) -> Any:
        self.threads.add(threading.current_thread().name)
        if request.text == "abort":
            context.abort(grpc.StatusCode.DATA_LOSS, "lost")
        if request.text == "code":
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("nothing")
        context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"),))
        assert context.is_active()
        return request

    def Many(self, request: Any, context: Any) -> Any:
        try:
            for number in range(request.number):
                yield Note(number=number)
        finally:
            self.closed += 1

    def Sum(self, requests: Any, context: Any) -> Any:
        return Note(number=sum(request.number for request in requests))

    def Chat(self, requests: Any, context: Any) -> Any:
        yield from requests


async def test_sync_handlers_run_in_threads() -> None:
    servicer = SyncEcho()
    main = threading.current_thread().name

    def calls(port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = grpcio.EchoStub(channel)
            _, call = stub.One.with_call(Note(), timeout=PATIENCE_S)
            assert ("first", "1") in call.initial_metadata()
            assert ("last", "2") in call.trailing_metadata()
            for text, code in (("abort", grpc.StatusCode.DATA_LOSS), ("code", grpc.StatusCode.NOT_FOUND)):
                with pytest.raises(grpc.RpcError) as failure:
                    stub.One(Note(text=text), timeout=PATIENCE_S)
                assert failure.value.code() is code

    async with listening(serving(servicer)) as port:
        await in_thread(every_kind, f"127.0.0.1:{port}")
        await in_thread(calls, port)
    assert main not in servicer.threads
    assert servicer.closed == 1


async def test_the_answer_leaves_at_the_deadline_though_a_thread_goes_on() -> None:
    release = threading.Event()

    class Stuck(SyncEcho):
        def One(self, request: Any, context: Any) -> Any:
            release.wait(PATIENCE_S)
            return request

    def call(port: int) -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                grpcio.EchoStub(channel).One(Note(), timeout=0.2)
            except grpc.RpcError as error:
                return error.code()  # type: ignore[attr-defined]

    try:
        async with listening(serving(Stuck(), request_timeout_s=0.1)) as port:
            assert await in_thread(call, port) is grpc.StatusCode.DEADLINE_EXCEEDED
            release.set()
    finally:
        release.set()


async def test_grpc_aio_cancels_and_the_handler_hears_of_it() -> None:
    cancelled = trio.Event()

    class Endless(Echo):
        async def Many(self, request: Any, context: Any) -> Any:
            try:
                while True:
                    yield request
                    await trio.sleep(0.001)
            except (trio.Cancelled, GeneratorExit):
                cancelled.set()
                raise

    async def client(port: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = grpcio.EchoStub(channel).Many(Note(text="x"))
            async for _ in call:
                break
            call.cancel()

    async with listening(serving(Endless())) as port:
        await in_thread(asyncio.run, client(port))
        await cancelled.wait()


async def test_grpc_aio_has_many_calls_in_flight() -> None:
    async def client(port: int) -> int:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = grpcio.EchoStub(channel)
            replies = await asyncio.gather(
                *[
                    stub.One(Note(number=number, blob=bytes(number % 3000)), timeout=PATIENCE_S)
                    for number in range(1000)
                ]
            )
            return sum(reply.number for reply in replies)

    async with listening(serving(Echo())) as port:
        assert await in_thread(asyncio.run, client(port)) == 499500


class GrpclibEcho(grpclib.EchoBase):  # type: ignore[name-defined,misc]
    """A grpclib service, as its users write it."""

    async def One(self, stream: Any) -> None:
        request = await stream.recv_message()
        assert await stream.recv_message() is None
        if request.text == "fail":
            raise GRPCError(Status.ABORTED, "no", [Note(text="detail")])
        if request.text == "metadata":
            assert stream.metadata["k"] == "v"
            assert 0 < stream.deadline.time_remaining() <= PATIENCE_S
            await stream.send_initial_metadata(metadata={"first": "1"})
            await stream.send_message(request)
            await stream.send_trailing_metadata(metadata={"last": "2"})
            return
        await stream.send_message(request)

    async def Many(self, stream: Any) -> None:
        request = await stream.recv_message()
        for number in range(request.number):
            await stream.send_message(Note(number=number))

    async def Sum(self, stream: Any) -> None:
        await stream.send_message(Note(number=sum([request.number async for request in stream])))

    async def Chat(self, stream: Any) -> None:
        async for request in stream:
            await stream.send_message(request)


async def test_a_grpclib_service_unmodified_and_grpclibs_client() -> None:
    async def client(port: int) -> None:
        channel = Channel("127.0.0.1", port)
        try:
            stub = grpclib.EchoStub(channel)
            assert (await stub.One(Note(text="hi"))).text == "hi"
            assert len(await stub.Many(Note(number=50))) == 50
            assert (await stub.Sum([Note(number=1), Note(number=2)])).number == 3
            assert len(await stub.Chat([Note()] * 5)) == 5
            with pytest.raises(GRPCError) as failure:
                await stub.One(Note(text="fail"))
            assert failure.value.status is Status.ABORTED
            async with stub.One.open(timeout=PATIENCE_S, metadata={"k": "v"}) as stream:
                await stream.send_message(Note(text="metadata"), end=True)
                await stream.recv_message()
                await stream.recv_trailing_metadata()
                assert stream.initial_metadata["first"] == "1"
                assert stream.trailing_metadata["last"] == "2"
        finally:
            channel.close()

    async with listening(Server(GrpclibEcho())) as port:
        await in_thread(every_kind, f"127.0.0.1:{port}")
        await in_thread(asyncio.run, client(port))


class Authority:
    """Certificates for a server and a client, as files and as grpcio wants them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.server = self.ca.issue_cert("localhost", "127.0.0.1")
        self.client = self.ca.issue_cert("client@example.org", common_name="a client")
        self.root = self.ca.cert_pem.bytes()
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
        self.server.private_key_pem.write_to_path(str(folder / "server.key"))

    def server_context(self, mutual: bool = False) -> ssl.SSLContext:
        files = [str(self.folder / name) for name in ("server.pem", "server.key", "ca.pem")]
        return server_tls(files[0], files[1], files[2] if mutual else None)

    def credentials(self, with_certificate: bool = False) -> grpc.ChannelCredentials:
        if not with_certificate:
            return grpc.ssl_channel_credentials(self.root)
        key, chain = self.client.private_key_pem.bytes(), self.client.cert_chain_pems[0].bytes()
        return grpc.ssl_channel_credentials(self.root, key, chain)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


async def test_tls(authority: Authority) -> None:
    async with listening(serving(Echo()), tls=authority.server_context()) as port:
        await in_thread(every_kind, f"localhost:{port}", authority.credentials())


async def test_mutual_tls_lets_in_whom_it_knows_and_the_handler_sees_who(authority: Authority) -> None:
    seen: list[Any] = []

    class Curious(Echo):
        async def One(self, request: Any, context: Any) -> Any:
            seen.append((context.auth_context(), context.peer_identities()))
            return request

    def stranger(port: int) -> Any:
        with grpc.secure_channel(f"localhost:{port}", authority.credentials()) as channel:
            try:
                grpcio.EchoStub(channel).One(Note(), timeout=PATIENCE_S)
            except grpc.RpcError as error:
                return error.code()  # type: ignore[attr-defined]

    async with listening(serving(Curious()), tls=authority.server_context(mutual=True)) as port:
        assert await in_thread(stranger, port) is grpc.StatusCode.UNAVAILABLE
        await in_thread(every_kind, f"localhost:{port}", authority.credentials(with_certificate=True))
    identities = {
        "transport_security_type": [b"ssl"],
        "x509_common_name": [b"a client"],
        "x509_subject_alternative_name": [b"client@example.org"],
    }
    assert seen[0] == (identities, [b"client@example.org"])


async def test_tls_without_alpn_is_refused_and_others_are_served(authority: Authority) -> None:
    context = ssl.create_default_context(cadata=authority.root.decode())
    async with listening(serving(Echo()), tls=authority.server_context()) as port:
        stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=context)
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
            while await stream.receive_some(100):
                pass
            raise trio.BrokenResourceError
        await trio.aclose_forcefully(stream)
        await in_thread(every_kind, f"localhost:{port}", authority.credentials())


async def test_a_stalled_handshake_is_cut_and_holds_up_nobody(authority: Authority) -> None:
    import attrs

    from trio_serve.grpc.server import SERVER_OPTIONS

    server = serving(Echo(), options=attrs.evolve(SERVER_OPTIONS, handshake_timeout_s=0.5))
    async with listening(server, tls=authority.server_context()) as port:
        stalled = await trio.open_tcp_stream("127.0.0.1", port)
        assert await stalled.receive_some(1) == b""
        await stalled.aclose()


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "server.sock")
    server = serving(Echo())
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_unix, path)
        await in_thread(every_kind, f"unix:{path}")
        await server.drain(timeout_s=5)
    assert not Path(path).is_socket()  # noqa: ASYNC240 - a test may look


async def test_a_port_in_use_is_an_error_that_says_what_to_do() -> None:
    async with listening(serving(Echo())) as port:
        with pytest.raises(
            OSError, match=rf"port {port} on 127\.0\.0\.1 is in use by another program; stop it"
        ):
            await Server().serve("127.0.0.1", port)


async def test_a_stranger_with_so_reuseport_does_not_share_our_port() -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(OSError, match="in use"):
            await open_listeners("127.0.0.1", stranger.getsockname()[1])
    (ours,) = await open_listeners("127.0.0.1", 0)
    with ours, socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError):
            stranger.bind(ours.getsockname())


async def test_all_addresses_of_a_host_listen_on_one_free_port() -> None:
    listeners = await open_listeners("localhost", 0)
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        listener.close()


async def test_a_host_that_is_not_ours_and_one_that_is_nobodys() -> None:
    with pytest.raises(OSError, match=r"cannot listen on port 0 on 192\.0\.2\.1"):
        await open_listeners("192.0.2.1", 0)


async def test_a_dead_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    first = open_unix_listener(path)
    with pytest.raises(OSError, match="in use"):
        open_unix_listener(path)
    first.close()
    open_unix_listener(path).close()


async def test_a_connection_at_rest_is_small() -> None:
    """RELIABILITY: under 20 KB for an idle connection; here with room for the allocator's moods."""
    import tracemalloc

    server = serving(Echo())
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners)
        from tests.grpc.raw_client import RawClient

        async def connect() -> None:
            client = RawClient(server.connect())
            nursery.start_soon(client.run)
            await client.ready.wait()

        for _ in range(5):
            await connect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            await connect()
        each = (tracemalloc.get_traced_memory()[0] - before) / 50
        tracemalloc.stop()
        nursery.cancel_scope.cancel()
    assert each < 40_000  # both ends, each with its tasks
