"""How fast a queue moves, and so how long one that joins it now will wait.

    taken, taken, ... taken        the last takes, all of one busy time
    |<------- mean gap ------>| x (those before me + 1) = the wait to expect

Known only while the queue is never empty: a queue that is taken from as soon as somebody comes moves at the
pace of those who come, and tells nothing of those who serve.  Time that passes without a take counts, so that
a standstill shows.  Where nothing is known the wait is 0.

Pure arithmetic: times come in as arguments.
"""

from collections import deque

TAKES_KEPT = 64
TAKES_NEEDED = 16


class Pace:
    """The takes from one queue in its present busy time; all times in seconds on one clock."""

    __slots__ = ("_takes",)

    def __init__(self) -> None:
        self._takes: deque[float] = deque(maxlen=TAKES_KEPT)

    def taken(self, now: float) -> None:
        """One has left the queue for somebody who serves it, and others still wait."""
        self._takes.append(now)

    def rest(self) -> None:
        """The queue is empty: what comes next begins another busy time."""
        self._takes.clear()

    def expected_wait_s(self, waiting: int, now: float) -> float:
        """How long one that comes behind ``waiting`` others will wait."""
        takes = self._takes
        if len(takes) < TAKES_NEEDED:
            return 0.0
        return (now - takes[0]) / len(takes) * (waiting + 1)
