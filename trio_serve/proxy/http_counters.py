"""What became of HTTP requests, with labels that no client can add to.

Statuses from 400 on are errors; 499 are requests whose client left before it had its answer.
"""

from trio_serve.proxy.counters import OTHER, ProxyCounters, RouteCounters

METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET")
)


class HttpCounters(ProxyCounters):
    """The counters of all routes, by (route prefix, application, method)."""

    def of(self, route: str, application: str, method: str) -> RouteCounters:
        """The counters of a route; "" for what no route matches."""
        return super().of(route, application, method if method in METHODS else OTHER)
