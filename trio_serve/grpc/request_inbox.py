"""A server's inbox: room for a large message is borrowed, and an idle stream keeps next to nothing.

    DATA, one whole message ------------------------------> taken as it is; nearly every one
    DATA with several, or a part of one ---> MessageReader, made now
    a part, and the window too small for the rest ---> Loan, made now

Bytes of a message are given back when it is taken, so that a handler that does not read holds the peer
back.  A message larger than the window is let in when the connection has room to lend.

Knows nothing of status or deadlines.
"""

from typing import Protocol

from trio_serve.grpc.inbox import Inbox, Source
from trio_serve.transport.window_loans import Loan
from trio_serve.wire.grpc import MessageReader, whole_message

BATCH_BYTES = 256 * 1024
"""What came on a loan goes back to the connection's window in steps of this."""


class RequestSource(Source, Protocol):
    """The call whose requests these are."""

    def open_reader(self) -> MessageReader:
        """A reader for what the client said it would send."""

    def open_loan(self) -> Loan:
        """The stream's account with the connection."""


class RequestInbox(Inbox):
    """The messages of one call that a server receives."""

    __slots__ = ("_asked_at", "_loan", "_message_bytes_max")

    _source: RequestSource

    def __init__(self, source: RequestSource, message_bytes_max: int) -> None:
        super().__init__(source, None)
        self._message_bytes_max = message_bytes_max
        self._loan: Loan | None = None
        self._asked_at = -1  # what was owed when the loan was asked for; it covers what comes after

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        self._asked_at = -1
        if self._loan is not None:
            self._loan.forget()

    def _cut(self, chunk: bytes) -> bool:
        if self._reader is None:
            payload = whole_message(chunk, self._message_bytes_max)
            if payload is not None:
                self._owed += len(chunk)
                self._messages = [payload]
                return True
            self._reader = self._source.open_reader()
        return super()._cut(chunk)

    def _let_the_rest_in(self) -> None:
        assert self._reader is not None
        missing = self._reader.missing
        loan = self._loan
        if loan is None:
            loan = self._loan = self._source.open_loan()
        if self._asked_at >= 0 and loan.is_given():
            if self._owed - self._asked_at >= BATCH_BYTES:
                self._pay(self._owed - self._asked_at)
        elif loan.is_needed(missing):
            self._asked_at = self._owed
            loan.ask(missing)

    def _all_taken(self) -> None:
        self._pay(self._owed)
        if self._asked_at >= 0:
            self._asked_at = -1
            assert self._loan is not None
            self._loan.repay()
