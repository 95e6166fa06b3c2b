"""The messages that came on one stream and wait to be taken.

    DATA --> put() --> | chunk | chunk |  --> MessageReader --> | message | --> take_nowait() --> the call
                       within the stream's window   only when somebody asks       gives the window back

DATA waits as it came and is cut into messages only when the call asks for one: a peer cannot turn its
window into thousands of small objects, and what nobody asks for is never inflated.  The window is given
back as messages are taken.

A message larger than what is left of the window would never be complete that way.  A client asked for the
message, so its bytes are given back as they come; a server's inbox (`request_inbox`) borrows room for it.

Knows nothing of status or deadlines.
"""

from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from grpclib.exceptions import GRPCError

from trio_serve.transport.parking import ParkingPlace
from trio_serve.wire.grpc import MessageReader


class EndOfStream(StopAsyncIteration):
    """The peer has sent its last message; ends an ``async for`` as it is."""


class Source(Protocol):
    """Where the window is given back to."""

    def give_back(self, size: int) -> None:
        """``size`` bytes of DATA have been consumed."""


class Inbox:
    """One direction of one call, receiving side.

    What it holds is made when it is needed and let go at once: there may be tens of thousands of idle ones.
    """

    __slots__ = ("_chunks", "_messages", "_owed", "_place", "_reader", "_source", "ended", "error", "turn")

    def __init__(self, source: Source, reader: MessageReader | None) -> None:
        self._source = source
        self._reader = reader
        self._chunks: deque[bytes] | None = None
        self._messages: list[bytes] | None = None  # the last one comes first
        self._owed = 0  # bytes that were cut into messages and not yet given back
        self._place = ParkingPlace()
        self.ended = False
        self.error: BaseException | None = None
        self.turn = 0
        """Messages taken since their taker last let others run, as it counts them."""

    def put(self, data: bytes, end_stream: bool) -> None:
        """DATA came.  Whoever waits is woken only when its message is complete."""
        if end_stream:
            self.ended = True
        if not self._place.taken:
            if data:
                if self._chunks is None:
                    self._chunks = deque()
                self._chunks.append(data)
            return
        try:
            complete = bool(data) and self._cut(data)  # whoever waits has seen that no chunk is left
        except GRPCError as error:
            self.error = error
            complete = True
        if complete or end_stream:
            self._place.wake()

    def fail(self, error: BaseException) -> None:
        """Nothing more can be taken: what waits is dropped, and whoever asks gets ``error``."""
        self.error = self.error or error
        self._chunks = None
        self._messages = None
        self._place.wake()

    def take_nowait(self) -> bytes | None:
        """The next message, or None while it is not complete.

        Raises:
            EndOfStream: there is none, and there will be none.
            GRPCError: the message is over the limit, does not inflate, or is cut off.
        """
        if self._messages is None:
            if self.error is not None:
                raise self.error
            if not self._cut_what_waits():
                if not self.ended:
                    return None
                if self._reader is not None:
                    self._reader.end()
                raise EndOfStream
        messages = self._messages
        assert messages is not None
        payload = messages.pop()
        if not messages:
            self._messages = None
            self._all_taken()
        return payload

    def wait(self) -> Coroutine[Any, Any, None]:
        """Wait until it is worth to `take_nowait` again.  Cancelling loses nothing."""
        self.turn = 0
        return self._place.park()

    def _cut_what_waits(self) -> bool:
        """Cut chunks into messages until there is one; whether there is."""
        chunks = self._chunks
        while chunks:
            chunk = chunks.popleft()
            if not chunks:
                self._chunks = None
            if self._cut(chunk):
                return True
        return False

    def _cut(self, chunk: bytes) -> bool:
        assert self._reader is not None
        messages = self._reader.receive(chunk)
        self._owed += len(chunk)
        if not messages:
            self._let_the_rest_in()
            return False
        messages.reverse()
        self._messages = messages
        return True

    def _let_the_rest_in(self) -> None:
        """A message has begun and is not complete."""
        self._pay(self._owed)

    def _all_taken(self) -> None:
        """Every message that was complete is in use."""
        self._pay(self._owed)

    def _pay(self, size: int) -> None:
        self._owed -= size
        if size and not self.ended:
            self._source.give_back(size)
