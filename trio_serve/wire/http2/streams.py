"""A stream, and what is remembered of streams that are gone.

Source: RFC 9113 section 5.
Knows nothing of frames.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from enum import Enum
from operator import itemgetter
from typing import Protocol

from .errors import StreamEnded
from .field_sections import FieldBlock
from .header_tables import Fields
from .states import OPEN, State
from .windows import ReceiveWindow, Window

_SKIPPED_RANGES_MAX = 64
_BY_PEER = -1


class StreamReceiver(Protocol):
    """What one stream reports to.  Calls are synchronous; they must neither raise nor wait.

    They may call the connection's sending methods, for this stream or another.
    """

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None:
        """Client: the final response headers, then perhaps trailers.  Server: trailers."""

    def data_received(self, data: bytes, end_stream: bool) -> None:
        """The content of a DATA frame; ``acknowledge`` its length once it is consumed."""

    def writable(self) -> None:
        """``unsent`` was over ``send_high_water`` and has fallen to ``send_low_water`` or less."""

    def reset(self, error: StreamEnded) -> None:
        """The stream ended in another way than END_STREAM both ways or our own ``reset_stream``; once."""


class Stream:
    """One request and its response.

    ``send_window`` is None as long as it stands at the initial size, and ``receive_window`` until half of it
    is consumed: most streams carry a few messages each way and never need a window of their own.
    """

    __slots__ = (
        "bodiless",
        "congested",
        "consumed",
        "content_left",
        "headers_received",
        "id",
        "queue",
        "receive_window",
        "received",
        "receiver",
        "send_window",
        "state",
        "unsent",
    )

    def __init__(self, stream_id: int, receiver: StreamReceiver) -> None:
        self.id = stream_id
        self.state: State = OPEN
        self.receiver = receiver
        self.headers_received = False  # the peer's request or final response headers
        self.bodiless = False  # the response to HEAD: its content-length counts nothing
        self.content_left: int | None = None  # what content-length still promises
        self.received = 0  # octets that counted against the windows,
        self.consumed = 0  # and how many of them were given back
        self.receive_window: ReceiveWindow | None = None
        self.send_window: Window | None = None
        self.unsent = 0  # octets of DATA that wait for a window
        self.congested = False  # unsent went over the high water mark
        self.queue: deque[Unsent] | None = None

    @property
    def unacknowledged(self) -> int:
        """Octets received and not yet given back."""
        return self.received - self.consumed

    def __repr__(self) -> str:
        return f"<Stream {self.id} {self.state.name}>"


class Unsent:
    """A DATA or a trailing HEADERS that waits for its turn; trailers are encoded only when they leave."""

    __slots__ = ("data", "end_stream", "released", "trailers")

    def __init__(self, data: memoryview | None, trailers: Fields | None, end_stream: bool) -> None:
        self.data = data
        self.trailers = trailers
        self.end_stream = end_stream
        self.released = False  # the stream is to be released when this has left


class Ending(Enum):
    """How a stream that is not in the table came to be closed."""

    ENDED = "END_STREAM passed both ways"
    RESET_BY_PEER = "the peer reset it"
    RESET_BY_US = "we reset it"
    SKIPPED = "the peer never opened it, and opened a higher one"


class ClosedStreams:
    """Tells how a closed stream ended, which decides what a late frame on it means.

    Only the exceptions are kept, so a stream that ended well costs nothing; both memories are bounded,
    and what they lost counts as ended.
    """

    __slots__ = ("_resets", "_resets_max", "_skipped")

    def __init__(self, resets_max: int) -> None:
        self._resets: dict[int, int] = {}  # the octets that may still be under way, or _BY_PEER
        self._resets_max = resets_max
        self._skipped: list[tuple[int, int]] = []

    def note_reset(self, stream_id: int, by_us: bool, under_way: int = 0) -> None:
        """``under_way``: octets that the peer was free to send when we reset the stream."""
        resets = self._resets
        resets.pop(stream_id, None)
        resets[stream_id] = under_way if by_us else _BY_PEER
        if len(resets) > self._resets_max:
            del resets[next(iter(resets))]

    def was_under_way(self, stream_id: int, octets: int) -> bool:
        """Whether ``octets`` on a stream that we reset may have left before the peer knew; counts them."""
        left = self._resets.get(stream_id, _BY_PEER)
        if left < octets:
            return False
        self._resets[stream_id] = left - octets
        return True

    def note_skipped(self, first: int, last: int) -> None:
        self._skipped.append((first, last))
        del self._skipped[:-_SKIPPED_RANGES_MAX]

    def ending(self, stream_id: int) -> Ending:
        reset = self._resets.get(stream_id)
        if reset is not None:
            return Ending.RESET_BY_PEER if reset == _BY_PEER else Ending.RESET_BY_US
        place = bisect_right(self._skipped, stream_id, key=itemgetter(0)) - 1
        if place >= 0 and self._skipped[place][0] <= stream_id <= self._skipped[place][1]:
            return Ending.SKIPPED
        return Ending.ENDED
