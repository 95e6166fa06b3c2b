"""Room for messages larger than a stream's window, lent one by one.

    message of 1 MiB announced, 64 KiB of it here --> ask(missing) --> [queue] --> lent: WINDOW_UPDATE
    message complete --> repay --> in work, until the call is over --> forget

A message can only be used whole, so its stream's window must once be as large as the message; but a hundred
streams that each hold most of a large message would hold a hundred messages.  So the bytes lent on a
connection and those in work, together with the answers that its peer has not taken, stay within
``bytes_max``.  The first in the queue gets its loan when nothing else is lent, however large it is and
however long the handlers take: there is no deadlock.  A peer who takes no answers gets no further loans.

Asking costs a round trip.  A stream of several large messages therefore keeps the room that its first one
needed, as long as what is kept on the connection stays within `KEPT_BYTES_MAX`.

Knows windows and nothing of messages but their size.
"""

from collections.abc import Callable

from trio_serve.wire.http2 import Connection, State, Stream

LOANS_BYTES_MAX = 2 * 1024 * 1024
KEPT_BYTES_MAX = 2 * 1024 * 1024


class WindowLoans:
    """The loans of one connection."""

    __slots__ = ("_bytes_max", "_in_work", "_kept", "_lent", "_wake", "_wire", "waiting")

    def __init__(self, wire: Connection, wake: Callable[[], None], bytes_max: int = LOANS_BYTES_MAX) -> None:
        self._wire = wire
        self._wake = wake  # the writer: handlers ask too, not the reader alone
        self._bytes_max = bytes_max
        self._lent: dict[Stream, int] = {}
        self._in_work: dict[Stream, int] = {}
        self._kept: dict[Stream, int] = {}
        self.waiting: dict[Stream, int] = {}

    def room(self, stream: Stream) -> int:
        """How many bytes more the peer may send on ``stream``."""
        return self._wire.receive_room(stream)

    def has(self, stream: Stream) -> bool:
        """Whether ``stream`` has the loan that it asked for last."""
        return stream in self._lent

    def ask(self, stream: Stream, size: int) -> None:
        """Lend ``size`` bytes when it is this stream's turn; asking again while it waits changes the size."""
        self._in_work.pop(stream, None)  # its last message is done with: here is the next
        self.waiting[stream] = size
        self.lend()

    def repay(self, stream: Stream) -> None:
        """The message is complete and in work from now on.  Safe without a loan."""
        self.waiting.pop(stream, None)
        size = self._lent.pop(stream, None)
        if size is not None:
            self._in_work[stream] = size
            self._keep(stream, size)
            self.lend()

    def forget(self, stream: Stream) -> None:
        """The stream is over: what it had is free."""
        self._kept.pop(stream, None)
        self._in_work.pop(stream, None)
        self._lent.pop(stream, None)
        self.waiting.pop(stream, None)
        self.lend()

    def _keep(self, stream: Stream, size: int) -> None:
        kept = self._kept.get(stream, 0)
        receives = stream.state in (State.OPEN, State.HALF_CLOSED_LOCAL)
        if receives and size > kept and sum(self._kept.values()) - kept + size <= KEPT_BYTES_MAX:
            self._kept[stream] = size
            self._wire.enlarge_window(stream, size - kept)
            self._wake()

    def lend(self) -> None:
        """Serve the queue as far as there is room; to be called when the peer may have taken answers."""
        while self.waiting:
            stream, size = next(iter(self.waiting.items()))
            untaken = sum(other.unsent for other in self._wire.waiting.values())
            lent = sum(self._lent.values())
            if untaken + (lent + sum(self._in_work.values()) + size if lent else 0) > self._bytes_max:
                return
            del self.waiting[stream]
            self._lent[stream] = size
            self._wire.lend_window(stream, size)
            self._wake()


class Loan:
    """What one stream's receiver needs of `WindowLoans`."""

    __slots__ = ("_loans", "_stream")

    def __init__(self, loans: WindowLoans, stream: Stream) -> None:
        self._loans = loans
        self._stream = stream

    def is_needed(self, size: int) -> bool:
        """Whether the peer's window does not hold ``size`` bytes more.

        What was consumed but not announced yet counts as closed: a batch of it may never fill up.
        """
        return size > self._loans.room(self._stream)

    def is_given(self) -> bool:
        return self._loans.has(self._stream)

    def ask(self, size: int) -> None:
        self._loans.ask(self._stream, size)

    def repay(self) -> None:
        self._loans.repay(self._stream)

    def forget(self) -> None:
        self._loans.forget(self._stream)
