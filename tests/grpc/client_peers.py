"""The other sides of the client's tests: a server that a test scripts frame by frame, and generated stubs.

channel --- memory_pair --- Peer: the wire engine in its server role, no gRPC server at all
                              | each request goes to ``answer(request)``
"""

import contextlib
import functools
import importlib
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import trio

from trio_serve.transport.byte_stream import GONE, ByteStream
from trio_serve.transport.dialing import ClientTls
from trio_serve.transport.memory import MemoryByteStream, memory_pair
from trio_serve.wire.grpc import (
    RESPONSE_HEADERS,
    Metadata,
    Status,
    frame_message,
    response_headers,
    trailers,
    trailers_only,
)
from trio_serve.wire.http2 import (
    Connection,
    ConnectionEnded,
    ErrorCode,
    FieldBlock,
    Limits,
    Role,
    Stream,
    StreamEnded,
)

PROTO = Path(__file__).parents[2] / "protos" / "helloworld.proto"


class Request:
    """One stream at a scripted server."""

    def __init__(self, peer: "Peer", stream: Stream, block: FieldBlock) -> None:
        self.peer = peer
        self.stream = stream
        self.fields = dict(block.fields)
        self.data = b""
        self.ended = False
        self.reset_code: int | None = None
        self.at = trio.current_time()

    @property
    def messages(self) -> list[bytes]:
        found, data = [], self.data
        while data:
            size = int.from_bytes(data[1:5], "big")
            found.append(data[5 : 5 + size])
            data = data[5 + size :]
        return found

    def headers(self, encoding: str = "identity", metadata: Metadata = ()) -> None:
        self.peer.wire.send_headers(self.stream, response_headers(encoding, metadata))
        self.peer.flush()

    def message(self, payload: bytes, compressed: bool = False) -> None:
        self.raw(frame_message(payload, compressed))

    def raw(self, data: bytes, end_stream: bool = False) -> None:
        self.peer.wire.send_data(self.stream, data, end_stream)
        self.peer.flush()

    def end(self, status: Status = Status.OK, text: str = "", metadata: Metadata = ()) -> None:
        self.peer.wire.send_headers(self.stream, trailers(status, text, metadata), end_stream=True)
        self.peer.flush()

    def fields_only(self, *fields: tuple[bytes, bytes], end_stream: bool = True) -> None:
        self.peer.wire.send_headers(self.stream, fields, end_stream=end_stream)
        self.peer.flush()

    def reply(self, payload: bytes = b"", metadata: Metadata = ()) -> None:
        """A whole unary answer."""
        self.peer.wire.send_reply(
            self.stream, RESPONSE_HEADERS, frame_message(payload), trailers(metadata=metadata)
        )
        self.peer.flush()

    def fail(self, status: Status, text: str = "", metadata: Metadata = ()) -> None:
        """Trailers only."""
        self.fields_only(*trailers_only(status, text, metadata))

    def reset(self, code: ErrorCode) -> None:
        self.peer.wire.reset_stream(self.stream, code)
        self.peer.flush()

    # What the engine reports, through `Receiver`.

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None:
        raise AssertionError("a client sends no trailers")

    def data_received(self, data: bytes, end_stream: bool) -> None:
        self.data += data
        self.ended = end_stream
        if self.peer.server.acknowledges:
            self.peer.wire.acknowledge(self.stream, len(data))
        self.peer.server.data_came(self)

    def writable(self) -> None:
        pass


class Receiver:
    """The engine's view of a `Request`, whose own ``reset`` is what the test does."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.headers_received = request.headers_received
        self.data_received = request.data_received
        self.writable = request.writable

    def reset(self, error: StreamEnded) -> None:
        self.request.reset_code = error.code


class Peer:
    """One connection of a scripted server (a ConnectionReceiver)."""

    def __init__(self, server: "ScriptedServer", byte_stream: MemoryByteStream) -> None:
        self.server = server
        self.byte_stream = byte_stream
        self.wire = Connection(Role.SERVER, self, server.limits)
        self.closed = False
        self.goaways: list[int] = []
        self.pings = 0

    async def run(self) -> None:
        if self.server.silent:
            await trio.sleep_forever()
        self.wire.start()
        if self.server.last_words:
            self.send(self.wire.data_to_send() + self.server.last_words.pop())
        self.flush()
        with contextlib.suppress(*GONE):
            while data := await self.byte_stream.receive_some(65536):
                await self.server.reads.wait()
                self.wire.receive_data(data, trio.current_time())
                self.flush()
        self.closed = True
        await self.byte_stream.aclose()

    def flush(self) -> None:
        data = self.wire.data_to_send()
        if data and not self.byte_stream.closed:
            with contextlib.suppress(*GONE):
                assert self.byte_stream.send_nowait(data) == len(data), (
                    "the test sends more than a pipe holds"
                )

    def send(self, data: bytes) -> None:
        """Any bytes at all."""
        assert self.byte_stream.send_nowait(data) == len(data)

    def goaway(self, last_stream_id: int | None = None, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        self.wire.send_goaway(code, last_stream_id)
        self.flush()

    async def close(self) -> None:
        await self.byte_stream.aclose()

    # ConnectionReceiver

    def request_received(self, stream: Stream, block: FieldBlock, end_stream: bool) -> Receiver:
        request = Request(self, stream, block)
        request.ended = end_stream
        receiver = Receiver(request)
        stream.receiver = receiver
        self.server.requests.append(request)
        self.server.answer_if_due(request)
        return receiver

    def settings_received(self) -> None:
        pass

    def settings_acknowledged(self) -> None:
        pass

    def ping_received(self) -> None:
        self.pings += 1

    def ping_acknowledged(self, payload: bytes) -> None:
        pass

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.goaways.append(code)

    def stream_closed(self, stream: Stream) -> None:
        pass

    def connection_ended(self, error: ConnectionEnded) -> None:
        pass


class ScriptedServer:
    """An address whose connections the test answers; ``answer`` is called once a request has ended.

    With ``early`` it is called at the request's header fields.  ``refuses`` makes that many first
    connections fail; ``silent`` accepts them and says nothing.
    """

    family = 0

    def __init__(
        self,
        nursery: trio.Nursery,
        answer: Callable[[Request], None] = lambda request: request.reply(b"ok"),
        *,
        early: bool = False,
        limits: Limits | None = None,
        refuses: int = 0,
        silent: bool = False,
        acknowledges: bool = True,
        name: str = "scripted",
    ) -> None:
        self.answer = answer
        self.early = early
        self.limits = limits or Limits()
        self.refuses = refuses
        self.silent = silent
        self.acknowledges = acknowledges
        self.name = name
        self.reads = trio.Event()  # a test may put one there that is not set, and the server stops reading
        self.reads.set()
        self.last_words: list[bytes] = []  # sent in one piece with the first SETTINGS, once each
        self.peers: list[Peer] = []
        self.requests: list[Request] = []
        self.dialed_at: list[float] = []
        self._nursery = nursery

    def __str__(self) -> str:
        return self.name

    async def connect(self, tls: ClientTls | None) -> ByteStream:
        self.dialed_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.refuses:
            self.refuses -= 1
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = memory_pair(peer=f"memory:{self.name}")
        peer = Peer(self, theirs)
        self.peers.append(peer)
        self._nursery.start_soon(peer.run)
        return ours

    def answer_if_due(self, request: Request) -> None:
        if self.early or request.ended:
            self.answer(request)

    def data_came(self, request: Request) -> None:
        if request.ended and not self.early:
            self.answer(request)


@functools.cache
def generated() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The modules of messages, of grpcio stubs and of grpclib stubs, fresh from their plugins."""
    plugin = Path(sysconfig.get_path("scripts")) / "protoc-gen-grpclib_python"
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "grpc_python", "grpclib_python")]
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}"),
                *(f"--plugin=protoc-gen-grpclib_python={plugin}", *outputs, str(PROTO)),
            ],
            check=True,
        )
        sys.path.insert(0, folder)
        try:
            names = ("helloworld_pb2", "helloworld_pb2_grpc", "helloworld_grpc")
            modules = [importlib.import_module(name) for name in names]
        finally:
            sys.path.remove(folder)
    return modules[0], modules[1], modules[2]


def pb2() -> Any:
    return generated()[0]


def grpcio_stubs() -> Any:
    return generated()[1]


def grpclib_stubs() -> Any:
    return generated()[2]
