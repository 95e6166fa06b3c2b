"""Properties: no cut of the bytes matters, no bytes raise, and our two roles understand each other."""

from __future__ import annotations

import itertools
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_serve.wire.http2 import Connection, ErrorCode, Fields, Limits, Role, Stream
from trio_serve.wire.http2.recording import (
    DataReceived,
    Ended,
    Event,
    HeadersReceived,
    RecordingReceiver,
    RequestReceived,
    StreamReset,
)

from . import peer
from .peer import EH, ES, PREFACE, SETTINGS_ACK, block, data, frame, get, headers, literal, post_open, rst
from .test_conformance import CASES

STREAM_IDS = st.sampled_from([0, 1, 3, 5, 7, 2, 9])
FLAGS = st.sampled_from([0, ES, EH, ES | EH, 0x8, 0x20, 0x2D, 0xFF])
BLOCKS = st.sampled_from(
    [
        block(*peer.GET_FIELDS),
        block(*peer.POST_FIELDS, (b"content-length", b"4")),
        b"\x82\x86\x84" + literal(b"x", b"y", 0x40),
        b"\x82\x86\x84\xbe",
        block((b"x", b"trailer")),
        b"\x3f\xe1\x1f\x82\x86\x84",
        b"\x40",
        b"",
    ]
)
PAYLOADS = st.one_of(
    BLOCKS,
    st.binary(max_size=12),
    st.sampled_from(
        [bytes(4), bytes(5), bytes(6), bytes(8), b"\x00\x04\x00\x00\x00\x01", b"\x7f\xff\xff\xff"]
    ),
)
LIKELY = st.sampled_from(
    [
        get(1),
        get(3),
        post_open(1),
        post_open(3),
        data(1, b"test"),
        data(1, b"test", ES),
        data(3, b"", ES),
        rst(1),
        peer.window_update(0, 5),
        peer.window_update(1, 5),
        peer.ping(),
        peer.settings((4, 1)),
        headers(1, block((b"x", b"t")), ES | EH),
        headers(5, block(*peer.GET_FIELDS), 0),
        peer.continuation(5, b"", EH),
    ]
)
FRAMES = st.one_of(LIKELY, st.builds(frame, st.integers(0, 11), FLAGS, STREAM_IDS, PAYLOADS))
CONVERSATIONS = st.lists(FRAMES, max_size=12).map(b"".join)


def outcome(pieces: list[bytes], frames_max: int = sys.maxsize) -> tuple[list[Event], bytes]:
    receiver = RecordingReceiver()
    connection = Connection(Role.SERVER, receiver)
    connection.start()
    connection.data_to_send()
    for piece in pieces:
        connection.receive_data(piece, frames_max=frames_max)
        while connection.frames_wait:
            connection.receive_data(b"", frames_max=frames_max)
    return receiver.events, connection.data_to_send()


@given(CONVERSATIONS, st.lists(st.integers(0, 400), max_size=20))
def test_any_cut_of_the_bytes_gives_the_same_reports_and_answers(octets: bytes, cuts: list[int]) -> None:
    octets = PREFACE + peer.settings() + SETTINGS_ACK + octets
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    pieces = [octets[start:stop] for start, stop in itertools.pairwise(edges)]

    assert outcome(pieces) == outcome([octets])


@given(CONVERSATIONS, st.integers(1, 5), st.integers(0, 400))
def test_so_many_frames_at_a_time_give_the_same_reports_and_answers(
    octets: bytes, frames_max: int, cut: int
) -> None:
    octets = PREFACE + peer.settings() + SETTINGS_ACK + octets

    assert outcome([octets[:cut], octets[cut:]], frames_max) == outcome([octets])


@given(st.sampled_from(CASES), st.lists(st.integers(0, 400), max_size=8))
def test_any_cut_of_a_conformance_case_gives_the_same(case: object, cuts: list[int]) -> None:
    octets = PREFACE + peer.settings() + b"".join(step for step in case.steps if isinstance(step, bytes))  # type: ignore[attr-defined]
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]

    assert outcome([octets[a:b] for a, b in itertools.pairwise(edges)]) == outcome([octets])


@given(st.sampled_from(list(Role)), st.binary(max_size=300), st.booleans())
def test_no_bytes_raise(role: Role, octets: bytes, opened: bool) -> None:
    connection = Connection(role, RecordingReceiver())
    connection.start()
    if opened:
        connection.receive_data((PREFACE if role is Role.SERVER else b"") + peer.settings())
    connection.receive_data(octets)
    connection.receive_eof()

    assert connection.closed is not None


@given(CONVERSATIONS)
def test_what_is_told_of_a_stream_is_in_order(octets: bytes) -> None:
    """A request first, then its DATA and trailers, one end at most; the end of all comes last."""
    events, _ = outcome([PREFACE + peer.settings() + octets])
    ended: set[int] = set()
    opened: set[int] = set()
    for place, event in enumerate(events):
        if isinstance(event, Ended):
            assert place == len(events) - 1
        if isinstance(event, RequestReceived):
            assert event.stream_id not in opened
            opened.add(event.stream_id)
        if isinstance(event, RequestReceived | DataReceived | HeadersReceived | StreamReset):
            assert event.stream_id in opened
            assert event.stream_id not in ended or isinstance(event, StreamReset)
            if isinstance(event, StreamReset) or event.end_stream:
                ended.add(event.stream_id)


REQUEST: Fields = peer.POST_FIELDS
RESPONSE: Fields = ((b":status", b"200"), (b"content-type", b"application/grpc"))
CONTENT = st.integers(0, 40_000).map(lambda size: bytes(size))
METADATA = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"x-id", b"grpc-timeout"]), st.sampled_from([b"", b"1", b"22", b"3" * 200])
    ),
    max_size=3,
).map(tuple)


class BackToBack(RuleBasedStateMachine):
    """Our client against our server: whatever is sent arrives, whole, in order and once."""

    @initialize(
        stream_window=st.sampled_from([1, 100, 65_535]),
        table=st.sampled_from([0, 64, 4096]),
        streams_max=st.sampled_from([1, 3, 100]),
    )
    def start(self, stream_window: int, table: int, streams_max: int) -> None:
        limits = Limits(
            stream_window_bytes=stream_window,
            stream_window_bytes_max=70_000,
            header_table_bytes=table,
            streams_max=streams_max,
            window_updates_spare=1 << 30,
            connection_window_bytes=65_535,
        )
        self.reports = RecordingReceiver(), RecordingReceiver()
        self.client = Connection(Role.CLIENT, self.reports[0], limits)
        self.server = Connection(Role.SERVER, self.reports[1], limits)
        self.sent: dict[tuple[str, int], list[object]] = {}
        self.ended: set[tuple[str, int]] = set()
        self.reset: set[int] = set()
        self.client.start()
        self.server.start()
        self.exchange()

    def exchange(self) -> None:
        """Let the bytes flow until neither side has more, consuming all that arrives."""
        while self.client.unsent or self.server.unsent:
            for source, sink, reports in (
                (self.client, self.server, self.reports[1]),
                (self.server, self.client, self.reports[0]),
            ):
                octets = source.data_to_send()
                for start in range(0, len(octets), 5000):
                    sink.receive_data(octets[start : start + 5000])
                for stream in list(sink.streams.values()):
                    sink.acknowledge(stream, stream.unacknowledged)
                assert sink.closed is None, sink.closed
                assert reports is not None

    @precondition(lambda self: len(self.client.streams) < min(self.client.peer.streams_max, 4))
    @rule(metadata=METADATA, end_stream=st.booleans())
    def open(self, metadata: Fields, end_stream: bool) -> None:
        fields = (*REQUEST, *metadata)
        stream = self.reports[0].open(self.client, fields, end_stream)
        self.sent["client", stream.id] = [fields]
        self.sent["server", stream.id] = []
        if end_stream:
            self.ended.add(("client", stream.id))

    def live(self, role: str) -> list[Stream]:
        side = self.client if role == "client" else self.server
        return [stream for number, stream in side.streams.items() if (role, number) not in self.ended]

    @rule(
        role=st.sampled_from(["client", "server"]),
        choice=st.integers(0, 3),
        content=CONTENT,
        end=st.booleans(),
    )
    def send(self, role: str, choice: int, content: bytes, end: bool) -> None:
        for stream in self.live(role)[choice : choice + 1]:
            side = self.client if role == "client" else self.server
            written = self.sent[role, stream.id]
            if role == "server" and not written:
                side.send_headers(stream, RESPONSE)
                written.append(RESPONSE)
            written.append(content)
            if end:
                self.ended.add((role, stream.id))
            side.send_data(stream, content, end)

    @rule(choice=st.integers(0, 3), content=CONTENT, trailers=METADATA)
    def reply(self, choice: int, content: bytes, trailers: Fields) -> None:
        for stream in self.live("server")[choice : choice + 1]:
            written = self.sent["server", stream.id]
            trailers = ((b"grpc-status", b"0"), *trailers)
            if written:
                self.server.send_headers(stream, trailers, end_stream=True)
                written.append(trailers)
            else:
                written += [RESPONSE, content, trailers]
                self.server.send_reply(stream, RESPONSE, content, trailers)
            self.ended.add(("server", stream.id))

    @rule(role=st.sampled_from(["client", "server"]), choice=st.integers(0, 3))
    def cancel(self, role: str, choice: int) -> None:
        side = self.client if role == "client" else self.server
        for stream in list(side.streams.values())[choice : choice + 1]:
            side.reset_stream(stream, ErrorCode.CANCEL)
            self.reset.add(stream.id)
            self.ended |= {("client", stream.id), ("server", stream.id)}

    @rule()
    def flow(self) -> None:
        self.exchange()
        for role, reports in (("server", self.reports[0]), ("client", self.reports[1])):
            arrived: dict[int, list[object]] = {}
            for event in reports.events:
                if isinstance(event, RequestReceived | HeadersReceived):
                    arrived.setdefault(event.stream_id, []).append(event.fields)
                elif isinstance(event, DataReceived):
                    arrived.setdefault(event.stream_id, []).append(event.data)
            for (sender, stream_id), written in self.sent.items():
                if sender == role and stream_id not in self.reset:
                    assert joined(arrived.get(stream_id, [])) == joined(written)

    @invariant()
    def windows_add_up(self) -> None:
        """What one side may send is never more than the other side will take."""
        if not hasattr(self, "client"):
            return
        for sender, taker in ((self.client, self.server), (self.server, self.client)):
            assert sender.send_window.available <= taker.receive_window.available
            assert sender.closed is None
            assert sender.unsent >= 0


def joined(parts: list[object]) -> list[object]:
    """DATA frames in a row are one run of bytes, however it was cut."""
    whole: list[object] = []
    for part in parts:
        if isinstance(part, bytes):
            if whole and isinstance(whole[-1], bytes):
                whole[-1] += part
            elif part:
                whole.append(part)
        else:
            whole.append(part)
    return whole


BackToBack.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBackToBack = BackToBack.TestCase
