"""Happy eyeballs and backoff: exact in virtual time, and once against real sockets."""

import random
import socket
import ssl
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
import trustme

from trio_serve.transport.byte_stream import ByteStream
from trio_serve.transport.dialing import (
    Address,
    Backoff,
    BackoffOptions,
    ClientTls,
    DialFailed,
    TcpAddress,
    UnixAddress,
    dial,
    interleave,
    resolve,
)
from trio_serve.transport.memory import MemoryByteStream, memory_pair


@attrs.define(eq=False)
class Scripted:
    """An address that connects, or fails, after so many virtual seconds."""

    name: str
    after_s: float
    error: OSError | None = None
    family: int = socket.AF_INET
    started_at: list[float] = attrs.field(factory=list)
    left_at: list[float] = attrs.field(factory=list)
    opened: list[ByteStream] = attrs.field(factory=list)

    def __str__(self) -> str:
        return self.name

    async def connect(self, tls: ClientTls | None) -> ByteStream:
        self.started_at.append(trio.current_time())
        try:
            await trio.sleep(self.after_s)
        except trio.Cancelled:
            self.left_at.append(trio.current_time())
            raise
        if self.error is not None:
            raise self.error
        self.opened.append(memory_pair(peer=self.name)[0])
        return self.opened[-1]


async def test_the_first_address_that_answers_wins_and_the_others_are_left() -> None:
    silent, slow, quick = Scripted("silent", 1000), Scripted("slow", 2), Scripted("quick", 0.1)
    stream = await dial([silent, slow, quick])
    assert stream.peer == "quick"
    assert trio.current_time() == 0.6
    assert (silent.started_at, slow.started_at, quick.started_at) == ([0], [0.25], [0.5])
    assert silent.left_at == slow.left_at == [0.6]


async def test_a_failure_starts_the_next_attempt_at_once() -> None:
    refused = Scripted("refused", 0.01, ConnectionRefusedError(111, "Connection refused"))
    good = Scripted("good", 0)
    assert (await dial([refused, good])).peer == "good"
    assert good.started_at == [0.01]


async def test_when_all_fail_the_error_names_each_cause() -> None:
    a = Scripted("10.0.0.1:80", 0.3, ConnectionRefusedError(111, "Connection refused"))
    b = Scripted("10.0.0.2:80", 0.0, OSError("no route"))
    with pytest.raises(DialFailed, match=r"^10.0.0.2:80: no route; 10.0.0.1:80: Connection refused$"):
        await dial([a, b])
    with pytest.raises(DialFailed):
        await dial([])


async def test_two_that_connect_in_the_same_instant_leave_one_open() -> None:
    """Both attempts are woken by one event, so neither can be cancelled by the other in time."""
    gate = trio.Event()
    opened: list[MemoryByteStream] = []

    class Gated(Scripted):
        async def connect(self, tls: ClientTls | None) -> ByteStream:
            await gate.wait()
            opened.append(memory_pair()[0])
            return opened[-1]

    async def open_the_gate() -> None:
        await trio.sleep(1)
        gate.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_the_gate)
        stream = await dial([Gated("first", 0), Gated("second", 0)])
    assert len(opened) == 2
    assert [one for one in opened if not one.closed] == [stream]


async def test_cancelling_leaves_nothing_open() -> None:
    addresses = [Scripted(str(number), 5) for number in range(3)]
    with trio.move_on_after(1) as scope:
        await dial(addresses)
    assert scope.cancelled_caught
    assert all(address.left_at == [1] for address in addresses)


def test_families_alternate_beginning_with_the_first() -> None:
    six = [TcpAddress(f"::{number}", 1) for number in (1, 2, 3)]
    four = [TcpAddress("10.0.0.1", 1)]
    ordered: list[Address] = [six[0], four[0], six[1], six[2]]
    assert interleave([*six, *four]) == ordered
    assert interleave([]) == []


def test_backoff_follows_grpcs_document() -> None:
    """1 s exactly, then 1.6 times as long each time up to 120 s, varied by a fifth, until reset."""
    backoff = Backoff(BackoffOptions(), random.Random(3))
    steady = 1.0
    assert backoff.next_delay_s() == 1.0
    for _ in range(20):
        steady = min(steady * 1.6, 120.0)
        assert steady * 0.8 <= backoff.next_delay_s() <= steady * 1.2
    assert steady == 120.0
    backoff.reset()
    assert backoff.next_delay_s() == 1.0


@pytest.mark.real_clock
async def test_a_name_is_resolved_and_reached() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    addresses = await resolve("127.0.0.1", port)
    assert addresses == (TcpAddress("127.0.0.1", port),)
    stream = await dial(addresses)
    served = await listeners[0].accept()
    assert stream.peer == f"ipv4:127.0.0.1:{port}"
    await stream.send_all(b"hello")
    assert await served.receive_some(5) == b"hello"
    await stream.aclose()
    assert await served.receive_some(5) == b""
    await served.aclose()
    await listeners[0].aclose()
    with pytest.raises(DialFailed, match=rf"127.0.0.1:{port}: Connection refused"):
        await dial(addresses)


@pytest.mark.real_clock
async def test_a_unix_socket_is_reached(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(path)
    listening.listen()
    stream = await dial([UnixAddress(path)])
    served, _ = await listening.accept()
    await stream.aclose()
    assert await served.recv(1) == b""
    served.close()
    listening.close()
    with pytest.raises(DialFailed, match=rf"unix:{path}x: No such file"):
        await dial([UnixAddress(path + "x")])


class TlsServer:
    """Accepts connections and shakes hands with each, offering ``protocols`` by ALPN."""

    def __init__(self, protocols: list[str]) -> None:
        self.authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1", "served.test").configure_cert(self.context)
        self.context.set_alpn_protocols(protocols)
        self.address = TcpAddress("127.0.0.1", 0)

    def client(self, name: str, trusted: bool = True) -> ClientTls:
        context = ssl.create_default_context()
        if trusted:
            self.authority.configure_trust(context)
        context.set_alpn_protocols(["h2"])
        return ClientTls(context, name)

    async def run(self, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = TcpAddress("127.0.0.1", listener.socket.getsockname()[1])
        await trio.serve_listeners(self.greet, [listener], task_status=task_status)

    async def greet(self, stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, self.context, server_side=True)
        with trio.CancelScope(), secured.transport_stream.socket:
            try:
                await secured.send_all(b"hi")
                await secured.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass


@pytest.mark.real_clock
async def test_tls_checks_the_name_and_the_protocol() -> None:
    async with trio.open_nursery() as nursery:
        good, old = TlsServer(["h2"]), TlsServer(["http/1.1"])
        await nursery.start(good.run)
        await nursery.start(old.run)
        stream = await dial([good.address], good.client("served.test"))
        assert await stream.receive_some(10) == b"hi"
        assert stream.tls is not None
        await stream.aclose()
        with pytest.raises(DialFailed, match=r"TLS: .*Hostname mismatch"):
            await dial([good.address], good.client("other.test"))
        with pytest.raises(DialFailed, match=r"TLS: .*certificate verify failed"):
            await dial([good.address], good.client("served.test", trusted=False))
        with pytest.raises(DialFailed, match="ALPN chose"):
            await dial([old.address], old.client("served.test"))
        nursery.cancel_scope.cancel()


@pytest.mark.real_clock
async def test_the_end_of_our_half_is_heard_under_tls_too() -> None:
    """The other side closes when it hears it; else each would wait for the other to close first."""
    async with trio.open_nursery() as nursery:
        server = TlsServer(["h2"])
        await nursery.start(server.run)
        stream = await dial([server.address], server.client("served.test"))
        assert await stream.receive_some(10) == b"hi"

        await stream.send_eof()

        assert await stream.receive_some(10) == b""
        await stream.aclose()
        nursery.cancel_scope.cancel()
