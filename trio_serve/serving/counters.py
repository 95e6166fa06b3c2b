"""Counters of one method at one replica: plain numbers that whoever exports metrics reads.

Kept as ints and a list, because a metric object with labels costs more than a small call's whole work.
"""

from bisect import bisect_left

LATENCY_BOUNDS_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5,
    1.0, 2.0, 5.0, 10.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Upper bounds of the latency buckets, in seconds; one bucket more takes what is above."""

ERROR_NAMES_MAX = 32
"""Classes of errors told apart for each method; code that makes classes as it runs could else fill memory."""

OTHER_ERRORS = "_OTHER"


class MethodCounters:
    """What became of the calls of one method.

    ``started`` - ``succeeded`` - ``failed`` - ``cancelled`` are at work.  ``latencies`` counts answered work
    by the time that it took, a bucket for each bound; ``seconds`` is the sum.  ``waits`` and ``wait_seconds``
    are the same for the time in the queue of those calls that had to queue; the others did not wait.
    ``errors`` counts what was raised, by the name of its class.
    """

    __slots__ = (
        "cancelled",
        "errors",
        "failed",
        "latencies",
        "seconds",
        "started",
        "succeeded",
        "wait_seconds",
        "waits",
    )

    def __init__(self) -> None:
        self.started = 0
        self.succeeded = 0
        self.failed = 0
        self.cancelled = 0
        self.latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.seconds = 0.0
        self.errors: dict[str, int] = {}
        self.waits = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.wait_seconds = 0.0

    def took(self, seconds: float) -> None:
        """Note how long one call's work took."""
        self.latencies[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.seconds += seconds

    def waited(self, seconds: float) -> None:
        """Note how long one call was queued before its work began."""
        self.waits[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.wait_seconds += seconds

    def raised(self, error: BaseException) -> None:
        """Note what one call's work raised."""
        self.failed += 1
        name = type(error).__name__
        if name not in self.errors and len(self.errors) >= ERROR_NAMES_MAX:
            name = OTHER_ERRORS
        self.errors[name] = self.errors.get(name, 0) + 1
