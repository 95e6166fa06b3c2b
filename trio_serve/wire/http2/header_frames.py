"""HEADERS and CONTINUATION: what opens a stream, answers on it, or ends it with trailers.

    HEADERS -- END_HEADERS -----------------> headers --> request_received     a new stream   (server)
       '------ CONTINUATION ... END_HEADERS ----^    '--> headers_received     its response   (client)
                                                     '--> headers_received     its trailers

Whatever becomes of a stream, its block is decoded, or every later one on the connection would be read
against the wrong table.

Source: RFC 9113 sections 4.3, 5.1.1, 6.2, 6.10 and 8.1.
Knows nothing of HPACK, and nothing of what the fields mean.
"""

from __future__ import annotations

from .errors import ConnectionFault, ErrorCode, StreamEnded, StreamFault
from .field_rules import Malformed
from .field_sections import FieldBlock, OverSize, SectionReader
from .frames import CONTINUATION, END_HEADERS, END_STREAM, PADDED, PRIORITISED, STREAM_ID_MAX, unpadded
from .header_tables import HpackError
from .state import ConnectionState, PartialBlock
from .states import AFTER_RECEIVED_END, CLOSED, HALF_CLOSED_REMOTE
from .streams import Ending, Stream, StreamReceiver


def take_rare_headers(state: ConnectionState, flags: int, stream_id: int, payload: bytes) -> None:
    """HEADERS with padding or a priority, or without END_HEADERS."""
    self_dependent = False
    if flags & PADDED:
        payload = unpadded(payload)
    if flags & PRIORITISED:
        if len(payload) < 5:
            raise ConnectionFault(
                ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for the priority it announces"
            )
        self_dependent = int.from_bytes(payload[:4], "big") & STREAM_ID_MAX == stream_id
        payload = payload[5:]
    if flags & END_HEADERS:
        take_headers(state, stream_id, payload, flags & END_STREAM, self_dependent)
        return
    _check_opening(state, stream_id)
    state.partial = PartialBlock(stream_id, payload, bool(flags & END_STREAM), self_dependent)


def take_continuation(state: ConnectionState, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
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
        take_headers(
            state, stream_id, b"".join(partial.fragments), partial.end_stream, partial.self_dependent
        )


def take_headers(
    state: ConnectionState, stream_id: int, block: bytes, end_stream: int, self_dependent: bool = False
) -> None:
    stream = state.streams.get(stream_id)
    if stream is None:
        if state.is_server and stream_id > state.highest_id and stream_id & 1:
            _request(state, stream_id, block, end_stream, self_dependent)
        else:
            _late_headers(state, stream_id, block, end_stream)
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
    fields = _read(state.opening, block)
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
    fields = _read(state.opening, block)
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
    fields = _read(state.trailing, block)
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


def _late_headers(state: ConnectionState, stream_id: int, block: bytes, end_stream: int) -> None:
    """HEADERS for a stream that is not in the table and cannot be opened."""
    _check_opening(state, stream_id)
    ending = state.closed_streams.ending(stream_id)
    if ending is Ending.ENDED:
        raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which has ended")
    _read_in_vain(state, block)
    if end_stream and state.late_resets.pop(stream_id, None) is not None:
        return
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


def _read(reader: SectionReader, block: bytes) -> FieldBlock:
    try:
        return reader.read(block)
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


class _Nobody:
    """Receives for a stream while its request is being reported, when its receiver is not known yet."""

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None: ...
    def data_received(self, data: bytes, end_stream: bool) -> None: ...
    def writable(self) -> None: ...
    def reset(self, error: StreamEnded) -> None: ...


NOBODY: StreamReceiver = _Nobody()
