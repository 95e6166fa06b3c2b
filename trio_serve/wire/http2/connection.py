"""One HTTP/2 connection without I/O: bytes in, calls to receivers and bytes out.

    peer's bytes --> receive_data --> ConnectionReceiver, StreamReceiver
                                              | open_stream, send_*, acknowledge, reset_stream
    peer  <--------- data_to_send <-----------'

The verbs live with their subjects, in receiving.py, data_frames.py and sending.py, around the one
ConnectionState.

Source: RFC 9113.
Knows nothing of sockets, time, tasks or gRPC.
"""

from __future__ import annotations

from . import data_frames, receiving, sending
from .errors import ConnectionEnded, ErrorCode
from .frames import PREFACE, goaway_frame, settings_frame, window_update_frame
from .settings import our_settings
from .state import ConnectionState


class Connection(ConnectionState):
    """One side of a connection.

    Nothing here waits, and nothing is sent: after any call ``unsent`` tells how many octets
    ``data_to_send`` would return.
    """

    __slots__ = ()

    receive_data = receiving.receive_data
    receive_eof = receiving.receive_eof
    acknowledge = data_frames.acknowledge
    lend_window = data_frames.lend_window
    enlarge_window = data_frames.enlarge_window

    open_stream = sending.open_stream
    send_headers = sending.send_headers
    send_data = sending.send_data
    send_reply = sending.send_reply
    reset_stream = sending.reset_stream
    release_stream = sending.release_stream
    send_late_resets = sending.send_late_resets
    send_ping = sending.send_ping
    send_goaway = sending.send_goaway

    def start(self) -> None:
        """Queue what the connection opens with: the preface (client), SETTINGS, the connection's window."""
        if not self.is_server:
            self.queue(PREFACE)
        self.queue(settings_frame(our_settings(self.limits, not self.is_server)))
        self.settings_unacknowledged += 1
        increment = self.limits.connection_window_bytes - self.receive_window.size
        if increment:
            self.receive_window.enlarge(increment)
            self.queue(window_update_frame(0, increment))

    def data_to_send(self, bytes_max: int | None = None) -> bytes:
        """Everything queued, which is forgotten here; with ``bytes_max`` a first part of about that size.

        Large messages wait as views.  Joined and sent in parts, they never stand in memory twice.
        """
        pieces = self.pieces
        if bytes_max is not None and self.unsent > bytes_max:
            return self._first_part(bytes_max)
        data = b"".join(pieces)
        pieces.clear()
        self.unsent = 0
        self.floods.replies = 0
        return data

    def _first_part(self, bytes_max: int) -> bytes:
        count = size = 0
        while size < bytes_max:
            size += len(self.pieces[count])
            count += 1
        data = b"".join(self.pieces[:count])
        del self.pieces[:count]
        self.unsent -= size
        return data

    def terminate(self, code: ErrorCode, text: str, debug: bytes = b"") -> None:
        """End the connection for a reason of ours: GOAWAY is queued, then everybody is told ``text``."""
        if self.closed is None:
            self.queue(goaway_frame(self.highest_id if self.is_server else 0, code, debug))
            self.end(ConnectionEnded(code, by_peer=False, text=text))
