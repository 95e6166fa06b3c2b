"""What an open stream holds while its handler waits; opened by bare frames: no objects of a client count."""

import dataclasses
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.grpc.echo import CHAT, MANY, Echo, Note, serving
from trio_serve.grpc.server import SERVER_OPTIONS
from trio_serve.transport.memory import MemoryByteStream
from trio_serve.wire.grpc import frame_message, request_prefix
from trio_serve.wire.http2.frames import (
    DATA,
    END_STREAM,
    FRAME_BYTES_DEFAULT,
    PREFACE,
    headers_frames,
    pack_frame_header,
    settings_frame,
)
from trio_serve.wire.http2.hpack_encoder import Encoder

FIRST_STREAMS = 100  # they also pay for what is made once
STREAMS = 1100  # which nearly fill the tables that they make Trio and us double
MESSAGE = frame_message(Note(text="hello").SerializeToString())


class Waiting(Echo):
    async def Many(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Has nothing to say for a long time."""
        del request
        await trio.sleep_forever()
        yield Note()


class Frames:
    """A client that opens streams, and drops what it is sent."""

    def __init__(self, byte_stream: MemoryByteStream) -> None:
        self._byte_stream = byte_stream
        self._encoder = Encoder()
        self._opened = 0

    async def run(self) -> None:
        await self._byte_stream.send_all(PREFACE + settings_frame([]))
        while await self._byte_stream.receive_some(65_536):
            pass

    async def open_streams(self, path: str, count: int, data: bytes = b"", end: bool = False) -> None:
        fields = request_prefix(path, "localhost")
        for _ in range(count):
            stream_id = 2 * self._opened + 1
            self._opened += 1
            block = self._encoder.encode(fields)
            octets = headers_frames(stream_id, block, False, FRAME_BYTES_DEFAULT)
            if data:
                octets += pack_frame_header(len(data) << 8 | DATA, END_STREAM if end else 0, stream_id) + data
            await self._byte_stream.send_all(octets)
        await wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("path", "data", "end", "bytes_max"),
    [
        pytest.param(CHAT, b"", False, 4096, id="waits for the client's first message"),
        pytest.param(MANY, MESSAGE, True, 4096, id="waits before its own first message"),
        pytest.param(
            CHAT, MESSAGE, False, 4608, id="waits after a message each way, with windows of its own"
        ),
    ],
)
async def test_an_idle_stream_is_small(path: str, data: bytes, end: bool, bytes_max: int) -> None:
    """Each has a running handler, an async generator."""
    limits = dataclasses.replace(SERVER_OPTIONS.limits, streams_max=STREAMS + FIRST_STREAMS)
    server = serving(Waiting(), max_running=2 * STREAMS, options=attrs.evolve(SERVER_OPTIONS, limits=limits))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners)
        client = Frames(server.connect())
        nursery.start_soon(client.run)
        await wait_all_tasks_blocked()
        await client.open_streams(path, FIRST_STREAMS, data, end)

        tracemalloc.start()
        try:
            await client.open_streams(path, STREAMS, data, end)
            each = tracemalloc.get_traced_memory()[0] / STREAMS
        finally:
            tracemalloc.stop()
        running = server.method_counters[path].started
        nursery.cancel_scope.cancel()

    assert running == STREAMS + FIRST_STREAMS
    assert 1000 < each < bytes_max
