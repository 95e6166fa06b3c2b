"""What a proxy counts of the requests that it answers: by application, route and method.

    (application, route, method) -> RequestCounters

Plain numbers, resolved with the route; whoever exports metrics reads them.  Only names that the operator
gave become keys: a request for something unknown counts under `OTHER`, so that no peer can add to the table.
"""

from bisect import bisect_left

from trio_serve.serving.counters import LATENCY_BOUNDS_S

OTHER = "_OTHER"


class RequestCounters:
    """Requests answered: how many with each status, and how long they took."""

    __slots__ = ("answered", "latencies", "ongoing", "seconds")

    def __init__(self) -> None:
        self.ongoing = 0
        """Requests without an answer yet, where the protocol's own server does not count them."""
        self.answered: dict[int, int] = {}
        """By status: a gRPC status' number, or an HTTP status code."""
        self.latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)
        """A bucket for each of `LATENCY_BOUNDS_S` and one above; not cumulative."""
        self.seconds = 0.0

    def ended(self, status: int, seconds: float) -> None:
        """Count one answer."""
        answered = self.answered
        answered[status] = answered.get(status, 0) + 1
        self.latencies[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class ProxyCounters:
    """The counters of one proxy."""

    __slots__ = ("by_route",)

    def __init__(self) -> None:
        self.by_route: dict[tuple[str, str, str], RequestCounters] = {}

    def of(self, application: str, route: str, method: str) -> RequestCounters:
        """The counters of these three, which the operator named, or which are `OTHER`."""
        key = (application, route, method)
        counters = self.by_route.get(key)
        if counters is None:
            counters = self.by_route[key] = RequestCounters()
        return counters
