"""One hostile connection: raw frames out, as fast as the server takes them, and a look at what comes back.

Writes frames with `benchmarks.load.frames` and reads field blocks with the hpack library, so that nothing
of the server's own code is trusted.
"""

import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import attrs
from hpack import Decoder

from benchmarks.load import frames
from tests.patience import PATIENCE_S

CONTINUATION, PRIORITY = 9, 2
REFUSED_STREAM, ENHANCE_YOUR_CALM = 7, 11
RESOURCE_EXHAUSTED = 8


@attrs.define
class Answer:
    """How the server ended a call."""

    status: int | None = None
    message: bytes = b""
    reset: int | None = None

    @property
    def exhausted(self) -> bool:
        """RESOURCE_EXHAUSTED, said as a status or as the reset that a gRPC client reads as that status.

        Source: gRPC over HTTP2, "Errors".
        """
        return self.status == RESOURCE_EXHAUSTED or self.reset == ENHANCE_YOUR_CALM


@attrs.define
class Seen:
    """What came back on a connection so far."""

    goaway: int | None = None
    goaway_text: bytes = b""
    last_stream_id: int | None = None
    closed: bool = False
    pongs: int = 0
    data_octets: int = 0
    resets: dict[int, int] = attrs.field(factory=dict)
    statuses: dict[int, int] = attrs.field(factory=dict)
    messages: dict[int, bytes] = attrs.field(factory=dict)
    ended: set[int] = attrs.field(factory=set)

    @property
    def over(self) -> bool:
        return self.closed or self.goaway is not None


class Attacker:
    """A connection that obeys flow control when it sends with `send_messages`, and nothing when it floods."""

    def __init__(self, port: int, window: int = 65_535) -> None:
        self.seen = Seen()
        self._decoder = Decoder()
        self._received = bytearray()
        self.stream_id = -1
        """The stream that was opened last."""
        self._stream_window = 65_535
        self._windows: dict[int, int] = {0: 65_535}
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(PATIENCE_S)
        settings = struct.pack(">HL", frames.INITIAL_WINDOW_SIZE, window)
        self._socket.sendall(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, settings))
        self.ping()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def next_stream(self) -> int:
        self.stream_id += 2
        return self.stream_id

    # Requests.

    def headers(self, method: str, *more: tuple[bytes, bytes], end_stream: bool = False) -> bytes:
        """A whole request head on a new stream, as one frame."""
        block = frames.request_block(f"/attacks.Victim/{method}", *more)
        flags = frames.END_HEADERS | (frames.END_STREAM if end_stream else 0)
        return frames.frame(frames.HEADERS, flags, self.next_stream(), block)

    def request(self, method: str, body: bytes = b"", *more: tuple[bytes, bytes]) -> bytes:
        """A whole unary call with one message, as octets."""
        head = self.headers(method, *more)
        return head + frames.frame(frames.DATA, frames.END_STREAM, self.stream_id, frames.message(body))

    def call(self, method: str, body: bytes = b"") -> Answer:
        """A well-behaved unary call; waits for its end."""
        self._socket.sendall(self.request(method, body))
        return self.answer()

    def answer(self, patience_s: float = PATIENCE_S) -> Answer:
        """Wait until the call that was begun last has ended."""
        stream_id = self.stream_id
        self.read_until(lambda: stream_id in self.seen.ended or self.seen.closed, patience_s)
        return Answer(
            self.seen.statuses.get(stream_id),
            self.seen.messages.get(stream_id, b"")[5:],
            self.seen.resets.get(stream_id),
        )

    def ping(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether the server still answers on this connection; all that it sent before has been read then."""
        before = self.seen.pongs
        try:
            self._socket.sendall(frames.frame(frames.PING, 0, 0, b"alive?!!"))
        except OSError:
            self.seen.closed = True
        self.read_until(lambda: self.seen.pongs > before or self.seen.closed, patience_s)
        return self.seen.pongs > before

    # Floods.

    def flood(self, octets: bytes, *, seconds: float = 20, reading: bool = True) -> int:
        """Send until the server closes, or takes nothing for a second, or all is sent.

        Returns how many octets it took.
        """
        view = memoryview(octets)
        sent = 0
        until = time.monotonic() + seconds
        self._socket.setblocking(False)
        with selectors.DefaultSelector() as selector:
            interest = selectors.EVENT_WRITE | (selectors.EVENT_READ if reading else 0)
            selector.register(self._socket, interest)
            while sent < len(view) and not self.seen.over and time.monotonic() < until:
                ready = selector.select(1.0)
                if not ready:
                    break
                events = ready[0][1]
                if events & selectors.EVENT_READ:
                    self._receive()
                if events & selectors.EVENT_WRITE:
                    try:
                        sent += self._socket.send(view[sent : sent + 262_144])
                    except BlockingIOError:
                        continue
                    except OSError:
                        self.seen.closed = True
        self._socket.settimeout(PATIENCE_S)
        return sent

    def send(self, octets: bytes) -> None:
        """Send all of it; raises OSError when the server has closed."""
        self._socket.sendall(octets)

    def send_body(self, body: bytes, patience_s: float = PATIENCE_S) -> bool:
        """Send a framed last message as windows allow; False when they stay shut, or the call ends."""
        stream_id = self.stream_id
        at, until = 0, time.monotonic() + patience_s
        self._windows.setdefault(stream_id, self._stream_window)
        while at < len(body):
            room = min(self._windows[0], self._windows[stream_id], 16_384, len(body) - at)
            if room <= 0:
                if self.seen.over or stream_id in self.seen.ended or time.monotonic() > until:
                    return False
                self.read_until(
                    lambda: (
                        self.seen.over
                        or stream_id in self.seen.ended
                        or min(self._windows[0], self._windows[stream_id]) > 0
                    ),
                    until - time.monotonic(),
                )
                continue
            flags = frames.END_STREAM if at + room == len(body) else 0
            self._socket.sendall(frames.frame(frames.DATA, flags, stream_id, body[at : at + room]))
            self._windows[0] -= room
            self._windows[stream_id] -= room
            at += room
        return True

    def send_bodies(self, streams: Iterable[int], body: bytes, patience_s: float = PATIENCE_S) -> int:
        """Send one framed message on each stream, all together and as windows allow.

        Returns how many octets left before every window stayed shut for ``patience_s``.
        """
        rest = {stream_id: memoryview(body) for stream_id in streams}
        for stream_id in rest:
            self._windows.setdefault(stream_id, self._stream_window)
        sent = 0
        while self._open(rest):
            for stream_id in self._open(rest):
                octets = rest[stream_id][: min(16_384, self._windows[0], self._windows[stream_id])]
                rest[stream_id] = rest[stream_id][len(octets) :]
                flags = 0 if rest[stream_id] else frames.END_STREAM
                self._socket.sendall(frames.frame(frames.DATA, flags, stream_id, bytes(octets)))
                self._windows[0] -= len(octets)
                self._windows[stream_id] -= len(octets)
                sent += len(octets)
            self.read_until(lambda: bool(self._open(rest)), patience_s)
        return sent

    def _open(self, rest: dict[int, memoryview]) -> list[int]:
        """The streams on which something of ``rest`` may be sent."""
        if self._windows[0] <= 0:
            return []
        return [stream_id for stream_id in rest if rest[stream_id] and self._windows[stream_id] > 0]

    # What comes back.

    def read_until(self, enough: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Read until ``enough()`` or the patience is over."""
        until = time.monotonic() + patience_s
        while not enough() and not self.seen.closed:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._socket.settimeout(left)
            try:
                self._receive()
            except TimeoutError:
                break
        self._socket.settimeout(PATIENCE_S)

    def wait_closed(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether the server closes the connection within the patience."""
        self.read_until(lambda: False, patience_s)
        return self.seen.closed

    def _receive(self) -> None:
        try:
            octets = self._socket.recv(262_144)
        except (BlockingIOError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                raise
            return
        except OSError:
            octets = b""
        if not octets:
            self.seen.closed = True
            return
        self._received += octets
        for kind, flags, stream_id, payload in frames.walk(self._received):
            self._frame(kind, flags, stream_id, payload)

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        seen = self.seen
        if kind == frames.SETTINGS and not flags & frames.ACK:
            self._settings(payload)
        elif kind == frames.PING and flags & frames.ACK:
            seen.pongs += 1
        elif kind == frames.GOAWAY:
            seen.last_stream_id, seen.goaway = struct.unpack_from(">LL", payload)
            seen.goaway_text = payload[8:]
        elif kind == frames.RST_STREAM:
            seen.resets[stream_id] = int.from_bytes(payload, "big")
            seen.ended.add(stream_id)
        elif kind == frames.WINDOW_UPDATE:
            before = self._windows.setdefault(stream_id, self._stream_window)
            self._windows[stream_id] = before + int.from_bytes(payload, "big")
        elif kind == frames.HEADERS:
            for name, value in self._decoder.decode(payload, raw=True):
                if name == b"grpc-status":
                    seen.statuses[stream_id] = int(value)
        elif kind == frames.DATA:
            seen.data_octets += len(payload)
            if len(payload) < 1024:
                seen.messages[stream_id] = seen.messages.get(stream_id, b"") + payload
        if flags & frames.END_STREAM and kind in (frames.HEADERS, frames.DATA):
            seen.ended.add(stream_id)

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            identifier, value = struct.unpack_from(">HL", payload, at)
            if identifier == frames.INITIAL_WINDOW_SIZE:
                self._stream_window = value
        try:
            self._socket.sendall(frames.frame(frames.SETTINGS, frames.ACK, 0))
        except OSError:
            self.seen.closed = True
