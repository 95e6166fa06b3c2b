"""DATA: octets for a stream's receiver, counted against the windows on their way.

    receive_data --> DATA --> windows --> content-length --> data_received
                                 ^                                | the receiver has consumed it
                                 '--- WINDOW_UPDATE, in batches --+-- acknowledge

Padding counts against the windows, though nobody receives it.  What comes for a stream that is gone is
dropped, and the connection gets its octets back at once.

Source: RFC 9113 sections 5.2, 6.1, 6.9 and 8.1.1 (content-length).
Knows nothing of what the octets are.
"""

from __future__ import annotations

from .control import require_idle_not
from .errors import ConnectionFault, ErrorCode, StreamFault
from .frames import window_update_frame
from .state import ConnectionState
from .states import AFTER_RECEIVED_END, CLOSED, HALF_CLOSED_REMOTE
from .streams import Ending, Stream
from .windows import ReceiveWindow


def take_data(state: ConnectionState, stream_id: int, content: bytes, flow: int, end_stream: int) -> None:
    """``flow`` octets count against the windows: padding does, though nobody receives it (section 6.1)."""
    window = state.receive_window
    available = window.available
    if flow > available:
        text = f"DATA of {flow} octets in a connection window of {available}"
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, text)
    window.available = available - flow
    stream = state.streams.get(stream_id)
    if stream is None or stream.state is HALF_CLOSED_REMOTE:
        _late_data(state, stream_id, flow, end_stream)
        return
    room = state.receive_room(stream)
    stream.received += flow
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
        window.consumed = stream.consumed
        stream.receive_window = window
    return window


def _late_data(state: ConnectionState, stream_id: int, flow: int, end_stream: int) -> None:
    """DATA that no stream takes: its octets go back to the connection's window."""
    if not stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0")
    if stream_id > state.accept_up_to:
        state.give_back(flow)
        return
    require_idle_not(state, stream_id, "DATA")
    state.give_back(flow)
    if end_stream and state.late_resets.pop(stream_id, None) is not None:
        return
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
        half_consumed = 2 * (stream.consumed + size) >= state.limits.stream_window_bytes
        if half_consumed or stream.receive_window is not None:
            increment = _window_of(state, stream).give_back(size)
            if increment:
                state.queue(window_update_frame(stream.id, increment))
    stream.consumed += size


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
