"""What a proxy counts of the requests that it answers: by route, application and method.

Plain numbers that whoever exports metrics reads.  Only names that the operator gave become keys, and what a
client invents counts under `OTHER`, so that no peer can add to the table.
"""

from bisect import bisect_left

from trio_serve.serving.counters import LATENCY_BOUNDS_S

OTHER = "_OTHER"


class RouteCounters:
    """Requests of one method to one route.

    ``by_status`` counts ended ones, by the number of their status.  ``latencies`` has a bucket for each of
    ``LATENCY_BOUNDS_S``, and one more; ``seconds`` is their sum.
    """

    __slots__ = ("by_status", "latencies", "ongoing", "seconds")

    def __init__(self) -> None:
        self.ongoing = 0
        """Requests without an answer yet, where the protocol's own server does not count them."""
        self.by_status: dict[int, int] = {}
        self.latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.seconds = 0.0

    @property
    def requests(self) -> int:
        return sum(self.by_status.values())

    def ended(self, status: int, seconds: float) -> None:
        """Note one request's end."""
        by_status = self.by_status
        by_status[status] = by_status.get(status, 0) + 1
        self.latencies[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class ProxyCounters:
    """The counters of all routes, by (route, application, method)."""

    def __init__(self) -> None:
        self.by_route: dict[tuple[str, str, str], RouteCounters] = {}

    def of(self, route: str, application: str, method: str) -> RouteCounters:
        """The counters of these three, which the operator named, or which are `OTHER`."""
        key = (route, application, method)
        counters = self.by_route.get(key)
        if counters is None:
            counters = self.by_route[key] = RouteCounters()
        return counters

    @property
    def ongoing(self) -> int:
        return sum(counters.ongoing for counters in self.by_route.values())
