"""The metrics of proxies: requests by route and status, and gRPC's own by method.

A method that nobody registered is `OTHER`, all such methods together: labels are names that the operator
gave.

Source of the ``grpc_server_*`` names, labels and codes: go-grpc-prometheus.
"""

from collections.abc import Callable

from trio_serve.grpc.counters import LATENCY_BOUNDS_S as GRPC_BOUNDS_S
from trio_serve.grpc.counters import MethodCounters
from trio_serve.grpc.methods import Method
from trio_serve.grpc.server import STANDARD_SERVICES, Server
from trio_serve.observe.families import Families
from trio_serve.proxy.counters import OTHER, ProxyCounters
from trio_serve.serving.counters import LATENCY_BOUNDS_S
from trio_serve.wire.grpc import Status

MS_PER_S = 1000.0

GO_CODES = {status: "".join(word.capitalize() for word in status.name.split("_")) for status in Status} | {
    Status.OK: "OK",
    Status.CANCELLED: "Canceled",
}


def add_proxy_metrics(protocol: str, counters: ProxyCounters, ongoing: int, families: Families) -> None:
    """Add what the proxy of ``protocol`` ("grpc" or "http") has counted."""
    is_error, code_of = _READING[protocol]
    families.add(f"serve_num_ongoing_{protocol}_requests", (), ongoing)
    for labels, counted in counters.by_route.items():
        for status, count in counted.by_status.items():
            families.add(f"serve_num_{protocol}_requests", (*labels, code_of(status)), count)
            if is_error(status):
                families.add(f"serve_num_{protocol}_error_requests", (*labels, code_of(status)), count)
        families.add_histogram(
            f"serve_{protocol}_request_latency_ms",
            labels,
            LATENCY_BOUNDS_S,
            counted.latencies,
            counted.seconds,
            MS_PER_S,
        )


_READING: dict[str, tuple[Callable[[int], bool], Callable[[int], str]]] = {
    "grpc": (lambda status: status != 0, lambda status: Status(status).name),
    "http": (lambda status: status >= 400, str),
}


def ongoing_calls(server: Server) -> int:
    """Calls of deployments' methods that have no status yet; a health watcher waits for none."""
    return sum(
        counters.running
        for path, counters in server.method_counters.items()
        if not path[1:].startswith(STANDARD_SERVICES)
    )


def add_grpc_server_metrics(server: Server, families: Families) -> None:
    """Add what a gRPC server has counted of each method."""
    for path, counters in server.method_counters.items():
        service, _, name = path[1:].rpartition("/")
        _add_method(counters, (_type_of(server.methods.get(path)), service, name), families)
    _add_method(server.counters.unknown, ("unary", OTHER, OTHER), families)


def _add_method(counters: MethodCounters, labels: tuple[str, str, str], families: Families) -> None:
    families.add("grpc_server_started_total", labels, counters.started)
    for status in Status:
        count = counters.handled[status.value]
        if count or status is Status.OK:
            families.add("grpc_server_handled_total", (*labels, GO_CODES[status]), count)
    families.add("grpc_server_msg_received_total", labels, counters.received)
    families.add("grpc_server_msg_sent_total", labels, counters.sent)
    families.add_histogram(
        "grpc_server_handling_seconds",
        labels,
        GRPC_BOUNDS_S,
        counters.latency_buckets,
        counters.latency_sum_s,
    )


def _type_of(method: Method | None) -> str:
    if method is None:  # it was unregistered
        return "unary"
    kind = method.cardinality.value
    if kind.client_streaming and kind.server_streaming:
        return "bidi_stream"
    if kind.client_streaming:
        return "client_stream"
    return "server_stream" if kind.server_streaming else "unary"
