"""What became of HTTP requests: plain numbers that whoever exports metrics reads.

Knows routes, methods and statuses as labels, and bounds them: of methods those that HTTP has, of routes those
that applications have.
"""

from bisect import bisect_left

from trio_serve.serving.counters import LATENCY_BOUNDS_S

OTHER = "_OTHER"
METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET")
)


class RouteCounters:
    """Requests of one method to one route.

    ``by_status`` counts ended ones; 499 are those whose client left before it had its answer.  ``latencies``
    has a bucket for each of ``LATENCY_BOUNDS_S``, and one more; ``seconds`` is their sum.
    """

    __slots__ = ("by_status", "latencies", "ongoing", "seconds")

    def __init__(self) -> None:
        self.ongoing = 0
        self.by_status: dict[int, int] = {}
        self.latencies = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.seconds = 0.0

    @property
    def requests(self) -> int:
        return sum(self.by_status.values())

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.by_status.items() if status >= 400)

    def ended(self, status: int, seconds: float) -> None:
        """Note one request's end."""
        self.by_status[status] = self.by_status.get(status, 0) + 1
        self.latencies[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class HttpCounters:
    """The counters of all routes, by (route prefix, application, method)."""

    def __init__(self) -> None:
        self.by_route: dict[tuple[str, str, str], RouteCounters] = {}

    def of(self, prefix: str, application: str, method: str) -> RouteCounters:
        """The counters of a route; "" for what no route matches."""
        key = (prefix, application, method if method in METHODS else OTHER)
        counters = self.by_route.get(key)
        if counters is None:
            counters = self.by_route[key] = RouteCounters()
        return counters

    @property
    def ongoing(self) -> int:
        return sum(counters.ongoing for counters in self.by_route.values())
