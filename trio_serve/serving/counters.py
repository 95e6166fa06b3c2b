"""Counters of one method at one replica: plain numbers that whoever exports metrics reads.

Kept as ints and a list, because a metric object with labels costs more than a small call's whole work.
"""

from bisect import bisect_left

LATENCY_BOUNDS_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5,
    1.0, 2.0, 5.0, 10.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Upper bounds of the latency buckets, in seconds; one bucket more takes what is above."""


class MethodCounters:
    """What became of the calls of one method.

    ``started`` - ``succeeded`` - ``failed`` - ``cancelled`` are at work.  ``latencies`` counts answered work
    by the time that it took, a bucket for each bound; ``seconds`` is the sum.  ``queued_seconds`` is the
    time between the making of calls and the start of their work.
    """

    __slots__ = ("cancelled", "failed", "latencies", "queued_seconds", "seconds", "started", "succeeded")

    def __init__(self) -> None:
        self.started = 0
        self.succeeded = 0
        self.failed = 0
        self.cancelled = 0
        self.latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.seconds = 0.0
        self.queued_seconds = 0.0

    def took(self, seconds: float) -> None:
        """Note how long one call's work took."""
        self.latencies[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.seconds += seconds
