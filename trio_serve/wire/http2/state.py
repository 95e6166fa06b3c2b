"""The state of one connection, around which receiving, sending and control are written.

Source: RFC 9113.
Knows what there is, and none of the rules for when it changes, but for two that every part needs:
how bytes are queued and how a stream leaves the table.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol

from .errors import ConnectionEnded, StreamEnded
from .field_sections import FieldBlock, Section, SectionReader
from .floods import FloodWatch
from .frames import STREAM_ID_MAX, window_update_frame
from .hpack_decoder import Decoder
from .hpack_encoder import Encoder
from .limits import Limits
from .settings import PeerSettings
from .states import AFTER_RECEIVED_END, CLOSED
from .streams import ClosedStreams, Stream, StreamReceiver
from .windows import WINDOW_DEFAULT, ReceiveWindow, Window


class Role(Enum):
    CLIENT = "client"
    SERVER = "server"


class ConnectionReceiver(Protocol):
    """What a connection reports to.  Calls are synchronous; they must neither raise nor wait.

    They may call every method of the connection but ``receive_data`` and ``receive_eof``.
    """

    def request_received(self, stream: Stream, block: FieldBlock, end_stream: bool) -> StreamReceiver:
        """Server: a stream was opened.  What is returned is told the rest of it."""

    def settings_received(self) -> None:
        """The peer's SETTINGS are in force: more or fewer streams may be open now."""

    def settings_acknowledged(self) -> None:
        """The peer has applied ours."""

    def ping_received(self) -> None:
        """The peer asks for life; the answer is already queued."""

    def ping_acknowledged(self, payload: bytes) -> None:
        """A PING of ours, or one never sent, came back."""

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """The peer takes no further streams; those above ``last_stream_id`` have had their ``reset``."""

    def stream_closed(self, stream: Stream) -> None:
        """``stream`` left the table, for whatever reason."""

    def connection_ended(self, error: ConnectionEnded) -> None:
        """Nothing comes any more; every stream has had its ``reset``.  Once."""


class InputPhase(Enum):
    """What the peer's bytes have to be."""

    PREFACE = "the client's preface"
    FIRST_SETTINGS = "the first frame, which is SETTINGS"
    FRAMES = "frames"


class Goaway(NamedTuple):
    """The peer takes no stream above ``last_stream_id``, for the reason ``code``."""

    last_stream_id: int
    code: int


class PartialBlock:
    """A field block whose END_HEADERS has not come yet."""

    __slots__ = ("continuations", "end_stream", "fragments", "self_dependent", "size", "stream_id")

    def __init__(self, stream_id: int, fragment: bytes, end_stream: bool, self_dependent: bool) -> None:
        self.stream_id = stream_id
        self.fragments = [fragment]
        self.size = len(fragment)
        self.continuations = 0
        self.end_stream = end_stream
        self.self_dependent = self_dependent


class ConnectionState:
    """Everything that one connection remembers."""

    __slots__ = (
        "accept_up_to",
        "closed",
        "closed_streams",
        "data_frames_sent",
        "decoder",
        "encoder",
        "floods",
        "goaway_from_peer",
        "held",
        "held_bytes",
        "held_until",
        "highest_id",
        "input_phase",
        "is_server",
        "late_resets",
        "limits",
        "now",
        "opening",
        "partial",
        "peer",
        "pieces",
        "receive_window",
        "receiver",
        "role",
        "send_window",
        "settings_unacknowledged",
        "streams",
        "streams_opened",
        "trailing",
        "unsent",
        "waiting",
    )

    def __init__(self, role: Role, receiver: ConnectionReceiver, limits: Limits | None = None) -> None:
        limits = Limits() if limits is None else limits
        self.role = role
        self.is_server = role is Role.SERVER  # asked for every request, and an enum's member is slow to fetch
        self.receiver = receiver
        self.limits = limits
        self.closed: ConnectionEnded | None = None

        # streams
        self.streams: dict[int, Stream] = {}
        self.closed_streams = ClosedStreams(limits.resets_remembered)
        self.highest_id = 0  # of the streams that the client opened, whichever side we are
        self.streams_opened = 0
        self.accept_up_to = STREAM_ID_MAX  # our GOAWAY's last stream id
        self.goaway_from_peer: Goaway | None = None

        # what the peer has declared, and what we have
        self.peer = PeerSettings()
        self.settings_unacknowledged = 0
        self.send_window = Window()
        self.receive_window = ReceiveWindow(WINDOW_DEFAULT)

        # input
        self.now = 0.0
        self.input_phase = InputPhase.PREFACE if self.is_server else InputPhase.FIRST_SETTINGS
        self.held: list[bytes] = []  # an unfinished frame's pieces,
        self.held_bytes = 0  # their length,
        self.held_until = 0  # and the length at which it is worth looking at them again
        self.partial: PartialBlock | None = None
        self.decoder = Decoder()
        first = Section.REQUEST if self.is_server else Section.RESPONSE
        self.opening = SectionReader(first, self.decoder, limits)
        self.trailing = SectionReader(Section.TRAILERS, self.decoder, limits)
        self.floods = FloodWatch(limits)

        # output
        self.encoder = Encoder(limits.encoder_table_bytes)
        self.pieces: list[bytes | memoryview] = []
        self.unsent = 0  # octets in pieces
        self.waiting: dict[int, Stream] = {}  # streams whose queue waits for a window
        self.late_resets: dict[int, float] = {}  # released streams that the client has not ended, since when
        self.data_frames_sent = 0

    def queue(self, piece: bytes | memoryview) -> None:
        """Append ``piece`` to what ``data_to_send`` will return."""
        self.pieces.append(piece)
        self.unsent += len(piece)

    @property
    def frames_wait(self) -> bool:
        """Whether ``receive_data`` stopped at its ``frames_max``, with whole frames left to handle."""
        return self.held_bytes >= self.held_until and bool(self.held)

    def is_idle(self, stream_id: int) -> bool:
        """Whether ``stream_id`` was never used.  The even ones never are: nobody pushes.

        One above our GOAWAY's last id may have been, and was ignored.
        """
        return not stream_id & 1 or self.highest_id < stream_id <= self.accept_up_to

    def give_back(self, size: int) -> None:
        """The connection's window gets ``size`` consumed octets back."""
        increment = self.receive_window.give_back(size)
        if increment:
            self.queue(window_update_frame(0, increment))

    def receive_room(self, stream: Stream) -> int:
        """How many octets more the peer may send on ``stream``."""
        window = stream.receive_window
        if window is not None:
            return window.available
        # Nothing was announced yet, so all that its window has lost is what was received.
        return self.limits.stream_window_bytes - stream.received

    def note_our_reset(self, stream_id: int) -> None:
        """We are about to reset ``stream_id``: what comes there from now on may have been under way."""
        stream = self.streams.get(stream_id)
        under_way = self.limits.stream_window_bytes
        if stream is not None:
            receives = stream.state in AFTER_RECEIVED_END
            under_way = max(0, self.receive_room(stream)) if receives else 0
        self.closed_streams.note_reset(stream_id, by_us=True, under_way=under_way)

    def drop(self, stream: Stream, ended: StreamEnded | None = None) -> None:
        """Take ``stream`` out of the table and tell so; its receiver hears of ``ended``, if anything.

        What it had received and nobody consumed goes back to the connection's window, or each early
        end would narrow the connection for good.
        """
        stream.state = CLOSED
        del self.streams[stream.id]
        if stream.queue is not None:
            self.waiting.pop(stream.id, None)
            stream.queue = None
            stream.unsent = 0
        size = stream.received - stream.consumed
        if size:
            stream.consumed = stream.received
            self.give_back(size)
        if ended is not None:
            stream.receiver.reset(ended)
        self.receiver.stream_closed(stream)

    def end(self, error: ConnectionEnded) -> None:
        """Nothing is received or opened any more: every stream and then the receiver is told ``error``."""
        self.closed = error
        self.held.clear()
        self.late_resets.clear()
        self.partial = None
        for stream in list(self.streams.values()):
            if stream.id in self.streams:  # a receiver that was just told may have reset another one
                text = f"the connection ended: {error.text}"
                self.drop(stream, StreamEnded(error.code, by_peer=error.by_peer, text=text))
        self.receiver.connection_ended(error)
