"""Accepting: descriptors that run out, connections that are too many, handlers that fail."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import trio

from tests.patience import PATIENCE_S
from trio_serve.transport.byte_stream import ByteStream
from trio_serve.transport.listener import Accepting, open_listeners

pytestmark = pytest.mark.real_clock


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Leave this process no descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def echo(byte_stream: ByteStream) -> None:
    try:
        while data := await byte_stream.receive_some(1000):
            await byte_stream.send_all(data)
    finally:
        await byte_stream.aclose()


async def ask(client: trio.SocketStream) -> bytes:
    await client.send_all(b"hello")
    return bytes(await client.receive_some(100))


async def test_running_out_of_descriptors_harms_no_connection_and_is_logged_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (listener,) = await open_listeners("127.0.0.1", 0)
    port = listener.getsockname()[1]
    accepting = Accepting(echo)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepting.accept_from, listener, nursery)
        first = await trio.open_tcp_stream("127.0.0.1", port)
        assert await ask(first) == b"hello"
        waiting = socket.socket()
        waiting.setblocking(False)
        began = trio.current_time()
        with no_descriptors():
            with pytest.raises(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
            with trio.fail_after(PATIENCE_S):
                while accepting.errors < 5:  # noqa: ASYNC110 - a counter has no event
                    await trio.sleep(0.05)
            assert await ask(first) == b"hello"
        with trio.fail_after(PATIENCE_S):  # it is let in once there is room again
            late = trio.SocketStream(trio.socket.from_stdlib_socket(waiting))
            assert await ask(late) == b"hello"
        lasted_s = trio.current_time() - began
        nursery.cancel_scope.cancel()
    await first.aclose()
    await late.aclose()
    listener.close()
    lines = [record.message for record in caplog.records]
    assert 1 <= len(lines) <= lasted_s + 1
    assert lines[0].startswith("cannot accept connections: [Errno 24]")


async def test_connections_beyond_the_most_wait_for_one_to_close() -> None:
    (listener,) = await open_listeners("127.0.0.1", 0)
    port = listener.getsockname()[1]
    accepting = Accepting(echo, connections_max=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepting.accept_from, listener, nursery)
        first, second, third = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        assert await ask(first) == await ask(second) == b"hello"
        with trio.move_on_after(0.2) as waited:
            await ask(third)
        assert waited.cancelled_caught
        await first.aclose()
        with trio.fail_after(PATIENCE_S):
            assert await third.receive_some(100) == b"hello"
        nursery.cancel_scope.cancel()
    for client in (second, third):
        await client.aclose()
    listener.close()


async def test_a_handler_that_raises_ends_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(byte_stream: ByteStream) -> None:
        await byte_stream.aclose()
        raise ValueError("a bug")

    (listener,) = await open_listeners("127.0.0.1", 0)
    port = listener.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Accepting(fail).accept_from, listener, nursery)
        for _ in range(3):
            client = await trio.open_tcp_stream("127.0.0.1", port)
            assert await client.receive_some(1) == b""
            await client.aclose()
        nursery.cancel_scope.cancel()
    listener.close()
    assert len([record for record in caplog.records if record.exc_info]) == 3
