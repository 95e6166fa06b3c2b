"""Receiving: bytes to frames, and each frame to whom it concerns.

    receive_data --> preface --> walk --> DATA -----------------------> data_frames.py
                                  |  '--> HEADERS, CONTINUATION ------> header_frames.py
                                  |  '--> the rest -------------------> control.py
                                  '--> errors: of a stream, RST_STREAM; of the connection, GOAWAY

DATA and plain HEADERS come first in the walk: they are nearly all there is.  After an error of a stream the
walk goes on with the next frame.

Source: RFC 9113 sections 3.4, 4.1, 4.2 and 5.4.
Knows nothing of what the frames mean.
"""

from __future__ import annotations

import sys
from itertools import repeat

from .control import CONTROL_FRAMES
from .data_frames import take_data
from .errors import ConnectionEnded, ConnectionFault, ErrorCode, StreamEnded, StreamFault
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
    unpadded,
)
from .header_frames import take_continuation, take_headers, take_rare_headers
from .state import ConnectionState, InputPhase

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
                take_continuation(state, kind, flags, stream_id, data[start:stop])
            elif kind == DATA:
                if flags & PADDED:
                    take_data(state, stream_id, unpadded(data[start:stop]), length, flags & END_STREAM)
                else:
                    take_data(state, stream_id, data[start:stop], length, flags & END_STREAM)
            elif kind == HEADERS:
                if flags & _NOT_PLAIN == END_HEADERS:
                    take_headers(state, stream_id, data[start:stop], flags & END_STREAM)
                else:
                    take_rare_headers(state, flags, stream_id, data[start:stop])
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


def _control(state: ConnectionState, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
    handler = CONTROL_FRAMES.get(kind)
    if handler is not None:
        handler(state, flags, stream_id, payload)
    elif kind == CONTINUATION:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without an unfinished field block")
    else:
        state.floods.glitch(state.now)  # an unknown type: ignored (section 5.5)
