"""Receiving: bytes to frames, and the frames that carry messages.

    receive_data --> DATA ------> data_received
                 --> HEADERS ---> request_received, headers_received     (with CONTINUATION)
                 --> the rest --> control.py

DATA and plain HEADERS come first in the walk and go straight to the receivers: they are nearly all there is.
An error of a stream answers with RST_STREAM and goes on with the next frame; one of the connection ends it.

Source: RFC 9113 sections 3.4, 4, 5.1, 5.4, 6.1, 6.2, 6.10 and 8.1.
Knows nothing of settings, and of sending only RST_STREAM and GOAWAY.
"""

from __future__ import annotations

import sys
from itertools import repeat

from .control import CONTROL_FRAMES, require_idle_not
from .errors import ConnectionEnded, ConnectionFault, ErrorCode, StreamEnded, StreamFault
from .field_rules import Malformed
from .field_sections import FieldBlock, OverSize
from .frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITISED,
    SETTINGS,
    STREAM_ID_MAX,
    goaway_frame,
    rst_stream_frame,
    window_update_frame,
)
from .header_tables import HpackError
from .state import ConnectionState, InputPhase, PartialBlock
from .states import AFTER_RECEIVED_END, CLOSED, HALF_CLOSED_REMOTE
from .streams import Ending, Stream, StreamReceiver
from .windows import ReceiveWindow

_unpack_header = FRAME_HEADER.unpack_from
_FRAMES = InputPhase.FRAMES
_PREFACE = InputPhase.PREFACE
_DEBUG_BYTES_MAX = 256
_HELD_PIECES_MAX = 64
_WALKED_ALONE_BYTES = 1024
_NOT_PLAIN = END_HEADERS | PADDED | PRIORITISED


def receive_data(
    state: ConnectionState, data: bytes, now: float = 0.0, frames_max: int = sys.maxsize
) -> None:
    """Take bytes from the peer and report what they mean, all of it before returning.

    Never raises on what a peer sends.  ``now`` is in seconds; only the rates in the limits look at it.
    Once the connection has ended, bytes are dropped.  After ``frames_max`` frames the rest is kept, and
    ``frames_wait`` says so: call again, with no bytes or with what came since.
    """
    if state.closed is not None:
        return
    state.now = now
    try:
        used = 0
        if state.held:
            used = state.held_until - state.held_bytes
            if used > len(data):
                _hold(state, data)
                return
            if state.held_until < _WALKED_ALONE_BYTES or state.input_phase is not _FRAMES:
                data, used = _joined(state, data), 0
            elif not _goes_on_after(state, _joined(state, data[:used])):
                return
        if state.input_phase is not _FRAMES:
            used = _start(state, data)
        if state.input_phase is not _PREFACE:
            used = _walk(state, data, used, frames_max)
    except ConnectionFault as fault:
        fail(state, fault)
    else:
        if used < len(data) and state.closed is None:
            _hold(state, data[used:])


def _goes_on_after(state: ConnectionState, frame: bytes) -> bool:
    """Handle one large frame by itself: joined with all that follows it, each read would be copied whole."""
    _walk(state, frame, 0, 1)
    return state.closed is None


def _hold(state: ConnectionState, piece: bytes) -> None:
    """Keep a piece of an unfinished frame."""
    held = state.held
    held.append(piece)
    state.held_bytes += len(piece)
    if len(held) > _HELD_PIECES_MAX:  # crumbs cost more than the octets in them
        held[:] = [b"".join(held)]


def _joined(state: ConnectionState, last: bytes) -> bytes:
    """What was held, and ``last``; nothing is held any more."""
    state.held.append(last)
    data = b"".join(state.held)
    state.held.clear()
    state.held_bytes = 0
    return data


def receive_eof(state: ConnectionState) -> None:
    """The peer will send nothing more."""
    if state.closed is None:
        goaway = state.goaway_from_peer
        code = ErrorCode.NO_ERROR if goaway is None else goaway.code
        state.end(ConnectionEnded(code, by_peer=True, text="the peer closed the connection"))


def fail(state: ConnectionState, fault: ConnectionFault) -> None:
    """End the connection for a fault of the peer's: GOAWAY is queued, then everybody is told."""
    debug = fault.text.encode("ascii", "replace")[:_DEBUG_BYTES_MAX]
    state.queue(goaway_frame(state.highest_id if state.is_server else 0, fault.code, debug))
    state.end(ConnectionEnded(fault.code, by_peer=False, text=fault.text))


def _start(state: ConnectionState, data: bytes) -> int:
    """Check what a connection opens with (section 3.4); the octets used up."""
    used = 0
    if state.input_phase is _PREFACE:
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, "the connection does not open with HTTP/2's preface"
            )
        if len(data) < len(PREFACE):
            state.held_until = len(PREFACE)
            return 0
        state.input_phase = InputPhase.FIRST_SETTINGS
        used = len(PREFACE)
    if len(data) >= used + FRAME_HEADER_BYTES:
        word, flags, _ = _unpack_header(data, used)
        if word & 0xFF != SETTINGS or flags & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
    return used


def _walk(state: ConnectionState, data: bytes, position: int, frames_max: int) -> int:
    """Handle up to ``frames_max`` whole frames from ``position`` on; where the first unhandled one starts."""
    end = len(data)
    last = end - FRAME_HEADER_BYTES
    frame_bytes_max = state.limits.frame_bytes_max
    state.held_until = FRAME_HEADER_BYTES
    for _ in repeat(None, frames_max):
        if position > last:
            break
        word, flags, stream_id = _unpack_header(data, position)
        length = word >> 8
        start = position + FRAME_HEADER_BYTES
        stop = start + length
        if stop > end or length > frame_bytes_max:
            # Judged at the frame's header: what is too long is never gathered.
            if length > frame_bytes_max:
                raise ConnectionFault(
                    ErrorCode.FRAME_SIZE_ERROR,
                    f"frame of {length} octets is over frame_bytes_max={frame_bytes_max}",
                )
            state.held_until = stop - position
            return position
        kind = word & 0xFF
        position = stop
        if stream_id > STREAM_ID_MAX:
            stream_id &= STREAM_ID_MAX  # the reserved bit means nothing
        try:
            if state.partial is not None:
                _continuation(state, kind, flags, stream_id, data[start:stop])
            elif kind == DATA:
                if flags & PADDED:
                    _data(state, stream_id, _unpadded(data[start:stop]), length, flags & END_STREAM)
                else:
                    _data(state, stream_id, data[start:stop], length, flags & END_STREAM)
            elif kind == HEADERS:
                if flags & _NOT_PLAIN == END_HEADERS:
                    _headers(state, stream_id, data[start:stop], flags & END_STREAM)
                else:
                    _rare_headers(state, flags, stream_id, data[start:stop])
            else:
                _control(state, kind, flags, stream_id, data[start:stop])
        except StreamFault as fault:
            stream_fault(state, stream_id, fault)
        if state.closed is not None:  # a receiver ended the connection
            break
    return position


def stream_fault(state: ConnectionState, stream_id: int, fault: StreamFault) -> None:
    """Answer an error of one stream: RST_STREAM, and its receiver is told (section 5.4.2)."""
    if state.is_server and fault.code is not ErrorCode.REFUSED_STREAM:
        # A stream refused never reached a handler, so refusing costs no more than the frame itself did;
        # any other reset may leave a handler's work behind (MadeYouReset).
        state.floods.reset(state.now)
    state.queue(rst_stream_frame(stream_id, fault.code))
    state.note_our_reset(stream_id)
    stream = state.streams.get(stream_id)
    if stream is not None:
        state.drop(stream, StreamEnded(fault.code, by_peer=False, text=fault.text))


# -- DATA ----------------------------------------------------------------------------------------------


def _data(state: ConnectionState, stream_id: int, content: bytes, flow: int, end_stream: int) -> None:
    """``flow`` octets count against the windows: padding does, though nobody receives it (section 6.1)."""
    window = state.receive_window
    available = window.available
    if flow > available:
        text = f"DATA of {flow} octets in a connection window of {available}"
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, text)
    window.available = available - flow
    stream = state.streams.get(stream_id)
    if stream is None or stream.state is HALF_CLOSED_REMOTE:
        _late_data(state, stream_id, flow)
        return
    room = state.receive_room(stream)
    stream.unacknowledged += flow
    if flow > room:
        text = f"DATA of {flow} octets in a stream window of {room}"
        raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, text)
    if stream.receive_window is not None:
        stream.receive_window.available = room - flow
    if not stream.headers_received:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "DATA before HEADERS")
    size = len(content)
    if stream.content_left is not None:
        stream.content_left -= size
        if stream.content_left < 0 or (end_stream and stream.content_left):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "DATA differs from content-length")
    if size != flow:
        acknowledge(state, stream, flow - size)
    if size:
        state.floods.empty_data = 0
    elif not end_stream:
        state.floods.empty()
        return
    if not end_stream:
        stream.receiver.data_received(content, False)
        return
    stream.state = AFTER_RECEIVED_END[stream.state]
    stream.receiver.data_received(content, True)
    if stream.state is CLOSED and stream_id in state.streams:
        state.drop(stream)


def _window_of(state: ConnectionState, stream: Stream) -> ReceiveWindow:
    window = stream.receive_window
    if window is None:
        limits = state.limits
        window = ReceiveWindow(limits.stream_window_bytes, limits.stream_window_bytes_max)
        window.available = state.receive_room(stream)
        stream.receive_window = window
    return window


def _late_data(state: ConnectionState, stream_id: int, flow: int) -> None:
    """DATA that no stream takes: its octets go back to the connection's window."""
    if not stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0")
    if stream_id > state.accept_up_to:
        state.give_back(flow)
        return
    require_idle_not(state, stream_id, "DATA")
    state.give_back(flow)
    if flow and stream_id not in state.streams and state.closed_streams.was_under_way(stream_id, flow):
        return
    state.floods.glitch(state.now)
    if stream_id in state.streams or state.closed_streams.ending(stream_id) is not Ending.RESET_BY_US:
        raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after END_STREAM or RST_STREAM")


def acknowledge(state: ConnectionState, stream: Stream, size: int) -> None:
    """The receiver has consumed ``size`` octets of ``stream``: give them back to both windows, in batches.

    Safe on a stream that is gone: what it still held was given back when it went.
    """
    size = min(size, stream.unacknowledged)
    if not size:
        return
    state.give_back(size)
    if stream.state in AFTER_RECEIVED_END:
        increment = _window_of(state, stream).give_back(size)
        if increment:
            state.queue(window_update_frame(stream.id, increment))
    stream.unacknowledged -= size


def lend_window(state: ConnectionState, stream: Stream, size: int) -> None:
    """Let the peer send ``size`` octets more on ``stream``, once: a message is larger than its window.

    Dropped on a stream that receives no more.
    """
    if stream.state not in AFTER_RECEIVED_END:
        return
    _window_of(state, stream).lend(size)
    state.queue(window_update_frame(stream.id, size))


def enlarge_window(state: ConnectionState, stream: Stream, size: int) -> None:
    """Let the peer have ``size`` octets more in flight on ``stream`` for good; dropped as ``lend_window``."""
    if stream.state not in AFTER_RECEIVED_END:
        return
    _window_of(state, stream).enlarge(size)
    state.queue(window_update_frame(stream.id, size))


# -- HEADERS and CONTINUATION ---------------------------------------------------------------------------


def _rare_headers(state: ConnectionState, flags: int, stream_id: int, payload: bytes) -> None:
    """HEADERS with padding or a priority, or without END_HEADERS."""
    self_dependent = False
    if flags & PADDED:
        payload = _unpadded(payload)
    if flags & PRIORITISED:
        if len(payload) < 5:
            raise ConnectionFault(
                ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for the priority it announces"
            )
        self_dependent = int.from_bytes(payload[:4], "big") & STREAM_ID_MAX == stream_id
        payload = payload[5:]
    if flags & END_HEADERS:
        _headers(state, stream_id, payload, flags & END_STREAM, self_dependent)
        return
    _check_opening(state, stream_id)
    state.partial = PartialBlock(stream_id, payload, bool(flags & END_STREAM), self_dependent)


def _continuation(state: ConnectionState, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
    partial = state.partial
    assert partial is not None
    if kind != CONTINUATION or stream_id != partial.stream_id:
        raise ConnectionFault(
            ErrorCode.PROTOCOL_ERROR, f"something else inside the field block of stream {partial.stream_id}"
        )
    limits = state.limits
    partial.continuations += 1
    if partial.continuations > limits.continuations_max:
        raise ConnectionFault(
            ErrorCode.ENHANCE_YOUR_CALM,
            f"over continuations_max={limits.continuations_max} CONTINUATION in a block",
        )
    partial.fragments.append(payload)
    partial.size += len(payload)
    if partial.size > limits.header_block_bytes_max:
        raise ConnectionFault(
            ErrorCode.ENHANCE_YOUR_CALM,
            f"field block over header_block_bytes_max={limits.header_block_bytes_max}",
        )
    if flags & END_HEADERS:
        state.partial = None
        _headers(state, stream_id, b"".join(partial.fragments), partial.end_stream, partial.self_dependent)


def _headers(
    state: ConnectionState, stream_id: int, block: bytes, end_stream: int, self_dependent: bool = False
) -> None:
    stream = state.streams.get(stream_id)
    if stream is None:
        if state.is_server and stream_id > state.highest_id and stream_id & 1:
            _request(state, stream_id, block, end_stream, self_dependent)
        else:
            _late_headers(state, stream_id, block)
    elif stream.state not in AFTER_RECEIVED_END:
        _read_in_vain(state, block)
        raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
    elif self_dependent:
        _read_in_vain(state, block)
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
    elif stream.headers_received:
        _trailers(state, stream, block, end_stream)
    else:
        _response(state, stream, block, end_stream)


def _request(
    state: ConnectionState, stream_id: int, block: bytes, end_stream: int, self_dependent: bool
) -> None:
    """A client opens a stream (section 8.1)."""
    if stream_id > state.accept_up_to:
        # Sent before our GOAWAY was seen: ignored, for the client knows by it to try elsewhere (section 6.8).
        _read_in_vain(state, block)
        return
    if stream_id > state.highest_id + 2:
        state.closed_streams.note_skipped(state.highest_id + 2 - (not state.highest_id), stream_id - 2)
    state.highest_id = stream_id
    if len(state.streams) >= state.limits.streams_max:
        _read_in_vain(state, block)
        raise StreamFault(ErrorCode.REFUSED_STREAM, f"over streams_max={state.limits.streams_max} streams")
    state.streams_opened += 1
    fields = _read(state, block)
    if self_dependent:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
    stream = Stream(stream_id, NOBODY)
    stream.headers_received = True
    stream.content_left = fields.content_length
    if end_stream:
        if fields.content_length:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length without DATA")
        stream.state = HALF_CLOSED_REMOTE
    state.streams[stream_id] = stream
    receiver = state.receiver.request_received(stream, fields, bool(end_stream))
    stream.receiver = receiver


def _response(state: ConnectionState, stream: Stream, block: bytes, end_stream: int) -> None:
    """Informational responses are passed over; the final one is reported (section 8.1)."""
    fields = _read(state, block)
    if fields.status < 200:
        if end_stream:
            raise StreamFault(
                ErrorCode.PROTOCOL_ERROR, f"END_STREAM on an informational response {fields.status}"
            )
        state.floods.glitch(state.now)
        return
    stream.headers_received = True
    if not stream.bodiless and fields.status not in (204, 304):
        stream.content_left = fields.content_length
    _report_headers(state, stream, fields, end_stream)


def _trailers(state: ConnectionState, stream: Stream, block: bytes, end_stream: int) -> None:
    try:
        fields = state.trailing.read(block)
    except HpackError as wrong:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(wrong)) from None
    except Malformed as wrong:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, str(wrong)) from None
    except OverSize as wrong:
        raise StreamFault(ErrorCode.ENHANCE_YOUR_CALM, str(wrong)) from None
    if not end_stream:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers without END_STREAM")
    _report_headers(state, stream, fields, end_stream)


def _report_headers(state: ConnectionState, stream: Stream, fields: FieldBlock, end_stream: int) -> None:
    if not end_stream:
        stream.receiver.headers_received(fields, False)
        return
    if stream.content_left:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "DATA is less than content-length")
    stream.state = AFTER_RECEIVED_END[stream.state]
    stream.receiver.headers_received(fields, True)
    if stream.state is CLOSED and stream.id in state.streams:
        state.drop(stream)


def _late_headers(state: ConnectionState, stream_id: int, block: bytes) -> None:
    """HEADERS for a stream that is not in the table and cannot be opened."""
    _check_opening(state, stream_id)
    ending = state.closed_streams.ending(stream_id)
    if ending is Ending.ENDED:
        raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which has ended")
    _read_in_vain(state, block)
    if state.closed_streams.was_under_way(stream_id, state.limits.frame_bytes_max):
        return  # a response's headers or trailers; no window counts them, so each counts as a whole frame
    state.floods.glitch(state.now)
    if ending is Ending.RESET_BY_PEER:
        raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after RST_STREAM")


def _check_opening(state: ConnectionState, stream_id: int) -> None:
    """Raise for an id on which HEADERS is an error of the connection, whatever the block says."""
    if not stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
    if not stream_id & 1:
        raise ConnectionFault(
            ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}: even ids are the server's to open"
        )
    if not state.is_server and stream_id > state.highest_id:
        raise ConnectionFault(
            ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}, which was never opened"
        )
    if stream_id not in state.streams and state.closed_streams.ending(stream_id) is Ending.SKIPPED:
        raise ConnectionFault(
            ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} opened after stream {state.highest_id}"
        )


def _read(state: ConnectionState, block: bytes) -> FieldBlock:
    try:
        return state.opening.read(block)
    except HpackError as wrong:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(wrong)) from None
    except Malformed as wrong:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, str(wrong)) from None
    except OverSize as wrong:
        # The code that gRPC reads as RESOURCE_EXHAUSTED.
        raise StreamFault(ErrorCode.ENHANCE_YOUR_CALM, str(wrong)) from None


def _read_in_vain(state: ConnectionState, block: bytes) -> None:
    """Decode a block that nobody wants, to keep the table in step."""
    try:
        state.decoder.decode(block, 0, 0)
    except HpackError as wrong:
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(wrong)) from None


def _unpadded(payload: bytes) -> bytes:
    """What stands between the pad length octet and the padding (section 6.1)."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding is as long as the payload or longer")
    return payload[1 : len(payload) - payload[0]]


def _control(state: ConnectionState, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
    handler = CONTROL_FRAMES.get(kind)
    if handler is not None:
        handler(state, flags, stream_id, payload)
    elif kind == CONTINUATION:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without an unfinished field block")
    else:
        state.floods.glitch(state.now)  # an unknown type: ignored (section 5.5)


class _Nobody:
    """Receives for a stream while its request is being reported, when its receiver is not known yet."""

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None: ...
    def data_received(self, data: bytes, end_stream: bool) -> None: ...
    def writable(self) -> None: ...
    def reset(self, error: StreamEnded) -> None: ...


NOBODY: StreamReceiver = _Nobody()
