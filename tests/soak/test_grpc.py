"""gRPC calls, cancelled streams and connections, in memory: nothing of them is left on either side.

In full: 1,000,000 calls, 100,000 streams, 100,000 connections.
"""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from benchmarks.load import frames
from tests.soak.state import IN_FLIGHT, MEMORY_AFTER_CANCELS_MAX, MEMORY_MAX, State, many, needs_proc, times
from trio_serve.actors import Envelope
from trio_serve.grpc import RpcError, Server, methods_from
from trio_serve.grpc.call import ServerCall
from trio_serve.grpc.channel import open_channel
from trio_serve.grpc.server import SERVER_OPTIONS
from trio_serve.transport.connection import Http2Connection
from trio_serve.transport.memory import MemoryByteStream
from trio_serve.wire.http2 import Stream

METHODS = {
    method.name: method for method in methods_from(str(Path(__file__).parent.parent / "grpc" / "echo.proto"))
}
Note: Any = METHODS["One"].request_type
KINDS = (ServerCall, Stream, Envelope, Http2Connection)
PATIENT = attrs.evolve(SERVER_OPTIONS, limits=dataclasses.replace(SERVER_OPTIONS.limits, resets_burst=10**9))
"""Time stands still here, and no allowance of resets would ever be filled up again."""

pytestmark = needs_proc


async def one(request: Any, context: Any) -> Any:
    return request


async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
    while True:
        yield request


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server(max_running=IN_FLIGHT // 2, options=PATIENT)  # as many workers as there will ever be
    for name, handler in {"One": one, "Many": endless}.items():
        server.register(attrs.evolve(METHODS[name], handler=handler))
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: server.serve_listeners(task_status=task_status))
        yield server
        nursery.cancel_scope.cancel()


def stub(channel: Any, name: str, kind: str) -> Any:
    method = METHODS[name]
    return getattr(channel, kind)(
        method.path, request_serializer=Note.SerializeToString, response_deserializer=Note.FromString
    )


async def answered(stream: MemoryByteStream) -> None:
    received = bytearray()
    while True:
        received += await stream.receive_some(65_536)
        for kind, flags, _, _ in frames.walk(received):
            if kind == frames.HEADERS and flags & frames.END_STREAM:
                return


async def test_calls_leave_nothing() -> None:
    async with serving() as server, open_channel(server) as channel:
        call = stub(channel, "One", "unary_unary")

        async def once(number: int) -> None:
            timeout = 1000.0 if number % 2 else None
            assert (await call(Note(number=number), timeout=timeout)).number == number

        await many(times(500, 100_000), once)
        before = State(*KINDS)
        await many(times(1500, 1_000_000), once)
        after = State(*KINDS)

        print(f"\ncalls: {after.grown(before)}")
        after.assert_nothing_left(before, MEMORY_MAX)


async def test_cancelled_streams_leave_nothing() -> None:
    """Given up by the caller's scope, by cancel() or by its deadline, after some messages or none."""
    async with serving() as server, open_channel(server) as channel:
        flood = stub(channel, "Many", "unary_stream")

        async def once(number: int) -> None:
            deadline = number % 3 == 0
            with trio.CancelScope() as scope:
                call = flood(Note(text="x" * 4000), timeout=0.001 if deadline else None)
                try:
                    for _ in range(number % 4):
                        await call.read()
                    if deadline:
                        await trio.sleep(0.002)
                        while await call.read():
                            pass
                    elif number % 3 == 1:
                        call.cancel()
                    else:
                        scope.cancel()
                        await call.read()
                except RpcError as error:
                    assert error.status.name in ("CANCELLED", "DEADLINE_EXCEEDED")

        await many(times(300, 20_000), once)
        before = State(*KINDS)
        await many(times(1000, 100_000), once)
        after = State(*KINDS)

        print(f"\ncancelled streams: {after.grown(before)}")
        after.assert_nothing_left(before, MEMORY_AFTER_CANCELS_MAX)


async def test_connections_leave_nothing() -> None:
    """Each makes one call; a third go in order, a third in the middle of a call, a third before it."""
    head = frames.frame(
        frames.HEADERS, frames.END_HEADERS, 1, frames.request_block(METHODS["One"].path)
    ) + frames.frame(frames.DATA, frames.END_STREAM, 1, frames.message(b""))
    async with serving() as server:

        async def once(number: int) -> None:
            stream = server.connect()
            said = frames.opening() + frames.frame(frames.SETTINGS, frames.ACK, 0) + head
            await stream.send_all(said[: len(said) - (0, 8, 70)[number % 3]])
            if number % 3 == 0:
                await answered(stream)
            await stream.aclose()

        await many(times(300, 20_000), once)
        before = State(*KINDS)
        await many(times(1000, 100_000), once)
        after = State(*KINDS)

        print(f"\nconnections: {after.grown(before)}")
        assert server.counters.connections == 0
        after.assert_nothing_left(before, MEMORY_MAX)
