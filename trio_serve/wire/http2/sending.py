"""Sending: headers, data and whole replies, as far as the windows let them.

    send_reply ---> windows open: one piece of bytes, HEADERS DATA HEADERS
               '-> else: send_headers, send_data, send_headers
    send_data ----> windows open: a DATA frame
               '-> else: the stream's queue, in ``waiting``  -- WINDOW_UPDATE, SETTINGS --> flush

Trailers queue behind unsent DATA, and are encoded only when they leave: the peer decodes blocks in the
order in which it gets them.  What is sent on a stream that is gone is dropped, because the peer's reset
and our answer may always cross.

Source: RFC 9113 sections 5.2, 6.1, 6.2, 6.9, 8.1.
Knows nothing of what the peer may do with it.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from .errors import ConnectionClosing, ErrorCode, HeaderListTooLarge, TooManyStreams
from .frames import (
    DATA,
    END_STREAM,
    FRAME_HEADER_BYTES,
    STREAM_ID_MAX,
    goaway_frame,
    headers_frames,
    pack_frame_header,
    ping_frame,
    reply_frames,
    rst_stream_frame,
)
from .header_tables import Fields, list_size
from .state import ConnectionState
from .states import AFTER_SENT_END, CLOSED, HALF_CLOSED_LOCAL
from .streams import Stream, StreamReceiver, Unsent
from .windows import Window

_lasting_list_size = lru_cache(maxsize=256)(list_size)  # of fields that come again: a method's


def open_stream(
    state: ConnectionState,
    fields: Fields,
    receiver: StreamReceiver,
    end_stream: bool = False,
    changing: Fields = (),
) -> Stream:
    """Client: send a request's headers.

    ``changing`` follows ``fields``: whoever keeps what changes from call to call apart from what does not
    spares the encoder most of its work.

    Raises:
        TooManyStreams: the server's SETTINGS_MAX_CONCURRENT_STREAMS is reached.
        ConnectionClosing: the connection takes no new stream.
        HeaderListTooLarge: the server does not take so many octets of fields.
    """
    if state.is_server:
        raise RuntimeError("a server opens no streams: it never pushes")
    if state.closed is not None or state.goaway_from_peer is not None:
        raise ConnectionClosing("the connection ended" if state.closed else "the server sent GOAWAY")
    peer, encoder = state.peer, state.encoder
    if len(state.streams) >= peer.streams_max:
        raise TooManyStreams(f"the server allows {peer.streams_max} streams, and as many are open")
    limit = peer.header_list_bytes_max
    if limit is not None:
        size = _lasting_list_size(fields) + list_size(changing)
        if size > limit:
            raise HeaderListTooLarge(f"request header list of {size} bytes is over the server's {limit}")
    stream_id = state.highest_id + 2 if state.highest_id else 1
    if stream_id > STREAM_ID_MAX:
        raise ConnectionClosing("the connection has used all its stream ids")
    state.highest_id = stream_id
    state.streams_opened += 1
    stream = state.streams[stream_id] = Stream(stream_id, receiver)
    stream.bodiless = (b":method", b"HEAD") in fields[:4]  # which are the pseudo-fields
    block = encoder.known.get(fields) or encoder.encode(fields)
    if changing:
        block += encoder.encode_changing(changing)
    _emit_block(state, stream, block, end_stream)
    return stream


def send_headers(
    state: ConnectionState,
    stream: Stream,
    fields: Fields,
    end_stream: bool = False,
    changing: Fields = (),
) -> None:
    """Send response headers or trailers; behind what the stream still holds unsent.

    More of them than the client takes end the stream with INTERNAL_ERROR instead.  ``changing`` follows
    ``fields``, as in ``open_stream``.
    """
    if stream.state not in AFTER_SENT_END:
        return
    if stream.queue:
        if not stream.queue[-1].end_stream:
            stream.queue.append(Unsent(None, fields + changing, end_stream))
    else:
        _emit_headers(state, stream, fields, end_stream, changing)


def send_data(
    state: ConnectionState, stream: Stream, data: bytes | memoryview, end_stream: bool = False
) -> None:
    """Send ``data`` as far as the windows allow, and keep the rest in the stream; never waits.

    ``stream.unsent`` tells how much is kept.  Above ``send_high_water`` the caller should stop until
    the receiver's ``writable``.
    """
    size = len(data)
    if stream.state not in AFTER_SENT_END or not (size or end_stream):
        return
    if not stream.queue and size <= state.peer.frame_bytes_max and size <= state.send_window.available:
        window = stream.send_window
        if window is None and not end_stream:  # the last DATA there is needs no window to be counted
            window = stream.send_window = Window(state.peer.initial_window)
        if not size or size <= (state.peer.initial_window if window is None else window.available):
            if window is not None:
                window.available -= size
            state.send_window.available -= size
            state.data_frames_sent += 1
            state.pieces += (
                pack_frame_header(size << 8 | DATA, END_STREAM if end_stream else 0, stream.id),
                data,
            )
            state.unsent += FRAME_HEADER_BYTES + size
            if end_stream:
                _sent_end(state, stream)
            return
    if stream.queue is None:
        stream.queue = deque()
    elif stream.queue and stream.queue[-1].end_stream:
        return
    stream.queue.append(Unsent(memoryview(data), None, end_stream))
    stream.unsent += size
    state.waiting[stream.id] = stream
    _send_queued(state, stream)
    if stream.unsent > state.limits.send_high_water:
        stream.congested = True


def send_reply(
    state: ConnectionState,
    stream: Stream,
    headers: Fields,
    data: bytes,
    trailers: Fields,
    changing: Fields = (),
) -> None:
    """Send a whole unary answer: headers, one DATA, trailers with END_STREAM.

    ``changing`` follows ``trailers``, as in ``open_stream``.
    """
    following = AFTER_SENT_END.get(stream.state)
    if following is None:
        return
    size = len(data)
    window = stream.send_window
    peer = state.peer
    if (
        stream.queue
        or not size
        or size > state.send_window.available
        or size > (peer.initial_window if window is None else window.available)
        or size > peer.frame_bytes_max
    ):
        _send_reply_in_parts(state, stream, headers, data, trailers + changing)
        return
    encoder = state.encoder
    opening, closing = encoder.known.get(headers), encoder.known.get(trailers)
    if opening is None or closing is None:
        if _is_too_large(state, headers) or _is_too_large(state, trailers):
            _send_reply_in_parts(state, stream, headers, data, trailers + changing)
            return
        opening, closing = encoder.encode(headers), encoder.encode(trailers)
    if changing:
        closing += encoder.encode_changing(changing)
    piece = reply_frames(stream.id, opening, data, closing, peer.frame_bytes_max)
    state.send_window.available -= size
    state.data_frames_sent += 1
    state.pieces.append(piece)
    state.unsent += len(piece)
    stream.state = following
    if following is CLOSED:
        state.drop(stream)


def _send_reply_in_parts(
    state: ConnectionState, stream: Stream, headers: Fields, data: bytes, trailers: Fields
) -> None:
    send_headers(state, stream, headers)
    send_data(state, stream, data)
    send_headers(state, stream, trailers, end_stream=True)


def reset_stream(state: ConnectionState, stream: Stream, code: ErrorCode) -> None:
    """End ``stream`` at once with RST_STREAM; its receiver, who knows, is not told."""
    if stream.state is CLOSED:
        return
    state.queue(rst_stream_frame(stream.id, code))
    state.note_our_reset(stream.id)
    state.drop(stream)


def release_stream(state: ConnectionState, stream: Stream, now: float) -> None:
    """Server: nobody reads the rest of this request, whose whole answer is sent or queued (section 8.1).

    A client that is still sending hears so from RST_STREAM(NO_ERROR), but not at once: HAProxy and others
    drop an answer that they read together with the reset behind it.  The stream is over for us as soon as
    the answer has left; its reset waits in ``late_resets`` until ``send_late_resets``, or for ever when the
    client ends the stream by itself, which most do when they have the answer.  There are at most
    ``streams_max`` of them; then the oldest is sent.  ``now`` is in seconds, on ``receive_data``'s clock.
    """
    if stream.queue:
        stream.queue[-1].released = True
    elif stream.state is HALF_CLOSED_LOCAL:
        state.note_our_reset(stream.id)
        if len(state.late_resets) >= state.limits.streams_max:
            _send_late_reset(state, next(iter(state.late_resets)))
        state.late_resets[stream.id] = now
        state.drop(stream)


def send_late_resets(state: ConnectionState, now: float, patience_s: float) -> None:
    """Reset the streams that were released ``patience_s`` ago and that the client has still not ended."""
    for stream_id in [each for each, since in state.late_resets.items() if since + patience_s <= now]:
        _send_late_reset(state, stream_id)


def _send_late_reset(state: ConnectionState, stream_id: int) -> None:
    del state.late_resets[stream_id]
    state.queue(rst_stream_frame(stream_id, ErrorCode.NO_ERROR))


def send_ping(state: ConnectionState, payload: bytes) -> None:
    """``payload`` is 8 octets; they come back in ``ping_acknowledged``."""
    if len(payload) != 8:
        raise ValueError(f"a PING carries 8 octets, not {len(payload)}")
    if state.closed is None:
        state.queue(ping_frame(payload))


def send_goaway(
    state: ConnectionState,
    code: ErrorCode = ErrorCode.NO_ERROR,
    last_stream_id: int | None = None,
    debug: bytes = b"",
) -> None:
    """Tell the peer to open no stream above ``last_stream_id``; None is the highest there is.

    A server that drains first sends 2^31-1, which refuses nothing yet, and a round trip later None:
    streams that the client opened in between are still served.
    """
    if state.closed is not None:
        return
    if not state.is_server:
        last_stream_id = 0  # the server opens none
    elif last_stream_id is None:
        last_stream_id = min(state.highest_id, state.accept_up_to)
    state.accept_up_to = min(state.accept_up_to, last_stream_id)
    state.queue(goaway_frame(last_stream_id, code, debug))


def flush(state: ConnectionState) -> None:
    """Windows have grown: send what waits, a frame a stream in turn."""
    while state.waiting and state.send_window.available > 0:
        sent = False
        for stream in list(state.waiting.values()):
            if stream.queue is not None:
                sent = _send_queued(state, stream, frames=1) or sent
        if not sent:
            return


def _send_queued(state: ConnectionState, stream: Stream, frames: int | None = None) -> bool:
    """Send from the head of the queue, at most ``frames`` DATA frames; whether anything was sent."""
    if stream.send_window is None:
        stream.send_window = Window(state.peer.initial_window)
    sent = False
    while stream.queue:
        unsent = stream.queue[0]
        if unsent.data is not None:
            if frames == 0 or not _emit_data(state, stream, stream.send_window, unsent):
                break
            frames = None if frames is None else frames - 1
        else:
            stream.queue.popleft()
            _emit_headers(state, stream, unsent.trailers or (), unsent.end_stream)
        if unsent.released and not stream.queue:
            release_stream(state, stream, state.now)
        sent = True
    if not stream.queue:
        state.waiting.pop(stream.id, None)
    if stream.congested and stream.state is not CLOSED and stream.unsent <= state.limits.send_low_water:
        stream.congested = False
        stream.receiver.writable()
    return sent


def _emit_data(state: ConnectionState, stream: Stream, window: Window, unsent: Unsent) -> bool:
    """Send as much of ``unsent`` as one frame and the windows hold; False when that is nothing."""
    data = unsent.data
    assert data is not None and stream.queue is not None
    size = min(len(data), state.peer.frame_bytes_max, window.available, state.send_window.available)
    if size <= 0 and len(data):
        return False
    whole = size == len(data)
    end_stream = unsent.end_stream and whole
    if size:
        window.take(size)
        state.send_window.take(size)
    state.data_frames_sent += 1
    state.queue(pack_frame_header(size << 8 | DATA, END_STREAM if end_stream else 0, stream.id))
    state.queue(data[:size])  # a view: large messages are copied once, by data_to_send
    stream.unsent -= size
    if whole:
        stream.queue.popleft()
    else:
        unsent.data = data[size:]
    if end_stream:
        _sent_end(state, stream)
    return True


def _emit_headers(
    state: ConnectionState, stream: Stream, fields: Fields, end_stream: bool, changing: Fields = ()
) -> None:
    encoder = state.encoder
    block = encoder.known.get(fields)
    if block is None:
        if _is_too_large(state, fields):
            reset_stream(state, stream, ErrorCode.INTERNAL_ERROR)
            return
        block = encoder.encode(fields)
    if changing:
        block += encoder.encode_changing(changing)
    _emit_block(state, stream, block, end_stream)


def _is_too_large(state: ConnectionState, fields: Fields) -> bool:
    """Whether the peer takes no header list of this size; what was sent before, it takes."""
    limit = state.peer.header_list_bytes_max
    return limit is not None and fields not in state.encoder.known and list_size(fields) > limit


def _emit_block(state: ConnectionState, stream: Stream, block: bytes, end_stream: bool) -> None:
    frames = headers_frames(stream.id, block, end_stream, state.peer.frame_bytes_max)
    state.pieces.append(frames)
    state.unsent += len(frames)
    if end_stream:
        _sent_end(state, stream)


def _sent_end(state: ConnectionState, stream: Stream) -> None:
    stream.state = AFTER_SENT_END[stream.state]
    if stream.state is CLOSED:
        state.drop(stream)
