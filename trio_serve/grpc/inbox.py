"""The messages that came on one stream and wait to be taken.

    DATA --> put() --> | chunk | chunk |  --> MessageReader --> | message | --> take_nowait() --> the call
                       within the stream's window   only when somebody asks       gives the window back

DATA waits as it came and is cut into messages only when the call asks for one: a peer cannot turn its
window into thousands of small objects, and what nobody asks for is never inflated.  The window is given
back as messages are taken.

A message larger than what is left of the window would never be complete that way.  With a `Loan`, as a
server has, the rest of it is let in when the connection has room; without one, as a client, which asked for
the message, its bytes are given back as they come.

Knows nothing of status or deadlines; client and server use it alike.
"""

from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from grpclib.exceptions import GRPCError

from trio_serve.transport.parking import ParkingPlace
from trio_serve.transport.window_loans import Loan
from trio_serve.wire.grpc import MessageReader

BATCH_BYTES = 256 * 1024
"""What came on a loan goes back to the connection's window in steps of this."""


class EndOfStream(StopAsyncIteration):
    """The peer has sent its last message; ends an ``async for`` as it is."""


class Source(Protocol):
    """Where the window is given back to."""

    def give_back(self, size: int) -> None:
        """``size`` bytes of DATA have been consumed."""


class Inbox:
    """One direction of one call, receiving side."""

    __slots__ = (
        "_asked_at",
        "_chunks",
        "_loan",
        "_messages",
        "_owed",
        "_place",
        "_reader",
        "_source",
        "ended",
        "error",
        "turn",
    )

    def __init__(self, reader: MessageReader, source: Source, loan: Loan | None = None) -> None:
        self._reader = reader
        self._source = source
        self._chunks: deque[bytes] | None = None  # an empty deque takes 760 bytes, in each idle stream
        self._messages: list[bytes] = []  # the last one comes first
        self._owed = 0  # bytes that were cut into messages and not yet given back
        self._loan = loan
        self._asked_at = -1  # what was owed when the loan was asked for; it covers what comes after
        self._place = ParkingPlace()
        self.ended = False
        self.error: BaseException | None = None
        self.turn = 0
        """Messages taken since their taker last let others run, as it counts them."""

    def put(self, data: bytes, end_stream: bool) -> None:
        """DATA came.  Whoever waits is woken only when its message is complete."""
        if data:
            if self._chunks is None:
                self._chunks = deque()
            self._chunks.append(data)
        if end_stream:
            self.ended = True
        if self._place.taken:
            try:
                complete = self._cut()
            except GRPCError as error:
                self.error = error
                complete = True
            if complete or end_stream:
                self._place.wake()

    def fail(self, error: BaseException) -> None:
        """Nothing more can be taken: what waits is dropped, and whoever asks gets ``error``."""
        self.error = self.error or error
        self._chunks = None
        self._messages.clear()
        self._asked_at = -1
        if self._loan is not None:
            self._loan.forget()
        self._place.wake()

    def take_nowait(self) -> bytes | None:
        """The next message, or None while it is not complete.

        Raises:
            EndOfStream: there is none, and there will be none.
            GRPCError: the message is over the limit, does not inflate, or is cut off.
        """
        messages = self._messages
        if not messages:
            if self.error is not None:
                raise self.error
            if not self._cut():
                if not self.ended:
                    return None
                self._reader.end()
                raise EndOfStream
            messages = self._messages
        payload = messages.pop()
        if not messages:
            self._pay(self._owed)
            if self._asked_at >= 0:
                self._repay()
        return payload

    def wait(self) -> Coroutine[Any, Any, None]:
        """Wait until it is worth to `take_nowait` again.  Cancelling loses nothing."""
        self.turn = 0
        return self._place.park()

    def _cut(self) -> bool:
        """Cut chunks into messages until there is one; whether there is."""
        while not self._messages and self._chunks:
            chunk = self._chunks.popleft()
            if not self._chunks:
                self._chunks = None
            self._messages = self._reader.receive(chunk)
            self._messages.reverse()
            self._owed += len(chunk)
            if not self._messages:
                self._let_the_rest_in()
        return bool(self._messages)

    def _let_the_rest_in(self) -> None:
        """A message has begun and is not complete."""
        loan = self._loan
        if loan is None:
            self._pay(self._owed)
        elif self._asked_at >= 0 and loan.is_given():
            if self._owed - self._asked_at >= BATCH_BYTES:
                self._pay(self._owed - self._asked_at)
        elif loan.is_needed(self._reader.missing):
            self._asked_at = self._owed
            loan.ask(self._reader.missing)

    def _repay(self) -> None:
        self._asked_at = -1
        if self._loan is not None:
            self._loan.repay()

    def _pay(self, size: int) -> None:
        self._owed -= size
        if size and not self.ended:
            self._source.give_back(size)
