"""A mailbox: the bounded queue in front of one actor, or of several that share the work.

    put_nowait ──> | oldest ... newest | ──take_nowait──> an actor with room
                        │
                        └── cancelled or expired: answered and gone at once, wherever it stands

Several actors may receive from one mailbox: when one of them dies, what it had not yet received is simply
taken by another.  Full means refused at once; what has expired is dropped first.

Knows nothing of actors: they come and take.
"""

import heapq
from collections import OrderedDict
from itertools import count
from math import inf

import trio

from trio_serve.actors.envelope import Envelope
from trio_serve.actors.errors import DeadlinePassed, MailboxClosed, MailboxFull
from trio_serve.actors.pace import Pace

_COMPACT_FROM = 64  # below this many entries a deadline heap is not worth tidying


class Mailbox:
    """At most ``capacity`` envelopes (None: no limit), first in, first out.

    ``waiting`` holds them in order, for those who look; ``pace`` tells how fast they go, and more.
    """

    def __init__(self, capacity: int | None, name: str = "mailbox") -> None:
        self.capacity = capacity
        self.name = name
        self.waiting: OrderedDict[Envelope, None] = OrderedDict()
        self.pace = Pace()
        self._deadlines: list[tuple[float, int, Envelope]] = []
        self._sequence = count()
        self._alarm: trio.CancelScope | None = None
        self._closed: BaseException | None = None

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def full(self) -> bool:
        """Whether there is no room; looking drops what has expired, if that is needed to make some."""
        capacity = self.capacity
        if capacity is None or len(self.waiting) < capacity:
            return False
        self.drop_expired()
        return len(self.waiting) >= capacity

    def put_nowait(self, envelope: Envelope) -> None:
        """Queue ``envelope``.

        Raises:
            MailboxFull: there is no room, even without what has expired.
            MailboxClosed: ``close`` was called; the cause is the reason given there.
        """
        if self._closed is not None:
            raise MailboxClosed(f"{self.name} is closed: {self._closed}") from self._closed
        if self.full:
            raise MailboxFull(self.name, len(self.waiting), self.capacity or 0)
        if not self.waiting:
            self.pace.filled(trio.current_time())
        self.waiting[envelope] = None
        envelope.queue = self
        if envelope.deadline != inf:
            self._watch(envelope)

    def take_nowait(self) -> Envelope | None:
        """The oldest envelope still worth serving, or None."""
        now = trio.current_time()
        if self._deadlines:
            self._drop_expired(now)
        if not self.waiting:
            return None
        envelope, _ = self.waiting.popitem(last=False)
        envelope.queue = None
        if self.waiting:
            self.pace.taken(now)
        else:
            self.pace.emptied(now)
        return envelope

    def remove(self, envelope: Envelope) -> None:
        """Forget a waiting envelope; its place is free at once."""
        del self.waiting[envelope]
        envelope.queue = None
        if not self.waiting:
            self.pace.emptied(trio.current_time())

    def close(self, reason: BaseException) -> None:
        """Refuse what comes from now on, because of ``reason``; what waits stays."""
        self._closed = reason

    def reopen(self) -> None:
        """Accept envelopes again."""
        self._closed = None

    def answer_all(self, reason: BaseException) -> None:
        """Answer everything that waits with ``reason``: there is nobody left to serve it."""
        for envelope in list(self.waiting):
            envelope.cancel(reason)

    # -- deadlines -------------------------------------------------------------------------------------

    def drop_expired(self) -> None:
        """Answer each waiting envelope whose deadline has passed."""
        self._drop_expired(trio.current_time())

    def _drop_expired(self, now: float) -> None:
        deadlines = self._deadlines
        while deadlines and (deadlines[0][0] <= now or deadlines[0][2].queue is not self):
            deadline, _, envelope = heapq.heappop(deadlines)
            if envelope.queue is self and deadline <= now:
                envelope.cancel(DeadlinePassed("the deadline passed while the call was waiting in the queue"))

    async def expire(self) -> None:
        """Answer each waiting envelope the moment its deadline passes; runs until cancelled.

        Without this task the same envelopes are dropped as soon as anybody puts or takes.
        """
        while True:
            self.drop_expired()
            wake_at = self._deadlines[0][0] if self._deadlines else inf
            with trio.CancelScope(deadline=wake_at) as self._alarm:
                await trio.sleep_forever()

    def _watch(self, envelope: Envelope) -> None:
        deadlines = self._deadlines
        if len(deadlines) > _COMPACT_FROM and len(deadlines) > 2 * len(self.waiting):
            # Entries of envelopes that were taken in time stay behind until their deadline would have
            # come; with long deadlines they would pile up.
            deadlines[:] = [entry for entry in deadlines if entry[2].queue is self]
            heapq.heapify(deadlines)
        heapq.heappush(deadlines, (envelope.deadline, next(self._sequence), envelope))
        if self._alarm is not None and envelope.deadline < self._alarm.deadline:
            self._alarm.deadline = envelope.deadline
