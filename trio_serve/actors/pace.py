"""How fast a queue moves, so how long one that joins it will wait; and for how long there has been one.

    filled, taken, taken, ... taken      one busy time: the queue is never empty in it
    |<------- mean gap ------>|          x (those before me + 1) = the wait to expect

    ___########_#######_##########...    the time that it has *stood*: a moment without a queue takes back
       |<------- stood -------->|        twenty times as long

The mean is that of the present busy time, because a queue that is taken from as soon as somebody comes moves
at the pace of those who come, and tells nothing of those who serve.  Time that passes without a take counts,
so that a standstill shows.

A burst makes a queue that goes away; with more calls than can be served it stays, but for a chance moment
now and then.  The factor of twenty says so: what stands has had a queue for 95 % of the time.
Source: CoDel (RFC 8289), which tells good queues from standing ones by whether they get short now and then.

Pure arithmetic: times come in as arguments, in seconds on one clock.
"""

from collections import deque

MARKS_KEPT = 65
TAKES_NEEDED = 8

EMPTY_COUNTS = 20.0
STOOD_MAX_S = 60.0


class Pace:
    """What one queue's comings and goings tell."""

    __slots__ = ("_changed_at", "_marks", "_stood_s")

    def __init__(self) -> None:
        self._marks: deque[float] = deque(maxlen=MARKS_KEPT)  # when it was filled, and the takes since
        self._stood_s = 0.0
        self._changed_at = 0.0

    def restart(self, now: float, waiting: int) -> None:
        """Forget all that was: those who serve have come back, and ``waiting`` had nobody to serve them."""
        self._stood_s = 0.0
        self._changed_at = now
        self._marks.clear()
        if waiting:
            self._marks.append(now)

    def filled(self, now: float) -> None:
        """The first one waits in a queue that was empty."""
        self._stood_s = self.stood_s(now)
        self._changed_at = now
        self._marks.append(now)

    def taken(self, now: float) -> None:
        """One has left the queue for somebody who serves it, and others still wait."""
        self._marks.append(now)

    def emptied(self, now: float) -> None:
        """Nobody waits any more."""
        self._stood_s = self.stood_s(now)
        self._changed_at = now
        self._marks.clear()

    @property
    def is_known(self) -> bool:
        """Whether `expected_wait_s` has seen enough to be more than a guess."""
        return len(self._marks) > TAKES_NEEDED

    def expected_wait_s(self, waiting: int, now: float) -> float:
        """How long one that comes behind ``waiting`` others will wait; 0 while there is no queue."""
        marks = self._marks
        return (now - marks[0]) / len(marks) * (waiting + 1) if marks else 0.0

    def stood_s(self, now: float) -> float:
        """For how long there has been a queue, up to ``STOOD_MAX_S``."""
        since = now - self._changed_at
        if self._marks:
            return min(STOOD_MAX_S, self._stood_s + since)
        return max(0.0, self._stood_s - EMPTY_COUNTS * since)
