"""What a connection reports, as a list of events: the form that tests and tracing read.

    events = [SettingsReceived(), RequestReceived(1, ...), DataReceived(1, b"...", True), ...]

Knows nothing of what anybody does with them.
"""

from __future__ import annotations

from typing import NamedTuple

from .connection import Connection
from .errors import ConnectionEnded, StreamEnded
from .field_sections import FieldBlock
from .header_tables import Fields
from .streams import Stream


class RequestReceived(NamedTuple):
    stream_id: int
    fields: Fields
    end_stream: bool


class HeadersReceived(NamedTuple):
    stream_id: int
    fields: Fields
    end_stream: bool


class DataReceived(NamedTuple):
    stream_id: int
    data: bytes
    end_stream: bool


class Writable(NamedTuple):
    stream_id: int


class StreamReset(NamedTuple):
    stream_id: int
    code: int
    by_peer: bool
    processed: bool


class StreamClosed(NamedTuple):
    stream_id: int


class SettingsReceived(NamedTuple):
    pass


class SettingsAcknowledged(NamedTuple):
    pass


class PingReceived(NamedTuple):
    pass


class PingAcknowledged(NamedTuple):
    payload: bytes


class GoawayReceived(NamedTuple):
    last_stream_id: int
    code: int
    debug: bytes


class Ended(NamedTuple):
    code: int
    by_peer: bool


Event = (
    RequestReceived
    | HeadersReceived
    | DataReceived
    | Writable
    | StreamReset
    | StreamClosed
    | SettingsReceived
    | SettingsAcknowledged
    | PingReceived
    | PingAcknowledged
    | GoawayReceived
    | Ended
)


class RecordingReceiver:
    """A ConnectionReceiver of either role that writes everything down."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.streams: dict[int, Stream] = {}  # every stream there ever was

    def open(self, connection: Connection, fields: Fields, end_stream: bool = False) -> Stream:
        """``open_stream`` with a receiver that records here."""
        receiver = StreamRecorder(self.events)
        stream = connection.open_stream(fields, receiver, end_stream)
        receiver.stream_id = stream.id
        self.streams[stream.id] = stream
        return stream

    def take(self) -> list[Event]:
        """The events since the last time."""
        events = self.events[:]
        self.events.clear()
        return events

    def request_received(self, stream: Stream, block: FieldBlock, end_stream: bool) -> StreamRecorder:
        self.events.append(RequestReceived(stream.id, block.fields, end_stream))
        self.streams[stream.id] = stream
        receiver = StreamRecorder(self.events)
        receiver.stream_id = stream.id
        return receiver

    def settings_received(self) -> None:
        self.events.append(SettingsReceived())

    def settings_acknowledged(self) -> None:
        self.events.append(SettingsAcknowledged())

    def ping_received(self) -> None:
        self.events.append(PingReceived())

    def ping_acknowledged(self, payload: bytes) -> None:
        self.events.append(PingAcknowledged(payload))

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.events.append(GoawayReceived(last_stream_id, code, debug))

    def stream_closed(self, stream: Stream) -> None:
        self.events.append(StreamClosed(stream.id))

    def connection_ended(self, error: ConnectionEnded) -> None:
        self.events.append(Ended(error.code, error.by_peer))


class StreamRecorder:
    """A StreamReceiver that writes into its connection's list."""

    def __init__(self, events: list[Event]) -> None:
        self.stream_id = 0
        self._events = events

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None:
        self._events.append(HeadersReceived(self.stream_id, block.fields, end_stream))

    def data_received(self, data: bytes, end_stream: bool) -> None:
        self._events.append(DataReceived(self.stream_id, data, end_stream))

    def writable(self) -> None:
        self._events.append(Writable(self.stream_id))

    def reset(self, error: StreamEnded) -> None:
        self._events.append(StreamReset(self.stream_id, error.code, error.by_peer, error.processed))
