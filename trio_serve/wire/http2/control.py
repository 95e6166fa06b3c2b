"""The frames that carry no message: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, RST_STREAM, PRIORITY.

Source: RFC 9113 sections 6.3 to 6.9; RFC 7540 section 5.3.1 for a stream that depends on itself.
Knows nothing of field sections.
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import ConnectionFault, ErrorCode, StreamEnded, StreamFault
from .frames import (
    ACK,
    GOAWAY,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    STREAM_ID_MAX,
    WINDOW_UPDATE,
    ping_frame,
)
from .sending import flush
from .state import ConnectionState, Goaway, InputPhase
from .windows import Window, WindowOverflow


def require_idle_not(state: ConnectionState, stream_id: int, what: str) -> None:
    """Raise when ``stream_id`` was never used: only HEADERS and PRIORITY may come there (section 5.1)."""
    if state.is_idle(stream_id):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on idle stream {stream_id}")


def _require(holds: bool, code: ErrorCode, text: str) -> None:
    if not holds:
        raise ConnectionFault(code, text)


def _settings(state: ConnectionState, flags: int, stream_id: int, payload: bytes) -> None:
    _require(not stream_id, ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
    if flags & ACK:
        _require(not payload, ErrorCode.FRAME_SIZE_ERROR, "SETTINGS with ACK and a payload")
        _settings_acknowledged(state)
        return
    first = state.input_phase is InputPhase.FIRST_SETTINGS
    if not first:
        state.floods.glitch(state.now)
    state.floods.reply()
    peer = state.peer
    initial_window, list_bytes_max = peer.initial_window, peer.header_list_bytes_max
    for table_bytes in peer.apply(payload, from_server=not state.is_server, first=first):
        state.encoder.limit(table_bytes)
    if peer.header_list_bytes_max != list_bytes_max:
        state.encoder.known.clear()  # what the old limit let through may be too large for the new one
    state.input_phase = InputPhase.FRAMES
    if peer.initial_window != initial_window:
        _move_send_windows(state, peer.initial_window - initial_window)
    state.queue(SETTINGS_ACK)
    flush(state)
    state.receiver.settings_received()


def _move_send_windows(state: ConnectionState, difference: int) -> None:
    """INITIAL_WINDOW_SIZE counts for open streams too, and may leave them negative (section 6.9.2)."""
    for stream in state.streams.values():
        if stream.send_window is not None:
            try:
                stream.send_window.widen(difference)
            except WindowOverflow:
                raise ConnectionFault(
                    ErrorCode.FLOW_CONTROL_ERROR,
                    f"INITIAL_WINDOW_SIZE overflows the window of stream {stream.id}",
                ) from None


def _settings_acknowledged(state: ConnectionState) -> None:
    if not state.settings_unacknowledged:
        state.floods.glitch(state.now)
        return
    state.settings_unacknowledged -= 1
    state.decoder.announce(state.limits.header_table_bytes)
    state.receiver.settings_acknowledged()


def _ping(state: ConnectionState, flags: int, stream_id: int, payload: bytes) -> None:
    _require(not stream_id, ErrorCode.PROTOCOL_ERROR, "PING on a stream")
    _require(len(payload) == 8, ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(payload)} octets")
    state.floods.glitch(state.now)
    if flags & ACK:
        state.receiver.ping_acknowledged(payload)
        return
    state.floods.reply()
    state.queue(ping_frame(payload, ack=True))
    state.receiver.ping_received()


def _goaway(state: ConnectionState, flags: int, stream_id: int, payload: bytes) -> None:
    _require(not stream_id, ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
    _require(len(payload) >= 8, ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} octets")
    state.floods.glitch(state.now)
    last_stream_id = int.from_bytes(payload[:4], "big") & STREAM_ID_MAX
    code = int.from_bytes(payload[4:8], "big")
    if state.goaway_from_peer is not None:  # it may never rise (section 6.8)
        last_stream_id = min(last_stream_id, state.goaway_from_peer.last_stream_id)
    state.goaway_from_peer = Goaway(last_stream_id, code)
    if not state.is_server:
        text = "GOAWAY: the server did not process this stream"
        for stream in list(state.streams.values()):
            if stream.id > last_stream_id and stream.id in state.streams:
                state.note_our_reset(stream.id)
                state.drop(stream, StreamEnded(code, by_peer=True, text=text, processed=False))
    state.receiver.goaway_received(last_stream_id, code, payload[8:])


def _window_update(state: ConnectionState, flags: int, stream_id: int, payload: bytes) -> None:
    # Without `_require`, whose text and code would be made each time: C-core sends one with every call.
    if len(payload) != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} octets")
    state.floods.window_update(state.streams_opened, state.data_frames_sent)
    increment = int.from_bytes(payload, "big") & STREAM_ID_MAX
    if not stream_id:
        if not increment:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        try:
            state.send_window.widen(increment)
        except WindowOverflow:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "the connection's window passes 2^31-1"
            ) from None
        flush(state)
        return
    stream = state.streams.get(stream_id)
    if stream is None:
        require_idle_not(state, stream_id, "WINDOW_UPDATE")
        return  # it crossed the stream's end (section 5.1)
    if not increment:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
    if stream.send_window is None:
        stream.send_window = Window(state.peer.initial_window)
    try:
        stream.send_window.widen(increment)
    except WindowOverflow:
        raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "the stream's window passes 2^31-1") from None
    if stream.queue:
        flush(state)


def _rst_stream(state: ConnectionState, flags: int, stream_id: int, payload: bytes) -> None:
    _require(bool(stream_id), ErrorCode.PROTOCOL_ERROR, "RST_STREAM on stream 0")
    _require(len(payload) == 4, ErrorCode.FRAME_SIZE_ERROR, f"RST_STREAM of {len(payload)} octets")
    require_idle_not(state, stream_id, "RST_STREAM")
    stream = state.streams.get(stream_id)
    if stream is None:
        if state.late_resets.pop(stream_id, None) is None:
            state.floods.glitch(state.now)
        return
    if state.is_server:
        state.floods.reset(state.now)
    state.closed_streams.note_reset(stream_id, by_us=False)
    code = int.from_bytes(payload, "big")
    processed = code != ErrorCode.REFUSED_STREAM
    state.drop(stream, StreamEnded(code, by_peer=True, text="the peer reset the stream", processed=processed))


def _priority(state: ConnectionState, flags: int, stream_id: int, payload: bytes) -> None:
    """Checked and dropped: RFC 9113 keeps the frame and gives up what it said (section 5.3.2)."""
    _require(bool(stream_id), ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
    state.floods.priority(state.streams_opened)
    if len(payload) != 5:
        code, text = ErrorCode.FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} octets"
    elif int.from_bytes(payload[:4], "big") & STREAM_ID_MAX == stream_id:
        code, text = ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself"
    else:
        return
    if state.is_idle(stream_id):
        raise ConnectionFault(code, text)  # an idle stream cannot be reset (section 6.4)
    raise StreamFault(code, text)


def _push_promise(state: ConnectionState, flags: int, stream_id: int, payload: bytes) -> None:
    raise ConnectionFault(
        ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE: clients cannot push, and servers may not push to us"
    )


CONTROL_FRAMES: dict[int, Callable[[ConnectionState, int, int, bytes], None]] = {
    PRIORITY: _priority,
    RST_STREAM: _rst_stream,
    SETTINGS: _settings,
    PUSH_PROMISE: _push_promise,
    PING: _ping,
    GOAWAY: _goaway,
    WINDOW_UPDATE: _window_update,
}
