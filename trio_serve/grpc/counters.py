"""What a server counts of each method, as plain integers that anybody may read.

Counting happens in the life of every call, so there are no labels to look up: the method's counters are
resolved with the method, and the metrics export reads them when it is asked.

Source: the meaning of the fields is go-grpc-prometheus': started, handled by code, messages each way,
seconds.
"""

from bisect import bisect_left

from trio_serve.wire.grpc import Status

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class MethodCounters:
    """One method's counts since the server was made."""

    __slots__ = ("handled", "latency_buckets", "latency_sum_s", "received", "sent", "started")

    def __init__(self) -> None:
        self.started = 0
        self.received = 0
        self.sent = 0
        self.handled = [0] * len(Status)
        """How many calls ended with each status, by its number."""
        self.latency_buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)
        """How many calls took at most so long; the last one has no bound.  Not cumulative."""
        self.latency_sum_s = 0.0

    @property
    def running(self) -> int:
        """Calls that have not been answered."""
        return self.started - sum(self.handled)

    def ended(self, status_number: int, seconds: float) -> None:
        self.handled[status_number] += 1
        self.latency_buckets[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.latency_sum_s += seconds


class ServerCounters:
    """What concerns no method."""

    __slots__ = (
        "accept_errors",
        "connection_errors",
        "connections",
        "connections_accepted",
        "refused",
        "unknown",
    )

    def __init__(self) -> None:
        self.connections = 0
        """Open now."""
        self.connections_accepted = 0
        self.connection_errors = 0
        """Connections that ended with an error of ours: each is a bug, and has its trace in the log."""
        self.accept_errors = 0
        self.refused = 0
        """Requests that were no gRPC calls, or malformed ones."""
        self.unknown = MethodCounters()
        """Calls of methods that nobody registered, all together: a peer must not be able to add counters."""
